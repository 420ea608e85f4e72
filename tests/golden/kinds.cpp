#include "kinds.hpp"

#include <fnmatch.h>

namespace capsfw::golden {

bool matches(const std::string& name, const std::string& pattern) {
  return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

const Kind* find_kind(const std::string& name) {
  for (const auto kinds : {capsule_kinds(), cluster_kinds(), op_kinds(), em_kinds(),
                           training_kinds(), net_kinds(), text_kinds(), penalty_kinds()})
    for (const Kind& kind : kinds)
      if (matches(name, kind.pattern)) return &kind;
  return nullptr;
}

}  // namespace capsfw::golden

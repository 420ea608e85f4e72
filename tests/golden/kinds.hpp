#pragma once
// Which public functions and layers compute which kind of case. A kind is known by its name;
// shapes, values and hyper-parameters come from the file.

#include <span>
#include <string>

#include "case.hpp"

namespace capsfw::golden {

/// Computes the outputs of a case (more than the file holds do not matter). It must read all that
/// the case gives, and throw for a value that it cannot honour.
using Run = Named (*)(Case&);

struct Kind {
  const char* pattern;  ///< a name "theme.case", where * stands for anything
  Run run;
};

std::span<const Kind> capsule_kinds();   ///< squash, votes, routing, net
std::span<const Kind> cluster_kinds();   ///< cluster, objective
std::span<const Kind> op_kinds();        ///< ops
std::span<const Kind> em_kinds();        ///< em, conv, net.matrix_capsnet
std::span<const Kind> penalty_kinds();   ///< penalty
std::span<const Kind> training_kinds();  ///< loss, optim
std::span<const Kind> net_kinds();       ///< net: gates and scores
std::span<const Kind> text_kinds();      ///< net.text_capsule

/// The first kind whose pattern fits; null if none does.
const Kind* find_kind(const std::string& name);

/// True if `name` fits a pattern with wildcards * and ?.
bool matches(const std::string& name, const std::string& pattern);

}  // namespace capsfw::golden

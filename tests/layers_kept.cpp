// The functions of the routings, called without a module: a mask of the parents that does not fit.

#include <functional>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <capsfw/core/random.hpp>
#include <capsfw/layers/baseline_routings.hpp>
#include <capsfw/layers/dynamic_routing.hpp>
#include <capsfw/layers/em_routing.hpp>
#include <capsfw/layers/entropy_routing.hpp>
#include <capsfw/layers/heinsen_routing.hpp>
#include <capsfw/layers/inverted_attention_routing.hpp>
#include <capsfw/layers/kmeans_routing.hpp>
#include <capsfw/layers/self_attention_routing.hpp>
#include <capsfw/layers/self_routing.hpp>
#include <capsfw/layers/variational_routing.hpp>
#include <capsfw/ops/layout.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

struct Named {
  std::string name;
  std::function<Routed(const Tensor& kept)> route;
};

/// On votes [2, 3, 4, 5].
std::vector<Named> routings() {
  Rng rng(1);
  const Tensor v = rng.normal({2, 3, 4, 5}, 0, 1), a = ones({2, 3}), beta = zeros({4});
  const Tensor poses = rng.normal({2, 3, 6}, 0, 1), weight = rng.normal({3, 4, 6}, 0, 1);
  return {
      {"heinsen_routing", [=](auto& k) { return heinsen_routing(v, a, beta, beta, {}, k); }},
      {"variational_routing",
       [=](auto& k) { return variational_routing(v, a, beta, beta, {}, k); }},
      {"inverted_attention_routing",
       [=](auto& k) { return inverted_attention_routing(v, {}, {}, {}, k); }},
      {"self_routing",
       [=](auto& k) {
         return self_routing(v, poses, a, weight, zeros({3, 4}), k);
       }},
      {"self_attention_routing", [=](auto& k) { return self_attention_routing(v, {}, {}, k); }},
      {"kmeans_routing", [=](auto& k) { return kmeans_routing(v, {}, {}, k); }},
      {"entropy_routing", [=](auto& k) { return entropy_routing(v, {}, {}, k); }},
  };
}

}  // namespace

TEST_CASE("functions of routings: a mask of parents that does not fit is refused by name") {
  for (const Named& r : routings()) {
    CAPTURE(r.name);
    r.route(ones({2, 4}, DType::b8));
    CHECK(message_of<ShapeError>([&] {
            r.route(ones({2, 1}, DType::b8));
          }) == r.name + ": 'kept' must be [2, 4] for votes [2, 3, 4, 5]; got [2, 1]");
    CHECK(message_of<DTypeError>([&] {
            r.route(ones({2, 4}));
          }) == r.name + ": 'exists' and 'kept' must be b8; got f32");
    const Tensor half = cat({ones({1, 4}, DType::b8), zeros({1, 4}, DType::b8)});
    CHECK(message_of<ValueError>([&] { r.route(half); }) ==
          r.name + ": the mask keeps no upper capsule of some sample");
  }
}

TEST_CASE("dynamic and EM routing, and modules, name themselves where no parent is kept") {
  Rng rng(1);
  const Tensor v = rng.normal({2, 3, 4, 5}, 0, 1), a = ones({2, 3}), beta = zeros({4});
  const Tensor half = cat({ones({1, 4}, DType::b8), zeros({1, 4}, DType::b8)});
  const std::string rest = ": the mask keeps no upper capsule of some sample";
  for (const Agreement agreement : {Agreement::dot, Agreement::cosine})
    CHECK(message_of<ValueError>([&] {
            dynamic_routing(v, {.agreement = agreement}, {.mask = half});
          }) == "dynamic_routing" + rest);
  CHECK(message_of<ValueError>([&] {
          em_routing(v, a, beta, beta, {1, 1}, {.kept = half});
        }) == "em_routing" + rest);
  UniformRouting uniform({.children = 3, .parents = 4, .dim = 5}, {}, rng);
  CHECK(message_of<ValueError>([&] { uniform({.votes = v, .kept = half}); }) ==
        "uniform_routing" + rest);
}

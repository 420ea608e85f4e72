// What a routing keeps: the number of its iterations, and parameters for a number of children.

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "layers_routing_table.hpp"
#include "ops_support.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing::routings;
using capsfw::testing::max_difference;
using capsfw::testing::same_bits;

TEST_CASE("every routing: other numbers of iterations lead back to the first one") {
  const Setup s;
  const Votes v = s.draw();
  std::vector<std::string> list = specs();
  list.insert(list.end(), {"em:lambdas=0.5/0.01/3", "entropy:alphas=1/0.2/0.7"});
  for (const std::string& spec : list) {
    CAPTURE(spec);
    const auto routing = s.make(spec);
    const int first = routing->iterations();
    const Tensor before = (*routing)(v).poses;
    for (const int other : {1, first + 2}) {
      try {
        routing->set_iterations(other);
      } catch (const ValueError&) {
        CHECK_FALSE(RoutingSpec(spec).has("iterations"));
        continue;
      }
      CHECK(routing->iterations() == other);
      CHECK(all(isfinite((*routing)(v).poses)));
      routing->set_iterations(first);
      if (spec == "random") continue;  // draws anew
      CHECK(same_bits((*routing)(v).poses, before));
    }
  }
}

TEST_CASE("every routing: the number that leaves couplings uniform does") {
  const Setup s;
  for (const std::string& spec : specs()) {
    CAPTURE(spec);
    const auto routing = s.make(spec);
    const int none = routing->uniform_iterations();
    Rng rng(8);
    for (Tensor& p : routing->parameters()) p.copy_(rng.normal(p.shape(), 0, 1, p.dtype()));
    if (none < 0) continue;
    routing->set_iterations(none);
    const Tensor c = (*routing)(s.draw()).couplings;
    CHECK(max_difference(c, broadcast_to(narrow(c, 2, 0, 1), c.shape())) < 1e-12);
  }
}

TEST_CASE(
    "every routing: parameters for every child are refused for other children, on every path") {
  Setup s;
  s.b = 8;  // enough for the kernels of products
  s.i = 20;
  Rng rng(5);
  for (const DType dtype : {DType::f32, DType::f64}) {
    s.dtype = dtype;
    std::vector<std::string> list = specs();
    list.emplace_back("heinsen:each");
    for (const std::string& spec : list) {
      CAPTURE(spec);
      const auto routing = s.make(spec);
      if (has_prior(spec) || spec == "heinsen:each" || spec == "self-routing")
        CHECK(routing->fixes_children());
      if (!routing->fixes_children()) continue;
      const Tensor shared = rng.normal({s.j, s.d, s.e}, 0, 1, dtype);
      if (spec == "dynamic:prior" || spec == "kmeans:prior") {  // the kernels take the right number
        const Tensor u = rng.normal({s.b, s.i, s.e}, 0, 1, dtype);
        CHECK(routing->route_product({u, shared}, {}).has_value());
        CHECK(routing->route_product({u, rng.normal({s.i, s.j, s.d, s.e}, 0, 1, dtype)}, {})
                  .has_value());
        CHECK(routing->route_windows({{cat({u, u}, 1), shared}, s.i, 5}, {}).has_value());
      }
      for (const std::int64_t i : {3, 19, 21, 40}) {
        const Tensor u = rng.normal({s.b, i, s.e}, 0, 1, dtype),
                     full = rng.normal({i, s.j, s.d, s.e}, 0, 1, dtype);
        for (const Tensor& weight : {shared, full}) {
          const VoteProduct p{u, weight};
          CHECK_THROWS_AS((*routing)({.votes = p.votes(), .poses = u}), ShapeError);
          const auto by_product = [&] {
            if (!routing->route_product(p, {.votes = {}, .poses = u}))
              throw ShapeError("no kernel");
          };
          CHECK_THROWS_AS(by_product(), ShapeError);
        }
        if (i <= s.i) continue;
        const auto by_windows = [&] {
          if (!routing->route_windows({{u, shared}, i - 2, 1}, {})) throw ShapeError("no kernel");
        };
        CHECK_THROWS_AS(by_windows(), ShapeError);
      }
    }
  }
}

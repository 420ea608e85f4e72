// The bits of a routing do not depend on where its arrays lie: a loop that the compiler has in two
// versions, one for arrays that are apart and one for neighbours, may round in two ways.

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/layers/capsules.hpp>
#include <capsfw/layers/routing_table.hpp>
#include <capsfw/ops/arithmetic.hpp>

#include "support.hpp"

using namespace capsfw;
using capsfw::testing::bytes_of;

TEST_CASE("every routing has the same bits wherever its arrays lie") {
  constexpr std::int64_t kI = 12, kE = 8, kJ = 10, kD = 16;
  for (const RoutingKind& kind : routing_kinds()) {
    const std::string routing = kind.name;
    CAPTURE(routing);
    for (const std::int64_t batch : {1, 3, 8}) {
      CAPTURE(batch);
      Rng rng(1), places(2);
      DenseCapsules layer(kI, kE, kJ, kD, rng, {.routing = routing});
      layer.eval();
      const Tensor u = rng.normal({batch, kI, kE}, 0, 1), g = rng.normal({batch, kJ, kD}, 0, 1);
      std::string expected;
      TensorList between;
      for (int i = 0; i < (capsfw::testing::kSanitized ? 6 : 100); ++i) {
        if (between.size() > 30) between.erase(between.begin() + places.below(30));
        between.push_back(i % 2 == 0 ? empty_like(g) : empty_like(u));
        const Tensor x = empty_like(u).copy_(u).requires_grad_();
        const Tensor y = layer.route(x).poses;
        std::string bits = bytes_of(y);
        TensorList inputs = layer.parameters();
        inputs.push_back(x);
        for (const Tensor& t : grad({y}, inputs, {g}, {.allow_unused = true}))
          if (t.defined()) bits += bytes_of(t);
        if (expected.empty()) expected = bits;
        REQUIRE(bits == expected);
      }
    }
  }
}

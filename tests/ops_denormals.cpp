// Products read numbers below the normal range as 0, where the processor can; all else keeps them.

#include <doctest/doctest.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/conv.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>

#include "../core/simd.hpp"
#include "support.hpp"

using namespace capsfw;
using capsfw::testing::largest;
using capsfw::testing::values;

namespace {

constexpr double kTiny = 1e-40, kHuge = 1e35;  // kTiny · kHuge is 1e-5

/// What a product of tiny and huge numbers may be: n · 1e-5, or 0.
double expected(double n) { return detail::flushes_denormals() ? 0 : n * 1e-5; }

}  // namespace

TEST_CASE("denormal numbers count as 0 in products") {
  for (const std::int64_t n : {4, 300}) {
    CAPTURE(n);
    CHECK(values(matmul(full({n, n}, kTiny), full({n, n}, kHuge)))[0] ==
          doctest::Approx(expected(static_cast<double>(n))));
  }
  for (const ConvAlgorithm algorithm : {ConvAlgorithm::direct, ConvAlgorithm::automatic}) {
    const Tensor y = conv2d(full({2, 32, 20, 20}, kTiny), full({32, 32, 3, 3}, kHuge), {},
                            {.algorithm = algorithm});
    CHECK(largest(y) == doctest::Approx(expected(32 * 9)).epsilon(1e-3));
  }
}

TEST_CASE("denormal numbers are kept elsewhere, also behind a product") {
  const Tensor tiny = full({100}, kTiny);
  matmul(full({300, 300}, kTiny), full({300, 300}, kHuge));
  CHECK(largest(tiny * kHuge) == doctest::Approx(1e-5).epsilon(1e-4).scale(0));
  CHECK(largest(sum(tiny)) == doctest::Approx(1e-38).epsilon(1e-4).scale(0));
  CHECK(largest(tiny * 0.5) > 0);
}

#include "ops_support.hpp"

#include <cmath>
#include <limits>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/normalize.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

using namespace capsfw;
using namespace capsfw::test;

namespace {

/// x³ with the gradient that `vjp` claims.
Function cube(const CustomVjp& vjp) {
  return [vjp](const TensorList& in) {
    return custom_vjp(
        "cube", in, [](const TensorList& x) { return TensorList{x[0] * x[0] * x[0]}; }, vjp);
  };
}

void check_fails(const GradcheckResult& r, const char* part) {
  CHECK_FALSE(r.ok);
  CHECK_FALSE(static_cast<bool>(r));
  CHECK_MESSAGE(r.message.find(part) != std::string::npos, r.message);
}

}  // namespace

TEST_CASE("gradcheck accepts a right gradient of the user's own") {
  const Function right = cube([](const TensorList& x, const TensorList&, const TensorList& gy) {
    return TensorList{gy[0] * square(x[0]) * 3.0};
  });
  check_gradients(right, {random({2, 3})});
  CHECK(gradcheck(right, {random({2, 3})}).message == "gradcheck: 9 derivatives agree");
  // More elements than options.components: directions alone.
  CHECK(gradcheck(right, {random({5, 20})}).message == "gradcheck: 3 derivatives agree");
  CHECK(gradcheck(right, {random({5, 20})}, {.components = 100}).message ==
        "gradcheck: 103 derivatives agree");
  CHECK(gradcheck(right, {random({0, 3})}).ok);
}

TEST_CASE("gradcheck catches a wrong gradient and names where and how much") {
  const Function factor = cube([](const TensorList& x, const TensorList&, const TensorList& gy) {
    return TensorList{gy[0] * square(x[0]) * 3.003};
  });
  const GradcheckResult r = gradcheck(factor, {random({2, 3})});
  check_fails(r, "gradcheck: input 0 [2, 3], ");
  check_fails(r, "numeric");
  check_fails(r, "analytic");
  check_fails(r, "error");
  check_fails(gradcheck(factor, {random({2, 3})}, {.directions = 0}), "element");
  check_fails(gradcheck(factor, {random({2, 3})}, {.components = 0}), "random direction");
  CHECK(gradcheck(factor, {random({2, 3})}, {.rtol = 0.1}).ok);

  // One wrong element of many, in the second input.
  const auto one = [](const TensorList& in) {
    return custom_vjp(
        "add_wrong", in, [](const TensorList& x) { return TensorList{x[0] + x[1]}; },
        [](const TensorList&, const TensorList&, const TensorList& gy) {
          Tensor scale = ones({4}, DType::f64);
          scale.mutable_data<double>()[2] = 1.01;
          return TensorList{gy[0], gy[0] * scale};
        });
  };
  check_fails(gradcheck(one, {random({4}), random({4})}, {.directions = 0}),
              "input 1 [4], element 2:");
}

TEST_CASE("gradgradcheck catches a gradient that is right but cut from the graph") {
  const Function cut = cube([](const TensorList& x, const TensorList&, const TensorList& gy) {
    return TensorList{gy[0] * square(x[0].detach()) * 3.0};
  });
  const Tensor x = random({2, 3});
  CHECK(gradcheck(cut, {x}).ok);
  check_fails(gradgradcheck(cut, {x}), "gradgradcheck: input 0 [2, 3]");
  check_fails(gradgradcheck(cut, {x}), "no gradient reaches this input");
  // The cotangent of a linear function: its gradient does not depend on x, and that is right.
  check_gradients([](const TensorList& in) { return TensorList{in[0] * 2.0}; }, {x});
}

TEST_CASE("gradcheck sees a graph that was cut and an input without influence") {
  const Tensor x = random({3}), y = random({3}, 2);
  check_fails(
      gradcheck([](const TensorList& in) { return TensorList{square(in[0].detach())}; }, {x}),
      "analytic 0");
  CHECK(gradcheck([](const TensorList& in) { return TensorList{square(in[0])}; }, {x, y}).ok);
  CHECK(gradcheck([&](const TensorList&) { return TensorList{y}; }, {x}).ok);
  CHECK(gradgradcheck([&](const TensorList&) { return TensorList{y}; }, {x}).ok);
}

TEST_CASE("gradcheck takes several inputs and outputs, integer outputs and gradients inside") {
  check_gradients(
      [](const TensorList& in) {
        return TensorList{matmul(in[0], in[1]), argmax(in[0], 0), sum(in[1])};
      },
      {random({2, 3}), random({3, 2}, 2)});
  check_gradients(
      [](const TensorList& in) {  // a gradient penalty
        const Tensor y = sum(tanh(matmul(in[0], in[1])));
        return TensorList{sum(square(grad(y, in[0], {}, {.create_graph = true})))};
      },
      {random({2, 3}), random({3, 2}, 2)});
  const NoGradGuard no_grad;
  CHECK(
      gradcheck([](const TensorList& in) { return TensorList{square(in[0])}; }, {random({3})}).ok);
}

TEST_CASE("gradcheck reports NaN and infinities in values and gradients") {
  const Tensor x = from_vector(Values{4, -1, 9});
  check_fails(gradcheck([](const TensorList& in) { return TensorList{log(in[0])}; }, {x}),
              "gradcheck: output 0 [3] is nan at element 1");
  const Function bad = cube([](const TensorList& in, const TensorList&, const TensorList& gy) {
    return TensorList{gy[0] * log(in[0])};
  });
  check_fails(gradcheck(bad, {x}), "gradcheck: the gradient of input 0 [3] is nan at element 1");
  check_fails(gradcheck([](const TensorList& in) { return TensorList{1.0 / in[0]}; },
                        {zeros({2}, DType::f64)}),
              "is infinite at element 0");
}

TEST_CASE("gradcheck reports results that do not repeat and graphs that are kept") {
  Rng rng(1);
  check_fails(gradcheck([&](const TensorList& in) { return TensorList{dropout(in[0], 0.5, rng)}; },
                        {random({20})}),
              "must give the same result");
  TensorList kept;
  check_fails(gradcheck(
                  [&](const TensorList& in) {
                    kept.push_back(square(in[0]));
                    return TensorList{kept.back()};
                  },
                  {random({3})}),
              "stay alive");
  const std::int64_t before = live_nodes();
  const Tensor weight = random({3}, 2).requires_grad_();  // captured leaves are no leak
  CHECK(gradcheck([&](const TensorList& in) { return TensorList{in[0] * weight}; }, {random({3})})
            .ok);
  CHECK(live_nodes() <= before + 1);
}

TEST_CASE("gradcheck says what it cannot check") {
  const Function fn = [](const TensorList& in) { return TensorList{square(in[0])}; };
  CHECK_THROWS_WITH_AS(gradcheck(fn, {ones({2})}),
                       "gradcheck: input 0 must be f64, differences need its digits; got f32 [2]. "
                       "Hint: to(x, DType::f64); capture indices and masks in the function",
                       DTypeError);
  CHECK_THROWS_AS(gradgradcheck(fn, {ones({2})}), DTypeError);
  CHECK_THROWS_WITH_AS(
      gradcheck([](const TensorList& in) { return TensorList{to(in[0], DType::f32)}; },
                {random({2})}),
      doctest::Contains("output 0 must be f64"), DTypeError);
  CHECK_THROWS_AS(gradcheck(fn, {Tensor()}), ValueError);
  CHECK_THROWS_AS(gradcheck(fn, {}), ValueError);
  CHECK_THROWS_AS(gradgradcheck(fn, {}), ValueError);
  CHECK_THROWS_AS(gradcheck([](const TensorList&) { return TensorList{}; }, {random({2})}),
                  ValueError);
  CHECK_THROWS_AS(gradcheck(fn, {random({2})}, {.eps = 0}), ValueError);
  CHECK_THROWS_AS(gradcheck(fn, {random({2})}, {.directions = 0, .components = 0}), ValueError);
}

// vjp, jvp, hvp, jacobian, hessian: against matrices by hand, against each other, and through
// checkpoint.

#include "ops_support.hpp"

#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/functional.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::test;
using capsfw::testing::contains;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;

namespace {

/// Two results of two inputs, and a softmax, which is fused.
TensorList two_of_two(const TensorList& in) {
  return {softmax(matmul(in[0], in[1])), sum(exp(in[1] * 0.3), {0})};
}

Tensor cubic(const Tensor& x) { return sum(x * x * x) + prod(x, 0); }

}  // namespace

TEST_CASE("jacobian and hessian by hand") {
  const Tensor w = random({3, 2}), x = random({2}, 2);
  CHECK(max_difference(jacobian([&](const Tensor& t) { return matmul(w, t); }, x), w) < 1e-15);
  CHECK(jacobian([](const Tensor& t) { return t * 2.0; }, random({2, 3})).shape() ==
        Shape{2, 3, 2, 3});
  CHECK(jacobian([](const Tensor& t) { return slice(t, 0, 0, 0); }, x).shape() == Shape{0, 2});
  CHECK(values(jacobian([](const Tensor&) { return ones({1}, DType::f64); }, x)) == Values{0, 0});
  // Σx³ + x₀x₁x₂: 6 x_i on the diagonal, the third factor beside it.
  const Tensor at = from_vector(Values{1, 2, 3});
  check_close(values(hessian(cubic, at)), Values{6, 3, 2, 3, 12, 1, 2, 1, 18});
  CHECK(values(hessian([](const Tensor& t) { return sum(t); }, at)) == Values(9, 0.0));
  CHECK(hessian([](const Tensor& t) { return sum(square(t)); }, random({2, 2})).shape() ==
        Shape{2, 2, 2, 2});
}

TEST_CASE("vjp and jvp are rows and columns of the jacobian, hvp those of the hessian") {
  const TensorList in = {random({2, 3}), random({3, 4}, 2)};
  const TensorList u = {random({2, 4}, 3), random({4}, 4)},
                   v = {random({2, 3}, 5), random({3, 4}, 6)};
  const Differentiated back = vjp(two_of_two, in, u), forth = jvp(two_of_two, in, v);
  REQUIRE(back.derivatives.size() == 2);
  REQUIRE(forth.derivatives.size() == 2);
  double left = 0, right = 0;
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(max_difference(back.outputs[i], two_of_two(in)[i]) == 0);
    CHECK_FALSE(back.derivatives[i].requires_grad());
    CHECK_FALSE(forth.outputs[i].requires_grad());
    left += dot(back.derivatives[i], v[i]);
    right += dot(u[i], forth.derivatives[i]);
  }
  CHECK(left == doctest::Approx(right).epsilon(1e-13));
  // jvp against the matrix.
  const auto first = [&](const Tensor& a) { return two_of_two({a, in[1]})[0]; };
  const Tensor j = reshape(jacobian(first, in[0]), {8, 6});
  const auto along =
      jvp([&](const TensorList& t) { return TensorList{first(t[0])}; }, {in[0]}, {v[0]});
  CHECK(max_difference(reshape(along.derivatives[0], {8}), matmul(j, reshape(v[0], {6}))) < 1e-14);

  const Tensor x = random({4}, 7), d = random({4}, 8);
  const auto f = [](const TensorList& t) { return TensorList{cubic(t[0])}; };
  CHECK(max_difference(hvp(f, {x}, {d}).derivatives[0], matmul(hessian(cubic, x), d)) < 1e-13);
}

TEST_CASE("what does not depend has derivative zero, integers have none") {
  const TensorList in = {random({3}), random({2}, 2), integers({2}, 3)};
  const auto f = [](const TensorList& t) {
    return TensorList{square(t[0]), ones({2}, DType::f64), t[2]};
  };
  const TensorList u = {ones({3}, DType::f64), ones({2}, DType::f64), in[2]};
  const TensorList back = vjp(f, in, u).derivatives;
  CHECK(values(back[1]) == Values{0, 0});
  CHECK_FALSE(back[2].defined());
  const TensorList forth = jvp(f, in, {u[0], u[1], in[2]}).derivatives;
  check_close(values(forth[0]), values(in[0] * 2.0));
  CHECK(values(forth[1]) == Values{0, 0});
  CHECK_FALSE(forth[2].defined());
  const auto flat = [](const TensorList& t) { return TensorList{sum(t[0])}; };
  CHECK(values(hvp(flat, {in[0]}, {in[0]}).derivatives[0]) == Values{0, 0, 0});
}

TEST_CASE("inputs computed from each other are variables of their own") {
  const Tensor a = random({3}).requires_grad_(), b = a * 2.0;
  const auto f = [](const TensorList& t) { return TensorList{t[0] * t[1]}; };
  for (const bool create_graph : {false, true}) {
    const auto g = vjp(f, {a, b}, {ones({3}, DType::f64)}, {create_graph}).derivatives;
    check_close(values(g[0]), values(b));
    check_close(values(g[1]), values(a));
  }
}

TEST_CASE("recorded results have gradients themselves, by inputs and by captured weights") {
  const Tensor w = random({3, 3}, 3);
  const auto with = [](const Tensor& weight) {
    return [weight](const TensorList& t) { return TensorList{sum(tanh(matmul(weight, t[0])))}; };
  };
  check_gradients(
      [&](const TensorList& in) {
        return hvp(with(in[1]), {in[0]}, {in[2]}, {.create_graph = true}).derivatives;
      },
      {random({3}), w, random({3}, 2)});
  check_gradients(
      [&](const TensorList& in) {
        return jvp(with(in[1]), {in[0]}, {in[2]}, {.create_graph = true}).derivatives;
      },
      {random({3}), w, random({3}, 2)});
  check_gradients(
      [&](const TensorList& in) {
        return TensorList{hessian([&](const Tensor& t) { return sum(tanh(matmul(in[1], t))); },
                                  in[0], {.create_graph = true})};
      },
      {random({3}), w});
  const NoGradGuard no_grad;  // of no concern to the functions
  CHECK(max_difference(
            hvp(with(w), {random({3})}, {random({3}, 2)}).derivatives[0],
            matmul(hessian([&](const Tensor& t) { return sum(tanh(matmul(w, t))); }, random({3})),
                   random({3}, 2))) < 1e-13);
}

TEST_CASE("checkpoint composes with double backward") {
  const Function f = [](const TensorList& t) {
    return TensorList{sum(square(softmax(matmul(tanh(t[0]), t[1]))))};
  };
  const Function kept = [&](const TensorList& t) { return checkpoint(f, t); };
  const TensorList in = {random({2, 3}), random({3, 4}, 2)},
                   v = {random({2, 3}, 3), random({3, 4}, 4)};
  const TensorList a = hvp(f, in, v).derivatives, b = hvp(kept, in, v).derivatives;
  for (std::size_t i = 0; i < 2; ++i) CHECK(max_difference(a[i], b[i]) < 1e-15);
  check_gradients(kept, in);
  // A penalty of the gradient, trained through a checkpoint in a checkpoint.
  check_gradients(
      [&](const TensorList& t) {
        const Function nested = [&](const TensorList& u) { return checkpoint(kept, u); };
        const TensorList g =
            vjp(nested, t, {scalar(1, DType::f64)}, {.create_graph = true}).derivatives;
        return TensorList{sum(square(g[0])) + sum(square(g[1]))};
      },
      in);
}

TEST_CASE("the derivatives of functions leave nothing behind") {
  const TensorList in = {random({2, 3}), random({3, 4}, 2)};
  const auto nodes = live_nodes(), tensors = live_tensors();
  jvp(two_of_two, in, in);
  vjp(two_of_two, in, two_of_two(in));
  hessian(cubic, random({3}));
  CHECK(live_nodes() == nodes);
  CHECK(live_tensors() == tensors);
}

TEST_CASE("the derivatives of functions say what is wrong") {
  const auto f = [](const TensorList& t) { return TensorList{t[0] * 2.0}; };
  const Tensor x = random({3});
  CHECK(message_of<GradError>([&] { vjp(f, {x}, {}); }) ==
        "vjp: one cotangent per output; got 0 for 1");
  CHECK(message_of<GradError>([&] {
          jvp(f, {x}, {x, x});
        }) == "jvp: one tangent per input; got 2 for 1");
  CHECK(message_of<ShapeError>([&] { jvp(f, {x}, {random({2})}); }) ==
        "jvp: direction 0 must be like its tensor, f64 [3]; got f64 [2]");
  CHECK(contains(message_of<ShapeError>([&] { hvp(f, {x}, {x}); }),
                 "hvp: the function must return one tensor of one element; got 1 of shape [3]"));
  CHECK_THROWS_AS(hessian([](const Tensor& t) { return t; }, x), ShapeError);
  CHECK_THROWS_AS(jacobian([](const Tensor& t) { return t; }, integers({2}, 3)), DTypeError);
}

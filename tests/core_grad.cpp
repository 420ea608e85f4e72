// grad() and backward(): results, options, and the errors of their callers.

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;
using Doubles = std::vector<double>;

namespace {

Tensor leaf(const Doubles& v) { return from_vector(v).requires_grad_(); }
Tensor number(double v) { return scalar(v, DType::f64).requires_grad_(); }

}  // namespace

TEST_CASE("backward leaves gradients at the leaves and adds to them") {
  const Tensor x = leaf({1, 2, 3}), w = leaf({4, 5, 6});
  backward(sum(x * w));
  CHECK(values(x.grad()) == Doubles{4, 5, 6});
  CHECK(values(w.grad()) == Doubles{1, 2, 3});
  backward(sum(x * w));
  CHECK(values(x.grad()) == Doubles{8, 10, 12});
  CHECK_FALSE(x.grad().requires_grad());
}

TEST_CASE("grad is pure and agrees with backward") {
  const Tensor x = leaf({1, 2, 3}), w = leaf({4, 5, 6});
  const auto f = [&] { return sum(exp(x * 0.1) * square(w)); };
  const TensorList g = grad({f()}, {x, w});
  CHECK_FALSE(x.grad().defined());
  CHECK_FALSE(w.grad().defined());
  backward(f());
  CHECK(same_bits(g[0], x.grad()));
  CHECK(same_bits(g[1], w.grad()));
}

TEST_CASE("derivatives of any order: x^4 down to zero") {
  const Tensor x = number(1.5);
  Tensor y = square(square(x));
  const double expected[] = {4 * 3.375, 12 * 2.25, 24 * 1.5, 24};
  for (const double e : expected) {
    y = grad(y, x, {}, {.create_graph = true});
    CHECK(y.item() == doctest::Approx(e).epsilon(1e-14));
  }
  CHECK_FALSE(y.requires_grad());  // a constant
}

TEST_CASE("mixed second derivatives are equal in either order") {
  const Tensor x = number(0.7), y = number(-1.2);
  const Tensor f = sin(x * y) * exp(x) + y * y * x;
  const TensorList g = grad({f}, {x, y}, {}, {.create_graph = true});
  const double xy = grad(g[0], y, {}, {.retain_graph = true}).item();
  const double yx = grad(g[1], x).item();
  CHECK(xy == doctest::Approx(yx).epsilon(1e-14));
  const double c = std::cos(-0.84), s = std::sin(-0.84);
  CHECK(xy == doctest::Approx(std::exp(0.7) * (c + 0.7 * c + 0.84 * s) - 2.4).epsilon(1e-13));
}

TEST_CASE("the second derivatives of a power at exponent 0") {
  const Tensor a = number(2), b = number(0);
  const TensorList g = grad({pow(a, b)}, {a, b}, {}, {.create_graph = true});
  CHECK(g[0].item() == 0);
  CHECK(g[1].item() == doctest::Approx(std::log(2.0)));
  CHECK(grad(g[0], b, {}, {.retain_graph = true}).item() == 0.5);  // 1/a
  CHECK(grad(g[1], a).item() == 0.5);
  const Tensor zero = number(0), none = number(0);  // 0^0 is 1, and its derivative by the base 0
  CHECK(grad(pow(zero, none), zero).item() == 0);
}

TEST_CASE("without create_graph a gradient is disconnected, with it connected") {
  const Tensor x = leaf({1, 2});
  const Tensor y = sum(x * x * x);
  const Tensor plain = grad(y, x, {}, {.retain_graph = true});
  CHECK_FALSE(plain.requires_grad());
  CHECK(plain.is_leaf());
  const Tensor linked = grad(y, x, {}, {.create_graph = true});
  CHECK(linked.requires_grad());
  CHECK(values(grad(sum(linked), x)) == Doubles{6, 12});
}

TEST_CASE("a gradient penalty reaches the weights through the first gradient") {
  const Tensor x = leaf({1, -2}), w = leaf({3, 0.5});
  const Tensor gx = grad(sum(square(x * w)), x, {}, {.create_graph = true});  // 2 x w²
  backward(sum(square(gx)));                                                  // 4 x² w⁴
  CHECK(values(w.grad()) == Doubles{16 * 1 * 27, 16 * 4 * 0.125});
}

TEST_CASE("the graph is freed after use unless it is retained, and the message names both cures") {
  const Tensor x = leaf({1, 2});
  const Tensor y = sum(x * x);
  grad(y, x, {}, {.retain_graph = true});
  grad(y, x);
  const std::string text = message_of<GradError>([&] { grad(y, x); });
  CHECK(contains(text, "freed by an earlier backward pass"));
  CHECK(contains(text, "retain_graph = true"));
  CHECK(contains(text, "run the forward pass again"));
  const Tensor z = sum(x * x);
  backward(z, {}, true);
  backward(z);
  CHECK_THROWS_AS(backward(z), GradError);
}

TEST_CASE("an unused input is an error, or undefined when allowed") {
  const Tensor x = leaf({1, 2}), other = leaf({1, 2, 3});
  const std::string text = message_of<GradError>([&] { grad({sum(x * x)}, {x, other}); });
  CHECK(contains(text, "do not depend on input 1 of shape [3]"));
  CHECK(contains(text, ".allow_unused = true"));
  const TensorList g = grad({sum(x * x)}, {x, other}, {}, {.allow_unused = true});
  CHECK(g[0].defined());
  CHECK_FALSE(g[1].defined());
  const Tensor y = sum(x * x);  // what was refused has not freed the graph
  CHECK_THROWS_AS(grad({y}, {x, other}), GradError);
  CHECK(grad({y}, {x, other}, {}, {.allow_unused = true})[0].defined());
}

TEST_CASE("outputs and inputs outside any graph are errors that say why") {
  const Tensor x = leaf({1, 2}), plain = ones({2}, DType::f64);
  CHECK(contains(message_of<GradError>([&] { grad({sum(plain)}, {x}); }),
                 "grad: the output needs no gradient"));
  CHECK(contains(message_of<GradError>([&] { grad({sum(x)}, {plain}); }),
                 "input 0 does not require a gradient. Hint: x.requires_grad_()"));
  CHECK_THROWS_AS(grad({sum(x)}, {Tensor()}), GradError);
  CHECK_THROWS_AS(grad({Tensor()}, {x}), GradError);
  CHECK_THROWS_AS(backward(Tensor()), GradError);
  CHECK(contains(message_of<GradError>([&] { backward(sum(plain)); }), "backward: the output"));
  Tensor unrecorded;
  {
    const NoGradGuard no_grad;
    unrecorded = sum(x * x);
  }
  CHECK(contains(message_of<GradError>([&] { backward(unrecorded); }), "recording off"));
}

TEST_CASE("cotangents: one by default only for one element, and of the right shape and type") {
  const Tensor x = leaf({1, 2});
  CHECK(contains(message_of<GradError>([&] { grad(x * x, x); }),
                 "shape [2] needs an explicit cotangent"));
  CHECK(contains(message_of<ShapeError>([&] { grad(x * x, x, ones({3}, DType::f64)); }),
                 "output = [2] f64, cotangent = [3] f64"));
  CHECK_THROWS_AS(grad(x * x, x, ones({2})), ShapeError);
  CHECK_THROWS_AS(backward(x * x, ones({1}, DType::f64)), ShapeError);
  CHECK(contains(message_of<GradError>([&] {
                   grad({sum(x)}, {x}, {ones({}), ones({})});
                 }),
                 "1 outputs, 2 cotangents"));
  CHECK(values(grad(x * x, x, from_vector<double>({1, 10}))) == Doubles{2, 40});
  CHECK(values(grad(reshape(sum(x * x), {1, 1}), x)) == Doubles{2, 4});
}

TEST_CASE("several outputs add up, also the same one twice") {
  const Tensor x = leaf({1, 2});
  const Tensor a = sum(x * x), b = sum(x);
  CHECK(values(grad({a, b}, {x}, {}, {.retain_graph = true})[0]) == Doubles{3, 5});
  CHECK(values(grad({a, a}, {x})[0]) == Doubles{4, 8});
}

TEST_CASE("gradients of intermediate tensors, and of an output for itself") {
  const Tensor x = leaf({1, 2});
  const Tensor h = x * x, y = sum(h * h);
  const TensorList g = grad({y}, {h, x}, {}, {.retain_graph = true});
  CHECK(values(g[0]) == Doubles{2, 8});
  CHECK(values(g[1]) == Doubles{4, 32});
  CHECK(grad(y, y).item() == 1);
  const Tensor z = number(3);
  backward(z);
  CHECK(z.grad().item() == 1);
}

TEST_CASE("the same tensor twice in one op, and diamonds") {
  const Tensor x = leaf({3});
  CHECK(values(grad(sum(x * x), x)) == Doubles{6});
  CHECK(values(grad(sum(add(x, x)), x)) == Doubles{2});
  const Tensor a = x * 2.0, b = x * 5.0;
  CHECK(values(grad(sum(a * b + a), x)) == Doubles{62});
  Tensor y = x;  // 2^40 paths, 40 nodes
  for (int k = 0; k < 40; ++k) y = add(y, y);
  CHECK(values(grad(sum(y), x)) == Doubles{std::ldexp(1.0, 40)});
}

TEST_CASE("gradients of broadcast inputs have the shape of the input") {
  const Tensor a = ones({2, 1, 3}, DType::f64).requires_grad_(),
               b = ones({4, 1}, DType::f64).requires_grad_(), c = number(2);
  const TensorList g = grad({sum(a * b * c)}, {a, b, c});
  CHECK(g[0].shape() == Shape{2, 1, 3});
  CHECK(g[1].shape() == Shape{4, 1});
  CHECK(g[2].shape() == Shape{});
  CHECK(values(g[0]) == Doubles(6, 8));
  CHECK(values(g[1]) == Doubles(4, 12));
  CHECK(g[2].item() == 24);
}

TEST_CASE("guards switch recording and nest") {
  const Tensor x = leaf({1});
  CHECK(is_grad_enabled());
  {
    const NoGradGuard off;
    CHECK_FALSE((x * x).requires_grad());
    {
      const GradModeGuard on(true);
      CHECK((x * x).requires_grad());
      const GradModeGuard again(false);
      CHECK_FALSE(is_grad_enabled());
    }
    CHECK_FALSE(is_grad_enabled());
  }
  CHECK(is_grad_enabled());
  CHECK((x * x).requires_grad());
}

TEST_CASE("gradients of two leaves never share memory, nor with the caller's cotangent") {
  const Tensor a = leaf({1, 2}), b = leaf({3, 4});
  const Tensor seed = ones({2}, DType::f64);
  backward(a + b, seed);
  a.grad().fill_(7);
  CHECK(values(b.grad()) == Doubles{1, 1});
  CHECK(values(seed) == Doubles{1, 1});
  const Tensor c = leaf({1, 2});
  backward(sum(c));
  CHECK(c.grad().is_contiguous());  // and not one number seen twice
}

TEST_CASE("a saved tensor that is changed in place is an error, not a wrong gradient") {
  Tensor w = leaf({1, 2});
  const Tensor x = leaf({3, 4});
  const Tensor y = sum(w * x);
  w.copy_(ones({2}, DType::f64));
  const std::string text = message_of<GradError>([&] { grad(y, x); });
  CHECK(contains(text, "backward of 'mul': saved input 0 [2] at version"));
  CHECK(contains(text, "changed in place"));
  CHECK(contains(text, "Hint: step the optimizer after backward"));
  const Tensor e = exp(x);
  e.detach().fill_(0);  // the same memory
  CHECK(contains(message_of<GradError>([&] { grad(sum(e), x); }), "saved output 0"));
  const Tensor z = sum(w + x);
  w.fill_(5);  // nothing saved: fine
  CHECK(values(grad(z, x)) == Doubles{1, 1});
  const Tensor u = sum(w * x);
  w.set_data(full({2}, 9, DType::f64));
  CHECK_THROWS_AS(grad(u, x), GradError);
}

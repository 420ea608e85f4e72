// Clipping of gradients.

#include <cmath>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/core/vspace.hpp>
#include <capsfw/optim/clip.hpp>

using namespace capsfw;

namespace {

Tensor with_grad(const std::vector<double>& g, DType dtype = DType::f64) {
  Tensor p = zeros({static_cast<std::int64_t>(g.size())}, dtype);
  p.set_grad(cast_data(from_vector(g), dtype));
  return p;
}

std::vector<double> grad_of(const Tensor& p) { return p.grad().to_vector<double>(); }

using Vec = std::vector<double>;

}  // namespace

TEST_CASE("clip_grad_norm scales all gradients by one factor and returns the norm before") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor a = with_grad({3, 0}, dtype), b = with_grad({4}, dtype),
                 c = with_grad({12}, dtype);
    CHECK(clip_grad_norm({a, b, c}, 26) == 13);
    CHECK(grad_of(a) == Vec{3, 0});
    CHECK(clip_grad_norm({a, b, c}, 13) == 13);
    CHECK(grad_of(c) == Vec{12});
    CHECK(clip_grad_norm({a, b, c}, 6.5) == 13);
    CHECK(grad_of(a) == Vec{1.5, 0});
    CHECK(grad_of(b) == Vec{2});
    CHECK(grad_of(c) == Vec{6});
    CHECK(clip_grad_norm({a, b, c}, std::numeric_limits<double>::infinity()) == 6.5);
    CHECK(clip_grad_norm({a, b, c}, 0) == 6.5);
    CHECK(clip_grad_norm({a, b, c}, 1) == 0);
    CHECK(grad_of(a) == Vec{0, 0});
  }
}

TEST_CASE("parameters without a gradient do not count, and those listed twice count once") {
  const Tensor a = with_grad({3}), b = with_grad({4}), none = ones({5});
  CHECK(clip_grad_norm({a, none, b, a}, 2.5) == 5);
  CHECK(grad_of(a) == Vec{1.5});
  CHECK(grad_of(b) == Vec{2});
  CHECK_FALSE(none.grad().defined());
  CHECK(clip_grad_norm({none}, 1) == 0);
  CHECK(clip_grad_norm({}, 1) == 0);
}

TEST_CASE("a gradient that two parameters share is scaled once for each") {
  Tensor a = zeros({2}), b = zeros({2});
  a.requires_grad_();
  b.requires_grad_();
  backward(sum_to(add(a, b), Shape{}));
  CHECK(clip_grad_norm({a, b}, 1) == 2);
  CHECK(grad_of(a) == Vec{0.5, 0.5});
  CHECK(grad_of(b) == Vec{0.5, 0.5});
  const Tensor mine = full({2}, 8);
  a.set_grad(mine);
  clip_grad_value({a}, 1);
  CHECK(grad_of(a) == Vec{1, 1});
  CHECK(mine.to_vector<double>() == Vec{8, 8});
}

TEST_CASE("the norm is summed in double, through any strides") {
  // 1 + 2^24 ones: a float sum of squares would stop at 2^24.
  Tensor p = zeros({1 << 12, 1 << 12});
  p.set_grad(broadcast_to(ones({1}), {1 << 12, 1 << 12}));
  CHECK(clip_grad_norm({p, with_grad({3}, DType::f32)}, 1e9) == std::sqrt(16777216.0 + 9));
  Tensor q = zeros({2, 2}, DType::f64);
  q.set_grad(strided_view(from_vector<double>({1, 2, 3, 4}), {2, 2}, {1, 2}, 0));
  CHECK(clip_grad_norm({q}, 1) == doctest::Approx(std::sqrt(30.0)).epsilon(1e-15));
  CHECK(grad_of(q)[1] == doctest::Approx(3 / std::sqrt(30.0)).epsilon(1e-15));
  // Squares beyond the range of float.
  CHECK(clip_grad_norm({with_grad({3e30, 4e30}, DType::f32)}, 1) ==
        doctest::Approx(5e30).epsilon(1e-6));
}

TEST_CASE("norm and clipped gradients are the same bits for any number of threads") {
  const int before = num_threads();
  Rng rng(4);
  const Tensor g = rng.normal({401, 503}, 0, 1);
  std::vector<double> norms;
  std::vector<Vec> clipped;
  for (const int threads : {1, 2, 3, 7}) {
    set_num_threads(threads);
    Tensor p = zeros({401, 503});
    p.set_grad(g);
    norms.push_back(clip_grad_norm({p}, 1));
    clipped.push_back(grad_of(p));
  }
  set_num_threads(before);
  double sum = 0;
  for (double x : g.to_vector<double>()) sum += x * x;
  CHECK(norms[0] == doctest::Approx(std::sqrt(sum)).epsilon(1e-13));
  for (double n : norms) CHECK(n == norms[0]);
  for (const Vec& c : clipped) CHECK(c == clipped[0]);
}

TEST_CASE("a norm that is not finite leaves the gradients alone, or is an error") {
  const double inf = std::numeric_limits<double>::infinity();
  const Tensor a = with_grad({3, 4}), b = with_grad({1, inf, 2}), c = with_grad({std::nan("")});
  CHECK(clip_grad_norm({a, b}, 1) == inf);
  CHECK(grad_of(a) == Vec{3, 4});
  CHECK(grad_of(b) == Vec{1, inf, 2});
  CHECK(std::isnan(clip_grad_norm({a, c}, 1)));
  CHECK(grad_of(a) == Vec{3, 4});
  CHECK_THROWS_WITH_AS(clip_grad_norm({a, b}, 1, {.error_if_nonfinite = true}),
                       "clip_grad_norm: the norm of the gradients must be finite; got inf, first "
                       "in a parameter [3]. Hint: AnomalyGuard names the op",
                       ValueError);
  CHECK(clip_grad_norm({a}, 1, {.error_if_nonfinite = true}) == 5);
}

TEST_CASE("clip_grad_value bounds every element") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor a = with_grad({-3, -0.5, 0, 0.25, 7}, dtype), none = ones({1});
    clip_grad_value({a, none}, 0.5);
    CHECK(grad_of(a) == Vec{-0.5, -0.5, 0, 0.25, 0.5});
    CHECK_FALSE(none.grad().defined());
    clip_grad_value({a}, 0);
    CHECK(grad_of(a) == Vec{0, 0, 0, 0, 0});
  }
  const Tensor n = with_grad({std::nan(""), 9});
  clip_grad_value({n}, 1);
  CHECK(std::isnan(grad_of(n)[0]));
  CHECK(grad_of(n)[1] == 1);
}

TEST_CASE("bounds out of range are refused") {
  const Tensor a = with_grad({1});
  CHECK_THROWS_WITH_AS(clip_grad_norm({a}, -1), "clip_grad_norm: max_norm must be >= 0; got -1",
                       ValueError);
  CHECK_THROWS_AS(clip_grad_norm({a}, std::nan("")), ValueError);
  CHECK_THROWS_WITH_AS(clip_grad_value({a}, -0.5), "clip_grad_value: limit must be >= 0; got -0.5",
                       ValueError);
  CHECK_THROWS_AS(clip_grad_value({a}, std::nan("")), ValueError);
}

#include <capsfw/ops/spectral.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/linalg.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

namespace capsfw {
namespace {

void check_matrix(const Tensor& w, std::string_view op) {
  check_floating(w, op);
  if (w.dim() < 2 || w.size(-1) < 1 || w.size(-2) < 1)
    throw ShapeError(
        fmt::format("{}: takes matrices of at least one element on the last two axes; got {}", op,
                    w.shape().str()));
}

/// Jacobi's eigenvalue method with cyclic sweeps (Golub, Van Loan, Matrix Computations, section
/// 8.5): a [k, k] symmetric becomes diagonal, q [k, k] holds the eigenvectors as rows. No square
/// root of a difference and no shift: small and large eigenvalues alike come out to a few ulps of
/// the largest.
void jacobi_eigen(double* a, double* q, std::int64_t k) {
  std::fill(q, q + k * k, 0.0);
  for (std::int64_t i = 0; i < k; ++i) q[i * k + i] = 1;
  double total = 0;
  for (std::int64_t i = 0; i < k * k; ++i) total += a[i] * a[i];
  constexpr int kSweeps = 60;  // about ten suffice: the convergence is quadratic
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    double off = 0;
    for (std::int64_t i = 0; i < k; ++i)
      for (std::int64_t j = 0; j < i; ++j) off += a[i * k + j] * a[i * k + j];
    if (!(off > 1e-34 * total)) return;
    for (std::int64_t i = 0; i < k; ++i)
      for (std::int64_t j = i + 1; j < k; ++j) {
        const double x = a[i * k + j];
        if (!(x * x * static_cast<double>(k * k) > 1e-36 * total)) continue;
        const double theta = (a[j * k + j] - a[i * k + i]) / (2 * x);
        const double t = (theta >= 0 ? 1 : -1) / (std::abs(theta) + std::hypot(1.0, theta));
        const double c = 1 / std::hypot(1.0, t), s = t * c;
        double *ri = a + i * k, *rj = a + j * k, *qi = q + i * k, *qj = q + j * k;
        for (std::int64_t p = 0; p < k; ++p) {
          const double y = ri[p], z = rj[p], v = qi[p], w = qj[p];
          ri[p] = c * y - s * z;
          rj[p] = s * y + c * z;
          qi[p] = c * v - s * w;
          qj[p] = s * v + c * w;
        }
        for (std::int64_t p = 0; p < k; ++p) {
          const double y = a[p * k + i], z = a[p * k + j];
          a[p * k + i] = c * y - s * z;
          a[p * k + j] = s * y + c * z;
        }
      }
  }
}

/// The eigenvector of the largest eigenvalue of each symmetric g [..., k, k], f64 [..., k].
Tensor leading_eigenvector(const Tensor& g) {
  const std::int64_t k = g.size(-1), count = g.numel() / (k * k);
  const Tensor in = contiguous_data(g);
  Shape shape = g.shape();
  shape.erase(shape.rank() - 1);
  Tensor out = empty(shape, DType::f64, "spectral_norm");
  std::vector<double> work(static_cast<std::size_t>(2 * count * k * k));
  double *work_data = work.data(), *result = out.mutable_data<double>();
  const double* gs = in.data<double>();
  parallel_for(count, 20 * k * k * k, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) {
      double *a = work_data + 2 * b * k * k, *q = a + k * k;
      std::copy(gs + b * k * k, gs + (b + 1) * k * k, a);
      jacobi_eigen(a, q, k);
      std::int64_t best = 0;
      for (std::int64_t i = 1; i < k; ++i)
        if (a[i * k + i] > a[best * k + best]) best = i;
      std::copy(q + best * k, q + (best + 1) * k, result + b * k);
    }
  });
  return out;
}

/// w v for w [..., m, n], v [..., n].
Tensor times(const Tensor& w, const Tensor& v) { return squeeze(matmul(w, unsqueeze(v, -1)), -1); }

/// u vᵀ.
Tensor outer(const Tensor& u, const Tensor& v) { return unsqueeze(u, -1) * unsqueeze(v, -2); }

Tensor dot(const Tensor& a, const Tensor& b) { return sum(a * b, {-1}, true); }

/// Right singular vector of the largest singular value of each w with m ≥ n.
///
/// As a function of w: from (wᵀw) v = λ v and vᵀv = 1 follows (λ − wᵀw) dv = P (dwᵀ w + wᵀ dw) v
/// with P = 1 − v vᵀ. On the complement of v the matrix on the left is positive definite if λ is
/// simple; adding λ v vᵀ makes it so everywhere and changes no solution. So the rule solves with a
/// Cholesky factor, and is made of ops that have rules themselves.
Tensor leading_right_vector(const Tensor& w) {
  const Tensor d = cast_data(w.detach(), DType::f64);
  const Tensor v = cast_data(leading_eigenvector(matmul(transpose(d), d)), w.dtype());
  return record("leading_right_vector", {w}, v, Save::input0 | Save::output,
                [](const Saved& s, const Tensor& gv) {
                  const Tensor a = s.input(0), right = s.output();
                  const Tensor image = times(a, right), lambda = unsqueeze(dot(image, image), -1);
                  const Tensor system = lambda * eye(a.size(-1), a.dtype()) -
                                        matmul(transpose(a), a) + lambda * outer(right, right);
                  const Tensor l = cholesky(system),
                               rest = unsqueeze(gv - right * dot(right, gv), -1);
                  const Tensor y = squeeze(
                      triangular_solve(l, triangular_solve(l, rest), {.transpose = true}), -1);
                  return outer(image, y) + outer(times(a, y), right);
                });
}

/// max |x|, at least the smallest normal number: a scale that keeps squares in range.
Tensor scale_of(const Tensor& w) {
  const Tensor top = max(abs(w), {-2, -1}, true);
  return where(gt(top, std::numeric_limits<double>::min()), top, 1.0);
}

/// u and v of w, the longer side second to none.
struct Pair {
  Tensor u, v;
};
Pair leading_pair(const Tensor& w) {
  const bool tall = w.size(-2) >= w.size(-1);
  const Tensor a = tall ? w : transpose(w);
  const Tensor v = leading_right_vector(a), u = safe_normalize(times(a, v));
  return tall ? Pair{u, v} : Pair{v, u};
}

}  // namespace

Tensor spectral_norm(const Tensor& w) {
  check_matrix(w, "spectral_norm");
  Tensor sigma;
  {
    const NoGradGuard no_grad;
    const Tensor d = cast_data(w.detach(), DType::f64), scale = scale_of(d), scaled = d / scale;
    const Pair p = leading_pair(scaled);
    const Tensor s = sum(p.u * times(scaled, p.v), {-1}) * squeeze(squeeze(scale, -1), -1);
    // The method stops early on what is not finite; the norm of such a matrix is NaN.
    const Tensor finite = eq(sum(to(isfinite(d), DType::f64), {-2, -1}),
                             static_cast<double>(w.size(-1) * w.size(-2)));
    sigma = cast_data(where(finite, s, std::numeric_limits<double>::quiet_NaN()), w.dtype());
  }
  return record("spectral_norm", {w}, sigma, Save::input0, [](const Saved& s, const Tensor& gy) {
    const Tensor a = s.input(0);
    const Pair p = leading_pair(a / scale_of(a.detach()));
    return unsqueeze(unsqueeze(gy, -1), -1) * outer(p.u, p.v);
  });
}

PowerIteration power_iteration(const Tensor& w, const Tensor& u0, int iterations) {
  check_matrix(w, "power_iteration");
  if (iterations < 1)
    throw ValueError(fmt::format("power_iteration: at least 1 iteration; got {}", iterations));
  Shape expected = w.shape();
  expected.erase(expected.rank() - 1);
  if (u0.shape() != expected || u0.dtype() != w.dtype())
    throw ShapeError(fmt::format("power_iteration: u0 must be {} {} for w = {}; got {} {}",
                                 name_of(w.dtype()), expected.str(), w.shape().str(),
                                 name_of(u0.dtype()), u0.shape().str()));
  Tensor u = u0.detach(), v;
  {
    const NoGradGuard no_grad;
    for (int i = 0; i < iterations; ++i) {
      v = safe_normalize(times(transpose(w), u));
      u = safe_normalize(times(w, v));
    }
  }
  return {sum(u * times(w, v), {-1}), u, v, iterations};
}

PowerIteration power_iteration(const Tensor& w, const PowerOptions& o) {
  check_matrix(w, "power_iteration");
  if (!(o.tolerance > 0) || o.max_iterations < 1)
    throw ValueError(
        fmt::format("power_iteration: a positive tolerance and at least 1 iteration; got {} and {}",
                    o.tolerance, o.max_iterations));
  const double ulp = w.dtype() == DType::f32 ? 6e-8 : 1.1e-16;
  const double tolerance =
      std::max(o.tolerance, 8 * ulp * std::sqrt(static_cast<double>(w.size(-1) + w.size(-2))));
  Shape shape = w.shape();
  shape.erase(shape.rank() - 1);
  Rng rng(o.seed);
  Tensor u = rng.normal(shape, 0, 1, w.dtype()), v;
  int done = 0;
  {
    const NoGradGuard no_grad;
    const Tensor wt = transpose(w.detach());
    Tensor back = times(wt, u);
    while (done < o.max_iterations) {
      ++done;
      v = safe_normalize(back);
      const Tensor image = times(w.detach(), v), sigma = norm(image, {-1}, true);
      u = safe_normalize(image);
      back = times(wt, u);
      if (all(le(norm(back - sigma * v, {-1}, true), sigma * tolerance))) break;
    }
  }
  return {sum(u * times(w, v), {-1}), u, v, done};
}

}  // namespace capsfw

#include "tiles.hpp"

#include <cstring>

#include "../../core/simd.hpp"

namespace capsfw::kernels {
namespace {

template <int kLanes>
struct Lanes {
  using Vector [[gnu::vector_size(kLanes * sizeof(float)), gnu::may_alias, gnu::aligned(4)]] =
      float;
};
template <int kLanes>
using Vector = typename Lanes<kLanes>::Vector;

constexpr std::int64_t kMostValues = Points::kMost * Points::kMost;

/// A product of a small matrix [·, n] with vectors, for P vectors (at distance p) and Q rows of the
/// matrix (distance q of their results) at a time. k: distance of the terms.
struct Distances {
  std::int64_t in_k, in_p, out_q, out_p;
};

template <class V, int P, int Q>
inline void block(std::int64_t n,
                  const float* m,
                  std::int64_t m_row,
                  const float* in,
                  float* out,
                  const Distances& d,
                  bool add) {
  V sum[P][Q];
  for (int p = 0; p < P; ++p)
    for (int q = 0; q < Q; ++q)
      sum[p][q] = add ? *reinterpret_cast<const V*>(out + p * d.out_p + q * d.out_q) : V{};
  for (std::int64_t k = 0; k < n; ++k)
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const V x = *reinterpret_cast<const V*>(in + k * d.in_k + p * d.in_p);
#pragma GCC unroll 4
      for (int q = 0; q < Q; ++q) sum[p][q] += m[q * m_row + k] * x;
    }
  for (int p = 0; p < P; ++p)
    for (int q = 0; q < Q; ++q) *reinterpret_cast<V*>(out + p * d.out_p + q * d.out_q) = sum[p][q];
}

template <class V, int P>
inline void block_rows(std::int64_t q,
                       std::int64_t n,
                       const float* m,
                       std::int64_t m_row,
                       const float* in,
                       float* out,
                       const Distances& d,
                       bool add) {
  std::int64_t i = 0;
  for (; i + 4 <= q; i += 4) block<V, P, 4>(n, m + i * m_row, m_row, in, out + i * d.out_q, d, add);
  for (; i + 2 <= q; i += 2) block<V, P, 2>(n, m + i * m_row, m_row, in, out + i * d.out_q, d, add);
  for (; i < q; ++i) block<V, P, 1>(n, m + i * m_row, m_row, in, out + i * d.out_q, d, add);
}

/// out[q, p] = Σ_k m[q, k] in[k, p] for q rows and p vectors.
template <class V>
inline void product(std::int64_t q,
                    std::int64_t n,
                    std::int64_t p,
                    const float* m,
                    std::int64_t m_row,
                    const float* in,
                    float* out,
                    const Distances& d,
                    bool add = false) {
  std::int64_t i = 0;
  for (; i + 2 <= p; i += 2)
    block_rows<V, 2>(q, n, m, m_row, in + i * d.in_p, out + i * d.out_p, d, add);
  for (; i < p; ++i) block_rows<V, 1>(q, n, m, m_row, in + i * d.in_p, out + i * d.out_p, d, add);
}

/// Where the four parts of values at complex points lie, real (0) and imaginary (1) of rows and of
/// columns, and the pairs of numbers that they make: at (row, column) and at (conjugate, column).
/// Calls real(z), complex(z re, z im) and both(z, z, z, z) for offsets z in the order of the
/// planes.
template <class Real, class Pair, class Both>
inline void each_point(
    const Grid& g, std::int64_t lanes, const Real& real, const Pair& pair, const Both& both) {
  const std::int64_t width = g.columns.count, across = lanes, down = width * lanes;
  for (std::int64_t u = 0; u < g.rows.real; ++u) {
    for (std::int64_t v = 0; v < g.columns.real; ++v) real(u * down + v * across);
    for (std::int64_t v = g.columns.real; v < width; v += 2)
      pair(u * down + v * across, u * down + (v + 1) * across);
  }
  for (std::int64_t u = g.rows.real; u < g.rows.count; u += 2) {
    for (std::int64_t v = 0; v < g.columns.real; ++v)
      pair(u * down + v * across, (u + 1) * down + v * across);
    for (std::int64_t v = g.columns.real; v < width; v += 2) {
      const std::int64_t z = u * down + v * across;
      both(z, z + across, z + down, z + down + across);
    }
  }
}

template <class V>
inline V& at(float* p) {
  return *reinterpret_cast<V*>(p);
}
template <class V>
inline const V& at(const float* p) {
  return *reinterpret_cast<const V*>(p);
}

/// Values at the points -> planes. With z = a + bi, images and weights keep (a, b, a + b) and
/// outputs 2 (a + b, b - a, -b), so that the sum of the three products is 2 Re(z_x z_w z_g): that
/// of a point and its conjugate.
template <class V, bool kOutput>
inline void split(
    const Grid& g, std::int64_t lanes, const float* z, float* out, std::int64_t plane) {
  const auto put = [&](const V& a, const V& b) {
    at<V>(out) = kOutput ? 2 * (a + b) : a;
    at<V>(out + plane) = kOutput ? 2 * (b - a) : b;
    at<V>(out + 2 * plane) = kOutput ? -2 * b : a + b;
    out += 3 * plane;
  };
  each_point(
      g, lanes,
      [&](std::int64_t i) {
        at<V>(out) = at<V>(z + i);
        out += plane;
      },
      [&](std::int64_t re, std::int64_t im) { put(at<V>(z + re), at<V>(z + im)); },
      [&](std::int64_t rr, std::int64_t ri, std::int64_t ir, std::int64_t ii) {
        put(at<V>(z + rr) - at<V>(z + ii), at<V>(z + ri) + at<V>(z + ir));
        put(at<V>(z + rr) + at<V>(z + ii), at<V>(z + ri) - at<V>(z + ir));
      });
}

/// The transpose of split.
template <class V, bool kOutput>
inline void merge(
    const Grid& g, std::int64_t lanes, const float* in, std::int64_t plane, float* z) {
  const auto take = [&](V& a, V& b) {
    const V p = at<V>(in), q = at<V>(in + plane), r = at<V>(in + 2 * plane);
    a = kOutput ? 2 * (p - q) : p + r;
    b = kOutput ? 2 * (p + q - r) : q + r;
    in += 3 * plane;
  };
  each_point(
      g, lanes,
      [&](std::int64_t i) {
        at<V>(z + i) = at<V>(in);
        in += plane;
      },
      [&](std::int64_t re, std::int64_t im) { take(at<V>(z + re), at<V>(z + im)); },
      [&](std::int64_t rr, std::int64_t ri, std::int64_t ir, std::int64_t ii) {
        V a, b, c, e;
        take(a, b);
        take(c, e);
        at<V>(z + rr) = a + c;
        at<V>(z + ii) = c - a;
        at<V>(z + ri) = b + e;
        at<V>(z + ir) = b - e;
      });
}

template <int kLanes>
inline void to_planes(
    const Grid& g, Side side, const Window& w, const float* tile, float* out, std::int64_t plane) {
  using V = Vector<kLanes>;
  alignas(64) float half[kMostValues * kLanes], z[kMostValues * kLanes];
  const std::int64_t height = g.rows.count, width = g.columns.count;
  product<V>(height, w.rows, w.columns, g.rows.to_values(side) + w.row, g.rows.size(side), tile,
             half, {w.row_stride, w.column_stride, w.columns * kLanes, kLanes});
  product<V>(width, w.columns, height, g.columns.to_values(side) + w.column, g.columns.size(side),
             half, z, {kLanes, w.columns * kLanes, kLanes, width * kLanes});
  if (side == Side::output)
    split<V, true>(g, kLanes, z, out, plane);
  else
    split<V, false>(g, kLanes, z, out, plane);
}

template <int kLanes>
inline void to_tile(const Grid& g,
                    Side side,
                    const float* planes,
                    std::int64_t plane,
                    const Window& w,
                    float* tile,
                    bool add) {
  using V = Vector<kLanes>;
  alignas(64) float half[kMostValues * kLanes], z[kMostValues * kLanes];
  const std::int64_t height = g.rows.count, width = g.columns.count;
  if (side == Side::output)
    merge<V, true>(g, kLanes, planes, plane, z);
  else
    merge<V, false>(g, kLanes, planes, plane, z);
  product<V>(w.columns, width, height, g.columns.to_tile(side) + w.column * width, width, z, half,
             {kLanes, width * kLanes, kLanes, w.columns * kLanes});
  product<V>(w.rows, height, w.columns, g.rows.to_tile(side) + w.row * height, height, half, tile,
             {w.columns * kLanes, kLanes, w.row_stride, w.column_stride}, add);
}

template <class Body>
inline void with_lanes(const Body& body) {
#if defined(__x86_64__) && !defined(CAPSFW_NO_SIMD)
  using detail::Isa, detail::run_avx2, detail::run_avx512;
  if (detail::isa() == Isa::avx512) return run_avx512([&] { body.template operator()<16>(); });
  if (detail::isa() == Isa::avx2) return run_avx2([&] { body.template operator()<8>(); });
#endif
  body.template operator()<4>();
}

}  // namespace

std::int64_t planes(std::int64_t rows, std::int64_t columns) {
  const std::int64_t a = Points::real_points(rows), b = Points::real_points(columns),
                     c = (rows - a) / 2, d = (columns - b) / 2;
  return a * b + 3 * (a * d + c * b + 2 * c * d);
}

std::int64_t tile_lanes() {
  const std::int64_t lanes[] = {4, 8, 16};
  return lanes[static_cast<int>(detail::isa())];
}

void tile_to_planes(const Grid& grid,
                    Side side,
                    const Window& window,
                    const float* tile,
                    float* out,
                    std::int64_t plane) {
  with_lanes([&]<int kLanes>() { to_planes<kLanes>(grid, side, window, tile, out, plane); });
}

void planes_to_tile(const Grid& grid,
                    Side side,
                    const float* planes,
                    std::int64_t plane,
                    const Window& window,
                    float* tile,
                    bool add) {
  with_lanes([&]<int kLanes>() { to_tile<kLanes>(grid, side, planes, plane, window, tile, add); });
}

}  // namespace capsfw::kernels

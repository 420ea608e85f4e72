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

/// Of a tile, for the widest vectors.
constexpr std::int64_t kMostNumbers = Points::kMost * Points::kMost * 16;

template <class V>
inline V& at(float* p) {
  return *reinterpret_cast<V*>(p);
}
template <class V>
inline const V& at(const float* p) {
  return *reinterpret_cast<const V*>(p);
}

/// A part of an axis: elements [first, first + count) of a tile of `size` are there.
struct Part {
  std::int64_t first, count, size;
};
/// Distances of neighbours along the axis of a pass (k) and across it (p), in and out.
struct Distances {
  std::int64_t in_k, in_p, out_k, out_p;
};

/// Values of `lines` parallel lines of a tile.
template <class V, int N, bool kImage>
inline void to_values(
    const Part& part, std::int64_t lines, const float* in, float* out, const Distances& d) {
  const std::int64_t last = part.size - 1 - part.first;
  for (std::int64_t p = 0; p < lines; ++p, in += d.in_p, out += d.out_p) {
    V x[N], v[N], end = {};
    unrolled<N>([&]<int k>() {
      const std::int64_t i = k - part.first;
      x[k] = i >= 0 && i < part.count ? at<V>(in + i * d.in_k) : V{};
    });
    if (!kImage && last >= 0 && last < part.count) end = at<V>(in + last * d.in_k);
    evaluate<N, kImage>(x, end, v);
    unrolled<N>([&]<int k>() { at<V>(out + k * d.out_k) = v[k]; });
  }
}

/// The transpose, written or added to what is there.
template <class V, int N, bool kImage>
inline void to_lines(const Part& part,
                     std::int64_t lines,
                     const float* in,
                     float* out,
                     const Distances& d,
                     bool add) {
  const std::int64_t last = part.size - 1 - part.first;
  for (std::int64_t p = 0; p < lines; ++p, in += d.in_p, out += d.out_p) {
    V x[N], v[N], more;
    unrolled<N>([&]<int k>() { v[k] = at<V>(in + k * d.in_k); });
    evaluate_transposed<N, kImage>(v, x, more);
    unrolled<N>([&]<int k>() {
      const std::int64_t i = k - part.first;
      if (i < 0 || i >= part.count) return;
      V y = x[k];
      if (!kImage && i == last) y += more;
      at<V>(out + i * d.out_k) = add ? at<V>(out + i * d.out_k) + y : y;
    });
  }
}

/// f.operator()<N>() for N = n.
template <int N = static_cast<int>(Points::kMost), class F>
inline void with_count(std::int64_t n, const F& f) {
  if constexpr (N > 1)
    if (n < N) return with_count<N - 1>(n, f);
  f.template operator()<N>();
}

/// What the values at a pair of points of a weight's tile are multiplied by.
template <class V>
inline void scale(const Grid& g, std::int64_t lanes, float* z) {
  for (std::int64_t u = 0; u < g.rows.count; ++u)
    for (std::int64_t v = 0; v < g.columns.count; ++v, z += lanes)
      at<V>(z) *= g.rows.scale(u) * g.columns.scale(v);
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

bool all_real(const Grid& g) {
  return g.rows.real == g.rows.count && g.columns.real == g.columns.count;
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

/// to_values() of an axis with n points. One function for each n and each kind of side.
void forward(std::int64_t n,
             Side side,
             const Part& part,
             std::int64_t lines,
             const float* in,
             float* out,
             const Distances& d) {
  with_lanes([&]<int kLanes>() {
    with_count(n, [&]<int N>() {
      if (side == Side::image)
        to_values<Vector<kLanes>, N, true>(part, lines, in, out, d);
      else
        to_values<Vector<kLanes>, N, false>(part, lines, in, out, d);
    });
  });
}
void backward(std::int64_t n,
              Side side,
              const Part& part,
              std::int64_t lines,
              const float* in,
              float* out,
              const Distances& d,
              bool add) {
  with_lanes([&]<int kLanes>() {
    with_count(n, [&]<int N>() {
      if (side == Side::image)
        to_lines<Vector<kLanes>, N, true>(part, lines, in, out, d, add);
      else
        to_lines<Vector<kLanes>, N, false>(part, lines, in, out, d, add);
    });
  });
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

void tile_to_planes(
    const Grid& g, Side side, const Window& w, const float* tile, float* out, std::int64_t plane) {
  alignas(64) float half[kMostNumbers], z[kMostNumbers];
  const std::int64_t lanes = tile_lanes(), height = g.rows.count, width = g.columns.count,
                     columns = w.columns * lanes;
  forward(height, side, {w.row, w.rows, g.rows.size(side)}, w.columns, tile, half,
          {w.row_stride, w.column_stride, columns, lanes});
  // Where all points are real, the values are the numbers.
  const bool plain = side != Side::weight && all_real(g);
  forward(width, side, {w.column, w.columns, g.columns.size(side)}, height, half, plain ? out : z,
          plain ? Distances{lanes, columns, plane, width * plane}
                : Distances{lanes, columns, lanes, width * lanes});
  if (plain) return;
  with_lanes([&]<int kLanes>() {
    using V = Vector<kLanes>;
    if (side == Side::weight) scale<V>(g, kLanes, z);
    if (side == Side::output)
      split<V, true>(g, kLanes, z, out, plane);
    else
      split<V, false>(g, kLanes, z, out, plane);
  });
}

void planes_to_tile(const Grid& g,
                    Side side,
                    const float* planes,
                    std::int64_t plane,
                    const Window& w,
                    float* tile,
                    bool add) {
  alignas(64) float half[kMostNumbers], z[kMostNumbers];
  const std::int64_t lanes = tile_lanes(), height = g.rows.count, width = g.columns.count,
                     columns = w.columns * lanes;
  const bool plain = side != Side::weight && all_real(g);
  if (!plain)
    with_lanes([&]<int kLanes>() {
      using V = Vector<kLanes>;
      if (side == Side::output)
        merge<V, true>(g, kLanes, planes, plane, z);
      else
        merge<V, false>(g, kLanes, planes, plane, z);
      if (side == Side::weight) scale<V>(g, kLanes, z);
    });
  backward(width, side, {w.column, w.columns, g.columns.size(side)}, height, plain ? planes : z,
           half,
           plain ? Distances{plane, width * plane, lanes, columns}
                 : Distances{lanes, width * lanes, lanes, columns},
           false);
  backward(height, side, {w.row, w.rows, g.rows.size(side)}, w.columns, half, tile,
           {columns, lanes, w.row_stride, w.column_stride}, add);
}

}  // namespace capsfw::kernels

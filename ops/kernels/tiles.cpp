#include "tiles.hpp"

#include <cstring>

#include "lanes.hpp"

namespace capsfw::kernels {
namespace {

/// Of a tile, for the widest vectors.
constexpr std::int64_t kMostNumbers = Points::kMost * Points::kMost * 16;

/// A part of an axis: elements [first, first + count) of a tile of `size` are there.
struct Part {
  std::int64_t first, count, size;
};
/// Distances of neighbours along the axis of a pass (k) and across it (p), in and out.
struct Distances {
  std::int64_t in_k, in_p, out_k, out_p;
};

/// Values of `lines` parallel lines of a tile.
template <class L, int N, bool kImage>
inline void to_values(
    const Part& part, std::int64_t lines, const float* in, float* out, const Distances& d) {
  const std::int64_t last = part.size - 1 - part.first;
  for (std::int64_t p = 0; p < lines; ++p, in += d.in_p, out += d.out_p) {
    typename L::Value x[N], v[N], end = {};
    unrolled<N>([&]<int k>() {
      const std::int64_t i = k - part.first;
      x[k] = i >= 0 && i < part.count ? L::at(in + i * d.in_k) : typename L::Value{};
    });
    if (!kImage && last >= 0 && last < part.count) end = L::at(in + last * d.in_k);
    evaluate<N, kImage>(x, end, v);
    unrolled<N>([&]<int k>() { L::at(out + k * d.out_k) = v[k]; });
  }
}

/// The transpose, written or added to what is there.
template <class L, int N, bool kImage>
inline void to_lines(const Part& part,
                     std::int64_t lines,
                     const float* in,
                     float* out,
                     const Distances& d,
                     bool add) {
  const std::int64_t last = part.size - 1 - part.first;
  for (std::int64_t p = 0; p < lines; ++p, in += d.in_p, out += d.out_p) {
    typename L::Value x[N], v[N], more;
    unrolled<N>([&]<int k>() { v[k] = L::at(in + k * d.in_k); });
    evaluate_transposed<N, kImage>(v, x, more);
    unrolled<N>([&]<int k>() {
      const std::int64_t i = k - part.first;
      if (i < 0 || i >= part.count) return;
      typename L::Value y = x[k];
      if (!kImage && i == last) y += more;
      L::at(out + i * d.out_k) = add ? L::at(out + i * d.out_k) + y : y;
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
template <class L>
inline void scale(const Grid& g, float* z) {
  for (std::int64_t u = 0; u < g.rows.count; ++u)
    for (std::int64_t v = 0; v < g.columns.count; ++v, z += L::size)
      L::at(z) *= g.rows.scale(u) * g.columns.scale(v);
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
template <class L, bool kOutput>
inline void split(const Grid& g, const float* z, float* out, std::int64_t plane) {
  using V = typename L::Value;
  const auto put = [&](const V& a, const V& b) {
    L::at(out) = kOutput ? 2 * (a + b) : a;
    L::at(out + plane) = kOutput ? 2 * (b - a) : b;
    L::at(out + 2 * plane) = kOutput ? -2 * b : a + b;
    out += 3 * plane;
  };
  each_point(
      g, L::size,
      [&](std::int64_t i) {
        L::at(out) = L::at(z + i);
        out += plane;
      },
      [&](std::int64_t re, std::int64_t im) {
        const V a = L::at(z + re), b = L::at(z + im);
        put(a, b);
      },
      [&](std::int64_t rr, std::int64_t ri, std::int64_t ir, std::int64_t ii) {
        const V a = L::at(z + rr), b = L::at(z + ri), c = L::at(z + ir), e = L::at(z + ii);
        put(a - e, b + c);
        put(a + e, b - c);
      });
}

/// The transpose of split.
template <class L, bool kOutput>
inline void merge(const Grid& g, const float* in, std::int64_t plane, float* z) {
  using V = typename L::Value;
  const auto take = [&](V& a, V& b) {
    const V p = L::at(in), q = L::at(in + plane), r = L::at(in + 2 * plane);
    a = kOutput ? 2 * (p - q) : p + r;
    b = kOutput ? 2 * (p + q - r) : q + r;
    in += 3 * plane;
  };
  each_point(
      g, L::size,
      [&](std::int64_t i) {
        L::at(z + i) = L::at(in);
        in += plane;
      },
      [&](std::int64_t re, std::int64_t im) {
        V a, b;
        take(a, b);
        L::at(z + re) = a;
        L::at(z + im) = b;
      },
      [&](std::int64_t rr, std::int64_t ri, std::int64_t ir, std::int64_t ii) {
        V a, b, c, e;
        take(a, b);
        take(c, e);
        L::at(z + rr) = a + c;
        L::at(z + ii) = c - a;
        L::at(z + ri) = b + e;
        L::at(z + ir) = b - e;
      });
}

bool all_real(const Grid& g) {
  return g.rows.real == g.rows.count && g.columns.real == g.columns.count;
}

/// to_values() of an axis with n points. One function for each n and each kind of side.
void forward(std::int64_t n,
             Side side,
             const Part& part,
             std::int64_t lines,
             const float* in,
             float* out,
             const Distances& d) {
  with_lanes([&]<int kBytes>() {
    with_count(n, [&]<int N>() {
      if (side == Side::image)
        to_values<Lanes<float, kBytes>, N, true>(part, lines, in, out, d);
      else
        to_values<Lanes<float, kBytes>, N, false>(part, lines, in, out, d);
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
  with_lanes([&]<int kBytes>() {
    with_count(n, [&]<int N>() {
      if (side == Side::image)
        to_lines<Lanes<float, kBytes>, N, true>(part, lines, in, out, d, add);
      else
        to_lines<Lanes<float, kBytes>, N, false>(part, lines, in, out, d, add);
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
  with_lanes([&]<int kBytes>() {
    using L = Lanes<float, kBytes>;
    if (side == Side::weight) scale<L>(g, z);
    if (side == Side::output)
      split<L, true>(g, z, out, plane);
    else
      split<L, false>(g, z, out, plane);
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
    with_lanes([&]<int kBytes>() {
      using L = Lanes<float, kBytes>;
      if (side == Side::output)
        merge<L, true>(g, planes, plane, z);
      else
        merge<L, false>(g, planes, plane, z);
      if (side == Side::weight) scale<L>(g, z);
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

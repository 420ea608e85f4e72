#include <capsfw/ops/pool.hpp>

#include <algorithm>

#include <fmt/format.h>

#include <capsfw/core/node.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>

namespace capsfw {
namespace {

/// The windows of one image plane.
struct Windows {
  std::int64_t size[2], kernel[2], stride[2], padding[2], out[2];

  struct Range {
    std::int64_t begin, end;
  };
  /// The rows (axis 0) or columns (axis 1) of window `i` that lie in the image.
  Range range(int axis, std::int64_t i) const {
    const std::int64_t start = i * stride[axis] - padding[axis];
    return {std::max<std::int64_t>(start, 0), std::min(start + kernel[axis], size[axis])};
  }
  std::int64_t plane() const { return size[0] * size[1]; }
  std::int64_t count() const { return out[0] * out[1]; }
  std::int64_t cost() const { return count() * kernel[0] * kernel[1]; }
};

Windows windows(const Dims& size,
                const Dims& kernel,
                const PoolOptions& options,
                std::string_view op) {
  const Dims stride = options.stride.empty() ? kernel : options.stride;
  for (const Dims& d : {size, kernel, stride, options.padding})
    if (d.rank() != 2)
      throw ShapeError(fmt::format(
          "{}: image, kernel, stride and padding are {{rows, columns}}; got {}, {}, {}, {}", op,
          size.str(), kernel.str(), stride.str(), options.padding.str()));
  Windows w{};
  for (int a = 0; a < 2; ++a) {
    const std::int64_t k = kernel[a], p = options.padding[a];
    if (k < 1 || stride[a] < 1 || p < 0 || p > k / 2)
      throw ValueError(fmt::format(
          "{}: kernel and stride must be at least 1 and padding lie in [0, kernel / 2]; got kernel "
          "= {}, stride = {}, padding = {}",
          op, kernel.str(), stride.str(), options.padding.str()));
    if (size[a] < 1 || size[a] + 2 * p < k)
      throw ShapeError(
          fmt::format("{}: the window must fit into the padded image; got image = {}, kernel = {}, "
                      "padding = {}",
                      op, size.str(), kernel.str(), options.padding.str()));
    w.size[a] = size[a];
    w.kernel[a] = k;
    w.stride[a] = stride[a];
    w.padding[a] = p;
    w.out[a] = (size[a] + 2 * p - k) / stride[a] + 1;
  }
  return w;
}

void check_image(const Tensor& x, std::string_view op) {
  if (x.dim() != 4)
    throw ShapeError(fmt::format("{}: takes images [B, C, H, W]; got {}", op, x.shape().str()));
}

Dims image_size(const Tensor& x) { return {x.size(-2), x.size(-1)}; }

Shape with_size(const Tensor& x, std::int64_t rows, std::int64_t columns) {
  return {x.size(0), x.size(1), rows, columns};
}

/// Where in its plane each window has its first maximum; a NaN is larger than everything.
template <class T>
void argmax_plane(const T* x, std::int64_t* index, const Windows& w) {
  for (std::int64_t i = 0; i < w.out[0]; ++i)
    for (std::int64_t j = 0; j < w.out[1]; ++j) {
      const auto rows = w.range(0, i), columns = w.range(1, j);
      std::int64_t best = rows.begin * w.size[1] + columns.begin;
      for (std::int64_t r = rows.begin; r < rows.end; ++r)
        for (std::int64_t c = columns.begin; c < columns.end; ++c) {
          const std::int64_t at = r * w.size[1] + c;
          if (x[at] > x[best] || (x[at] != x[at] && x[best] == x[best])) best = at;
        }
      *index++ = best;
    }
}

/// Calls visit(window, position in the plane, 1 / denominator) for every element of every window.
template <class Visit>
void each_element(const Windows& w, bool include_pad, const Visit& visit) {
  for (std::int64_t i = 0; i < w.out[0]; ++i)
    for (std::int64_t j = 0; j < w.out[1]; ++j) {
      const auto rows = w.range(0, i), columns = w.range(1, j);
      const std::int64_t inside = (rows.end - rows.begin) * (columns.end - columns.begin);
      const double scale =
          1.0 / static_cast<double>(include_pad ? w.kernel[0] * w.kernel[1] : inside);
      for (std::int64_t r = rows.begin; r < rows.end; ++r)
        for (std::int64_t c = columns.begin; c < columns.end; ++c)
          visit(i * w.out[1] + j, r * w.size[1] + c, scale);
    }
}

}  // namespace

Tensor max_pool2d(const Tensor& x, const Dims& kernel, const PoolOptions& options) {
  check_image(x, "max_pool2d");
  const Windows w = windows(image_size(x), kernel, options, "max_pool2d");
  const std::int64_t batch = x.size(0), channels = x.size(1);
  const Tensor in = contiguous_data(x);
  Tensor index = empty({batch, channels, w.count()}, DType::i64);
  visit_float(x.dtype(), "max_pool2d", [&]<class T>() {
    const T* xs = in.data<T>();
    std::int64_t* is = index.mutable_data<std::int64_t>();
    parallel_for(batch * channels, w.cost(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p)
        argmax_plane(xs + p * w.plane(), is + p * w.count(), w);
    });
  });
  const Tensor y = gather(reshape(x, {batch, channels, w.plane()}), 2, index);
  return reshape(y, with_size(x, w.out[0], w.out[1]));
}

Tensor avg_pool2d(const Tensor& x, const Dims& kernel, const PoolOptions& options) {
  check_image(x, "avg_pool2d");
  const Dims size = image_size(x);
  const Windows w = windows(size, kernel, options, "avg_pool2d");
  const bool include_pad = options.count_include_pad;
  const Tensor in = contiguous_data(x);
  Tensor y = zeros(with_size(x, w.out[0], w.out[1]), x.dtype());
  visit_float(x.dtype(), "avg_pool2d", [&]<class T>() {
    const T* xs = in.data<T>();
    T* ys = y.mutable_data<T>();
    parallel_for(x.size(0) * x.size(1), w.cost(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p)
        each_element(w, include_pad, [&](std::int64_t o, std::int64_t i, double scale) {
          ys[p * w.count() + o] += static_cast<T>(scale) * xs[p * w.plane() + i];
        });
    });
  });
  return record("avg_pool2d", {x}, y, Save::none,
                [size, kernel, options](const Saved&, const Tensor& gy) {
                  return avg_pool2d_input(gy, size, kernel, options);
                });
}

Tensor avg_pool2d_input(const Tensor& gy,
                        const Dims& input_size,
                        const Dims& kernel,
                        const PoolOptions& options) {
  check_image(gy, "avg_pool2d_input");
  const Windows w = windows(input_size, kernel, options, "avg_pool2d_input");
  if (gy.size(2) != w.out[0] || gy.size(3) != w.out[1])
    throw ShapeError(
        fmt::format("avg_pool2d_input: an image of {} has {} by {} windows of {}; got gy = {}",
                    input_size.str(), w.out[0], w.out[1], kernel.str(), gy.shape().str()));
  const bool include_pad = options.count_include_pad;
  const Tensor in = contiguous_data(gy);
  Tensor x = zeros(with_size(gy, w.size[0], w.size[1]), gy.dtype());
  visit_float(gy.dtype(), "avg_pool2d_input", [&]<class T>() {
    const T* ys = in.data<T>();
    T* xs = x.mutable_data<T>();
    parallel_for(gy.size(0) * gy.size(1), w.cost(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p)
        each_element(w, include_pad, [&](std::int64_t o, std::int64_t i, double scale) {
          xs[p * w.plane() + i] += static_cast<T>(scale) * ys[p * w.count() + o];
        });
    });
  });
  return record(
      "avg_pool2d_input", {gy}, x, Save::none,
      [kernel, options](const Saved&, const Tensor& g) { return avg_pool2d(g, kernel, options); });
}

}  // namespace capsfw

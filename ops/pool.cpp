#include <capsfw/ops/pool.hpp>

#include <algorithm>
#include <type_traits>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>

namespace capsfw {
namespace {

/// The windows of one image plane.
struct Windows {
  std::int64_t size[2], kernel[2], stride[2], padding[2], out[2];
  bool adaptive = false;  // window i of n covers [i/n, (i+1)/n) of the image; kernel: the longest

  struct Range {
    std::int64_t begin, end;
  };
  /// The rows (axis 0) or columns (axis 1) of window `i` that lie in the image.
  Range range(int axis, std::int64_t i) const {
    const std::int64_t n = out[axis];
    if (adaptive) return {i * size[axis] / n, ((i + 1) * size[axis] + n - 1) / n};
    const std::int64_t start = i * stride[axis] - padding[axis];
    return {std::max<std::int64_t>(start, 0), std::min(start + kernel[axis], size[axis])};
  }
  std::int64_t plane() const { return size[0] * size[1]; }
  std::int64_t count() const { return out[0] * out[1]; }
  /// Elements that the windows read; they do not read beyond the image, however large they are.
  std::int64_t cost() const {
    return count() * std::min(kernel[0], size[0]) * std::min(kernel[1], size[1]);
  }
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

Windows adaptive_windows(const Dims& size, const Dims& out, std::string_view op) {
  if (size.rank() != 2 || out.rank() != 2)
    throw ShapeError(fmt::format("{}: image and output are {{rows, columns}}; got {} and {}", op,
                                 size.str(), out.str()));
  Windows w{};
  w.adaptive = true;
  for (int a = 0; a < 2; ++a) {
    if (out[a] < 1)
      throw ValueError(
          fmt::format("{}: the output must have at least one row and one column; got "
                      "{}",
                      op, out.str()));
    if (size[a] < 1)
      throw ShapeError(fmt::format("{}: the image must have pixels; got {}", op, size.str()));
    w.size[a] = size[a];
    w.out[a] = out[a];
    w.kernel[a] = size[a] / out[a] + 2;
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
          1.0 / (include_pad ? static_cast<double>(w.kernel[0]) * static_cast<double>(w.kernel[1])
                             : static_cast<double>(inside));
      for (std::int64_t r = rows.begin; r < rows.end; ++r)
        for (std::int64_t c = columns.begin; c < columns.end; ++c)
          visit(i * w.out[1] + j, r * w.size[1] + c, scale);
    }
}

/// Where each window has its first maximum: i64 [B, C, windows].
Tensor argmax_windows(const Tensor& x, const Windows& w, std::string_view op) {
  const std::int64_t planes = x.size(0) * x.size(1);
  const Tensor in = contiguous_data(x);
  Tensor index = empty({x.size(0), x.size(1), w.count()}, DType::i64, op);
  visit_float(x, op, [&]<class T>() {
    const T* xs = in.data<T>();
    std::int64_t* is = index.mutable_data<std::int64_t>();
    parallel_for(planes, w.cost(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p)
        argmax_plane(xs + p * w.plane(), is + p * w.count(), w);
    });
  });
  return index;
}

Tensor maximum(const Tensor& x, const Windows& w, std::string_view op) {
  const Tensor index = argmax_windows(x, w, op);
  const Tensor y = gather(reshape(x, {x.size(0), x.size(1), w.plane()}), 2, index);
  return reshape(y, with_size(x, w.out[0], w.out[1]));
}

/// The means of all windows, outside any graph; sums in Sum or, for f64, in double.
template <class Sum>
Tensor average(const Tensor& x, const Windows& w, bool include_pad, std::string_view op) {
  const Tensor in = contiguous_data(x);
  Tensor y = empty(with_size(x, w.out[0], w.out[1]), x.dtype(), op);
  visit_float(x, op, [&]<class T>() {
    using Total = std::conditional_t<std::is_same_v<T, double>, double, Sum>;
    const T* xs = in.data<T>();
    T* ys = y.mutable_data<T>();
    parallel_for(x.size(0) * x.size(1), w.cost(), [&](std::int64_t begin, std::int64_t end) {
      std::vector<Total> total(static_cast<std::size_t>(w.count()));
      for (std::int64_t p = begin; p < end; ++p) {
        std::fill(total.begin(), total.end(), Total(0));
        each_element(w, include_pad, [&](std::int64_t o, std::int64_t i, double scale) {
          total[static_cast<std::size_t>(o)] +=
              static_cast<Total>(scale) * static_cast<Total>(xs[p * w.plane() + i]);
        });
        std::copy(total.begin(), total.end(), ys + p * w.count());
      }
    });
  });
  return y;
}

/// The adjoint of average, outside any graph.
Tensor spread(const Tensor& gy, const Windows& w, bool include_pad, std::string_view op) {
  const Tensor in = contiguous_data(gy);
  Tensor x = zeros(with_size(gy, w.size[0], w.size[1]), gy.dtype(), op);
  visit_float(gy, op, [&]<class T>() {
    const T* ys = in.data<T>();
    T* xs = x.mutable_data<T>();
    parallel_for(gy.size(0) * gy.size(1), w.cost(), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t p = begin; p < end; ++p)
        each_element(w, include_pad, [&](std::int64_t o, std::int64_t i, double scale) {
          xs[p * w.plane() + i] += static_cast<T>(scale) * ys[p * w.count() + o];
        });
    });
  });
  return x;
}

void check_windows(const Tensor& gy,
                   const Windows& w,
                   const Dims& input_size,
                   std::string_view op) {
  if (gy.size(2) != w.out[0] || gy.size(3) != w.out[1])
    throw ShapeError(fmt::format("{}: an image of {} has {} by {} windows of {}; got gy = {}", op,
                                 input_size.str(), w.out[0], w.out[1],
                                 Dims{w.kernel[0], w.kernel[1]}.str(), gy.shape().str()));
}

}  // namespace

Tensor max_pool2d(const Tensor& x, const Dims& kernel, const PoolOptions& options) {
  check_image(x, "max_pool2d");
  return maximum(x, windows(image_size(x), kernel, options, "max_pool2d"), "max_pool2d");
}

Tensor adaptive_max_pool2d(const Tensor& x, const Dims& output_size) {
  check_image(x, "adaptive_max_pool2d");
  const Windows w = adaptive_windows(image_size(x), output_size, "adaptive_max_pool2d");
  static_cast<void>(with_size(x, w.out[0], w.out[1]).numel());  // ShapeError where it overflows
  return maximum(x, w, "adaptive_max_pool2d");
}

Tensor avg_pool2d(const Tensor& x, const Dims& kernel, const PoolOptions& options) {
  check_image(x, "avg_pool2d");
  const Dims size = image_size(x);
  const Windows w = windows(size, kernel, options, "avg_pool2d");
  const Tensor y = average<float>(x, w, options.count_include_pad, "avg_pool2d");
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
  check_windows(gy, w, input_size, "avg_pool2d_input");
  const Tensor x = spread(gy, w, options.count_include_pad, "avg_pool2d_input");
  return record(
      "avg_pool2d_input", {gy}, x, Save::none,
      [kernel, options](const Saved&, const Tensor& g) { return avg_pool2d(g, kernel, options); });
}

Tensor adaptive_avg_pool2d(const Tensor& x, const Dims& output_size) {
  check_image(x, "adaptive_avg_pool2d");
  const Dims size = image_size(x);
  const Windows w = adaptive_windows(size, output_size, "adaptive_avg_pool2d");
  const Tensor y = average<double>(x, w, false, "adaptive_avg_pool2d");
  return record("adaptive_avg_pool2d", {x}, y, Save::none, [size](const Saved&, const Tensor& gy) {
    return adaptive_avg_pool2d_input(gy, size);
  });
}

Tensor adaptive_avg_pool2d_input(const Tensor& gy, const Dims& input_size) {
  check_image(gy, "adaptive_avg_pool2d_input");
  const Dims out = image_size(gy);
  const Windows w = adaptive_windows(input_size, out, "adaptive_avg_pool2d_input");
  const Tensor x = spread(gy, w, false, "adaptive_avg_pool2d_input");
  return record("adaptive_avg_pool2d_input", {gy}, x, Save::none,
                [out](const Saved&, const Tensor& g) { return adaptive_avg_pool2d(g, out); });
}

}  // namespace capsfw

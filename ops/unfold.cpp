#include <algorithm>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/ops/conv.hpp>

#include "kernels/conv_shape.hpp"

namespace capsfw {
namespace {

using kernels::ConvAxis;

/// The outputs [begin, end) whose tap `tap` lies in the image, and the pixel of output 0.
struct Reach {
  Reach(const ConvAxis& a, std::int64_t tap)
      : start(tap * a.dilation - a.padding),
        begin(std::clamp<std::int64_t>((-start + a.stride - 1) / a.stride, 0, a.out)),
        end(start >= a.size
                ? begin
                : std::clamp<std::int64_t>((a.size - 1 - start) / a.stride + 1, begin, a.out)) {}
  std::int64_t start, begin, end;
};

/// Calls f(pixel, place, count) for each stretch of outputs of one row whose tap (p, q) lies in the
/// image.
template <class F>
void each_row(
    const ConvAxis& rows, const ConvAxis& columns, std::int64_t p, std::int64_t q, const F& f) {
  const Reach r(rows, p), c(columns, q);
  if (c.begin == c.end) return;
  for (std::int64_t i = r.begin; i < r.end; ++i)
    f((r.start + i * rows.stride) * columns.size + c.start + c.begin * columns.stride,
      i * columns.out + c.begin, c.end - c.begin);
}

void check_image(const Dims& size, const Dims& kernel, const ConvOptions& o, std::string_view op) {
  kernels::check_pair(size, "the image", op);
  kernels::check_pair(kernel, "kernel", op);
  kernels::check_options(o, op);
}

/// Of lengths that only padding limits. ShapeError if it does not fit into 63 bits.
std::int64_t product(const Dims& lengths) { return lengths.numel(); }

}  // namespace

Tensor unfold(const Tensor& x, const Dims& kernel, const ConvOptions& options) {
  if (x.dim() != 4)
    throw ShapeError(
        fmt::format("unfold: takes images [B, C, H, W]; got x = {}. Hint: unsqueeze(x, 0) makes a "
                    "batch of one image",
                    x.shape().str()));
  const Dims size = {x.size(2), x.size(3)};
  check_image(size, kernel, options, "unfold");
  const auto axes =
      kernels::axes_of(size, kernel, options, "unfold",
                       fmt::format("x = {}, kernel = {}", x.shape().str(), kernel.str()));
  const ConvAxis rows = axes.first, columns = axes.second;
  const std::int64_t taps = product({rows.kernel, columns.kernel}),
                     outputs = product({rows.out, columns.out}), planes = x.size(0) * x.size(1);
  Tensor y = empty({x.size(0), product({x.size(1), rows.kernel, columns.kernel}), outputs},
                   x.dtype(), "unfold");
  visit_float(x, "unfold", [&]<class T>() {
    const Tensor c = contiguous_data(x);
    const T* from = c.data<T>();
    T* to = y.mutable_data<T>();
    parallel_for(planes * taps, outputs, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const T* plane = from + t / taps * rows.size * columns.size;
        T* row = to + t * outputs;
        std::fill_n(row, outputs, T(0));
        each_row(rows, columns, t % taps / columns.kernel, t % columns.kernel,
                 [&](std::int64_t pixel, std::int64_t place, std::int64_t n) {
                   for (std::int64_t i = 0; i < n; ++i)
                     row[place + i] = plane[pixel + i * columns.stride];
                 });
      }
    });
  });
  return record("unfold", {x}, y, Save::none,
                [size, kernel, options](const Saved&, const Tensor& gy) {
                  return fold(gy, size, kernel, options);
                });
}

Tensor fold(const Tensor& columns,
            const Dims& output_size,
            const Dims& kernel,
            const ConvOptions& options) {
  check_image(output_size, kernel, options, "fold");
  const std::string what = fmt::format("columns = {}, output_size = {}, kernel = {}",
                                       columns.shape().str(), output_size.str(), kernel.str());
  const auto axes = kernels::axes_of(output_size, kernel, options, "fold", what);
  const ConvAxis rows = axes.first, cols = axes.second;
  const std::int64_t taps = product({rows.kernel, cols.kernel}),
                     outputs = product({rows.out, cols.out});
  if (columns.dim() != 3 || columns.size(1) % taps != 0 || columns.size(2) != outputs)
    throw ShapeError(fmt::format(
        "fold: columns must be [B, C * {}, {}] for this image and kernel; got {}, {}. Hint: the "
        "last axis counts the positions of the kernel",
        taps, outputs, what, kernels::str(options)));
  Tensor y = empty({columns.size(0), columns.size(1) / taps, output_size[0], output_size[1]},
                   columns.dtype(), "fold");
  visit_float(columns, "fold", [&]<class T>() {
    const Tensor c = contiguous_data(columns);
    const T* from = c.data<T>();
    T* to = y.mutable_data<T>();
    const std::int64_t pixels = rows.size * cols.size;
    parallel_for(y.size(0) * y.size(1), taps * outputs, [&](std::int64_t begin, std::int64_t end) {
      std::fill(to + begin * pixels, to + end * pixels, T(0));
      for (std::int64_t t = begin * taps; t < end * taps; ++t) {
        const T* row = from + t * outputs;
        T* plane = to + t / taps * pixels;
        each_row(rows, cols, t % taps / cols.kernel, t % cols.kernel,
                 [&](std::int64_t pixel, std::int64_t place, std::int64_t n) {
                   for (std::int64_t i = 0; i < n; ++i)
                     plane[pixel + i * cols.stride] += row[place + i];
                 });
      }
    });
  });
  return record(
      "fold", {columns}, y, Save::none,
      [kernel, options](const Saved&, const Tensor& gy) { return unfold(gy, kernel, options); });
}

}  // namespace capsfw

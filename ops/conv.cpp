#include <capsfw/ops/conv.hpp>

#include <algorithm>
#include <optional>
#include <type_traits>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/ops/reduce.hpp>

#include "kernels/conv_product.hpp"
#include "kernels/conv_shape.hpp"
#include "kernels/conv_transform.hpp"

namespace capsfw {
namespace {

using kernels::check_operands;
using kernels::check_options;
using kernels::check_pair;
using kernels::ConvAxis;
using kernels::ConvShape;
using kernels::covers_image;
using kernels::multiply_pixels;
using kernels::pointwise;
using kernels::shape_of;
using kernels::str;
using kernels::WholeImages;

Shape output_shape(const ConvShape& s) {
  return {s.batch, s.groups * s.filters, s.rows.out, s.columns.out};
}

/// gy must be what conv2d would have returned.
void check_gy(const ConvShape& s, const Tensor& gy, const ConvOptions& o, std::string_view op) {
  if (gy.shape() != output_shape(s))
    throw ShapeError(fmt::format(
        "{}: gy must have the shape of conv2d's result, {} for an image of {} and a kernel of {}; "
        "got gy = {}, {}. Hint: check input_size, stride and padding",
        op, output_shape(s).str(), Dims{s.rows.size, s.columns.size}.str(),
        Dims{s.rows.kernel, s.columns.kernel}.str(), gy.shape().str(), str(o)));
}

/// The way of a shape: a product of matrices for all pixels or for all images, tiles of a
/// transform, or none of them.
struct Way {
  bool pointwise = false, whole = false;
  std::optional<kernels::TileSize> tile = {};
};

Way way_of(const ConvShape& s, DType dtype, const ConvOptions& o, std::string_view op) {
  if (o.algorithm == ConvAlgorithm::transform) {
    const auto choice = kernels::choose_tile(s);
    if (!choice || dtype != DType::f32)
      throw ValueError(
          fmt::format("{}: the transform takes f32, one group, no dilation, kernels of at most {} "
                      "taps per stride and images of at most {} pixels; got {}, {} channels of "
                      "{}x{}, a kernel of {}x{}, {}. Hint: ConvAlgorithm::automatic",
                      op, kernels::kMostPhaseTaps, kernels::kMostPixels, name_of(dtype), s.channels,
                      s.rows.size, s.columns.size, s.rows.kernel, s.columns.kernel, str(o)));
    return {.tile = choice->tile};
  }
  if (pointwise(s)) return {.pointwise = true};
  if (covers_image(s)) return {.whole = true};
  if (o.algorithm == ConvAlgorithm::direct || dtype != DType::f32) return {};
  return {.tile = kernels::profitable_tile(s)};
}

/// y = bias for every image and pixel, or 0.
template <class T>
void fill_channels(const Tensor& bias, Tensor& y) {
  if (!bias.defined()) {
    y.fill_(0);
    return;
  }
  const std::int64_t pixels = y.size(2) * y.size(3), channels = y.size(1);
  const T* b = bias.data<T>();
  T* p = y.mutable_data<T>();
  parallel_for(y.size(0) * channels, pixels / 8 + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) std::fill_n(p + i * pixels, pixels, b[i % channels]);
  });
}

Dims last_two(const Tensor& x) { return {x.size(-2), x.size(-1)}; }

}  // namespace

std::string conv2d_algorithm(const Shape& x,
                             const Shape& weight,
                             const ConvOptions& options,
                             DType dtype) {
  visit_float(dtype, "conv2d_algorithm", []<class>() {});  // or a DTypeError
  if (x.rank() != 4 || weight.rank() != 4)
    throw ShapeError(
        fmt::format("conv2d_algorithm: takes the shapes of images [B, C, H, W] and weights [O, "
                    "C/groups, kh, kw]; got x = {}, weight = {}",
                    x.str(), weight.str()));
  const ConvShape s = shape_of(x, weight, options, "conv2d_algorithm");
  const Way way = way_of(s, dtype, options, "conv2d_algorithm");
  if (way.tile) return fmt::format("transform {}x{}", way.tile->rows, way.tile->columns);
  return way.pointwise || way.whole ? "matrix product" : "direct";
}

Tensor conv2d(const Tensor& x,
              const Tensor& weight,
              const Tensor& bias,
              const ConvOptions& options) {
  check_operands(x, "x", weight, "weight", "conv2d");
  const ConvShape s = shape_of(x.shape(), weight.shape(), options, "conv2d");
  kernels::check_bias(bias, weight.size(0), x.dtype(), "conv2d");
  const Way way = way_of(s, x.dtype(), options, "conv2d");
  Tensor y = empty(output_shape(s), x.dtype(), "conv2d");
  detail::naming("conv2d", [&] {
    visit_float(x, "conv2d", [&]<class T>() {
      const Tensor xs = contiguous_data(x), w = contiguous_data(weight),
                   b = bias.defined() ? contiguous_data(bias) : Tensor();
      if (y.numel() == 0) return;
      if (s.work() == 0 || way.pointwise || way.whole) fill_channels<T>(b, y);
      if (s.work() == 0) return;
      const T* bias_data = b.defined() ? b.data<T>() : nullptr;
      T* const out = y.mutable_data<T>();
      if (way.pointwise) return multiply_pixels(s, false, w.data<T>(), xs.data<T>(), out);
      if (way.whole) return WholeImages(s).forward(xs.data<T>(), w.data<T>(), out);
      if constexpr (std::is_same_v<T, float>)
        if (way.tile)
          return kernels::transform_forward(s, *way.tile, xs.data<T>(), w.data<T>(), bias_data,
                                            out);
      kernels::conv_forward(s, xs.data<T>(), w.data<T>(), bias_data, out);
    });
  });
  TensorList inputs = {x, weight};
  if (bias.defined()) inputs.push_back(bias);
  const Dims size = last_two(x), kernel = last_two(weight);
  const bool has_bias = bias.defined();
  return record("conv2d", inputs, y, Save::input0 | Save::input1,
                [size, kernel, options, has_bias](const Saved& saved, const Tensor& gy) {
                  TensorList g(has_bias ? 3 : 2);
                  if (saved.needs(0)) g[0] = conv2d_input(gy, saved.input(1), size, options);
                  if (saved.needs(1)) g[1] = conv2d_weight(saved.input(0), gy, kernel, options);
                  if (has_bias && saved.needs(2)) g[2] = sum(gy, {0, 2, 3});
                  return g;
                });
}

Tensor conv2d_input(const Tensor& gy,
                    const Tensor& weight,
                    const Dims& input_size,
                    const ConvOptions& options) {
  check_operands(gy, "gy", weight, "weight", "conv2d_input");
  check_pair(input_size, "input_size", "conv2d_input");
  check_options(options, "conv2d_input");
  const Shape shape{gy.size(0), weight.size(1) * options.groups, input_size[0], input_size[1]};
  const ConvShape s = shape_of(shape, weight.shape(), options, "conv2d_input");
  check_gy(s, gy, options, "conv2d_input");
  const Way way = way_of(s, gy.dtype(), options, "conv2d_input");
  Tensor gx = empty(shape, gy.dtype(), "conv2d_input");
  detail::naming("conv2d_input", [&] {
    visit_float(gy, "conv2d_input", [&]<class T>() {
      const Tensor g = contiguous_data(gy), w = contiguous_data(weight);
      if (gx.numel() == 0) return;
      if (s.work() == 0 || way.pointwise) gx.fill_(0);
      if (s.work() == 0) return;
      T* const out = gx.mutable_data<T>();
      if (way.pointwise) return multiply_pixels(s, true, w.data<T>(), g.data<T>(), out);
      if (way.whole) return WholeImages(s).input(g.data<T>(), w.data<T>(), out);
      if constexpr (std::is_same_v<T, float>)
        if (way.tile) return kernels::transform_input(s, *way.tile, g.data<T>(), w.data<T>(), out);
      kernels::conv_input(s, g.data<T>(), w.data<T>(), out);
    });
  });
  const Dims kernel = last_two(weight);
  return record("conv2d_input", {gy, weight}, gx, Save::inputs,
                [kernel, options](const Saved& saved, const Tensor& ggx) {
                  TensorList g(2);
                  if (saved.needs(0)) g[0] = conv2d(ggx, saved.input(1), {}, options);
                  if (saved.needs(1)) g[1] = conv2d_weight(ggx, saved.input(0), kernel, options);
                  return g;
                });
}

Tensor conv2d_weight(const Tensor& x,
                     const Tensor& gy,
                     const Dims& kernel,
                     const ConvOptions& options) {
  check_operands(x, "x", gy, "gy", "conv2d_weight");
  check_pair(kernel, "kernel", "conv2d_weight");
  check_options(options, "conv2d_weight");
  if (x.size(1) % options.groups != 0)
    throw ShapeError(
        fmt::format("conv2d_weight: groups must divide the channels of x; got x = {}, "
                    "gy = {}, {}",
                    x.shape().str(), gy.shape().str(), str(options)));
  const Shape shape{gy.size(1), x.size(1) / options.groups, kernel[0], kernel[1]};
  const ConvShape s = shape_of(x.shape(), shape, options, "conv2d_weight");
  check_gy(s, gy, options, "conv2d_weight");
  const Way way = way_of(s, x.dtype(), options, "conv2d_weight");
  Tensor gw = empty(shape, x.dtype(), "conv2d_weight");
  detail::naming("conv2d_weight", [&] {
    visit_float(x, "conv2d_weight", [&]<class T>() {
      const Tensor xs = contiguous_data(x), g = contiguous_data(gy);
      if (gw.numel() == 0) return;
      if (s.work() == 0) {
        gw.fill_(0);
        return;
      }
      T* const out = gw.mutable_data<T>();
      if (way.whole) return WholeImages(s).weight(xs.data<T>(), g.data<T>(), out);
      if constexpr (std::is_same_v<T, float>)
        if (way.tile)
          return kernels::transform_weight(s, *way.tile, xs.data<T>(), g.data<T>(), out);
      kernels::conv_weight(s, xs.data<T>(), g.data<T>(), out);
    });
  });
  const Dims size = last_two(x);
  return record("conv2d_weight", {x, gy}, gw, Save::inputs,
                [size, options](const Saved& saved, const Tensor& ggw) {
                  TensorList g(2);
                  if (saved.needs(0)) g[0] = conv2d_input(saved.input(1), ggw, size, options);
                  if (saved.needs(1)) g[1] = conv2d(saved.input(0), ggw, {}, options);
                  return g;
                });
}

}  // namespace capsfw

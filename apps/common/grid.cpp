#include "grid.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

#include <capsfw/ops/layout.hpp>

#include "canvas.hpp"

namespace capsfw::apps {
namespace {

constexpr double kTitleSize = 14;
constexpr double kLargest = 10.5;  // of words, before they are made to fit
constexpr double kSmallest = 7;
constexpr int kMargin = 20;
constexpr int kGap = 6;  // between neighbours, and between an image and its words

/// The size at which the longest of `words` fits into `width`.
double size_for(const std::vector<std::string>& words, double width) {
  double longest = 0;
  for (const auto& w : words) longest = std::max(longest, text_width(w, 1));
  return longest == 0 ? kLargest : std::clamp(width / longest, kSmallest, kLargest);
}

/// Height of a line of words, with its descenders and the gap to the image.
int line_height(double size) { return static_cast<int>(std::ceil(size * 1.35)) + kGap; }

void check(const Tensor& images, const GridOptions& o) {
  const bool good = images.dim() == 4 && images.size(0) > 0 &&
                    (images.size(1) == 1 || images.size(1) == 3) && images.size(2) > 0 &&
                    images.size(3) > 0;
  if (!good)
    throw ShapeError(
        fmt::format("labelled_grid: takes images [N, 1 or 3, H, W] with nothing empty; got {}",
                    images.shape().str()));
  if (o.columns < 1 || o.scale < 1)
    throw ValueError(fmt::format(
        "labelled_grid: columns and scale must be at least 1; got {} and {}", o.columns, o.scale));
  // Guards the integers below; the canvas has the real limit.
  constexpr std::int64_t kSide = 1 << 20;
  if (images.size(2) * o.scale > kSide || images.size(3) * o.scale > kSide ||
      images.size(0) > kSide || o.columns > kSide || o.scale > kSide)
    throw ValueError(fmt::format("labelled_grid: too large to draw: {} at scale {}",
                                 images.shape().str(), o.scale));
}

}  // namespace

int scale_to(const Tensor& images, std::int64_t side) {
  const std::int64_t longer = std::max(images.size(-1), images.size(-2));
  return static_cast<int>(std::max<std::int64_t>(1, (side + images.size(-1) / 2) / longer));
}

Tensor drawable(const Tensor& images) {
  const std::int64_t channels = images.size(1);
  return channels == 1 || channels == 3 ? images : narrow(images, 1, 0, 1);
}

Tensor labelled_grid(const Tensor& images, const GridOptions& o) {
  check(images, o);
  const Tensor data = cast_data(images, DType::f32);
  const int n = static_cast<int>(data.size(0));
  const int columns = std::min(o.columns, n), rows = (n + columns - 1) / columns;
  const std::int64_t w = data.size(3) * o.scale, h = data.size(2) * o.scale;

  const double header_size = size_for(o.headers, static_cast<double>(w));
  const double caption_size = size_for(o.captions, static_cast<double>(w));
  double row_label = 0;
  for (const auto& r : o.rows) row_label = std::max(row_label, text_width(r, kLargest));
  const int left = kMargin + (row_label > 0 ? static_cast<int>(row_label) + 2 * kGap : 0);
  const int title = o.title.empty() ? 0 : static_cast<int>(kTitleSize) + 18;
  const int top = kMargin + title + (o.headers.empty() ? 0 : line_height(header_size));
  const int caption = o.captions.empty() ? 0 : line_height(caption_size) + kGap;
  const auto row_top = [&](int r) {
    const std::int64_t groups = o.group > 0 ? r / o.group : 0;
    return top + r * (h + kGap + caption) + groups * 2 * kGap;
  };
  const auto column_left = [&](int c) { return left + c * (w + kGap); };

  const std::int64_t width = column_left(columns) - kGap + kMargin;
  const std::int64_t height = row_top(rows - 1) + h + caption + kMargin;
  constexpr std::int64_t kSide = 1 << 26;
  Canvas canvas(static_cast<int>(std::min(width, kSide)),
                static_cast<int>(std::min(height, kSide)));

  const double room = static_cast<double>(width - 2 * kMargin);
  canvas.text({kMargin, kMargin + kTitleSize}, fit_text(o.title, kTitleSize, room),
              {.size = kTitleSize, .bold = true});
  const auto middle = [&](int c) {
    return static_cast<double>(column_left(c)) + static_cast<double>(w) / 2;
  };
  for (int c = 0; c < columns && c < static_cast<int>(o.headers.size()); ++c)
    canvas.text(
        {middle(c), top - kGap - header_size * 0.25},
        fit_text(o.headers[static_cast<std::size_t>(c)], header_size, static_cast<double>(w)),
        {.size = header_size, .align = Align::centre});
  for (int r = 0; r < rows && r < static_cast<int>(o.rows.size()); ++r)
    canvas.text({left - 2.0 * kGap,
                 static_cast<double>(row_top(r)) + static_cast<double>(h) / 2 + kLargest / 2},
                o.rows[static_cast<std::size_t>(r)], {.size = kLargest, .align = Align::right});
  for (int i = 0; i < n; ++i) {
    const int c = i % columns, y = static_cast<int>(row_top(i / columns));
    const Shape one{data.size(1), data.size(2), data.size(3)};
    const Tensor image =
        strided_view(data, one, contiguous_strides(one), data.offset() + i * one.numel());
    canvas.image(static_cast<int>(column_left(c)), y, image, o.scale, o.smooth);
    if (i < static_cast<int>(o.captions.size()))
      canvas.text(
          {middle(c), static_cast<double>(y + h) + kGap + caption_size},
          fit_text(o.captions[static_cast<std::size_t>(i)], caption_size, static_cast<double>(w)),
          {.size = caption_size, .color = kGreyInk, .align = Align::centre});
  }
  return canvas.to_tensor();
}

}  // namespace capsfw::apps

#include "common/heat.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

namespace capsfw::apps {
namespace {

constexpr double kSize = 10, kTitleSize = 14;
constexpr int kMargin = 20, kGap = 8, kCellHeight = 30;

double widest(const std::vector<std::string>& words) {
  double width = 0;
  for (const std::string& w : words) width = std::max(width, text_width(w, kSize));
  return width;
}

}  // namespace

Rgb heat_color(double value) {
  const double v = std::isnan(value) ? 0 : std::clamp(value, -1.0, 1.0);
  const Rgb full = v < 0 ? rgb(0xE8862D) : rgb(0x2F7FC1);
  const auto mix = [t = static_cast<float>(std::abs(v))](float c) { return 1 + t * (c - 1); };
  return {mix(full.r), mix(full.g), mix(full.b)};
}

Tensor heat_map(const Tensor& values, const HeatWords& words, double scale) {
  const auto count = [](const std::vector<std::string>& w) {
    return static_cast<std::int64_t>(w.size());
  };
  if (values.dim() != 2 || values.numel() == 0 || count(words.rows) != values.size(0) ||
      count(words.columns) != values.size(1) ||
      (!words.cells.empty() && count(words.cells) != values.numel()))
    throw ShapeError(fmt::format("heat_map: values [R, C] with as many words; got {}, {} and {}",
                                 values.shape().str(), words.rows.size(), words.columns.size()));
  constexpr std::int64_t kMost = 4096;
  if (values.size(0) > kMost || values.size(1) > kMost)
    throw ValueError(fmt::format("heat_map: too large to draw: {}", values.shape().str()));
  const auto v = values.to_vector<double>();
  if (scale <= 0)
    for (const double x : v)
      if (std::isfinite(x)) scale = std::max(scale, std::abs(x));
  if (scale <= 0) scale = 1;

  const int rows = static_cast<int>(values.size(0)), columns = static_cast<int>(values.size(1));
  const int cell = static_cast<int>(std::ceil(std::max(
                       {widest(words.columns), widest(words.cells), static_cast<double>(18)}))) +
                   2 * kGap;
  const int left = kMargin + static_cast<int>(std::ceil(widest(words.rows))) + kGap;
  const int top = kMargin + (words.title.empty() ? 0 : 32) + 20;
  const int width =
      std::max(left + columns * cell,
               kMargin + static_cast<int>(std::ceil(std::max(text_width(words.title, kTitleSize),
                                                             text_width(words.note, kSize))))) +
      kMargin;
  const int height = top + rows * kCellHeight + (words.note.empty() ? 0 : 26) + kMargin;
  Canvas canvas(width, height);
  canvas.text({kMargin, kMargin + kTitleSize}, words.title, {.size = kTitleSize, .bold = true});
  for (int c = 0; c < columns; ++c)
    canvas.text({left + (c + 0.5) * cell, top - 6.0}, words.columns[static_cast<std::size_t>(c)],
                {.size = kSize, .color = kGreyInk, .align = Align::centre});
  for (int r = 0; r < rows; ++r) {
    const int y = top + r * kCellHeight;
    const double base = y + (kCellHeight + kSize) / 2;
    canvas.text({static_cast<double>(left - kGap), base}, words.rows[static_cast<std::size_t>(r)],
                {.size = kSize, .align = Align::right});
    for (int c = 0; c < columns; ++c) {
      const auto i = static_cast<std::size_t>(r * columns + c);
      const double x = v[i] / scale;
      canvas.fill_rect(left + c * cell, y, cell - 1, kCellHeight - 1, heat_color(x));
      if (!words.cells.empty())
        canvas.text(
            {left + (c + 0.5) * cell, base}, words.cells[i],
            {.size = kSize, .color = std::abs(x) > 0.7 ? kWhite : kInk, .align = Align::centre});
    }
  }
  canvas.text({kMargin, static_cast<double>(top + rows * kCellHeight + 20)}, words.note,
              {.size = kSize, .color = kGreyInk});
  return canvas.to_tensor();
}

}  // namespace capsfw::apps

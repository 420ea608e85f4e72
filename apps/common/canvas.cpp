#include "canvas.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

#include "font.hpp"

namespace capsfw::apps {
namespace {

constexpr double kUnitsPerSize = 0.1;  // glyphs are 10 units high
constexpr double kStroke = 1.05;       // of a letter, in units
constexpr double kBoldStroke = 1.6;
constexpr double kThinnest = 1.25;  // pixels

double distance_to_segment(Point p, Point a, Point b) {
  const double dx = b.x - a.x, dy = b.y - a.y;
  const double length2 = dx * dx + dy * dy;
  const double t =
      length2 > 0 ? std::clamp(((p.x - a.x) * dx + (p.y - a.y) * dy) / length2, 0.0, 1.0) : 0;
  return std::hypot(p.x - a.x - t * dx, p.y - a.y - t * dy);
}

/// Rounds without overflow, whatever the value is.
int to_pixel(double v, int low, int high) {
  return static_cast<int>(std::clamp(v, static_cast<double>(low), static_cast<double>(high)));
}

}  // namespace

Rgb palette(std::size_t i) {
  constexpr std::array<Rgb, kPaletteSize> kColors = {rgb(0x0072B2), rgb(0xD55E00), rgb(0x009E73),
                                                     rgb(0xCC79A7), rgb(0xE69F00), rgb(0x56B4E9),
                                                     rgb(0x4A4A4A)};
  return kColors[i % kColors.size()];
}

double text_width(std::string_view text, double size) {
  double units = 0;
  for (char c : text) units += glyph_of(c).advance;
  return units * kUnitsPerSize * size;
}

std::string fit_text(std::string_view text, double size, double width) {
  if (text_width(text, size) <= width) return std::string(text);
  while (!text.empty() && text_width(text, size) + text_width("..", size) > width)
    text.remove_suffix(1);
  return std::string(text) + "..";
}

Canvas::Canvas(int width, int height, Rgb background)
    : width_(width), height_(height), clip_x1_(width), clip_y1_(height) {
  constexpr std::int64_t kLargest = std::int64_t{1} << 26;
  if (width <= 0 || height <= 0 || std::int64_t{width} * height > kLargest)
    throw ValueError(
        fmt::format("Canvas: sides must be positive and the area at most {} pixels; got {} x {}",
                    kLargest, width, height));
  pixels_.assign(static_cast<std::size_t>(width) * static_cast<std::size_t>(height), background);
  mask_.assign(pixels_.size(), 0.0F);
}

void Canvas::clip(int x, int y, int w, int h) {
  clip_x0_ = std::clamp(x, 0, width_);
  clip_y0_ = std::clamp(y, 0, height_);
  clip_x1_ = std::clamp(x + w, clip_x0_, width_);
  clip_y1_ = std::clamp(y + h, clip_y0_, height_);
}

void Canvas::fill_rect(int x, int y, int w, int h, Rgb color) {
  for (int j = std::max(y, clip_y0_); j < std::min(y + h, clip_y1_); ++j)
    for (int i = std::max(x, clip_x0_); i < std::min(x + w, clip_x1_); ++i)
      pixels_[index(i, j)] = color;
}

/// Adds the coverage of a line to the mask. The maximum, not the sum: joints stay even.
void Canvas::cover(const std::vector<Point>& points, double radius) {
  const double reach = radius + 1;
  for (std::size_t k = 0; k < points.size(); ++k) {
    const Point a = points[k == 0 ? 0 : k - 1], b = points[k];
    if (k == 0 && points.size() > 1) continue;
    if (!std::isfinite(a.x + a.y + b.x + b.y)) continue;
    const int x0 = to_pixel(std::min(a.x, b.x) - reach, clip_x0_, clip_x1_);
    const int x1 = to_pixel(std::max(a.x, b.x) + reach + 1, clip_x0_, clip_x1_);
    const int y0 = to_pixel(std::min(a.y, b.y) - reach, clip_y0_, clip_y1_);
    const int y1 = to_pixel(std::max(a.y, b.y) + reach + 1, clip_y0_, clip_y1_);
    if (x0 >= x1 || y0 >= y1) continue;
    for (int y = y0; y < y1; ++y)
      for (int x = x0; x < x1; ++x) {
        const double d = distance_to_segment({x + 0.5, y + 0.5}, a, b);
        const auto c = static_cast<float>(std::clamp(radius + 0.5 - d, 0.0, 1.0));
        float& m = mask_[index(x, y)];
        m = std::max(m, c);
      }
    const bool first = mask_x0_ >= mask_x1_;
    mask_x0_ = first ? x0 : std::min(mask_x0_, x0);
    mask_y0_ = first ? y0 : std::min(mask_y0_, y0);
    mask_x1_ = std::max(mask_x1_, x1);
    mask_y1_ = std::max(mask_y1_, y1);
  }
}

/// Paints through the mask and clears it.
void Canvas::blend(Rgb color, double opacity) {
  for (int y = mask_y0_; y < mask_y1_; ++y)
    for (int x = mask_x0_; x < mask_x1_; ++x) {
      float& m = mask_[index(x, y)];
      if (m == 0) continue;
      const float t = m * static_cast<float>(std::clamp(opacity, 0.0, 1.0));
      Rgb& p = pixels_[index(x, y)];
      p = {p.r + t * (color.r - p.r), p.g + t * (color.g - p.g), p.b + t * (color.b - p.b)};
      m = 0;
    }
  mask_x0_ = mask_y0_ = mask_x1_ = mask_y1_ = 0;
}

void Canvas::polyline(const std::vector<Point>& points,
                      double thickness,
                      Rgb color,
                      double opacity) {
  cover(points, thickness / 2);
  blend(color, opacity);
}

void Canvas::text(Point at, std::string_view text, const TextStyle& style) {
  const double unit = kUnitsPerSize * style.size;
  const double radius = std::max(kThinnest, unit * (style.bold ? kBoldStroke : kStroke)) / 2;
  const double width = text_width(text, style.size) - unit;
  double along = style.align == Align::left ? 0 : style.align == Align::right ? -width : -width / 2;
  std::vector<Point> stroke;
  for (char c : text) {
    const Glyph& glyph = glyph_of(c);
    for (const auto& points : glyph.strokes) {
      stroke.clear();
      for (Point p : points) {
        const double u = along + p.x * unit, v = p.y * unit;
        stroke.push_back(style.upwards ? Point{at.x - v, at.y - u} : Point{at.x + u, at.y - v});
      }
      cover(stroke, radius);
    }
    along += glyph.advance * unit;
  }
  blend(style.color, 1);
}

void Canvas::image(int x, int y, const Tensor& pixels, int scale, bool smooth) {
  if (pixels.dim() != 3 || (pixels.size(0) != 1 && pixels.size(0) != 3) || scale < 1)
    throw ShapeError(
        fmt::format("Canvas::image: takes [1 or 3, H, W] and a scale of at least 1; "
                    "got {} and {}",
                    pixels.shape().str(), scale));
  const Tensor data = cast_data(pixels, DType::f32);
  const float* p = data.data<float>();
  const int h = static_cast<int>(data.size(1)), w = static_cast<int>(data.size(2));
  const auto at = [&](std::int64_t channel, int i, int j) {
    const float v = p[(channel * h + std::clamp(i, 0, h - 1)) * w + std::clamp(j, 0, w - 1)];
    return v;
  };
  const auto sample = [&](std::int64_t channel, int py, int px) -> float {
    if (!smooth) return at(channel, py / scale, px / scale);
    const double v = (py + 0.5) / scale - 0.5, u = (px + 0.5) / scale - 0.5;
    const int i = static_cast<int>(std::floor(v)), j = static_cast<int>(std::floor(u));
    const auto fv = static_cast<float>(v - i), fu = static_cast<float>(u - j);
    return (1 - fv) * ((1 - fu) * at(channel, i, j) + fu * at(channel, i, j + 1)) +
           fv * ((1 - fu) * at(channel, i + 1, j) + fu * at(channel, i + 1, j + 1));
  };
  const std::int64_t green = data.size(0) == 3 ? 1 : 0, blue = data.size(0) == 3 ? 2 : 0;
  const auto unit = [](float v) { return std::clamp(v, 0.0F, 1.0F); };
  const int rows = static_cast<int>(std::min<std::int64_t>(std::int64_t{h} * scale, clip_y1_ - y));
  const int columns =
      static_cast<int>(std::min<std::int64_t>(std::int64_t{w} * scale, clip_x1_ - x));
  for (int j = std::max(0, clip_y0_ - y); j < rows; ++j)
    for (int i = std::max(0, clip_x0_ - x); i < columns; ++i) {
      const Rgb c = {sample(0, j, i), sample(green, j, i), sample(blue, j, i)};
      const bool bad = std::isnan(c.r) || std::isnan(c.g) || std::isnan(c.b);
      pixels_[index(x + i, y + j)] = bad ? rgb(0xE69F00) : Rgb{unit(c.r), unit(c.g), unit(c.b)};
    }
}

Tensor Canvas::to_tensor() const {
  Tensor out = empty(Shape{3, height_, width_});
  float* p = out.mutable_data<float>();
  const std::size_t n = pixels_.size();
  for (std::size_t i = 0; i < n; ++i) {
    p[i] = pixels_[i].r;
    p[n + i] = pixels_[i].g;
    p[2 * n + i] = pixels_[i].b;
  }
  return out;
}

}  // namespace capsfw::apps

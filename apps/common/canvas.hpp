#pragma once
// A picture to draw on: anti-aliased lines, discs, rectangles and text, without any library.

#include <cstdint>
#include <string_view>
#include <vector>

#include <capsfw/core/tensor.hpp>

namespace capsfw::apps {

/// A colour in sRGB, each part in [0, 1].
struct Rgb {
  float r = 0, g = 0, b = 0;
};

/// 0x0072B2 as a colour.
constexpr Rgb rgb(std::uint32_t hex) {
  return {static_cast<float>(hex >> 16 & 255) / 255, static_cast<float>(hex >> 8 & 255) / 255,
          static_cast<float>(hex & 255) / 255};
}

inline constexpr Rgb kWhite = rgb(0xFFFFFF);
inline constexpr Rgb kInk = rgb(0x1F2933);      ///< titles
inline constexpr Rgb kGreyInk = rgb(0x52606D);  ///< numbers and captions
inline constexpr Rgb kRule = rgb(0xE4E7EB);     ///< grid lines

/// Colours for curves, to be told apart by colour-blind readers too (Okabe and Ito 2008).
Rgb palette(std::size_t i);
inline constexpr std::size_t kPaletteSize = 7;  ///< from here on, palette() begins anew

/// A point in pixels: x to the right, y down, (0, 0) is the corner of the first pixel.
struct Point {
  double x = 0, y = 0;
};

/// Where text lies with respect to its point.
enum class Align : std::uint8_t { left, centre, right };

/// How text looks. The size is the height of a capital letter in pixels; the point lies on the
/// baseline.
struct TextStyle {
  double size = 10;
  Rgb color = kInk;
  Align align = Align::left;
  bool bold = false;
  bool upwards = false;  ///< turned by 90 degrees, to be read from below to above
};

/// Width in pixels of a line of text (ASCII; any other character is drawn as a small box).
double text_width(std::string_view text, double size);
/// The text itself if it fits into `width` pixels, else its beginning and two dots.
std::string fit_text(std::string_view text, double size, double width);

/// Drawing outside of the picture is allowed and has no effect.
class Canvas {
 public:
  /// ValueError unless both sides are positive and the area is at most 2^26 pixels.
  Canvas(int width, int height, Rgb background = kWhite);

  int width() const { return width_; }
  int height() const { return height_; }
  /// Only pixels inside this rectangle change from now on.
  void clip(int x, int y, int w, int h);
  void no_clip() { clip(0, 0, width_, height_); }

  void fill_rect(int x, int y, int w, int h, Rgb color);
  /// A line through all points with round ends; `thickness` in pixels, opacity in [0, 1].
  void polyline(const std::vector<Point>& points, double thickness, Rgb color, double opacity = 1);
  void line(Point a, Point b, double thickness, Rgb color) { polyline({a, b}, thickness, color); }
  void disc(Point centre, double radius, Rgb color) { polyline({centre}, 2 * radius, color); }
  void text(Point at, std::string_view text, const TextStyle& style = {});
  /// Copies f32 pixels [1 or 3, H, W] with values in [0, 1] (others are clamped, NaN shows as
  /// orange), each magnified to scale x scale; `smooth`: bilinear instead of squares.
  void image(int x, int y, const Tensor& pixels, int scale, bool smooth = false);

  Rgb pixel(int x, int y) const { return pixels_[index(x, y)]; }
  /// [3, height, width], f32, in [0, 1].
  Tensor to_tensor() const;

 private:
  std::size_t index(int x, int y) const {
    return static_cast<std::size_t>(y) * static_cast<std::size_t>(width_) +
           static_cast<std::size_t>(x);
  }
  void cover(const std::vector<Point>& points, double radius);
  void blend(Rgb color, double opacity);

  int width_, height_;
  int clip_x0_ = 0, clip_y0_ = 0, clip_x1_, clip_y1_;
  std::vector<Rgb> pixels_;
  // Coverage of the shape being drawn, and the rectangle in which it is not zero.
  std::vector<float> mask_;
  int mask_x0_ = 0, mask_y0_ = 0, mask_x1_ = 0, mask_y1_ = 0;
};

}  // namespace capsfw::apps

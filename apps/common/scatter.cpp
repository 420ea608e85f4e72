#include "scatter.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

#include "canvas.hpp"
#include "ticks.hpp"

namespace capsfw::apps {
namespace {

constexpr double kTitleSize = 15, kPanelSize = 11.5, kTextSize = 9.5;
constexpr int kMargin = 24, kBetween = 20, kLeft = 62, kHeader = 26, kBottom = 46;
constexpr std::size_t kMaxPoints = 20000;
constexpr double kOutline = 0.8;  // of a point with a fill

/// The same scale along both axes.
struct Window {
  double x = 0, y = 0;                     // centre
  double half_width = 1, half_height = 1;  // in the units of the data, as the centre
};

Window window_around(const std::vector<ScatterPanel>& panels, bool flat) {
  std::vector<double> side[2];
  for (const ScatterPanel& p : panels) {
    const auto v = p.points.to_vector<double>();
    for (std::size_t i = 0; i < v.size(); ++i)
      if (std::isfinite(v[i])) side[i % 2].push_back(v[i]);
    if (p.directions)
      for (auto& s : side) s.push_back(0);
  }
  const Limits x = axis_limits(side[0]), y = axis_limits(side[1]);
  const double half = std::max(x.hi - x.lo, y.hi - y.lo) / 2;
  return {(x.lo + x.hi) / 2, (y.lo + y.hi) / 2, half,
          flat ? std::clamp((y.hi - y.lo) / 2, half / 2, half) : half};
}

class Painter {
 public:
  Painter(Canvas& canvas, const Window& window, int left, int top, int width, int height)
      : canvas_(canvas), window_(window), left_(left), top_(top), width_(width), height_(height) {}

  void axes(const ScatterPanel& panel, const ScatterOptions& o) {
    canvas_.text({left_ + 0.0, top_ - 9.0}, fit_text(panel.title, kPanelSize, width_),
                 {.size = kPanelSize});
    const auto ticks = [](double middle, double half, int pixels) {
      return nice_ticks(middle - half, middle + half, std::max(4, pixels / 56));
    };
    const Ticks xs = ticks(window_.x, window_.half_width, width_),
                ys = ticks(window_.y, window_.half_height, height_);
    const int bottom = top_ + height_;
    TextStyle style{.size = kTextSize, .color = kGreyInk, .align = Align::centre};
    for (std::size_t i = 0; i < xs.at.size(); ++i) {
      const double x = at(xs.at[i], 0).x;
      canvas_.fill_rect(static_cast<int>(std::lround(x)), top_, 1, height_, kRule);
      canvas_.text({x, bottom + 8 + kTextSize}, xs.labels[i], style);
    }
    style.align = Align::right;
    for (std::size_t i = 0; i < ys.at.size(); ++i) {
      const double y = at(0, ys.at[i]).y;
      canvas_.fill_rect(left_, static_cast<int>(std::lround(y)), width_, 1, kRule);
      canvas_.text({left_ - 8.0, y + kTextSize / 2}, ys.labels[i], style);
    }
    style = {.size = kTextSize, .align = Align::centre};
    canvas_.text({left_ + width_ / 2.0, bottom + 26 + kTextSize}, o.x_label, style);
    style.upwards = true;
    canvas_.text({left_ - kLeft + kTextSize + 4.0, top_ + height_ / 2.0}, o.y_label, style);
  }

  void contents(const ScatterPanel& p) {
    canvas_.clip(left_, top_, width_, height_);
    const auto c = p.centres.to_vector<double>();
    if (p.directions)
      for (std::size_t j = 0; 2 * j < c.size(); ++j) ray(c[2 * j], c[2 * j + 1]);
    points(p);
    if (p.covariances.defined()) {
      const auto s = p.covariances.to_vector<double>();
      for (std::size_t j = 0; 2 * j < c.size(); ++j) ellipses(&c[2 * j], &s[4 * j], j);
    }
    if (!p.directions)
      for (std::size_t j = 0; 2 * j < c.size(); ++j) centre(c[2 * j], c[2 * j + 1], j);
    canvas_.no_clip();
  }

 private:
  void points(const ScatterPanel& p) {
    const auto v = p.points.to_vector<double>();
    const std::size_t n = v.size() / 2,
                      step = std::max<std::size_t>((n + kMaxPoints - 1) / kMaxPoints, 1);
    const double apart = width_ / std::sqrt(static_cast<double>(n + 1)),
                 radius = p.fills.empty() ? std::clamp(apart / 14, 1.1, 3.2)
                                          : std::clamp(apart / 6, 2.2, 4.5);
    for (std::size_t i = 0; i < n; i += step) {
      if (!std::isfinite(v[2 * i]) || !std::isfinite(v[2 * i + 1])) continue;
      const Point place = at(v[2 * i], v[2 * i + 1]);
      if (!p.fills.empty()) {
        canvas_.disc(place, radius, kGreyInk);
        canvas_.disc(place, radius - kOutline, p.fills[i]);
      } else {
        const Rgb color =
            p.labels.empty() ? kGreyInk : palette(static_cast<std::size_t>(p.labels[i]));
        canvas_.polyline({place}, 2 * radius, color, 0.6);
      }
    }
  }

  Point at(double x, double y) const {
    const double scale = width_ / (2 * window_.half_width);
    return {left_ + (x - window_.x + window_.half_width) * scale,
            top_ + (window_.y + window_.half_height - y) * scale};
  }

  /// {x: (x − c)ᵀ Σ⁻¹ (x − c) = r²} is the circle of radius r under the Cholesky factor of Σ.
  void ellipses(const double* c, const double* s, std::size_t j) {
    const double a = std::sqrt(s[0]), b = a > 0 ? s[1] / a : 0,
                 d = std::sqrt(std::max(0.0, s[3] - b * b));
    if (!std::isfinite(c[0] + c[1] + a + b + d)) return;
    for (const double r : {1.0, 2.0}) {
      std::vector<Point> curve;
      for (int k = 0; k <= 72; ++k) {
        const double t = k * std::numbers::pi / 36;
        curve.push_back(
            at(c[0] + r * a * std::cos(t), c[1] + r * (b * std::cos(t) + d * std::sin(t))));
      }
      canvas_.polyline(curve, r == 1 ? 2.0 : 1.2, palette(j), r == 1 ? 1 : 0.7);
    }
  }

  void ray(double x, double y) {
    const double n = std::hypot(x, y), length = 4 * window_.half_width;  // out of the panel
    if (std::isfinite(n) && n > 0)
      canvas_.polyline({at(0, 0), at(x / n * length, y / n * length)}, 2.4, kInk);
  }

  void centre(double x, double y, std::size_t j) {
    if (!std::isfinite(x) || !std::isfinite(y)) return;
    const Point p = at(x, y);
    canvas_.disc(p, 7, kWhite);
    canvas_.disc(p, 5.5, kInk);
    canvas_.disc(p, 4, palette(j));
  }

  Canvas& canvas_;
  const Window& window_;
  int left_, top_, width_, height_;
};

void check(const ScatterPanel& p) {
  const std::int64_t n = p.points.dim() == 2 ? p.points.size(0) : 0,
                     k = p.centres.dim() == 2 ? p.centres.size(0) : 0;
  if (p.points.shape() != Shape{n, 2} || p.centres.shape() != Shape{k, 2} ||
      (!p.labels.empty() && static_cast<std::int64_t>(p.labels.size()) != n) ||
      (!p.fills.empty() && static_cast<std::int64_t>(p.fills.size()) != n) ||
      (p.covariances.defined() && p.covariances.shape() != Shape{k, 2, 2}))
    throw ShapeError(fmt::format(
        "draw_scatter: takes points [N, 2], N labels, N fills, centres [k, 2] and covariances "
        "[k, 2, 2]; got {}, {}, {}, {} and {}",
        p.points.shape().str(), p.labels.size(), p.fills.size(), p.centres.shape().str(),
        p.covariances.defined() ? p.covariances.shape().str() : "none"));
}

}  // namespace

Tensor draw_scatter(const std::vector<ScatterPanel>& panels, const ScatterOptions& o) {
  if (panels.empty() || o.columns < 1 || o.panel_size < 120)
    throw ValueError(
        fmt::format("draw_scatter: takes panels, in at least 1 column, of at least 120 "
                    "pixels; got {}, {}, {}",
                    panels.size(), o.columns, o.panel_size));
  for (const ScatterPanel& p : panels) check(p);
  const int count = static_cast<int>(panels.size()), columns = std::min(o.columns, count),
            rows = (count + columns - 1) / columns, head = o.title.empty() ? kMargin : 56;
  const Window window = window_around(panels, o.flat);
  const int high =
      static_cast<int>(std::lround(o.panel_size * window.half_height / window.half_width));
  const int w = kLeft + o.panel_size + kBetween, h = kHeader + high + kBottom;
  Canvas canvas(columns * w + kMargin, head + rows * h + 8);
  canvas.text({kMargin, 20 + kTitleSize},
              fit_text(o.title, kTitleSize, canvas.width() - 2 * kMargin),
              {.size = kTitleSize, .bold = true});
  for (int i = 0; i < count; ++i) {
    Painter painter(canvas, window, i % columns * w + kLeft, head + i / columns * h + kHeader,
                    o.panel_size, high);
    painter.axes(panels[static_cast<std::size_t>(i)], o);
    painter.contents(panels[static_cast<std::size_t>(i)]);
  }
  return canvas.to_tensor();
}

}  // namespace capsfw::apps

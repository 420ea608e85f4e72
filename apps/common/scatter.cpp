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
constexpr double kLargest = 12;  // of a point of weight 1: its diameter without that of weight 0

/// The same scale along both axes.
struct Window {
  double x = 0, y = 0, half = 1;  // centre and half of the side, in the units of the data
};

Window window_around(const std::vector<ScatterPanel>& panels) {
  std::vector<double> side[2];
  for (const ScatterPanel& p : panels) {
    const auto v = p.points.to_vector<double>();
    for (std::size_t i = 0; i < v.size(); ++i)
      if (std::isfinite(v[i])) side[i % 2].push_back(v[i]);
    if (p.directions)
      for (auto& s : side) s.push_back(0);
  }
  const Limits x = axis_limits(side[0]), y = axis_limits(side[1]);
  return {(x.lo + x.hi) / 2, (y.lo + y.hi) / 2, std::max(x.hi - x.lo, y.hi - y.lo) / 2};
}

class Painter {
 public:
  Painter(Canvas& canvas, const Window& window, int left, int top, int size)
      : canvas_(canvas), window_(window), left_(left), top_(top), size_(size) {}

  void axes(const ScatterPanel& panel, const ScatterOptions& o) {
    canvas_.text({left_ + 0.0, top_ - 9.0}, fit_text(panel.title, kPanelSize, size_),
                 {.size = kPanelSize});
    const int count = std::max(3, size_ / 56);
    const Ticks xs = nice_ticks(window_.x - window_.half, window_.x + window_.half, count),
                ys = nice_ticks(window_.y - window_.half, window_.y + window_.half, count);
    const int bottom = top_ + size_;
    TextStyle style{.size = kTextSize, .color = kGreyInk, .align = Align::centre};
    for (std::size_t i = 0; i < xs.at.size(); ++i) {
      const double x = at(xs.at[i], 0).x;
      canvas_.fill_rect(static_cast<int>(std::lround(x)), top_, 1, size_, kRule);
      canvas_.text({x, bottom + 8 + kTextSize}, xs.labels[i], style);
    }
    style.align = Align::right;
    for (std::size_t i = 0; i < ys.at.size(); ++i) {
      const double y = at(0, ys.at[i]).y;
      canvas_.fill_rect(left_, static_cast<int>(std::lround(y)), size_, 1, kRule);
      canvas_.text({left_ - 8.0, y + kTextSize / 2}, ys.labels[i], style);
    }
    style = {.size = kTextSize, .align = Align::centre};
    canvas_.text({left_ + size_ / 2.0, bottom + 26 + kTextSize}, o.x_label, style);
    style.upwards = true;
    canvas_.text({left_ - kLeft + kTextSize + 4.0, top_ + size_ / 2.0}, o.y_label, style);
  }

  void contents(const ScatterPanel& p) {
    canvas_.clip(left_, top_, size_, size_);
    const auto v = p.points.to_vector<double>();
    const std::size_t n = v.size() / 2, step = (n + kMaxPoints - 1) / kMaxPoints;
    const double radius =
        std::clamp(size_ / 14.0 / std::sqrt(static_cast<double>(n + 1)), 1.1, 3.2);
    for (std::size_t i = 0; i < n; i += std::max<std::size_t>(step, 1)) {
      if (!std::isfinite(v[2 * i]) || !std::isfinite(v[2 * i + 1])) continue;
      const Rgb color =
          p.labels.empty() ? kGreyInk : palette(p.color + static_cast<std::size_t>(p.labels[i]));
      const double weight = p.weights.empty() ? -1 : std::clamp(p.weights[i], 0.0, 1.0);
      const Point place = at(v[2 * i], v[2 * i + 1]);
      if (weight < 0)
        canvas_.polyline({place}, 2 * radius, color, 0.6);
      else
        canvas_.polyline({place}, 2 + kLargest * std::sqrt(weight), color, 0.35 + 0.4 * weight);
    }
    const auto c = p.centres.to_vector<double>();
    if (p.covariances.defined()) {
      const auto s = p.covariances.to_vector<double>();
      for (std::size_t j = 0; 2 * j < c.size(); ++j) ellipses(&c[2 * j], &s[4 * j], p.color + j);
    }
    for (std::size_t j = 0; 2 * j < c.size(); ++j)
      centre(c[2 * j], c[2 * j + 1], p.color + j, p.directions);
    canvas_.no_clip();
  }

 private:
  Point at(double x, double y) const {
    const double scale = size_ / (2 * window_.half);
    return {left_ + (x - window_.x + window_.half) * scale,
            top_ + (window_.y + window_.half - y) * scale};
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

  void centre(double x, double y, std::size_t j, bool direction) {
    if (!std::isfinite(x) || !std::isfinite(y)) return;
    if (const double n = std::hypot(x, y); direction && n > 0) {
      const double length = 4 * window_.half;  // out of the panel, wherever 0 is in it
      canvas_.polyline({at(0, 0), at(x / n * length, y / n * length)}, 2.4, palette(j));
    } else {
      const Point p = at(x, y);
      canvas_.disc(p, 7, kWhite);
      canvas_.disc(p, 5.5, kInk);
      canvas_.disc(p, 4, palette(j));
    }
  }

  Canvas& canvas_;
  const Window& window_;
  int left_, top_, size_;
};

void check(const ScatterPanel& p) {
  const std::int64_t n = p.points.dim() == 2 ? p.points.size(0) : 0,
                     k = p.centres.dim() == 2 ? p.centres.size(0) : 0;
  if (p.points.shape() != Shape{n, 2} || p.centres.shape() != Shape{k, 2} ||
      (!p.labels.empty() && static_cast<std::int64_t>(p.labels.size()) != n) ||
      (!p.weights.empty() && static_cast<std::int64_t>(p.weights.size()) != n) ||
      (p.covariances.defined() && p.covariances.shape() != Shape{k, 2, 2}))
    throw ShapeError(fmt::format(
        "draw_scatter: takes points [N, 2], N labels, N weights, centres [k, 2] and covariances "
        "[k, 2, 2]; got {}, {}, {}, {} and {}",
        p.points.shape().str(), p.labels.size(), p.weights.size(), p.centres.shape().str(),
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
  const int w = kLeft + o.panel_size + kBetween, h = kHeader + o.panel_size + kBottom;
  Canvas canvas(columns * w + kMargin, head + rows * h + 8);
  canvas.text({kMargin, 20 + kTitleSize},
              fit_text(o.title, kTitleSize, canvas.width() - 2 * kMargin),
              {.size = kTitleSize, .bold = true});
  const Window window = window_around(panels);
  for (int i = 0; i < count; ++i) {
    Painter painter(canvas, window, i % columns * w + kLeft, head + i / columns * h + kHeader,
                    o.panel_size);
    painter.axes(panels[static_cast<std::size_t>(i)], o);
    painter.contents(panels[static_cast<std::size_t>(i)]);
  }
  return canvas.to_tensor();
}

}  // namespace capsfw::apps

#include "chart.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/image.hpp>

#include "canvas.hpp"
#include "ticks.hpp"

namespace capsfw::apps {
namespace {

constexpr double kTitleSize = 15;
constexpr double kPanelSize = 11.5;
constexpr double kTextSize = 9.5;
constexpr int kTop = 52;             // the title of the chart
constexpr int kMargin = 24;          // around everything
constexpr int kBetween = 44;         // panels
constexpr int kHeader = 34;          // title and legend of a panel
constexpr int kBottom = 56;          // numbers and label of the x axis
constexpr int kSwatch = 22;          // line in the legend
constexpr std::size_t kMarked = 24;  // curves up to this length show their points

bool finite(double x, double y) { return std::isfinite(x) && std::isfinite(y); }

bool is_whole(double v) { return v == std::floor(v); }

}  // namespace

/// Draws one panel into a rectangle of the canvas.
class PanelPainter {
 public:
  PanelPainter(const Panel& panel, Canvas& canvas, int x, int y, int w, int h)
      : panel_(panel), canvas_(canvas) {
    measure(h - kHeader - kBottom);
    double widest = 0;
    for (const auto& label : y_ticks_.labels)
      widest = std::max(widest, text_width(label, kTextSize));
    const int axis = 12 + static_cast<int>(widest) + (panel.labels_.y.empty() ? 0 : 26);
    header_ = legend_fits(w - axis) ? kHeader : kHeader + 22;
    left_ = x + axis;
    top_ = y + header_;
    width_ = std::max(w - axis, 1);
    height_ = std::max(h - header_ - kBottom, 1);
    if (!empty_) x_ticks_ = nice_ticks(x_.lo, x_.hi, std::max(2, width_ / 64), whole_x_);
  }

  void paint(int outer_left) {
    axes(outer_left);
    for (const auto& curve : panel_.curves_) draw(curve);
    if (empty_)
      canvas_.text({left_ + width_ / 2.0, top_ + height_ / 2.0}, "no data",
                   {.size = kPanelSize, .color = kGreyInk, .align = Align::centre});
    legend();
  }

 private:
  void measure(int height) {
    std::vector<double> xs, ys;
    for (const auto& c : panel_.curves_)
      for (std::size_t i = 0; i < c.xs.size(); ++i)
        if (finite(c.xs[i], c.ys[i])) {
          xs.push_back(c.xs[i]);
          ys.push_back(c.ys[i]);
        }
    empty_ = xs.empty();
    whole_x_ = std::all_of(xs.begin(), xs.end(), is_whole);
    y_ = axis_limits(ys);
    x_ = axis_limits(xs);
    if (!empty_) {
      // Along x the curve fills its axis; a single position stands in the middle.
      const auto [lo, hi] = std::minmax_element(xs.begin(), xs.end());
      const bool single = x_.hi - x_.lo <= 0 || *hi - *lo <= 1e-9 * std::abs(*hi);
      x_ = single ? Limits{*lo - 1, *lo + 1} : Limits{*lo, *hi};
    }
    if (!empty_) y_ticks_ = nice_ticks(y_.lo, y_.hi, std::max(2, height / 48));
  }

  double px(double x) const { return left_ + (x - x_.lo) / (x_.hi - x_.lo) * width_; }
  double py(double y) const { return top_ + (y_.hi - y) / (y_.hi - y_.lo) * height_; }

  void axes(int outer_left) {
    const TextStyle numbers{.size = kTextSize, .color = kGreyInk, .align = Align::right};
    TextStyle below = numbers;
    below.align = Align::centre;
    for (std::size_t i = 0; i < y_ticks_.at.size(); ++i) {
      const int y = static_cast<int>(std::lround(py(y_ticks_.at[i])));
      canvas_.fill_rect(left_, y, width_, 1, kRule);
      canvas_.text({left_ - 9.0, y + kTextSize / 2}, y_ticks_.labels[i], numbers);
    }
    const int bottom = top_ + height_;
    for (std::size_t i = 0; i < x_ticks_.at.size(); ++i) {
      const int x = static_cast<int>(std::lround(px(x_ticks_.at[i])));
      canvas_.fill_rect(x, top_, 1, height_, kRule);
      canvas_.fill_rect(x, bottom, 1, 5, kGreyInk);
      canvas_.text({x + 0.5, bottom + 10 + kTextSize}, x_ticks_.labels[i], below);
    }
    canvas_.fill_rect(left_, bottom, width_ + 1, 1, kGreyInk);
    below.color = kInk;
    canvas_.text({left_ + width_ / 2.0, bottom + 32 + kTextSize}, panel_.labels_.x, below);
    below.upwards = true;
    canvas_.text({outer_left + kTextSize, top_ + height_ / 2.0}, panel_.labels_.y, below);
  }

  void draw(const Panel::Curve& curve) {
    // Marks may reach a little over the edge, lines that leave the panel may not.
    canvas_.clip(left_ - 5, top_ - 5, width_ + 10, height_ + 10);
    const Rgb color = palette(curve.color);
    const double thickness = curve.style.faint ? 1.2 : 2.2;
    const double opacity = curve.style.faint ? 0.35 : 1;
    const bool marks = curve.xs.size() <= kMarked && !curve.style.faint;
    std::vector<Point> run;
    const auto flush = [&] {
      if (run.size() == 1 && !marks) canvas_.polyline(run, thickness + 2, color, opacity);
      if (run.size() > 1) canvas_.polyline(run, thickness, color, opacity);
      run.clear();
    };
    for (std::size_t i = 0; i < curve.xs.size(); ++i)
      if (finite(curve.xs[i], curve.ys[i]))
        run.push_back({px(curve.xs[i]), py(curve.ys[i])});
      else
        flush();
    flush();
    for (std::size_t i = 0; marks && i < curve.xs.size(); ++i)
      if (finite(curve.xs[i], curve.ys[i])) {
        const Point at{px(curve.xs[i]), py(curve.ys[i])};
        canvas_.disc(at, 4, color);
        canvas_.disc(at, 2, kWhite);
      }
    canvas_.no_clip();
  }

  double legend_width() const {
    double w = 0;
    for (const auto& name : panel_.names_) w += kSwatch + 8 + text_width(name, kTextSize) + 18;
    return w;
  }

  bool legend_fits(int width) const {
    return text_width(panel_.title_, kPanelSize) + 24 + legend_width() <= width;
  }

  void legend() {
    const double title_y = top_ - header_ + kPanelSize;
    canvas_.text({static_cast<double>(left_), title_y}, fit_text(panel_.title_, kPanelSize, width_),
                 {.size = kPanelSize, .bold = true});
    const bool beside = header_ == kHeader;
    const double y = beside ? title_y : title_y + 22;
    double x = beside ? left_ + width_ + 18 - legend_width() : left_;
    for (std::size_t i = 0; i < panel_.names_.size(); ++i) {
      const std::string& name = panel_.names_[i];
      const double middle = y - kTextSize / 2;
      canvas_.line({x + 2, middle}, {x + kSwatch - 2, middle}, 3, palette(i));
      x += kSwatch + 8;
      canvas_.text({x, y}, name, {.size = kTextSize, .color = kGreyInk});
      x += text_width(name, kTextSize) + 18;
    }
  }

  const Panel& panel_;
  Canvas& canvas_;
  int left_ = 0, top_ = 0, width_ = 0, height_ = 0, header_ = 0;
  bool empty_ = false, whole_x_ = false;
  Limits x_, y_;
  Ticks x_ticks_, y_ticks_;
};

Panel& Panel::line(const std::string& label,
                   const std::vector<double>& xs,
                   const std::vector<double>& ys,
                   LineStyle style) {
  if (xs.size() != ys.size())
    throw ValueError(fmt::format("chart: curve '{}' needs as many xs as ys; got {} and {}", label,
                                 xs.size(), ys.size()));
  std::size_t color = names_.size();
  if (!label.empty()) {
    const auto known = std::find(names_.begin(), names_.end(), label);
    color = static_cast<std::size_t>(known - names_.begin());
    if (known == names_.end()) names_.push_back(label);
  }
  curves_.push_back({label, xs, ys, style, color});
  return *this;
}

Chart::Chart(std::string title, ChartOptions options)
    : title_(std::move(title)), options_(options) {
  if (options.panel_width < 200 || options.panel_height < 160)
    throw ValueError(fmt::format("chart: a panel needs at least 200 x 160 pixels; got {} x {}",
                                 options.panel_width, options.panel_height));
}

Panel& Chart::panel(std::string title, AxisLabels labels) {
  return panels_.emplace_back(std::move(title), std::move(labels));
}

Tensor Chart::render() const {
  const int count = std::max(1, static_cast<int>(panels_.size()));
  const int w = options_.panel_width, h = options_.panel_height;
  const int top = title_.empty() ? kMargin : kTop + 12;
  Canvas canvas(count * (w + kBetween) - kBetween + 2 * kMargin, top + h + 4);
  canvas.text({kMargin, 24 + kTitleSize},
              fit_text(title_, kTitleSize, canvas.width() - 2 * kMargin),
              {.size = kTitleSize, .bold = true});
  int x = kMargin;
  for (const Panel& panel : panels_) {
    PanelPainter(panel, canvas, x, top, w, h).paint(x);
    x += w + kBetween;
  }
  return canvas.to_tensor();
}

void Chart::save(const std::filesystem::path& path) const { save_png(path, render()); }

}  // namespace capsfw::apps

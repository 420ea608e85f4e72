#pragma once
// Line charts of training curves as PNG, without any plotting library.

#include <deque>
#include <filesystem>
#include <string>
#include <vector>

#include <capsfw/core/tensor.hpp>

namespace capsfw::apps {

/// What stands at the axes of a panel.
struct AxisLabels {
  std::string x;
  std::string y;
};

/// How a curve looks.
struct LineStyle {
  bool faint = false;  ///< pale and thin, for raw values behind their smoothed curve
};

/// One pair of axes with its curves.
class Panel {
 public:
  Panel(std::string title, AxisLabels labels)
      : title_(std::move(title)), labels_(std::move(labels)) {}
  /// Adds a curve; ValueError unless xs and ys have the same length. Values that are not finite
  /// leave a gap; short curves get a mark at every point. Curves of the same label share a colour
  /// and one entry of the legend; an empty label shows in no legend.
  Panel& line(const std::string& label,
              const std::vector<double>& xs,
              const std::vector<double>& ys,
              LineStyle style = {});

 private:
  friend class PanelPainter;
  struct Curve {
    std::string label;
    std::vector<double> xs, ys;
    LineStyle style;
    std::size_t color = 0;
  };
  std::string title_;
  AxisLabels labels_;
  std::vector<Curve> curves_;
  std::vector<std::string> names_;  // distinct labels; the position is the colour
};

/// Sizes in pixels.
struct ChartOptions {
  int panel_width = 640;
  int panel_height = 420;
};

/// Chart chart("compact network on Fashion-MNIST");
/// chart.panel("loss", {"epoch", "margin loss"}).line("train", xs, ys).line("validation", xs, vs);
/// chart.save("curves.png");
class Chart {
 public:
  explicit Chart(std::string title, ChartOptions options = {});
  /// Adds a panel to the right of the others; the reference stays valid.
  Panel& panel(std::string title, AxisLabels labels = {});
  /// The picture: [3, height, width], f32, in [0, 1].
  Tensor render() const;
  /// Writes it as PNG. IoError if that is impossible.
  void save(const std::filesystem::path& path) const;

 private:
  std::string title_;
  ChartOptions options_;
  std::deque<Panel> panels_;
};

}  // namespace capsfw::apps

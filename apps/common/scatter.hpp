#pragma once
// Points on a plane, coloured by cluster, with centres and ellipses.

#include <cstdint>
#include <string>
#include <vector>

#include <capsfw/core/tensor.hpp>

#include "canvas.hpp"

namespace capsfw::apps {

/// One panel of draw_scatter().
struct ScatterPanel {
  std::string title = {};
  Tensor points;                          ///< [N, 2]
  std::vector<std::int64_t> labels = {};  ///< the cluster of each point
  std::vector<Rgb> fills = {};  ///< of each point, in place of the labels: larger, with an outline
  Tensor centres;               ///< [k, 2]
  Tensor covariances = {};      ///< [k, 2, 2]: ellipses at one and two standard deviations
  bool directions = false;      ///< centres are drawn as dark rays from 0, below the points
};

/// How draw_scatter() lays out its panels.
struct ScatterOptions {
  std::string title = {};
  std::string x_label = {}, y_label = {};
  int columns = 1;       ///< panels in a row
  int panel_size = 560;  ///< side of the square of a panel, in pixels
  bool flat = false;     ///< panels are less high where the points are, down to half of a square
};

/// Draws panels with common axes, one length for both, and points in their order. At most 20,000
/// are drawn, evenly chosen; what is not finite is left out. Returns [3, height, width], f32, in
/// [0, 1], ready for save_png(). ShapeError if sizes do not fit; ValueError for no panels, columns
/// below 1 or panels below 120 pixels.
Tensor draw_scatter(const std::vector<ScatterPanel>& panels, const ScatterOptions& options = {});

}  // namespace capsfw::apps

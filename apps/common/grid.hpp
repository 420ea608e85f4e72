#pragma once
// Small images side by side, with words beside them.

#include <cstdint>
#include <string>
#include <vector>

#include <capsfw/core/tensor.hpp>

namespace capsfw::apps {

/// How labelled_grid() lays out its images; every list of words may be shorter than what it labels.
struct GridOptions {
  int columns = 10;                        ///< images in a row
  int scale = 3;                           ///< pixels per pixel, in both directions
  bool smooth = false;                     ///< magnify bilinearly instead of as squares
  std::string title = {};                  ///< above everything
  std::vector<std::string> rows = {};      ///< left of each row
  std::vector<std::string> headers = {};   ///< above each column
  std::vector<std::string> captions = {};  ///< below each image, in the order of the images
  int group = 0;  ///< rows that belong together: more room after each `group` rows; 0 = none
};

/// Draws `images` [N, 1 or 3, H, W] (any element type; 0 is black, 1 is white, values outside are
/// clamped, NaN shows as orange) row by row on a white page. Words that do not fit are made smaller
/// and then cut. Returns [3, height, width], f32, in [0, 1], ready for save_png(). ShapeError if
/// the images have another shape or there are none, ValueError on columns or scale below 1.
Tensor labelled_grid(const Tensor& images, const GridOptions& options = {});

/// The scale at which the longer side of such images takes about `side` pixels.
int scale_to(const Tensor& images, std::int64_t side);

/// Images [N, C, H, W] as labelled_grid() takes them: with 1 or 3 channels as they are, otherwise
/// the first channel alone.
Tensor drawable(const Tensor& images);

}  // namespace capsfw::apps

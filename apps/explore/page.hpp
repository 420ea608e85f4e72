#pragma once
// explore.html: the decoder of a network, running in a page.

#include <string>
#include <vector>

#include <capsfw/data/dataset.hpp>
#include <capsfw/layers/capsnet.hpp>

namespace capsfw::apps {

/// What explore_page() tells about the page.
struct ExplorePage {
  std::string html = {};
  int bits = 32;  ///< of each weight in it
  double rounding =
      0;  ///< the largest change of a pixel by numbers of 16 bits, tried on all images
};

/// A page that holds the weights of the decoder, the images with their poses and scores, and what
/// the library reconstructs of the first one. Weights have 16 bits where this changes no pixel by
/// more than 5e-4, else 32. `first`: number of the first image in its set; `model`: where the
/// network is from, and its note. ValueError for a network without a decoder.
ExplorePage explore_page(CapsNet& net,
                         const std::vector<std::string>& class_names,
                         const ImageSet& images,
                         const std::vector<std::int64_t>& numbers,
                         const std::string& model,
                         const std::string& note);

}  // namespace capsfw::apps

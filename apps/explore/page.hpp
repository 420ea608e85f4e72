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
/// more than 5e-4, else 32. `class_names`: one for each class of the network; `numbers`: the number
/// of each of `images` in its set, as many as there are images; `model`: the file or the name the
/// network was loaded by; `note`: what its file says of it, may be empty. ValueError for a network
/// without a decoder, or whose scores are not finite.
ExplorePage explore_page(CapsNet& net,
                         const std::vector<std::string>& class_names,
                         const ImageSet& images,
                         const std::vector<std::int64_t>& numbers,
                         const std::string& model,
                         const std::string& note);

}  // namespace capsfw::apps

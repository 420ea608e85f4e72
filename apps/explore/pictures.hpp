#pragma once
// The pictures of explore: what a network keeps of images, and how it finds out.

#include <string>
#include <vector>

#include <capsfw/layers/capsnet.hpp>

#include "common/routing_trace.hpp"

namespace capsfw::apps {

/// An image, and what is known about it.
struct Specimen {
  Tensor image;             ///< [C, H, W]
  std::string title;        ///< "image 7 ('3')"
  RoutingTrace trace;       ///< of its routing
  std::int64_t winner = 0;  ///< the class that is looked at
  std::int64_t other = 0;   ///< the one with the largest score besides it
};

/// Changes of one entry of a pose: -0.25, -0.2, ..., 0.25.   Sabour et al. 2017, section 5.1.
std::vector<double> pose_changes();

/// Reconstructions with every entry of the winner's pose changed, one row each. Figure 4 of Sabour
/// et al. 2017.
Tensor draw_poses(CapsNet& net, const Specimen& specimen, const std::vector<std::string>& names);

/// Where the first capsules send what they found: a map for every class and iteration, the mean
/// over the types, weighted by the lengths of the capsules where they are known.
Tensor draw_couplings(const Specimen& specimen, const std::vector<std::string>& names);

/// The votes for two classes, each on the plane of their first principal axes around 0, with their
/// couplings as colours, iteration by iteration.
Tensor draw_votes(const Specimen& specimen, const std::vector<std::string>& names);

}  // namespace capsfw::apps

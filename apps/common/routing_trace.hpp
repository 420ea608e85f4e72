#pragma once
// How the routing of a capsule network deals with one image, iteration by iteration.

#include <capsfw/layers/image_classifier.hpp>

namespace capsfw::apps {

/// The routing of one image. I first capsules, J classes, M capsules below the classes, D the size
/// of a pose.
struct RoutingTrace {
  ClassifierOutput out = {};  ///< what the network returns, of a batch of one
  Shape grid = {};            ///< [types, rows, columns] of the first capsules
  Tensor sizes = {};          ///< lengths of the first capsules [I]; undefined where unknown
  /// Of every iteration: how much of each first capsule goes to each class [I, J]. With several
  /// layers the product of their couplings.
  TensorList shares = {};
  Tensor votes = {};           ///< for the classes [M, J, D]; undefined where unknown
  TensorList couplings = {};   ///< of every iteration: of the votes [M, J]
  TensorList poses = {};       ///< of every iteration: of the classes [J, D]
  bool all_iterations = true;  ///< false: only the last one is known
};

/// Runs `net` on an image [C, H, W]. A CapsNet tells all; of a MatrixCapsNet only the last
/// assignments are known, of the children of its classes. ValueError for a network without
/// capsules.
RoutingTrace trace_routing(ImageClassifier& net, const Tensor& image);

}  // namespace capsfw::apps

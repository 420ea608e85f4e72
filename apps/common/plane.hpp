#pragma once
// Data of any size seen on a plane.

#include <capsfw/core/tensor.hpp>

namespace capsfw::apps {

/// A plane: x -> (x − origin) axesᵀ.
struct Plane {
  Tensor origin;     ///< [D], f64
  Tensor axes;       ///< [2, D], orthonormal, f64 (a row is 0 if D = 1 or the data have no more)
  double share = 1;  ///< of the sum of squares (around the origin) that the plane keeps

  /// [N, D] -> [N, 2].
  Tensor points(const Tensor& x) const;
};

/// The plane of the first two principal axes of x [N, D], around the mean, or around 0 for data
/// whose directions count. For D ≤ 2 the plane is that of the data themselves, with origin 0. By
/// orthogonal iteration; an axis points to where its largest component is positive.
Plane principal_plane(const Tensor& x, bool around_mean = true);

}  // namespace capsfw::apps

#pragma once
// Restarted GMRES on plain vectors of doubles.

#include <functional>
#include <vector>

namespace capsfw::detail {

struct GmresOptions {
  double tolerance = 1e-10;  ///< of ‖b − A x‖ / ‖b‖
  int max_products = 500;
  int restart = 40;  ///< vectors that are kept
};

struct GmresResult {
  std::vector<double> x;
  double residual = 0;  ///< ‖b − A x‖ / ‖b‖, measured, not estimated; NaN if A x has one
  int products = 0;
};

/// Solves A x = b from x = 0, given v -> A v. Stops early where restarts no longer help: the system
/// is singular, or A v is only known to the precision reached.
/// Saad, Schultz 1986, GMRES, algorithm 4, with modified Gram-Schmidt and Givens rotations.
GmresResult gmres(const std::function<std::vector<double>(const std::vector<double>&)>& apply,
                  const std::vector<double>& b,
                  const GmresOptions& options = {});

}  // namespace capsfw::detail

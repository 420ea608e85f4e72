#pragma once
// Runs a case and holds the results against the stored ones.

#include <string>
#include <vector>

#include "kinds.hpp"

namespace capsfw::golden {

/// What is wrong with a case, a line each, and how much of the tolerances it used at most.
struct Verdict {
  std::vector<std::string> problems;
  double worst = 0;      ///< largest difference / tolerance
  std::string worst_at;  ///< where
};

/// What evaluate returns.
struct Evaluation {
  /// Values ("out.Y"), at order 1 also gradients ("grad.X"), at order 2 also the gradient of
  /// Σ⟨grad.X, dir.X⟩ by inputs ("hvp.X") and by cotangents ("jvp.Y").
  Named results;
  std::vector<std::string> unread;  ///< Case::unread of the run
};

/// One evaluation of a case.
Evaluation evaluate(const CaseFile& file, Run run, DType dtype, int order);

/// Evaluates in float64 and float32 at every order up to that of the case. The orders differ in the
/// code that they exercise: without a graph, with fused backward kernels, with recorded gradients.
/// An input or hyper-parameter that the kind does not read is a problem, too.
Verdict check(const CaseFile& file, const Kind& kind);

}  // namespace capsfw::golden

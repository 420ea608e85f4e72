#include "overflow.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace capsfw::detail {
namespace {

bool all_finite(const Tensor& x) {
  const Tensor data = contiguous_data(x);
  return visit_float(x.dtype(), "check_overflow", [&]<class T>() {
    const T* p = data.data<T>();
    return std::all_of(p, p + data.numel(), [](T v) { return std::isfinite(v); });
  });
}

/// Largest |x|; NaN if one is.
double largest(const Tensor& x) {
  double most = 0;
  for (const double v : x.to_vector<double>())
    most = std::isnan(v) ? v : std::max(most, std::abs(v));
  return most;
}

}  // namespace

void check_overflow(std::string_view who, const TensorList& results, const TensorList& inputs) {
  const auto fine = [](const Tensor& x) { return !x.defined() || all_finite(x); };
  if (std::all_of(results.begin(), results.end(), fine)) return;
  double most = 0;
  for (const Tensor& x : inputs) {
    if (!fine(x)) return;
    if (x.defined()) most = std::max(most, largest(x));
  }
  const DType dtype = inputs.front().dtype();
  const double end = dtype == DType::f32 ? static_cast<double>(std::numeric_limits<float>::max())
                                         : std::numeric_limits<double>::max();
  // The fourth root: squares of squares are what derivatives of norms have.
  if (most < std::pow(end, 0.25)) return;
  throw ValueError(fmt::format(
      "{}: a result is not finite: the inputs are as large as {:.3g}, and squares of {} overflow "
      "above {:.2g}. Hint: smaller weights (a smaller --lr, --clip 1), or shorter inputs",
      who, most, name_of(dtype), std::sqrt(end)));
}

}  // namespace capsfw::detail

#include "table.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/csv.hpp>
#include <capsfw/data/npy.hpp>
#include <capsfw/ops/layout.hpp>

namespace capsfw::apps {

Tensor load_matrix(const std::filesystem::path& path) {
  const std::string ending = path.extension().string();
  const auto fail = [&](const std::string& rule) {
    throw ValueError(fmt::format("'{}': {}", path.string(), rule));
  };
  Tensor x;
  if (ending == ".npy")
    x = cast_data(load_npy(path), DType::f64);
  else if (ending == ".csv" || ending == ".tsv")
    x = load_csv(path, ending == ".tsv" ? '\t' : ',').values;
  else
    fail(fmt::format("must end with .csv, .tsv or .npy; got '{}'", ending));
  if (x.dim() == 1) x = unsqueeze(x, 1);
  if (x.dim() != 2 || x.numel() == 0)
    fail(fmt::format("must be a matrix of numbers; got {}", x.shape().str()));
  const double* p = x.data<double>();
  const double* end = p + x.numel();
  const double* bad = std::find_if(p, end, [](double v) { return !std::isfinite(v); });
  if (bad != end)
    fail(fmt::format("row {}, column {}: must be finite; got {}", (bad - p) / x.size(1) + 1,
                     (bad - p) % x.size(1) + 1, *bad));
  return x;
}

void save_matrix(const std::filesystem::path& path,
                 const Tensor& values,
                 const std::vector<std::string>& names) {
  if (path.extension() == ".npy")
    save_npy(path, values);
  else
    save_csv(path, values, names);
}

}  // namespace capsfw::apps

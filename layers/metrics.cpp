#include <capsfw/layers/metrics.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

#include "detail/classes.hpp"

namespace capsfw {
namespace {

double ratio(double a, double b) { return b > 0 ? a / b : 0.0; }

ClassScores scores(std::int64_t hits, std::int64_t given, std::int64_t support) {
  const auto h = static_cast<double>(hits), g = static_cast<double>(given),
             s = static_cast<double>(support);
  return {.precision = ratio(h, g),
          .recall = ratio(h, s),
          .f1 = ratio(2 * h, g + s),
          .support = support};
}

ClassScores macro_mean(const std::vector<ClassScores>& classes) {
  const auto n = static_cast<double>(classes.size());
  ClassScores mean;
  for (const ClassScores& s : classes) {
    mean.precision += s.precision / n;
    mean.recall += s.recall / n;
    mean.f1 += s.f1 / n;
    mean.support += s.support;
  }
  return mean;
}

}  // namespace

Tensor confusion_matrix(const Tensor& predicted, const Tensor& labels, std::int64_t classes) {
  const char* who = "confusion_matrix";
  if (predicted.dim() != 1 || predicted.shape() != labels.shape() ||
      predicted.dtype() != DType::i64 || labels.dtype() != DType::i64)
    throw ShapeError(fmt::format("{}: predicted and labels must be i64 [N]; got {} {} and {} {}",
                                 who, name_of(predicted.dtype()), predicted.shape().str(),
                                 name_of(labels.dtype()), labels.shape().str()));
  if (classes < 1)
    throw ValueError(fmt::format("{}: there must be at least one class; got {}", who, classes));
  for (const Tensor& all : {predicted, labels}) detail::check_classes(all, classes, who);
  Tensor out = zeros({classes, classes}, DType::i64);
  auto* count = out.mutable_data<std::int64_t>();
  const auto p = predicted.to_vector<std::int64_t>(), t = labels.to_vector<std::int64_t>();
  for (std::size_t i = 0; i < p.size(); ++i) ++count[t[i] * classes + p[i]];
  return out;
}

ClassificationReport classification_report(const Tensor& confusion) {
  if (confusion.dim() != 2 || confusion.size(0) != confusion.size(1) || confusion.numel() == 0 ||
      confusion.dtype() != DType::i64)
    throw ShapeError(
        fmt::format("classification_report: the confusion matrix must be i64 [J, J]; got {} {}",
                    name_of(confusion.dtype()), confusion.shape().str()));
  const auto n = static_cast<std::size_t>(confusion.size(0));
  const auto count = confusion.to_vector<std::int64_t>();
  if (*std::min_element(count.begin(), count.end()) < 0)
    throw ValueError("classification_report: the confusion matrix must not have negative entries");
  ClassificationReport report;
  std::int64_t all = 0, hits = 0;
  for (std::size_t k = 0; k < n; ++k) {
    std::int64_t given = 0, support = 0;
    for (std::size_t i = 0; i < n; ++i) {
      given += count[i * n + k];
      support += count[k * n + i];
    }
    report.classes.push_back(scores(count[k * n + k], given, support));
    all += support;
    hits += count[k * n + k];
  }
  report.macro = macro_mean(report.classes);
  report.micro = scores(hits, all, all);
  report.accuracy = report.micro.recall;
  return report;
}

std::string ClassificationReport::str(const std::vector<std::string>& class_names) const {
  std::size_t width = 7;
  for (const std::string& name : class_names) width = std::max(width, name.size());
  std::string out = fmt::format("{:<{}}  precision  recall      f1  support\n", "", width);
  const auto line = [&](std::string_view name, const ClassScores& s) {
    out += fmt::format("{:<{}}  {:>9.3f}  {:>6.3f}  {:>6.3f}  {:>7}\n", name, width, s.precision,
                       s.recall, s.f1, s.support);
  };
  for (std::size_t k = 0; k < classes.size(); ++k)
    line(k < class_names.size() ? class_names[k] : fmt::to_string(k), classes[k]);
  line("macro", macro);
  line("micro", micro);
  return out;
}

double topk_accuracy(const Tensor& scores, const Tensor& labels, std::int64_t k) {
  const char* who = "topk_accuracy";
  if (scores.dim() != 2 || !is_floating(scores.dtype()) || labels.dtype() != DType::i64 ||
      labels.shape() != Shape{scores.size(0)})
    throw ShapeError(fmt::format("{}: takes scores [N, J] and labels i64 [N]; got {} {} and {} {}",
                                 who, name_of(scores.dtype()), scores.shape().str(),
                                 name_of(labels.dtype()), labels.shape().str()));
  const std::int64_t classes = scores.size(1);
  if (k < 1 || k > classes)
    throw ValueError(fmt::format("{}: k must lie in [1, {}]; got {}", who, classes, k));
  detail::check_classes(labels, classes, who);
  const auto s = scores.to_vector<double>();
  const auto t = labels.to_vector<std::int64_t>();
  std::int64_t hits = 0;
  for (std::size_t i = 0; i < t.size(); ++i) {
    const double* row = s.data() + i * static_cast<std::size_t>(classes);
    std::int64_t before = 0;
    for (std::int64_t j = 0; j < classes; ++j)
      before +=
          std::isnan(row[j]) ? classes : row[j] > row[t[i]] || (row[j] == row[t[i]] && j < t[i]);
    hits += before < k;
  }
  return static_cast<double>(hits) / static_cast<double>(t.size());
}

MultiLabelScores multi_label_scores(const Tensor& predicted, const Tensor& targets) {
  if (predicted.dim() != 2 || predicted.shape() != targets.shape() ||
      predicted.dtype() != DType::b8 || targets.dtype() != DType::b8)
    throw ShapeError(fmt::format(
        "multi_label_scores: predicted and targets must be b8 [N, J]; got {} {} and {} {}",
        name_of(predicted.dtype()), predicted.shape().str(), name_of(targets.dtype()),
        targets.shape().str()));
  const auto p = predicted.to_vector<bool>(), t = targets.to_vector<bool>();
  const auto rows = static_cast<std::size_t>(targets.size(0)),
             classes = static_cast<std::size_t>(targets.size(1));
  std::vector<std::int64_t> hits(classes), given(classes), support(classes);
  double exact = 0;
  for (std::size_t i = 0; i < rows; ++i) {
    bool same = true;
    for (std::size_t k = 0; k < classes; ++k) {
      const bool found = p[i * classes + k], there = t[i * classes + k];
      hits[k] += found && there;
      given[k] += found;
      support[k] += there;
      same = same && found == there;
    }
    exact += same;
  }
  const auto total = [](const std::vector<std::int64_t>& v) {
    return std::accumulate(v.begin(), v.end(), std::int64_t{0});
  };
  const ClassScores micro = scores(total(hits), total(given), total(support));
  MultiLabelScores result;
  result.exact = ratio(exact, static_cast<double>(rows));
  result.precision = micro.precision;
  result.recall = micro.recall;
  result.f1 = micro.f1;
  for (std::size_t k = 0; k < classes; ++k)
    result.classes.push_back(scores(hits[k], given[k], support[k]));
  result.macro = macro_mean(result.classes);
  return result;
}

}  // namespace capsfw

#include <capsfw/layers/metrics.hpp>

#include <algorithm>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

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
  Tensor out = zeros({classes, classes}, DType::i64);
  auto* count = out.mutable_data<std::int64_t>();
  const auto p = predicted.to_vector<std::int64_t>(), t = labels.to_vector<std::int64_t>();
  for (std::size_t i = 0; i < p.size(); ++i) {
    for (const std::int64_t k : {p[i], t[i]})
      if (k < 0 || k >= classes)
        throw ValueError(fmt::format("{}: classes must lie in [0, {}); got {}", who, classes, k));
    ++count[t[i] * classes + p[i]];
  }
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
    const ClassScores s = scores(count[k * n + k], given, support);
    report.classes.push_back(s);
    report.macro.precision += s.precision / static_cast<double>(n);
    report.macro.recall += s.recall / static_cast<double>(n);
    report.macro.f1 += s.f1 / static_cast<double>(n);
    all += support;
    hits += count[k * n + k];
  }
  report.macro.support = all;
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
  std::int64_t hits = 0, given = 0, support = 0;
  double exact = 0;
  for (std::size_t i = 0; i < rows; ++i) {
    bool same = true;
    for (std::size_t k = i * classes; k < (i + 1) * classes; ++k) {
      hits += p[k] && t[k];
      given += p[k];
      support += t[k];
      same = same && p[k] == t[k];
    }
    exact += same;
  }
  const ClassScores s = scores(hits, given, support);
  return {.exact = ratio(exact, static_cast<double>(rows)),
          .precision = s.precision,
          .recall = s.recall,
          .f1 = s.f1};
}

}  // namespace capsfw

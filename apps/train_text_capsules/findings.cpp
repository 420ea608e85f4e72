#include "findings.hpp"

#include <algorithm>
#include <numeric>

#include <fmt/format.h>

#include <capsfw/data/image.hpp>
#include <capsfw/layers/metrics.hpp>
#include <capsfw/ops/arithmetic.hpp>

#include "common/heat.hpp"
#include "common/text.hpp"

namespace capsfw::apps {
namespace {

/// In columns, with the names of the classes on both sides.
std::string matrix_text(const Tensor& confusion, const std::vector<std::string>& names) {
  const auto v = confusion.to_vector<std::int64_t>();
  std::size_t width = 6;
  for (const std::string& name : names) width = std::max(width, name.size());
  std::string out = fmt::format("{:<{}}", "", width);
  for (const std::string& name : names) out += fmt::format("  {:>{}}", name, width);
  for (std::size_t i = 0; i < v.size(); ++i) {
    if (i % names.size() == 0) out += fmt::format("\n{:<{}}", names[i / names.size()], width);
    out += fmt::format("  {:>{}}", v[i], width);
  }
  return out + '\n';
}

}  // namespace

void Outcome::save(StateDict& results) const {
  results.set("outcome", from_vector<double>({test, dev, uniform, pairs_exact, pairs_f1, seconds}));
  results.set("confusion", confusion);
}

Outcome Outcome::load(const StateDict& results) {
  const auto v = results.at("outcome").to_vector<double>();
  return {v.at(0), v.at(1), v.at(2), v.at(3), v.at(4), v.at(5), results.at("confusion")};
}

std::vector<double> Findings::test() const {
  std::vector<double> out;
  for (const Outcome& o : outcomes_) out.push_back(o.test);
  return out;
}

Tensor Findings::confusion() const {
  Tensor sum = outcomes_.front().confusion;
  for (std::size_t i = 1; i < outcomes_.size(); ++i) sum = sum + outcomes_[i].confusion;
  return sum;
}

void Findings::add_to(Report& report) const {
  const std::string runs =
      outcomes_.size() > 1 ? fmt::format(" of {} runs", outcomes_.size()) : std::string();
  report.headline("test accuracy" + runs, percent(test()));
  report.confusion(
      {"Confusion matrix",
       fmt::format("Test sentences{}. Rows: class; columns: what it was taken for.", runs)},
      confusion(), names_);
  report.write();
}

std::string Findings::text() const {
  std::string text = classification_report(confusion()).str(names_);
  if (outcomes_.size() > 1)
    text += fmt::format("\ntest accuracy of {} runs: {}\n", outcomes_.size(), percent(test()));
  return text + fmt::format("\nrows: class, columns: what it was taken for\n{}",
                            matrix_text(confusion(), names_));
}

JsonFields Findings::result() const {
  const auto mean = [&](double Outcome::*what) {
    double sum = 0;
    for (const Outcome& o : outcomes_) sum += o.*what;
    return sum / static_cast<double>(outcomes_.size());
  };
  return {{"event", "result"},
          {"runs", outcomes_.size()},
          {"arch", flags_.arch},
          {"loss", flags_.loss_name()},
          {"test_accuracy", mean(&Outcome::test)},
          {"dev_accuracy", mean(&Outcome::dev)},
          {"macro_f1", classification_report(confusion()).macro.f1},
          {"pairs_exact", mean(&Outcome::pairs_exact)},
          {"pairs_f1", mean(&Outcome::pairs_f1)},
          {"train_seconds", mean(&Outcome::seconds)}};
}

bool Findings::draw(const std::filesystem::path& path) const {
  if (names_.size() > 30) return false;
  HeatWords words{
      .title = fmt::format("what each class was taken for, {} on {}", flags_.arch, flags_.data),
      .note = "rows: class; columns: what it was taken for; colour: share of the row",
      .rows = names_,
      .columns = names_};
  const Tensor counts = confusion();
  const auto v = counts.to_vector<std::int64_t>();
  std::vector<double> shares;
  for (std::size_t i = 0; i < v.size(); ++i) {
    const auto row = v.begin() + static_cast<std::ptrdiff_t>(i / names_.size() * names_.size());
    const std::int64_t sum =
        std::accumulate(row, row + static_cast<std::ptrdiff_t>(names_.size()), std::int64_t{0});
    shares.push_back(sum > 0 ? static_cast<double>(v[i]) / static_cast<double>(sum) : 0);
    words.cells.push_back(std::to_string(v[i]));
  }
  save_png(path, heat_map(from_vector(shares, counts.shape()), words, 1));
  return true;
}

}  // namespace capsfw::apps

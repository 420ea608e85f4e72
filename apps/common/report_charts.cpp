#include "common/report_charts.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace capsfw::apps {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
/// Fields that name a run, the kind of network first.
constexpr std::array<const char*, 4> kTags = {"network", "penalty", "seed", "fold"};
/// Fields that are no curves.
constexpr std::array<std::string_view, 6> kPlaces = {"step", "epoch",   "seed",
                                                     "fold", "seconds", "samples"};
constexpr std::string_view kRate = "_per_second", kMemory = "peak_memory_mb";

bool is_curve(std::string_view field, const Json& value) {
  return (value.is_number() || value.is_null()) &&
         std::find(kPlaces.begin(), kPlaces.end(), field) == kPlaces.end();
}
double number(const Json& value) { return value.is_number() ? value.get<double>() : kUnknown; }

/// The curves of one run.
struct RunCurves {
  std::string kind, name;
  std::vector<std::pair<std::string, ReportLine>> fields = {};  // in order of appearance
  std::map<std::string, double> means = {};  // of the "train" lines, since the epoch began
  double epoch = -1, samples = 0;
  bool sweep = false;  // over the learning rate, in any order

  ReportLine* find(const std::string& field) {
    for (auto& [known, line] : fields)
      if (known == field) return &line;
    return nullptr;
  }
  void add(const std::string& field, double step, double value) {
    ReportLine* line = find(field);
    if (line == nullptr) line = &fields.emplace_back(field, ReportLine{}).second;
    while (!sweep && !line->step.empty() && line->step.back() >= step) {  // a rollback
      line->step.pop_back();
      line->value.pop_back();
    }
    const auto at = std::upper_bound(line->step.begin(), line->step.end(), step);
    line->value.insert(line->value.begin() + (at - line->step.begin()), value);
    line->step.insert(at, step);
  }
};

/// The mean since the line before this one, of what is a mean since the epoch began.
double since_last(std::string_view field, double mean, double n, double last_mean, double last_n) {
  if (!(n > last_n) || last_n == 0) return mean;
  if (field.ends_with(kRate)) return (n - last_n) / (n / mean - last_n / last_mean);
  return (n * mean - last_n * last_mean) / (n - last_n);
}

void add_train(RunCurves& run, const Json& line, double step) {
  const double epoch = number(line.value("epoch", Json())),
               samples = number(line.value("samples", Json()));
  const bool same_epoch = epoch == run.epoch && samples > run.samples;
  for (const auto& [field, value] : line.items()) {
    if (!is_curve(field, value)) continue;
    const double v = number(value);
    const bool mean = field != "lr" && field != "grad_norm" && field != kMemory;
    run.add(field, step,
            mean && same_epoch ? since_last(field, v, samples, run.means[field], run.samples) : v);
    run.means[field] = v;
  }
  run.epoch = epoch;
  run.samples = std::isfinite(samples) ? samples : 0;
}

/// What the "train" lines do not have already.
void add_epoch(RunCurves& run, const Json& line, double step) {
  for (const auto& [field, value] : line.items())
    if (is_curve(field, value) && !run.means.contains(field)) run.add(field, step, number(value));
}

/// What a field is called, and its place among the charts.
struct Meaning {
  std::string title, role = {}, unit = {};
  double scale = 1;
  bool log = false;
  int rank = 5;
};

Meaning meaning(const std::string& field) {
  Meaning m{.title = field};
  const std::array<std::pair<std::string_view, const char*>, 3> roles = {
      {{"val_", "validation"}, {"dev_", "development"}, {"train_", "training"}}};
  for (const auto& [prefix, role] : roles)
    if (m.title.starts_with(prefix)) {
      m.title.erase(0, prefix.size());
      m.role = role;
    }
  if (m.role.empty() && (m.title == "loss" || m.title == "accuracy")) m.role = "training";
  if (m.title == "loss") m.rank = 0;
  if (m.title.ends_with("accuracy")) {
    m.rank = 1;
    m.unit = "%";
    m.scale = 100;
  }
  if (field == "lr") return {.title = "learning rate", .rank = 2};
  if (field == "grad_norm") return {.title = "norm of the gradient", .rank = 3};
  if (field.ends_with(kRate))
    return {.title = field.substr(0, field.size() - kRate.size()) + "/s", .rank = 4};
  if (field == kMemory) return {.title = "peak memory", .unit = "MB", .rank = 4};
  if (field == "lhs" || field == "rhs")  // of the inequality of gradient_penalty
    return {
        .title = field == "lhs" ? "left side of the inequality" : "right side of the inequality",
        .log = true};
  if (m.title.starts_with("param_")) m.title.insert(5, "eter");
  m.log = m.title.find("penalty") != std::string::npos;
  std::replace(m.title.begin(), m.title.end(), '_', ' ');
  return m;
}

std::size_t count_kinds(const std::vector<RunCurves>& runs) {
  std::set<std::string> kinds;
  for (const RunCurves& run : runs) kinds.insert(run.kind);
  return kinds.size();
}

/// Numbers of the kinds of networks; of the runs, where there is but one kind.
std::vector<ReportLine> color_by_kind(const std::vector<RunCurves>& runs,
                                      std::vector<std::size_t>& colors) {
  const bool one_kind = count_kinds(runs) == 1;
  std::vector<ReportLine> legend;
  for (const RunCurves& run : runs) {
    const std::string& name = one_kind ? run.name : run.kind;
    const auto known = std::find_if(legend.begin(), legend.end(),
                                    [&](const ReportLine& l) { return l.name == name; });
    colors.push_back(static_cast<std::size_t>(known - legend.begin()));
    if (known == legend.end()) legend.push_back({.name = name, .color = legend.size()});
  }
  return legend;
}

/// Whether anything can be drawn; a logarithmic axis has no place for 0.
bool has_values(const ReportLine& line, bool log) {
  return std::any_of(line.value.begin(), line.value.end(),
                     [log](double v) { return std::isfinite(v) && (v > 0 || !log); });
}

/// Accuracy rather than loss, on images held out rather than those of training, but two points say
/// little, unless there are no more.
std::optional<std::size_t> most_telling(const std::vector<ReportChart>& charts) {
  for (const std::size_t points : {3, 1})
    for (const char* title : {"accuracy, validation", "accuracy, development", "accuracy, training",
                              "loss, validation", "loss, training"})
      for (std::size_t i = 0; i < charts.size(); ++i) {
        const auto& lines = charts[i].lines;
        if (charts[i].title == title &&
            std::any_of(lines.begin(), lines.end(),
                        [&](const ReportLine& line) { return line.step.size() >= points; }))
          return i;
      }
  return {};
}

std::vector<RunCurves> read_runs(std::istream& log) {
  std::vector<RunCurves> runs;
  for (std::string text; std::getline(log, text);) {
    Json line = Json::parse(text, nullptr, false);
    if (!line.is_object()) continue;
    const Json event = line.value("event", Json());
    const bool sweep = event == "sweep";
    if (event != "train" && event != "epoch" && event != "record" && !sweep) continue;
    RunCurves found;
    found.sweep = sweep;
    for (const char* tag : kTags) {
      if (!line.contains(tag)) continue;
      const Json& value = line[tag];
      const std::string text_of =
          value.is_string() ? value.get<std::string>() : fmt::format("{} {}", tag, value.dump());
      if (value.is_string()) found.kind = text_of;
      found.name += (found.name.empty() ? "" : ", ") + text_of;
    }
    auto run = std::find_if(runs.begin(), runs.end(),
                            [&](const RunCurves& r) { return r.name == found.name; });
    if (run == runs.end()) run = runs.insert(runs.end(), found);
    const double step = number(line.value(sweep ? "lr" : "step", Json()));
    if (!std::isfinite(step)) continue;
    if (sweep) line.erase("lr");
    if (event == "train")
      add_train(*run, line, step);
    else
      add_epoch(*run, line, step);
  }
  return runs;
}

}  // namespace

ReportCharts charts_of_log(std::istream& log) {
  std::vector<RunCurves> runs = read_runs(log);
  const bool several = runs.size() > 1;
  std::vector<std::size_t> colors;
  ReportCharts out{.charts = {}, .legend = color_by_kind(runs, colors)};
  if (!several) out.legend.clear();
  if (!runs.empty() && runs.front().sweep) out.along = "learning rate";
  std::vector<std::pair<int, ReportChart>> charts;
  for (std::size_t r = 0; r < runs.size(); ++r)
    for (auto& [field, line] : runs[r].fields) {
      const Meaning m = meaning(field);
      if (!has_values(line, m.log)) continue;
      for (double& v : line.value) v *= m.scale;
      // Of one run, training and validation share a chart; of several, the runs do.
      const std::string title =
          several && !m.role.empty() ? fmt::format("{}, {}", m.title, m.role) : m.title;
      auto chart = std::find_if(charts.begin(), charts.end(),
                                [&](const auto& c) { return c.second.title == title; });
      if (chart == charts.end())
        chart = charts.insert(charts.end(), {m.rank, {title, m.unit, m.log, {}}});
      line.name = several ? runs[r].name : m.role;
      line.color = several ? colors[r] : chart->second.lines.size();
      chart->second.lines.push_back(std::move(line));
    }
  std::stable_sort(charts.begin(), charts.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  for (auto& [rank, chart] : charts) out.charts.push_back(std::move(chart));
  if (count_kinds(runs) >= 3) out.compared = most_telling(out.charts);
  return out;
}

void thin(ReportLine& line, std::size_t limit) {
  const std::size_t n = line.value.size(), stretches = std::max<std::size_t>(limit / 2, 2) - 1;
  if (n <= limit) return;
  std::size_t last = n - 1;  // where the line ends
  while (last > 0 && !std::isfinite(line.value[last])) --last;
  ReportLine out{.name = line.name, .color = line.color};
  const auto keep = [&](std::size_t i) {
    out.step.push_back(line.step[i]);
    out.value.push_back(line.value[i]);
  };
  for (std::size_t k = 0; k < stretches; ++k) {
    const std::size_t begin = k * n / stretches, end = (k + 1) * n / stretches;
    std::size_t low = begin, high = begin;
    for (std::size_t i = begin; i < end; ++i) {
      const double v = line.value[i];
      if (std::isnan(v)) continue;
      if (!(line.value[low] <= v)) low = i;
      if (!(line.value[high] >= v)) high = i;
    }
    std::set<std::size_t> kept{low, high};
    if (k == 0) kept.insert(0);
    if (begin <= last && last < end) kept.insert(last);
    for (const std::size_t i : kept) keep(i);
  }
  line = std::move(out);
}

}  // namespace capsfw::apps

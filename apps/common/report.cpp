#include "common/report.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <exception>
#include <fstream>
#include <optional>
#include <tuple>

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <capsfw/core/error.hpp>
#include <capsfw/core/runtime.hpp>
#include <capsfw/data/image.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/optim/interrupt.hpp>

#include "common/canvas.hpp"
#include "common/grid.hpp"
#include "common/page.hpp"
#include "common/report_charts.hpp"
#include "common/text.hpp"

namespace capsfw::apps {

extern const char* const kReportPage;  // report.html, see capsfw_embed() in CMake

namespace {

using Clock = std::chrono::steady_clock;
using Json = nlohmann::ordered_json;

/// Points of a line, and of all lines together: about 1 MB.
constexpr std::size_t kLinePoints = 1000, kPagePoints = 60000;
constexpr std::int64_t kLargestSide = 64;  // of a picture, in pixels
constexpr std::int64_t kMostClasses = 30, kMostMistakes = 20;

std::string data_uri(const Tensor& image) {
  Tensor x = select(drawable(unsqueeze(image, 0)), 0, 0);
  const std::int64_t h = x.size(1), w = x.size(2), side = std::max(h, w);
  if (side > kLargestSide)
    x = resize_image(x, std::max<std::int64_t>(h * kLargestSide / side, 1),
                     std::max<std::int64_t>(w * kLargestSide / side, 1));
  return "data:image/png;base64," + base64(encode_png(x));
}

/// Six digits are all that is seen of a value; more would double the page.
Json short_numbers(const std::vector<double>& values, int digits = 6) {
  Json out = Json::array();
  for (const double v : values)
    out.push_back(Json::parse(fmt::format("{:.{}g}", v, digits), nullptr, false));
  for (Json& v : out)
    if (v.is_discarded()) v = nullptr;  // NaN and infinities
  return out;
}

std::string hex(Rgb color) {
  const auto byte = [](float v) { return static_cast<int>(std::lround(255 * v)); };
  return fmt::format("#{:02x}{:02x}{:02x}", byte(color.r), byte(color.g), byte(color.b));
}

}  // namespace

struct Report::Impl {
  std::filesystem::path folder;
  Json page = Json::object(), sections = Json::array();
  std::optional<Clock::time_point> written = {};
  int exceptions = std::uncaught_exceptions();  // more of them at the end: the run has failed

  void put(const Heading& heading, const char* kind, Json content) {
    content["kind"] = kind;
    content["title"] = heading.title;
    content["note"] = heading.note;
    content["group"] = heading.group;
    content["last"] = heading.last;
    put(std::move(content));
  }
  void put(Json content) {
    for (Json& known : sections)
      if (known["title"] == content["title"] && known["group"] == content["group"]) {
        known = std::move(content);
        return;
      }
    sections.push_back(std::move(content));
  }

  /// Reads the log anew each time: also after --resume it has all that belongs to the run.
  void add_charts(Json& out) const {
    std::ifstream log(folder / "metrics.jsonl", std::ios::binary);
    ReportCharts found = charts_of_log(log);
    std::size_t lines = 1;
    for (const ReportChart& chart : found.charts) lines += chart.lines.size();
    const std::size_t limit = std::min(kLinePoints, std::max<std::size_t>(kPagePoints / lines, 20));
    out["charts"] = out["legend"] = Json::array();
    out["compared"] = found.compared ? Json(*found.compared) : Json();
    out["along"] = found.along;
    for (const ReportLine& line : found.legend)
      out["legend"].push_back({{"name", line.name}, {"color", line.color}});
    for (ReportChart& chart : found.charts) {
      Json curves = Json::array();
      for (ReportLine& line : chart.lines) {
        thin(line, limit);
        curves.push_back({{"name", line.name},
                          {"color", line.color},
                          {"x", short_numbers(line.step, 15)},
                          {"y", short_numbers(line.value)}});
      }
      out["charts"].push_back({{"title", chart.title},
                               {"unit", chart.unit},
                               {"log", chart.log},
                               {"lines", std::move(curves)}});
    }
  }

  void write(const char* state) {
    Json out = page;
    out["state"] = state;
    const std::time_t now = std::time(nullptr);
    out["updated"] = fmt::format("{:%Y-%m-%d %H:%M}", fmt::localtime(now));
    out["sections"] = sections;
    add_charts(out);
    save_text(folder / "report.html",
              page_with_data(kReportPage, out.dump(-1, ' ', true, Json::error_handler_t::replace)));
    written = Clock::now();
  }
};

Report::Report(const RunFolder& folder, const std::string& title, const Args& args)
    : impl_(std::make_unique<Impl>()) {
  impl_->folder = folder.path();
  Json& page = impl_->page;
  page["title"] = title;
  page["program"] = args.program();
  page["headline"] = nullptr;
  page["flags"] = page["facts"] = page["palette"] = Json::array();
  for (const auto& [name, value] : args.values())
    page["flags"].push_back({{"name", name},
                             {"value", value},
                             {"given", args.given(name)},
                             {"switch", !args.takes_value(name)}});
  for (std::size_t i = 0; i < kPaletteSize; ++i) page["palette"].push_back(hex(palette(i)));
  const RuntimeInfo info = runtime_info();
  fact("version", "capsfw " + info.version);
  fact("machine", fmt::format("{}, {} thread{}, {}, OpenBLAS {}", info.cpu, info.threads,
                              info.threads == 1 ? "" : "s", info.instructions, info.blas));
}
Report::~Report() {
  // Not where this run has written nothing: a page that is there is of an earlier one.
  if (!impl_->written || std::uncaught_exceptions() <= impl_->exceptions) return;
  try {
    impl_->write("failed");
  } catch (...) {  // the disk may be full: the error that is on its way matters more
  }
}

void Report::fact(const std::string& name, const std::string& value) {
  for (Json& known : impl_->page["facts"])
    if (known[0] == name) {
      known[1] = value;
      return;
    }
  impl_->page["facts"].push_back(Json::array({name, value}));
}

void Report::headline(const std::string& label, const std::string& value) {
  impl_->page["headline"] = {{"label", label}, {"value", value}};
}

void Report::table(const Heading& heading,
                   const std::vector<std::string>& head,
                   const std::vector<std::vector<std::string>>& rows) {
  for (const auto& row : rows)
    if (row.size() != head.size())
      throw ValueError(fmt::format("report, '{}': a row must have {} cells; got {}", heading.title,
                                   head.size(), row.size()));
  impl_->put(heading, "table", {{"head", head}, {"rows", rows}});
}

void Report::confusion(const Heading& heading,
                       const Tensor& counts,
                       const std::vector<std::string>& names) {
  const auto classes = static_cast<std::int64_t>(names.size());
  if (counts.shape() != Shape{classes, classes})
    throw ShapeError(fmt::format("report, '{}': the counts of {} classes must be [{}, {}]; got {}",
                                 heading.title, classes, classes, classes, counts.shape().str()));
  const auto values = counts.to_vector<std::int64_t>();
  const auto at = [&](std::size_t i, std::size_t j) { return values[i * names.size() + j]; };
  if (classes <= kMostClasses) {
    std::vector<std::vector<std::int64_t>> rows;
    for (std::size_t i = 0; i < names.size(); ++i) {
      rows.emplace_back();
      for (std::size_t j = 0; j < names.size(); ++j) rows.back().push_back(at(i, j));
    }
    return impl_->put(heading, "matrix", {{"names", names}, {"counts", rows}});
  }
  std::vector<std::tuple<std::int64_t, std::size_t, std::size_t>> mistakes;
  for (std::size_t i = 0; i < names.size(); ++i)
    for (std::size_t j = 0; j < names.size(); ++j)
      if (i != j && at(i, j) > 0) mistakes.emplace_back(-at(i, j), i, j);
  std::sort(mistakes.begin(), mistakes.end());
  mistakes.resize(std::min<std::size_t>(mistakes.size(), kMostMistakes));
  std::vector<std::vector<std::string>> rows;
  for (const auto& [count, i, j] : mistakes)
    rows.push_back({names[i], names[j], fmt::to_string(-count)});
  table(heading, {"class", "taken for", "times"}, rows);
}

void Report::pictures(const Heading& heading, const std::vector<Picture>& items) {
  Json list = Json::array();
  for (const Picture& item : items) {
    Json images = Json::array();
    for (const Tensor& image : item.images) images.push_back(data_uri(image));
    list.push_back({{"images", std::move(images)}, {"text", item.text}});
  }
  impl_->put(heading, "pictures", {{"items", std::move(list)}});
}

void Report::save(StateDict& state, const std::string& prefix) const {
  // A checkpoint holds numbers: eight bytes of text in each, filled up with spaces.
  std::string text = impl_->sections.dump(-1, ' ', true, Json::error_handler_t::replace);
  std::vector<std::int64_t> words((text.size() + 7) / 8);
  text.resize(8 * words.size(), ' ');
  std::memcpy(words.data(), text.data(), text.size());
  state.set(prefix, from_vector(words));
}

void Report::load(const StateDict& state, const std::string& prefix) {
  if (!state.contains(prefix)) return;  // of a version without reports
  const auto words = state.at(prefix).to_vector<std::int64_t>();
  std::string text(8 * words.size(), ' ');
  std::memcpy(text.data(), words.data(), text.size());
  Json sections = Json::parse(text, nullptr, false);
  if (!sections.is_array())
    throw ValueError(fmt::format("report: '{}' must hold the sections of a page", prefix));
  for (Json& section : sections) impl_->put(std::move(section));
}

void Report::write() {
  if (impl_->written && Clock::now() - *impl_->written < std::chrono::seconds(1)) return;
  impl_->write("running");
}
void Report::finish() { impl_->write(interrupted() ? "interrupted" : "finished"); }

}  // namespace capsfw::apps

// The page of a run: curves of a log, what goes into the page, and that nothing in it can break
// out.

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <sstream>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <capsfw/data/image.hpp>
#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/ops/reduce.hpp>

#include "apps_support.hpp"
#include "common/report.hpp"
#include "common/report_charts.hpp"
#include "common/report_sections.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace capsfw::apps;
using namespace apps_test;
using capsfw::testing::message_of;

namespace {

using Json = nlohmann::json;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

ReportCharts charts_of(const std::string& log) {
  std::istringstream in(log);
  return charts_of_log(in);
}

const ReportChart& chart(const ReportCharts& found, const std::string& title) {
  for (const ReportChart& c : found.charts)
    if (c.title == title) return c;
  FAIL("no chart " << title);
  return found.charts.front();
}

/// A report in a folder of its own.
struct Page {
  Folder folder;
  RunFolder run{folder.path / "run"};
  double lr = 0.5;
  bool quick = false;
  std::string note;
  Args args{"demo", "A program."};
  std::optional<Report> report;

  explicit Page(const std::string& title = "a run") {
    args.add("--lr X", lr, "learning rate");
    args.add("--note TEXT", note, "a note").add("--quick", quick, "fewer steps");
    const std::vector<const char*> words{"demo", "--lr", "0.25", "--quick", "--note", "yes"};
    REQUIRE(!args.parse(static_cast<int>(words.size()), words.data()));
    report.emplace(run, title, args);
  }
  std::string html() {
    report->finish();
    return content(run.path() / "report.html");
  }
  /// What the page draws.
  Json data() {
    const std::string text = html(), before = R"(<script id="data" type="application/json">)";
    const std::size_t begin = text.find(before) + before.size();
    return Json::parse(text.substr(begin, text.find("</script>", begin) - begin));
  }
};

std::string decoded(const std::string& base64) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  std::uint32_t word = 0;
  int bits = 0;
  for (const char c : base64) {
    if (c == '=') break;
    word = word << 6 | static_cast<std::uint32_t>(digits.find(c));
    if ((bits += 6) >= 8) out += static_cast<char>(word >> (bits -= 8) & 255);
  }
  return out;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("report: curves are means between two lines, though the log has those of the epoch") {
  const ReportCharts found = charts_of(
      R"({"event":"train","step":1,"epoch":1,"loss":4,"accuracy":0.5,"lr":0.1,"grad_norm":2,"samples":10,"images_per_second":10,"peak_memory_mb":7}
{"event":"train","step":2,"epoch":1,"loss":3,"accuracy":0.75,"lr":0.1,"grad_norm":null,"samples":20,"images_per_second":16,"peak_memory_mb":8}
{"event":"epoch","epoch":1,"step":2,"loss":3,"accuracy":0.75,"val_loss":1,"val_accuracy":0.9,"images_per_second":16,"seconds":1}
{"event":"train","step":3,"epoch":2,"loss":1,"accuracy":1,"lr":0.05,"grad_norm":1,"samples":10,"images_per_second":20,"peak_memory_mb":8}
{"event":"test","test_accuracy":0.9}
no JSON, and half a line: {"event":"tr)");
  CHECK(found.legend.empty());
  std::vector<std::string> titles;
  for (const ReportChart& c : found.charts) titles.push_back(c.title);
  CHECK(titles == std::vector<std::string>{"loss", "accuracy", "learning rate",
                                           "norm of the gradient", "images/s", "peak memory"});
  const ReportChart& loss = chart(found, "loss");
  REQUIRE(loss.lines.size() == 2);
  CHECK(loss.lines[0].name == "training");
  CHECK(loss.lines[0].step == std::vector<double>{1, 2, 3});
  CHECK(loss.lines[0].value ==
        std::vector<double>{4, 2, 1});  // (20·3 − 10·4) / 10, anew in epoch 2
  CHECK(loss.lines[1].name == "validation");
  CHECK(loss.lines[1].step == std::vector<double>{2});
  CHECK(chart(found, "accuracy").lines[0].value == std::vector<double>{50, 100, 100});  // per cent
  // 10 images in 1 s, then 10 in 20/16 − 1 s.
  CHECK(chart(found, "images/s").lines[0].value == std::vector<double>{10, 40, 20});
  CHECK(std::isnan(chart(found, "norm of the gradient").lines[0].value[1]));
}

TEST_CASE(
    "report: without lines of steps the curves are those of the epochs, and a rollback undoes") {
  const ReportCharts epochs = charts_of(
      "{\"event\":\"epoch\",\"epoch\":1,\"step\":3,\"loss\":2}\n"
      "{\"event\":\"epoch\",\"epoch\":2,\"step\":6,\"loss\":1}\n");
  CHECK(chart(epochs, "loss").lines[0].value == std::vector<double>{2, 1});
  const ReportCharts back = charts_of(
      "{\"event\":\"train\",\"epoch\":1,\"step\":2,\"loss\":1}\n"
      "{\"event\":\"train\",\"epoch\":1,\"step\":4,\"loss\":9}\n"
      "{\"event\":\"rollback\",\"step\":5,\"back_to\":2}\n"
      "{\"event\":\"train\",\"epoch\":1,\"step\":4,\"loss\":3}\n");
  CHECK(chart(back, "loss").lines[0].step == std::vector<double>{2, 4});
  CHECK(chart(back, "loss").lines[0].value == std::vector<double>{1, 3});
}

TEST_CASE("report: several runs share charts, with a colour for each kind of network") {
  std::string log;
  for (const char* network : {"kmeans", "cnn"})
    for (const int seed : {1, 2})
      log += fmt::format(
          "{{\"event\":\"record\",\"network\":\"{}\",\"seed\":{},\"step\":1,\"train_loss\":2,"
          "\"val_accuracy\":null,\"input_penalty\":3,\"h\":[1,2]}}\n",
          network, seed);
  const ReportCharts found = charts_of(log);
  REQUIRE(found.charts.size() == 2);  // what is always null has no chart, nor has a list
  const ReportChart& loss = chart(found, "loss, training");
  REQUIRE(loss.lines.size() == 4);
  CHECK(loss.lines[1].name == "kmeans, seed 2");
  CHECK(loss.lines[1].color == loss.lines[0].color);
  CHECK(loss.lines[2].color != loss.lines[0].color);
  CHECK(chart(found, "input penalty").log);
  // A logarithmic axis has no place for 0.
  CHECK(charts_of(R"({"event":"record","step":0,"input_penalty":0})").charts.empty());
  REQUIRE(found.legend.size() == 2);
  CHECK(found.legend[1].name == "cnn");
}

TEST_CASE("report: three kinds of networks are compared by the chart that says most of them") {
  const auto log = [](const std::vector<std::string>& kinds, int epochs, const char* fields) {
    std::string text;
    for (const std::string& kind : kinds)
      for (int e = 1; e <= epochs; ++e)
        text += fmt::format("{{\"event\":\"epoch\",\"network\":\"{}\",\"step\":{},{}}}\n", kind, e,
                            fields);
    return text;
  };
  const auto compared = [](const std::string& text) -> std::string {
    const ReportCharts found = charts_of(text);
    return found.compared ? found.charts.at(*found.compared).title : "none";
  };
  const char *all = R"("loss":1,"accuracy":0.5,"val_accuracy":0.25)", *losses = R"("loss":1)";
  CHECK(compared(log({"a", "b", "c"}, 3, all)) == "accuracy, validation");
  CHECK(compared(log({"a", "b", "c"}, 3, losses)) == "loss, training");
  CHECK(compared(log({"a", "b"}, 3, all)) == "none");
  CHECK(compared(log({"a", "b", "c"}, 3, R"("speed":1)")) == "none");
  // Three seeds of one network are no kinds.
  CHECK(compared(R"({"event":"epoch","seed":1,"step":1,"accuracy":1}
{"event":"epoch","seed":2,"step":1,"accuracy":1}
{"event":"epoch","seed":3,"step":1,"accuracy":1})") == "none");
  // Two points say less than the many of training.
  std::string text = log({"a", "b", "c"}, 2, R"("val_accuracy":0.25)");
  CHECK(compared(text) == "accuracy, validation");
  for (int step = 1; step <= 3; ++step)
    text += fmt::format(
        "{{\"event\":\"train\",\"network\":\"a\",\"epoch\":1,\"step\":{},\"accuracy\":1}}\n", step);
  CHECK(compared(text) == "accuracy, training");
}

TEST_CASE("report: the ends of a sweep are points over the learning rate, in any order") {
  std::string log;
  for (const double lr : {0.1, 0.5, 0.02})
    for (const int seed : {1, 2})
      log += fmt::format(
          "{{\"event\":\"sweep\",\"lr\":{},\"seed\":{},\"steps\":40,\"test_accuracy\":{}}}\n", lr,
          seed, lr + 0.1 * seed);
  const ReportCharts found = charts_of(log);
  CHECK(found.along == "learning rate");
  CHECK(charts_of(R"({"event":"epoch","step":1,"loss":1})").along == "step");
  CHECK(found.charts.size() == 2);  // the rate itself is none
  const ReportChart& accuracy = chart(found, "test accuracy");
  REQUIRE(accuracy.lines.size() == 2);
  CHECK(accuracy.lines[1].name == "seed 2");
  CHECK(accuracy.lines[1].step == std::vector<double>{0.02, 0.1, 0.5});
  REQUIRE(accuracy.lines[1].value.size() == 3);
  CHECK(accuracy.lines[1].value[0] == doctest::Approx(22));
  CHECK(accuracy.lines[1].value[2] == doctest::Approx(70));
  CHECK(chart(found, "steps").lines[0].value == std::vector<double>{40, 40, 40});
}

TEST_CASE("report: thin lines keep their peaks, and NaN only where there is nothing else") {
  ReportLine line{.name = "a", .color = 3};
  for (int i = 0; i < 10000; ++i) {
    line.step.push_back(i);
    line.value.push_back(i == 4321 ? 99 : i == 77 ? -99 : i >= 9000 ? kNan : std::sin(i));
  }
  thin(line, 1000);
  CHECK(line.name == "a");
  CHECK(line.color == 3);
  REQUIRE(line.step.size() == line.value.size());
  CHECK(line.value.size() <= 1000);
  CHECK(line.value.size() > 900);
  CHECK(std::count(line.value.begin(), line.value.end(), 99) == 1);
  CHECK(std::count(line.value.begin(), line.value.end(), -99) == 1);
  CHECK(std::is_sorted(line.step.begin(), line.step.end()));
  CHECK(std::isnan(line.value.back()));
  ReportLine saw{.name = {}, .color = 0};
  for (int i = 0; i < 3000; ++i) {
    saw.step.push_back(i);
    saw.value.push_back(i % 3 == 2 ? 0.5 : i % 3);
  }
  thin(saw, 1000);
  CHECK(saw.step.front() == 0);
  CHECK(saw.step.back() == 2999);
  CHECK(saw.value.back() == 0.5);
  CHECK(saw.value.size() <= 1000);
  const std::vector<double> before = line.value;
  thin(line, 1000);  // short enough
  CHECK(line.value.size() == before.size());
}

TEST_CASE("report: no text can end the script that holds it, or become markup") {
  const std::string evil = "</script><script>alert(1)</script><!-- \xe2\x80\xa8 & \xff";
  Page page(evil);
  page.report->fact("images", evil);
  page.report->headline(evil, "1 %");
  page.report->table({evil, evil}, {evil}, {{evil}});
  page.report->confusion({"matrix"}, eye(2, DType::i64), {evil, "b"});
  page.report->pictures({"pictures"}, {{{zeros({1, 2, 2})}, {evil}}});
  page.run.write({{"event", "train"}, {"network", evil}, {"step", 1}, {"loss", 1}});
  page.run.write({{"event", "train"}, {"network", "b"}, {"step", 1}, {"loss", INFINITY}});
  page.run.write({{"event", "train"}, {"network", "c"}, {"step", 1}, {"loss", 1}});
  const std::string html = page.html();
  CHECK(count(html, "</script>") == 2);  // those of the template
  CHECK(count(html, "<script") == 2);
  CHECK_FALSE(contains(html, "\xe2\x80\xa8"));
  CHECK_FALSE(contains(html, "alert(1)</"));
  const Json data = page.data();
  CHECK(data["title"] == "</script><script>alert(1)</script><!-- \xe2\x80\xa8 & \xef\xbf\xbd");
  CHECK(data["sections"][1]["names"][0] == data["title"]);
  CHECK(data["legend"].size() == 3);
  CHECK(data["charts"][0]["lines"].size() == 2);  // a line of infinities is none
  CHECK(data["compared"] == 0);
}

TEST_CASE("report: the page has flags, machine, state, and curves of a limited size") {
  Page page;
  for (int step = 1; step <= 30000; ++step)
    page.run.write(
        {{"event", "record"}, {"step", step}, {"val_loss", step % 7 == 0 ? kNan : 1.0 / 3}});
  page.report->write();
  Json data = page.data();
  CHECK(data["program"] == "demo");
  const auto flag = [&](std::size_t at, const char* name, const char* value, bool is_switch) {
    CHECK(data["flags"][at] ==
          Json{{"name", name}, {"value", value}, {"given", true}, {"switch", is_switch}});
  };
  flag(0, "--lr", "0.25", false);
  flag(1, "--note", "yes", false);  // in the command line with its text, unlike a switch
  flag(2, "--quick", "yes", true);
  CHECK(data["facts"][0][0] == "version");
  CHECK(data["state"] == "finished");
  CHECK(data["headline"].is_null());
  CHECK(data["along"] == "step");
  CHECK(data["compared"].is_null());
  CHECK_FALSE(contains(page.html(), "<link rel=\"stylesheet\""));  // its style is inside
  const Json& y = data["charts"][0]["lines"][0]["y"];
  CHECK(y.size() <= 1000);
  CHECK(y[0].dump() == "0.333333");
  CHECK(page.html().size() < 200000);
  page.report->fact("version", "another");  // a fact of the same name takes its place
  data = page.data();
  CHECK(data["facts"][0][1] == "another");
  CHECK(data["facts"].size() == 2);
}

TEST_CASE("report: the page of a run that ends with an error says so") {
  Page page;
  const fs::path path = page.run.path() / "report.html";
  const auto run = [&](const std::function<void(Report&)>& body) {
    try {
      Report report(page.run, "a run", page.args);
      body(report);
    } catch (const ValueError&) {
    }
  };
  run([](Report&) { throw ValueError("no such number"); });
  CHECK_FALSE(fs::exists(path));  // the page of an earlier run would stay
  run([](Report& report) {
    report.write();
    throw ValueError("no such number");
  });
  CHECK(contains(content(path), R"("state":"failed")"));
  run([](Report& report) { report.write(); });
  CHECK(contains(content(path), R"("state":"running")"));
  run([&](Report& report) {
    report.write();
    fs::remove_all(page.run.path());  // the page cannot be written: no second exception
    throw ValueError("no such number");
  });
}

TEST_CASE("report: a section replaces the one of its title, and comes back from a checkpoint") {
  Page page;
  page.report->table({"a", "old"}, {"x"}, {});
  page.report->table({"b"}, {"x"}, {});
  page.report->table({"a", "of a network", "cnn"}, {"x"}, {});
  page.report->table({"a", "new"}, {"x"}, {{"1"}});
  StateDict state;
  page.report->save(state, "report");
  Page later;
  later.report->table({"a", "older"}, {"x"}, {});
  later.report->table({"c"}, {"x"}, {});
  later.report->load(state, "other");  // nothing there: all stays
  CHECK(later.data()["sections"].size() == 2);
  later.report->load(state, "report");
  Json sections = later.data()["sections"];
  REQUIRE(sections.size() == 4);
  CHECK(sections[1]["title"] == "c");
  sections.erase(1);
  CHECK(sections == page.data()["sections"]);
  CHECK(sections[0]["note"] == "new");
  CHECK(sections[0]["rows"][0][0] == "1");
  state.set("bad", from_vector<std::int64_t>({1, 2}));
  CHECK(contains(message_of<ValueError>([&] { later.report->load(state, "bad"); }),
                 "'bad' must hold"));
  CHECK(contains(message_of<ValueError>([&] {
                   page.report->table({"t"}, {"a", "b"}, {{"1"}});
                 }),
                 "a row must have 2 cells; got 1"));
  CHECK(contains(message_of<ShapeError>([&] {
                   page.report->confusion({"t"}, eye(3), {"a", "b"});
                 }),
                 "must be [2, 2]; got [3, 3]"));
}

TEST_CASE("report: pictures are PNGs of at most 64 pixels, many classes are a list of mistakes") {
  Page page;
  page.report->pictures({"p"}, {{{zeros({1, 50, 100}), full({3, 3, 2}, 0.5)}, {"a", "b"}}});
  std::vector<std::string> names;
  for (int k = 0; k < 31; ++k) names.push_back(std::to_string(k));
  Tensor counts = eye(31, DType::i64);
  counts.mutable_data<std::int64_t>()[31 * 4 + 7] = 5;
  counts.mutable_data<std::int64_t>()[2] = 9;
  page.report->confusion({"c"}, counts, names);
  const Json sections = page.data()["sections"];
  CHECK(sections[1]["kind"] == "table");
  CHECK(sections[1]["rows"] == Json{{"0", "2", "9"}, {"4", "7", "5"}});
  const std::string before = "data:image/png;base64,";
  const std::vector<Shape> shapes{{1, 32, 64}, {3, 3, 2}};
  for (std::size_t i = 0; i < 2; ++i) {
    const std::string uri = sections[0]["items"][0]["images"][i];
    REQUIRE(uri.starts_with(before));
    const fs::path file = page.folder.path / "picture.png";
    std::ofstream(file, std::ios::binary) << decoded(uri.substr(before.size()));
    const Tensor image = load_image(file);
    CHECK(image.shape() == shapes[i]);
    CHECK(image.to_vector<float>()[0] == doctest::Approx(i == 0 ? 0 : 0.5).epsilon(0.01));
  }
}

TEST_CASE("report: answers of an evaluation, the worst mistake first, layers with their classes") {
  const Tensor scores = from_vector<float>({.9f, .1f, .2f, .8f, .6f, .4f, .5f, .7f}, {4, 2});
  const std::vector<Mistake> mistakes =
      worst_mistakes(scores, from_vector<std::int64_t>({0, 0, 1, 1}));
  REQUIRE(mistakes.size() == 2);
  CHECK(mistakes[0].sample == 1);
  CHECK(mistakes[0].said == 1);
  CHECK(mistakes[0].right == 0);
  CHECK(mistakes[0].score - mistakes[0].right_score == doctest::Approx(0.6));
  CHECK(mistakes[1].sample == 2);

  Rng rng(1);
  CapsNet net(CapsNetOptions::compact({1, 20, 20}, 2), rng);
  const ImageSet set({1, 20, 20}, std::vector<std::uint8_t>(6 * 400), {0, 1, 0, 1, 1, 1},
                     {"a", "b"});
  Page page;
  Answers answers(set);
  const BatchLoss loss =
      answers.watching([](const ClassifierOutput& out, const Batch&) { return mean(out.lengths); });
  answers.add_to(*page.report, "test");  // nothing seen: nothing added
  CHECK(page.data()["sections"].empty());
  const Score score = evaluate(net, set, loss, "test");
  answers.add_to(*page.report, "test");
  add_reconstructions(*page.report, net, set);
  add_layers(*page.report, net);
  const Json sections = page.data()["sections"];
  REQUIRE(sections.size() == 4);
  CHECK(sections[0]["counts"] ==
        (score.accuracy < 0.5 ? Json{{2, 0}, {4, 0}} : Json{{0, 2}, {0, 4}}));
  CHECK(sections[1]["items"].size() == (score.accuracy < 0.5 ? 4 : 2));
  CHECK(sections[2]["items"][0]["images"].size() == 2);
  CHECK(sections[3]["rows"][0] == Json{"input", "", "[B, 1, 20, 20]", "0"});
  CHECK(sections[3]["rows"][1][1] == "Conv2d");
  CHECK(sections[3]["rows"].back()[3] == std::to_string(net.parameter_count()));
}

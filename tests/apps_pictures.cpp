// Canvas, charts and labelled grids of images.

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <string>

#include <doctest/doctest.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/image.hpp>

#include "common/canvas.hpp"
#include "common/chart.hpp"
#include "common/grid.hpp"
#include "common/ticks.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

bool same(Rgb a, Rgb b, float tolerance = 1e-6F) {
  return std::abs(a.r - b.r) <= tolerance && std::abs(a.g - b.g) <= tolerance &&
         std::abs(a.b - b.b) <= tolerance;
}

Rgb at(const Tensor& picture, std::int64_t x, std::int64_t y) {
  const std::int64_t w = picture.size(2), plane = picture.size(1) * w;
  const float* p = picture.data<float>() + y * w + x;
  return {p[0], p[plane], p[2 * plane]};
}

/// Pixels of exactly this colour in columns [x0, x1).
int count(const Tensor& picture, Rgb color, std::int64_t x0 = 0, std::int64_t x1 = 1 << 20) {
  int n = 0;
  for (std::int64_t y = 0; y < picture.size(1); ++y)
    for (std::int64_t x = x0; x < std::min(x1, picture.size(2)); ++x)
      n += same(at(picture, x, y), color);
  return n;
}

bool all_in_unit(const Tensor& picture) {
  for (float v : picture.to_vector<float>())
    if (!(v >= 0 && v <= 1)) return false;
  return true;
}

double dark(const Canvas& c, int x0, int x1) {
  double ink = 0;
  for (int y = 0; y < c.height(); ++y)
    for (int x = std::max(0, x0); x < std::min(x1, c.width()); ++x) ink += 1 - c.pixel(x, y).g;
  return ink;
}

}  // namespace

TEST_CASE("ticks: round numbers within the limits, evenly spaced, never too many") {
  for (double lo : {-3.7, 0.0, 0.001, 1234.5, -1e6, 1e-7})
    for (double span : {1e-6, 0.03, 1.0, 7.0, 99.0, 12345.0, 1e9})
      for (int most : {1, 2, 3, 5, 8, 13}) {
        const double hi = lo + span;
        const Ticks t = nice_ticks(lo, hi, most);
        CAPTURE(lo);
        CAPTURE(span);
        CHECK(static_cast<int>(t.at.size()) <= most);
        CHECK(t.labels.size() == t.at.size());
        if (most >= 5) CHECK(t.at.size() >= 2);
        for (std::size_t i = 0; i < t.at.size(); ++i) {
          CHECK(t.at[i] >= lo - 1e-6 * span);
          CHECK(t.at[i] <= hi + 1e-6 * span);
          if (i > 1) CHECK(t.at[i] - t.at[i - 1] == doctest::Approx(t.at[i - 1] - t.at[i - 2]));
        }
      }
}

TEST_CASE("ticks: labels") {
  using Texts = std::vector<std::string>;
  CHECK(nice_ticks(0, 1, 6).labels == Texts{"0", "0.2", "0.4", "0.6", "0.8", "1.0"});
  CHECK(nice_ticks(-0.25, 0.3, 6).labels == Texts{"-0.2", "-0.1", "0", "0.1", "0.2", "0.3"});
  CHECK(nice_ticks(1, 5, 9, true).labels == Texts{"1", "2", "3", "4", "5"});
  CHECK(nice_ticks(1, 5, 9).labels.size() == 9);
  CHECK(nice_ticks(0, 60000, 4).labels == Texts{"0", "20k", "40k", "60k"});
  CHECK(nice_ticks(0, 3e-6, 4).labels == Texts{"0", "1e-06", "2e-06", "3e-06"});
  for (auto [lo, hi] : {std::pair{1.0, 1.0}, {2.0, 1.0}, {kNan, 1.0}, {0.0, kInf}})
    CHECK(nice_ticks(lo, hi, 5).at.empty());
  CHECK(nice_ticks(0, 1, 0).at.empty());
  // Neighbouring doubles: no endless loop, no repeated numbers.
  CHECK(nice_ticks(1, std::nextafter(1, 2), 5).at.size() <= 1);
}

TEST_CASE("axis limits: margin, zero when near, sane without any spread") {
  const Limits wide = axis_limits({0.9, 0.5, kNan, 0.8, kInf});
  CHECK(wide.lo == doctest::Approx(0.48));
  CHECK(wide.hi == doctest::Approx(0.92));
  CHECK(axis_limits({0.1, 1}).lo == 0);
  CHECK(axis_limits({-0.1, -1}).hi == 0);
  CHECK(axis_limits({5, 5}).lo == 4.5);
  CHECK(axis_limits({5, 5}).hi == 5.5);
  CHECK(axis_limits({0}).lo == -1);
  CHECK(axis_limits({}).lo == 0);
  CHECK(axis_limits({kNan}).hi == 1);
  for (const auto& odd : {std::vector{-1e308, 1e308}, {1e-320, 2e-320}, {1e308}}) {
    const Limits l = axis_limits(odd);
    CHECK(l.lo < l.hi);
    CHECK(std::isfinite(l.hi - l.lo));
  }
}

TEST_CASE("canvas: lines cover pixels by their share, and joints are not darker") {
  Canvas c(20, 20);
  c.line({2, 10}, {18, 10}, 2, rgb(0));
  CHECK(same(c.pixel(10, 9), rgb(0)));
  CHECK(same(c.pixel(10, 10), rgb(0)));
  CHECK(same(c.pixel(10, 8), kWhite));
  c = Canvas(20, 20);
  c.line({2, 10.5}, {18, 10.5}, 2, rgb(0));
  CHECK(same(c.pixel(10, 10), rgb(0)));
  CHECK(c.pixel(10, 9).r == doctest::Approx(0.5));
  CHECK(c.pixel(10, 11).r == doctest::Approx(0.5));
  c = Canvas(20, 20);
  c.polyline({{2, 10.5}, {10.5, 10.5}, {18, 10.5}}, 2, rgb(0), 0.5);
  CHECK(c.pixel(10, 10).r == doctest::Approx(0.5));
  CHECK(c.pixel(5, 10).r == doctest::Approx(0.5));
}

TEST_CASE("canvas: nothing outside the clip or the picture changes, and bad numbers are harmless") {
  Canvas c(10, 8);
  c.clip(2, 2, 4, 4);
  c.fill_rect(-5, -5, 100, 100, rgb(0xFF0000));
  c.line({-1e9, 4}, {1e9, 4}, 3, rgb(0));
  c.line({kNan, 4}, {5, kInf}, 3, rgb(0));
  c.text({-50, 4}, "far away, and back again", {});
  c.image(-3, -3, ones(Shape{1, 30, 30}), 2);
  for (int y = 0; y < 8; ++y)
    for (int x = 0; x < 10; ++x)
      if (x < 2 || x >= 6 || y < 2 || y >= 6) CHECK(same(c.pixel(x, y), kWhite));
  c.clip(-4, -4, 2, 2);
  c.fill_rect(0, 0, 10, 8, rgb(0));
  CHECK(same(c.pixel(0, 0), kWhite));
  CHECK_THROWS_AS(Canvas(0, 5), ValueError);
  CHECK_THROWS_AS(Canvas(1 << 20, 1 << 20), ValueError);
  CHECK_THROWS_AS(c.image(0, 0, ones(Shape{2, 4, 4}), 1), ShapeError);
}

TEST_CASE("canvas: every printable character leaves its own ink within its width") {
  std::vector<std::vector<float>> seen;
  for (char ch = 33; ch < 127; ++ch) {
    Canvas c(60, 60);
    const std::string text(1, ch);
    c.text({20, 40}, text, {.size = 20});
    CAPTURE(text);
    CHECK(dark(c, 0, 60) > 3);
    const double width = text_width(text, 20);
    CHECK(dark(c, 0, 17) == 0);
    CHECK(dark(c, 20 + static_cast<int>(width) + 1, 60) == 0);
    std::vector<float> picture = c.to_tensor().to_vector<float>();
    CHECK(std::find(seen.begin(), seen.end(), picture) == seen.end());
    seen.push_back(std::move(picture));
  }
  Canvas blank(30, 30);
  blank.text({5, 20}, " ", {});
  CHECK(dark(blank, 0, 30) == 0);
  blank.text({5, 20}, "\xC3\xA9\n\x7F", {});
  CHECK(dark(blank, 0, 30) > 0);
}

TEST_CASE("canvas: text is aligned, turned and cut") {
  for (Align align : {Align::left, Align::centre, Align::right}) {
    Canvas c(200, 40);
    c.text({100, 25}, "HHHH", {.size = 10, .align = align});
    const double before = dark(c, 0, 100), after = dark(c, 100, 200);
    if (align == Align::left) CHECK(after > 10 * before);
    if (align == Align::right) CHECK(before > 10 * after);
    if (align == Align::centre) CHECK(before == doctest::Approx(after).epsilon(0.1));
  }
  Canvas c(40, 200);
  c.text({25, 150}, "HHHH", {.size = 10, .upwards = true});
  CHECK(dark(c, 10, 30) > 50);
  CHECK(dark(c, 0, 12) == 0);
  CHECK(fit_text("short", 10, 1000) == "short");
  CHECK(fit_text("Ankle boot", 10, 40).ends_with(".."));
  CHECK(text_width(fit_text("Ankle boot", 10, 40), 10) <= 40);
  CHECK(fit_text("Ankle boot", 10, 0) == "..");
}

TEST_CASE("chart: curves appear in their panels and colours") {
  Chart chart("title", {.panel_width = 300, .panel_height = 200});
  chart.panel("loss", {"epoch", "loss"}).line("train", {1, 2, 3}, {3, 2, 1});
  chart.panel("accuracy").line("train", {1, 2, 3}, {50, 60, 80}).line("val", {1, 2}, {40, 45});
  const Tensor picture = chart.render();
  CHECK(picture.size(0) == 3);
  CHECK(all_in_unit(picture));
  const std::int64_t middle = picture.size(2) / 2;
  CHECK(count(picture, palette(0), 0, middle) > 50);
  CHECK(count(picture, palette(1), 0, middle) == 0);
  CHECK(count(picture, palette(0), middle) > 50);
  CHECK(count(picture, palette(1), middle) > 50);
  CHECK(same(at(picture, 0, 0), kWhite));
}

TEST_CASE("chart: a label used twice keeps its colour, an empty one shows in no legend") {
  Chart one("", {.panel_width = 300, .panel_height = 200});
  one.panel("p").line("a", {0, 1}, {0, 1}, {.faint = true}).line("a", {0, 1}, {1, 0});
  CHECK(count(one.render(), palette(1)) == 0);
  Chart two("", {.panel_width = 300, .panel_height = 200});
  two.panel("p").line("", {0, 1}, {0, 1});
  Chart three("", {.panel_width = 300, .panel_height = 200});
  three.panel("p").line("a", {0, 1}, {0, 1});
  CHECK(count(two.render(), palette(0)) < count(three.render(), palette(0)));
}

TEST_CASE("chart: odd series are drawn sanely") {
  const std::vector<std::pair<std::vector<double>, std::vector<double>>> odd = {
      {{}, {}},
      {{3}, {0.25}},
      {{0, 1, 2}, {5, 5, 5}},
      {{0, 0, 0}, {1, 2, 3}},
      {{0, 1, 2, 3}, {1, kNan, 2, kInf}},
      {{kNan, kInf}, {1, 2}},
      {{1, 2, 3}, {1e300, -1e308, 1e308}},
      {{1e15, 1e15 + 1}, {1e-300, 2e-300}},
      {{2, 1, 3}, {-1, -2, -3}}};
  for (const auto& [xs, ys] : odd) {
    Chart chart("odd", {.panel_width = 300, .panel_height = 200});
    chart.panel("p", {"x", "y"}).line("", xs, ys);
    const Tensor picture = chart.render();
    CHECK(all_in_unit(picture));
    const bool visible = xs.size() > 0 && std::isfinite(xs[0]);
    CHECK((count(picture, palette(0)) > 0) == visible);
  }
  CHECK(all_in_unit(Chart("no panels").render()));
  // A gap stays a gap: two separate points, no line between them.
  Chart gap("", {.panel_width = 300, .panel_height = 200}), whole = gap;
  gap.panel("p").line("", {0, 1, 2}, {0, kNan, 1});
  whole.panel("p").line("", {0, 2}, {0, 1});
  CHECK(4 * count(gap.render(), palette(0)) < count(whole.render(), palette(0)));
}

TEST_CASE("chart: mistakes are refused, and files are written whole or not at all") {
  Chart chart("");
  CHECK_THROWS_AS(chart.panel("p").line("a", {1, 2}, {1}), ValueError);
  CHECK_THROWS_AS(Chart("", {.panel_width = 10}), ValueError);
  CHECK_THROWS_AS(chart.save("/nonexistent-folder/curves.png"), IoError);
  const auto path = std::filesystem::temp_directory_path() /
                    ("capsfw_apps_chart_" + std::to_string(::getpid()) + ".png");
  chart.save(path);
  CHECK(load_image(path).shape() == chart.render().shape());
  std::filesystem::remove(path);
}

TEST_CASE("grid: images are magnified, in order and in place") {
  Tensor images = zeros(Shape{5, 1, 2, 3});
  for (int i = 0; i < 5; ++i) images.mutable_data<float>()[i * 6 + 5] = 0.2F * (i + 1);
  const Tensor picture = labelled_grid(images, {.columns = 3, .scale = 4});
  // No words: margin 20, gap 6, images 12 x 8.
  CHECK(picture.shape() == Shape{3, 20 + 8 + 6 + 8 + 20, 20 + 3 * 12 + 2 * 6 + 20});
  for (int i = 0; i < 5; ++i) {
    const int x = 20 + i % 3 * 18, y = 20 + i / 3 * 14;
    const float v = 0.2F * static_cast<float>(i + 1);
    CHECK(same(at(picture, x, y), rgb(0)));
    CHECK(same(at(picture, x + 7, y + 7), rgb(0)));
    CHECK(same(at(picture, x + 8, y + 4), {v, v, v}));
    CHECK(same(at(picture, x + 11, y + 7), {v, v, v}));
    CHECK(same(at(picture, x - 1, y), kWhite));
  }
  CHECK(same(at(picture, 20 + 2 * 18 + 4, 20 + 14 + 4), kWhite));
}

TEST_CASE("grid: words make room for themselves and leave ink") {
  const Tensor images = ones(Shape{4, 3, 10, 10});
  const GridOptions bare{.columns = 2, .scale = 2};
  const Tensor plain = labelled_grid(images, bare);
  CHECK(count(plain, kWhite) == plain.numel() / 3);
  GridOptions full = bare;
  full.title = "Title";
  full.rows = {"input", "reconstruction"};
  full.headers = {"a header too long for its image", "b"};
  full.captions = {"1", "2", "3", "4"};
  full.group = 1;
  const Tensor worded = labelled_grid(images, full);
  CHECK(worded.size(1) > plain.size(1));
  CHECK(worded.size(2) > plain.size(2));
  CHECK(count(worded, kWhite) < worded.numel() / 3);
  CHECK(all_in_unit(worded));
}

TEST_CASE("grid: values are clamped, NaN is orange, smoothing stays between its neighbours") {
  Tensor image = zeros(Shape{1, 1, 1, 4});
  float* p = image.mutable_data<float>();
  p[0] = -3, p[1] = 7, p[2] = static_cast<float>(kNan), p[3] = 0.5F;
  const Tensor picture = labelled_grid(image, {.scale = 1});
  CHECK(same(at(picture, 20, 20), rgb(0)));
  CHECK(same(at(picture, 21, 20), kWhite));
  CHECK(same(at(picture, 22, 20), rgb(0xE69F00)));
  CHECK(same(at(picture, 23, 20), {0.5F, 0.5F, 0.5F}));

  const Tensor step = from_vector<float>({0, 1}, Shape{1, 1, 1, 2});
  const Tensor smooth = labelled_grid(step, {.scale = 4, .smooth = true});
  const float expected[] = {0, 0, 0.125F, 0.375F, 0.625F, 0.875F, 1, 1};
  for (int i = 0; i < 8; ++i) CHECK(at(smooth, 20 + i, 21).r == doctest::Approx(expected[i]));
}

TEST_CASE("grid: other element types and strides are read, bad input is refused") {
  const Tensor wide = strided_view(arange(12), Shape{1, 1, 2, 2}, Strides{12, 12, 6, 3}, 0);
  const Tensor picture = labelled_grid(wide, {.scale = 1});
  CHECK(same(at(picture, 20, 20), rgb(0)));
  CHECK(same(at(picture, 21, 20), kWhite));
  CHECK_THROWS_AS(labelled_grid(zeros(Shape{4, 28, 28})), ShapeError);
  CHECK_THROWS_AS(labelled_grid(zeros(Shape{4, 2, 28, 28})), ShapeError);
  CHECK_THROWS_AS(labelled_grid(zeros(Shape{0, 1, 28, 28})), ShapeError);
  CHECK_THROWS_AS(labelled_grid(zeros(Shape{1, 1, 4, 4}), {.columns = 0}), ValueError);
  CHECK_THROWS_AS(labelled_grid(zeros(Shape{1, 1, 4, 4}), {.scale = 1 << 30}), ValueError);
  CHECK_THROWS_AS(labelled_grid(zeros(Shape{1, 1, 400, 400}), {.scale = 100}), ValueError);
}

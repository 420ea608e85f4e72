// The small classifiers that programs compare: sizes, files, measurements.

#include <cmath>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "apps_support.hpp"
#include "common/classifier.hpp"
#include "common/penalty_probe.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace capsfw::apps;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;

namespace {

Labelled some_images(std::int64_t n, const Shape& image) {
  Rng rng(7);
  return {rng.uniform({n, image[0], image[1], image[2]}, 0, 1), rng.integers({n}, 10)};
}

}  // namespace

TEST_CASE("cnn and capsule network have the same size, to half a percent") {
  Rng rng(1);
  for (const Shape& image : {Shape{1, 28, 28}, Shape{3, 32, 32}, Shape{1, 20, 24}}) {
    const auto caps = make_classifier({.kind = "capsnet", .image = image}, rng);
    const auto cnn = make_classifier({.kind = "cnn", .image = image}, rng);
    const auto a = static_cast<double>(caps->parameter_count()),
               b = static_cast<double>(cnn->parameter_count());
    CHECK(std::abs(a - b) < 0.005 * a);
    const Labelled data = some_images(2, image);
    CHECK(cnn->scores(data.images).shape() == Shape{2, 10});
    CHECK(caps->losses(caps->scores(data.images), data.labels).shape() == Shape{2});
  }
  CHECK(make_classifier({.kind = "capsnet"}, rng)->parameter_count() == 108000);
  CHECK(make_classifier({.kind = "mlp", .hidden = {5}}, rng)->parameter_count() == 785 * 5 + 60);
  CHECK_THROWS_AS(make_classifier({.kind = "cnn", .image = {1, 12, 28}}, rng), ShapeError);
}

TEST_CASE("classifiers come back from their files") {
  const apps_test::Folder folder;
  const auto path = folder.path / "model.safetensors";
  for (const char* kind : {"mlp", "cnn", "capsnet"}) {
    Rng rng(1);
    const ClassifierOptions o{
        .kind = kind, .image = {1, 16, 20}, .hidden = {6}, .activation = "softplus"};
    const auto model = make_classifier(o, rng);
    save_model(path, *model, "a note");
    const LoadedModel loaded = load_model(path);
    CHECK(loaded.note == "a note");
    CHECK(loaded.model->options().activation == "softplus");
    const Labelled data = some_images(3, o.image);
    CHECK(same_bits(loaded.model->scores(data.images), model->scores(data.images)));
  }
  CHECK_THROWS_AS(load_model(folder.path / "missing.safetensors"), IoError);
}

TEST_CASE("penalties of a model do not depend on how its images are sliced") {
  Rng rng(1);
  const auto model = make_classifier({.kind = "mlp", .image = {1, 6, 6}, .hidden = {5}}, rng);
  model->to(DType::f64);
  Labelled data = some_images(450, {1, 6, 6});
  data.images = to(data.images, DType::f64);
  const Penalties all = measure_penalties(*model, data);
  double input = 0, sample = 0;
  for (std::int64_t at = 0; at < 450; at += 150) {
    const Penalties part = measure_penalties(*model, data.range(at, 150));
    input += part.input / 3;
    sample += part.sample / 3;
    CHECK(part.batch > 0);
  }
  CHECK(all.input == doctest::Approx(input).epsilon(1e-12));
  CHECK(all.sample == doctest::Approx(sample).epsilon(1e-12));
  CHECK(all.batch < all.sample);  // gradients of samples cancel in part

  const Probe p = probe(*model, data.first(20), SpectralMethod::exact);
  REQUIRE(p.layers.size() == 2);
  CHECK(p.worst.ratio <= 1 + 1e-9);
  CHECK(p.rhs == doctest::Approx(p.penalties.sample).epsilon(1e-12));
  CHECK(apps_test::contains(p.table(), "total (f): left"));
}

TEST_CASE("lists of widths and rates are read whole or refused") {
  CHECK(parse_widths("64,3") == std::vector<std::int64_t>{64, 3});
  CHECK(parse_rates("0.5,1e-2") == std::vector<double>{0.5, 0.01});
  for (const char* text : {"", "64,", "0", "-3", "6x", "1,,2"})
    CHECK_THROWS_AS(parse_widths(text), ValueError);
  for (const char* text : {"0", "inf", "nan", "1,-1"})
    CHECK_THROWS_AS(parse_rates(text), ValueError);
}

// Classifiers of images in programs: their files, their losses, measurements on them.

#include <cmath>

#include <capsfw/data/safetensors.hpp>
#include <capsfw/data/text.hpp>
#include <capsfw/layers/conv_net.hpp>
#include <capsfw/layers/matrix_capsules.hpp>
#include <capsfw/layers/mlp_net.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "apps_support.hpp"
#include "common/classifier_io.hpp"
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

/// One network of each kind that can be saved, with the name of the kind.
std::vector<std::pair<std::string, std::unique_ptr<ImageClassifier>>> one_of_each(
    const Shape& image) {
  Rng rng(1);
  const CapsNetOptions capsules = CapsNetOptions::small(image);
  MatrixCapsNetOptions matrix = MatrixCapsNetOptions::small(image);
  matrix.conv.channels = 8;
  matrix.primary_types = 2;
  matrix.capsules = {{3, 3, 1}};
  std::vector<std::pair<std::string, std::unique_ptr<ImageClassifier>>> all;
  all.emplace_back("capsnet", std::make_unique<CapsNet>(capsules, rng));
  all.emplace_back("convnet", std::make_unique<ConvNet>(ConvNetOptions::beside(capsules), rng));
  all.emplace_back("matrix-capsnet", std::make_unique<MatrixCapsNet>(matrix, rng));
  all.emplace_back(
      "mlp", std::make_unique<MlpNet>(
                 MlpNetOptions{.image = image, .hidden = {6}, .activation = "softplus"}, rng));
  return all;
}

}  // namespace

TEST_CASE("networks of every kind come back from their files") {
  const apps_test::Folder folder;
  const auto path = folder.path / "model.safetensors";
  const Labelled data = some_images(3, {1, 16, 20});
  const std::vector<std::string> names = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"};
  for (const auto& [kind, net] : one_of_each({1, 16, 20})) {
    const std::string& name = kind;
    CAPTURE(name);
    save_classifier(path, *net, names, "a note");
    const LoadedClassifier loaded = load_classifier(path);
    CHECK(loaded.kind == kind);
    CHECK(loaded.note == "a note");
    CHECK(loaded.class_names == names);
    CHECK(same_bits((*loaded.net)(data.images).lengths, (*net)(data.images).lengths));
  }
  CHECK_THROWS_AS(load_classifier(folder.path / "missing.safetensors"), IoError);
}

TEST_CASE("descriptions of networks that a stranger wrote are refused with a short message") {
  const apps_test::Folder folder;
  const auto path = folder.path / "model.safetensors";
  Rng rng(1);
  save_classifier(path, MlpNet({.image = {1, 2, 2}, .hidden = {2}, .classes = 2}, rng), {"a", "b"});
  const SafetensorsFile file = load_safetensors(path);
  const auto complaint = [&](const char* key, const std::string& value) {
    Metadata metadata = file.metadata;
    metadata[key] = value;
    save_safetensors(path, file.state, metadata);
    const std::string said = message_of<IoError>([&] { load_classifier(path); });
    CHECK(said.size() < 600);
    CHECK(is_printable(said));
    return said;
  };
  const auto refused = [&](const char* key, const std::string& value, const char* rule) {
    const std::string said = complaint(key, value);
    CHECK_MESSAGE(said.find(rule) != std::string::npos, said);
  };
  const std::string options = file.metadata.at("options");
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = options;
    const auto at = changed.find(from);
    REQUIRE_MESSAGE(at != std::string::npos, options);
    return changed.replace(at, from.size(), to);
  };
  CHECK(complaint("options", options) == "nothing was thrown");
  refused("options", std::string(100'000, '['), "must not nest deeper than 8");
  refused("options", std::string(2'000'000, ' '), "at most 1048576 bytes");
  refused("options", std::string(1000, 'x'), "damaged description");
  refused("options", with("\"classes\":2", "\"classes\":1e300"), "between -2^31 and 2^31");
  refused("options", with("[1,2,2]", "[1,2000000000,2000000000]"), "[channels, height, width]");
  refused("options", with("[1,2,2]", "[4]"), "[channels, height, width]");
  refused("options", with("[1,2,2]", "[-1,-2,2]"), "[channels, height, width]");
  refused("kind", "\x1b[2J" + std::string(100'000, 'k'), "unknown kind '\\x1b[2Jkkk");
  refused("class_names", R"(["a","\u001b[2J"])", "must not have control characters");
  refused("class_names", R"(["a"])", "1 class names for 2 classes");
  refused("class_names", R"({"a":1})", "damaged description");
  refused("note", "a\nb", "control characters in its note");
  refused("border", "nan", "outside [0, 1]");
}

TEST_CASE("scores that are no numbers are refused") {
  check_scores(ones({1, 3}), "a.safetensors");
  for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY)})
    CHECK(message_of<ValueError>([&] {
            check_scores(full({1, 3}, bad), "a.safetensors");
          }) ==
          "a.safetensors: the scores are not finite: the weights of the network are too large");
}

TEST_CASE("every kind of network has scores, and a loss for each sample") {
  const Labelled data = some_images(3, {1, 16, 20});
  for (const auto& [kind, net] : one_of_each({1, 16, 20})) {
    const std::string& name = kind;
    CAPTURE(name);
    const ClassifierOutput out = (*net)(data.images);
    const bool logits = kind == "convnet" || kind == "mlp";
    CHECK(same_bits(class_scores(out), logits ? out.logits : out.lengths));
    const Tensor losses = sample_losses(*net, out, data.labels);
    REQUIRE(losses.shape() == Shape{3});
    CHECK(same_bits(losses, sample_losses(*net, data.images, data.labels)));
    const Tensor expected = logits ? cross_entropy(out.logits, data.labels)
                            : kind == "matrix-capsnet"
                                ? spread_loss(out.lengths, data.labels, 0.9)
                                : margin_loss(out.lengths, one_hot(data.labels, 10));
    CHECK(mean(losses).item() == expected.item());
  }
}

TEST_CASE("penalties of a model do not depend on how its images are sliced") {
  Rng rng(1);
  MlpNet net({.image = {1, 6, 6}, .hidden = {5}}, rng);
  net.to(DType::f64);
  Labelled data = some_images(450, {1, 6, 6});
  data.images = to(data.images, DType::f64);
  const Penalties all = measure_penalties(net, data);
  double input = 0, sample = 0;
  for (std::int64_t at = 0; at < 450; at += 150) {
    const Penalties part = measure_penalties(net, data.range(at, 150));
    input += part.input / 3;
    sample += part.sample / 3;
    CHECK(part.batch > 0);
  }
  CHECK(all.input == doctest::Approx(input).epsilon(1e-12));
  CHECK(all.sample == doctest::Approx(sample).epsilon(1e-12));
  CHECK(all.batch < all.sample);  // gradients of samples cancel in part

  const Probe p = probe(net, data.first(20), SpectralMethod::exact);
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

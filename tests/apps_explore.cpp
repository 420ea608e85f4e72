// What explore shows, apart from how it looks: the trace of a routing, numbers in a page, the
// network that comes with the programs.

#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/conv_net.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/matrix_capsules.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>

#include "apps_support.hpp"
#include "common/classifier_io.hpp"
#include "common/heat.hpp"
#include "common/models.hpp"
#include "common/page.hpp"
#include "common/routing_trace.hpp"
#include "explore/pictures.hpp"
#include "pixels.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace capsfw::apps;
using capsfw::testing::contains;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;

namespace {

/// Images [1, 16, 20], 8 types of first capsules.
CapsNetOptions small_options() { return CapsNetOptions::small({1, 16, 20}); }

Tensor some_image() {
  Rng rng(3);
  return rng.uniform({1, 16, 20}, 0, 1);
}

std::string base64_of(const std::string& text) {
  return base64({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

}  // namespace

TEST_CASE("routing trace: every iteration, and the last one is what the network returns") {
  for (const char* routing : {"dynamic", "kmeans", "em", "self-attention"}) {
    CAPTURE(routing);
    Rng rng(1);
    CapsNetOptions o = small_options();
    o.dense.routing = RoutingSpec(routing);
    o.dense.noise_class = true;
    CapsNet net(o, rng);
    const RoutingTrace trace = trace_routing(net, some_image());
    const std::int64_t children = trace.grid.numel();
    CHECK(trace.grid == net.primary_grid());
    CHECK(trace.grid[0] == 8);
    CHECK(trace.sizes.shape() == Shape{children});
    CHECK(trace.votes.shape() == Shape{children, 10, 8});
    CHECK(static_cast<int>(trace.couplings.size()) == net.routing_iterations());
    REQUIRE(trace.poses.size() == trace.couplings.size());
    CHECK(trace.shares.size() == trace.couplings.size());
    for (const Tensor& c : trace.couplings) CHECK(c.shape() == Shape{children, 10});
    CHECK(max_difference(trace.poses.back(), select(trace.out.poses, 0, 0)) < 1e-5);
    CHECK(max_difference(trace.couplings.back(),
                         narrow(select(trace.out.couplings, 0, 0), 1, 0, 10)) < 1e-5);
    if (trace.couplings.size() > 1)
      CHECK(max_difference(trace.couplings.front(), trace.couplings.back()) > 1e-6);
  }
}

TEST_CASE("routing trace: through two layers, what leaves a first capsule arrives at the classes") {
  Rng rng(1);
  CapsNetOptions o = small_options();
  o.capsules = {{6, 4}, {10, 8}};
  CapsNet net(o, rng);
  const RoutingTrace trace = trace_routing(net, some_image());
  CHECK(trace.votes.shape() == Shape{6, 10, 8});
  REQUIRE(trace.shares.size() == 3);
  for (const Tensor& share : trace.shares) {
    CHECK(share.shape() == Shape{trace.grid.numel(), 10});
    CHECK(max_difference(sum(share, {1}), ones({share.size(0)})) < 1e-5);
  }
  CHECK(max_difference(trace.couplings.back(), select(trace.out.couplings, 0, 0)) < 1e-5);
}

TEST_CASE(
    "routing trace: grids of other first capsules, of matrix capsules, none without capsules") {
  Rng rng(1);
  CapsNet efficient(CapsNetOptions::efficient({1, 28, 28}), rng);
  CHECK(efficient.primary_grid() == Shape{16, 1, 1});
  CapsNet two(CapsNetOptions::two_digits(RoutingSpec("dynamic"), {1, 20, 24}), rng);
  CHECK(two.primary_grid()[0] == 1);
  CHECK(two.primary_capsules(zeros({1, 1, 20, 24})).size(1) == two.primary_grid().numel());
  MatrixCapsNetOptions o = MatrixCapsNetOptions::small({1, 16, 20});
  o.conv.channels = 8;
  o.primary_types = 2;
  o.capsules = {{3, 3, 1}};
  MatrixCapsNet matrix(o, rng);
  const RoutingTrace trace = trace_routing(matrix, some_image());
  CHECK_FALSE(trace.all_iterations);
  CHECK_FALSE(trace.votes.defined());
  CHECK(trace.grid[0] == 3);
  CHECK(trace.grid[1] < trace.grid[2]);
  REQUIRE(trace.shares.size() == 1);
  CHECK(trace.shares[0].shape() == Shape{trace.grid.numel(), 10});
  ConvNet plain(ConvNetOptions::beside(small_options()), rng);
  CHECK_THROWS_AS(trace_routing(plain, some_image()), ValueError);
}

TEST_CASE("votes: couplings are colours, blue above an equal share and orange below") {
  Rng rng(1);
  CapsNet net(small_options(), rng);
  Specimen s{.image = some_image(), .title = "some image", .trace = {}, .winner = 1, .other = 2};
  s.trace = trace_routing(net, s.image);
  const std::int64_t votes = s.trace.votes.size(0), classes = 10;
  std::vector<std::string> names;
  for (std::int64_t j = 0; j < classes; ++j) names.push_back(std::to_string(j));
  const auto drawn = [&](const std::vector<double>& of_winner) {
    for (Tensor& c : s.trace.couplings) {
      std::vector<double> values(static_cast<std::size_t>(votes * classes), 0.1);
      for (std::size_t i = 0; i < of_winner.size(); ++i) values[i * 10 + 1] = of_winner[i];
      c = from_vector(values, {votes, classes});
    }
    return draw_votes(s, names);
  };
  const auto count = [](const Tensor& picture, double value) {
    return apps_test::count(picture, heat_color(value));
  };
  // The scale below the panels has the ends as well, in all of these pictures.
  const Tensor equal = drawn({});
  const int scale = count(equal, 1);
  CHECK(scale > 0);
  CHECK(count(drawn({0.4, 0.4, 0.4}), 1) > scale + 20);
  CHECK(count(drawn({0.4, 0.4, 0.4}), -1) < scale + 20);
  // Half of the share is as far as twice of it.
  CHECK(count(drawn({0.2, 0.05}), 1) > scale + 10);
  CHECK(count(drawn({0.2, 0.05}), -1) > scale + 10);
  // Hard couplings, and negative ones as self-attention has them.
  CHECK(count(drawn({1, 0}), -1) > scale + 10);
  CHECK(count(drawn({0.4, -0.2}), 1) > scale + 10);
  CHECK(count(drawn({0.4, -0.2}), -1) > scale + 10);
}

TEST_CASE("base64 as in RFC 4648, section 10") {
  CHECK(base64_of("").empty());
  CHECK(base64_of("f") == "Zg==");
  CHECK(base64_of("fo") == "Zm8=");
  CHECK(base64_of("foo") == "Zm9v");
  CHECK(base64_of("foobar") == "Zm9vYmFy");
  CHECK(base64_of("\xfb\xff") == "+/8=");
}

TEST_CASE("numbers of 16 bits: all of them come back, all others go to the nearest") {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const float x = half_value(static_cast<std::uint16_t>(bits));
    if (std::isnan(x))
      CHECK(std::isnan(half_value(half_bits(x))));
    else if (half_bits(x) != bits)
      FAIL(bits);
  }
  CHECK(half_value(0x3C00) == 1.0F);
  CHECK(half_value(0xC000) == -2.0F);
  CHECK(half_value(0x7BFF) == 65504.0F);
  CHECK(half_value(0x0001) == std::ldexp(1.0F, -24));
  for (std::uint16_t bits = 0; bits < 0x7BFF; ++bits) {
    const auto above = static_cast<std::uint16_t>(bits + 1);
    const float low = half_value(bits), high = half_value(above), middle = (low + high) / 2;
    CHECK_MESSAGE(half_bits(middle) == (bits % 2 == 0 ? bits : above), bits);  // ties to even
    CHECK_MESSAGE(half_bits(std::nextafter(middle, high)) == above, bits);
    CHECK_MESSAGE(half_bits(-std::nextafter(middle, low)) == (bits | 0x8000), bits);
  }
  CHECK(half_bits(65519.9F) == 0x7BFF);
  CHECK(half_bits(65520.0F) == 0x7C00);
  CHECK(half_bits(-INFINITY) == 0xFC00);
}

TEST_CASE("a page holds its data, whatever they say") {
  const std::string page = "<script id=\"data\" type=\"application/json\"></script><p>after</p>";
  CHECK(page_with_data(page, "{\"a\":\"</script><b>\"}") ==
        "<script id=\"data\" type=\"application/json\">{\"a\":\"\\u003c/script>\\u003cb>\"}"
        "</script><p>after</p>");
  CHECK_THROWS_AS(page_with_data("<p></p>", "{}"), ValueError);
}

TEST_CASE(
    "the networks that come with the programs are found by their names, and read the digits beside "
    "them") {
  const ImageSet digits = load_digits();
  CHECK(digits.size() == 100);
  CHECK(digits.image_shape() == Shape{1, 28, 28});
  for (const char* name : {"mnist", "mnist-efficient"}) {
    CAPTURE(std::string(name));
    const auto path = find_model(name);
    CHECK(std::filesystem::file_size(path) < 1'000'000);
    const LoadedClassifier model = load_classifier(path);
    CHECK(model.class_names == digits.class_names());
    CHECK(model.net->has_decoder());
    CHECK(contains(model.note, "train_capsnet"));
    model.net->eval();
    const Tensor scores = (*model.net)(digits.images(), {}, false).lengths;
    CHECK(accuracy(scores, digits.labels()) >= 0.95);
  }
}

TEST_CASE(
    "models: $CAPSFW_MODEL_DIR comes first, paths are taken as they are, misses name the places") {
  const apps_test::Folder folder;
  const auto mine = folder.path / "mnist.safetensors";
  std::ofstream(mine) << "x";
  REQUIRE(::setenv("CAPSFW_MODEL_DIR", folder.path.c_str(), 1) == 0);
  CHECK(find_model("mnist") == mine);
  CHECK(model_places().front() == folder.path);
  const std::string missing = message_of<IoError>([] { find_model("nowhere"); });
  ::unsetenv("CAPSFW_MODEL_DIR");
  CHECK(contains(missing, "nowhere.safetensors"));
  CHECK(contains(missing, folder.path.string()));
  CHECK(contains(missing, "Hint: 'mnist' and 'mnist-efficient' come with capsfw"));
  CHECK(find_model("mnist") != mine);
  CHECK(find_model("out/x") == "out/x");
  CHECK(find_model("x.safetensors") == "x.safetensors");
}

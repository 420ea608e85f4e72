// Networks for images: parameter counts, images of any size, batch norm in front of capsules, and
// that each of them learns.

#include <cmath>

#include <doctest/doctest.h>
#include <capsfw/core/grad.hpp>
#include <capsfw/layers/conv_net.hpp>
#include <capsfw/layers/matrix_capsules.hpp>
#include <capsfw/layers/mlp_net.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/normalize.hpp>
#include <capsfw/ops/pool.hpp>
#include <capsfw/ops/unary.hpp>
#include <capsfw/optim/adam.hpp>

#include "support.hpp"

using namespace capsfw;
using capsfw::testing::contains;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;

namespace {

CapsNetOptions bare(CapsNetOptions o) {
  o.decoder = DecoderKind::none;
  return o;
}

/// Stripes on noise, 12x12 pixels: level, upright or slanting, so that place does not matter.
struct Stripes {
  Tensor images, labels;
  explicit Stripes(std::int64_t count) {
    Rng rng(1);
    images = rng.uniform({count, 1, 12, 12}, 0, 0.3);
    labels = rng.integers({count}, 3);
    const auto classes = labels.to_vector<std::int64_t>();
    float* p = images.mutable_data<float>();
    for (const std::int64_t k : classes)
      for (std::int64_t y = 0; y < 12; ++y)
        for (std::int64_t x = 0; x < 12; ++x, ++p)
          if ((k == 0 ? y : k == 1 ? x : x + y) % 4 < 2) *p += 0.7F;
  }
};

}  // namespace

TEST_CASE("Efficient-CapsNet has 161,824 trainable parameters without its decoder") {
  Rng rng(1);
  CapsNet net(bare(CapsNetOptions::efficient()), rng);
  CHECK(net.parameter_count(true) == 161824);
  CHECK(net.summary() ==
        "layer       output                    parameters\n"
        "input       [B, 1, 28, 28]                     0\n"
        "conv1       [B, 32, 24, 24]                  832\n"
        "norm1       [B, 32, 24, 24]                   64\n"
        "conv2       [B, 64, 22, 22]                18496\n"
        "norm2       [B, 64, 22, 22]                  128\n"
        "conv3       [B, 64, 20, 20]                36928\n"
        "norm3       [B, 64, 20, 20]                  128\n"
        "conv4       [B, 128, 9, 9]                 73856\n"
        "norm4       [B, 128, 9, 9]                   256\n"
        "primary     [B, 16, 8]                     10496\n"
        "digits      [B, 10, 16]                    20640\n"
        "total                                     161824\n");
  CHECK(CapsNet(CapsNetOptions::efficient(), rng).parameter_count() == 161824 + 1411344);
  CHECK(CapsNet(CapsNetOptions::efficient({3, 32, 40}, 7), rng).classes() == 7);
}

TEST_CASE("relu comes before batch norm, gates and pooling behind it") {
  Rng rng(2);
  const ConvStages stages(
      "test", {1, 8, 6},
      {{.channels = 4, .kernel = 3, .batch_norm = true, .se_reduction = 2, .pool = 2}}, rng,
      "kaiming_normal");
  CHECK(stages.output() == Shape{4, 3, 2});
  REQUIRE(stages.layers().size() == 3);
  auto& conv = dynamic_cast<Conv2d&>(*stages.layers()[0].second);
  auto& norm = dynamic_cast<BatchNorm2d&>(*stages.layers()[1].second);
  auto& gate = dynamic_cast<SEBlock&>(*stages.layers()[2].second);
  CHECK(max_difference(conv.bias, zeros({4})) == 0);
  const Tensor x = rng.uniform({3, 1, 8, 6}, 0, 1), y = stages(x);
  CHECK(max_difference(y, avg_pool2d(gate(norm(relu(conv(x)))), {2, 2})) == 0);
  CHECK(message_of<ShapeError>([&] {
          ConvStages("who", {1, 8, 6}, {{4, 3}, {.channels = 4, .kernel = 3, .pool = 3}}, rng);
        }).starts_with("who: pool2: a kernel of 3 with stride 3 does not fit 2 pixels"));
}

TEST_CASE("the networks of the two-digit test have 279,488 and 276,810 parameters, any size") {
  for (const char* routing :
       {"kmeans:iterations=2,squash_c=0.5", "dynamic:iterations=3,squash_c=0.5"}) {
    Rng rng(3);
    CapsNet net(CapsNetOptions::two_digits(routing), rng);
    CHECK(net.parameter_count() == 279488);
    CHECK(contains(net.summary(), "primary     [B, 64, 128]"));
    const Tensor x = rng.uniform({2, 1, 56, 28}, 0, 1);
    const ClassifierOutput out = net(x);
    CHECK(out.couplings.shape() == Shape{2, 176, 10});
    CHECK(out.poses.shape() == Shape{2, 10, 16});
    // One by one as in a batch.
    CHECK(max_difference(narrow(out.lengths, 0, 1, 1), net(narrow(x, 0, 1, 1)).lengths) < 1e-6);
  }
  Rng rng(3);
  ConvNet cnn(ConvNetOptions::two_digits(), rng);
  CHECK(cnn.parameter_count() == 276810);
  CHECK(cnn(zeros({2, 1, 28, 56})).lengths.shape() == Shape{2, 10});
  CHECK(message_of<ShapeError>([&] {
          cnn(zeros({2, 3, 28, 28}));
        }) == "ConvNet: images must be [B, 1, H, W]; got [2, 3, 28, 28]");
  CHECK_THROWS_AS(cnn.set_routing_iterations(1), ValueError);
  CHECK(cnn.routing_iterations() == 0);
  // Weights for each position bind the size.
  CapsNetOptions full = CapsNetOptions::two_digits("kmeans");
  full.dense.votes = VoteWeights::full;
  CHECK_FALSE(CapsNet(full, rng).any_size());
  // So do parameters of a routing for each child.
  CHECK_FALSE(CapsNet(CapsNetOptions::two_digits("kmeans:prior"), rng).any_size());
}

TEST_CASE("every position of the map is a capsule, its channels are the pose") {
  Rng rng(4);
  CapsNetOptions o = CapsNetOptions::two_digits("uniform", {1, 14, 15}, 3);
  CapsNet net(o, rng);
  const Tensor x = rng.uniform({2, 1, 14, 15}, 0, 1);
  const ConvStages stages("copy", o.image, o.convs, rng);
  StateDict state = net.state_dict();
  for (const auto& [name, layer] : stages.layers()) {
    dynamic_cast<Conv2d&>(*layer).weight.copy_(state.at(name + ".weight"));
    dynamic_cast<Conv2d&>(*layer).bias.copy_(state.at(name + ".bias"));
  }
  const Tensor map = stages(x);  // [2, 128, 1, 1]: 14 -> 12, 10, 5, 3, 1 rows
  CHECK(map.shape() == Shape{2, 128, 1, 1});
  // A single capsule u with couplings 1/3: s = W u / 3.
  const Tensor s = einsum("jde,be->bjd", state.at("digits.votes.weight"), flatten(map, 1)) / 3.0;
  CHECK(max_difference(net(x).poses, squash(s)) < 1e-5);
}

TEST_CASE("batch norm behind the convolution of matrix capsules") {
  MatrixCapsNetOptions o = MatrixCapsNetOptions::small({1, 16, 16}, 3);
  o.conv.channels = 8;
  o.primary_types = 2;
  o.capsules = {{3, 3, 1}};
  Rng plain_rng(5), rng(5);
  MatrixCapsNet plain(o, plain_rng);
  o.conv.batch_norm = true;
  MatrixCapsNet net(o, rng);
  CHECK(net.parameter_count() == plain.parameter_count() + 16);
  CHECK(contains(net.summary(), "norm        [B, 8, 6, 6]                      16\n"));
  CHECK(net.named_buffers().size() == 2);
  ImageClassifier& base = net;
  const Tensor x = rng.uniform({2, 1, 16, 16}, 0, 1);
  net.eval();
  CHECK(same_bits(base(x).lengths, net(x).activations));
  CHECK(same_bits(base(x).couplings, net(x).assignments));
  CHECK(net.routing_iterations() == 3);
}

TEST_CASE("the small capsule network and the one beside it have one size, to half a percent") {
  Rng rng(1);
  for (const Shape& image : {Shape{1, 28, 28}, Shape{3, 32, 32}, Shape{1, 20, 24}}) {
    const CapsNetOptions o = CapsNetOptions::small(image);
    CapsNet capsules(o, rng);
    ConvNet cnn(ConvNetOptions::beside(o), rng);
    const auto a = static_cast<double>(capsules.parameter_count()),
               b = static_cast<double>(cnn.parameter_count());
    CHECK(std::abs(a - b) < 0.005 * a);
    const Tensor x = rng.uniform({2, image[0], image[1], image[2]}, 0, 1);
    CHECK(cnn(x).lengths.shape() == Shape{2, 10});
    CHECK(capsules(x).lengths.shape() == Shape{2, 10});
  }
  CHECK(CapsNet(CapsNetOptions::small(), rng).parameter_count() == 108000);
  CHECK_THROWS_AS(ConvNetOptions::beside(CapsNetOptions::small({1, 12, 28})), ShapeError);
}

TEST_CASE("MlpNet is an Mlp over all pixels") {
  Rng rng(1), same(1);
  MlpNet net({.image = {2, 3, 4}, .hidden = {5}, .activation = "softplus", .classes = 3}, rng);
  Mlp mlp({24, 5, 3}, same, {.activation = "softplus"});
  const Tensor x = rng.uniform({6, 2, 3, 4}, 0, 1);
  const ClassifierOutput out = net(x);
  CHECK(same_bits(out.logits, mlp(x)));
  CHECK(same_bits(out.lengths, sigmoid(out.logits)));
  CHECK(net.summary() ==
        "layer       output                    parameters\n"
        "input       [B, 2, 3, 4]                       0\n"
        "mlp         [B, 3]                           143\n"
        "total                                        143\n");
  CHECK(net.state_dict().at("mlp.weight1").shape() == Shape{5, 24});
  CHECK(MlpNet({.hidden = {}}, rng).parameter_count() == 7850);
  CHECK(message_of<ShapeError>([&] {
          net(zeros({1, 2, 4, 3}));
        }) == "MlpNet: images must be [B, 2, 3, 4]; got [1, 2, 4, 3]");
  CHECK_THROWS_AS(MlpNet({.activation = "magic"}, rng), ValueError);
  CHECK_THROWS_AS(MlpNet({.hidden = {0}}, rng), ValueError);
  CHECK_THROWS_AS(MlpNet({.image = {28, 28}}, rng), ShapeError);
  CHECK_THROWS_AS(MlpNet({.classes = -1}, rng), ValueError);
}

TEST_CASE("every kind of classifier learns stripes") {
  const Stripes data(24);
  const auto learns = [&](ImageClassifier& net, double lr) {
    Adam adam(net.named_parameters(), {.lr = lr});
    for (int step = 0; step < (testing::kSanitized ? 5 : 60); ++step) {
      const Tensor loss =
          margin_loss(net(data.images, data.labels).lengths, one_hot(data.labels, 3));
      adam.zero_grad();
      backward(loss);
      adam.step();
    }
    net.eval();
    CAPTURE(net.summary());
    const double right = accuracy(net(data.images).lengths, data.labels);
    CHECK((testing::kSanitized || right >= 0.95));  // too slow there to learn
  };
  Rng rng(6);
  CapsNetOptions efficient = bare(CapsNetOptions::efficient({1, 12, 12}, 3));
  efficient.convs = {{8, 3, 1, true}, {16, 3, 2, true}};
  efficient.primary = {4, 4};
  CapsNet a(efficient, rng);
  learns(a, 3e-3);
  CapsNetOptions positions = CapsNetOptions::two_digits("kmeans:iterations=2", {1, 12, 12}, 3);
  positions.convs = {{8, 3}, {.channels = 8, .kernel = 3, .pool = 2}};
  CapsNet b(positions, rng);
  learns(b, 1e-2);
  ConvNetOptions cnn{.image = {1, 12, 12}, .convs = {{8, 3, 2}}, .hidden = 16, .classes = 3};
  ConvNet c(cnn, rng);
  learns(c, 1e-2);
  MatrixCapsNetOptions matrix = MatrixCapsNetOptions::small({1, 12, 12}, 3);
  matrix.conv = {.channels = 8, .kernel = 3, .stride = 2, .batch_norm = true};
  matrix.primary_types = 2;
  matrix.capsules = {{3, 3, 1}};
  matrix.routing.iterations = 2;
  MatrixCapsNet d(matrix, rng);
  learns(d, 1e-2);
  MlpNet e({.image = {1, 12, 12}, .hidden = {16}, .classes = 3}, rng);
  learns(e, 1e-2);
}

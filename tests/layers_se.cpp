// Squeeze and excitation: the block, the gate over capsules, the baseline network; primary capsules
// by depthwise convolution.

#include <cmath>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/capsules_depthwise.hpp>
#include <capsfw/layers/conv_net.hpp>
#include <capsfw/layers/se.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>
#include <capsfw/optim/adam.hpp>

#include "layers_capsnet.hpp"

using namespace capsfw;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;

namespace {

Tensor random(const Shape& shape, std::uint64_t seed = 1) {
  Rng rng(seed);
  return randn(shape, rng, DType::f64);
}

/// Gradients of a layer by its input and its parameters, first and second. `own`: the members that
/// hold these.
void check_gradients(Layer& layer, const Tensor& x, const std::vector<Tensor*>& own) {
  TensorList inputs{x.detach()}, before;
  for (const Tensor* p : own) before.push_back(*p), inputs.push_back(p->detach());
  REQUIRE(own.size() == layer.parameters().size());
  const auto put = [&](const Tensor* from) {
    for (Tensor* p : own) *p = *from++;
  };
  const auto f = [&](const TensorList& in) {
    put(&in[1]);
    const Tensor y = layer(in[0]);
    put(before.data());  // keeps no node alive
    return TensorList{y};
  };
  testing::check_gradients(f, inputs);
}

}  // namespace

TEST_CASE("SE block: each channel times a gate that sees all means, in (0, 1)") {
  Rng rng(3);
  SEBlock block(32, rng);
  CHECK(block.parameter_count() == 32 * 2 + 2 + 2 * 32 + 32);
  CHECK(SEBlock(32, rng, {.bias = false}).parameter_count() == 2 * 32 * 2);
  CHECK(SEBlock(5, rng).fc1.weight.shape() == Shape{1, 5});  // at least one unit
  block.to(DType::f64);
  const Tensor x = random({2, 32, 3, 5}), y = block(x), v = block.gate(x);
  CHECK(y.shape() == x.shape());
  CHECK(v.shape() == Shape{2, 32});
  CHECK(min(v).item() > 0);
  CHECK(max(v).item() < 1);
  for (const std::int64_t c : {0, 31})
    CHECK(max_difference(select(y, 1, c), select(x, 1, c) * reshape(select(v, 1, c), {2, 1, 1})) ==
          0);
  // The gate sees means, not places; and every channel sees every other one.
  CHECK(max_difference(block.gate(flip(x, {2})), v) < 1e-15);
  Tensor other = empty_like(x).copy_(x);
  select(other, 1, 7).fill_(5.0);
  CHECK(max_difference(select(block.gate(other), 1, 0), select(v, 1, 0)) > 1e-6);
  CHECK(block(zeros({0, 32, 2, 2}, DType::f64)).shape() == Shape{0, 32, 2, 2});
}

TEST_CASE("SE gate: m capsules become one vector, component by component") {
  Rng rng(4);
  SEGate gate(6, 5, rng);
  CHECK(gate.parameter_count() == 6 * 5 + 5);
  CHECK(SEGate(6, 5, rng, {.bias = true}).parameter_count() == 6 * 5 + 5 + 5 + 1);
  gate.to(DType::f64);
  const Tensor u = random({2, 6, 3}), v = gate(u);
  CHECK(v.shape() == Shape{2, 3});
  // W1 [C, m] and W2 [1, C] from the left, as written.
  for (const std::int64_t b : {0, 1}) {
    const Tensor by_hand =
        sigmoid(matmul(gate.fc2.weight, relu(matmul(gate.fc1.weight, select(u, 0, b)))));
    CHECK(max_difference(unsqueeze(select(v, 0, b), 0), by_hand) < 1e-15);
  }
  CHECK(max_difference(gate(zeros({1, 6, 3}, DType::f64)), full({1, 3}, 0.5, DType::f64)) == 0);
}

TEST_CASE("gradients of gates and of depthwise capsules to second order") {
  Rng rng(5);
  SEBlock block(4, rng, {.hidden = 3});
  block.to(DType::f64);
  check_gradients(block, random({2, 4, 2, 3}),
                  {&block.fc1.weight, &block.fc1.bias, &block.fc2.weight, &block.fc2.bias});
  SEGate gate(4, 3, rng, {.bias = true});
  gate.to(DType::f64);
  check_gradients(gate, random({2, 4, 3}),
                  {&gate.fc1.weight, &gate.fc1.bias, &gate.fc2.weight, &gate.fc2.bias});
  DepthwisePrimaryCapsules capsules(2, 3, {3, 4}, rng, {.kernel = {2, 3}});
  capsules.to(DType::f64);
  check_gradients(capsules, random({2, 6, 3, 4}), {&capsules.weight, &capsules.bias});
}

TEST_CASE("depthwise primary capsules: one capsule a type, each channel by its own filter") {
  Rng rng(6);
  DepthwisePrimaryCapsules capsules(16, 8, {9, 9}, rng);
  CHECK(capsules.parameter_count() == 10496);  // Mazzia et al. 2021
  CHECK(capsules.count() == 16);
  capsules.to(DType::f64);
  const Tensor x = random({2, 128, 9, 9}), v = capsules(x);
  CHECK(v.shape() == Shape{2, 16, 8});
  const Tensor sums = sum(x * select(capsules.weight, 1, 0), {2, 3}) + capsules.bias;
  CHECK(max_difference(v, squash_exp(reshape(sums, {2, 16, 8}))) < 1e-13);
  // Nothing crosses channels.
  Tensor other = empty_like(x).copy_(x);
  select(other, 1, 8).fill_(0.0);
  const Tensor w = capsules(other);
  CHECK(same_bits(contiguous(select(v, 1, 0)), contiguous(select(w, 1, 0))));
  CHECK(max_difference(select(v, 1, 1), select(w, 1, 1)) > 1e-3);
}

TEST_CASE("P1 depthwise primary capsules: regrouping, stride, H unequal to W, another squash") {
  Rng rng(7);
  DepthwisePrimaryCapsules capsules(
      2, 3, {5, 8}, rng,
      {.kernel = {2, 3}, .stride = 2, .squash = [](const Tensor& s) { return squash(s, 0.5); }});
  capsules.to(DType::f64);
  const Tensor x = random({2, 6, 5, 8}), v = capsules(x);
  CHECK(capsules.count() == 2 * 2 * 3);
  CHECK(v.shape() == Shape{2, 12, 3});
  for (const std::int64_t c : {0, 1})
    for (const std::int64_t i : {0, 1})
      for (const std::int64_t j : {0, 2}) {
        const Tensor patch =
            narrow(narrow(narrow(x, 1, c * 3, 3), 2, 2 * i, 2), 3, 2 * j, 3);  // [B, 3, kernel]
        const Tensor filter = select(narrow(capsules.weight, 0, c * 3, 3), 1, 0);
        const Tensor s = sum(patch * filter, {2, 3}) + narrow(capsules.bias, 0, c * 3, 3);
        CHECK(max_difference(select(v, 1, (c * 2 + i) * 3 + j), squash(s, 0.5)) < 1e-14);
      }
}

TEST_CASE("the baseline has as many parameters as the capsule network beside it, within 2 %") {
  for (const CapsNetOptions& capsules : {CapsNetOptions::compact(), CapsNetOptions::paper(),
                                         CapsNetOptions::compact({3, 32, 24}, 7)}) {
    Rng rng(8);
    CapsNetOptions bare = capsules;
    bare.decoder = DecoderKind::none;
    const double wanted = static_cast<double>(CapsNet(bare, rng).parameter_count());
    const ConvNetOptions options = ConvNetOptions::beside(capsules, 16);
    ConvNet net(options, rng);
    CAPTURE(wanted);
    CHECK(std::abs(static_cast<double>(net.parameter_count()) - wanted) <= 0.02 * wanted);
    CHECK(options.convs.size() == capsules.convs.size() + 1);
    const Shape& image = capsules.image;
    const Tensor x = rng.uniform({2, image[0], image[1], image[2]}, 0, 1), y = net(x).lengths;
    CHECK(y.shape() == Shape{2, capsules.capsules.back().count});
    CHECK(min(y).item() > 0);
    CHECK(max(y).item() < 1);
    CHECK(max_difference(y, sigmoid(net(x).logits)) == 0);
  }
  CapsNetOptions shared = CapsNetOptions::compact();
  shared.dense.votes = VoteWeights::shared;
  CHECK(message_of<ValueError>([&] {
          ConvNetOptions::beside(shared, 16);
        }).starts_with("ConvNet: no number of hidden units gives the "));
}

TEST_CASE("the baseline learns with the margin loss and with cross entropy") {
  Rng rng(9);
  const ConvNetOptions options{
      .image = {1, 8, 8},
      .convs = {{.channels = 4, .kernel = 3, .se_reduction = 16},
                {.channels = 8, .kernel = 3, .stride = 2, .se_reduction = 16}},
      .hidden = 8,
      .classes = 2};
  const Tensor labels = from_vector(std::vector<std::int64_t>{0, 1, 0, 1, 0, 1, 0, 1});
  Tensor x = rng.uniform({8, 1, 8, 8}, 0, 0.3);
  for (std::int64_t b = 0; b < 8; ++b) narrow(select(x, 0, b), 1 + b % 2, 2, 3).fill_(1);
  for (const bool margin : {true, false}) {
    ConvNet net(options, rng);
    Adam adam(net.parameters(), {.lr = 0.01});
    const auto loss = [&] {
      return margin ? margin_loss(net(x).lengths, one_hot(labels, 2))
                    : cross_entropy(net(x).logits, labels);
    };
    const double before = loss().item();
    for (int step = 0; step < 60; ++step) {
      adam.zero_grad();
      backward(loss());
      adam.step();
    }
    CHECK(loss().item() < 0.2 * before);
    CHECK(accuracy(net(x).lengths, labels) == 1);
  }
}

TEST_CASE("errors of gates, depthwise capsules and the baseline") {
  Rng rng(1);
  SEBlock block(4, rng);
  CHECK(message_of<ShapeError>([&] {
          block(zeros({2, 5, 3, 3}));
        }) == "SEBlock '': x must be [B, 4, H, W] with H, W >= 1; got [2, 5, 3, 3]");
  CHECK_THROWS_AS(block(zeros({2, 4, 0, 3})), ShapeError);
  CHECK_THROWS_AS(SEBlock(0, rng), ValueError);
  CHECK_THROWS_AS(SEBlock(4, rng, {.reduction = 0}), ValueError);
  CHECK_THROWS_AS(SEBlock(4, rng, {.hidden = -1}), ValueError);
  SEGate gate(4, 3, rng);
  CHECK(message_of<ShapeError>([&] {
          gate(zeros({2, 3, 4}));
        }) == "SEGate '': capsules must be [B, 4, d]; got [2, 3, 4]");
  CHECK_THROWS_AS(SEGate(0, 3, rng), ValueError);
  CHECK_THROWS_AS(SEGate(4, 0, rng), ValueError);
  DepthwisePrimaryCapsules capsules(2, 3, {4, 5}, rng);
  CHECK(message_of<ShapeError>([&] {
          capsules(zeros({2, 6, 5, 4}));
        }) == "DepthwisePrimaryCapsules '': x must be [B, 6, 4, 5]; got [2, 6, 5, 4]");
  using Make = DepthwisePrimaryCapsules;
  CHECK_THROWS_AS(Make(0, 3, {4, 5}, rng), ValueError);
  CHECK_THROWS_AS(Make(2, 0, {4, 5}, rng), ValueError);
  CHECK_THROWS_AS(Make(2, 3, {4}, rng), ValueError);
  CHECK_THROWS_AS(Make(2, 3, {0, 5}, rng), ValueError);
  CHECK_THROWS_AS(Make(2, 3, {4, 5}, rng, {.kernel = {5, 5}}), ValueError);
  CHECK_THROWS_AS(Make(2, 3, {4, 5}, rng, {.kernel = {2, -1}}), ValueError);
  CHECK_THROWS_AS(Make(2, 3, {4, 5}, rng, {.stride = 0}), ValueError);
  CHECK_THROWS_AS(ConvNet({.convs = {{4, 30, 1}}}, rng), ShapeError);
  CHECK_THROWS_AS(ConvNet({.image = {28, 28}}, rng), ShapeError);
  CHECK_THROWS_AS(ConvNet({.hidden = 0}, rng), ValueError);
  ConvNet net({.image = {1, 4, 4}}, rng);
  CHECK(message_of<ShapeError>([&] {
          net(zeros({2, 1, 4, 5}));
        }) == "ConvNet: images must be [B, 1, 4, 4]; got [2, 1, 4, 5]");
}

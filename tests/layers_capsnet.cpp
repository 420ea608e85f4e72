// The capsule network: sizes, errors, text, gradients of first and second order, determinism.

#include <functional>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/layers/capsnet.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "layers_capsnet.hpp"

using namespace capsfw;
using namespace capsfw::test;
using capsfw::testing::contains;
using capsfw::testing::largest;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;

namespace {

/// A function of the image and of the weights in `net`, checked in all of them.
TensorList weights_of(const CapsNet& net) {
  TensorList out;
  for (const auto& [name, p] : net.named_parameters()) out.push_back(p.detach());
  return out;
}

/// Lets the layers of a tiny_options() network compute with other tensors, in the order of
/// weights_of().
void put_weights(const CapsNet& net, const Tensor* w) {
  const auto layer = [&](std::size_t i) { return net.children()[i].second; };
  auto& conv = dynamic_cast<Conv2d&>(*layer(0));
  auto& primary = dynamic_cast<PrimaryCapsules&>(*layer(1));
  conv.weight = w[0], conv.bias = w[1];
  primary.conv.weight = w[2], primary.conv.bias = w[3];
  dynamic_cast<DenseCapsules&>(*layer(2)).votes.weight = w[4];
  const auto& fc = layer(3)->children();
  for (std::size_t i = 0; i < fc.size(); ++i) {
    auto& linear = dynamic_cast<Linear&>(*fc[i].second);
    linear.weight = w[5 + 2 * i], linear.bias = w[6 + 2 * i];
  }
}

}  // namespace

TEST_CASE("the network of the paper has 8,215,568 parameters, layer by layer as in its table") {
  Rng rng(1);
  CapsNet net(CapsNetOptions::paper(), rng);
  CHECK(net.parameter_count() == 8215568);
  CHECK(net.summary() ==
        "layer       output                    parameters\n"
        "input       [B, 1, 28, 28]                     0\n"
        "conv1       [B, 256, 20, 20]               20992\n"
        "primary     [B, 1152, 8]                 5308672\n"
        "digits      [B, 10, 16]                  1474560\n"
        "decoder     [B, 784]                     1411344\n"
        "total                                    8215568\n");
  CHECK(net.training());
  const StateDict state = net.state_dict();
  CHECK(state.at("conv1.weight").shape() == Shape{256, 1, 9, 9});
  CHECK(state.at("primary.conv.weight").shape() == Shape{256, 256, 9, 9});
  CHECK(state.at("digits.votes.weight").shape() == Shape{1152, 10, 16, 8});
  CHECK(state.at("decoder.fc1.weight").shape() == Shape{512, 160});
  CHECK(state.size() == 2 + 2 + 1 + 6);
  const Tensor w = state.at("digits.votes.weight");
  CHECK(mean(square(w)).item() / 0.01 == doctest::Approx(1).epsilon(0.01));
}

TEST_CASE("without decoder the network of the paper has 6,804,224 parameters") {
  Rng rng(1);
  CapsNetOptions o = CapsNetOptions::paper();
  o.decoder = DecoderKind::none;
  CapsNet net(o, rng);
  CHECK(net.parameter_count() == 6804224);
  CHECK_FALSE(contains(net.summary(), "decoder"));
  CHECK(message_of<ValueError>([&] {
          net.decode(zeros({1, 10, 16}), zeros({1, 10}));
        }) == "CapsNet: this network was built without a decoder");
}

TEST_CASE("D12 any channels, H other than W, batch 1, one class, one routing iteration") {
  Rng rng(1);
  struct Case {
    Shape image;
    std::int64_t batch, classes, primaries;
  };
  const Case cases[] = {{{3, 20, 27}, 2, 4, 16 * 1 * 3}, {{1, 24, 20}, 1, 1, 16 * 2 * 1}};
  for (const Case& c : cases) {
    CapsNetOptions o = CapsNetOptions::compact(c.image, c.classes);
    o.dense.routing = "dynamic:iterations=1";
    CapsNet net(o, rng);
    const Tensor x = rng.uniform({c.batch, c.image[0], c.image[1], c.image[2]}, 0, 1);
    const CapsNetOutput out = net(x);
    CHECK(out.lengths.shape() == Shape{c.batch, c.classes});
    CHECK(out.poses.shape() == Shape{c.batch, c.classes, 16});
    CHECK(out.couplings.shape() == Shape{c.batch, c.primaries, c.classes});
    CHECK(out.reconstruction.shape() == x.shape());
    CHECK(largest(out.couplings - 1.0 / static_cast<double>(c.classes)) < 1e-6);
    CHECK_FALSE(net(x, {}, false).reconstruction.defined());
    CHECK(contains(net.summary(), "[B, " + std::to_string(c.primaries) + ", 8]"));
  }
}

TEST_CASE("stacked layers are named in order, and options of the last layer stay there") {
  Rng rng(1);
  CapsNetOptions o = tiny_options();
  o.capsules = {{6, 4}, {3, 5}};
  o.dense = {.vote_bias = true, .noise_class = true, .keep = 0.5};
  CapsNet net(o, rng);
  const StateDict state = net.state_dict();
  CHECK(state.at("capsules1.votes.weight").shape() == Shape{12, 6, 4, 2});
  CHECK(state.at("capsules2.votes.weight").shape() == Shape{6, 4, 5, 4});
  const CapsNetOutput out = net(rng.uniform({2, 1, 8, 9}, 0, 1));
  CHECK(out.poses.shape() == Shape{2, 3, 5});
  CHECK(out.couplings.shape() == Shape{2, 6, 4});
  auto& hidden = dynamic_cast<DenseCapsules&>(*net.children()[2].second);
  CHECK(min(lengths(hidden(rng.normal({4, 12, 2}, 0, 1)))).item() > 0);
  CHECK(min(out.lengths).item() == 0);
  CHECK(hidden.votes.bias.shape() == Shape{6, 4});
  CHECK(contains(net.summary(), "capsules1   [B, 6, 4]"));
}

TEST_CASE("D10 stacks start with capsules of middle length, whatever their sizes") {
  for (const std::string list : {"32x8,10x16", "16x8,16x8,10x16", "40x2,4x32"})
    for (const VoteWeights votes :
         {VoteWeights::full, VoteWeights::shared, VoteWeights::factorised}) {
      if (testing::kSanitized && votes == VoteWeights::shared) continue;  // slow there
      CAPTURE(list);
      Rng rng(1);
      CapsNetOptions o = CapsNetOptions::compact({1, 20, 22});
      o.capsules = parse_capsules(list);
      o.dense.votes = votes;
      CapsNet net(o, rng);
      CHECK(net.training());
      const double length = mean(net(rng.uniform({4, 1, 20, 22}, 0, 1)).lengths).item();
      CAPTURE(length);
      CHECK((length > 0.2 && length < 0.8));
    }
  // A single layer keeps N(0, 0.1²).
  Rng rng(1);
  CapsNet one(CapsNetOptions::compact(), rng);
  const double variance = mean(square(one.state_dict().at("digits.votes.weight"))).item();
  CHECK(variance / 0.01 == doctest::Approx(1).epsilon(0.03));
}

TEST_CASE("E10 EM routing starts with activations that can move, in one layer and in a stack") {
  for (const std::string list : {"10x16", "12x8,10x16"})
    for (const std::string routing : {"em", "em:variant=v4", "em:iterations=1", "em:variant=v2"}) {
      if (testing::kSanitized && routing != "em") continue;  // slow there
      CAPTURE(list);
      CAPTURE(routing);
      Rng rng(1);
      CapsNetOptions o = CapsNetOptions::compact({1, 20, 22});
      o.capsules = parse_capsules(list);
      o.dense.routing = RoutingSpec(routing);
      CapsNet net(o, rng);
      const Tensor a = net(rng.uniform({8, 1, 20, 22}, 0, 1)).lengths;
      const double middle = mean(a).item();
      CAPTURE(middle);
      CHECK((middle > 0.2 && middle < 0.8));
      // What moves every activation by the gradient of one: with betas of 0 next to nothing.
      const Tensor first = net.parameters()[0];
      CHECK(largest(grad(sum(select(a, 1, 0)), first)) > 1e-3);
    }
}

TEST_CASE("starting values are finite for one child, one parent, and children that are 0 or huge") {
  for (const std::string routing : {"em", "variational-bayes", "heinsen"})
    for (const std::int64_t children : {1, 2})
      for (const std::int64_t parents : {1, 3})
        for (const double scale : {0.0, 1.0, 1e15, 1e30}) {
          CAPTURE(routing);
          CAPTURE(children);
          CAPTURE(parents);
          CAPTURE(scale);
          Rng rng(1);
          DenseCapsules layer(children, 4, parents, 4, rng, {.routing = RoutingSpec(routing)});
          try {
            layer.balance(rng.normal({2, children, 4}, 0, 1) * scale);
          } catch (const OverflowError&) {
            CHECK(scale > 1e18);
          }
          for (const auto& [name, p] : layer.named_parameters())
            CHECK(!any(logical_not(isfinite(p))));
        }
}

TEST_CASE("D4 a second forward pass gives the same bits, and so does evaluation") {
  Rng rng(1);
  CapsNet net(CapsNetOptions::compact({1, 20, 20}, 5), rng);
  const Tensor x = rng.uniform({3, 1, 20, 20}, 0, 1);
  const CapsNetOutput a = net(x);
  net.eval();
  const CapsNetOutput b = net(x);
  CHECK(same_bits(a.lengths, b.lengths));
  CHECK(same_bits(a.couplings, b.couplings));
  CHECK(same_bits(a.reconstruction, b.reconstruction));
  net.set_routing_iterations(1);
  const CapsNetOutput uniform = net(x);
  CHECK(largest(uniform.couplings - 0.2) < 1e-7);
  CHECK_FALSE(same_bits(uniform.lengths, a.lengths));
  net.set_routing_iterations(3);
  CHECK(same_bits(net(x).lengths, a.lengths));
}

TEST_CASE("the whole network agrees with finite differences in every weight, twice") {
  Rng rng(3);
  CapsNetOptions o = tiny_options();
  o.dense.init_std = 1;
  CapsNet net(o, rng);
  net.to(DType::f64);
  const TensorList own = weights_of(net);
  TensorList inputs = own;
  inputs.insert(inputs.begin(), rng.uniform({2, 1, 8, 9}, 0, 1, DType::f64));
  const Tensor labels = from_vector(Indices{2, 0}), targets = one_hot(labels, 3, DType::f64);
  // Gradients of the loss, and gradients of the penalty on the input gradient of the lengths.
  const auto loss = [&](const TensorList& in) {
    put_weights(net, &in[1]);
    const Tensor l = capsnet_loss(net(in[0], labels), in[0], targets, {.reconstruction = 0.05});
    put_weights(net, own.data());  // keeps no node alive
    return TensorList{l};
  };
  const auto penalty = [&](const TensorList& in) {
    put_weights(net, &in[1]);
    const Tensor f = sum(square(net(in[0], {}, false).lengths));
    put_weights(net, own.data());
    return TensorList{mean(sum(square(grad(f, in[0], {}, {.create_graph = true})), {1, 2, 3}))};
  };
  const GradcheckOptions options{.components = testing::kSanitized ? 0 : 24};
  testing::check_gradients(loss, inputs, options);
  const GradcheckResult r = gradcheck(penalty, inputs, options);
  CHECK_MESSAGE(r.ok, r.message);
}

TEST_CASE("the loss of a network: margin loss with its options, and the squared errors") {
  Rng rng(5);
  CapsNet net(tiny_options(), rng);
  net.to(DType::f64);
  const Tensor x = rng.uniform({2, 1, 8, 9}, 0, 1, DType::f64);
  const Tensor labels = from_vector(Indices{2, 0}), targets = one_hot(labels, 3, DType::f64);
  const CapsNetOutput out = net(x, labels);
  const Tensor squares = sum(square(flatten(out.reconstruction - x, 1)), {1});
  for (const double lambda : {0.5, 0.25})
    CHECK(capsnet_loss(out, x, targets, {.margin = {.lambda = lambda}, .reconstruction = 0.3})
              .item() ==
          doctest::Approx(margin_loss(out.lengths, targets, {.lambda = lambda}).item() +
                          0.3 * mean(squares).item())
              .epsilon(1e-12));
}

TEST_CASE("the network says what does not fit") {
  Rng rng(1);
  CapsNet net(tiny_options(), rng);
  CHECK(message_of<ShapeError>([&] {
          net(zeros({1, 3, 8, 9}));
        }) == "CapsNet: images must be [B, 1, 8, 9]; got [1, 3, 8, 9]");
  CHECK_THROWS_AS(net(zeros({1, 8, 9})), ShapeError);
  CHECK_THROWS_AS(net(zeros({1, 1, 9, 8})), ShapeError);
  CHECK_THROWS_AS(net(zeros({1, 1, 8, 9}, DType::f64)), DTypeError);
  CHECK(message_of<ShapeError>([&] {
          net(zeros({2, 1, 8, 9}), zeros({1}, DType::i64));
        }) == "CapsNet: labels must be [2], one for each image; got [1]");
  CHECK_THROWS_AS(net(zeros({1, 1, 8, 9}), from_vector(Indices{3})), ValueError);
  CHECK_THROWS_AS(net.set_routing_iterations(0), ValueError);
  const auto refuse = [&](const std::function<void(CapsNetOptions&)>& change) {
    CapsNetOptions o = tiny_options();
    change(o);
    return message_of<Error>([&] { CapsNet(o, rng); });
  };
  CHECK(refuse([](auto& o) {
          o.image = {1, 8, 4};
        }) ==
        "CapsNet: primary: a kernel of 3 with stride 2 does not fit 2 pixels. Hint: a larger image "
        "or smaller kernels");
  CHECK(contains(refuse([](auto& o) { o.convs = {{2, 3, 0}}; }), "conv1: a kernel of 3"));
  CHECK(refuse([](auto& o) { o.image = {8, 9}; }) == "CapsNet: an image is [C, H, W]; got [8, 9]");
  CHECK(refuse([](auto& o) { o.capsules = {}; }) == "CapsNet: at least one dense capsule layer");
  CHECK(contains(refuse([](auto& o) { o.capsules = {{0, 4}}; }), "sizes must be at least 1"));
  CHECK(contains(refuse([](auto& o) { o.primary = {-2, -2}; }), "sizes must be at least 1"));
  CHECK(contains(refuse([](auto& o) { o.image = {0, 8, 9}; }), "sizes must be at least 1"));
  CHECK(contains(refuse([](auto& o) { o.dense.keep = 2; }), "keep must lie in (0, 1]"));
}

TEST_CASE("sizes of capsule layers are read from text") {
  const auto sizes = parse_capsules("32x8,10x16");
  REQUIRE(sizes.size() == 2);
  CHECK((sizes[0].count == 32 && sizes[0].dim == 8));
  CHECK((sizes[1].count == 10 && sizes[1].dim == 16));
  for (const char* bad : {"", "10", "10x", "x16", "10x16,", ",10x16", "10x16 ", "0x4", "4x-1",
                          "10X16", "10x16x2", "99999999999999999999x2"}) {
    CAPTURE(bad);
    CHECK(contains(message_of<ValueError>([&] { parse_capsules(bad); }),
                   "capsules: sizes look like 32x8,10x16 (count x size); got '"));
  }
}

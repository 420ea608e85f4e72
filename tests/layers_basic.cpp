// Linear, Embedding, Conv2d, normalisation, dropout, initial values, and a census of parameters.

#include <doctest/doctest.h>

#include <cmath>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/init.hpp>
#include <capsfw/layers/pool.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/normalize.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

/// Every tensor that a constructor leaves behind must be a parameter or a buffer: one that was made
/// but not registered would never be trained, saved or converted.
template <class L, class... A>
void census(std::size_t parameters, std::size_t buffers, A&&... args) {
  const auto before = live_tensors(), nodes = live_nodes();
  {
    const L layer(std::forward<A>(args)...);
    const auto made = live_tensors() - before;
    const NamedTensors p = layer.named_parameters(), b = layer.named_buffers();
    CHECK(p.size() == parameters);
    CHECK(b.size() == buffers);
    CHECK(made == static_cast<std::int64_t>(parameters + buffers));
    for (const auto& entry : p) {
      CAPTURE(entry.first);
      const Tensor& t = entry.second;
      CHECK(t.requires_grad());
      CHECK(t.is_contiguous());
      CHECK(all(isfinite(t)));
    }
    for (const auto& [name, t] : b) CHECK_FALSE(t.requires_grad());
  }
  CHECK(live_tensors() == before);
  CHECK(live_nodes() == nodes);
}

struct Moments {
  double mean, std, largest;
};

Moments moments(const Tensor& x) { return {mean(x).item(), std::sqrt(var(x).item()), largest(x)}; }

}  // namespace

TEST_CASE("census: whatever a constructor makes is registered") {
  Rng rng(1);
  census<Linear>(2, 0, 3, 4, rng);
  census<Linear>(1, 0, 3, 4, rng, LinearOptions{.bias = false});
  census<Embedding>(1, 0, 5, 3, rng);
  census<Conv2d>(2, 0, 4, 6, 3, rng, Conv2dOptions{.groups = 2});
  census<Conv2d>(1, 0, 4, 6, 3, rng, Conv2dOptions{.bias = false});
  census<BatchNorm2d>(2, 2, 4);
  census<LayerNorm>(2, 0, 4);
  census<GroupNorm>(2, 0, 2, 4);
  census<ConvTranspose2d>(2, 0, 4, 6, 3, rng, ConvTranspose2dOptions{.groups = 2});
  census<ConvTranspose2d>(1, 0, 4, 6, 3, rng, ConvTranspose2dOptions{.bias = false});
  census<Dropout>(0, 0, 0.5, rng);
  census<Sequential>(0, 0);
  census<PrimaryCapsules>(2, 0, 3, 2, 4, 3, rng);
  census<DenseCapsules>(1, 0, 6, 4, 3, 5, rng);
  census<DenseCapsules>(1, 0, 6, 4, 3, 5, rng, DenseCapsulesOptions{.votes = VoteWeights::shared});
  census<DenseCapsules>(4, 0, 6, 4, 3, 5, rng,
                        DenseCapsulesOptions{.routing = "dynamic:prior",
                                             .votes = VoteWeights::factorised,
                                             .vote_bias = true,
                                             .noise_class = true});
  census<Decoder>(6, 0, 12, std::vector<std::int64_t>{5, 7}, 16, rng);
  census<ConvDecoder>(6, 0, 12, Shape{1, 9, 6}, rng);
  CapsNetOptions o = CapsNetOptions::compact({1, 20, 20}, 4);
  o.capsules = {{6, 4}, {4, 5}};
  census<CapsNet>(4 + 2 + 2 + 6, 0, o, rng);
}

TEST_CASE("Linear computes x Wᵀ + b over any leading axes") {
  Rng rng(1);
  Linear fc(2, 3, rng);
  CHECK(fc.weight.shape() == Shape{3, 2});
  CHECK(fc.bias.shape() == Shape{3});
  CHECK(largest(fc.weight) <= 1 / std::sqrt(2.0));
  fc.weight.copy_(from_vector(std::vector<float>{1, 2, 3, 4, 5, 6}, {3, 2}));
  fc.bias.copy_(from_vector(std::vector<float>{1, 0, -1}));
  const Tensor x = from_vector(std::vector<float>{1, 1, 2, -1}, {1, 2, 1, 2});
  const Tensor y = fc(x);
  CHECK(y.shape() == Shape{1, 2, 1, 3});
  CHECK(values(y) == std::vector<double>{4, 7, 10, 1, 2, 3});
  CHECK_FALSE(Linear(2, 3, rng, {.bias = false}).bias.defined());
  CHECK_THROWS_AS(fc(ones({2, 3})), ShapeError);
  CHECK(message_of<ValueError>([&] { Linear(0, 3, rng); }) ==
        "Linear: sizes must be at least 1; got in = 0, out = 3");
}

TEST_CASE("Embedding picks rows, and only those get a gradient") {
  Rng rng(1);
  Embedding table(4, 3, rng);
  const Tensor ids = from_vector(std::vector<std::int64_t>{2, 0, 2, 2}, {2, 2});
  const Tensor y = table(ids);
  CHECK(y.shape() == Shape{2, 2, 3});
  CHECK(values(y)[1] == values(table.weight)[7]);
  backward(sum(y));
  CHECK(values(table.weight.grad()) == std::vector<double>{1, 1, 1, 0, 0, 0, 3, 3, 3, 0, 0, 0});
  CHECK(message_of<ValueError>([&] { Embedding(3, 0, rng); }) ==
        "Embedding: sizes must be at least 1; got 3 rows of 0");
}

TEST_CASE("Conv2d: shapes for every option, and the value of a window") {
  Rng rng(1);
  Conv2d conv(2, 4, 3, rng, {.stride = 2, .padding = 1});
  CHECK(conv.weight.shape() == Shape{4, 2, 3, 3});
  CHECK(largest(conv.weight) <= 1 / std::sqrt(18.0));
  CHECK(conv(ones({1, 2, 7, 10})).shape() == Shape{1, 4, 4, 5});
  Conv2d dilated(2, 4, 3, rng, {.dilation = 2, .groups = 2, .bias = false});
  CHECK(dilated.weight.shape() == Shape{4, 1, 3, 3});
  CHECK(dilated(ones({2, 2, 5, 6})).shape() == Shape{2, 4, 1, 2});
  conv.weight.fill_(1);
  conv.bias.fill_(0.5);
  // A corner sees 2x2 pixels of both channels, the middle 3x3.
  const auto y = values(conv(ones({1, 2, 5, 5})));
  CHECK(y[0] == 8.5);
  CHECK(y[4] == 18.5);
  CHECK(message_of<ValueError>([&] { Conv2d(3, 4, 3, rng, {.groups = 2}); }) ==
        "Conv2d: sizes must be at least 1 and channels divisible by groups; got in = 3, out = 4, "
        "kernel = 3, groups = 2");
  CHECK_THROWS_AS(conv(ones({1, 3, 5, 5})), ShapeError);
  CHECK_THROWS_AS(dilated(ones({1, 2, 4, 4})), ShapeError);
}

TEST_CASE("BatchNorm2d normalises by the batch in training, by running statistics after it") {
  BatchNorm2d norm(2);
  Rng rng(4);
  const Tensor x = rng.normal({8, 2, 3, 5}, 3, 2);
  const Tensor y = norm(x);
  CHECK(largest(mean(y, {0, 2, 3})) < 1e-5);
  CHECK(largest(var(y, {0, 2, 3}, 0) - 1.0) < 1e-4);
  for (int i = 0; i < 200; ++i) norm(x);
  norm.eval();
  const Tensor z = norm(x);
  CHECK(max_difference(z, y) < 0.05);
  CHECK(same_bits(norm(x), z));
  CHECK(max_difference(norm.state_dict().at("running_mean"), mean(x, {0, 2, 3})) < 1e-4);
  CHECK_THROWS_AS(BatchNorm2d(0), ValueError);
}

TEST_CASE("LayerNorm normalises each row, then scales and shifts") {
  LayerNorm norm(4);
  norm.weight.fill_(2);
  norm.bias.fill_(1);
  Rng rng(4);
  const Tensor y = norm(rng.normal({3, 2, 4}, 5, 3));
  CHECK(largest(mean(y, {-1}) - 1.0) < 1e-5);
  CHECK(largest(var(y, {-1}, 0) - 4.0) < 1e-3);
  CHECK(message_of<ValueError>([] { LayerNorm(-1); }) ==
        "LayerNorm: the size must be at least 1; got -1");
}

TEST_CASE("GroupNorm normalises groups of channels, the same in training and evaluation") {
  GroupNorm norm(2, 4);
  norm.weight.fill_(2);
  norm.bias.fill_(1);
  Rng rng(4);
  const Tensor x = rng.normal({3, 4, 5, 6}, 5, 3), y = norm(x);
  const Tensor groups = reshape(y, {3, 2, 60});
  CHECK(largest(mean(groups, {-1}) - 1.0) < 1e-5);
  CHECK(largest(var(groups, {-1}, 0) - 4.0) < 1e-3);
  norm.eval();
  CHECK(same_bits(norm(x), y));
  CHECK(message_of<ValueError>([] { GroupNorm(3, 4); }) ==
        "GroupNorm: sizes must be at least 1 and channels divisible by groups; got groups = 3, "
        "channels = 4");
  CHECK_THROWS_AS(GroupNorm(0, 4), ValueError);
  CHECK_THROWS_AS(norm(ones({1, 2, 3})), ShapeError);
}

TEST_CASE("ConvTranspose2d undoes the shape of a Conv2d, and is its adjoint") {
  Rng rng(1);
  Conv2d down(2, 4, 3, rng, {.stride = 2, .padding = 1, .bias = false});
  ConvTranspose2d up(4, 2, 3, rng, {.stride = 2, .padding = 1, .output_padding = 1});
  CHECK(up.weight.shape() == Shape{4, 2, 3, 3});
  CHECK(up.bias.shape() == Shape{2});
  CHECK(largest(up.weight) <= 1 / std::sqrt(18.0));
  const Tensor x = rng.normal({3, 2, 8, 6}, 0, 1);
  CHECK(down(x).shape() == Shape{3, 4, 4, 3});
  CHECK(up(down(x)).shape() == x.shape());
  up.weight.copy_(down.weight);
  up.bias.fill_(0);
  const Tensor g = rng.normal({3, 4, 4, 3}, 0, 1);
  CHECK(sum(up(g) * x).item() == doctest::Approx(sum(g * down(x)).item()).epsilon(1e-4));
  up.bias.copy_(from_vector(std::vector<float>{1, -1}));
  CHECK(values(up(zeros({1, 4, 1, 1}))) == std::vector<double>{1, 1, 1, 1, -1, -1, -1, -1});
  ConvTranspose2d grouped(4, 6, 2, rng, {.dilation = 2, .groups = 2});
  CHECK(grouped.weight.shape() == Shape{4, 3, 2, 2});
  CHECK(grouped(ones({1, 4, 3, 3})).shape() == Shape{1, 6, 5, 5});
  CHECK(message_of<ValueError>([&] { ConvTranspose2d(4, 3, 3, rng, {.groups = 2}); }) ==
        "ConvTranspose2d: sizes must be at least 1 and channels divisible by groups; got in = 4, "
        "out = 3, kernel = 3, groups = 2");
  CHECK_THROWS_AS(up(ones({1, 3, 4, 4})), ShapeError);
}

TEST_CASE("pooling layers in a chain, and training through them") {
  Rng rng(2);
  Sequential net;
  net.add<Conv2d>(1, 4, 3, rng, Conv2dOptions{.padding = 1});
  net.add<GroupNorm>(2, 4);
  net.add<Activation>(relu);
  net.add<MaxPool2d>(2);
  net.add<AvgPool2d>(Dims{2, 1}, PoolOptions{.stride = {1, 1}});
  net.add<AdaptiveMaxPool2d>(Dims{3, 2});
  net.add<AdaptiveAvgPool2d>();
  net.add<ConvTranspose2d>(4, 2, 2, rng);
  const Tensor x = rng.normal({2, 1, 11, 9}, 0, 1), y = net(x);
  CHECK(y.shape() == Shape{2, 2, 2, 2});
  Tensor h = max_pool2d(
      relu(group_norm(conv2d(x, net.parameters()[0], net.parameters()[1], {.padding = {1, 1}}), 2,
                      net.parameters()[2], net.parameters()[3])),
      {2, 2});
  h = adaptive_max_pool2d(avg_pool2d(h, {2, 1}, {.stride = {1, 1}}), {3, 2});
  h = conv_transpose2d(mean(h, {2, 3}, true), net.parameters()[4], net.parameters()[5]);
  CHECK(max_difference(h, y) < 1e-6);
  backward(sum(square(y)));
  for (const auto& [name, p] : net.named_parameters()) {
    const std::string& parameter = name;
    CAPTURE(parameter);
    REQUIRE(p.grad().defined());
    CHECK(largest(p.grad()) > 0);
  }
  CHECK_THROWS_AS(MaxPool2d(0)(x), ValueError);
  CHECK_THROWS_AS(AvgPool2d(12)(x), ShapeError);
  CHECK_THROWS_AS(AdaptiveAvgPool2d(Dims{0, 1})(x), ValueError);
}

TEST_CASE("Dropout draws in training only, from a generator of its own") {
  Rng a(5), b(5);
  Dropout drop(0.25, a), twin(0.25, b), next(0.25, a);
  const Tensor x = ones({100, 100});
  const Tensor y = drop(x);
  CHECK(same_bits(y, twin(x)));
  CHECK_FALSE(same_bits(y, next(x)));
  CHECK_FALSE(same_bits(y, drop(x)));
  for (double v : values(y)) REQUIRE((v == 0 || v == doctest::Approx(4.0 / 3)));
  CHECK(mean(y).item() == doctest::Approx(1).epsilon(0.02));
  drop.eval();
  CHECK(same_bits(drop(x), x));
  CHECK(message_of<ValueError>([&] { Dropout(1, a); }) == "Dropout: p must lie in [0, 1); got 1");
  CHECK_THROWS_AS(Dropout(std::nan(""), a), ValueError);
}

TEST_CASE("initial values have the promised scale and come from the given generator") {
  const Shape w{60, 20, 5, 3};  // fan_in 300, fan_out 900
  Rng rng(7), same(7);
  const auto near = doctest::Approx(1).epsilon(0.01);  // of a ratio
  const auto check = [&](const char* name, double std) {
    CAPTURE(name);
    const Moments m = moments(init::by_name(name, w, rng));
    CHECK(m.std / std == near);
    CHECK(std::abs(m.mean) < 0.03 * std);
    const bool bounded = m.largest <= std * std::sqrt(3.0) * (1 + 1e-6);
    CHECK(bounded == (std::string(name).find("uniform") != std::string::npos));
  };
  check("xavier_uniform", std::sqrt(2 / 1200.0));
  check("xavier_normal", std::sqrt(2 / 1200.0));
  check("kaiming_uniform", std::sqrt(2 / 300.0));
  check("kaiming_normal", std::sqrt(2 / 300.0));
  CHECK(moments(init::kaiming_normal(w, rng, 1.0)).std / std::sqrt(1 / 300.0) == near);
  CHECK(moments(init::normal(w, 0.3, rng)).std / 0.3 == near);
  CHECK(largest(init::by_name("zeros", w, rng)) == 0);
  CHECK(largest(init::by_name("ones", w, rng) - 1.0) == 0);
  Rng first(7);
  CHECK(same_bits(init::xavier_normal(w, first), init::xavier_normal(w, same)));
  CHECK(init::normal({2}, 1, rng, DType::f64).dtype() == DType::f64);
  CHECK(message_of<ShapeError>([&] { init::kaiming_uniform({3}, rng); }) ==
        "kaiming_uniform: takes a weight [out, in, ...]; got [3]");
  CHECK(message_of<ValueError>([&] { init::by_name("glorot", w, rng); }) ==
        "init: names are zeros, ones, xavier_uniform, xavier_normal, kaiming_uniform, "
        "kaiming_normal; got 'glorot'");
}

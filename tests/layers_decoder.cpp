// Decoders: sizes, ranges, gradients, and what they see.

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/decoder.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "ops_support.hpp"
#include "support.hpp"

using namespace capsfw;
using capsfw::testing::largest;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;

namespace {

Tensor noise(const Shape& shape, std::uint64_t seed = 1) {
  Rng rng(seed);
  return randn(shape, rng);
}

void check_range(const Tensor& y) {
  CHECK(min(y).item() > 0);
  CHECK(max(y).item() < 1);
}

void check_every_parameter_learns(const Layer& layer, const Tensor& y) {
  backward(sum(y * noise(y.shape(), 7)));
  for (const auto& entry : layer.named_parameters()) {
    CAPTURE(entry.first);
    const Tensor& p = entry.second;
    REQUIRE(p.grad().defined());
    CHECK(largest(p.grad()) > 0);
  }
}

/// Gradients by the input to second order, and by every parameter: of the values, and of a penalty
/// on the gradient by the input.
void check_every_weight(Layer& layer, const Tensor& input) {
  test::check_gradients([&](const TensorList& in) { return TensorList{layer(in[0])}; }, {input});
  Rng rng(7);
  const Tensor x = input.detach().requires_grad_(),
               weights = rng.normal(layer(x).shape(), 0, 1, DType::f64);
  const auto value = [&] { return sum(layer(x) * weights); };
  const auto penalty = [&] { return sum(square(grad(value(), x, {}, {.create_graph = true}))); };
  for (auto& [name, parameter] : layer.named_parameters()) {
    const std::string& of = name;
    CAPTURE(of);
    CHECK(testing::check_parameter(value, parameter, rng));
    CHECK(testing::check_parameter(penalty, parameter, rng));
  }
}

}  // namespace

TEST_CASE("the decoder of the paper: 160 -> 512 -> 1024 -> 784, 1,411,344 parameters") {
  Rng rng(1);
  Decoder decoder(160, {512, 1024}, 784, rng);
  CHECK(decoder.parameter_count() == 1411344);
  std::vector<std::int64_t> counts;
  for (const auto& [name, layer] : decoder.children()) counts.push_back(layer->parameter_count());
  CHECK(counts == std::vector<std::int64_t>{82432, 525312, 803600});
  CHECK(decoder.children()[2].first == "fc3");
  const Tensor y = decoder(noise({2, 160}));
  CHECK(y.shape() == Shape{2, 784});
  check_range(y);
  CHECK_THROWS_AS(decoder(noise({2, 16})), ShapeError);
}

TEST_CASE("a decoder is relu layers and a sigmoid, with or without hidden layers") {
  Rng rng(1);
  Decoder deep(6, {5, 4}, 9, rng);
  check_every_parameter_learns(deep, deep(noise({8, 6})));
  deep.to(DType::f64);
  check_every_weight(deep, test::random({2, 6}));
  Decoder flat(2, {}, 1, rng);
  Tensor w = flat.parameters()[0], b = flat.parameters()[1];
  w.copy_(from_vector(std::vector<float>{1, -2}, {1, 2}));
  b.fill_(0.5);
  const auto y = test::values(flat(from_vector(std::vector<float>{1, 0.75, 1, 5}, {2, 2})));
  CHECK(y[0] == doctest::Approx(0.5));
  CHECK(y[1] == doctest::Approx(1 / (1 + std::exp(8.5))));
  Decoder two(1, {2}, 1, rng);  // 3 relu(x) + 5 relu(-x)
  const std::vector<std::vector<float>> numbers = {{1, -1}, {0, 0}, {3, 5}, {0}};
  for (std::size_t i = 0; i < 4; ++i)
    two.parameters()[i].copy_(reshape(from_vector(numbers[i]), two.parameters()[i].shape()));
  const auto z = test::values(two(from_vector(std::vector<float>{0.5, -0.5}, {2, 1})));
  CHECK(z[0] == doctest::Approx(1 / (1 + std::exp(-1.5))));
  CHECK(z[1] == doctest::Approx(1 / (1 + std::exp(-2.5))));
  CHECK_THROWS_AS(Decoder(0, {}, 4, rng), ValueError);
  CHECK_THROWS_AS(Decoder(4, {0}, 4, rng), ValueError);
}

TEST_CASE("D12 the convolutional decoder makes images of any size") {
  Rng rng(1);
  const Shape images[] = {{1, 28, 28}, {3, 7, 10}, {1, 1, 5}, {2, 4, 3}};
  for (const Shape& image : images) {
    CAPTURE(image.str());
    ConvDecoder decoder(12, image, rng, 4);
    for (std::int64_t batch : {1, 3}) {
      const Tensor y = decoder(noise({batch, 12}));
      CHECK(y.shape() == Shape{batch, image[0], image[1], image[2]});
      check_range(y);
    }
  }
}

TEST_CASE("the convolutional decoder refuses images that are none") {
  Rng rng(1);
  for (const Shape& image : {Shape{}, Shape{28}, Shape{28, 28}, Shape{2, 1, 28, 28}})
    CHECK(message_of<ShapeError>([&] { ConvDecoder(4, image, rng); }) ==
          "ConvDecoder: the image must be [C, H, W]; got " + image.str());
  for (const Shape& image : {Shape{0, 5, 5}, Shape{1, 0, 5}, Shape{1, 5, 0}})
    CHECK(message_of<ValueError>([&] { ConvDecoder(4, image, rng); }) ==
          "ConvDecoder: sizes must be at least 1; got an image of " + image.str() +
              " and 16 channels");
  CHECK_THROWS_AS(ConvDecoder(4, {1, 5, 5}, rng, 0), ValueError);
  CHECK_THROWS_AS(ConvDecoder(0, {1, 5, 5}, rng), ValueError);
}

TEST_CASE("the convolutional decoder has relu between its steps and a sigmoid at the end") {
  Rng rng(1);
  ConvDecoder decoder(6, {1, 8, 8}, rng, 2);
  const StateDict w = decoder.state_dict();
  const auto set = [&](const char* name, double v) { Tensor(w.at(name)).fill_(v); };
  const Tensor x = noise({2, 6});
  set("last_bias", 2);
  set("middle_bias", -100);  // nothing passes the second relu
  const double rest = 1 / (1 + std::exp(-2.0));
  for (double v : test::values(decoder(x))) REQUIRE(v == doctest::Approx(rest));
  set("middle_bias", 0);
  CHECK(max(decoder(x)).item() - min(decoder(x)).item() > 0.01);
  set("expand.bias", -100);  // nothing passes the first
  for (double v : test::values(decoder(x))) REQUIRE(v == doctest::Approx(rest));
}

TEST_CASE("the convolutional decoder learns with all of its parameters, and twice") {
  Rng rng(1);
  ConvDecoder decoder(6, {2, 5, 7}, rng, 3);
  check_every_parameter_learns(decoder, decoder(noise({4, 6})));
  decoder.to(DType::f64);
  check_every_weight(decoder, test::random({1, 6}));
}

TEST_CASE("R2 the label chooses the capsule in training, the longest one at test") {
  Rng rng(1);
  for (const DecoderKind kind : {DecoderKind::fully_connected, DecoderKind::convolutional}) {
    CapsNetOptions o;
    o.image = {1, 9, 8};
    o.primary = {2, 3};
    o.primary_kernel = 5;
    o.capsules = {{4, 5}};
    o.dense.init_std = 1;
    o.decoder = kind;
    o.decoder_hidden = {7};
    CapsNet net(o, rng);
    const Tensor x = noise({3, 1, 9, 8}), labels = zeros({3}, DType::i64);
    const CapsNetOutput trained = net(x, labels), tested = net(x);
    CHECK(trained.reconstruction.shape() == x.shape());
    CHECK(same_bits(tested.reconstruction, net(x, argmax(tested.lengths, 1)).reconstruction));
    CHECK_FALSE(same_bits(tested.reconstruction, trained.reconstruction));
    // The other capsules do not influence the output: neither its value nor its gradient.
    const Tensor first = from_vector(std::vector<float>{1, 0, 0, 0}, {1, 4});
    Tensor poses = trained.poses.detach();
    const Tensor image = net.decode(poses, first);
    CHECK(same_bits(image, trained.reconstruction.detach()));
    const Tensor other = cat({narrow(poses, 1, 0, 1), noise({3, 3, 5}, 8)}, 1);
    CHECK(same_bits(net.decode(other, first), image));
    poses.requires_grad_();
    const Tensor g = grad(sum(net.decode(poses, first)), poses);
    CHECK(largest(narrow(g, 1, 0, 1)) > 0);
    CHECK(largest(narrow(g, 1, 1, 3)) == 0);
  }
}

// Layers of matrix capsules and the network made of them.

#include <doctest/doctest.h>

#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/matrix_capsules.hpp>
#include <capsfw/optim/adam.hpp>

#include "layers_em.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

MatrixCapsNetOptions tiny() {
  MatrixCapsNetOptions o;
  o.image = {1, 9, 11};
  o.conv = {.channels = 4, .kernel = 3, .stride = 2};
  o.primary_types = 2;
  o.pose = 2;
  o.capsules = {{3, 2, 1}, {2, 2, 1}};
  o.classes = 3;
  return o;
}

Tensor images(std::int64_t n, std::uint64_t seed) {
  Rng rng(seed);
  return rng.uniform({n, 1, 9, 11}, 0, 1);
}

bool finite(const TensorList& list) {
  for (const Tensor& t : list)
    if (!all(isfinite(t))) return false;
  return true;
}

/// Trains on the same images; false as soon as a loss, a gradient or a parameter is not finite.
bool stays_finite(MatrixCapsNet& net, const Tensor& x, int steps) {
  const Tensor labels = from_vector(std::vector<std::int64_t>{0, 1, 2, 1});
  Adam adam(net.parameters(), {.lr = 0.02});
  for (int step = 0; step < steps; ++step) {
    const Tensor loss = spread_loss(net(x).activations, labels, spread_margin_linear(step, steps));
    adam.zero_grad();
    backward(loss);
    TensorList gradients;
    for (const Tensor& p : net.parameters()) gradients.push_back(p.grad());
    if (!finite({loss}) || !finite(gradients)) return false;
    adam.step();
  }
  return finite(net.parameters());
}

}  // namespace

TEST_CASE("parameter counts of the published networks") {
  Rng rng(1);
  CHECK(MatrixCapsNet(MatrixCapsNetOptions::paper(), rng).parameter_count() == 316394);
  MatrixCapsNet net(MatrixCapsNetOptions::small({1, 32, 32}, 5), rng);
  CHECK(net.parameter_count() == 67154);
  const std::string table = net.summary();
  CHECK(contains(table, "conv        [B, 64, 14, 14]                 1664\n"));
  CHECK(contains(table, "primary     [B, 8, 14, 14, 4, 4]            8840\n"));
  CHECK(contains(table, "capsules1   [B, 16, 6, 6, 4, 4]            18464\n"));
  CHECK(contains(table, "capsules2   [B, 16, 4, 4, 4, 4]            36896\n"));
  CHECK(contains(table, "classes     [B, 5, 16]                      1290\n"));
}

TEST_CASE("running statistics know nothing of the noise that balances a new network") {
  Rng rng(1);
  MatrixCapsNetOptions o = tiny();
  o.conv.batch_norm = true;
  MatrixCapsNet net(o, rng);
  const NamedTensors buffers = net.named_buffers();
  REQUIRE(buffers.size() == 2);
  CHECK(all(eq(buffers[0].second, 0.0)));
  CHECK(all(eq(buffers[1].second, 1.0)));
}

TEST_CASE("sizes of the network for 28x28 images, and what it returns") {
  Rng rng(2);
  MatrixCapsNetOptions o = MatrixCapsNetOptions::small();
  o.conv.channels = 4;
  o.primary_types = 2;
  o.capsules = {{3, 3, 2}, {2, 3, 1}};
  MatrixCapsNet net(o, rng);
  CHECK(contains(net.summary(), "[B, 3, 5, 5, 4, 4]"));
  CHECK(contains(net.summary(), "[B, 2, 3, 3, 4, 4]"));
  const MatrixCapsNetOutput out = net(zeros({2, 1, 28, 28}));
  CHECK(out.activations.shape() == Shape{2, 10});
  CHECK(out.poses.shape() == Shape{2, 10, 16});
  CHECK(out.assignments.shape() == Shape{2, 18, 10});
}

TEST_CASE("P1 primary matrix capsules: channel c·P² + k is element k of type c") {
  Rng rng(3);
  PrimaryMatrixCapsules layer(3, 2, 2, rng);
  const Tensor x = rng.normal({2, 3, 4, 5}, 0, 1);
  const MatrixCapsules out = layer(x);
  const Tensor channels = layer.pose(x);
  REQUIRE(out.poses.shape() == Shape{2, 2, 4, 5, 2, 2});
  for (std::int64_t c = 0; c < 2; ++c)
    for (std::int64_t k = 0; k < 4; ++k)
      CHECK(max_difference(select(select(select(out.poses, 1, c), 3, k / 2), 3, k % 2),
                           select(channels, 1, c * 4 + k)) == 0);
  CHECK(max_difference(out.activations, sigmoid(layer.activation(x))) == 0);
}

TEST_CASE("E7 lambda makes up for the amount of data of a parent") {
  EmRoutingOptions o{.iterations = 2, .lambda = 1, .lambda_base = 0, .data_per_parent = 0};
  CHECK(lambdas_for(o, 16, 144) == std::vector<double>{1, 1});
  o.data_per_parent = 90;
  CHECK(lambdas_for(o, 16, 144) == std::vector<double>{10, 10});
  o.lambda_scale = 0.5;
  o.lambdas = {2, 4};
  CHECK(lambdas_for(o, 16, 144) == std::vector<double>{10, 20});
  o = {.iterations = 0};
  CHECK(message_of<ValueError>([&] { lambdas_for(o, 1, 1); }) ==
        "matrix capsules: at least 1 routing iteration; got 0");
  // Layers of very different size then start with logits of the same order.
  Rng rng(4);
  for (const std::int64_t types : {1, 8}) {
    ConvMatrixCapsules layer(types, 4, 2, 2, rng);
    const MatrixCapsules x{rng.normal({4, types, 4, 4, 2, 2}, 0, 1), full({4, types, 4, 4}, 0.5)};
    const Tensor a = layer(x).activations;
    CHECK(largest(log(a / (1.0 - a))) > 0.02);
    CHECK(largest(log(a / (1.0 - a))) < 2);
  }
}

TEST_CASE("E9 betas are parameters, one per parent type, saved and loaded") {
  Rng rng(5), other(6);
  MatrixCapsNet net(tiny(), rng), copy(tiny(), other);
  const StateDict state = net.state_dict();
  for (const char* name : {"capsules1.beta_a", "capsules1.beta_u"})
    CHECK(state.at(name).shape() == Shape{3});
  for (const char* name : {"classes.beta_a", "classes.beta_u"})
    CHECK(state.at(name).shape() == Shape{3});
  const Tensor x = images(4, 7);
  REQUIRE(stays_finite(net, x, 3));  // moves the betas away from 0
  for (const auto& entry : net.named_parameters()) {
    CAPTURE(entry.first);
    CHECK(largest(entry.second) > 0);
  }
  CHECK(max_difference(net(x).activations, copy(x).activations) > 1e-3);
  copy.load_state_dict(net.state_dict());
  CHECK(same_bits(net(x).activations, copy(x).activations));
}

TEST_CASE("E10 the initial weights tell the parents apart, and activations start off saturation") {
  Rng rng(8);
  MatrixCapsNet net(tiny(), rng);
  const MatrixCapsNetOutput out = net(images(16, 9));
  CHECK(max_difference(select(out.poses, 1, 0), select(out.poses, 1, 1)) > 1e-2);
  for (const double a : values(out.activations)) {
    CHECK(a > 0.05);
    CHECK(a < 0.95);
  }
}

TEST_CASE("E10 balanced capsules: activations around one half, and more votes make them larger") {
  for (const char* name : {"v2", "v3", "v4", "hinton", "eq12"})
    for (const Competition who : {Competition::patch, Competition::child})
      for (const int iterations : {1, 2, 3}) {
        CAPTURE(name);
        CAPTURE(static_cast<int>(who));
        CAPTURE(iterations);
        Rng rng(3);
        ConvMatrixCapsules layer(3, 4, 2, 3, rng, {.competition = who});
        layer.routing().variant = em_variant(name);
        layer.routing().iterations = iterations;
        layer.routing().eps_var = 0.5;
        MatrixCapsules x{rng.normal({5, 3, 7, 7, 2, 2}, 0, 1), rng.uniform({5, 3, 7, 7}, 0.2, 0.8)};
        layer.balance(x);
        const double a = mean(layer.route(x).activations).item();
        CHECK(a > 0.3);
        CHECK(a < 0.7);
        if (em_variant(name) != EmVariant::hinton && em_variant(name) != EmVariant::v4) continue;
        x.activations = x.activations * 1.2;  // every vote counts for more
        CHECK(mean(layer.route(x).activations).item() > a);
      }
}

TEST_CASE("E13 no NaN in training on random, constant and all-zero images") {
  for (const Competition who : {Competition::patch, Competition::child})
    for (const int iterations : {1, 2, 3, 5})
      for (const double scale : {1.0, 100.0})
        for (const auto& x : {images(4, 10), full({4, 1, 9, 11}, 0.7), zeros({4, 1, 9, 11})}) {
          CAPTURE(static_cast<int>(who));
          CAPTURE(iterations);
          CAPTURE(scale);
          CAPTURE(values(x)[5]);
          Rng rng(11);
          MatrixCapsNetOptions o = tiny();
          o.competition = who;
          o.routing.iterations = iterations;
          o.routing.lambda_scale = scale;
          MatrixCapsNet net(o, rng);
          CHECK(stays_finite(net, x, capsfw::testing::kSanitized ? 2 : 40));
        }
}

TEST_CASE("a tiny network of matrix capsules learns to tell three stripes apart") {
  Rng rng(12);
  MatrixCapsNet net(tiny(), rng);
  Tensor x = rng.uniform({30, 1, 9, 11}, 0, 0.3);
  std::vector<std::int64_t> labels;
  float* p = x.mutable_data<float>();
  for (std::int64_t b = 0; b < 30; ++b) {
    labels.push_back(b % 3);
    for (std::int64_t y = 0; y < 9; ++y)
      for (std::int64_t c = 0; c < 11; ++c) {
        const bool bright = b % 3 == 0   ? y / 2 % 2 == 0
                            : b % 3 == 1 ? c / 2 % 2 == 0
                                         : (y + c) % 4 < 2;
        if (bright) p[(b * 9 + y) * 11 + c] += 0.7F;
      }
  }
  const Tensor targets = from_vector(labels);
  Adam adam(net.parameters(), {.lr = 0.01});
  for (int step = 0; step < (testing::kSanitized ? 10 : 150); ++step) {
    adam.zero_grad();
    backward(spread_loss(net(x).activations, targets, spread_margin_linear(step, 150)));
    adam.step();
  }
  if (testing::kSanitized) return;  // too slow there to learn
  CHECK(accuracy(net(x).activations, targets) > 0.9);
}

TEST_CASE("iterations, lambda scale and variant change the routing, not the weights") {
  Rng rng(13);
  MatrixCapsNet net(tiny(), rng);
  const Tensor x = images(2, 14), before = net(x).activations;
  net.set_routing_iterations(1);
  CHECK(net.options().routing.iterations == 1);
  CHECK(max_difference(net(x).activations, before) > 1e-6);
  net.set_routing_iterations(3);
  CHECK(same_bits(net(x).activations, before));
  net.set_lambda_scale(3);
  CHECK(max_difference(net(x).activations, before) > 1e-6);
  net.set_lambda_scale(0);
  CHECK(max_difference(net(x).activations, full({2, 3}, 0.5)) == 0);
  CHECK(message_of<ValueError>([&] { net.set_routing_iterations(0); }) ==
        "MatrixCapsNet: at least 1 routing iteration; got 0");
  for (const EmVariant v : kVariants) {
    MatrixCapsNetOptions o = tiny();
    o.routing.variant = v;
    Rng again(13);
    CHECK(all(isfinite(MatrixCapsNet(o, again)(x).activations)));
  }
}

TEST_CASE("padding keeps the size of a map, and a sample runs alone as in a batch") {
  MatrixCapsNetOptions o = tiny();
  o.capsules = {{3, 3, 1, 1}, {2, 3, 1, 1}};
  for (const Competition who : {Competition::patch, Competition::child}) {
    o.competition = who;
    Rng rng(15);
    MatrixCapsNet net(o, rng);
    CHECK(contains(net.summary(), "[B, 2, 4, 5, 2, 2]"));
    net.to(DType::f64);
    const Tensor x = uniform({3, 1, 9, 11}, 0, 1, 16);
    const MatrixCapsNetOutput all = net(x);
    for (std::int64_t b = 0; b < 3; ++b)
      CHECK(max_difference(net(narrow(x, 0, b, 1)).activations, narrow(all.activations, 0, b, 1)) <
            1e-12);
  }
}

TEST_CASE("matrix capsules say what is wrong") {
  Rng rng(17);
  const auto text = [&](const auto& change) {
    MatrixCapsNetOptions o = tiny();
    change(o);
    return message_of<Error>([&] { MatrixCapsNet(o, rng); });
  };
  CHECK(text([](auto& o) {
          o.image = {9, 9};
        }) == "MatrixCapsNet: an image is [C, H, W]; got [9, 9]");
  CHECK(text([](auto& o) {
          o.image = {1, 5, 9};
        }) ==
        "MatrixCapsNet: capsules2: a kernel of 2 with stride 1 and padding 0 does not fit 1 "
        "positions. Hint: a larger image or smaller kernels");
  CHECK(contains(text([](auto& o) { o.classes = 0; }),
                 "ClassMatrixCapsules: sizes must be at least 1; got in = 2, types = 0"));
  CHECK(contains(text([](auto& o) { o.primary_types = 0; }), "PrimaryMatrixCapsules: sizes"));
  CHECK(contains(text([](auto& o) { o.capsules[0].types = -1; }), "ConvMatrixCapsules: sizes"));
  CHECK(contains(text([](auto& o) { o.routing.iterations = 0; }), "at least 1 routing iteration"));
  CHECK(contains(text([](auto& o) { o.coordinate_places = {0, 4}; }), "in a pose of 4 elements"));
  CHECK(contains(message_of<ValueError>([&] { ConvMatrixCapsules(1, 1, 1, 0, rng); }),
                 "kernel and stride must be at least 1; got 0 and 1"));
  MatrixCapsNet net(tiny(), rng);
  CHECK(message_of<ShapeError>([&] {
          net(zeros({2, 1, 9, 9}));
        }) == "MatrixCapsNet: images must be [B, 1, 9, 11]; got [2, 1, 9, 9]");
}

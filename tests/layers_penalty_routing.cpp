// Penalties through convolution, squash, every routing and every loss of capsules: the penalty is
// differentiated twice against differences, which takes third derivatives of all of them.

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/em_routing.hpp>
#include <capsfw/layers/entropy_routing.hpp>
#include <capsfw/layers/kmeans_routing.hpp>
#include <capsfw/layers/matrix_capsules.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/conv.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/optim/adam.hpp>
#include <capsfw/optim/sgd.hpp>

#include "layers_penalty.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

constexpr std::int64_t kB = 2, kI = 4, kJ = 3, kD = 2;

/// Σ_j q_j ‖v_j‖ of capsules [B, J, D].
Tensor read(const Tensor& poses) { return matmul(lengths(poses), normal({poses.size(1)}, 9)); }

/// A routing as a function of the votes.
struct NamedRouting {
  const char* name;
  std::function<Tensor(const Tensor& votes)> value;  // one for each sample
};

EmRouted route_em(const Tensor& votes, EmVariant variant) {
  Rng rng(3);
  return em_routing(votes, rng.uniform({votes.size(0), kI}, 0.2, 0.9, DType::f64), normal({kJ}, 4),
                    normal({kJ}, 5), {0.5, 0.7}, {.variant = variant, .eps_var = 1e-2});
}

std::vector<NamedRouting> routings() {
  std::vector<NamedRouting> all = {
      {"dynamic", [](const Tensor& v) { return read(dynamic_routing(v).poses); }},
      {"dynamic, leaky",
       [](const Tensor& v) { return read(dynamic_routing(v, {.leaky = true}).poses); }},
      {"K-means", [](const Tensor& v) { return read(kmeans_routing(v).poses); }},
      {"entropy", [](const Tensor& v) { return read(entropy_routing(v).poses); }}};
  static const std::pair<const char*, EmVariant> kVariants[] = {
      {"EM v1", EmVariant::v1}, {"EM v2", EmVariant::v2},         {"EM v3", EmVariant::v3},
      {"EM v4", EmVariant::v4}, {"EM hinton", EmVariant::hinton}, {"EM eq12", EmVariant::eq12}};
  for (const auto& [name, variant] : kVariants)
    all.push_back({name, [variant = variant](const Tensor& v) {
                     const EmRouted r = route_em(v, variant);
                     return sum(r.activations, {1}) + read(r.poses);
                   }});
  return all;
}

void check(const Function& penalty, const TensorList& inputs) {
  // Third derivatives at work: one direction each, and a step for their size.
  const GradcheckOptions options{.rtol = 1e-4, .directions = 1, .components = 0};
  testing::check_gradients(penalty, inputs, options);
}

}  // namespace

TEST_CASE("penalties through every routing agree with differences, to two orders") {
  const TensorList inputs = {normal({kB, kI, kD}, 1), normal({kI, kJ, kD, kD}, 2) * 0.7};
  for (const NamedRouting& routing : routings()) {
    CAPTURE(std::string(routing.name));
    check(
        [&](const TensorList& in) {
          return TensorList{input_gradient_penalty(
              [&](const Tensor& u) { return routing.value(votes_full(u, in[1])); }, in[0])};
        },
        inputs);
    check(
        [&](const TensorList& in) {
          return TensorList{
              param_gradient_penalty_batch(routing.value(votes_full(in[0], in[1])), {in[1]})};
        },
        inputs);
  }
}

TEST_CASE("penalties through convolution, squash and the losses agree with differences") {
  const Tensor targets = one_hot(from_vector(std::vector<std::int64_t>{1, 0}), 3, DType::f64);
  const Tensor labels = from_vector(std::vector<std::int64_t>{1, 0});
  const auto capsules = [](const TensorList& in, const Tensor& x) {
    const Tensor z = conv2d(x, in[1], in[2], {.stride = {2, 2}});  // [B, 6, 2, 2]
    return squash(
        reshape(permute(reshape(z, {z.size(0), 3, 2, 4}), {0, 1, 3, 2}), {z.size(0), 3, 8}));
  };
  const TensorList inputs = {normal({2, 1, 5, 5}, 1), normal({6, 1, 3, 3}, 2) * 0.5,
                             normal({6}, 3) * 0.1};
  const std::vector<std::pair<const char*, std::function<Tensor(const Tensor&)>>> losses = {
      {"margin", [&](const Tensor& v) { return margin_loss_per_sample(lengths(v), targets); }},
      {"spread",
       [&](const Tensor& v) {
         TensorList each;
         for (std::int64_t b = 0; b < 2; ++b)
           each.push_back(spread_loss(narrow(lengths(v), 0, b, 1), narrow(labels, 0, b, 1), 0.9));
         return stack(each);
       }},
      {"cross entropy",
       [&](const Tensor& v) {
         TensorList each;
         for (std::int64_t b = 0; b < 2; ++b)
           each.push_back(
               cross_entropy(narrow(lengths(v), 0, b, 1) * 3.0, narrow(labels, 0, b, 1)));
         return stack(each);
       }},
      {"squared error", [](const Tensor& v) { return sum(square(flatten(v, 1) - 0.3), {1}); }}};
  for (const auto& [name, loss] : losses) {
    const std::string loss_name = name;
    CAPTURE(loss_name);
    check(
        [&, &loss = loss](const TensorList& in) {
          return TensorList{input_gradient_penalty(
              [&](const Tensor& x) { return loss(capsules(in, x)); }, in[0])};
        },
        inputs);
    check(
        [&, &loss = loss](const TensorList& in) {
          return TensorList{
              param_gradient_penalty_batch(loss(capsules(in, in[0])), {in[1], in[2]})};
        },
        inputs);
  }
}

namespace {

/// A small capsule network in f64, and images for it.
struct Small {
  Rng rng{1};
  CapsNet net{{.image = {1, 8, 8},
               .convs = {{4, 3, 1}},
               .primary = {2, 4},
               .primary_kernel = 3,
               .capsules = {{3, 4}},
               .decoder = DecoderKind::none},
              rng};
  Tensor images = Rng(2).uniform({4, 1, 8, 8}, 0, 1, DType::f64);
  Tensor targets = one_hot(from_vector(std::vector<std::int64_t>{0, 1, 2, 1}), 3, DType::f64);
  Small() { net.to(DType::f64); }
  Tensor losses(const Tensor& x) { return margin_loss_per_sample(net(x).lengths, targets); }
};

}  // namespace

TEST_CASE("O6 gradient penalty: a capsule network learns a smaller one from it alone") {
  Small s;
  const auto penalty = [&] {
    return input_gradient_penalty([&](const Tensor& x) { return s.losses(x); }, s.images);
  };
  const double before = penalty().item();
  Adam adam(s.net.parameters(), {.lr = 1e-2});
  for (int step = 0; step < 10; ++step) {
    adam.zero_grad();
    backward(penalty());
    adam.step();
  }
  CHECK(penalty().item() < 0.5 * before);
}

TEST_CASE("finite differences through dynamic routing: error against the exact gradient") {
  Small s;
  const TensorList params = s.net.parameters();
  const Tensor x = s.images.detach().requires_grad_();
  const SampleFunction f = [&](const Tensor& at) { return s.losses(at); };
  const TensorList exact = gradient(input_gradient_penalty(f(x), x), params);
  for (const double step : {1e-2, 1e-3}) {
    const double error = relative_difference(
        gradient(input_gradient_penalty_difference(f, f(x), x, {.step = step}), params), exact);
    MESSAGE("step ", step, ": relative error ", error);
    CHECK(error < 20 * step);
  }
}

TEST_CASE("O5 double-backward graph of a capsule network is freed: 200 steps leave what 2 leave") {
  Small s;
  SGD sgd(s.net.parameters(), {.lr = 1e-4});
  const auto live_after = [&](int steps) {
    for (int k = 0; k < steps; ++k) {
      const Tensor x = narrow(s.images, 0, k % 3, 1).detach().requires_grad_();
      const Tensor losses =
          margin_loss_per_sample(s.net(x).lengths, narrow(s.targets, 0, k % 3, 1));
      sgd.zero_grad();
      backward(mean(losses) + input_gradient_penalty(losses, x) +
               param_gradient_penalty_batch(losses, s.net.parameters()));
      sgd.step();
    }
    return std::pair(live_nodes(), memory_stats().live);
  };
  const auto two = live_after(2), many = live_after(200);
  CHECK(many.first == two.first);
  CHECK(many.second == two.second);
}

TEST_CASE("a matrix capsule network has both penalties, through EM routing") {
  Rng rng(1);
  MatrixCapsNet net({.image = {1, 9, 9},
                     .conv = {4, 3, 2},
                     .primary_types = 2,
                     .pose = 2,
                     .capsules = {{2, 3, 1}},
                     .classes = 3},
                    rng);
  net.to(DType::f64);
  const Tensor images = Rng(2).uniform({2, 1, 9, 9}, 0, 1, DType::f64).requires_grad_();
  const Tensor targets = one_hot(from_vector(std::vector<std::int64_t>{0, 2}), 3, DType::f64);
  const auto losses = [&](const Tensor& x) {
    return margin_loss_per_sample(net(x).activations, targets);
  };
  const TensorList params = net.parameters();
  // Against differences in the direction of the gradient itself.
  for (const bool by_input : {true, false}) {
    CAPTURE(by_input);
    const auto penalty = [&] {
      return by_input ? input_gradient_penalty(losses(images), images)
                      : param_gradient_penalty_batch(losses(images), params);
    };
    const TensorList g = gradient(penalty(), params);
    double length = 0;
    for (const Tensor& t : g) length += sum(square(t)).item();
    REQUIRE(length > 0);
    const double eps = 1e-5 / std::sqrt(length);
    const auto shifted = [&](double factor) {
      for (std::size_t i = 0; i < g.size(); ++i) {
        Tensor p = params[i];
        p.copy_(p.detach() + g[i] * factor);
      }
      return penalty().item();
    };
    const double ahead = shifted(eps), behind = shifted(-2 * eps);
    shifted(eps);
    CHECK((ahead - behind) / (2 * eps) == doctest::Approx(length).epsilon(1e-5).scale(0));
  }
}

// Gradients of every sample without a loop, against a loop over the batch.

#include <capsfw/core/node.hpp>
#include <capsfw/layers/basic.hpp>
#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/conv_capsule_layer.hpp>
#include <capsfw/layers/linear.hpp>
#include <capsfw/layers/matrix_capsules.hpp>
#include <capsfw/layers/per_sample.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/matmul.hpp>

#include "layers_penalty.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

using Values = std::function<Tensor(const Tensor&)>;

/// Both forms of the gradients and norms, and the gradient of the penalty made of them.
void compare(const char* name, Module& model, const Values& f, const Tensor& x) {
  CAPTURE(std::string(name));
  model.to(DType::f64);
  const TensorList params = model.parameters();
  const std::int64_t batch = x.size(0);
  const TensorList fast = per_sample_gradients(f(x), model);
  const Tensor norms = per_sample_square_norms(f(x), model);
  REQUIRE(fast.size() == params.size());
  CHECK(norms.shape() == Shape{batch});
  std::vector<double> expected(static_cast<std::size_t>(batch), 0.0);
  for (std::int64_t b = 0; b < batch; ++b) {
    const TensorList slow = grad({sum(f(narrow(x, 0, b, 1)))}, params, {}, {.allow_unused = true});
    for (std::size_t i = 0; i < params.size(); ++i) {
      CAPTURE(model.named_parameters()[i].first);
      REQUIRE(fast[i].defined() == slow[i].defined());
      if (!slow[i].defined()) continue;
      CHECK_FALSE(fast[i].requires_grad());
      CHECK(max_difference(select(fast[i], 0, b), slow[i]) <= 1e-12 * (1 + largest(slow[i])));
      expected[static_cast<std::size_t>(b)] += sum(square(slow[i])).item();
    }
  }
  CHECK(max_difference(norms, from_vector(expected)) <= 1e-12 * (1 + largest(norms)));

  const Tensor loop =
      param_gradient_penalty_per_sample([&](const TensorList& b) { return f(b[0]); }, {x}, params);
  const Tensor quick = param_gradient_penalty_per_sample(f(x), model);
  CHECK(quick.item() == doctest::Approx(loop.item()).epsilon(1e-12));
  CHECK(relative_difference(gradient(quick, params), gradient(loop, params)) < 1e-11);
}

Values flat_head(Layer& net) {
  return [&net](const Tensor& x) { return head(flatten(net(x), 1)); };
}

}  // namespace

TEST_CASE("per-sample gradients of linear layers, with leading axes and without bias") {
  Rng rng(1);
  Sequential net;
  net.add<Linear>(4, 5, rng);
  net.add<Activation>(activation("tanh"));
  net.add<Linear>(5, 5, rng, LinearOptions{.bias = false});
  net.add<Activation>(activation("softplus"));
  net.add<Linear>(5, 2, rng);
  compare("rows", net, flat_head(net), normal({3, 4}, 2));
  compare("three rows a sample", net, flat_head(net), normal({2, 3, 4}, 3));
  compare("one sample", net, flat_head(net), normal({1, 4}, 3));
  DoubleMlp mlp({4, 4, 3}, 2);
  compare("mlp with a square weight", mlp, flat_head(mlp), normal({3, 4}, 4));
}

TEST_CASE("per-sample gradients of convolutions of every geometry") {
  Rng rng(1);
  Sequential net;
  net.add<Conv2d>(2, 4, 3, rng, Conv2dOptions{.stride = 2, .padding = 1});
  net.add<Activation>(activation("tanh"));
  net.add<Conv2d>(4, 6, 2, rng, Conv2dOptions{.dilation = 2, .groups = 2, .bias = false});
  net.add<Activation>(activation("sigmoid"));
  net.add<Conv2d>(6, 3, 1, rng);
  compare("convolutions", net, flat_head(net), normal({3, 2, 7, 9}, 2));
}

TEST_CASE("per-sample gradients of normalisation and of shared and unused parameters") {
  Rng rng(1);
  Sequential net;
  net.add<Linear>(4, 6, rng);
  net.add<LayerNorm>(6);
  net.add<Activation>(activation("tanh"));
  compare("layer norm", net, flat_head(net), normal({3, 4}, 2));

  Sequential images;
  images.add<Conv2d>(1, 3, 3, rng);
  images.add<BatchNorm2d>(3);
  images.add<Activation>(activation("tanh"));
  images.eval();
  compare("batch norm in evaluation", images, flat_head(images), normal({3, 1, 5, 5}, 3));

  DoubleMlp twice({4, 4}, 2);
  compare(
      "one layer twice", twice, [&](const Tensor& x) { return head(twice(tanh(twice(x)))); },
      normal({3, 4}, 5));

  Sequential part;
  part.add<Linear>(4, 3, rng);
  Linear& used = part.add<Linear>(4, 2, rng);
  compare(
      "half of it unused", part, [&](const Tensor& x) { return head(used(x)); }, normal({3, 4}, 6));
  used.weight.requires_grad_(false);
  const TensorList g = per_sample_gradients(head(used(normal({3, 4}, 7))), part);
  CHECK_FALSE(g[2].defined());
  CHECK(g[3].defined());
}

TEST_CASE("per-sample gradients of capsule layers") {
  for (const VoteWeights votes :
       {VoteWeights::full, VoteWeights::shared, VoteWeights::factorised}) {
    CAPTURE(static_cast<int>(votes));
    Rng rng(1);
    DenseCapsules layer(4, 3, 3, 2, rng,
                        {.votes = votes, .inner_dim = 2, .vote_bias = true, .init_std = 0.7});
    Tensor(layer.votes.bias).copy_(normal({3, 2}, 8) * 0.3);
    compare(
        "dense capsules", layer,
        [&](const Tensor& u) { return sum(lengths(layer.route(u).poses), {1}); },
        normal({3, 4, 3}, 2));
  }
  for (const std::int64_t stride : {1, 2}) {  // windows that overlap
    CAPTURE(stride);
    Rng rng(1);
    ConvCapsules layer(2, 3, 3, 2, {.kernel = {3}, .stride = {stride}}, rng,
                       {.votes = VoteWeights::shared, .init_std = 0.7});
    compare(
        "windows", layer,
        [&](const Tensor& x) {
          const ConvRouted out = layer.route(x);
          return sum(lengths(out.poses), {1, 2}) + sum(square(out.couplings), {1, 2, 3});
        },
        normal({3, 2, 7, 3}, 2));
  }
  for (const VoteWeights votes :  // nine samples: the votes are not stored
       {VoteWeights::full, VoteWeights::shared, VoteWeights::factorised}) {
    CAPTURE(static_cast<int>(votes));
    Rng rng(1);
    DenseCapsules layer(4, 3, 3, 2, rng, {.votes = votes, .inner_dim = 2, .init_std = 0.7});
    compare(
        "votes that are not stored", layer,
        [&](const Tensor& u) {
          const Routed out = layer.route(u);
          return sum(lengths(out.poses), {1}) + sum(square(out.couplings), {1, 2});
        },
        normal({9, 4, 3}, 2));
  }
  Rng rng(1);
  CapsNet net({.image = {1, 8, 8},
               .convs = {{4, 3, 1}},
               .primary = {2, 4},
               .primary_kernel = 3,
               .capsules = {{3, 4}},
               .decoder = DecoderKind::none},
              rng);
  compare(
      "a capsule network", net, [&](const Tensor& x) { return sum(square(net(x).lengths), {1}); },
      Rng(2).uniform({3, 1, 8, 8}, 0, 1, DType::f64));
}

TEST_CASE("per-sample gradients of products and contractions of any kind, samples first") {
  struct Weights : Module {
    Tensor w = param("w", normal({3, 2}, 1)), attention = param("attention", normal({3, 2, 3}, 2));
  } model;
  const Tensor x = normal({2, 4, 3}, 3), square_x = normal({2, 2, 2}, 4);
  compare(
      "a matrix behind rank 3", model,
      [&](const Tensor& t) {
        return sum(square(matmul(t, model.w)), {1, 2});
      },
      x);
  compare(
      "under another shape", model,
      [&](const Tensor& t) {
        return sum(square(matmul(t, reshape(model.w, {2, 3}))), {1, 2});
      },
      square_x);
  for (const char* equation : {"bte,ehd->bthd", "bte,ehd->bhdt", "bte,ehd->bhd", "bte,thd->behd"}) {
    CAPTURE(std::string(equation));
    const bool square_one = equation[4] == 't';
    compare(
        "einsum", model,
        [&](const Tensor& t) {
          const Tensor y = einsum(equation, square_one ? transpose(t) : t, model.attention);
          return sum(square(reshape(y, {y.size(0), -1})), {1});
        },
        square_one ? normal({2, 4, 3}, 5) : x);
  }
  compare(
      "einsum, the parameter in front", model,
      [&](const Tensor& t) {
        return sum(square(einsum("ehd,bte->bthd", model.attention, t)), {1, 2, 3});
      },
      x);
  compare(
      "einsum, several rows of a sample", model,
      [&](const Tensor& t) {
        const Tensor y = einsum("re,ehd->rhd", reshape(t, {-1, 3}), model.attention);
        return sum(square(reshape(y, {t.size(0), -1})), {1});
      },
      x);
  // The samples are not in front: what belongs to one of them cannot be told.
  CHECK(contains(message_of<GradError>([&] {
                   const Tensor y = einsum("bte,ehd->thdb", x, model.attention);
                   per_sample_gradients(sum(square(y), {0, 1, 2}), model);
                 }),
                 "'attention' [3, 2, 3] is used by 'einsum bte,ehd->thdb'"));
}

TEST_CASE("per-sample gradients keep the graph of the values and leave nothing else behind") {
  DoubleMlp net({4, 5, 2}, 1);
  const Tensor x = normal({3, 4}, 2), values = head(net(x));
  const auto nodes = live_nodes(), tensors = live_tensors();
  for (int k = 0; k < 3; ++k) per_sample_square_norms(values, net);
  CHECK(live_nodes() == nodes);
  CHECK(live_tensors() == tensors);
  backward(sum(values));
  // The sum over samples is the gradient of the sum.
  const TensorList g = per_sample_gradients(head(net(x)), net);
  for (std::size_t i = 0; i < g.size(); ++i)
    CHECK(max_difference(sum(g[i], {0}), net.parameters()[i].grad()) < 1e-12);
}

TEST_CASE("per-sample gradients refuse what they do not know, naming parameter and op") {
  Rng rng(1);
  DenseCapsules layer(4, 3, 3, 2, rng, {.routing = DynamicRoutingOptions{.prior = true}});
  const std::string message = message_of<GradError>([&] {
    per_sample_gradients(sum(lengths(layer.route(rng.normal({2, 4, 3}, 0, 1)).poses), {1}), layer);
  });
  CHECK(contains(message, "prior' [4, 3] is used by 'dynamic_routing'"));
  CHECK(contains(message, "Hint: param_gradient_penalty_per_sample of a function"));
  // Three rows of a weight that is made of parameters are not three samples.
  struct Made : Module {
    Tensor v = param("v", normal({3, 4}, 1)), g = param("g", normal({4}, 2));
    Tensor a = param("a", normal({3, 2}, 3)), b = param("b", normal({2, 4}, 4));
  } made;
  const Tensor x = normal({3, 4}, 5);
  CHECK(contains(
      message_of<GradError>([&] { per_sample_gradients(head(linear(x, made.v * made.g)), made); }),
      "'v' [3, 4] is used by 'mul'"));
  CHECK(contains(message_of<GradError>(
                     [&] { per_sample_square_norms(head(linear(x, made.v + made.g)), made); }),
                 "'v' [3, 4] is used by 'add'"));
  CHECK(contains(message_of<GradError>([&] {
                   per_sample_square_norms(head(linear(x, matmul(made.a, made.b))), made);
                 }),
                 "'a' [3, 2] is used by 'matmul'"));
  CHECK(contains(message_of<GradError>([&] {
                   per_sample_gradients(sum(square(einsum("be,oe->bo", x, made.v * made.g)), {1}),
                                        made);
                 }),
                 "'v' [3, 4] is used by 'mul'"));
  DoubleMlp net({4, 2}, 1);
  CHECK(contains(message_of<ShapeError>([&] {
                   per_sample_gradients(net(normal({3, 4}, 1)), net);
                 }),
                 "one value for each sample, [B]; got values [3, 2]"));
  CHECK_FALSE(per_sample_gradients(zeros({3}, DType::f64), net)[0].defined());
}

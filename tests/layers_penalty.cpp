// Gradient penalties: values, gradients of two orders, what they do to weights, what they refuse.

#include <cmath>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/layers/basic.hpp>
#include <capsfw/layers/conv.hpp>
#include <capsfw/layers/linear.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/optim/sgd.hpp>

#include "layers_penalty.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

/// f_b of an MLP with weights {W1, b1, W2, b2, ...}.
SampleFunction network(const TensorList& p) {
  return [p](const Tensor& x) {
    Tensor h = x;
    for (std::size_t t = 0; t < p.size(); t += 2) {
      h = linear(h, p[t], p[t + 1]);
      if (t + 2 < p.size()) h = tanh(h);
    }
    return head(h);
  };
}

/// x [3, 4] and the weights of 4-5-2.
TensorList problem() {
  return {normal({3, 4}, 1), normal({5, 4}, 2) * 0.7, normal({5}, 3), normal({2, 5}, 4) * 0.7,
          normal({2}, 5)};
}

TensorList weights(const TensorList& in) { return {in.begin() + 1, in.end()}; }

void check(const char* name, const Function& penalty, const TensorList& inputs) {
  CAPTURE(std::string(name));
  // The last bias is in no gradient by the input.
  testing::check_gradients(penalty, inputs, testing::kGradcheck, testing::Reads::some);
}

/// A quadratic form f_b = ½ x_bᵀ A x_b, whose gradient is A x_b for symmetric A.
struct Quadratic {
  Tensor a = from_vector<double>({2, 1, 1, 3}, {2, 2});
  Tensor x = from_vector<double>({1, 0, -1, 2}, {2, 2});
  SampleFunction f() const {
    return [*this](const Tensor& at) { return 0.5 * sum(matmul(at, a) * at, {1}); };
  }
};

}  // namespace

TEST_CASE("O6 gradient penalty: value by hand, gradients of two orders against differences") {
  // Gradients (2, 1) and (0, 5): (5 + 25) / 2.
  const Quadratic q;
  CHECK(input_gradient_penalty(q.f(), q.x).item() == doctest::Approx(15).epsilon(1e-14));
  CHECK(r1_penalty(q.f(), q.x).item() == doctest::Approx(7.5).epsilon(1e-14));
  CHECK(r2_penalty(q.f(), q.x).item() == doctest::Approx(7.5).epsilon(1e-14));
  const double gp = (std::pow(std::sqrt(5.0) - 1, 2) + 16) / 2;
  CHECK(wgan_gp(q.f(), q.x, zeros_like(q.x), ones({2}, DType::f64)).item() ==
        doctest::Approx(gp).epsilon(1e-14));
  // The batch mean of w · x has the gradient mean x, samples have x_b.
  const Tensor w = ones({2}, DType::f64).requires_grad_();
  const auto linear_in_w = [&](const TensorList& batch) { return matmul(batch[0], w); };
  CHECK(param_gradient_penalty_batch(linear_in_w({q.x}), {w}).item() == 1);  // (0, 1)
  CHECK(param_gradient_penalty_batch(mean(linear_in_w({q.x})), {w}).item() == 1);
  CHECK(param_gradient_penalty_per_sample(linear_in_w, {q.x}, {w}).item() == 3);  // (1 + 5) / 2

  check(
      "input",
      [](const TensorList& in) {
        return TensorList{input_gradient_penalty(network(weights(in)), in[0])};
      },
      problem());
  check(
      "parameters, batch",
      [](const TensorList& in) {
        return TensorList{param_gradient_penalty_batch(network(weights(in))(in[0]), weights(in))};
      },
      problem());
  check(
      "parameters, samples",
      [](const TensorList& in) {
        return TensorList{param_gradient_penalty_per_sample(
            [&](const TensorList& b) { return network(weights(in))(b[0]); }, {in[0]}, weights(in))};
      },
      problem());
  TensorList gan = problem();
  gan.push_back(normal({3, 4}, 6));
  gan.push_back(from_vector<double>({0.2, 0.5, 0.9}));
  check(
      "wgan_gp",
      [](const TensorList& in) {
        return TensorList{wgan_gp(network({in[1], in[2], in[3], in[4]}), in[0], in[5], in[6])};
      },
      gan);
  check(
      "r1",
      [](const TensorList& in) { return TensorList{r1_penalty(network(weights(in)), in[0])}; },
      problem());
  check(
      "jacobian",
      [](const TensorList& in) {
        Rng rng(7);
        const Tensor x = in[0].requires_grad() ? in[0] : in[0].detach().requires_grad_();
        const Tensor z = linear(tanh(linear(x, in[1], in[2])), in[3], in[4]);
        return TensorList{jacobian_penalty(z, x, rng, 2)};
      },
      problem());
}

TEST_CASE("one sample: both parameter penalties agree") {
  DoubleMlp net({4, 5, 2}, 1);
  const Tensor x = normal({1, 4}, 2);
  const double batch = param_gradient_penalty_batch(head(net(x)), net.parameters()).item();
  const double sample = param_gradient_penalty_per_sample(head(net(x)), net).item();
  CHECK(batch == doctest::Approx(sample).epsilon(1e-13));
}

TEST_CASE("the batch form sees gradients cancel, the form by samples does not") {
  // f even in x: the bias gradients of x and −x cancel, their squares do not.
  DoubleMlp net({3, 4}, 3);
  const Tensor half = normal({1, 3}, 4), x = cat({half, -half});
  net.parameters()[1].fill_(0);
  const Tensor values = sum(square(net(x)), {1});
  const TensorList bias = {net.parameters()[1]};
  CHECK(param_gradient_penalty_batch(values, bias).item() < 1e-28);
  CHECK(param_gradient_penalty_per_sample(
            [&](const TensorList& b) { return sum(square(net(b[0])), {1}); }, {x}, bias)
            .item() > 0.1);
}

TEST_CASE("jacobian_penalty estimates the squared Frobenius norm without bias") {
  const Tensor w = normal({3, 4}, 1), x = normal({2, 4}, 2).requires_grad_();
  Rng rng(3);
  constexpr int kDraws = testing::kSanitized ? 800 : 20'000;
  const double mean = jacobian_penalty(linear(x, w), x, rng, kDraws).item();
  CHECK(mean == doctest::Approx(sum(square(w)).item()).epsilon(2.8 / std::sqrt(kDraws)));
  // With one output the sphere has two points and the estimate no error.
  const Tensor one = linear(x, normal({1, 4}, 5));
  CHECK(jacobian_penalty(one, x, rng).item() ==
        doctest::Approx(sum(square(normal({1, 4}, 5))).item()).epsilon(1e-13));
}

TEST_CASE("O6 gradient penalty: alone, it changes the weights in the direction that lowers it") {
  const Tensor x = normal({6, 4}, 2), labels = normal({6, 3}, 3);
  const auto values = [&](Mlp& net, const Tensor& at) {
    return sum(square(net(at) - labels), {1});
  };
  struct Kind {
    const char* name;
    std::function<Tensor(Mlp&)> penalty;
  };
  const std::vector<Kind> kinds = {
      {"input",
       [&](Mlp& net) {
         return input_gradient_penalty([&](const Tensor& at) { return values(net, at); }, x);
       }},
      {"parameters, batch",
       [&](Mlp& net) { return param_gradient_penalty_batch(values(net, x), net.parameters()); }},
      {"parameters, samples",
       [&](Mlp& net) { return param_gradient_penalty_per_sample(values(net, x), net); }},
      {"wgan_gp",
       [&](Mlp& net) {
         return wgan_gp([&](const Tensor& at) { return values(net, at); }, x, x * 0.3,
                        full({6}, 0.5, DType::f64));
       }},
      {"input, difference",
       [&](Mlp& net) {
         const Tensor at = x.detach().requires_grad_();
         return input_gradient_penalty_difference([&](const Tensor& y) { return values(net, y); },
                                                  values(net, at), at, {.step = 1e-4});
       }},
      {"parameters, difference", [&](Mlp& net) {
         return param_gradient_penalty_difference([&] { return mean(values(net, x)); },
                                                  net.parameters(), {.step = 1e-4});
       }}};
  for (const Kind& kind : kinds) {
    CAPTURE(std::string(kind.name));
    DoubleMlp net({4, 6, 3}, 5);
    const double before = kind.penalty(net).item();
    const Tensor weight = net.layers()[0].weight, kept = empty_like(weight).copy_(weight);
    SGD sgd(net.parameters(), {.lr = 1e-4});
    for (int step = 0; step < 5; ++step) {
      const Tensor penalty = kind.penalty(net);
      sgd.zero_grad();
      backward(penalty);
      sgd.step();
    }
    CHECK(max_difference(weight, kept) > 1e-6);
    CHECK(kind.penalty(net).item() < before);
  }
}

TEST_CASE("O6 gradient penalty: zero and absent gradients are no error") {
  DoubleMlp net({4, 5, 2}, 1);
  const TensorList params = net.parameters();
  // Constant functions, with and without a graph.
  const Tensor x = normal({3, 4}, 2).requires_grad_();
  CHECK(input_gradient_penalty(zeros({3}, DType::f64), x).item() == 0);
  CHECK(input_gradient_penalty(sum(x * 0.0, {1}), x).item() == 0);
  CHECK(input_gradient_penalty(head(params[0]), normal({5, 1}, 1).requires_grad_()).item() == 0);
  CHECK(param_gradient_penalty_batch(sum(x, {1}), params).item() == 0);
  CHECK(param_gradient_penalty_batch(zeros({3}, DType::f64), params).item() == 0);
  CHECK(param_gradient_penalty_per_sample(sum(x, {1}), net).item() == 0);
  CHECK(param_gradient_penalty_difference([] { return scalar(1, DType::f64); }, params).item() ==
        0);
  // Exactly zero input gradients: norms are not differentiable there, the penalty is 1 and finite.
  const auto flat = [&](const Tensor& at) { return sum(net(at * 0.0), {1}); };
  const Tensor gp = wgan_gp(flat, x.detach(), x.detach(), full({3}, 0.5, DType::f64));
  CHECK(gp.item() == 1);
  for (const Tensor& g : gradient(gp, params)) CHECK(all(isfinite(g)));
  // The last bias under a linear f: its gradient is 0 exactly.
  const Tensor p =
      input_gradient_penalty([&](const Tensor& at) { return sum(net(at), {1}); }, x.detach());
  const TensorList g = gradient(p, params);
  CHECK(largest(g[3]) == 0);
  CHECK(largest(g[0]) > 0);
  // No samples.
  const auto net_head = [&](const Tensor& at) { return head(net(at)); };
  CHECK(input_gradient_penalty(net_head, zeros({0, 4}, DType::f64)).item() == 0);
  CHECK(param_gradient_penalty_batch(net_head(zeros({0, 4}, DType::f64)), params).item() == 0);
}

TEST_CASE("finite differences approach the exact gradient, and their value is exact") {
  DoubleMlp net({4, 6, 3}, 5);
  const TensorList params = net.parameters();
  const Tensor x = normal({6, 4}, 2).requires_grad_();
  const SampleFunction f = [&](const Tensor& at) { return head(net(at)); };
  const Tensor input = input_gradient_penalty(f(x), x);
  const Tensor param = param_gradient_penalty_batch(f(x), params);
  const double input_value = input.item(), param_value = param.item();
  const TensorList input_exact = gradient(input, params), param_exact = gradient(param, params);
  double previous_input = 1, previous_param = 1;
  for (const bool central : {false, true})
    for (const double step : {1e-1, 1e-2, 1e-3}) {
      CAPTURE(central);
      CAPTURE(step);
      const Tensor a = input_gradient_penalty_difference(f, f(x), x, {step, central});
      CHECK(a.item() == doctest::Approx(input_value).epsilon(1e-13));
      const double ea = relative_difference(gradient(a, params), input_exact);
      const Tensor b =
          param_gradient_penalty_difference([&] { return mean(f(x)); }, params, {step, central});
      CHECK(b.item() == doctest::Approx(param_value).epsilon(1e-13));
      const double eb = relative_difference(gradient(b, params), param_exact);
      MESSAGE("step ", step, central ? " central" : " forward", ": relative error input ", ea,
              ", parameters ", eb);
      CHECK(ea < (central ? 10 * step * step : 3 * step));
      CHECK(eb < (central ? 10 * step * step : 3 * step));
      if (step < 0.1) {
        CHECK(ea < previous_input / 5);
        CHECK(eb < previous_param / 5);
      }
      previous_input = ea;
      previous_param = eb;
    }
}

TEST_CASE("moved parameters are put back bit for bit, also when the loss throws") {
  DoubleMlp net({4, 6, 3}, 5);
  TensorList kept;
  for (const Tensor& p : net.parameters()) kept.push_back(empty_like(p).copy_(p));
  const Tensor x = normal({6, 4}, 2);
  int calls = 0;
  const auto loss = [&] {
    if (++calls > 1) throw ValueError("no second time");
    return mean(head(net(x)));
  };
  CHECK(message_of<ValueError>([&] {
          param_gradient_penalty_difference(loss, net.parameters());
        }) == "no second time");
  param_gradient_penalty_difference([&] { return mean(head(net(x))); }, net.parameters(),
                                    {.central = true});
  for (std::size_t i = 0; i < kept.size(); ++i) CHECK(same_bits(kept[i], net.parameters()[i]));
}

TEST_CASE("parameters whose elements share memory are refused before anything is moved") {
  const Tensor row = normal({1, 3}, 1), p = broadcast_to(row, {2, 3}).requires_grad_();
  const Tensor fine = normal({2, 3}, 2).requires_grad_();
  const auto penalty = [&](const TensorList& params) {
    param_gradient_penalty_difference([&] { return sum(square(p * fine)); }, params);
  };
  CHECK(message_of<ValueError>([&] {
          penalty({fine, p});
        }) ==
        "param_gradient_penalty_difference: parameters are moved in place, and elements of an "
        "expanded one share memory; got params[1] = [2, 3] f64, axis 0 has stride 0. Hint: "
        "contiguous(x)");
  CHECK(same_bits(fine.detach(), normal({2, 3}, 2)));
  penalty({fine});
  const Tensor turned = transpose(normal({3, 2}, 3), 0, 1).detach().requires_grad_();
  param_gradient_penalty_difference([&] { return sum(square(turned * fine)); }, {turned});
  CHECK(same_bits(contiguous_data(turned.detach()),
                  contiguous_data(transpose(normal({3, 2}, 3), 0, 1))));
}

TEST_CASE("batch norm in training mode is refused where samples are differentiated") {
  Rng rng(1);
  Sequential net;
  net.add<Conv2d>(1, 2, 3, rng);
  net.add<BatchNorm2d>(2);
  net.add<Activation>(activation("relu"));
  Rng data(2);
  const Tensor x = data.normal({4, 1, 5, 5}, 0, 1).requires_grad_();
  const auto values = [&](const Tensor& at) { return sum(flatten(net(at), 1), {1}); };
  for (const std::string& message :
       {message_of<GradError>([&] { input_gradient_penalty(values, x); }),
        message_of<GradError>([&] { wgan_gp(values, x, x, rng); }),
        message_of<GradError>([&] { jacobian_penalty(flatten(net(x), 1), x, rng); }),
        message_of<GradError>([&] { param_gradient_penalty_per_sample(values(x), net); }),
        message_of<GradError>([&] {
          param_gradient_penalty_per_sample([&](const TensorList& b) { return values(b[0]); }, {x},
                                            net.parameters());
        }),
        message_of<GradError>([&] { input_gradient_penalty_difference(values, values(x), x); })}) {
    CAPTURE(message);
    CHECK(contains(message, "batch norm in training mode (net/1)"));
    CHECK(contains(message, "by the mean and variance of all"));
    CHECK(contains(message, "eval()"));
  }
  // The penalty of the batch needs no single samples.
  CHECK(param_gradient_penalty_batch(values(x), net.parameters()).item() > 0);
  // A network with batch norm that made x is none of our business.
  BatchNorm2d generator(1);
  const Tensor made = generator(x);
  CHECK(input_gradient_penalty([](const Tensor& at) { return sum(flatten(square(at), 1), {1}); },
                               made)
            .item() > 0);
  net.eval();
  CHECK(input_gradient_penalty(values, x).item() > 0);
  CHECK(param_gradient_penalty_per_sample(values(x), net).item() > 0);
}

TEST_CASE("O5 double-backward graph is freed: 200 penalty steps end with what 2 end with") {
  DoubleMlp net({4, 6, 3}, 5);
  const Tensor x = normal({6, 4}, 2);
  SGD sgd(net.parameters(), {.lr = 1e-5});
  const auto live_after = [&](int steps) {
    for (int k = 0; k < steps; ++k) {
      const Tensor at = x.detach().requires_grad_(), values = head(net(at));
      const Tensor total = mean(values) + 0.1 * input_gradient_penalty(values, at) +
                           0.1 * param_gradient_penalty_batch(values, net.parameters()) +
                           0.1 * param_gradient_penalty_per_sample(values, net);
      sgd.zero_grad();
      backward(total);
      sgd.step();
    }
    return std::pair(live_nodes(), memory_stats().live);
  };
  const auto two = live_after(2), many = live_after(200);
  CHECK(many.first == two.first);
  CHECK(many.second == two.second);
}

TEST_CASE("penalties have the same bits for any number of threads") {
  Rng rng(1);
  Mlp net({300, 200, 50}, rng, {.activation = "softplus"});
  const Tensor x = rng.normal({64, 300}, 0, 1);
  const auto run = [&](int threads) {
    const Threads guard(threads);
    const Tensor at = x.detach().requires_grad_(), values = head(net(at));
    return gradient(input_gradient_penalty(values, at) +
                        param_gradient_penalty_per_sample(values, net) +
                        param_gradient_penalty_batch(values, net.parameters()),
                    net.parameters());
  };
  const TensorList one = run(1);
  for (const int threads : {2, 3})
    for (std::size_t i = 0; i < one.size(); ++i) CHECK(same_bits(run(threads)[i], one[i]));
}

TEST_CASE("penalties say what is wrong") {
  DoubleMlp net({4, 2}, 1);
  const Tensor x = normal({3, 4}, 2), y = net(x);
  CHECK(message_of<ShapeError>(
            [&] { input_gradient_penalty([&](const Tensor& at) { return net(at); }, x); }) ==
        "input_gradient_penalty: one value for each sample, [B]; got values [3, 2] for x [3, "
        "4]. Hint: a loss before its mean");
  CHECK(contains(message_of<ShapeError>([&] {
                   input_gradient_penalty([&](const Tensor& at) { return mean(net(at)); }, x);
                 }),
                 "got values [] for x [3, 4]"));
  CHECK(message_of<GradError>([&] { input_gradient_penalty(head(y), x); }) ==
        "input_gradient_penalty: x must require a gradient when the values are computed. Hint: "
        "x.requires_grad_()");
  CHECK(contains(message_of<ShapeError>([&] { wgan_gp(head, x, x, zeros({2}, DType::f64)); }),
                 "wgan_gp: real and fake of one shape [B, ...], mix [B]; got [3, 4], [3, 4] and "
                 "[2]"));
  Rng rng(1);
  CHECK(contains(message_of<ValueError>([&] { jacobian_penalty(y, x, rng, 0); }),
                 "at least 1 projection; got 0"));
  CHECK(contains(message_of<ShapeError>([&] { param_gradient_penalty_batch(y, net.parameters()); }),
                 "values [B] or one number; got [3, 2]"));
  CHECK(contains(message_of<ValueError>([&] {
                   param_gradient_penalty_difference([&] { return mean(y); }, {}, {.step = 0});
                 }),
                 "the step must be positive; got 0"));
  CHECK(contains(message_of<ShapeError>([&] {
                   param_gradient_penalty_per_sample(
                       [&](const TensorList& b) { return head(b[0]); }, {x, zeros({2})}, {});
                 }),
                 "one first axis for all tensors of the batch; got [3, 4] and [2]"));
}

TEST_CASE("penalty by differences: nothing reaches what the input was made of") {
  Rng rng(1);
  const Tensor made_of = rng.normal({3, 4}, 0, 1, DType::f64).requires_grad_(),
               w = rng.normal({4}, 0, 1, DType::f64).requires_grad_();
  const auto f = [&](const Tensor& x) { return sum(square(x * w), {1}); };
  for (const bool central : {false, true}) {
    const Tensor x = made_of * 2.0;
    const Tensor p = input_gradient_penalty_difference(f, f(x), x, {.central = central});
    const TensorList g = grad(TensorList{p}, TensorList{made_of, w}, {}, {.allow_unused = true});
    CHECK((!g[0].defined() || sum(abs(g[0])).item() == 0));
    CHECK(sum(abs(g[1])).item() > 0);
  }
}

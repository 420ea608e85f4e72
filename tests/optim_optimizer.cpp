// What all optimizers share: groups, skipped parameters, state, versions, strides, threads.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/parallel.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/core/vspace.hpp>
#include <capsfw/optim/adam.hpp>
#include <capsfw/optim/rmsprop.hpp>
#include <capsfw/optim/sgd.hpp>

using namespace capsfw;

namespace {

/// Every optimizer with all of its buffers, behind one type.
using Maker = std::function<std::unique_ptr<Optimizer>(const ParamList&)>;
const std::vector<Maker>& makers() {
  static const std::vector<Maker> all = {
      [](const ParamList& p) { return std::make_unique<SGD>(p, SGDOptions{.lr = 0.1}); },
      [](const ParamList& p) {
        return std::make_unique<SGD>(
            p, SGDOptions{.lr = 0.1, .momentum = 0.9, .weight_decay = 0.1, .nesterov = true});
      },
      [](const ParamList& p) {
        return std::make_unique<Adam>(p, AdamOptions{.weight_decay = 0.1});
      },
      [](const ParamList& p) { return std::make_unique<AdamW>(p, AdamWOptions{.amsgrad = true}); },
      [](const ParamList& p) { return std::make_unique<RMSprop>(p); },
      [](const ParamList& p) {
        return std::make_unique<RMSprop>(p, RMSpropOptions{.momentum = 0.9, .centered = true});
      }};
  return all;
}

/// The fixed gradient of step `t` for a tensor like `p`.
Tensor gradient(const Tensor& p, int t) {
  Rng rng(100, static_cast<std::uint64_t>(t));
  return rng.normal(p.shape(), 0, 1, p.dtype());
}

Tensor start(const Shape& shape, DType dtype = DType::f32) {
  Rng rng(5);
  return rng.normal(shape, 0, 1, dtype).requires_grad_();
}

void run(Optimizer& optimizer, int from, int to) {
  for (int t = from; t < to; ++t) {
    for (Tensor p : optimizer.parameters()) p.set_grad(gradient(p, t));
    optimizer.step();
  }
}

std::vector<double> values(const Tensor& x) { return x.to_vector<double>(); }

}  // namespace

TEST_CASE("parameters without a gradient keep their value, state and version") {
  for (const Maker& make : makers()) {
    Tensor used = start({4}), idle = start({4});
    const auto optimizer = make({{"used", used}, {"idle", idle}});
    const auto before = values(idle);
    const auto version = idle.version();
    for (int t = 0; t < 3; ++t) {
      used.set_grad(gradient(used, t));
      optimizer->step();
    }
    CHECK(values(idle) == before);
    CHECK(idle.version() == version);
    CHECK(values(used) != before);
    const StateDict state = optimizer->state_dict();
    CHECK(state.at("used.step").item() == 3);
    CHECK(state.at("idle.step").item() == 0);
    CHECK_FALSE(state.contains("idle.exp_avg"));
    // The late parameter starts at t = 1, as the other did.
    idle.set_grad(gradient(idle, 0));
    used.set_grad({});
    optimizer->step();
    Tensor fresh = start({4});
    const auto other = make({fresh});
    fresh.set_grad(gradient(fresh, 0));
    other->step();
    CHECK(values(idle) == values(fresh));
  }
}

TEST_CASE("zero_grad drops all gradients") {
  Tensor a = start({2}), b = start({2}), frozen = ones({2});
  SGD optimizer({a, b, frozen});
  a.set_grad(ones({2}));
  optimizer.zero_grad();
  CHECK_FALSE(a.grad().defined());
  CHECK_FALSE(b.grad().defined());
  CHECK_FALSE(frozen.grad().defined());
}

TEST_CASE("groups override lr and weight_decay, and follow set_lr in proportion") {
  Tensor a = ones({1}), b = ones({1}), c = ones({1});
  SGD optimizer({{.params = {a}},
                 {.params = {b}, .lr = 0.2},
                 {.params = {{"c", c}}, .lr = 0, .weight_decay = 5}},
                {.lr = 0.1, .weight_decay = 1});
  const auto step = [&] {
    for (Tensor p : {a, b, c}) {
      p.fill_(1);
      p.set_grad(ones({1}));
    }
    optimizer.step();
    return std::vector<double>{a.item(), b.item(), c.item()};
  };
  const auto close = [](const std::vector<double>& got, const std::vector<double>& want) {
    for (std::size_t i = 0; i < 3; ++i) CHECK(got[i] == doctest::Approx(want[i]).epsilon(1e-6));
  };
  close(step(), {1 - 0.1 * 2, 1 - 0.2 * 2, 1});
  optimizer.set_lr(0.05);
  CHECK(optimizer.lr() == 0.05);
  close(step(), {1 - 0.05 * 2, 1 - 0.1 * 2, 1});
  optimizer.set_lr(0);
  close(step(), {1, 1, 1});
  optimizer.set_lr(0.1);
  close(step(), {1 - 0.1 * 2, 1 - 0.2 * 2, 1});

  SGD decay({{.params = {a}}, {.params = {b}, .weight_decay = 0}}, {.lr = 0.1, .weight_decay = 1});
  for (Tensor p : {a, b}) {
    p.fill_(1);
    p.set_grad(ones({1}));
  }
  decay.step();
  CHECK(a.item() == doctest::Approx(0.8));
  CHECK(b.item() == doctest::Approx(0.9));
  CHECK(optimizer.state_dict().contains("0.step"));
  CHECK(optimizer.state_dict().contains("1.step"));
  CHECK(optimizer.state_dict().contains("c.step"));
}

TEST_CASE("a group of AdamW shrinks by its own lr and weight_decay") {
  Tensor a = ones({1}, DType::f64), b = ones({1}, DType::f64);
  AdamW optimizer({{.params = {a}}, {.params = {b}, .lr = 0.5, .weight_decay = 0.2}}, {.lr = 0.1});
  for (Tensor p : {a, b}) p.set_grad(zeros({1}, DType::f64));
  optimizer.step();
  CHECK(a.item() == doctest::Approx(1 - 0.1 * 0.01).epsilon(1e-14));
  CHECK(b.item() == doctest::Approx(1 - 0.5 * 0.2).epsilon(1e-14));
}

TEST_CASE("a run that continues from its state is the same run, bit for bit") {
  for (const DType dtype : {DType::f32, DType::f64})
    for (const Maker& make : makers()) {
      Tensor whole = start({3, 5}, dtype), first = start({3, 5}, dtype);
      const auto uninterrupted = make({whole});
      run(*uninterrupted, 0, 8);

      const auto before = make({first});
      run(*before, 0, 4);
      const StateDict state = before->state_dict();
      std::vector<std::vector<double>> saved;
      for (const auto& [name, value] : state) saved.push_back(values(value));
      Tensor second = empty_like(first);
      second.copy_(first);
      run(*before, 4, 6);  // must not reach into `state`
      const auto after = make({second});
      after->load_state_dict(state);
      run(*after, 4, 6);
      CHECK(values(second) == values(first));
      run(*after, 6, 8);  // nor may this one
      CHECK(values(second) == values(whole));
      CHECK(values(second) != values(first));
      std::size_t k = 0;
      for (const auto& [name, value] : state) CHECK(values(value) == saved[k++]);
    }
}

TEST_CASE("the state is what the documentation lists") {
  const auto names = [](const Optimizer& optimizer) {
    std::vector<std::string> out;
    for (const auto& [name, value] : optimizer.state_dict()) out.push_back(name);
    return out;
  };
  using Names = std::vector<std::string>;
  Tensor p = start({2, 3}, DType::f64);
  p.set_grad(ones_like(p));
  Adam adam({{"w", p}}, {.amsgrad = true});
  CHECK(names(adam) == Names{"w.step"});
  adam.step();
  CHECK(names(adam) == Names{"w.step", "w.exp_avg", "w.exp_avg_sq", "w.max_exp_avg_sq"});
  CHECK(adam.state_dict().at("w.exp_avg").shape() == Shape{2, 3});
  CHECK(adam.state_dict().at("w.exp_avg").dtype() == DType::f64);
  CHECK(adam.state_dict().at("w.exp_avg").to_vector<double>()[5] == doctest::Approx(0.1));
  SGD plain({p});
  plain.step();
  CHECK(names(plain) == Names{"0.step"});
  SGD momentum({p}, {.momentum = 0.5});
  momentum.step();
  CHECK(names(momentum) == Names{"0.step", "0.momentum_buffer"});
  RMSprop rms({p}, {.momentum = 0.5, .centered = true});
  rms.step();
  CHECK(names(rms) == Names{"0.step", "0.square_avg", "0.grad_avg", "0.momentum_buffer"});
  // A state without steps takes the buffers away again.
  rms.load_state_dict(RMSprop({p}, {.momentum = 0.5, .centered = true}).state_dict());
  CHECK(names(rms) == Names{"0.step"});
}

TEST_CASE("a step writes in place, outside the graph, and counts as a change") {
  for (const Maker& make : makers()) {
    Tensor p = start({4});
    const Tensor alias = p.detach();
    const auto optimizer = make({p});
    p.set_grad(ones({4}));
    const auto version = p.version();
    const auto* data = p.data<float>();
    optimizer->step();
    CHECK(p.version() > version);
    CHECK(p.data<float>() == data);
    CHECK(values(alias) == values(p));
    CHECK(p.is_leaf());
    CHECK(p.requires_grad());
    CHECK_FALSE(p.grad().requires_grad());
  }
}

TEST_CASE("a step after backward descends") {
  Tensor p = ones({3});
  p.requires_grad_();
  SGD optimizer({p}, {.lr = 0.5});
  backward(sum_to(add(p, p), Shape{}));
  optimizer.step();
  CHECK(values(p) == std::vector<double>{0, 0, 0});
}

TEST_CASE("gradients may have any strides and overlap the parameter") {
  for (const Maker& make : makers()) {
    Tensor a = start({4, 6}), b = start({4, 6});
    Rng rng(8);
    const Tensor transposed = strided_view(rng.normal({6, 4}, 0, 1), {4, 6}, {1, 4}, 0);
    const Tensor expanded = broadcast_to(rng.normal({6}, 0, 1), {4, 6});
    const auto strided = make({a}), plain = make({b});
    for (const Tensor& g : {transposed, expanded}) {
      a.set_grad(g);
      b.set_grad(contiguous_data(g));
      strided->step();
      plain->step();
    }
    CHECK(values(a) == values(b));
    // The weights themselves, moved by one: each would read what its neighbour just became.
    Tensor memory = start({100}), weights = strided_view(memory, {99}, {1}, 1);
    Tensor other = start({100}), apart = empty({99});
    apart.copy_(strided_view(other, {99}, {1}, 1));
    const auto shared = make({weights}), separate = make({apart});
    weights.set_grad(strided_view(memory, {99}, {1}, 0));
    apart.set_grad(strided_view(other, {99}, {1}, 0));
    shared->step();
    separate->step();
    CHECK(values(weights) == values(apart));
  }
}

TEST_CASE("the weights are the same bits for any number of threads") {
  const int before = num_threads();
  for (const DType dtype : {DType::f32, DType::f64})
    for (const Maker& make : makers()) {
      std::vector<std::vector<double>> results;
      for (const int threads : {1, 2, 3, 7}) {
        set_num_threads(threads);
        Tensor large = start({331, 301}, dtype), small = start({7}, dtype);
        const auto optimizer = make({large, small});
        run(*optimizer, 0, 3);
        results.push_back(values(large));
      }
      for (const auto& r : results) CHECK(r == results[0]);
    }
  set_num_threads(before);
}

TEST_CASE("empty and scalar parameters are stepped") {
  for (const Maker& make : makers()) {
    Tensor none = zeros({0, 3}), one = scalar(1);
    const auto optimizer = make({none, one});
    none.set_grad(zeros({0, 3}));
    one.set_grad(scalar(1));
    optimizer->step();
    CHECK(one.item() < 1);
    CHECK(optimizer->state_dict().at("0.step").item() == 1);
  }
}

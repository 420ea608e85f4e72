// What optimizers refuse, in words.

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/vspace.hpp>
#include <capsfw/optim/adam.hpp>
#include <capsfw/optim/rmsprop.hpp>
#include <capsfw/optim/sgd.hpp>

#include "support.hpp"

using namespace capsfw;

namespace {

Tensor start(const Shape& shape) { return ones(shape).requires_grad_(); }

std::vector<double> values(const Tensor& x) { return x.to_vector<double>(); }

/// Steps under the gradient 1, for all parameters.
void run(Optimizer& optimizer, int steps) {
  for (int t = 0; t < steps; ++t) {
    for (Tensor p : optimizer.parameters()) p.set_grad(ones_like(p));
    optimizer.step();
  }
}

}  // namespace

TEST_CASE("parameters that cannot be trained are refused") {
  const Tensor p = start({2});
  const Tensor result = add(p, p);
  const Tensor gaps = strided_view(zeros({2, 2}), {2, 2}, {1, 2}, 0);
  CHECK_THROWS_WITH_AS(SGD(TensorList{}), "SGD: needs at least one parameter; got none",
                       ValueError);
  CHECK_THROWS_WITH_AS(SGD({Tensor()}),
                       "SGD: a parameter must be a defined tensor; got '0' undefined", ValueError);
  CHECK_THROWS_WITH_AS(Adam({p, arange(3)}),
                       "Adam: a parameter must be f32 or f64; got '1' = [3] i64", ValueError);
  CHECK_THROWS_WITH_AS(AdamW({{"y", result}}),
                       "AdamW: a parameter must be a leaf; got 'y' = [2] f32, the result of an op. "
                       "Hint: pass the tensor that the op was given",
                       ValueError);
  CHECK_THROWS_WITH_AS(RMSprop({gaps}),
                       "RMSprop: a parameter must be contiguous; got '0' = [2, 2] f32 with gaps. "
                       "Hint: contiguous_data()",
                       ValueError);
  CHECK_THROWS_WITH_AS(SGD({{"a", p}, {"b", p}}),
                       "SGD: every parameter is listed once; 'a' and 'b' are the same tensor",
                       ValueError);
  CHECK_THROWS_AS(SGD({{.params = {p}}, {.params = {p}}}), ValueError);
  CHECK_THROWS_WITH_AS(SGD({{"a", p}, {"a", zeros({1})}}),
                       "SGD: names of parameters are distinct; got two of 'a'", ValueError);
}

TEST_CASE("settings out of range are refused") {
  const Tensor p = start({2});
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  CHECK_THROWS_WITH_AS(SGD({p}, {.lr = -1}), "SGD: lr must be finite and >= 0; got -1", ValueError);
  CHECK_THROWS_WITH_AS(Adam({p}, {.lr = nan}), "Adam: lr must be finite and >= 0; got nan",
                       ValueError);
  CHECK_THROWS_AS(AdamW({p}, {.lr = inf}), ValueError);
  CHECK_THROWS_WITH_AS(RMSprop({p}, {.weight_decay = -1}),
                       "RMSprop: weight_decay must be finite and >= 0; got -1", ValueError);
  CHECK_THROWS_AS(AdamW({p}, {.weight_decay = nan}), ValueError);
  for (const double beta : {-0.1, 1.0, nan}) {
    CHECK_THROWS_AS(Adam({p}, {.beta1 = beta}), ValueError);
    CHECK_THROWS_AS(AdamW({p}, {.beta2 = beta}), ValueError);
    CHECK_THROWS_AS(RMSprop({p}, {.alpha = beta}), ValueError);
  }
  CHECK_THROWS_WITH_AS(Adam({p}, {.beta2 = 1}), "Adam: beta2 must lie in [0, 1); got 1",
                       ValueError);
  CHECK_THROWS_WITH_AS(AdamW({p}, {.eps = 0}),
                       "AdamW: eps must be a positive normal number of f32, the type of the "
                       "parameters; got 0",
                       ValueError);
  const Tensor wide = ones({2}, DType::f64).requires_grad_();
  CHECK_NOTHROW(Adam({wide}, {.eps = 1e-300}));
  CHECK_THROWS_AS(Adam({wide, p}, {.eps = 1e-40}), ValueError);  // a denormal of f32: flushed to 0
  CHECK_THROWS_AS(RMSprop({p}, {.eps = 1e-40}), ValueError);
  CHECK_THROWS_AS(Adam({p}, {.eps = 1e39}), ValueError);  // infinite in f32: no step would move
  CHECK_THROWS_AS(Adam({p}, {.eps = nan}), ValueError);
  CHECK_THROWS_AS(RMSprop({p}, {.eps = -1}), ValueError);
  CHECK_THROWS_AS(RMSprop({p}, {.momentum = -0.1}), ValueError);
  CHECK_THROWS_WITH_AS(SGD({p}, {.momentum = -0.1}),
                       "SGD: momentum must be finite and >= 0; got -0.1", ValueError);
  CHECK_THROWS_WITH_AS(SGD({p}, {.dampening = 2}), "SGD: dampening must lie in [0, 1]; got 2",
                       ValueError);
  CHECK_THROWS_WITH_AS(SGD({p}, {.nesterov = true}), "SGD: nesterov needs momentum > 0; got 0",
                       ValueError);
  CHECK_THROWS_WITH_AS(SGD({p}, {.momentum = 0.9, .dampening = 0.1, .nesterov = true}),
                       "SGD: nesterov needs dampening = 0; got 0.1", ValueError);
  CHECK_THROWS_WITH_AS(SGD({{.params = {p}, .lr = -2}}),
                       "SGD: lr of a group must be finite and >= 0; got -2", ValueError);
  CHECK_THROWS_AS(SGD({{.params = {p}, .weight_decay = nan}}), ValueError);
  CHECK_THROWS_WITH_AS(SGD({{.params = {p}, .lr = 2}}, {.lr = 0}),
                       "SGD: lr must be positive where a group has its own, which keeps its ratio "
                       "to it; got 0",
                       ValueError);
  SGD optimizer({p}, {.lr = 0.5});
  CHECK_THROWS_AS(optimizer.set_lr(nan), ValueError);
  CHECK_THROWS_AS(optimizer.set_lr(-1), ValueError);
  CHECK(optimizer.lr() == 0.5);
}

TEST_CASE("a state that does not fit is refused and changes nothing") {
  Tensor p = start({2, 3});
  Adam adam({{"w", p}});
  run(adam, 2);
  const StateDict good = adam.state_dict();
  const auto with = [&](const char* name, const Tensor& x) {
    StateDict s;
    for (const auto& [n, v] : good) s.set(n, v);
    s.set(name, x);
    return s;
  };
  const auto without = [&](const std::string& name) {
    StateDict s;
    for (const auto& [n, v] : good)
      if (n != name) s.set(n, v);
    return s;
  };
  CHECK_THROWS_WITH_AS(adam.load_state_dict(with("w.exp_avg", zeros({3, 2}))),
                       "Adam::load_state_dict: 'w.exp_avg' must be [2, 3] f32; got [3, 2] f32",
                       ShapeError);
  CHECK_THROWS_WITH_AS(adam.load_state_dict(with("w.exp_avg_sq", zeros({2, 3}, DType::f64))),
                       "Adam::load_state_dict: 'w.exp_avg_sq' must be [2, 3] f32; got [2, 3] f64",
                       DTypeError);
  CHECK_THROWS_WITH_AS(adam.load_state_dict(with("w.step", scalar(2.0))),
                       "Adam::load_state_dict: 'w.step' must be [] i64; got [] f32", DTypeError);
  CHECK_THROWS_WITH_AS(adam.load_state_dict(with("w.step", scalar(-1, DType::i64))),
                       "Adam::load_state_dict: 'w.step' must be at least 0; got -1", ValueError);
  CHECK_THROWS_WITH_AS(adam.load_state_dict(with("w.exp_avg", Tensor())),
                       "Adam::load_state_dict: 'w.exp_avg' must be [2, 3] f32; got undefined",
                       ShapeError);
  CHECK_THROWS_WITH_AS(
      adam.load_state_dict(with("v.step", scalar(0, DType::i64))),
      "Adam::load_state_dict: unknown entry 'v.step'. Hint: the parameters and options must be "
      "those of the saved optimizer",
      ValueError);
  CHECK_THROWS_WITH_AS(
      adam.load_state_dict(without("w.exp_avg_sq")),
      "Adam::load_state_dict: needs an entry 'w.exp_avg_sq'; got 2 entries without it. Hint: the "
      "parameters and options must be those that were saved",
      ValueError);
  CHECK_THROWS_AS(adam.load_state_dict({}), ValueError);
  CHECK_THROWS_AS(Adam({{"w", p}}, {.amsgrad = true}).load_state_dict(good), ValueError);
  const StateDict still = adam.state_dict();
  CHECK(still.at("w.step").item() == 2);
  CHECK(values(still.at("w.exp_avg")) == values(good.at("w.exp_avg")));
  CHECK(values(still.at("w.exp_avg_sq")) == values(good.at("w.exp_avg_sq")));
}

TEST_CASE("a step for which memory is missing moves nothing, and can be made later") {
  const Tensor small = start({4}), large = start({1 << 20});
  Adam adam({small, large}, {.lr = 0.5});
  for (Tensor p : adam.parameters()) p.set_grad(ones_like(p));
  {
    const capsfw::testing::MemoryLimit limit(memory_stats().live + (1 << 22) + (1 << 20));
    CHECK_THROWS_AS(adam.step(), MemoryError);
  }
  CHECK(values(small) == std::vector<double>(4, 1));
  CHECK(adam.state_dict().at("0.step").item() == 0);
  adam.load_state_dict(adam.state_dict());
  adam.step();
  CHECK(values(small)[0] == doctest::Approx(0.5));
  CHECK(values(large)[0] == doctest::Approx(0.5));
}

TEST_CASE("a parameter that changed its type after the first step is an error, before any write") {
  Tensor a = start({2}), b = start({2});
  Adam optimizer({{"a", a}, {"b", b}});
  run(optimizer, 1);
  const auto before = values(a);
  b.set_data(cast_data(b, DType::f64));
  a.set_grad(ones({2}));
  b.set_grad(ones({2}, DType::f64));
  CHECK_THROWS_WITH_AS(
      optimizer.step(),
      "Adam::step: a parameter keeps its shape and type; 'b' was [2] f32 and is now [2] f64. "
      "Hint: make the optimizer after Module::to",
      ValueError);
  CHECK(values(a) == before);
}

// Module: names, state, modes, element types, shared parameters.

#include <doctest/doctest.h>

#include <capsfw/core/debug.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/layers/basic.hpp>
#include <capsfw/layers/linear.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;

namespace {

using Names = std::vector<std::string>;

/// A module whose registration is open to the tests.
struct Open : Module {
  using Module::buffer;
  using Module::child;
  using Module::generator;
  using Module::param;
};

/// Two layers, a buffer and a parameter of its own.
struct Net : Layer {
  Rng rng{3};
  Linear fc1{3, 4, rng}, fc2{4, 2, rng};
  BatchNorm2d norm{2};
  Dropout drop{0.5, rng};
  Tensor scale, steps;
  Net() {
    scale = param("scale", full({2}, 3));
    steps = buffer("steps", from_vector(std::vector<std::int64_t>{7}));
    child("fc1", fc1);
    child("fc2", fc2);
    child("norm", norm);
    child("drop", drop);
  }
  Tensor forward(const Tensor& x) override { return fc2(relu(fc1(x))) * scale; }
};

Names names_of(const NamedTensors& list) {
  Names out;
  for (const auto& [name, t] : list) out.push_back(name);
  return out;
}

StateDict copy_of(const StateDict& state) {
  StateDict out;
  for (const auto& [name, t] : state) out.set(name, empty_like(t).copy_(t));
  return out;
}

bool same_state(const StateDict& a, const StateDict& b) {
  if (a.size() != b.size()) return false;
  for (const auto& [name, t] : a)
    if (!b.contains(name) || !same_bits(t, b.at(name))) return false;
  return true;
}

}  // namespace

TEST_CASE("parameters and buffers are named by their path, depth first") {
  const Net net;
  CHECK(names_of(net.named_parameters()) == Names{"scale", "fc1.weight", "fc1.bias", "fc2.weight",
                                                  "fc2.bias", "norm.weight", "norm.bias"});
  CHECK(names_of(net.named_buffers()) == Names{"steps", "norm.running_mean", "norm.running_var"});
  CHECK(net.parameter_count() == 2 + 12 + 4 + 8 + 2 + 2 + 2);
  CHECK(net.name().empty());
  CHECK(net.fc1.name() == "fc1");
  REQUIRE(net.children().size() == 4);
  CHECK(net.children()[1].second == &net.fc2);
  for (const Tensor& p : net.parameters()) CHECK((p.is_leaf() && p.requires_grad()));
}

TEST_CASE("a taken, empty or dotted name is refused, and nothing is registered") {
  Open m;
  Open inner;
  m.param("w", ones({2}));
  m.buffer("b", ones({2}));
  m.child("c", inner);
  for (const char* bad : {"w", "b", "c", "", "a.b", "."}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(m.param(bad, ones({2})), ValueError);
    CHECK_THROWS_AS(m.buffer(bad, ones({2})), ValueError);
    CHECK_THROWS_AS(m.child(bad, inner), ValueError);
  }
  CHECK(message_of<ValueError>([&] { m.param("a.b", ones({2})); }) ==
        "module: names must be new, not empty and without dots; got 'a.b'");
  CHECK(m.named_parameters().size() == 1);
  CHECK(m.named_buffers().size() == 1);
  CHECK(m.children().size() == 1);
  CHECK(inner.name() == "c");
  CHECK_THROWS_AS(m.param("undefined", Tensor()), Error);
}

TEST_CASE("a state dict restores every value, and holds no graph") {
  Net net;
  const StateDict kept = copy_of(net.state_dict());
  CHECK(kept.size() == 10);
  for (const auto& [name, t] : net.state_dict()) CHECK_FALSE(t.requires_grad());
  for (Tensor p : net.parameters()) p.fill_(9);
  net.steps.fill_(0);
  CHECK_FALSE(same_state(net.state_dict(), kept));
  CHECK(net.state_dict().at("fc1.weight").to_vector<float>()[0] == 9);
  net.load_state_dict(kept);
  CHECK(same_state(net.state_dict(), kept));
  CHECK(net.fc1.weight.requires_grad());

  Net other;
  other.to(DType::f64);
  other.load_state_dict(kept);
  CHECK(other.fc2.weight.dtype() == DType::f64);
  CHECK(max_difference(other.fc2.weight, net.fc2.weight) == 0);
}

TEST_CASE("a state that does not fit is refused as a whole, with every reason") {
  Net net;
  StateDict state;
  for (const auto& [name, t] : net.state_dict())
    if (name != "fc1.bias" && name != "norm.running_var") state.set(name, full_like(t, 5));
  state.set("fc2.weight", ones({4, 2}));
  state.set("fc3.weight", ones({1}));
  state.set("norm.running_mean", zeros({2}, DType::i64));
  state.set("old", ones({6, 1}));
  const StateDict before = copy_of(net.state_dict());
  CHECK(message_of<ValueError>([&] { net.load_state_dict(state); }) ==
        "load_state_dict: the state does not fit this module:"
        "\n  missing: fc1.bias [4]"
        "\n  shape: fc2.weight is [2, 4] here, [4, 2] in the state"
        "\n  type: norm.running_mean is f32 here, i64 in the state"
        "\n  missing: norm.running_var [2]"
        "\n  unexpected: fc3.weight [1]"
        "\n  unexpected: old [6, 1]");
  CHECK(same_state(net.state_dict(), before));
}

TEST_CASE("train and eval reach the whole tree") {
  Net net;
  CHECK((net.training() && net.drop.training()));
  net.eval();
  CHECK_FALSE((net.training() || net.drop.training() || net.norm.training()));
  net.train();
  CHECK((net.training() && net.drop.training() && net.norm.training()));
}

TEST_CASE("a ModeGuard puts every mode back, also behind an error") {
  Net net;
  net.norm.eval();  // frozen
  try {
    const ModeGuard mode(net);
    net.eval();
    throw 1;
  } catch (int) {
  }
  CHECK((net.training() && net.drop.training() && !net.norm.training()));
}

TEST_CASE("to(f64) is seen through every handle, and the module computes in f64") {
  Net net;
  const Tensor handle = net.fc1.weight;
  const TensorList listed = net.parameters();
  const auto before = values(net.fc1.weight);
  backward(sum(net(ones({2, 3}))));
  CHECK(handle.grad().dtype() == DType::f32);
  net.to(DType::f64);
  CHECK(handle.dtype() == DType::f64);
  for (const Tensor& p : listed) CHECK((p.dtype() == DType::f64 && p.requires_grad()));
  CHECK(values(net.fc1.weight) == before);
  CHECK(net.norm.named_buffers()[0].second.dtype() == DType::f64);
  CHECK(net.steps.dtype() == DType::i64);

  const Tensor y = net(ones({2, 3}, DType::f64));
  CHECK(y.dtype() == DType::f64);
  backward(sum(y));
  for (const Tensor& p : {net.scale, net.fc1.weight, net.fc1.bias, net.fc2.weight})
    CHECK(p.grad().dtype() == DType::f64);
  net.to(DType::f32);
  CHECK(net(ones({2, 3})).dtype() == DType::f32);
  CHECK_THROWS_AS(net.to(DType::i64), DTypeError);
  CHECK(handle.dtype() == DType::f32);
}

TEST_CASE("frozen parameters get no gradient and are not counted as trainable") {
  Net net;
  net.fc1.freeze();
  CHECK(net.parameter_count(true) == net.parameter_count() - 16);
  backward(sum(net(ones({2, 3}))));
  CHECK_FALSE(net.fc1.weight.grad().defined());
  CHECK(net.fc2.weight.grad().defined());
  net.unfreeze();
  CHECK(net.parameter_count(true) == net.parameter_count());
  net.zero_grad();
  CHECK_FALSE(net.fc2.weight.grad().defined());
  backward(sum(net(ones({2, 3}))));
  CHECK(net.fc1.weight.grad().defined());
  net.freeze();
  CHECK_FALSE(net(ones({2, 3})).requires_grad());
}

TEST_CASE("a shared module or parameter is counted and saved once") {
  Rng rng(1);
  Linear shared(2, 2, rng);
  BatchNorm2d norm(2);
  Open m;
  m.child("a", shared);
  m.child("b", shared);
  m.child("n1", norm);
  m.child("n2", norm);
  CHECK(names_of(m.named_parameters()) == Names{"a.weight", "a.bias", "n1.weight", "n1.bias"});
  CHECK(names_of(m.named_buffers()) == Names{"n1.running_mean", "n1.running_var"});
  CHECK(m.parameter_count() == 10);
  m.load_state_dict(copy_of(m.state_dict()));

  Open tied;
  const Tensor w = tied.param("own", shared.weight);
  CHECK(w.impl() == shared.weight.impl());
  tied.child("lin", shared);
  CHECK(names_of(tied.named_parameters()) == Names{"own", "lin.bias"});
  backward(sum(w * 2.0) + sum(shared(ones({1, 2}))));
  CHECK(values(shared.weight.grad()) == std::vector<double>{3, 3, 3, 3});
  tied.to(DType::f64);
  CHECK(shared.weight.dtype() == DType::f64);
}

TEST_CASE("generators are found by their path, and their state makes training repeat itself") {
  Rng rng(1);
  Dropout drop(0.5, rng);
  Open inner, m;
  inner.child("drop", drop);
  m.child("a", inner);
  m.child("b", drop);  // shared: once
  const NamedGenerators found = m.named_generators();
  REQUIRE(found.size() == 1);
  CHECK(found[0].first == "a.drop.rng");
  StateDict state;
  found[0].second->save(state, "g");
  const Tensor x = ones({50});
  const auto once = values(drop(x));
  CHECK(values(drop(x)) != once);
  found[0].second->load(state, "g");
  CHECK(values(drop(x)) == once);
  CHECK_FALSE(m.state_dict().contains("a.drop.rng"));
  CHECK_THROWS_AS(inner.generator("drop", rng), ValueError);
}

TEST_CASE("a sequence names its layers by position and applies them in order") {
  Rng rng(1);
  Sequential net;
  Linear& first = net.add<Linear>(3, 5, rng);
  net.add<Activation>(relu);
  net.add<Linear>(5, 2, rng, LinearOptions{.bias = false});
  CHECK(net.size() == 3);
  CHECK(names_of(net.named_parameters()) == Names{"0.weight", "0.bias", "2.weight"});
  first.weight.fill_(1);
  first.bias.fill_(-4);
  Tensor(net.named_parameters()[2].second).fill_(2);
  const Tensor x = from_vector(std::vector<float>{1, 2, 3, 0, 1, 1}, {2, 3});
  const Tensor y = net(x);
  CHECK(values(y) == std::vector<double>{20, 20, 0, 0});
  CHECK(net.output_shape() == Shape{2, 2});
  CHECK(first.output_shape() == Shape{2, 5});
  CHECK(y.grad_fn()->path() == "net/2");
  CHECK(same_bits(Sequential()(x), x));
}

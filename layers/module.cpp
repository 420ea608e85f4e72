#include <capsfw/layers/module.hpp>

#include <algorithm>
#include <unordered_set>

#include <fmt/format.h>

#include <capsfw/core/debug.hpp>

namespace capsfw {
namespace {

constexpr int kMostProblems = 20;  // in one message

}  // namespace

template <class F>
void Module::visit(const std::string& prefix, const F& f) const {
  f(prefix, *this);
  for (const auto& [name, module] : children_) module->visit(prefix + name + ".", f);
}

NamedTensors Module::named_parameters() const {
  NamedTensors out;
  std::unordered_set<const void*> seen;
  visit("", [&](const std::string& prefix, const Module& m) {
    for (const auto& [name, p] : m.parameters_)
      if (seen.insert(p.impl()).second) out.emplace_back(prefix + name, p);
  });
  return out;
}

TensorList Module::parameters() const {
  TensorList out;
  for (auto& [name, p] : named_parameters()) out.push_back(p);
  return out;
}

NamedTensors Module::named_buffers() const {
  NamedTensors out;
  std::unordered_set<const void*> seen;
  visit("", [&](const std::string& prefix, const Module& m) {
    for (const auto& [name, b] : m.buffers_)
      if (seen.insert(b.impl()).second) out.emplace_back(prefix + name, b);
  });
  return out;
}

NamedGenerators Module::named_generators() const {
  NamedGenerators out;
  std::unordered_set<const void*> seen;
  visit("", [&](const std::string& prefix, const Module& m) {
    for (const auto& [name, rng] : m.generators_)
      if (seen.insert(rng).second) out.emplace_back(prefix + name, rng);
  });
  return out;
}

std::int64_t Module::parameter_count(bool trainable_only) const {
  std::int64_t n = 0;
  for (const auto& [name, p] : named_parameters())
    if (!trainable_only || p.requires_grad()) n += p.numel();
  return n;
}

StateDict Module::state_dict() const {
  StateDict out;
  for (const auto& [name, p] : named_parameters()) out.set(name, p.detach());
  for (const auto& [name, b] : named_buffers()) out.set(name, b.detach());
  return out;
}

void Module::load_state_dict(const StateDict& state) {
  NamedTensors mine = named_parameters();
  for (const auto& b : named_buffers()) mine.push_back(b);
  std::string problems;
  int count = 0;
  const auto problem = [&](const std::string& what) {
    if (++count <= kMostProblems) problems += "\n  " + what;
  };
  for (const auto& [name, t] : mine) {
    if (!state.contains(name))
      problem(fmt::format("missing: {} {}", name, t.shape().str()));
    else if (state.at(name).shape() != t.shape())
      problem(fmt::format("shape: {} is {} here, {} in the state", name, t.shape().str(),
                          state.at(name).shape().str()));
    else if (is_floating(state.at(name).dtype()) != is_floating(t.dtype()))
      problem(fmt::format("type: {} is {} here, {} in the state", name, name_of(t.dtype()),
                          name_of(state.at(name).dtype())));
  }
  for (const auto& [name, t] : state)
    if (std::none_of(mine.begin(), mine.end(),
                     [&name = name](const auto& e) { return e.first == name; }))
      problem(fmt::format("unexpected: {} {}", name, t.shape().str()));
  if (count > kMostProblems) problems += fmt::format("\n  and {} more", count - kMostProblems);
  if (count > 0)
    throw ValueError("load_state_dict: the state does not fit this module:" + problems);
  for (auto& [name, t] : mine) t.copy_(state.at(name));
}

void Module::train(bool on) {
  training_ = on;
  for (const auto& [name, module] : children_) module->train(on);
}

ModeGuard::ModeGuard(Module& root) { add(root); }

void ModeGuard::add(Module& module) {
  modes_.emplace_back(&module, module.training());
  for (const auto& [name, child] : module.children()) add(*child);
}

ModeGuard::~ModeGuard() {
  for (const auto& [module, training] : modes_) module->train(training);
}

void Module::to(DType dtype) {
  if (!is_floating(dtype)) throw_not_floating(dtype, "Module::to");
  visit("", [&](const std::string&, const Module& m) {
    for (const auto* list : {&m.parameters_, &m.buffers_})
      for (const auto& [name, t] : *list) {
        Tensor handle = t;
        if (is_floating(t.dtype()) && t.dtype() != dtype) handle.set_data(cast_data(t, dtype));
      }
  });
}

void Module::requires_grad_(bool on) {
  for (auto& [name, p] : named_parameters()) p.requires_grad_(on);
}

void Module::zero_grad() {
  for (auto& [name, p] : named_parameters()) p.set_grad({});
}

void Module::check_name(const std::string& name) const {
  const auto taken = [&](const auto& list) {
    return std::any_of(list.begin(), list.end(), [&](const auto& e) { return e.first == name; });
  };
  if (name.empty() || name.find('.') != std::string::npos || taken(parameters_) ||
      taken(buffers_) || taken(children_) || taken(generators_))
    throw ValueError(
        fmt::format("module: names must be new, not empty and without dots; got '{}'", name));
}

Tensor Module::param(const std::string& name, const Tensor& init) {
  check_name(name);
  // A trainable leaf is somebody's parameter: a copy of the handle would be trained beside it.
  Tensor p = init.is_leaf() && init.requires_grad() ? init : init.detach().requires_grad_();
  parameters_.emplace_back(name, p);
  return p;
}

Tensor Module::buffer(const std::string& name, const Tensor& init) {
  check_name(name);
  buffers_.emplace_back(name, init.detach());
  return buffers_.back().second;
}

void Module::child(const std::string& name, Module& module) {
  check_name(name);
  module.name_ = name;
  children_.emplace_back(name, &module);
}

void Module::generator(const std::string& name, Rng& rng) {
  check_name(name);
  generators_.emplace_back(name, &rng);
}

Tensor Layer::operator()(const Tensor& x) {
  const Scope scope(name().empty() ? "net" : name());
  Tensor y = forward(x);
  output_shape_ = y.shape();
  return y;
}

}  // namespace capsfw

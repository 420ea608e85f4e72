#include <capsfw/optim/optimizer.hpp>

#include <cmath>
#include <unordered_map>

#include <fmt/format.h>

namespace capsfw {
namespace {

/// A row-major copy that shares nothing with `x`.
Tensor copy_of(const Tensor& x) {
  Tensor y = empty(x.shape(), x.dtype());
  y.copy_(x);
  return y;
}

/// The gradient as a rule wants it. A gradient that is the parameter itself, or a view of it, would
/// change while it is read.
Tensor usable(const Tensor& grad, const Tensor& value) {
  return grad.storage() == value.storage() ? copy_of(grad) : contiguous_data(grad);
}

void check_parameter(const std::string& who, const std::string& name, const Tensor& x) {
  const auto fail = [&](const char* rule, const std::string& got) {
    throw ValueError(fmt::format("{}: a parameter must {}; got '{}' {}", who, rule, name, got));
  };
  if (!x.defined()) fail("be a defined tensor", "undefined");
  const std::string kind = fmt::format("= {} {}", x.shape().str(), name_of(x.dtype()));
  if (!is_floating(x.dtype())) fail("be f32 or f64", kind);
  if (!x.is_leaf())
    fail("be a leaf", kind + ", the result of an op. Hint: pass the tensor that the op was given");
  if (!x.is_contiguous()) fail("be contiguous", kind + " with gaps. Hint: contiguous_data()");
}

}  // namespace

ParamList::ParamList(const TensorList& tensors) {
  for (const Tensor& x : tensors) entries_.emplace_back("", x);
}

Optimizer::Optimizer(std::string name,
                     const std::vector<ParamGroup>& groups,
                     double lr,
                     double weight_decay,
                     std::vector<std::string> buffers)
    : name_(std::move(name)), buffer_names_(std::move(buffers)) {
  set_lr(lr);
  for (const ParamGroup& group : groups) add(group, group.weight_decay.value_or(weight_decay));
  if (slots_.empty()) throw ValueError(name_ + ": needs at least one parameter; got none");
}

void Optimizer::add(const ParamGroup& group, double weight_decay) {
  const double lr = group.lr.value_or(lr_);
  require(std::isfinite(lr) && lr >= 0, name_ + ": lr of a group must be finite and >= 0", lr);
  require(std::isfinite(weight_decay) && weight_decay >= 0,
          name_ + ": weight_decay must be finite and >= 0", weight_decay);
  require(lr == lr_ || lr_ > 0,
          name_ + ": lr must be positive where a group has its own, which keeps its ratio to it",
          lr_);
  for (const auto& [given, value] : group.params) {
    const std::string name = given.empty() ? std::to_string(slots_.size()) : given;
    check_parameter(name_, name, value);
    for (const Slot& s : slots_) {
      if (s.value.impl() == value.impl())
        throw ValueError(
            fmt::format("{}: every parameter is listed once; '{}' and '{}' are the "
                        "same tensor",
                        name_, s.name, name));
      if (s.name == name)
        throw ValueError(
            fmt::format("{}: names of parameters are distinct; got two of '{}'", name_, name));
    }
    slots_.push_back({name, value, lr == lr_ ? 1.0 : lr / lr_, weight_decay});
  }
}

void Optimizer::step() {
  std::vector<Tensor> grads;
  for (Slot& s : slots_) {
    Tensor& grad = grads.emplace_back(s.value.grad());
    if (!grad.defined()) continue;
    for (const Tensor& b : s.buffers)
      if (b.shape() != s.value.shape() || b.dtype() != s.value.dtype())
        throw ValueError(fmt::format(
            "{}::step: a parameter keeps its shape and type; '{}' was {} {} and is now {} {}. "
            "Hint: make the optimizer after Module::to",
            name_, s.name, b.shape().str(), name_of(b.dtype()), s.value.shape().str(),
            name_of(s.value.dtype())));
  }
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (!grads[i].defined()) continue;
    Slot& s = slots_[i];
    const Tensor grad = usable(grads[i], s.value);
    if (s.buffers.empty()) {
      TensorList fresh;
      for (std::size_t k = 0; k < buffer_names_.size(); ++k) fresh.push_back(zeros_like(s.value));
      s.buffers = std::move(fresh);
    }
    ++s.steps;
    update({s.value, grad, s.buffers, s.steps, lr_ * s.lr_scale, s.weight_decay});
  }
}

void Optimizer::zero_grad() {
  for (Slot& s : slots_)
    if (s.value.grad().defined()) s.value.set_grad({});
}

void Optimizer::set_lr(double lr) {
  require(std::isfinite(lr) && lr >= 0, name_ + ": lr must be finite and >= 0", lr);
  lr_ = lr;
}

TensorList Optimizer::parameters() const {
  TensorList all;
  for (const Slot& s : slots_) all.push_back(s.value);
  return all;
}

StateDict Optimizer::state_dict() const {
  StateDict state;
  for (const Slot& s : slots_) {
    state.set(s.name + ".step", full({}, static_cast<double>(s.steps), DType::i64));
    for (std::size_t k = 0; k < s.buffers.size(); ++k)
      state.set(s.name + "." + buffer_names_[k], copy_of(s.buffers[k]));
  }
  return state;
}

void Optimizer::load_state_dict(const StateDict& state) {
  const std::string who = name_ + "::load_state_dict";
  std::unordered_map<std::string, bool> known;
  const auto entry = [&](const std::string& name, const Shape& shape,
                         DType dtype) -> const Tensor& {
    if (!state.contains(name))
      throw ValueError(
          fmt::format("{}: needs an entry '{}'; got {} entries without it. Hint: the "
                      "parameters and options must be those of the saved optimizer",
                      who, name, state.size()));
    const Tensor& x = state.at(name);
    const bool same_shape = x.defined() && x.shape() == shape;
    if (same_shape && x.dtype() == dtype) {
      known[name] = true;
      return x;
    }
    const std::string message = fmt::format(
        "{}: '{}' must be {} {}; got {}", who, name, shape.str(), name_of(dtype),
        x.defined() ? fmt::format("{} {}", x.shape().str(), name_of(x.dtype())) : "undefined");
    if (same_shape) throw DTypeError(message);
    throw ShapeError(message);
  };

  std::vector<Slot> loaded = slots_;
  for (Slot& s : loaded) {
    s.steps = static_cast<std::int64_t>(entry(s.name + ".step", {}, DType::i64).item());
    s.buffers.clear();
    if (s.steps < 0)
      throw ValueError(
          fmt::format("{}: '{}.step' must be at least 0; got {}", who, s.name, s.steps));
    for (std::size_t k = 0; s.steps > 0 && k < buffer_names_.size(); ++k)
      s.buffers.push_back(
          copy_of(entry(s.name + "." + buffer_names_[k], s.value.shape(), s.value.dtype())));
  }
  for (const auto& [name, value] : state)
    if (!known.contains(name))
      throw ValueError(
          fmt::format("{}: unknown entry '{}'. Hint: the parameters and options must be "
                      "those of the saved optimizer",
                      who, name));
  slots_ = std::move(loaded);
}

void Optimizer::require(bool ok, std::string_view rule, double value) {
  if (!ok) throw ValueError(fmt::format("{}; got {}", rule, value));
}

}  // namespace capsfw

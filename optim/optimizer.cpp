#include <capsfw/optim/optimizer.hpp>

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include <fmt/format.h>

#include "detail/parameters.hpp"

namespace capsfw {
namespace {

using detail::copy_of;

/// The gradient as a rule wants it. A gradient that is the parameter itself, or a view of it, would
/// change while it is read.
Tensor usable(const Tensor& grad, const Tensor& value) {
  return grad.storage() == value.storage() ? copy_of(grad) : contiguous_data(grad);
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
  std::vector<ParamList::Entry> all;
  for (const Slot& s : slots_) all.emplace_back(s.name, s.value);
  for (const auto& entry : detail::checked_parameters(name_, group.params, slots_.size())) {
    all.push_back(entry);
    slots_.push_back({entry.first, entry.second, lr == lr_ ? 1.0 : lr / lr_, weight_decay});
  }
  detail::check_distinct(name_, all);
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
  // All memory first: without enough of it nothing has changed.
  std::vector<TensorList> buffers(slots_.size());
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (!grads[i].defined()) continue;
    const Slot& s = slots_[i];
    grads[i] = usable(grads[i], s.value);
    buffers[i] = s.buffers;
    while (buffers[i].size() < buffer_names_.size()) buffers[i].push_back(zeros_like(s.value));
  }
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    if (!grads[i].defined()) continue;
    Slot& s = slots_[i];
    s.buffers = std::move(buffers[i]);
    ++s.steps;
    update({s.value, grads[i], s.buffers, s.steps, lr_ * s.lr_scale, s.weight_decay});
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

std::size_t Optimizer::missing_buffers() const {
  const bool stepped =
      std::any_of(slots_.begin(), slots_.end(), [](const Slot& s) { return !s.buffers.empty(); });
  return stepped ? 0 : buffer_names_.size();
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
  std::unordered_set<std::string> known;
  std::vector<Slot> loaded = slots_;
  for (Slot& s : loaded) {
    known.insert(s.name + ".step");
    s.steps = detail::state_count(who, state, s.name + ".step");
    s.buffers.clear();
    for (std::size_t k = 0; s.steps > 0 && k < buffer_names_.size(); ++k) {
      const std::string name = s.name + "." + buffer_names_[k];
      known.insert(name);
      s.buffers.push_back(
          copy_of(detail::state_entry(who, state, name, s.value.shape(), s.value.dtype())));
    }
  }
  for (const auto& [name, value] : state)
    if (!known.contains(name))
      throw ValueError(
          fmt::format("{}: unknown entry '{}'. Hint: the parameters and options must be "
                      "those of the saved optimizer",
                      who, name));
  slots_ = std::move(loaded);
}

void Optimizer::require_eps(double eps) const {
  for (const Slot& s : slots_)
    require(
        eps >= smallest_normal(s.value.dtype()) && eps <= largest_number(s.value.dtype()),
        fmt::format("{}: eps must be a positive normal number of {}, the type of the parameters",
                    name_, name_of(s.value.dtype())),
        eps);
}

void Optimizer::require(bool ok, std::string_view rule, double value) {
  if (!ok) throw ValueError(fmt::format("{}; got {}", rule, value));
}

}  // namespace capsfw

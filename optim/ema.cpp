#include <capsfw/optim/ema.hpp>

#include <algorithm>

#include <fmt/format.h>

#include <capsfw/core/parallel.hpp>

#include "../core/simd.hpp"
#include "detail/parameters.hpp"

namespace capsfw {

EMA::EMA(const ParamList& params, EMAOptions options)
    : parameters_(detail::checked_parameters("EMA", params)), options_(options) {
  if (!(options.decay >= 0 && options.decay < 1))
    throw ValueError(fmt::format("EMA: decay must lie in [0, 1); got {}", options.decay));
  if (parameters_.empty()) throw ValueError("EMA: needs at least one parameter; got none");
  detail::check_distinct("EMA", parameters_);
  for (const auto& [name, value] : parameters_) averages_.push_back(detail::copy_of(value));
}

void EMA::check_parameters(const char* who) const {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const auto& [name, value] = parameters_[i];
    if (value.shape() != averages_[i].shape() || value.dtype() != averages_[i].dtype())
      throw ValueError(fmt::format(
          "{}: a parameter keeps its shape and type; '{}' was {} {} and is now {} {}. Hint: make "
          "the average after Module::to",
          who, name, averages_[i].shape().str(), name_of(averages_[i].dtype()), value.shape().str(),
          name_of(value.dtype())));
  }
}

void EMA::update() {
  if (applied())
    throw ValueError("EMA::update: the parameters hold the averages. Hint: restore() first");
  check_parameters("EMA::update");
  const auto t = static_cast<double>(updates_++);
  const double decay =
      options_.warm_up ? std::min(options_.decay, (1 + t) / (10 + t)) : options_.decay;
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor value = contiguous_data(parameters_[i].second);
    visit_float(value, "EMA", [&]<class T>() {
      const T take = static_cast<T>(1 - decay);
      const T* w = value.data<T>();
      T* mean = averages_[i].mutable_data<T>();
      parallel_for(value.numel(), 1, [&](std::int64_t begin, std::int64_t end) {
        detail::simd([&] {
          for (std::int64_t k = begin; k < end; ++k) mean[k] += take * (w[k] - mean[k]);
        });
      });
    });
  }
}

void EMA::apply() {
  if (applied()) throw ValueError("EMA::apply: the parameters hold the averages already");
  check_parameters("EMA::apply");
  TensorList kept;
  for (const auto& [name, value] : parameters_) kept.push_back(detail::copy_of(value));
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    Tensor(parameters_[i].second).copy_(averages_[i]);
  kept_ = std::move(kept);
}

void EMA::restore() {
  if (!applied())
    throw ValueError("EMA::restore: there is nothing to restore. Hint: apply() first");
  check_parameters("EMA::restore");
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    Tensor(parameters_[i].second).copy_(kept_[i]);
  kept_.clear();
}

StateDict EMA::state_dict() const {
  StateDict state;
  state.set("updates", from_vector(std::vector<std::int64_t>{updates_}, {}));
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    state.set("averages." + parameters_[i].first, detail::copy_of(averages_[i]));
  return state;
}

void EMA::load_state_dict(const StateDict& state) {
  const char* who = "EMA::load_state_dict";
  if (applied())
    throw ValueError(
        fmt::format("{}: the parameters hold the averages. Hint: restore() first", who));
  const std::int64_t updates = detail::state_count(who, state, "updates");
  TensorList averages;
  for (std::size_t i = 0; i < parameters_.size(); ++i)
    averages.push_back(
        detail::copy_of(detail::state_entry(who, state, "averages." + parameters_[i].first,
                                            averages_[i].shape(), averages_[i].dtype())));
  if (state.size() != averages.size() + 1)
    throw ValueError(fmt::format("{}: takes 'updates' and {} averages; got {} entries", who,
                                 averages.size(), state.size()));
  averages_ = std::move(averages);
  updates_ = updates;
}

}  // namespace capsfw

#include <capsfw/optim/early_stopping.hpp>

#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "detail/parameters.hpp"

namespace capsfw {

EarlyStopping::EarlyStopping(EarlyStoppingOptions options)
    : options_(options), best_(std::numeric_limits<double>::quiet_NaN()) {
  if (options.patience < 1)
    throw ValueError(
        fmt::format("EarlyStopping: patience must be at least 1; got {}", options.patience));
  if (!(options.min_delta >= 0) || std::isinf(options.min_delta))
    throw ValueError(
        fmt::format("EarlyStopping: min_delta must be finite and >= 0; got {}", options.min_delta));
}

bool EarlyStopping::update(double value) {
  const std::int64_t at = count_++;
  const double gain = options_.better == Better::smaller ? best_ - value : value - best_;
  const bool improved = best_at_ < 0 ? !std::isnan(value) : gain > options_.min_delta;
  if (improved) {
    best_ = value;
    best_at_ = at;
    waited_ = 0;
  } else {
    ++waited_;
  }
  return improved;
}

StateDict EarlyStopping::state_dict() const {
  StateDict state;
  state.set("best", scalar(best_, DType::f64));
  const auto put = [&](const char* name, std::int64_t n) {
    state.set(name, from_vector(std::vector<std::int64_t>{n}, {}));
  };
  put("best_at", best_at_);
  put("count", count_);
  put("waited", waited_);
  return state;
}

void EarlyStopping::load_state_dict(const StateDict& state) {
  const char* who = "EarlyStopping::load_state_dict";
  if (state.size() != 4)
    throw ValueError(fmt::format("{}: takes best, best_at, count and waited; got {} entries", who,
                                 state.size()));
  const double best = detail::state_entry(who, state, "best", {}, DType::f64).item();
  const std::int64_t best_at = detail::state_count(who, state, "best_at", -1),
                     count = detail::state_count(who, state, "count"),
                     waited = detail::state_count(who, state, "waited");
  if (best_at >= count || waited > count || (best_at < 0) != std::isnan(best))
    throw ValueError(fmt::format(
        "{}: the entries must fit together; got best = {}, best_at = {}, count = {}, waited = {}",
        who, best, best_at, count, waited));
  best_ = best;
  best_at_ = best_at;
  count_ = count;
  waited_ = waited;
}

}  // namespace capsfw

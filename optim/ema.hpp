#pragma once
// Averages of weights over the steps of a training.

#include <cstdint>
#include <string>

#include <capsfw/optim/optimizer.hpp>

namespace capsfw {

/// Options of EMA.
struct EMAOptions {
  double decay = 0.999;  ///< d, share of the average that an update keeps
  bool warm_up = false;  ///< d is min(decay, (1 + t) / (10 + t)) in update t = 0, 1, ..., so that
                         ///< the start is forgotten sooner
};

/// Exponential moving averages of parameters, which often test better than the last weights:
///
///   EMA average(net.named_parameters(), {.decay = 0.99});
///   ... optimizer.step(); average.update(); ...
///   average.apply();    // the network computes with the averages
///   evaluate(net);
///   average.restore();  // and trains on where it was
///
/// w̄ ← w̄ + (1 − d) (w − w̄), started at the values at construction. Takes any floating tensors:
/// running statistics too, if they shall be averaged. Weights are written in place, outside any
/// graph. ValueError unless 0 ≤ d < 1, and for parameters as Optimizer demands them.
/// Source: Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging", with
/// exponential weights; warm-up as in TensorFlow's ExponentialMovingAverage.
class EMA {
 public:
  explicit EMA(const ParamList& params, EMAOptions options = {});
  EMA(const EMA&) = delete;
  EMA& operator=(const EMA&) = delete;

  /// One step of the average. ValueError between apply() and restore(), or if a parameter has
  /// changed its shape or type.
  void update();
  /// Puts the averages into the parameters and keeps what was there. ValueError if they are there.
  void apply();
  /// Puts back what apply() kept, bit for bit. ValueError without apply().
  void restore();
  /// True between apply() and restore().
  bool applied() const { return !kept_.empty(); }
  /// Calls of update() so far.
  std::int64_t updates() const { return updates_; }

  /// "updates" (i64, rank 0) and a copy of each average as "averages.<parameter>".
  StateDict state_dict() const;
  /// Continues from a copy of `state`, bit for bit. The entries must be exactly those that this
  /// average would write; ValueError, ShapeError or DTypeError names the first that is not, and
  /// nothing is changed. ValueError between apply() and restore().
  void load_state_dict(const StateDict& state);

 private:
  void check_parameters(const char* who) const;

  std::vector<ParamList::Entry> parameters_;
  EMAOptions options_;
  TensorList averages_, kept_;
  std::int64_t updates_ = 0;
};

}  // namespace capsfw

#pragma once
// When to stop.

#include <cstdint>

#include <capsfw/core/state_dict.hpp>

namespace capsfw {

/// Whether small or large values are good.
enum class Better : std::uint8_t {
  smaller,  ///< a loss
  larger    ///< an accuracy
};

/// Options of EarlyStopping.
struct EarlyStoppingOptions {
  std::int64_t patience = 10;  ///< values in a row without an improvement that end the training
  double min_delta = 0;        ///< what an improvement must exceed
  Better better = Better::smaller;  ///< of the values
};

/// Ends a training whose validation does not get better:
///
///   EarlyStopping stopping({.patience = 5, .better = Better::larger});
///   while (!stopping.stop()) {
///     ... an epoch ...
///     if (stopping.update(accuracy)) best = net.state_dict() ... // copy or save it
///   }
///
/// A value is an improvement if it is the first that is not NaN, or beats the best so far by more
/// than min_delta. A NaN never is one. ValueError unless patience ≥ 1 and min_delta ≥ 0 is finite.
/// Source: Goodfellow, Bengio and Courville 2016, "Deep Learning", algorithm 7.1.
class EarlyStopping {
 public:
  explicit EarlyStopping(EarlyStoppingOptions options = {});

  /// Takes the next value; true if it is an improvement.
  bool update(double value);
  /// True once `patience` values in a row were none.
  bool stop() const { return waited_ >= options_.patience; }
  /// The best value; NaN before the first.
  double best() const { return best_; }
  /// Which value that was, from 0; -1 before the first.
  std::int64_t best_at() const { return best_at_; }
  /// Values so far.
  std::int64_t count() const { return count_; }

  /// "best" (f64), "best_at", "count", "waited" (i64), each of rank 0; the options are no state.
  StateDict state_dict() const;
  /// Continues from there. ValueError, ShapeError or DTypeError if the entries are not these; then
  /// nothing is changed.
  void load_state_dict(const StateDict& state);

 private:
  EarlyStoppingOptions options_;
  double best_;
  std::int64_t best_at_ = -1, count_ = 0, waited_ = 0;
};

}  // namespace capsfw

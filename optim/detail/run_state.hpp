#pragma once
// Private: the numbers of a Run that its checkpoints hold.

#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <string>

#include <capsfw/core/state_dict.hpp>
#include <capsfw/optim/run.hpp>

namespace capsfw::detail {

/// Everything that changes from step to step, tensors aside.
struct RunState {
  std::int64_t step = 0, epoch = 0;
  std::int64_t batch = 0;       // batches of this epoch so far
  std::int64_t in_epoch = 0;    // between next_epoch() and end_epoch()
  std::int64_t epoch_over = 0;  // the loader has been told the end of this epoch
  std::int64_t stopped = 0;     // by stop()
  std::int64_t best_epoch = 0, best_step = 0, rollbacks = 0, losses = 0;

  double samples = 0;        // of this epoch
  double drawn_samples = 0;  // of those, in the curves
  double mean_loss = 0;      // of the last steps, for jumps
  double rate_factor = 1;    // halved by every rollback
  double best_score = 0;
  double seconds = 0, epoch_seconds = 0;  // up to the checkpoint
  double trained_seconds = 0, trained_samples = 0;

  // Of loss and metrics, times samples: this epoch, and up to the last point of the curves.
  Metrics sums, drawn;
  std::map<std::string, Curve> curves;

  void save(StateDict& state) const;
  /// ValueError for a state that save() did not make.
  void load(const StateDict& state);

 private:
  template <class Self>
  static auto whole(Self& s) {
    return std::array{&s.step,    &s.epoch,      &s.batch,     &s.in_epoch,  &s.epoch_over,
                      &s.stopped, &s.best_epoch, &s.best_step, &s.rollbacks, &s.losses};
  }
  template <class Self>
  static auto real(Self& s) {
    return std::array{&s.samples,       &s.drawn_samples,   &s.mean_loss,
                      &s.rate_factor,   &s.best_score,      &s.seconds,
                      &s.epoch_seconds, &s.trained_seconds, &s.trained_samples};
  }
};

}  // namespace capsfw::detail

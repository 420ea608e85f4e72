#pragma once
// A look over the engine's shoulder, for profilers: who ran, in the order in which it happened.

#include <string_view>

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Told on its own thread, while an ObserverGuard names it, what the engine does. Ops run one after
/// the other, so the time between two calls belongs to what the second one names. Functions that
/// never enter a graph (factories, comparisons, optimizer steps) are not announced. Without an
/// observer an op pays for one comparison.
class OpObserver {
 public:
  virtual ~OpObserver() = default;
  /// An op has computed its results, recorded or not: also the ops of which rules, and other ops,
  /// are made. A view shares the storage of its input.
  virtual void op_done(std::string_view name,
                       const TensorList& inputs,
                       const TensorList& outputs) = 0;
  /// A backward pass is about to apply the rule of `node`, and has applied it. The rules of fused
  /// ops may run backward passes of their own in between.
  virtual void rule_begins(const Node& node) = 0;
  virtual void rule_done(const Node& node) = 0;
};

/// Makes `observer` that of this thread while alive; null: nobody listens, for a fused op that uses
/// another op inside. The observer must outlive it.
class ObserverGuard {
 public:
  explicit ObserverGuard(OpObserver* observer);
  ~ObserverGuard();
  ObserverGuard(const ObserverGuard&) = delete;
  ObserverGuard& operator=(const ObserverGuard&) = delete;

 private:
  OpObserver* previous_;
};

namespace detail {
/// The observer of this thread; null without any.
OpObserver* op_observer();
}  // namespace detail

}  // namespace capsfw

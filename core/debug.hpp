#pragma once
// Finding the first bad number, and naming where things happen.

#include <memory>
#include <string>
#include <string_view>

#include <capsfw/core/node.hpp>

namespace capsfw {

/// While alive, on this thread: every op and every rule checks its results, and the first NaN or
/// infinity that the inputs did not have is a GradError with the op and the module path; so is one
/// in a gradient that a rule is given. Slow; off by default.
class AnomalyGuard {
 public:
  explicit AnomalyGuard(bool enabled = true);
  ~AnomalyGuard();
  AnomalyGuard(const AnomalyGuard&) = delete;
  AnomalyGuard& operator=(const AnomalyGuard&) = delete;

 private:
  bool previous_;
};

/// While alive, on this thread: nodes and messages carry "outer/name" as their path. Modules open
/// one.
class Scope {
 public:
  explicit Scope(std::string_view name);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  std::shared_ptr<const std::string> previous_;
};

namespace detail {
/// Path of the open scopes; null outside any.
const std::shared_ptr<const std::string>& current_path();
/// Checks the gradients that reach the rule of `node`: a seed, the answer of a hook, a sum.
void check_arrivals(const Node& node, const TensorList& cotangents);
/// Checks the gradients that the rule of `node` returned.
void check_backward(const Node& node, const TensorList& grads);
}  // namespace detail

}  // namespace capsfw

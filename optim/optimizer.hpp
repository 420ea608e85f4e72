#pragma once
// What all optimizers share: parameters and their groups, the learning rate, and the state that a
// checkpoint holds.

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <capsfw/core/state_dict.hpp>
#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Tensors to train, with or without names. Those without are numbered "0", "1", ... by their
/// position in the optimizer.
class ParamList {
 public:
  using Entry = std::pair<std::string, Tensor>;  ///< name and parameter

  ParamList(std::initializer_list<Tensor> tensors) : ParamList(TensorList(tensors)) {}
  ParamList(std::initializer_list<Entry> named) : entries_(named) {}
  ParamList(const TensorList& tensors);
  ParamList(std::vector<Entry> named) : entries_(std::move(named)) {}

  std::size_t size() const { return entries_.size(); }  ///< number of parameters
  auto begin() const { return entries_.begin(); }
  auto end() const { return entries_.end(); }

 private:
  std::vector<Entry> entries_;
};

/// Parameters that share settings; what is absent is taken from the options of the optimizer.
struct ParamGroup {
  ParamList params;                         ///< what the group is made of
  std::optional<double> lr = {};            ///< keeps its ratio to the optimizer's in set_lr()
  std::optional<double> weight_decay = {};  ///< instead of the optimizer's
};

/// Base of all optimizers. `step()` changes every parameter that has a gradient and leaves the
/// others, with their state, as they are; each parameter counts its own steps t = 1, 2, ...
/// A rule of your own derives from this class and implements update().
///
/// Parameters are defined, contiguous leaves of type f32 or f64, each listed once, under distinct
/// names. Make the optimizer after Module::to. The weights are written in place, outside any graph;
/// a graph that saved them earlier reports the change (see Storage), so call step() after
/// backward().
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// One update. Everything is checked, and all memory taken, before the first parameter is
  /// written.
  void step();
  /// Drops the gradients of all parameters.
  void zero_grad();

  double lr() const { return lr_; }  ///< learning rate of the next step
  /// Groups with an `lr` of their own follow in proportion. ValueError unless finite and >= 0.
  void set_lr(double lr);

  /// State tensors, each as large as its parameter, that the next step will make for parameters
  /// that have none yet; 0 once there has been a step.
  std::size_t missing_buffers() const;

  /// All parameters, in order.
  TensorList parameters() const;

  /// A copy of the state: "<parameter>.step" (i64, rank 0) and, once it has been stepped,
  /// "<parameter>.<buffer>" for every buffer of the rule, with the shape and type of the parameter.
  /// Options and the learning rate are no state: the latter follows from the step (schedule.hpp).
  StateDict state_dict() const;
  /// Continues from a copy of `state`, bit for bit. The entries must be exactly those that this
  /// optimizer would write; ValueError, ShapeError or DTypeError names the first that is missing,
  /// unknown or of the wrong kind, and nothing is changed.
  void load_state_dict(const StateDict& state);

 protected:
  /// What a rule needs for one parameter.
  struct Update {
    Tensor& value;        ///< to be written, contiguous
    const Tensor& grad;   ///< contiguous, same shape and type, does not share memory with `value`
    TensorList& buffers;  ///< one per name given to the constructor; zero at the first step
    std::int64_t t;       ///< 1 at the first step of this parameter
    double lr;            ///< learning rate of the group, scheduled
    double weight_decay;  ///< of the group
  };

  /// `name` starts the messages, `buffers` names the state tensors that the rule keeps for every
  /// parameter. ValueError on parameters that break the rules above or settings out of range.
  Optimizer(std::string name,
            const std::vector<ParamGroup>& groups,
            double lr,
            double weight_decay,
            std::vector<std::string> buffers);

  /// Changes one parameter in place.
  virtual void update(const Update& u) = 0;

  /// ValueError "<rule>; got <value>" unless `ok`.
  static void require(bool ok, std::string_view rule, double value);
  /// ValueError unless ε, which is added to a root, is a normal number of every parameter's type: a
  /// smaller one is 0 there, and 0/0 where the gradient is 0.
  void require_eps(double eps) const;

 private:
  struct Slot {
    std::string name;
    Tensor value;
    double lr_scale;
    double weight_decay;
    std::int64_t steps = 0;
    TensorList buffers = {};  // allocated by the first step
  };
  void add(const ParamGroup& group, double weight_decay);

  std::string name_;
  double lr_;
  std::vector<std::string> buffer_names_;
  std::vector<Slot> slots_;
};

}  // namespace capsfw

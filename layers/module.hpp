#pragma once
// Module: a tree of named parameters and buffers.

#include <string>
#include <utility>
#include <vector>

#include <capsfw/core/random.hpp>
#include <capsfw/core/state_dict.hpp>
#include <capsfw/core/tensor.hpp>

namespace capsfw {

using NamedGenerators = std::vector<std::pair<std::string, Rng*>>;  ///< in the order of making

/// Base of everything with weights. A constructor registers each parameter where it makes it,
///
///   weight_ = param("weight", init::kaiming_uniform({out, in}, rng));
///   child("conv1", conv1_);
///
/// and cannot forget it. Modules are pinned: neither copied nor moved, so that children may be
/// members.
class Module {
 public:
  Module() = default;
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// Parameters with their paths ("digits.weight"), depth first; a shared parameter appears once.
  NamedTensors named_parameters() const;
  TensorList parameters() const;  ///< the same without names
  /// Tensors that are saved but not trained (running statistics).
  NamedTensors named_buffers() const;
  /// Generators that training draws from (dropout, sampled capsules): not part of the weights, but
  /// of a checkpoint.
  NamedGenerators named_generators() const;
  /// Direct children in order of registration.
  const std::vector<std::pair<std::string, Module*>>& children() const { return children_; }
  /// Elements of all parameters, or of those that require a gradient.
  std::int64_t parameter_count(bool trainable_only = false) const;

  /// Parameters and buffers by path; shares their memory.
  StateDict state_dict() const;
  /// Copies values in; f32 and f64 are converted. ValueError listing every entry that is missing,
  /// unexpected, misshapen, or an integer where a real number is wanted or the other way; then
  /// nothing has changed.
  void load_state_dict(const StateDict& state);

  /// Training mode (dropout, batch statistics) on or off, for the whole tree.
  void train(bool on = true);
  void eval() { train(false); }                ///< train(false)
  bool training() const { return training_; }  ///< training mode?
  /// Converts all floating parameters and buffers; every handle sees the change.
  void to(DType dtype);
  /// Lets parameters require gradients or not, for the whole tree.
  void requires_grad_(bool on);
  void freeze() { requires_grad_(false); }   ///< requires_grad_(false)
  void unfreeze() { requires_grad_(true); }  ///< requires_grad_(true)
  /// Forgets the gradients of all parameters.
  void zero_grad();

  /// Registered name; "" for a root.
  const std::string& name() const { return name_; }

 protected:
  /// Registers a parameter and returns the handle to keep. A parameter of another module is shared
  /// (tied weights). ValueError if the name is taken, empty or has a dot.
  Tensor param(const std::string& name, const Tensor& init);
  /// Registers a tensor that is saved but not trained; errors as param.
  Tensor buffer(const std::string& name, const Tensor& init);
  /// Registers a module that is a member; errors as param.
  void child(const std::string& name, Module& module);
  /// Registers a generator that is a member of this module.
  void generator(const std::string& name, Rng& rng);

 private:
  template <class F>
  void visit(const std::string& prefix, const F& f) const;
  void check_name(const std::string& name) const;

  std::string name_;
  bool training_ = true;
  NamedTensors parameters_, buffers_;
  NamedGenerators generators_;
  std::vector<std::pair<std::string, Module*>> children_;
};

/// Remembers the mode of every module of a tree, and puts it back at the end of a scope, also of
/// one that an error leaves: some may be frozen in another mode than the root.
///
///   const ModeGuard mode(net);
///   net.eval();
class ModeGuard {
 public:
  explicit ModeGuard(Module& root);
  ~ModeGuard();
  ModeGuard(const ModeGuard&) = delete;
  ModeGuard& operator=(const ModeGuard&) = delete;

 private:
  void add(Module& module);
  std::vector<std::pair<Module*, bool>> modes_;  // parents first
};

/// A module from one tensor to one tensor.
class Layer : public Module {
 public:
  /// Runs forward() under this layer's name (see Scope) and remembers the shape of the result.
  Tensor operator()(const Tensor& x);
  /// Shape of the last result; empty before the first.
  const Shape& output_shape() const { return output_shape_; }

 protected:
  /// The layer's function of one tensor; each layer says its shapes.
  virtual Tensor forward(const Tensor& x) = 0;
  /// For layers with another way in than operator().
  void set_output_shape(const Shape& shape) { output_shape_ = shape; }

 private:
  Shape output_shape_;
};

}  // namespace capsfw

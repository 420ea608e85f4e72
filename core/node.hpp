#pragma once
// How an op enters the graph. An op computes its result without any graph and then calls
//
//   return record("tanh", {x}, y, Save::output, [](const Saved& s, const Tensor& gy) {
//     return gy * (1.0 - square(s.output()));
//   });
//
// The rule maps the cotangent of the result to cotangents of the inputs using public differentiable
// ops only: whether it is itself recorded is decided by the caller of grad(), and so gradients
// exist to any order. docs/internals.md derives the design.

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <capsfw/core/observer.hpp>
#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Which tensors a rule reads. Saving an intermediate that depends on the inputs is not possible:
/// it would be a constant to the second derivative.
enum class Save : std::uint8_t {
  none = 0,
  input0 = 1,
  input1 = 2,
  input2 = 4,
  inputs = 0x7f,
  output = 0x80,
  all = 0xff
};
/// What either of them keeps.
constexpr Save operator|(Save a, Save b) {
  return static_cast<Save>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}

/// The saved tensors as a rule sees them.
class Saved {
 public:
  /// Saved input `i`; GradError if it was changed in place since.
  Tensor input(int i) const;
  /// Saved output (the first, for ops with several).
  Tensor output(int i = 0) const;
  /// Shape of input `i`, saved or not.
  const Shape& shape(int i) const;
  /// True if somebody asked for the gradient of input `i`; rules skip the others.
  bool needs(int i) const;

 private:
  friend class Node;
  Saved(const Node& node, const std::vector<bool>& wanted) : node_(node), wanted_(wanted) {}
  const Node& node_;
  const std::vector<bool>& wanted_;
};

/// Cotangents of the inputs from those of the outputs; an undefined tensor stands for zero.
using Rule = std::function<TensorList(const Saved&, const TensorList&)>;

/// An edge of the graph: output `output` of `node`. No node: a constant.
struct Edge {
  std::shared_ptr<Node> node;  ///< whose output it is; null: no gradient wanted
  int output = 0;              ///< which of its outputs
};

/// One recorded op, or a leaf. Internal to the engine, visible for study and for export (dot.hpp).
class Node : public std::enable_shared_from_this<Node> {
 public:
  /// What is known of an output without keeping it alive.
  struct Meta {
    Shape shape;  ///< of the output
    DType dtype;  ///< of the output
  };
  /// A function that the cotangent of an output passes through.
  struct Hook {
    int output;                                 ///< which output
    bool retain;                                ///< made by retain_grad(): only backward() runs it
    std::function<Tensor(const Tensor&)> call;  ///< its result takes the place of the cotangent
  };

  /// An op of this name, numbered in the order of making.
  explicit Node(std::string_view name);
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  const std::string& name() const { return name_; }  ///< name of the op
  /// Creation order: an op always comes after everything that it depends on.
  std::uint64_t id() const { return id_; }
  /// Where its inputs come from.
  const std::vector<Edge>& edges() const { return edges_; }
  const std::vector<Meta>& inputs() const { return inputs_; }    ///< what is known of its inputs
  const std::vector<Meta>& outputs() const { return outputs_; }  ///< what is known of its outputs
  bool is_leaf() const { return is_leaf_; }                      ///< a tensor that no op made?
  /// The leaf tensor; undefined once it is gone.
  Tensor leaf() const { return Tensor(leaf_.lock()); }
  /// Module path at the time of recording, "" outside any module.
  std::string path() const { return path_ ? *path_ : std::string(); }
  /// How many gradients deep it lies: 0 for what was computed from leaves, 1 for a recorded
  /// gradient and what is made of it, 2 for the gradient of that, ...
  int order() const { return order_; }
  /// id() of the node whose rule recorded it; 0 if it was recorded outside of rules. Where rules
  /// run passes of their own, as fused ops do, the outermost rule counts.
  std::uint64_t rule_of() const { return rule_of_; }
  /// "'mul' at net/fc1".
  std::string where() const;
  /// To add or remove; run in order.
  std::vector<Hook>& hooks() { return hooks_; }
  /// Saved input `i`; GradError if it was not saved, was freed, or was changed in place since.
  Tensor input(int i) const;
  /// A stand-in for result `k`: its place in the graph, so that grad() can be asked for the
  /// gradient there, but not its numbers.
  Tensor result(int k = 0) const;

  /// Applies the rule. `wanted`: the inputs whose gradients this pass needs, by edge. GradError
  /// when the saved tensors are gone.
  TensorList apply(const TensorList& cotangents, const std::vector<bool>& wanted) const;
  /// Gives up the saved tensors.
  void release();

  /// The node that stands for the leaf `x`, made on first use.
  static std::shared_ptr<Node> of_leaf(const Tensor& x);
  /// Makes `outputs` results of a new node. Called by record().
  static void attach(
      std::string_view name, const TensorList& inputs, TensorList& outputs, Save save, Rule rule);

 private:
  friend class Saved;
  struct SavedTensor {
    Tensor value;  // an input with its graph; an output as plain data (no cycle)
    std::uint64_t version = 0;
  };
  const SavedTensor& saved(const std::vector<SavedTensor>& list, int i, const char* kind) const;
  void check_kept() const;

  std::string name_;
  std::uint64_t id_;
  bool is_leaf_ = false;
  bool released_ = false;
  std::vector<Edge> edges_;
  std::vector<Meta> inputs_, outputs_;
  std::vector<SavedTensor> saved_inputs_, saved_outputs_;
  std::vector<Hook> hooks_;
  Rule rule_;
  std::weak_ptr<detail::TensorImpl> leaf_;
  std::shared_ptr<const std::string> path_;
  std::uint64_t rule_of_ = 0;
  int order_ = 0;
};

/// Nodes alive now, for tests that look for leaks.
std::int64_t live_nodes();

namespace detail {
/// Zeros that take the memory of one.
Tensor expanded_zero(const Node::Meta& meta);
/// The inputs of an op, by reference and without a list on the heap.
using TensorRefs = std::initializer_list<std::reference_wrapper<const Tensor>>;
/// True if recording is on and one of the inputs needs a gradient.
bool must_record(const TensorList& inputs);
bool must_record(TensorRefs inputs);
/// Names the op whose result holds a NaN or an infinity, if an AnomalyGuard is alive.
void check_forward(std::string_view name, const TensorList& inputs, const TensorList& outputs);
bool anomaly_enabled();

template <class R>
concept ListResult = std::is_same_v<R, TensorList>;
}  // namespace detail

/// Records an op with several results. `rule(saved, cotangents)` returns one cotangent per input;
/// the engine sums it to the shape of an input that was broadcast. The rule must be trivially
/// copyable: it may capture numbers and Dims but no Tensor, which would keep memory alive and hide
/// a dependency.
template <class F>
TensorList record_many(
    std::string_view name, const TensorList& inputs, TensorList outputs, Save save, F rule) {
  static_assert(std::is_trivially_copyable_v<F>, "a rule may not capture tensors: save them");
  if (OpObserver* observer = detail::op_observer()) observer->op_done(name, inputs, outputs);
  if (detail::anomaly_enabled()) detail::check_forward(name, inputs, outputs);
  if (detail::must_record(inputs)) Node::attach(name, inputs, outputs, save, Rule(rule));
  return outputs;
}

/// Records an op with one result; `rule(saved, cotangent)` returns a Tensor (one input) or a
/// TensorList.
template <class F>
Tensor record(
    std::string_view name, const TensorList& inputs, const Tensor& output, Save save, F rule) {
  auto many = [rule](const Saved& s, const TensorList& gy) -> TensorList {
    using R = decltype(rule(s, gy[0]));
    if constexpr (detail::ListResult<R>)
      return rule(s, gy[0]);
    else
      return {rule(s, gy[0])};
  };
  return record_many(name, inputs, {output}, save, many)[0];
}

/// The same for inputs that have names: of an op that nobody records or watches, no list is made.
template <class F>
Tensor record(
    std::string_view name, detail::TensorRefs inputs, const Tensor& output, Save save, F rule) {
  if (detail::op_observer() == nullptr && !detail::anomaly_enabled() &&
      !detail::must_record(inputs))
    return output;
  return record(name, TensorList(inputs.begin(), inputs.end()), output, save, rule);
}

}  // namespace capsfw

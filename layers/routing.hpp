#pragma once
// Routing: from the votes of lower capsules (children, i) to upper capsules (parents, j). Every
// clustering algorithm gives one; all of them stand behind the class Routing. B batch, I children,
// J parents, D size of a parent.

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <capsfw/layers/module.hpp>

namespace capsfw {

/// What a layer of capsules hands to its routing. Undefined tensors are absent.
struct Votes {
  Tensor votes;       ///< û_{j|i} [B, I, J, D]
  Tensor poses = {};  ///< of the children, u_i [B, I, E]
  Tensor activations =
      {};              ///< of the children, a_i [B, I]; most vector routings have no use for them
  Tensor exists = {};  ///< b8 [B, I]: children that are not there (padding) have no influence
  Tensor kept = {};    ///< b8 [B, J]: the other parents take no part (partial sampling), are 0
};

/// Votes û_{j|i} = W_ij u_i that are not made (yet).
struct VoteProduct {
  Tensor u = {};       ///< [B, I, E]
  Tensor weight = {};  ///< [I, J, D, E], or [J, D, E] shared by all children

  /// û [B, I, J, D].
  Tensor votes() const;
};

/// Overlapping windows of the children of a product of B samples: window n holds `rows` of the R
/// children, from n·step on, and is routed alone.
struct VoteWindows {
  VoteProduct product;              ///< makes the votes of a window
  std::int64_t rows = 0, step = 0;  ///< children in a window, and from one to the next

  /// N = ⌊(R − rows) / step⌋ + 1 of each sample.
  std::int64_t count() const { return (product.u.size(1) - rows) / step + 1; }
};

/// What a routing returns.
struct Routed {
  Tensor poses;             ///< v [B, J, D]
  Tensor couplings;         ///< c of the last iteration [B, I, J]
  Tensor activations = {};  ///< a_j [B, J]; undefined where it is the length of the pose
};

/// a_j of a result [B, J]: its activations, or else the lengths of its poses.
Tensor activations_of(const Routed& routed);

/// One routing iteration, as an observer sees it.
struct RoutingStep {
  int iteration = 0;        ///< from 1
  Tensor couplings;         ///< [B, I, J]
  Tensor poses;             ///< what the routing would return if it ended here [B, J, D]
  Tensor activations = {};  ///< [B, J]; undefined as in Routed
  Tensor objective = {};    ///< what the algorithm improves, see each routing [B]; or undefined
  Tensor entropy = {};      ///< −Σ_j c_ij ln c_ij, mean over the children that exist [B]
};
using RoutingObserver = std::function<void(const RoutingStep&)>;  ///< called after every iteration

/// The sizes that a routing may need for parameters of its own.
struct RoutingSize {
  std::int64_t children = 0;   ///< I; 0: any number (shared vote weights)
  std::int64_t parents = 0;    ///< J
  std::int64_t dim = 0;        ///< D
  std::int64_t child_dim = 0;  ///< E; 0: unknown
};

/// A routing algorithm, with its parameters if it has any. A new one derives from this class in a
/// header and source of its own, implements forward() in public ops, and gets a name by a row in
/// routing_table.cpp or by add_routing() (docs/add_a_routing.md).
class Routing : public Module {
 public:
  /// Checks the shapes, routes, and clears what children that do not exist and parents that are not
  /// kept would have. `observe`, if given, is called after every iteration, each of which then is a
  /// Scope "iteration t"; without it nothing is computed for it. ShapeError on sizes that do not
  /// fit; ValueError where `kept` keeps no parent of some sample; OverflowError, here or in the
  /// backward pass, where products of the votes overflow.
  Routed operator()(const Votes& votes, const RoutingObserver& observe = {});

  /// The same for votes that need not be made; `rest.votes` is undefined. No result where the
  /// algorithm has no kernel for them: then call the above with product.votes(). Same errors.
  std::optional<Routed> route_product(const VoteProduct& product, const Votes& rest);

  /// Routes every window of votes that are made once and not copied: results [B·N, ...]. `rest` is
  /// that of the windows, without votes and poses. No result where the algorithm has no kernel for
  /// it: then route the windows as samples. ShapeError unless the windows fit.
  std::optional<Routed> route_windows(const VoteWindows& windows, const Votes& rest);

  /// The name of the algorithm, for messages.
  const std::string& kind() const { return kind_; }
  /// Number of iterations. set_iterations may be called between calls, and the earlier number leads
  /// back to the earlier algorithm; ValueError for a number that it does not take.
  virtual int iterations() const { return 1; }
  /// See iterations.
  virtual void set_iterations(int n);
  /// Whether the algorithm has starting values that depend on the votes: see balance().
  virtual bool balances() const { return false; }
  /// Starting values that fit the votes that `make` makes. May scale `weight`, which they are
  /// linear in.
  virtual void balance(const std::function<Votes()>& /*make*/, const Tensor& /*weight*/) {}

  /// The number of iterations that leaves the couplings uniform; −1 if there is none.
  virtual int uniform_iterations() const { return -1; }
  /// Whether there are parameters for every child, which fix the number of children.
  virtual bool fixes_children() const { return false; }

 protected:
  explicit Routing(std::string kind) : kind_(std::move(kind)) {}
  /// Parameter "prior": log priors [I, J] that start at 0.   ValueError for any number of children,
  /// and for `constant` couplings, which let no gradient reach it.
  Tensor learned_prior(const RoutingSize& size, bool constant = false);
  /// The algorithm. Votes of children that do not exist are 0 already, which is all that most
  /// vector routings need; `kept` has to be respected by every softmax over parents (see
  /// couplings()). The entropy of an observed step is filled in by the caller.
  virtual Routed forward(const Votes& votes, const RoutingObserver& observe) = 0;
  /// The same for votes that are not made, if there is a kernel for it: see route_product().
  virtual std::optional<Routed> forward_product(const VoteProduct&, const Votes&) {
    return std::nullopt;
  }
  /// The same for windows, if there is a kernel for them: see route_windows().
  virtual std::optional<Routed> forward_windows(const VoteWindows&, const Votes&) {
    return std::nullopt;
  }

 private:
  std::string kind_;
};

/// softmax over the upper capsules (last axis) of logits [B, I, J]. `kept` [B, J]: parents that are
/// 0 take no part; `leaky`: an extra logit 0 takes its share of each child and is dropped, so that
/// Σ_j c_ij < 1.   ValueError where nothing is kept.   He 2018, eq (41), for the mask.
Tensor couplings(const Tensor& logits, const Tensor& kept = {}, bool leaky = false);

/// −Σ_j c_ij ln c_ij (0 ln 0 = 0), mean over the children that exist: [B, I, J] -> [B].
Tensor coupling_entropy(const Tensor& c, const Tensor& exists = {});

namespace detail {
/// True where a parent is kept, b8 [B, J]. ValueError naming `who` if none of some sample is.
Tensor kept_of(const Tensor& mask, std::string_view who);
/// ShapeError unless votes are [B, I, J, D], a prior [I, J], `kept` [B, J]; DTypeError unless the
/// latter is b8; ValueError if it keeps no parent of some sample.
void check_votes(const char* who,
                 const Tensor& votes,
                 const Tensor& prior = {},
                 const Tensor& kept = {});
/// ShapeError unless u is [B, I, E] and the weight [I, J, D, E] or [J, D, E].
void check_product(const std::string& who, const VoteProduct& p);
/// ShapeError unless the weight is [J, D, E], and windows of u [B, R, E] fit.
void check_windows(const std::string& who, const VoteWindows& w);
/// 1/J for every child [B, I, J]; with `kept`, 1 / (number of kept parents) for those and 0.
Tensor uniform_couplings(const Tensor& votes, const Tensor& kept = {});
/// a_i [B, I]: those given, else the lengths of the poses, else 1; 0 where there is no child.
Tensor activations_below(const Votes& votes);
}  // namespace detail

}  // namespace capsfw

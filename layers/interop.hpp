#pragma once
// Weights of other programs: names and layouts of their tensors against ours, in both directions.
// docs/interop.md has the layouts of PyTorch CapsNets that are around.

#include <string>
#include <vector>

#include <capsfw/core/state_dict.hpp>
#include <capsfw/layers/capsnet.hpp>

namespace capsfw {

/// One tensor of ours and how it is called and laid out elsewhere.
///
///   {.ours = "fc.weight", .theirs = "dense.kernel", .shape = {784, 10}, .order = {1, 0}}
///
/// says that ours is their [784, 10] with its axes exchanged.
struct NameRule {
  std::string ours;       ///< empty: theirs has no counterpart and is left out, both ways
  std::string theirs;     ///< with "*": several tensors "caps.0.weight", "caps.1.weight", ...
  Shape shape = {};       ///< of theirs; with "*" their number in front. Empty: the same as ours
  Axes order = {};        ///< axes of `shape` in the order of ours; empty: as they are
  Shape view = {};        ///< what `shape` is reshaped to first, where an axis of theirs holds two
  std::string note = {};  ///< for people
};

/// What a program calls its tensors, one rule for each of ours.
using NameTable = std::vector<NameRule>;

/// A state for a module of ours: `like` is its state_dict(). Each tensor is theirs, stacked along a
/// new first axis if there are several, seen as `view`, with its axes in `order`, reshaped to ours,
/// and of our type.   ValueError listing every tensor that is missing on either side, not in the
/// table, or of another shape than the rule has.
StateDict import_state(const StateDict& theirs, const StateDict& like, const NameTable& table);

/// The way back: our state as theirs. import_state(export_state(s, t), s, t) has the bits of s.
/// ValueError as import_state.
StateDict export_state(const StateDict& ours, const NameTable& table);

/// How PyTorch programs lay out the first capsules and the transformation matrices. I lower and J
/// upper capsules of sizes E and D; C types of primary capsules.
enum class PytorchLayout {
  /// primary_capsules.capsules.{0..E-1}: a convolution with C channels for each component;
  /// digit_capsules.route_weights [J, I, E, D]. The layout of K. Iwasaki's capsule-networks.
  by_component,
  /// primary_capsules.conv: one convolution, component d of type c in channel c E + d;
  /// digit_capsules.W [1, I, J, D, E].
  by_type
};

/// The names of a PyTorch CapsNet with the parts of `net`: conv1, conv2, ..., primary_capsules and
/// digit_capsules as `layout` says, decoder.0, decoder.2, ... (an nn.Sequential of nn.Linear with
/// activations between). For the same weights both compute the same.   ValueError for parts beyond
/// plain convolutions without pools, convolutional primary capsules, one dense layer with full
/// votes without bias, Frobenius norm and noise class, and a fully connected decoder or none.
NameTable pytorch_names(const CapsNet& net, PytorchLayout layout = PytorchLayout::by_component);

}  // namespace capsfw

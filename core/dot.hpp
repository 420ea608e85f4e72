#pragma once
// The recorded graph as a picture.

#include <string>

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Graphviz source of the graph below `outputs`, which draws it with `dot -Tsvg graph.dot -o
/// graph.svg`. Arrows lead from what is read to the op that reads it.
///
/// - Boxes are ops: a number in the order of recording, the name, the shapes of the results. A
///   backward pass runs them in descending number. `outputs` have a thick border.
/// - Ellipses are leaves. `names` are written at leaves and results, for example
///   Module::named_parameters(); `inputs` are the same for leaves that are data, in a colour of
///   their own.
/// - The colour of an op is its Node::order(): forward, gradient, gradient of a gradient. Where
///   there are several kinds of nodes, a legend names them.
/// - Frames hold the ops that one rule recorded, or else those under one path of Scopes: a module,
///   a routing iteration.
///
/// Constants are not in the graph, and so not in the picture. Tensors without history and undefined
/// ones are passed over.
std::string to_dot(const TensorList& outputs,
                   const NamedTensors& names = {},
                   const NamedTensors& inputs = {});

}  // namespace capsfw

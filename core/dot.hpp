#pragma once
// The recorded graph as a picture.

#include <string>
#include <utility>
#include <vector>

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Graphviz source of the graph below `outputs`: ops as boxes with the shape of their result,
/// leaves as ellipses, with the names given in `names` (for example Module::named_parameters()).
/// Render it with `dot -Tsvg graph.dot -o graph.svg`.
std::string to_dot(const TensorList& outputs,
                   const std::vector<std::pair<std::string, Tensor>>& names = {});

}  // namespace capsfw

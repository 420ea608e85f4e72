#pragma once
// Where the time of a step goes, op by op.

#include <string>

#include "measure.hpp"

namespace capsfw::bench {

/// Runs some steps under an observer and returns a table: for every op its calls and the
/// milliseconds of its forward computation and of its gradient rule, with whatever the rule is made
/// of. The first row is what no op announces: optimizer, freeing of graphs, the engine itself. Sums
/// of gradients that meet count as ops of their own.
std::string profile_table(const Work& work, const std::string& spec);

}  // namespace capsfw::bench

#pragma once
// How the cost grows with the work, drawn beside the limit of the machine.

#include <filesystem>

#include "measure.hpp"

namespace capsfw::bench {

/// Measures every sweep (batch, image size, iterations, capsules, threads) and writes into `dir` a
/// picture of each, its points as JSON lines (curves.jsonl), and tables in Markdown (curves.md).
/// The limit of a point is the longer of its arithmetic at the speed of multiply-adds and its least
/// memory traffic at the speed of reading. Stops early when interrupted.
void draw_curves(const std::filesystem::path& dir, const MeasureOptions& options, bool smoke);

}  // namespace capsfw::bench

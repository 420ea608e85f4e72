#pragma once
// What the program prints of a workload.

#include <optional>
#include <string>

#include "measure.hpp"

namespace capsfw::bench {

/// A workload that has been measured.
struct Result {
  std::string spec;
  int threads = 1;
  Summary time;
  double items = 0, flops = 0, bytes = 0;
  std::int64_t parameters = 0;
  double peak_tensor_mb = 0;  ///< largest memory of tensors during a step, 10^6 bytes
  double peak_rss_mb = 0;     ///< largest resident memory of the process during it
};

/// What PyTorch needed for the same, measured in turn.
struct TorchResult {
  std::string variant;                  ///< formulation and configuration that was fastest
  double ms = 0, peak_mb = 0;           ///< median; resident
  double ours_ms = 0;                   ///< median of our repetitions in between
  double ratio = 0, low = 0, high = 0;  ///< PyTorch / ours: median and range over the pairs
  int clean = 0, pairs = 0;
};

/// One line about the machine.
std::string limits_line(const Limits& limits, bool json);

/// Heading of the table, and its lines; with `json` a JSON object per line instead.
std::string table_heading();
std::string result_line(const Result& result, const std::optional<Limits>& limits, bool json);
std::string torch_heading();
std::string torch_line(const Result& result, const TorchResult& torch, bool json);

}  // namespace capsfw::bench

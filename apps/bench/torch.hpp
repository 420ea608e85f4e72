#pragma once
// The same workloads in PyTorch (torch/side.py), measured in turn with ours.

#include <optional>
#include <string>
#include <vector>

#include "report.hpp"

namespace capsfw::bench {

class TorchSide {
 public:
  /// Asks `python` whether it has PyTorch. Error with the remedy if not.
  explicit TorchSide(std::string python);

  /// "torch 1.13.1, ...".
  const std::string& about() const { return about_; }

  /// Looks for PyTorch's fastest formulation under its first configuration, then for the fastest
  /// configuration of that formulation, keeps the best two programs of all that were tried and lets
  /// them and `work` run in turn: one repetition each per round. Nothing if PyTorch has no
  /// counterpart.
  std::optional<TorchResult> compare(const std::string& spec,
                                     const Work& work,
                                     int pairs,
                                     Probe* probe) const;

 private:
  struct Program {
    std::string variant, config;
    double ms = 0;
  };
  std::vector<std::string> ask(const std::vector<std::string>& words) const;
  std::vector<Program> candidates(const std::string& spec) const;
  std::vector<std::string> serve(const std::string& spec, const Program& program) const;
  double try_out(const std::string& spec, const Program& program) const;

  std::string python_, about_;
};

}  // namespace capsfw::bench

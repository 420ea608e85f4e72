#pragma once
// Private: what the runs of a study have found out, each by itself and all together.

#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include <capsfw/core/state_dict.hpp>
#include <capsfw/core/tensor.hpp>
#include <capsfw/optim/json_log.hpp>

#include "common/report.hpp"

#include "flags.hpp"

namespace capsfw::apps {

/// One network, tested. NaN: not asked for.
struct Outcome {
  double test = 0, dev = 0, uniform = NAN, pairs_exact = NAN, pairs_f1 = NAN, seconds = 0;
  Tensor confusion = {};  ///< see confusion_matrix()

  void save(StateDict& results) const;
  static Outcome load(const StateDict& results);
};

/// All of them.
class Findings {
 public:
  /// Both must outlive it.
  Findings(const TextFlags& flags, const std::vector<std::string>& class_names)
      : flags_(flags), names_(class_names) {}

  void add(const Outcome& outcome) { outcomes_.push_back(outcome); }
  bool empty() const { return outcomes_.empty(); }

  /// Headline and confusion matrix.
  void add_to(Report& report) const;
  /// Scores of each class, accuracies, the matrix: report.txt.
  std::string text() const;
  /// The last line of the log.
  JsonFields result() const;
  /// Shares of the samples of a class; false for too many classes.
  bool draw(const std::filesystem::path& path) const;

 private:
  std::vector<double> test() const;
  Tensor confusion() const;

  const TextFlags& flags_;
  const std::vector<std::string>& names_;
  std::vector<Outcome> outcomes_;
};

}  // namespace capsfw::apps

#pragma once
// The curves in the log of a run.

#include <cstddef>
#include <istream>
#include <optional>
#include <string>
#include <vector>

namespace capsfw::apps {

/// Values over the steps, or over the learning rate.
struct ReportLine {
  std::string name;       ///< "training", or that of the network
  std::size_t color = 0;  ///< number in palette()
  std::vector<double> step = {}, value = {};
};

/// Lines with one meaning.
struct ReportChart {
  std::string title, unit = {};
  bool log = false;  ///< logarithmic values
  std::vector<ReportLine> lines = {};
};

/// What charts_of_log() finds.
struct ReportCharts {
  std::vector<ReportChart> charts;
  /// Networks by colour, where the log is of several; `step` and `value` are empty.
  std::vector<ReportLine> legend = {};
  /// Number of the chart that says most of a network, where the log is of three kinds or more: the
  /// page has it once more for each of them.
  std::optional<std::size_t> compared = {};
  std::string along = "step";  ///< or "learning rate": what `step` of the lines is
};

/// The curves of the lines "train", "epoch", "record" and "sweep" of a log (see docs/training.md);
/// lines that are no JSON, as the last one of a killed process, are passed over. A "sweep" line is
/// the end of a run, and a point over its "lr". Runs are told apart by
/// "network", "penalty", "seed" and "fold". A point of a training curve is the mean since the point
/// before it, of losses as of rates, while the log has the means since the epoch began. What a
/// rollback has undone is left out.
ReportCharts charts_of_log(std::istream& log);

/// At most `limit` points, those with the smallest and the largest value of each stretch, so that
/// no peak is lost. Values that are NaN are kept only where a stretch has nothing else.
void thin(ReportLine& line, std::size_t limit);

}  // namespace capsfw::apps

#pragma once
// report.html: a training run as one page that opens from disk and asks nothing of a network.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <capsfw/core/state_dict.hpp>
#include <capsfw/core/tensor.hpp>
#include <capsfw/optim/run_folder.hpp>

#include "common/args.hpp"

namespace capsfw::apps {

/// What stands above a section. A section replaces the one with the same group and title.
struct Heading {
  std::string title, note = {};
  std::string group = {};  ///< the network it is about, where a program trains several
  bool last = false;       ///< below the others
};

/// Images [C, H, W] in [0, 1] below each other, and lines of text below them.
struct Picture {
  TensorList images;
  std::vector<std::string> text;
};

/// The page of a run: the curves of its log, and the sections that the program adds.
///
///   Report report(folder, "compact network on mnist", args);
///   report.fact("data", "55000 images");
///   ... after each epoch: report.write();
///   report.headline("test accuracy", "99.1 %");
///   report.finish();
///
/// Until finish() the page says that the run is in progress; if an exception destroys the report,
/// that it ended with an error.
///
/// Texts may be anything (names of classes and files are): they are shown as text, and bytes that
/// are no UTF-8 are replaced. Curves are thinned, so that a page stays small however long the run
/// is.
class Report {
 public:
  /// Writes DIR/report.html of the run in `folder`, with all flags of `args`.
  Report(const RunFolder& folder, const std::string& title, const Args& args);
  ~Report();
  Report(const Report&) = delete;
  Report& operator=(const Report&) = delete;

  /// A line of the configuration; replaces the one of that name.
  void fact(const std::string& name, const std::string& value);
  /// The figure that counts, in large print.
  void headline(const std::string& label, const std::string& value);

  /// Cells row by row, each row as long as `head`. ValueError otherwise.
  void table(const Heading& heading,
             const std::vector<std::string>& head,
             const std::vector<std::vector<std::string>>& rows);
  /// Counts i64 [J, J] as confusion_matrix() makes them: rows are classes, columns what they were
  /// taken for. Of more than 30 classes: the table of the 20 most frequent mistakes. ShapeError if
  /// the names are not J.
  void confusion(const Heading& heading,
                 const Tensor& counts,
                 const std::vector<std::string>& names);
  /// Small images; those with a side above 64 pixels are made smaller.
  void pictures(const Heading& heading, const std::vector<Picture>& items);

  /// Adds the sections to what a finished part of a run keeps, as they are now, and brings them
  /// back, beside those of other parts: for programs that go on behind a network that had been
  /// finished.
  void save(StateDict& state, const std::string& prefix) const;
  void load(const StateDict& state, const std::string& prefix);

  /// Writes the page as it is now, complete or not at all; nothing within a second of the last
  /// time, since to read the log takes time, too. IoError as AtomicFile.
  void write();
  /// The same at the end, also of a run that was interrupted().
  void finish();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace capsfw::apps

#pragma once
// Private: processes that share the parts of a program among them, in a folder that all of them
// see.

#include <filesystem>
#include <string>

#include <capsfw/optim/ranks.hpp>

namespace capsfw::detail {

/// A part belongs to whoever makes the file of its name first. Lives in DIR/checkpoints.ranks, next
/// to a folder for each rank but 0, which works in DIR.
class Claims {
 public:
  /// All of `takers` together. RankError if one of them does not see the folder.
  Claims(const std::filesystem::path& folder, Ranks& takers);

  /// Where this rank leaves all but checkpoints.
  const std::filesystem::path& own() const { return own_; }
  /// True for one of the processes. The first part asked about is rank 0's.
  bool take(const std::string& part);

  /// What ranks have left behind: with `keep`, all but their logs goes to `folder`.
  static void collect(const std::filesystem::path& folder, const std::string& log, bool keep);

 private:
  std::filesystem::path claims_, own_;
  bool asked_ = false, leads_;
};

}  // namespace capsfw::detail

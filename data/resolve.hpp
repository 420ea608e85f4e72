#pragma once
// Where data sets lie.

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace capsfw {

/// Folders in which the data set `name` is looked for, in this order:
///   $CAPSFW_DATA_DIR/NAME, then $CAPSFW_DATA_DIR itself (unless that is another data set's folder)
///   /usr/share/datasets/NAME, /usr/local/share/datasets/NAME
///   $XDG_DATA_HOME/capsfw/NAME, or ~/.local/share/capsfw/NAME without that variable
///   datasets/NAME in the current folder
/// ValueError unless the name is made of letters, digits, '-', '_' and '.', not starting with '.'.
std::vector<std::filesystem::path> dataset_places(std::string_view name);

/// The first of dataset_places(name) that holds all of `files`, each as it is or with ".gz".
/// IoError naming every place, what is missing there, and how to get the data.
std::filesystem::path resolve_dataset(std::string_view name, const std::vector<std::string>& files);

/// `folder`/`file`, else `folder`/`file`.gz, else an empty path.
std::filesystem::path find_file(const std::filesystem::path& folder, const std::string& file);

}  // namespace capsfw

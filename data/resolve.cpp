#include <capsfw/data/resolve.hpp>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <system_error>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

namespace capsfw {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kKnown[] = {"mnist", "fashion-mnist", "cifar10", "cifar100",
                                       "smallnorb"};

void check_name(std::string_view name) {
  const bool good =
      !name.empty() && name[0] != '.' && std::all_of(name.begin(), name.end(), [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
      });
  if (!good)
    throw ValueError(fmt::format(
        "data set: a name is made of letters, digits, '-', '_' and '.'; got '{}'", name));
}

/// The value of an environment variable; empty if it is not set.
std::string environment(const char* variable) {
  const char* value = std::getenv(variable);
  return value == nullptr ? std::string() : value;
}

/// The last part of a path, also with a slash at its end.
std::string last_part(const fs::path& path) {
  return path.has_filename() ? path.filename().string() : path.parent_path().filename().string();
}

std::string how_to_get(std::string_view name, const std::vector<std::string>& files) {
  std::string hint = fmt::format(
      "put {} (each plain or as .gz) into a folder {}/ and set CAPSFW_DATA_DIR to the folder that "
      "holds {}/",
      fmt::join(files, ", "), name, name);
  if (std::find(std::begin(kKnown), std::end(kKnown), name) == std::end(kKnown))
    return hint + fmt::format(". Well-known names: {}", fmt::join(kKnown, ", "));
  const std::string script = fmt::format("scripts/get-data.sh {}", name);
  if (name == "fashion-mnist") return "apt-get install dataset-fashion-mnist, or " + script;
  return fmt::format("{}, or {}", script, hint);
}

/// What keeps `folder` from being the data set.
std::string verdict(const fs::path& folder, const std::vector<std::string>& files) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) return "no such folder";
  std::vector<std::string> missing;
  for (const auto& file : files)
    if (find_file(folder, file).empty()) missing.push_back(file);
  return fmt::format("lacks {}", fmt::join(missing, ", "));
}

}  // namespace

fs::path find_file(const fs::path& folder, const std::string& file) {
  std::error_code ignored;
  for (const char* ending : {"", ".gz"})
    if (fs::path path = folder / (file + ending); fs::is_regular_file(path, ignored)) return path;
  return {};
}

std::vector<fs::path> dataset_places(std::string_view name) {
  check_name(name);
  std::vector<fs::path> places;
  if (const fs::path root = environment("CAPSFW_DATA_DIR"); !root.empty()) {
    places.push_back(root / name);
    // MNIST and Fashion-MNIST have files of the same names: never take one for the other.
    const std::string last = last_part(root);
    if (last == name || std::find(std::begin(kKnown), std::end(kKnown), last) == std::end(kKnown))
      places.push_back(root);
  }
  places.push_back(fs::path("/usr/share/datasets") / name);
  places.push_back(fs::path("/usr/local/share/datasets") / name);
  if (const fs::path xdg = environment("XDG_DATA_HOME"); !xdg.empty())
    places.push_back(xdg / "capsfw" / name);
  else if (const fs::path home = environment("HOME"); !home.empty())
    places.push_back(home / ".local/share/capsfw" / name);
  places.push_back(fs::path("datasets") / name);
  return places;
}

fs::path resolve_dataset(std::string_view name, const std::vector<std::string>& files) {
  const auto places = dataset_places(name);
  for (const auto& folder : places)
    if (std::all_of(files.begin(), files.end(),
                    [&](const std::string& file) { return !find_file(folder, file).empty(); }))
      return folder;
  std::string looked;
  for (const auto& folder : places)
    looked += fmt::format("\n  {} ({})", folder.string(), verdict(folder, files));
  if (environment("CAPSFW_DATA_DIR").empty()) looked += "\n  CAPSFW_DATA_DIR (not set)";
  throw IoError(fmt::format("data set '{}': not found; looked in{}\nHint: {}", name, looked,
                            how_to_get(name, files)));
}

}  // namespace capsfw

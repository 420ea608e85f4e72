#include "common/models.hpp"

#include <cstdlib>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/data/image_arrays.hpp>
#include <capsfw/data/npy.hpp>

namespace capsfw::apps {
namespace {

namespace fs = std::filesystem;

/// The file in the first place that has it.
fs::path find(const std::string& file, const char* hint) {
  std::string looked;
  std::error_code ignored;
  for (const fs::path& place : model_places()) {
    if (fs::is_regular_file(place / file, ignored)) return place / file;
    looked += "\n  " + place.string();
  }
  throw IoError(fmt::format("{}: no such file; looked in{}\nHint: {}", file, looked, hint));
}

}  // namespace

std::vector<fs::path> model_places() {
  std::vector<fs::path> places;
  if (const char* folder = std::getenv("CAPSFW_MODEL_DIR"); folder != nullptr && *folder != '\0')
    places.emplace_back(folder);
  std::error_code failed;
  const fs::path program = fs::read_symlink("/proc/self/exe", failed);
  if (!failed) places.push_back(program.parent_path().parent_path() / "share/capsfw/models");
  places.emplace_back("/usr/local/share/capsfw/models");
  places.emplace_back("/usr/share/capsfw/models");
  return places;
}

fs::path find_model(const std::string& name) {
  const fs::path path = name;
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored) || path.has_parent_path() || path.has_extension())
    return path;
  return find(
      name + ".safetensors",
      "'mnist' and 'mnist-efficient' come with capsfw (apps/models); any other --model is the path "
      "of a file that a training program wrote");
}

ImageSet load_digits() {
  constexpr std::int64_t kClasses = 10;
  const StateDict arrays = load_npz(
      find("mnist-digits.npz", "it comes with capsfw (apps/models); --data names another set"));
  return image_set(arrays.at("images"), arrays.at("labels"), kClasses);
}

}  // namespace capsfw::apps

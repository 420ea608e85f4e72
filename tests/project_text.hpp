#pragma once
// The project's own files as text, for the tests that read them.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

namespace capsfw::testing {

inline const std::filesystem::path kRoot = CAPSFW_SOURCE_DIR;

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

/// All C++ files below the given folders, sorted, as paths from the root.
inline std::vector<std::string> sources(const std::vector<std::string>& folders) {
  std::vector<std::string> found;
  for (const std::string& folder : folders)
    for (const auto& entry : std::filesystem::recursive_directory_iterator(kRoot / folder)) {
      const std::string ext = entry.path().extension().string();
      if (ext == ".hpp" || ext == ".cpp")
        found.push_back(std::filesystem::relative(entry.path(), kRoot).generic_string());
    }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace capsfw::testing

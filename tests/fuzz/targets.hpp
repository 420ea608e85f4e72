#pragma once
// What is fuzzed: every reader of files, each as a function of the bytes of one file that says
// whether they were read. A bad file makes an IoError, which is caught inside; any other exception,
// lack of memory too, and everything that a sanitizer sees, is a finding.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string_view>

namespace capsfw::fuzz {

using Bytes = std::span<const std::uint8_t>;

bool idx(Bytes file);          ///< read_idx, to_tensor
bool gzip(Bytes file);         ///< read_idx of packed files
bool npy(Bytes file);          ///< load_npy
bool npz(Bytes file);          ///< load_npz
bool safetensors(Bytes file);  ///< load_safetensors
bool csv(Bytes file);          ///< load_csv with a separator of either kind
bool text(Bytes file);         ///< the first byte picks load_text, read_lines or Vocabulary::load
bool vectors(Bytes file);      ///< load_word_vectors; the first byte picks the format
bool image(Bytes file);        ///< load_image, of PNG files with checksums put right

struct Target {
  std::string_view name;
  bool (*run)(Bytes);
};
inline constexpr Target kTargets[] = {{"idx", idx},
                                      {"gzip", gzip},
                                      {"npy", npy},
                                      {"npz", npz},
                                      {"safetensors", safetensors},
                                      {"csv", csv},
                                      {"text", text},
                                      {"vectors", vectors},
                                      {"image", image}};

/// Calls read(path of a file with these bytes); the file is in memory. False for an IoError.
bool with_file(Bytes bytes, const std::function<void(const std::filesystem::path&)>& read);

}  // namespace capsfw::fuzz

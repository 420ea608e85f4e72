#pragma once
// The safetensors format (huggingface.co/docs/safetensors): 8 bytes with the length of the header,
// a JSON header {name: {dtype, shape, data_offsets}}, then the elements, row-major, little-endian.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include <capsfw/core/state_dict.hpp>

namespace capsfw {

/// Free text that travels with the tensors.
using Metadata = std::map<std::string, std::string>;

/// What a safetensors file holds.
struct SafetensorsFile {
  StateDict state;    ///< in the order of the header
  Metadata metadata;  ///< text by key
};

/// Writes all tensors of `state` (as F32, F64, I64, BOOL). The file appears complete or not at all
/// (AtomicFile). ValueError if a tensor is undefined, if a name is "__metadata__" or has control
/// characters, or for what is no UTF-8; IoError if the file cannot be written.
void save_safetensors(const std::filesystem::path& path,
                      const StateDict& state,
                      const Metadata& metadata = {});

/// Reads a whole file. F32, F64, I64 and BOOL keep their type; F16 and BF16 become f32; I32, I16,
/// I8, U32, U16 and U8 become i64. IoError naming the file, the tensor and the rule for anything
/// else than a well-formed file: header length, JSON, names that repeat or have control characters,
/// element types, shapes (at most 8 axes), offsets that leave the file, overlap, leave holes or do
/// not fit the shape.
SafetensorsFile load_safetensors(const std::filesystem::path& path);

namespace detail {
inline constexpr std::int64_t kMaxSafetensorsHeader = 100'000'000;  ///< as others that read it
inline constexpr const char* kMetadataName = "__metadata__";
}  // namespace detail

}  // namespace capsfw

#pragma once
// IDX, the format of MNIST: bytes 0 0 TYPE RANK, then RANK lengths as 32-bit big-endian integers,
// then the elements in row-major order, big-endian (LeCun, Cortes, Burges, "The MNIST database").

#include <cstdint>
#include <filesystem>
#include <vector>

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Element type of an IDX file; the values are the type bytes of the format.
enum class IdxType : std::uint8_t { u8 = 8, i8 = 9, i16 = 11, i32 = 12, f32 = 13, f64 = 14 };

/// The contents of an IDX file.
struct IdxArray {
  IdxType type = IdxType::u8;       ///< of the elements
  Shape shape;                      ///< lengths of the axes
  std::vector<std::uint8_t> bytes;  ///< elements, row-major, in the byte order of this machine
};

/// Reads an IDX file, plain or packed with gzip (told apart by their first bytes). At most 4 GiB of
/// elements. Memory grows with what the file really holds, never with what its header promises.
/// IoError naming the file and the rule: wrong magic, unknown type, rank outside 1..8, lengths that
/// overflow, missing or surplus data, damaged gzip.
IdxArray read_idx(const std::filesystem::path& path);

/// The same elements as a tensor: i64 from the integer types, f32, f64.
Tensor to_tensor(const IdxArray& array);

}  // namespace capsfw

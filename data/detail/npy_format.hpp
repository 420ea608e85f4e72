#pragma once
// The NPY format between a source of bytes and a tensor, for files and for members of archives.

#include <cstdint>
#include <functional>
#include <string>

#include <capsfw/core/tensor.hpp>

namespace capsfw::detail {

/// Where the bytes of an array come from.
struct NpySource {
  std::string where;  ///< for messages: "load_npy: 'x.npy'"
  std::int64_t size = 0;
  /// Copies up to `bytes` bytes from `offset` on and returns how many.
  std::function<std::size_t(std::int64_t offset, void* out, std::size_t bytes)> read;
};

/// The array. IoError if it is malformed.
Tensor parse_npy(const NpySource& source);

/// Everything before the elements of a file that holds `x` in row-major order.
std::string npy_header(const Tensor& x);

}  // namespace capsfw::detail

#pragma once
// NPY, the file format of NumPy arrays (numpy.lib.format): the bytes \x93NUMPY, a version, the
// length of a header {'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }, then the
// elements. NPZ is a zip archive of such files (PKWARE APPNOTE 6.3).

#include <cstdint>
#include <filesystem>

#include <capsfw/core/state_dict.hpp>
#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// Reads an NPY file of version 1, 2 or 3, in C or Fortran order, of either byte order. f4, f8, i8
/// and b1 keep their type; f2 becomes f32; i4, i2, i1, u8, u4, u2 and u1 become i64. The result is
/// row-major. IoError naming the file and the rule for anything else than a well-formed file:
/// magic, version, header, other element types (complex, objects, structures), more than 8 axes, a
/// shape that does not fit the bytes in the file, u8 elements above 2^63 − 1. Nothing is allocated
/// before the sizes agree.
Tensor load_npy(const std::filesystem::path& path);

/// Writes an NPY file of version 1 in C order: f32 as <f4, f64 as <f8, i64 as <i8, b8 as |b1. The
/// file appears complete or not at all (AtomicFile). ValueError if `x` is undefined; IoError if the
/// file cannot be written.
void save_npy(const std::filesystem::path& path, const Tensor& x);

/// Reads all arrays of an NPZ file, stored or deflated, in the order of its directory; names
/// without
/// ".npy". IoError as load_npy, and for an archive that is damaged, encrypted, split, in zip64
/// form, packed in another way, or of more than 4 GiB when unpacked, and for names that repeat or
/// have control characters.
StateDict load_npz(const std::filesystem::path& path);

/// Writes an NPZ file without compression, as numpy.savez does. ValueError if a tensor is
/// undefined, or if a name is empty or has control characters, or the file would have 4 GiB or
/// more; IoError if it cannot be written.
void save_npz(const std::filesystem::path& path, const StateDict& arrays);

}  // namespace capsfw

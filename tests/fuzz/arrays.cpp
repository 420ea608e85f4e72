// Targets: files of arrays. Of what was read every element is looked at, and shape and type must be
// those of a tensor that can be written and read again.

#include <stdexcept>

#include <capsfw/core/state_dict.hpp>
#include <capsfw/data/idx.hpp>
#include <capsfw/data/npy.hpp>
#include <capsfw/data/safetensors.hpp>

#include "targets.hpp"

namespace capsfw::fuzz {
namespace {

void look_at(const Tensor& x) {
  if (static_cast<std::int64_t>(x.to_vector<double>().size()) != x.shape().numel())
    throw std::runtime_error("elements do not fit the shape");
}

void look_at(const StateDict& state) {
  for (const auto& [name, x] : state) look_at(x);
}

bool read_packed_or_not(Bytes file) {
  return with_file(file, [](const std::filesystem::path& path) {
    const IdxArray array = read_idx(path);
    const Tensor x = to_tensor(array);
    if (x.shape() != array.shape) throw std::runtime_error("another shape");
    look_at(x);
  });
}

}  // namespace

bool idx(Bytes file) { return read_packed_or_not(file); }
bool gzip(Bytes file) { return read_packed_or_not(file); }

bool npy(Bytes file) {
  return with_file(file, [](const std::filesystem::path& path) { look_at(load_npy(path)); });
}

bool npz(Bytes file) {
  return with_file(file, [](const std::filesystem::path& path) { look_at(load_npz(path)); });
}

bool safetensors(Bytes file) {
  return with_file(
      file, [](const std::filesystem::path& path) { look_at(load_safetensors(path).state); });
}

}  // namespace capsfw::fuzz

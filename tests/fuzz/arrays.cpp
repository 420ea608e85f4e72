// Targets: files of arrays. Of what was read every element is looked at, and shape and type must be
// those of a tensor that can be written and read again.

#include <stdexcept>
#include <utility>

#include <capsfw/core/error.hpp>
#include <capsfw/core/state_dict.hpp>
#include <capsfw/data/checkpoint.hpp>
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

/// The state that was read comes back as it was.
void check_round_trip(const Checkpoint& read, const std::filesystem::path& folder) {
  CheckpointFolder other(folder);
  other.save(read);
  const auto again = other.load();
  if (!again || again->step != read.step || again->metadata != read.metadata ||
      again->state.size() != read.state.size())
    throw std::runtime_error("another checkpoint came back");
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

bool checkpoint(Bytes file) {
  const std::filesystem::path name = "step-0000000003.safetensors";
  if (with_folder({{name, file}}, [&](const std::filesystem::path& folder) {
        check_round_trip(*CheckpointFolder(folder).load(), folder / "other");
      }))
    return true;
  // Its checksum stops what is damaged; that of a stranger's file is right.
  with_folder({{name, file}}, [&](const std::filesystem::path& folder) {
    SafetensorsFile plain = load_safetensors(folder / name);
    std::erase_if(plain.metadata, [](const auto& e) { return e.first.starts_with("checkpoint."); });
    check_round_trip({3, std::move(plain.state), std::move(plain.metadata)}, folder / "other");
  });
  return false;
}

}  // namespace capsfw::fuzz

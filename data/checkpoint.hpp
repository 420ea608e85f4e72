#pragma once
// Checkpoints: the last few states of a run in a folder, of which a whole one is always there.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <capsfw/data/dataset.hpp>
#include <capsfw/data/safetensors.hpp>
#include <capsfw/data/text_loader.hpp>

namespace capsfw {

/// A state of a run.
struct Checkpoint {
  std::int64_t step = 0;  ///< orders the checkpoints of a folder
  StateDict state;        ///< weights and everything else that is a tensor
  Metadata metadata;      ///< texts
};

/// The safetensors files step-0000000123.safetensors of one run in a folder of their own:
///
///   CheckpointFolder folder("out/run/checkpoints");
///   folder.save({.step = 100, .state = net.state_dict(), .metadata = {{"lr", "0.1"}}});
///   if (const auto last = folder.load()) net.load_state_dict(last->state);
///
/// A file is written under a temporary name, brought to disk, and renamed (AtomicFile), with a
/// checksum over all that it holds. Whenever the process or the machine stops, the newest whole
/// file is one of the last two that were begun. What a killed process left under a temporary name
/// goes with the next save.
class CheckpointFolder {
 public:
  /// Nothing is created or read before the first call. ValueError unless keep >= 1.
  explicit CheckpointFolder(std::filesystem::path folder, int keep = 2);

  /// Writes a checkpoint, then removes all but the newest `keep`. IoError if it cannot be written
  /// (the disk is full, the folder is not writable): the older ones then are as they were.
  void save(const Checkpoint& checkpoint);

  /// The newest checkpoint that is whole; nothing if there is none at all. A damaged one is passed
  /// over: `note` gets a sentence about it. IoError if there are files and none of them is whole.
  /// Whatever says nothing about damage is thrown instead, since the next save() removes what was
  /// passed over: MemoryError or std::bad_alloc if memory is short, FileAccessError if the system
  /// does not open or read the newest file.
  std::optional<Checkpoint> load(const std::function<void(const std::string&)>& note = {}) const;

  /// The files in ascending order of their steps; none without a folder. IoError if there is one
  /// that cannot be read.
  std::vector<std::filesystem::path> files() const;

  /// The folder.
  const std::filesystem::path& path() const { return folder_; }

 private:
  std::filesystem::path folder_;
  int keep_;
};

/// Size and CRC-32 of all images and labels of a set, as text: whether the data are still those
/// that a checkpoint was made with.
std::string fingerprint(const ImageSet& set);
/// The same of sentences.
std::string fingerprint(const EncodedText& text);
/// The same of numbers.
std::string fingerprint(const Tensor& numbers);

}  // namespace capsfw

#pragma once
// Batches of an ImageSet, made ahead of time on a thread.

#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include <capsfw/core/random.hpp>
#include <capsfw/core/tensor.hpp>
#include <capsfw/data/batch_iterator.hpp>
#include <capsfw/data/dataset.hpp>
#include <capsfw/data/shards.hpp>

namespace capsfw {

class StateDict;

/// What DataLoader::next gives.
struct Batch {
  Tensor images;                                        ///< f32 [B, C, H, W] in [0, 1]
  Tensor labels;                                        ///< i64 [B]
  std::int64_t size() const { return labels.size(0); }  ///< samples in it
};

/// Options of DataLoader.
struct LoaderOptions {
  std::int64_t batch_size = 64;  ///< samples in a batch
  bool shuffle = false;          ///< a new order in every epoch; else the order of the set
  bool drop_last = false;        ///< leave out a last batch of fewer than batch_size images
  std::int64_t max_shift = 0;    ///< move each image by up to so many pixels, see DataLoader
  std::uint64_t seed = 0;        ///< of orders and shifts
  std::int64_t prefetch = 2;     ///< batches made ahead; 0: made in next() itself, without a thread
  /// Changes a finished batch (augmentation of your own). Runs on the loader's thread, with a
  /// generator of its own per batch; must not touch anything that the training loop changes.
  std::function<void(Batch&, Rng&)> transform = {};
};

/// Walks through a set epoch by epoch:
///
///   DataLoader loader(set, {.batch_size = 128, .shuffle = true, .max_shift = 2});
///   for (const Batch& batch : loader) ...  // one epoch; the next loop is the next epoch
///
/// Order and shifts are a function of seed, epoch and the size of the set alone: they depend
/// neither on prefetching, nor on threads, nor (except for `transform`) on the batch size. A shift
/// moves the image by (dy, dx), each uniform in {-max_shift, ..., max_shift}, and fills with zeros
/// (Sabour et al. 2017, section 5). Shares the pixels of the set. One thread may use it at a time.
/// ValueError if the set is empty or an option lies outside its range, and from every member of a
/// loader that was moved from, until another one is assigned to it.
class DataLoader {
 public:
  explicit DataLoader(ImageSet set, LoaderOptions options = {});
  ~DataLoader();
  DataLoader(DataLoader&&) noexcept;
  /// Takes the place of the other.
  DataLoader& operator=(DataLoader&&) noexcept;

  /// The next batch of this epoch; or false, and an empty batch, at its end, after which the next
  /// epoch begins. An exception of the loader's thread (from `transform`, or for lack of memory) is
  /// thrown here. ValueError after shard(): a batch then has several parts.
  bool next(Batch& batch);
  /// The shards of the next batch that are given here, each as a batch of its own; empty ones are
  /// left out. `transform` sees one shard at a time.
  bool next(std::vector<Batch>& shards);
  /// Cuts batches into shards from the next one on. ValueError as Shards has it.
  void shard(const Shards& shards);
  /// Samples in the last batch, in all of its shards.
  std::int64_t drawn() const;

  /// Batches per epoch.
  std::int64_t size() const;
  /// Images in the set.
  std::int64_t images() const;
  const ImageSet& set() const;  ///< the images
  const LoaderOptions& options() const;
  /// The epoch that the next batch belongs to, from 0.
  std::int64_t epoch() const;
  /// Images of this epoch that next() has given.
  std::int64_t position() const;
  /// Goes to the first batch of an epoch. ValueError if it is negative or 2^40 or more.
  void start_epoch(std::int64_t epoch);

  /// Seed, epoch and position as i64 [3] under `prefix`: a loader that loads them goes on with the
  /// very batch that this one would give next.
  void save(StateDict& state, const std::string& prefix) const;
  /// ValueError, and nothing changed, if the entry is missing or does not fit the set.
  void load(const StateDict& state, const std::string& prefix);

  using Iterator = BatchIterator<DataLoader, Batch>;  ///< reads what is left of the epoch
  /// Starts reading where next() would: at the start of an epoch, unless a loop was left early or
  /// a state was loaded.
  Iterator begin() { return Iterator(*this); }
  std::default_sentinel_t end() { return {}; }  ///< where a pass ends

 private:
  struct Impl;
  Impl& impl() const;
  std::unique_ptr<Impl> impl_;  // null after a move
};

}  // namespace capsfw

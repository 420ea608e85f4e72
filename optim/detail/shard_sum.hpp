#pragma once
// Private: the gradients of the shards of a batch, added up here and over the ranks.

#include <cstdint>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <capsfw/core/random.hpp>
#include <capsfw/data/shards.hpp>
#include <capsfw/layers/module.hpp>
#include <capsfw/optim/optimizer.hpp>
#include <capsfw/optim/ranks.hpp>
#include <capsfw/optim/run.hpp>

namespace capsfw::detail {

/// What all shards of a batch came to; the same bits on every rank.
struct ShardTotals {
  double loss = 0;        ///< mean over the samples
  Metrics metrics = {};   ///< likewise
  std::int64_t bad = -1;  ///< the first shard whose loss, or else whose gradient, is not finite
  double bad_loss = 0;    ///< its loss
  bool interrupted = false, late = false;  ///< somebody says so
};

/// Of every batch: begin(), then for each shard of this rank enter(), a forward pass, add(); then
/// finish(), which leaves the gradient of the whole batch at the parameters. A shard counts by its
/// share of the samples.
///
/// With `exact` the shards are added by a binary tree over their numbers. A rank has an aligned
/// block of 2^k of them, which is a subtree; what it has of the tree is added here, and the upper
/// levels by tree_sum(). Otherwise each rank has one shard, and what is complete is on its way
/// while the rest of the backward pass runs.
class ShardSum {
 public:
  ShardSum(Module& net, Optimizer& optimizer, Ranks* ranks, const Shards& shards, bool exact);

  /// A generator of the program, besides those of the network.
  void add_generator(Rng& rng) { generators_.push_back({&rng, {}, rng}); }

  /// A batch of so many samples, in all shards.
  void begin(std::int64_t samples);
  /// Shards of this rank that add() has not had; those without samples do not count.
  std::int64_t left() const { return nonempty_ - at_; }
  /// Before the forward pass of the next one: a stream of random numbers of its own, and buffers as
  /// they were before the batch.
  void enter();
  /// Its number.
  std::int64_t shard() const { return shards_.begin + at_; }
  const Shards& shards() const { return shards_; }
  std::int64_t samples() const { return samples_; }  // of the batch

  /// Computes the gradient of its loss; none of a loss that is not finite.
  void backward_of(const Tensor& loss);
  /// Takes what is at the parameters, if backward_of() has not, and goes on to the next shard.
  void add(double loss, const Metrics& metrics);
  ShardTotals finish(bool interrupted, bool late);

 private:
  struct Buffer {
    std::string name;
    Tensor value, base = {};    // now, and before the batch
    std::uint64_t version = 0;  // of `value` when it was `base`
    bool summed = false;        // training changes it
    TensorList shards = {};     // behind each shard of this rank; undefined: unchanged
  };
  struct Generator {
    Rng* rng;
    std::vector<Rng> streams;  // of the shards of this rank
    Rng next;                  // behind the batch
  };
  struct Bucket {
    std::int64_t begin, end;  // in flat_
    std::size_t parameters;   // in it
    std::size_t waiting = 0;  // of those, not packed yet
  };
  class Listener;
  struct Report {  // of a shard
    double loss;
    bool finite;  // its gradient is
    Metrics metrics;
  };
  /// Numbers of a report: loss, gradient, metrics; and flags in front of all reports.
  static constexpr std::size_t kMetrics = 7, kColumns = 2 + kMetrics, kHead = 2;

  double weight() const;
  Tensor fresh() const;
  void pack(std::size_t parameter);
  void start_ready();
  void carry();  // adds up complete subtrees
  void agree_once();
  std::vector<double> side(bool interrupted, bool late);
  void leave_gradients();
  void leave_buffers(const double* sums);

  Ranks* ranks_;
  Shards shards_;
  bool exact_;

  TensorList parameters_;  // last ones first: their gradients come first
  std::vector<std::int64_t> offsets_;
  std::unordered_map<const detail::TensorImpl*, std::size_t> index_;
  std::int64_t length_ = 0;  // of all gradients
  DType dtype_ = DType::f32;
  std::vector<Bucket> buckets_;
  std::size_t started_ = 0;  // buckets

  std::int64_t samples_ = 0, nonempty_ = 0, at_ = 0;
  Tensor flat_;  // of the shard at hand: gradients, then 1 for each parameter that has one
  std::vector<bool> packed_;
  bool has_flat_ = false;
  std::vector<std::pair<int, Tensor>> tree_;  // complete subtrees by height
  bool finite_ = true;                        // what pack() has seen of the shard at hand
  std::vector<Report> reports_;
  std::vector<Buffer> buffers_;
  bool buffers_known_ = false;
  std::vector<std::string> names_;  // of the metrics in the first step
  std::vector<Generator> generators_;
};

}  // namespace capsfw::detail

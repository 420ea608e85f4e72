#include "detail/shard_sum.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include <fmt/format.h>

#include <capsfw/core/backward_listener.hpp>
#include <capsfw/core/error.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/parallel.hpp>

#include "detail/parameters.hpp"

namespace capsfw::detail {
namespace {

/// Sent as one piece: large enough for the network, small enough to leave early.
constexpr std::int64_t kBucketBytes = 1 << 20;

void add_to(Tensor& sum, const Tensor& other) {
  visit_float(sum, "ShardSum", [&]<class T>() {
    T* a = sum.mutable_data<T>();
    const T* b = other.data<T>();
    parallel_for(sum.numel(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) a[i] += b[i];
    });
  });
}

}  // namespace

/// Says that this rank is at work; in the fast mode packs the gradients of a backward pass as they
/// become complete, and keeps sums moving.
class ShardSum::Listener : public BackwardListener {
 public:
  explicit Listener(ShardSum& sum) : sum_(sum) {}
  void rule_done() override { sum_.ranks_->progress(); }
  void leaf_done(const Tensor& leaf) override {
    const auto found = sum_.index_.find(leaf.impl());
    if (found == sum_.index_.end() || !sum_.has_flat_) return;
    sum_.pack(found->second);
    sum_.start_ready();
  }

 private:
  ShardSum& sum_;
};

ShardSum::ShardSum(
    Module& net, Optimizer& optimizer, Ranks* ranks, const Shards& shards, bool exact)
    : ranks_(ranks), shards_(shards), exact_(exact) {
  for (const TensorList& list : {net.parameters(), optimizer.parameters()})
    for (const Tensor& p : list)
      if (index_.try_emplace(p.impl(), 0).second) parameters_.push_back(p);
  std::reverse(parameters_.begin(), parameters_.end());
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor& p = parameters_[i];
    index_[p.impl()] = i;
    if (p.dtype() == DType::f64) dtype_ = DType::f64;
    offsets_.push_back(length_);
    if (buckets_.empty() || (length_ - buckets_.back().begin) * 4 >= kBucketBytes)
      buckets_.push_back({length_, length_, 0});
    length_ += p.numel();
    buckets_.back().end = length_;
    ++buckets_.back().parameters;
  }
  // Which parameters have a gradient; complete when the pass is over.
  const auto count = static_cast<std::int64_t>(parameters_.size());
  buckets_.push_back({length_, length_ + count, 0});
  for (const auto& [name, t] : net.named_buffers())
    if (is_floating(t.dtype())) buffers_.push_back({.name = name, .value = t});
  for (const auto& [name, rng] : net.named_generators()) add_generator(*rng);
}

double ShardSum::weight() const {
  return static_cast<double>(shards_.size(shard(), samples_)) / static_cast<double>(samples_);
}

Tensor ShardSum::fresh() const {
  return zeros({length_ + static_cast<std::int64_t>(parameters_.size())}, dtype_);
}

void ShardSum::begin(std::int64_t samples) {
  if (left() > 0)
    throw ValueError(fmt::format(
        "Run: every shard of a batch needs one step; {} were left of the last batch", left()));
  samples_ = samples;
  at_ = nonempty_ = 0;
  for (std::int64_t k = shards_.begin; k < shards_.end; ++k)
    nonempty_ += shards_.size(k, samples) > 0 ? 1 : 0;
  tree_.clear();
  reports_.clear();
  has_flat_ = false;
  for (Generator& g : generators_) {
    g.next = *g.rng;
    g.streams.clear();
    for (std::int64_t k = 0; k < shards_.count; ++k) {
      const Rng stream = g.next.split();
      if (k >= shards_.begin && k < shards_.end) g.streams.push_back(stream);
    }
  }
  for (Buffer& b : buffers_) {
    b.shards.clear();
    if (!buffers_known_ || b.summed) b.base = copy_of(b.value);
    b.version = b.value.version();
  }
}

void ShardSum::enter() {
  for (Generator& g : generators_) *g.rng = g.streams[static_cast<std::size_t>(at_)];
  for (Buffer& b : buffers_)
    if (b.value.version() != b.version) {
      b.value.copy_(b.base);
      b.version = b.value.version();
    }
}

void ShardSum::backward_of(const Tensor& loss) {
  for (Tensor& p : parameters_)
    if (p.grad().defined()) p.set_grad({});
  if (!std::isfinite(loss.item())) return;  // the step will be refused
  if (ranks_ == nullptr) return backward(loss);
  // In the first step ranks meet before anything is summed (agree_once), also those that have no
  // samples.
  if (!exact_ && buffers_known_) {
    flat_ = fresh();
    has_flat_ = true;
    started_ = 0;
    packed_.assign(parameters_.size(), false);
    for (Bucket& b : buckets_) b.waiting = b.parameters;
  }
  Listener listener(*this);
  const BackwardListenerGuard guard(&listener);
  backward(loss);
}

/// weight · gradient into its place; sees whether all of it is finite, which the sum over the
/// shards would no longer tell of one of them.
void ShardSum::pack(std::size_t i) {
  const Tensor grad = cast_data(parameters_[i].grad(), dtype_);
  visit_float(dtype_, "ShardSum", [&]<class T>() {
    const T w = static_cast<T>(weight());
    T* out = flat_.mutable_data<T>();
    const T* in = grad.data<T>();
    const std::int64_t at = offsets_[i];
    std::atomic<bool> finite{true};
    parallel_for(grad.numel(), 1, [&](std::int64_t begin, std::int64_t end) {
      bool all = true;
      for (std::int64_t k = begin; k < end; ++k) {
        out[at + k] = w * in[k];
        all = all & (std::abs(in[k]) <= std::numeric_limits<T>::max());
      }
      if (!all) finite = false;
    });
    finite_ = finite_ && finite;
    out[length_ + static_cast<std::int64_t>(i)] = 1;
  });
  if (packed_.empty() || packed_[i]) return;
  packed_[i] = true;
  const auto bucket = std::find_if(buckets_.begin(), buckets_.end(),
                                   [&](const Bucket& b) { return offsets_[i] < b.end; });
  --bucket->waiting;
}

/// In their order, since sums have to begin in the same order on all ranks.
void ShardSum::start_ready() {
  while (started_ + 1 < buckets_.size() && buckets_[started_].waiting == 0) {
    const Bucket& b = buckets_[started_++];
    visit_float(dtype_, "ShardSum", [&]<class T>() {
      ranks_->start_sum(flat_.mutable_data<T>() + b.begin, b.end - b.begin);
    });
  }
}

void ShardSum::add(double loss, const Metrics& metrics) {
  if (metrics.size() > kMetrics)
    throw ValueError(fmt::format("Run: a step of shards takes at most {} metrics; got {}", kMetrics,
                                 metrics.size()));
  if (left() == 0) throw ValueError("Run: one step for each shard; this batch has no shard left");
  for (Buffer& b : buffers_) {
    const bool changed = b.value.version() != b.version;
    if (changed && buffers_known_ && !b.summed)
      throw ValueError(fmt::format(
          "Run: a buffer that training changes must change in the first step, too; '{}' did not",
          b.name));
    b.shards.push_back(changed ? copy_of(b.value) : Tensor());
  }
  if (!has_flat_ || exact_) {
    flat_ = fresh();
    packed_.clear();
    for (std::size_t i = 0; i < parameters_.size(); ++i)
      if (parameters_[i].grad().defined()) pack(i);
  }
  reports_.push_back({loss, finite_, metrics});
  finite_ = true;
  ++at_;
  if (!exact_) return;
  tree_.emplace_back(0, std::move(flat_));
  carry();
}

void ShardSum::carry() {
  while (tree_.size() > 1 && tree_.back().first == tree_[tree_.size() - 2].first) {
    add_to(tree_[tree_.size() - 2].second, tree_.back().second);
    tree_.pop_back();
    ++tree_.back().first;
  }
}

}  // namespace capsfw::detail

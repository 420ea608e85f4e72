// What becomes of a batch whose shards are all there.

#include "detail/shard_sum.hpp"

#include <algorithm>
#include <cmath>

namespace capsfw::detail {
namespace {

/// Shares of all shards sum up to 1 but for this.
constexpr double kRounding = 1e-9;

}  // namespace

/// The buffers to add, and the names of the metrics: a rank without samples saw neither.
void ShardSum::agree_once() {
  if (buffers_known_) return;
  std::string mine;
  for (const Buffer& b : buffers_)
    mine +=
        std::any_of(b.shards.begin(), b.shards.end(), [](const Tensor& t) { return t.defined(); })
            ? '1'
            : '0';
  if (!reports_.empty())
    for (const auto& [name, value] : reports_[0].metrics) mine += name + '\n';
  for (const std::string& s :
       ranks_ != nullptr ? ranks_->gather(mine) : std::vector<std::string>{mine}) {
    for (std::size_t i = 0; i < buffers_.size(); ++i)
      buffers_[i].summed = buffers_[i].summed || s.at(i) == '1';
    std::vector<std::string> names;
    for (std::size_t at = buffers_.size(); at < s.size(); at = s.find('\n', at) + 1)
      names.push_back(s.substr(at, s.find('\n', at) - at));
    if (names_.empty()) names_ = names;
  }
  for (Buffer& b : buffers_)
    if (!b.summed) b.base = {};
  buffers_known_ = true;
}

/// What is added in double: flags, the reports of all shards, each in its own row, and buffers.
std::vector<double> ShardSum::side(bool interrupted, bool late) {
  std::vector<double> out(kHead + static_cast<std::size_t>(shards_.count) * kColumns);
  out[0] = interrupted ? 1 : 0;
  out[1] = late ? 1 : 0;
  for (std::size_t k = 0; k < reports_.size(); ++k) {
    double* row = &out[kHead + (static_cast<std::size_t>(shards_.begin) + k) * kColumns];
    *row++ = reports_[k].loss;
    *row++ = reports_[k].finite ? 0 : 1;
    for (const auto& [name, value] : reports_[k].metrics) *row++ = value;
  }
  // By the tree over the shards, as gradients are.
  std::vector<std::pair<int, std::vector<double>>> tree;
  for (std::int64_t k = shards_.begin; k < shards_.end; ++k) {
    const auto i = static_cast<std::size_t>(k - shards_.begin);
    const double w = static_cast<double>(shards_.size(k, samples_)) / static_cast<double>(samples_);
    std::vector<double> leaf;
    for (const Buffer& b : buffers_) {
      if (!b.summed) continue;
      const bool here = i < b.shards.size() && b.shards[i].defined();
      leaf.push_back(here ? w : 0);
      std::vector<double> values(static_cast<std::size_t>(b.value.numel()));
      if (here) values = b.shards[i].to_vector<double>();
      for (const double v : values) leaf.push_back(w * v);
    }
    tree.emplace_back(0, std::move(leaf));
    while (tree.size() > 1 && tree.back().first == tree[tree.size() - 2].first) {
      auto& sum = tree[tree.size() - 2];
      for (std::size_t j = 0; j < sum.second.size(); ++j) sum.second[j] += tree.back().second[j];
      tree.pop_back();
      ++tree.back().first;
    }
  }
  out.insert(out.end(), tree[0].second.begin(), tree[0].second.end());
  return out;
}

ShardTotals ShardSum::finish(bool interrupted, bool late) {
  agree_once();
  std::vector<double> sums = side(interrupted, late);
  const auto count = static_cast<std::int64_t>(sums.size());
  if (exact_) {
    for (std::int64_t k = nonempty_; k < shards_.end - shards_.begin; ++k) {
      tree_.emplace_back(0, fresh());  // an empty shard
      carry();
    }
    flat_ = std::move(tree_[0].second);
    tree_.clear();
    if (ranks_ != nullptr) {
      visit_float(dtype_, "ShardSum",
                  [&]<class T>() { tree_sum(*ranks_, flat_.mutable_data<T>(), flat_.numel()); });
      tree_sum(*ranks_, sums.data(), count);
    }
  } else {
    if (nonempty_ == 0) flat_ = fresh();
    if (!has_flat_) started_ = 0;
    for (Bucket& b : buckets_) b.waiting = 0;
    start_ready();
    const Bucket& last = buckets_.back();
    visit_float(dtype_, "ShardSum", [&]<class T>() {
      ranks_->start_sum(flat_.mutable_data<T>() + last.begin, last.end - last.begin);
    });
    ranks_->start_sum(sums.data(), count);
    ranks_->finish_sums();
  }
  leave_gradients();
  leave_buffers(sums.data() + kHead + static_cast<std::size_t>(shards_.count) * kColumns);
  for (Generator& g : generators_) *g.rng = g.next;

  ShardTotals t{.interrupted = sums[0] > 0, .late = sums[1] > 0};
  const auto column = [&](std::size_t c) {
    double sum = 0;
    for (std::int64_t k = 0; k < shards_.count; ++k)
      if (const std::int64_t n = shards_.size(k, samples_); n > 0)
        sum += static_cast<double>(n) * sums[kHead + static_cast<std::size_t>(k) * kColumns + c];
    return sum / static_cast<double>(samples_);
  };
  t.loss = column(0);
  for (const std::size_t what : {0, 1})  // losses before gradients
    for (std::int64_t k = 0; k < shards_.count && t.bad < 0; ++k) {
      const double* row = &sums[kHead + static_cast<std::size_t>(k) * kColumns];
      if (what == 0 ? std::isfinite(row[0]) : row[1] == 0) continue;
      t.bad = k;
      t.bad_loss = row[0];
    }
  std::vector<std::string> names = names_;
  if (!reports_.empty()) {
    names.clear();
    for (const auto& [name, value] : reports_[0].metrics) names.push_back(name);
  }
  for (std::size_t i = 0; i < names.size(); ++i) t.metrics.emplace_back(names[i], column(i + 2));
  return t;
}

void ShardSum::leave_gradients() {
  const Shape count{static_cast<std::int64_t>(parameters_.size())};
  const auto has = strided_view(flat_, count, {1}, length_).to_vector<double>();
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    Tensor& p = parameters_[i];
    if (!(has[i] > 0)) {
      p.set_grad({});
      continue;
    }
    p.set_grad(cast_data(strided_view(flat_, p.shape(), contiguous_strides(p.shape()), offsets_[i]),
                         p.dtype()));
  }
  flat_ = {};
}

void ShardSum::leave_buffers(const double* sums) {
  for (Buffer& b : buffers_) {
    if (!b.summed) continue;
    const double share = *sums++, rest = share < 1 - kRounding ? 1 - share : 0;
    std::vector<double> values(sums, sums + b.value.numel());
    if (rest > 0) {  // of the shards that did not change it
      const auto base = b.base.to_vector<double>();
      for (std::size_t i = 0; i < base.size(); ++i) values[i] += rest * base[i];
    }
    b.value.copy_(from_vector(values, b.value.shape()));
    sums += b.value.numel();
  }
}

}  // namespace capsfw::detail

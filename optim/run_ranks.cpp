// What a Run does where batches are cut into shards, or other ranks take part.

#include <cmath>
#include <limits>

#include <capsfw/core/error.hpp>

#include "detail/hash.hpp"
#include "detail/run_impl.hpp"

namespace capsfw {
namespace {

std::uint64_t hash_of(const StateDict& state) {
  std::uint64_t hash = detail::hash_of(nullptr, 0);
  for (const auto& [name, t] : state) {
    const Tensor data = contiguous_data(t);
    visit_any(data.dtype(), [&]<class T>() {
      hash =
          detail::hash_of(data.data<T>(), static_cast<std::size_t>(data.numel()) * sizeof(T), hash);
    });
  }
  return hash;
}

}  // namespace

void Run::Impl::share() {
  if (folder.ranks() != nullptr && folder.ranks()->size() > 1) ranks = folder.ranks();
  const std::int64_t size = ranks != nullptr ? ranks->size() : 1,
                     rank = ranks != nullptr ? ranks->rank() : 0, n = options.shards;
  if (n < 0 || (n & (n - 1)) != 0)
    throw ValueError(fmt::format("Run: shards must be a power of two, or 0; got {}", n));
  if (n > 0 && n % size != 0)
    throw ValueError(fmt::format(
        "Run: the number of ranks must divide shards; got {} shards and {} ranks. Hint: a power of "
        "two of ranks, or no --shards",
        n, size));
  const std::int64_t count = n > 0 ? n : size, each = count / size;
  if (count == 1) return;
  const Shards shards{.count = count, .begin = rank * each, .end = (rank + 1) * each};
  sharding.emplace(net, optimizer, ranks, shards, n > 0);
  loading.shard(shards);
}

void Run::Impl::start_together() {
  if (ranks == nullptr) return;
  StateDict begin;
  if (ranks->rank() == 0) begin = state();
  broadcast(*ranks, begin);
  if (ranks->rank() == 0) return;
  const std::int64_t before = saved_step;
  load({.step = 0, .state = begin, .metadata = {}});
  saved_step = before;
}

void Run::Impl::meet() {
  if (ranks == nullptr || agreed_halt) return;
  agreed_halt = agree_on_interrupt(ranks);
}

void Run::Impl::compare_weights() {
  if (ranks == nullptr || agreed_halt) return;
  require_equal(*ranks, {{fmt::format("the sum over all weights behind step {}", s.step),
                          fmt::format("{:016x}", hash_of(net.state_dict()))}});
}

bool Run::Impl::take_shard(double loss, const Metrics& metrics) {
  sharding->add(loss, metrics);
  return sharding->left() == 0 && take_sum(sharding->samples());
}

bool Run::Impl::take_sum(std::int64_t samples) {
  const detail::ShardTotals t =
      sharding->finish(ranks != nullptr && interrupt_pending(), ranks != nullptr && late());
  if (ranks != nullptr && t.interrupted) {
    agreed_halt = true;
    request_interrupt();
  }
  agreed_late = agreed_late || t.late;
  std::string what = complaint(t.loss);
  if (t.bad >= 0) {
    what = std::isfinite(t.bad_loss) ? fmt::format("the gradient of shard {} is not finite", t.bad)
                                     : fmt::format("the loss of shard {} is {}", t.bad, t.bad_loss);
    if (ranks != nullptr) {
      const std::int64_t rank = t.bad / (sharding->shards().count / ranks->size());
      what += fmt::format(", on rank {}", rank);
      overflow = ranks->gather(overflow).at(static_cast<std::size_t>(rank));
    }
  }
  const std::string why = overflow.empty() ? "" : fmt::format(": {}", overflow);
  overflow.clear();
  if (!what.empty())
    return refuse(what + why, t.loss, std::numeric_limits<double>::quiet_NaN(),
                  why.empty() ? kSlower : "");  // one hint is enough
  return take(t.loss, samples, t.metrics);
}

void Run::Impl::say_traffic() {
  if (ranks == nullptr || s.step == first_step) return;
  const RankTraffic now = ranks->traffic();
  const auto steps = static_cast<double>(s.step - first_step);
  say(fmt::format(
      "{}{} ranks: {:.2f} MB a step sent by each; {:.1f} ms a step waited for the others",
      options.label, ranks->size(), static_cast<double>(now.bytes - traffic.bytes) / steps / 1e6,
      1000 * (now.waited - traffic.waited) / steps));
}

}  // namespace capsfw

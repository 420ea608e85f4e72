#include <capsfw/optim/memory_estimate.hpp>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/optim/memory.hpp>

#include "detail/parameters.hpp"

namespace capsfw {
namespace {

std::string megabytes(std::size_t bytes) {
  return fmt::format("{:.{}f} MB", static_cast<double>(bytes) / 1e6, bytes < 10'000'000 ? 1 : 0);
}

std::size_t bytes_of(const NamedTensors& tensors) {
  std::size_t sum = 0;
  for (const auto& [name, t] : tensors)
    sum += static_cast<std::size_t>(t.numel()) * size_of(t.dtype());
  return sum;
}

/// Makes a network what it was: a forward pass in training mode moves running statistics and
/// generators.
class Restored {
 public:
  explicit Restored(Module& net) : net_(net), mode_(net) {
    for (const auto& [name, t] : net.named_buffers()) buffers_.emplace_back(t, detail::copy_of(t));
    for (const auto& [name, rng] : net.named_generators()) rng->save(generators_, name);
    if (!net.training()) net.train();
  }
  ~Restored() {
    for (auto& [to, from] : buffers_) to.copy_(from);
    for (const auto& [name, rng] : net_.named_generators()) rng->load(generators_, name);
    net_.zero_grad();
  }
  Restored(const Restored&) = delete;
  Restored& operator=(const Restored&) = delete;

 private:
  Module& net_;
  ModeGuard mode_;
  std::vector<std::pair<Tensor, Tensor>> buffers_;
  StateDict generators_;
};

/// A limit for the length of a scope: a probe must fail with an error, and not take the machine.
class Limited {
 public:
  Limited() : previous_(memory_limit()) {
    const std::size_t left = available_memory(), all = memory_stats().live + left;
    if (left > 0) set_memory_limit(previous_ == 0 ? all : std::min(previous_, all));
  }
  ~Limited() { set_memory_limit(previous_); }
  Limited(const Limited&) = delete;
  Limited& operator=(const Limited&) = delete;

 private:
  std::size_t previous_;
};

/// What a step adds at its largest.
std::size_t probe(Optimizer& optimizer, std::int64_t samples, const StepLoss& loss) {
  const std::size_t before = memory_stats().live;
  reset_peak_memory();
  if (const Tensor value = loss(samples); value.defined()) {
    optimizer.zero_grad();
    backward(value);
  }
  return memory_stats().peak - before;
}

/// The batch on the line of the estimate that fits into `limit`, tried: where algorithms change
/// with the batch, or their scratch memory is most of a step, the line is far from straight.
std::int64_t fitting(const MemoryEstimate& e,
                     std::size_t limit,
                     Optimizer& optimizer,
                     const StepLoss& loss) {
  const std::size_t rest = e.total() - e.step;
  const auto fits = [&](std::int64_t samples) {
    try {
      return probe(optimizer, samples, loss) + rest <= limit;
    } catch (const MemoryError&) {
      return false;
    }
  };
  if (rest >= limit) return 0;
  std::int64_t batch = e.batch_without(e.total() - limit);
  if (batch == 0) batch = e.batch * 3 / 4;  // a line without slope, or a steep one
  while (batch > 0 && !fits(batch)) batch = batch * 3 / 4;
  return batch;
}

/// "Hint: ..." for somebody who has too little; `batch`: one that would fit.
std::string advice(std::int64_t batch) {
  return fmt::format(
      "Hint: {}, fewer primary capsules, a routing that does not store its votes (dynamic, kmeans, "
      "entropy), checkpoint() around a layer",
      batch > 0 ? fmt::format("a batch of {}", batch) : "a smaller batch");
}

}  // namespace

std::int64_t MemoryEstimate::batch_without(std::size_t excess) const {
  if (per_sample <= 0) return 0;
  // A tenth less: blocks are rounded up to sizes that do not grow in a straight line.
  const double samples =
      std::floor(0.9 * (static_cast<double>(batch) - static_cast<double>(excess) / per_sample));
  return samples < 1 ? 0 : static_cast<std::int64_t>(samples);
}

std::string MemoryEstimate::str() const {
  return fmt::format(
      "a step of {} samples takes about {}: parameters {}, gradients {}, optimizer {}, activations "
      "and votes {}, data and others {}",
      batch, megabytes(total()), megabytes(parameters), megabytes(gradients), megabytes(optimizer),
      megabytes(step), megabytes(others));
}

MemoryEstimate estimate_memory(Module& net,
                               Optimizer& optimizer,
                               std::int64_t batch,
                               const StepLoss& loss) {
  if (batch < 1)
    throw ValueError(fmt::format("estimate_memory: batch must be at least 1; got {}", batch));
  MemoryEstimate e{.batch = batch};
  // Those of an earlier step would count among the others, and hide what new ones take.
  net.zero_grad();
  optimizer.zero_grad();
  const std::size_t live = memory_stats().live, limit = memory_limit();
  e.parameters = bytes_of(net.named_parameters()) + bytes_of(net.named_buffers());
  e.others = live - std::min(live, e.parameters);
  const Restored restored(net);
  const Limited limited;
  // As between two steps: the gradients of the last one are there while the next one runs forward.
  const std::size_t before = memory_stats().live;
  for (Tensor p : optimizer.parameters())
    if (p.requires_grad()) p.set_grad(zeros_like(p));
  e.gradients = memory_stats().live - before;
  e.optimizer = optimizer.missing_buffers() * e.gradients;
  for (std::int64_t samples = batch;; samples = (samples + 1) / 2) {
    try {
      const auto step = static_cast<double>(probe(optimizer, samples, loss));
      e.per_sample = step / static_cast<double>(samples);
      if (samples > 1) {
        // Not all of it shrinks with the batch.
        const std::int64_t fewer = samples / 2;
        const double less = step - static_cast<double>(probe(optimizer, fewer, loss));
        e.per_sample = std::clamp(less / static_cast<double>(samples - fewer), 0.0, e.per_sample);
      }
      e.step = static_cast<std::size_t>(step + e.per_sample * static_cast<double>(batch - samples));
      if (limit > 0 && e.total() > limit) e.fits = fitting(e, limit, optimizer, loss);
      return e;
    } catch (const MemoryError& error) {
      if (samples > 1) continue;
      throw MemoryError(
          fmt::format("a training step of one sample does not fit into memory: {}", error.what()));
    }
  }
}

std::string check_memory(const MemoryEstimate& e) {
  const std::size_t limit = memory_limit();
  const auto text = [&](std::size_t needed, std::size_t has, const char* what) {
    return fmt::format("{}; {} {}. {}", e.str(), what, megabytes(has),
                       advice(e.fits.value_or(e.batch_without(needed - has))));
  };
  if (limit > 0) {
    if (e.total() > limit) throw MemoryError(text(e.total(), limit, "the memory limit is"));
    return "";
  }
  const std::size_t left = available_memory();
  return left > 0 && e.missing() > left ? text(e.missing(), left, "the machine has only") : "";
}

}  // namespace capsfw

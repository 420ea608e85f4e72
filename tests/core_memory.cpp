// The caching allocator. Under a sanitizer every tensor is a heap block of its own and nothing is
// cached, which `system` == 0 tells.

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/debug.hpp>
#include <capsfw/core/error.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/tensor.hpp>
#include <capsfw/core/vspace.hpp>
#include <capsfw/ops/arithmetic.hpp>

#include "support.hpp"

using namespace capsfw;
using capsfw::testing::contains;
using capsfw::testing::MemoryLimit;
using capsfw::testing::message_of;

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

/// Under a sanitizer every block goes back to the system at once.
bool caches() { return !capsfw::testing::kSanitized; }

}  // namespace

TEST_CASE("every block is aligned to 64 bytes") {
  for (std::int64_t n : {0, 1, 15, 63, 64, 65, 1000, 5000, 300000, 700000}) {
    CAPTURE(n);
    const Tensor x = empty({n}, DType::b8);
    CHECK(reinterpret_cast<std::uintptr_t>(x.data<bool>()) % 64 == 0);
  }
}

TEST_CASE("live bytes follow the tensors, and the peak remembers") {
  for (std::int64_t n : {1, 1000, 100000, 3000000}) {
    CAPTURE(n);
    reset_peak_memory();
    const std::size_t before = memory_stats().live;
    CHECK(memory_stats().peak == before);
    const auto bytes = static_cast<std::size_t>(n) * 8;
    {
      const Tensor x = empty({n}, DType::f64);
      const Tensor view = x.detach();
      const std::size_t during = memory_stats().live - before;
      CHECK(during >= bytes);
      CHECK(during <= bytes + bytes / 3 + 2 * kMiB);
    }
    CHECK(memory_stats().live == before);
    CHECK(memory_stats().peak >= before + bytes);
    reset_peak_memory();
    CHECK(memory_stats().peak == before);
  }
}

TEST_CASE("a freed block serves the next request of its size") {
  if (!caches()) return;
  for (std::int64_t n : {10, 5000, 200000, 4000000}) {
    CAPTURE(n);
    { const Tensor x = empty({n}, DType::f64); }
    const MemoryStats first = memory_stats();
    CHECK(first.cached > 0);
    for (int k = 0; k < 5; ++k) {
      const Tensor x = empty({n}, DType::f64);
      CHECK(memory_stats().cached < first.cached);
    }
    CHECK(memory_stats().system == first.system);
    CHECK(memory_stats().cached == first.cached);
  }
}

TEST_CASE("a slightly smaller tensor takes the block of a larger one") {
  if (!caches()) return;
  { const Tensor x = empty({4000000}, DType::f64); }
  const std::size_t system = memory_stats().system;
  const Tensor y = empty({3700000}, DType::f64);
  CHECK(memory_stats().system == system);
}

TEST_CASE("free ranges that lie apart serve a tensor that is larger than each") {
  if (!caches()) return;
  trim_memory();
  const std::int64_t n = 1 << 20;  // 8 MiB
  Tensor a = empty({n}, DType::f64), b = full({n}, 3.0, DType::f64), c = empty({n}, DType::f64),
         d = full({n}, 4.0, DType::f64);
  const std::size_t system = memory_stats().system;
  a = Tensor(), c = Tensor();
  Tensor both = full({2 * n}, 5.0, DType::f64);
  CHECK(memory_stats().system == system);
  const auto only = [](const Tensor& x, double value) {
    const auto v = x.to_vector<double>();
    return std::all_of(v.begin(), v.end(), [=](double e) { return e == value; });
  };
  CHECK(only(b, 3.0));
  CHECK(only(d, 4.0));
  CHECK(only(both, 5.0));
  // The other way: what was gathered serves many that are smaller.
  both = Tensor();
  TensorList parts;
  for (int k = 0; k < 8; ++k) parts.push_back(full({n / 4}, k, DType::f64));
  CHECK(memory_stats().system == system);
  for (int k = 0; k < 8; ++k) CHECK(only(parts[static_cast<std::size_t>(k)], k));
}

TEST_CASE("blocks of many sizes in changing order never share memory") {
  std::vector<std::pair<Tensor, std::int64_t>> held;
  std::uint64_t state = 1;
  const auto draw = [&](std::uint64_t n) {
    state = state * 6364136223846793005U + 1442695040888963407U;
    return (state >> 33U) % n;
  };
  for (int step = 0; step < 400; ++step) {
    if (held.size() > 12 || (!held.empty() && draw(2) == 0)) {
      const std::size_t k = draw(held.size());
      const auto [x, mark] = held[k];
      const auto* p = x.data<std::int64_t>();
      bool intact = true;
      for (std::int64_t i = 0; i < x.numel(); i += 509) intact = intact && p[i] == mark;
      CHECK(intact);
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(k));
    } else {
      held.emplace_back(full({1 + static_cast<std::int64_t>(draw(1U << draw(21)))},
                             static_cast<double>(step), DType::i64),
                        step);
    }
  }
}

TEST_CASE("trim_memory returns large cached blocks to the system") {
  if (!caches()) return;
  { const Tensor x = empty({64, 1 << 16}, DType::f64); }
  const MemoryStats before = memory_stats();
  trim_memory();
  const MemoryStats after = memory_stats();
  CHECK(after.system <= before.system - 32 * kMiB);
  CHECK(after.cached <= before.cached - 32 * kMiB);
  CHECK(after.live == before.live);
}

TEST_CASE("a request that the system cannot serve is an error that says how much was asked for") {
  if (!caches()) return;
  const MemoryStats before = memory_stats();
  try {
    empty({std::int64_t{1} << 58}, DType::f64);
    FAIL("2^61 bytes were granted");
  } catch (const MemoryError& e) {
    CHECK(std::string(e.what()).find("2305843009213693952 bytes") != std::string::npos);
  }
  CHECK(memory_stats().live == before.live);
}

TEST_CASE("beyond the memory limit is an error that names the op, the place, bytes and limit") {
  CHECK(memory_limit() == 0);
  const Tensor x = empty({1 << 20});
  const std::size_t live = memory_stats().live, limit = live + 5 * kMiB;
  {
    const MemoryLimit guard(limit);
    CHECK(memory_limit() == limit);
    { const Tensor fits = empty({1 << 20}); }
    const Scope scope("net");
    const std::string text = message_of<MemoryError>([&] { add(empty({1 << 20}), x); });
    CAPTURE(text);
    CHECK(text.find("add: no memory for 4194304 bytes at net; ") == 0);
    CHECK(contains(text, "of a limit of " + std::to_string(limit)));
    CHECK(contains(text, "Hint: "));
    CHECK(message_of<MemoryError>([] { empty({1 << 21}); }).find("no memory for 8388608 bytes") ==
          0);
    CHECK(memory_stats().live == live);
  }
  CHECK(memory_limit() == 0);
  CHECK(empty({1 << 21}).numel() == 1 << 21);
}

TEST_CASE("out of memory in a backward pass names the op whose rule asked for it") {
  Tensor x = zeros({1 << 20}).requires_grad_();
  const Tensor y = sum_to(mul(x, x), {1});
  std::string text;
  {
    const MemoryLimit guard(memory_stats().live + kMiB);
    text = message_of<MemoryError>([&] { grad(y, x, {}, {.retain_graph = true}); });
  }
  CAPTURE(text);
  CHECK(text.find("backward of 'mul': mul: no memory for 4194304 bytes") == 0);
  CHECK(grad(y, x).numel() == 1 << 20);  // the graph is as it was
}

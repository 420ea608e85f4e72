// The caching allocator. Under a sanitizer every tensor is a heap block of its own and nothing is
// cached, which `system` == 0 tells.

#include <cstdint>

#include <doctest/doctest.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/error.hpp>
#include <capsfw/core/tensor.hpp>

using namespace capsfw;

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

bool caches() {
  const Tensor x = zeros({1});
  return memory_stats().system > 0;
}

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
  } catch (const Error& e) {
    CHECK(std::string(e.what()).find("2305843009213693952 bytes") != std::string::npos);
  }
  CHECK(memory_stats().live == before.live);
}

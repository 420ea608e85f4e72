// An op that gets no memory says so in its own name, forward and backward.

#include <string>

#include <doctest/doctest.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/ops/matmul.hpp>

#include "op_table.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace capsfw::op_table;
using capsfw::testing::MemoryLimit;

namespace {

/// Enough for constants and small results, and for no tensor of op_table's kLarge.
constexpr std::size_t kSlack = std::size_t{64} << 10;

/// The text of the MemoryError of `f`, "" if it needs no memory.
template <class F>
std::string refusal(const F& f) {
  const MemoryLimit limit(memory_stats().live + kSlack);
  try {
    f();
  } catch (const MemoryError& e) {
    return e.what();
  }
  return "";
}

bool nameless(const std::string& text) { return text.find("no memory") == 0; }

}  // namespace

TEST_CASE("the gradient of a matrix that multiplies a batch is made once") {
  constexpr std::int64_t batch = 64, n = 96;
  Rng rng(1);
  const Tensor x = rng.normal({batch, 3, n}, 0, 1);
  const Tensor w = rng.normal({n, n}, 0, 1).requires_grad_();
  const Tensor y = matmul(x, w);
  const std::size_t room = 4 * n * n * sizeof(float);  // a sixteenth of one for each sample
  const MemoryLimit limit(memory_stats().live + room);
  CHECK(grad(y, w, x).shape() == Shape{n, n});
}

TEST_CASE("op table: without memory, every op gives its name") {
  int refused = 0;
  for_each_row(
      100, [](const Row&) { return true; },
      [&](const Row& row) -> std::string {
        const TensorList x = leaves(sample(row, row.large));
        const std::size_t live = memory_stats().live;
        const std::string forward = refusal([&] { row(x); });
        refused += forward.empty() ? 0 : 1;
        if (nameless(forward)) return "forward: " + forward;
        if (memory_stats().live != live) return "forward: memory is lost";
        TensorList y;
        for (const Tensor& t : row(x))
          if (t.requires_grad()) y.push_back(t);
        if (y.empty()) return "";
        const TensorList gy = random_like(y);
        const std::string backward =
            refusal([&] { grad(y, x, gy, {.retain_graph = true, .allow_unused = true}); });
        return nameless(backward) ? "backward: " + backward : "";
      });
  CHECK(refused > 60);
}

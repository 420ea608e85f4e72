// Several ranks: sums in a fixed order, messages, and what must be equal.

#include <cmath>
#include <numeric>

#include <doctest/doctest.h>

#include <capsfw/core/random.hpp>
#include <capsfw/data/shards.hpp>

#include "optim_thread_ranks.hpp"

using namespace capsfw;
using namespace optim_test;

namespace {

using Floats = std::vector<float>;

/// ((0 + 1) + (2 + 3)) + ...
Floats tree(std::vector<Floats> list) {
  while (list.size() > 1) {
    std::vector<Floats> next;
    for (std::size_t i = 0; i < list.size(); i += 2) {
      for (std::size_t k = 0; k < list[i].size(); ++k) list[i][k] += list[i + 1][k];
      next.push_back(std::move(list[i]));
    }
    list = std::move(next);
  }
  return list[0];
}

}  // namespace

TEST_CASE("tree_sum: the bits of a binary tree, on every rank, for any length") {
  for (const int n : {1, 2, 4, 8, 16})
    for (const std::int64_t length : {0, 1, 2, 3, 7, 100, 1001}) {
      CAPTURE(n);
      CAPTURE(length);
      Rng rng(static_cast<std::uint64_t>(n * 2000 + length));
      std::vector<Floats> all;
      for (int r = 0; r < n; ++r) all.push_back(rng.normal({length}, 0, 1).to_vector<float>());
      const Floats want = tree(all);
      std::vector<std::int64_t> bytes(static_cast<std::size_t>(n));
      const auto errors = on_ranks(n, [&](ThreadRanks& ranks) {
        const auto r = static_cast<std::size_t>(ranks.rank());
        tree_sum(ranks, all[r].data(), length);
        bytes[r] = ranks.traffic().bytes;
      });
      for (int r = 0; r < n; ++r) {
        CHECK(errors[static_cast<std::size_t>(r)].empty());
        CHECK(all[static_cast<std::size_t>(r)] == want);
        // 2 (n - 1) / n of the numbers, up to halves that are no whole numbers.
        CHECK(std::abs(static_cast<double>(bytes[static_cast<std::size_t>(r)]) / 4 -
                       2.0 * (n - 1) / n * static_cast<double>(length)) <= 2.0 * n);
      }
    }
}

TEST_CASE("tree_sum: only a power of two of ranks") {
  float x = 1;
  for (const std::string& error : on_ranks(3, [&](ThreadRanks& ranks) { tree_sum(ranks, &x, 0); }))
    CHECK(error.find("power of two; got 3") != std::string::npos);
}

TEST_CASE("shards: every sample is in one of them, whatever the numbers are") {
  for (std::int64_t count = 1; count < 9; ++count)
    for (std::int64_t n = 0; n < 30; ++n) {
      const Shards s{.count = count, .begin = 0, .end = count};
      std::int64_t at = 0, most = 0, least = n;
      for (std::int64_t k = 0; k < count; ++k) {
        CHECK(s.start(k, n) == at);
        at += s.size(k, n);
        most = std::max(most, s.size(k, n));
        least = std::min(least, s.size(k, n));
      }
      CHECK(at == n);
      CHECK(most - least <= 1);
      CHECK((n == 0 || s.size(0, n) > 0));
    }
  CHECK_THROWS_WITH(detail::check_shards("X", {.count = 2, .begin = 1, .end = 3}),
                    "X: shards must lie in [0, count) with a count of at least 1; got 1 to 3 of 2");
}

TEST_CASE("broadcast: entries of every type and rank") {
  Rng rng(1);
  StateDict sent;
  sent.set("a name with spaces", rng.normal({2, 3}, 0, 1));
  sent.set("b", from_vector<std::int64_t>({1, 2, 3}));
  sent.set("c", scalar(0.1, DType::f64));
  sent.set("d", zeros({0, 4}));
  sent.set("e", rng.bernoulli({5}, 0.5));
  std::vector<StateDict> got(3);
  on_ranks(3, [&](ThreadRanks& ranks) {
    auto& mine = got[static_cast<std::size_t>(ranks.rank())];
    if (ranks.rank() == 0) mine = sent;
    broadcast(ranks, mine);
  });
  for (const StateDict& s : got) {
    REQUIRE(s.size() == sent.size());
    for (const auto& [name, t] : sent) {
      CHECK(s.at(name).dtype() == t.dtype());
      CHECK(s.at(name).shape() == t.shape());
      CHECK(s.at(name).to_vector<double>() == t.to_vector<double>());
    }
  }
}

TEST_CASE("in_turns: what one process makes, in its order, whatever the number of ranks") {
  const auto turn = [](std::int64_t k) { return from_vector<double>({static_cast<double>(k)}); };
  const auto numbers = [](const TensorList& list) {
    std::vector<double> out;
    for (const Tensor& t : list) out.push_back(t.item());
    return out;
  };
  for (const std::int64_t count : {0, 1, 3, 7}) {
    const std::vector<double> want = numbers(in_turns(nullptr, count, turn));
    REQUIRE(want.size() == static_cast<std::size_t>(count));
    for (std::size_t k = 0; k < want.size(); ++k) CHECK(want[k] == static_cast<double>(k));
    for (const int n : {1, 2, 5}) {
      CAPTURE(count);
      CAPTURE(n);
      std::vector<int> same(static_cast<std::size_t>(n), 0), own(same);
      const auto errors = on_ranks(n, [&](ThreadRanks& ranks) {
        const auto r = static_cast<std::size_t>(ranks.rank());
        const TensorList all = in_turns(&ranks, count, [&](std::int64_t k) {
          own[r] += k % n == ranks.rank() ? 1 : 100;
          return turn(k);
        });
        same[r] = numbers(all) == want ? 1 : 0;
      });
      for (const std::string& e : errors) CHECK(e.empty());
      CHECK(same == std::vector<int>(static_cast<std::size_t>(n), 1));
      CHECK(std::accumulate(own.begin(), own.end(), 0) == count);  // nobody does another's
    }
  }
}

TEST_CASE("require_equal: names what differs, both values, and the rank") {
  const auto errors = on_ranks(3, [&](ThreadRanks& ranks) {
    require_equal(ranks, {{"--lr", ranks.rank() == 2 ? "0.01" : "0.1"}, {"a b", "x 1 2"}});
  });
  for (const std::string& e : errors)
    CHECK(e.find("--lr is '0.1' on rank 0 and '0.01' on rank 2") != std::string::npos);
  for (const std::string& e : on_ranks(2, [&](ThreadRanks& ranks) {
         require_equal(ranks, {{"a", "1"}, {"b", ""}});
       }))
    CHECK(e.empty());
  // A rank that is elsewhere in the program, as at another gather.
  for (const std::string strange : {"stop", "1", "1 2", "1 x ab", "1 2 ab",
                                    "9999999999999999999999 1 a", "-1 1 a", "1 1 ab?"}) {
    CAPTURE(strange);
    const auto strangers = on_ranks(2, [&](ThreadRanks& ranks) {
      if (ranks.rank() == 0) return require_equal(ranks, {{"a", "b"}});
      ranks.gather(strange);
    });
    CHECK(strangers[0].starts_with("ranks differ: rank 1 is at another place of the program"));
  }
}

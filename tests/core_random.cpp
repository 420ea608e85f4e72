// The generator: known answers, distributions, reproducibility.

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include <doctest/doctest.h>

#include <capsfw/core/random.hpp>
#include <capsfw/core/state_dict.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;
using Ints = std::vector<std::int64_t>;

namespace {

/// A generator at a given position, through the public way of restoring one.
Rng at(std::uint64_t seed, std::uint64_t stream, std::uint64_t counter) {
  StateDict state;
  state.set("rng", from_vector<std::int64_t>({static_cast<std::int64_t>(seed),
                                              static_cast<std::int64_t>(stream),
                                              static_cast<std::int64_t>(counter)}));
  Rng rng;
  rng.load(state, "rng");
  return rng;
}

double mean(const std::vector<double>& v) {
  double s = 0;
  for (double x : v) s += x;
  return s / static_cast<double>(v.size());
}

double moment(const std::vector<double>& v, int k) {
  const double m = mean(v);
  double s = 0;
  for (double x : v) s += std::pow(x - m, k);
  return s / static_cast<double>(v.size());
}

}  // namespace

TEST_CASE("Philox4x32-10 gives the known answers of its authors") {
  // kat_vectors of Random123 1.0: counter, key -> four words of 32 bits.
  struct Known {
    std::uint64_t counter, stream, seed;
    std::array<std::uint32_t, 4> words;
  };
  const Known table[] = {{0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
                         {~0ULL, ~0ULL, ~0ULL, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
                         {0x85a308d3243f6a88,
                          0x0370734413198a2e,
                          0x299f31d0a4093822,
                          {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}};
  for (const Known& k : table) {
    const std::uint64_t low = k.words[0] | std::uint64_t{k.words[1]} << 32,
                        high = k.words[2] | std::uint64_t{k.words[3]} << 32;
    CHECK(at(k.seed, k.stream, k.counter).next() == low);
    // The second half is visible through normal(): Box-Muller of both halves.
    const double u = static_cast<double>(low >> 11) * 0x1p-53,
                 v = static_cast<double>(high >> 11) * 0x1p-53;
    const double expected = std::sqrt(-2 * std::log1p(-u)) * std::cos(2 * std::numbers::pi * v);
    CHECK(at(k.seed, k.stream, k.counter).normal() == doctest::Approx(expected).epsilon(1e-14));
  }
}

TEST_CASE("moments of the distributions") {
  Rng rng(7);
  constexpr std::int64_t n = 200000;
  const auto u = values(rand({n}, rng, DType::f64));
  CHECK(std::abs(mean(u) - 0.5) < 0.003);
  CHECK(std::abs(moment(u, 2) - 1.0 / 12) < 0.001);
  CHECK(*std::min_element(u.begin(), u.end()) >= 0);
  CHECK(*std::max_element(u.begin(), u.end()) < 1);
  const auto g = values(rng.normal({n}, 2, 3, DType::f64));
  CHECK(std::abs(mean(g) - 2) < 0.03);
  CHECK(std::abs(moment(g, 2) - 9) < 0.15);
  CHECK(std::abs(moment(g, 3) / 27) < 0.03);
  CHECK(std::abs(moment(g, 4) / 81 - 3) < 0.1);
  const auto b = values(rng.bernoulli({n}, 0.3));
  CHECK(std::abs(mean(b) - 0.3) < 0.005);
  CHECK(mean(values(rng.bernoulli({1000}, 1))) == 1);
  CHECK(mean(values(rng.bernoulli({1000}, 0))) == 0);
  const auto i = values(rng.integers({n}, 10));
  CHECK(std::abs(mean(i) - 4.5) < 0.03);
  CHECK(*std::max_element(i.begin(), i.end()) == 9);
}

TEST_CASE("neighbouring draws and neighbouring seeds are uncorrelated") {
  Rng a(1), b(2);
  const auto x = values(randn({100000}, a, DType::f64)), y = values(randn({100000}, b, DType::f64));
  double serial = 0, across = 0;
  for (std::size_t k = 1; k < x.size(); ++k) {
    serial += x[k] * x[k - 1];
    across += x[k] * y[k];
  }
  CHECK(std::abs(serial) / 1e5 < 0.015);
  CHECK(std::abs(across) / 1e5 < 0.015);
}

TEST_CASE("uniform stays below its upper bound, also where rounding to f32 would reach it") {
  Rng rng(3);
  const auto v = rng.uniform({1000000}, 1000, 1001).to_vector<float>();
  CHECK(*std::max_element(v.begin(), v.end()) < 1001.F);
  CHECK(*std::min_element(v.begin(), v.end()) >= 1000.F);
  const auto w = rng.uniform({1000000}, -1, 0).to_vector<float>();
  CHECK(*std::max_element(w.begin(), w.end()) < 0.F);
}

TEST_CASE("a draw is a function of seed, stream and position") {
  Rng a(5), b(5), other(6), stream(5, 1);
  const Tensor x = randn({100}, a);
  CHECK(same_bits(x, randn({100}, b)));
  CHECK_FALSE(same_bits(x, randn({100}, other)));
  CHECK_FALSE(same_bits(x, randn({100}, stream)));
  CHECK_FALSE(same_bits(x, randn({100}, a)));  // the generator has moved on
  Rng copy = a;
  CHECK(same_bits(randn({10}, a), randn({10}, copy)));
  CHECK(a.next() == copy.next());
  // One draw of 100 numbers is the same as two of 50.
  Rng c(5);
  const auto first = values(randn({50}, c)), second = values(randn({50}, c)), all = values(x);
  CHECK(std::equal(first.begin(), first.end(), all.begin()));
  CHECK(std::equal(second.begin(), second.end(), all.begin() + 50));
  Rng parent(5), twin(5);
  Rng child = parent.split(), same = twin.split();
  CHECK(child.next() == same.next());
  CHECK(child.next() != parent.next());
}

TEST_CASE("tensors have the same bits for any number of threads") {
  Tensor expected;
  for (const int threads : {1, 2, 3, 7}) {
    const Threads guard(threads);
    Rng rng(11);
    const Tensor x = randn({50000}, rng);
    if (!expected.defined()) expected = x;
    CHECK(same_bits(x, expected));
  }
}

TEST_CASE("the state travels through a StateDict") {
  Rng rng(~0ULL, 9);
  randn({17}, rng);
  StateDict state;
  rng.save(state, "train.rng");
  const double next = rng.uniform();
  Rng restored;
  restored.load(state, "train.rng");
  CHECK(restored.uniform() == next);
  state.set("bad", zeros({3}));
  CHECK(contains(message_of<ValueError>([&] { restored.load(state, "bad"); }),
                 "'bad' must hold three i64 numbers; got f32 [3]"));
  CHECK(contains(message_of<ValueError>([&] { restored.load(state, "none"); }), "no entry 'none'"));
}

TEST_CASE("permutation holds every index once, in an order that changes") {
  Rng rng(2);
  auto p = rng.permutation(1000).to_vector<std::int64_t>();
  const auto q = rng.permutation(1000).to_vector<std::int64_t>();
  CHECK(p != q);
  CHECK_FALSE(std::is_sorted(p.begin(), p.end()));
  std::sort(p.begin(), p.end());
  CHECK(p == arange(1000).to_vector<std::int64_t>());
  CHECK(rng.permutation(0).numel() == 0);
  CHECK(rng.permutation(1).to_vector<std::int64_t>() == Ints{0});
  // Each of the 6 orders of three appears about equally often.
  std::array<int, 27> count{};
  for (int k = 0; k < 6000; ++k) {
    const auto r = rng.permutation(3).to_vector<std::int64_t>();
    ++count[static_cast<std::size_t>(r[0] * 9 + r[1] * 3 + r[2])];
  }
  for (const int c : count) CHECK((c == 0 || std::abs(c - 1000) < 150));
}

TEST_CASE("below has no bias, even where 2^64 is no multiple by far") {
  Rng rng(3);
  const std::int64_t n = std::int64_t{3} << 61;
  std::array<int, 3> count{};
  for (int k = 0; k < 30000; ++k) ++count[static_cast<std::size_t>(rng.below(n) % 3)];
  for (const int c : count) CHECK(std::abs(c - 10000) < 400);
}

TEST_CASE("arguments out of their domain are errors") {
  Rng rng;
  CHECK_THROWS_AS(rng.below(0), ValueError);
  CHECK_THROWS_AS(rng.integers({2}, -1), ValueError);
  CHECK_THROWS_AS(rng.uniform({2}, 1, 0), ValueError);
  CHECK_THROWS_AS(rng.uniform({2}, 0, INFINITY), ValueError);
  CHECK_THROWS_AS(rng.uniform({2}, NAN, 1), ValueError);
  CHECK_THROWS_AS(rng.normal({2}, 0, -1), ValueError);
  CHECK_THROWS_AS(rng.normal({2}, 0, NAN), ValueError);
  CHECK_THROWS_AS(rng.bernoulli({2}, 1.5), ValueError);
  CHECK_THROWS_AS(rng.bernoulli({2}, NAN), ValueError);
  CHECK_THROWS_AS(rng.permutation(-1), ValueError);
  CHECK(rng.below(1) == 0);
}

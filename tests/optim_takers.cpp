// Ranks that share the parts of a program: each part once, and in the end the log and the results
// of one process, on whatever numbers of ranks it began and went on.

#include <mutex>
#include <set>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/linear.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>
#include <capsfw/optim/run_folder.hpp>

#include "apps_support.hpp"
#include "optim_thread_ranks.hpp"

using namespace capsfw;
using namespace apps_test;
using namespace optim_test;

namespace {

const std::vector<std::string> kParts = {"a", "b", "c", "d", "e", "f", "g"};

/// A program of several parts, as the programs are: what it finishes is known by its name.
struct Program {
  fs::path out;
  std::string dies_in = {};
  bool resume = false;

  std::mutex mutex = {};
  std::multiset<std::string> worked = {};  // parts, on whichever rank
  std::vector<std::string> of_zero = {};   // on rank 0
  std::vector<double> sums = {};           // of the last half, in order

  void pass(Ranks* takers, bool goes_on) {
    RunFolder folder(out, {.resume = goes_on, .config = {{"lr", "1"}}, .takers = takers});
    CHECK(folder.takes() == (takers != nullptr));
    for (const std::string& part : kParts) {
      if (!folder.take(part)) continue;
      if (const auto known = folder.results(part)) {
        sums.push_back(known->at("sum").item());
        continue;
      }
      {
        const std::scoped_lock lock(mutex);
        worked.insert(part);
        if (takers != nullptr && takers->rank() == 0) of_zero.push_back(part);
      }
      folder.begin(part);
      folder.write({{"event", "at work"}, {"part", part}});
      if (part == dies_in) throw RankError("killed");
      if (folder.ranks() != nullptr) {
        CHECK(folder.ranks()->size() == 1);
        folder.ranks()->progress();
      }
      const double sum = static_cast<double>(part[0]);
      std::ofstream(folder.path() / ("of-" + part)) << part;
      if (part == kParts[0]) std::ofstream(folder.path() / "first") << part;
      StateDict results;
      results.set("sum", from_vector<double>({sum}));
      folder.finish(part, results);
      if (takers == nullptr) sums.push_back(sum);
    }
    if (folder.takes()) return;
    folder.write({{"event", "result"}});
  }

  std::vector<std::string> on(int ranks) {
    const auto errors = on_ranks(ranks, [&](ThreadRanks& r) { pass(&r, resume); });
    if (dies_in.empty()) pass(nullptr, true);
    return errors;
  }
};

}  // namespace

TEST_CASE("takers: each part once, and the log of one process") {
  const Folder alone;
  Program one{.out = alone.path / "out"};
  one.pass(nullptr, false);
  CHECK(one.sums.size() == kParts.size());
  const std::string log = content(one.out / "metrics.jsonl");
  for (const int ranks : {1, 2, 3, 10}) {
    CAPTURE(ranks);
    const Folder f;
    Program many{.out = f.path / "out"};
    for (const std::string& error : many.on(ranks)) CHECK(error == "");
    CHECK(many.worked == std::multiset<std::string>(kParts.begin(), kParts.end()));
    REQUIRE(!many.of_zero.empty());
    CHECK(many.of_zero[0] == "a");
    CHECK(many.sums == one.sums);
    CHECK(content(many.out / "metrics.jsonl") == log);
    // What other ranks have made is here now.
    for (const std::string& part : kParts) CHECK(content(many.out / ("of-" + part)) == part);
    CHECK(content(many.out / "first") == "a");
    CHECK_FALSE(fs::exists(many.out / "checkpoints.ranks"));
  }
}

TEST_CASE("takers: what had been finished is not done again, on any number of ranks") {
  for (const int first : {1, 2, 4})
    for (const int second : {1, 3}) {
      const Folder f;
      Program begun{.out = f.path / "out", .dies_in = "e"};
      begun.on(first);
      CHECK(begun.worked.count("e") == 1);
      Program next{.out = f.path / "out", .resume = true};
      for (const std::string& error : next.on(second)) CHECK(error == "");
      auto all = begun.worked;
      all.erase("e");
      all.insert(next.worked.begin(), next.worked.end());
      CHECK(all == std::multiset<std::string>(kParts.begin(), kParts.end()));
      CHECK(next.sums.size() == kParts.size());
      for (const std::string& part : kParts) CHECK(content(next.out / ("of-" + part)) == part);
    }
}

TEST_CASE("takers: all ranks must see the folder, and share batches or parts") {
  const Folder f;
  const auto errors = on_ranks(2, [&](ThreadRanks& r) {
    const RunFolder folder(f.path / std::to_string(r.rank()), {.takers = &r});
  });
  for (const std::string& error : errors)
    CHECK(error.find("rank 1 does not see what rank 0 writes into") == 0);
  for (const std::string& error : on_ranks(2, [&](ThreadRanks& r) {
         const RunFolder folder(f.path / "both", {.ranks = &r, .takers = &r});
       }))
    CHECK(error == "RunFolder: ranks share batches or take parts, not both");
  for (const std::string& error : on_ranks(2, [&](ThreadRanks& r) {
         const RunFolder folder(f.path / "none", {.keep = 0, .takers = &r});
       }))
    CHECK(error.find("RunFolder: ranks that take parts need checkpoints") == 0);
  for (const std::string& error : on_ranks(2, [&](ThreadRanks& r) {
         const RunFolder folder(f.path / "flags",
                                {.config = {{"lr", std::to_string(r.rank())}}, .takers = &r});
       }))
    CHECK(error.find("ranks differ: lr is '0' on rank 0 and '1' on rank 1") == 0);
}

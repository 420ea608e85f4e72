// Threads: who runs what, and that results do not depend on how many there are.

#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <capsfw/core/parallel.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/core/vspace.hpp>

#include "support.hpp"

using namespace capsfw;
using namespace capsfw::testing;

TEST_CASE("parallel_for visits every index exactly once, in chunks of the announced length") {
  for (const int threads : {1, 2, 3, 7}) {
    const Threads guard(threads);
    CHECK(num_threads() == threads);
    for (const std::int64_t n : {0, 1, 5, 1000, 100003})
      for (const std::int64_t cost : {0, 1, 100, 1000000}) {
        CAPTURE(threads);
        CAPTURE(n);
        CAPTURE(cost);
        std::vector<std::atomic<int>> visits(static_cast<std::size_t>(n));
        std::atomic<bool> good = true;
        const std::int64_t chunk = parallel_chunk(n, cost);
        parallel_for(n, cost, [&](std::int64_t b, std::int64_t e) {
          if (b % chunk != 0 || (e - b != chunk && e != n)) good = false;
          for (std::int64_t i = b; i < e; ++i) ++visits[static_cast<std::size_t>(i)];
        });
        for (const auto& v : visits) good = good && v == 1;
        CHECK(good);
      }
  }
}

TEST_CASE("chunks depend on the size of the problem alone") {
  std::array<std::int64_t, 4> chunks{};
  for (std::size_t k = 0; k < 4; ++k) {
    const Threads guard(std::array{1, 2, 3, 7}[k]);
    chunks[k] = parallel_chunk(1000000, 3);
  }
  CHECK(chunks == std::array{chunks[0], chunks[0], chunks[0], chunks[0]});
  CHECK(parallel_chunk(10, 1) == 10);  // below one chunk: inline
  CHECK(parallel_chunk(10, 1 << 30) == 1);
}

TEST_CASE("threads that work at the same time have places of their own") {
  CHECK(thread_place() == 0);
  for (const int threads : {1, 2, 3, 7}) {
    const Threads guard(threads);
    std::array<std::atomic<bool>, 7> taken{};
    std::atomic<bool> good = true;
    parallel_for(200, 1 << 20, [&](std::int64_t, std::int64_t) {
      const int place = thread_place();
      if (place < 0 || place >= threads) return static_cast<void>(good = false);
      auto& mine = taken[static_cast<std::size_t>(place)];
      if (mine.exchange(true)) good = false;
      for (int k = 0; k < 1000; ++k)
        if (!mine || thread_place() != place) good = false;
      mine = false;
    });
    CHECK(good);
  }
}

TEST_CASE("a parallel_for inside another one runs") {
  const Threads guard(3);
  std::atomic<int> count = 0;
  parallel_for(8, 1 << 20, [&](std::int64_t b, std::int64_t e) {
    for (std::int64_t i = b; i < e; ++i)
      parallel_for(5, 1 << 20,
                   [&](std::int64_t p, std::int64_t q) { count += static_cast<int>(q - p); });
  });
  CHECK(count == 40);
}

TEST_CASE("sums have the same bits for 1, 2, 3 and 7 threads") {
  Rng rng(1);
  const Tensor deep = randn({1 << 20}, rng), wide = randn({300, 4000}, rng),
               tall = randn({5000, 7, 30}, rng);
  std::string expected;
  for (const int threads : {1, 2, 3, 7}) {
    const Threads guard(threads);
    const std::string bits = bytes_of(sum_to(deep, {})) + bytes_of(sum_to(wide, {1, 4000})) +
                             bytes_of(sum_to(wide, {300, 1})) + bytes_of(sum_to(tall, {7, 1})) +
                             bytes_of(add(wide, sum_to(wide, {300, 1})));
    if (expected.empty()) expected = bits;
    CHECK(bits == expected);
  }
}

TEST_CASE("set_num_threads takes one to 1024") {
  CHECK(contains(message_of<ValueError>([] { set_num_threads(0); }),
                 "at least 1 and at most 1024; got 0"));
  CHECK(contains(message_of<ValueError>([] { set_num_threads(1025); }), "got 1025"));
  CHECK(num_threads() >= 1);
}

// Run by the next test in a process of its own, where the default is not yet chosen.
TEST_CASE("child process: prints the default number of threads" * doctest::skip()) {
  try {
    std::printf("threads=%d\n", num_threads());
  } catch (const Error& e) {
    std::printf("error=%s\n", e.what());
  }
}

TEST_CASE("CAPSFW_NUM_THREADS sets the default, and nonsense in it is an error") {
  const auto child = [](const std::string& value) {
    const std::string command = "CAPSFW_NUM_THREADS='" + value + "' \"$(readlink -f /proc/" +
                                std::to_string(getpid()) +
                                "/exe)\" --no-skip --test-case='child process*' 2>&1";
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> pipe(popen(command.c_str(), "r"), pclose);
    std::string text;
    for (int c = 0; pipe && (c = std::fgetc(pipe.get())) != EOF;) text += static_cast<char>(c);
    return text;
  };
  CHECK(contains(child("3"), "threads=3\n"));
  CHECK(contains(child("1"), "threads=1\n"));
  for (const char* bad : {"0", "-2", "two", "3x", "1025", "99999999999"})
    CHECK(contains(child(bad), std::string("error=CAPSFW_NUM_THREADS must be a whole number from 1 "
                                           "to 1024; got '") +
                                   bad + "'"));
  const std::string text = child("");  // empty: as if unset
  CHECK(contains(text, "threads="));
  CHECK_FALSE(contains(text, "threads=0"));
}

#include <capsfw/optim/interrupt.hpp>

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <ctime>
#include <string_view>

#include <capsfw/optim/ranks.hpp>

namespace capsfw {
namespace {

// A signal has come to this process, or was asked for; it is the flag (of one of several ranks:
// when all know).
std::atomic<bool> pending{false}, stop{false};
std::atomic<std::int64_t> first_signal{0};  // nanoseconds, when it came; 0: none has
std::atomic<bool> shared{false};            // by several ranks
static_assert(std::atomic<bool>::is_always_lock_free &&
                  std::atomic<std::int64_t>::is_always_lock_free,
              "used in a signal handler");

// Only async-signal-safe calls in here: no stdio, no allocation.
void say(std::string_view text) {
  if (::write(STDERR_FILENO, text.data(), text.size()) < 0) return;
}

std::int64_t now() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec + 1;
}

extern "C" void on_signal(int signal) {
  const int saved = errno;
  std::int64_t first = 0;
  if (!first_signal.compare_exchange_strong(first, now())) {
    // A scheduler sends SIGTERM to every process, and the launcher passes its own on.
    if (signal == SIGTERM && now() - first < 1'000'000'000) return;
    say("\n");
    ::_exit(kInterruptedExit);
  }
  pending = true;
  if (!shared) stop = true;
  say("\nstopping after this step (once more: quit at once)\n");
  errno = saved;
}

}  // namespace

void catch_interrupts(const Ranks* ranks) {
  shared = ranks != nullptr && ranks->size() > 1;
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return stop.load(std::memory_order_relaxed); }

bool interrupt_pending() { return pending.load(std::memory_order_relaxed); }

bool agree_on_interrupt(Ranks* ranks) {
  if (ranks == nullptr || ranks->size() == 1) return interrupted();
  bool any = false;
  for (const std::string& said : ranks->gather(interrupt_pending() ? "stop" : ""))
    any = any || !said.empty();
  if (any) request_interrupt();
  return any;
}

void request_interrupt() { pending = stop = true; }

}  // namespace capsfw

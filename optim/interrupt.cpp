#include <capsfw/optim/interrupt.hpp>

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <string_view>

namespace capsfw {
namespace {

std::atomic<bool> stop{false};
static_assert(std::atomic<bool>::is_always_lock_free, "used in a signal handler");

// Only async-signal-safe calls in here: no stdio, no allocation.
void say(std::string_view text) {
  if (::write(STDERR_FILENO, text.data(), text.size()) < 0) return;
}

extern "C" void on_signal(int) {
  const int saved = errno;
  if (stop.exchange(true)) {
    say("\n");
    ::_exit(kInterruptedExit);
  }
  say("\nstopping after this step (once more: quit at once)\n");
  errno = saved;
}

}  // namespace

void catch_interrupts() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

bool interrupted() { return stop.load(std::memory_order_relaxed); }

void request_interrupt() { stop.store(true); }

}  // namespace capsfw

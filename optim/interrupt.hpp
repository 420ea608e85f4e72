#pragma once
// Ctrl-C as a request: training loops poll it, save what they have and leave.

namespace capsfw {

/// Exit code of a program that was interrupted.
inline constexpr int kInterruptedExit = 130;

/// From now on the first SIGINT or SIGTERM sets the flag below and says so on stderr; the second
/// one ends the process at once with exit code 130.
void catch_interrupts();

/// True once a signal has come (or request_interrupt() was called).
bool interrupted();

/// Sets the flag by hand.
void request_interrupt();

}  // namespace capsfw

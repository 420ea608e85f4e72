#pragma once
// Ctrl-C as a request: training loops poll it, save what they have and leave.

namespace capsfw {

class Ranks;

/// Exit code of a program that was interrupted.
inline constexpr int kInterruptedExit = 130;

/// From now on the first SIGINT or SIGTERM sets the flag below and says so on stderr; the second
/// one ends the process at once with exit code 130, a SIGTERM only if a second has passed:
/// schedulers and launchers both send one. With several `ranks`, which share their work, a signal
/// to one of them is pending at first: it sets the flag of all of them where they next meet.
void catch_interrupts(const Ranks* ranks = nullptr);

/// True once a signal has come (or request_interrupt() was called). Of several ranks (see above) it
/// is the same on all at the same place of the program, so it may decide what they do next.
bool interrupted();

/// True once a signal has come to this process, whether the other ranks know of it or not: what a
/// rank does by itself may end early, if they meet behind it.
bool interrupt_pending();

/// A meeting of all ranks (a Run and evaluate() have theirs): a signal to one interrupts all. True
/// if it has; without ranks that is interrupted().
bool agree_on_interrupt(Ranks* ranks);

/// Sets the flag by hand; several ranks all have to.
void request_interrupt();

}  // namespace capsfw

#pragma once
// Private: the runs of train_text_capsules, and questions to what they saved.

#include "flags.hpp"

namespace capsfw::apps {

/// Trains and tests every part with every seed. `args`: the command line, which checkpoints hold.
/// Returns the exit code of the program.
int run_study(const TextFlags& flags, const Args& args);

/// Answers --predict and --explain. Returns the exit code of the program.
int answer(const TextFlags& flags, const Args& args);

}  // namespace capsfw::apps

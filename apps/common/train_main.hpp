#pragma once
// main() of a program that trains, alone or as one of several processes that mpirun has started.

#include <filesystem>
#include <functional>
#include <string>

#include "common/train_flags.hpp"

namespace capsfw::apps {

/// run_main() for programs that train: with several ranks it joins them, as safety.ranks, ends them
/// together, and ends all if one of them fails. Rank 0 speaks and writes; what the others say goes
/// nowhere, and their `out` is a folder for the time of the run. With --spread they take networks
/// of their own, as safety.takers, and share `out`; `body` runs twice: on all ranks, for what is
/// RunFolder::take()n there, and on rank 0, to sum up. Threads: those that the processors
/// of this rank allow, shared with the ranks that may use the same ones.
int train_main(Args& args,
               int argc,
               const char* const* argv,
               SafetyFlags& safety,
               std::string& out,
               const std::function<int()>& body);

/// What an interrupted run says about its folder: "--resume goes on", if there is a checkpoint.
std::string way_on(const std::filesystem::path& folder);

/// The exit code of a run in `folder` that is over: 0, or that of an interrupt, and a word to the
/// user.
int end_of_run(const std::filesystem::path& folder);

}  // namespace capsfw::apps

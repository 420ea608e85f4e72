#pragma once
// What the programs that train one network do around the loop.

#include "common/train_loop.hpp"

namespace capsfw::apps {

/// A network with starting values from a generator, and how it is trained.
using MakeNet = std::function<std::unique_ptr<ImageClassifier>(Rng&)>;
using MakeTask = std::function<TrainTask(ImageClassifier&)>;

/// Trains a network into the folder flags.out, keeps the weights that were best on the images held
/// out, saves them, and reads the test set once, at the end, also with uniform couplings where
/// there is routing. `args`: the command line, which checkpoints hold. Leaves metrics.jsonl,
/// checkpoints, model.safetensors, curves.png and, with a decoder, reconstructions.png. Returns the
/// exit code of the program.
int train_program(const MakeNet& make,
                  const HeldOut& parts,
                  const TrainFlags& flags,
                  const MakeTask& task_of,
                  const Args& args,
                  const std::string& title);

}  // namespace capsfw::apps

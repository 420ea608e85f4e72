// Trains capsules for text on sentences, tests them once, and shows which words voted for what.
// Zhao et al. 2018, Investigating Capsule Networks with Dynamic Routing for Text Classification.

#include "common/args.hpp"
#include "common/train_main.hpp"

#include "flags.hpp"
#include "study.hpp"

using namespace capsfw;
using namespace capsfw::apps;

int main(int argc, char** argv) {
  TextFlags f;
  f.train.out = "out/train_text_capsules";
  f.train.epochs = 6;
  f.train.lr = 2e-3;
  f.train.batch = 25;
  Args args("train_text_capsules",
            "Trains a network on sentences with classes, tests it once, and answers questions with "
            "what it has learned.");
  f.add_to(args);
  args.example("train_text_capsules --data trec --transfer")
      .example("train_text_capsules --data mr --run-folds 10 --vectors GoogleNews.bin")
      .example("train_text_capsules --predict \"How far is the moon ?\"")
      .example("train_text_capsules --explain \"How far is the moon ?\"");
  return train_main(args, argc, argv, f.train.safety, f.train.out, [&] {
    f.check(args);
    if (args.given("--predict") || args.given("--explain")) return answer(f, args);
    f.train.start(args);
    return run_study(f, args);
  });
}

// Trains small classifiers with penalties of their gradients and measures what these do: accuracy
// and its gap, both penalties, and, for multilayer perceptrons, both sides of the inequality
// between them in every layer, on the same images throughout.

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/train_main.hpp"
#include "study.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

/// UsageError for a flag that nothing would read.
void refuse_idle(const Flags& f, const Args& args) {
  const bool all = f.penalty == "all" || f.penalty == "both";
  args.refuse_idle(f.model != "mlp", "of an mlp; --model is " + f.model + ". Hint: --model mlp",
                   {"--hidden", "--activation", "--exact"});
  args.refuse_idle(!f.lr_sweep, "of --lr-sweep, which is not given. Hint: --lr-sweep",
                   {"--rates", "--target"});
  args.refuse_idle(f.lr_sweep,
                   "not of --lr-sweep, which is SGD without penalties. Hint: --rates, --target",
                   {"--penalty", "--input-weight", "--param-weight", "--param-form", "--form",
                    "--step-size", "--lr", "--records", "--probe", "--exact"});
  // Its loop is no Run: what goes on later are networks that were finished.
  args.refuse_idle(f.lr_sweep, "not of --lr-sweep, which has a loop of its own. Hint: leave it out",
                   {"--checkpoint-minutes", "--checkpoint-steps", "--on-nan", "--spike",
                    "--check-numbers", "--shards"});
  args.refuse_idle(!all && f.penalty != "input",
                   "of the input penalty; --penalty is " + f.penalty + ". Hint: --penalty input",
                   {"--input-weight"});
  args.refuse_idle(
      !all && f.penalty != "parameter",
      "of the parameter penalty; --penalty is " + f.penalty + ". Hint: --penalty parameter",
      {"--param-weight", "--param-form"});
  args.refuse_idle(f.penalty == "none", "of a penalty; --penalty is none. Hint: --penalty all",
                   {"--form", "--step-size"});
  args.refuse_idle(f.form == "exact",
                   "of --form difference; --form is exact. Hint: --form difference",
                   {"--step-size"});
}

}  // namespace

int main(int argc, char** argv) {
  Flags f;
  Args args("gradient_penalty",
            "Trains with penalties of the input and parameter gradients, and measures them.");
  f.val = 1000;
  args.section("Data");
  f.add_source(args);
  args.add("--train N", f.train, "training images, drawn by the seed", {.min = 1})
      .add("--val N", f.val, "validation images, for choices", {.min = 1})
      .add("--test N", f.test, "test images", {.min = 1})
      .add("--probe N", f.probe, "training images on which penalties are measured", {.min = 1});
  args.section("Network")
      .choice("--model", f.model, {"mlp", "cnn", "capsnet"},
              "capsnet and cnn: penalties only, the inequality is about mlps")
      .add("--hidden LIST", f.hidden, "widths of an mlp: 64,64",
           [](const std::string& text) { parse_widths(text); })
      .choice("--activation", f.activation, {"tanh", "softplus", "relu", "sigmoid"}, "of an mlp");
  args.section("Penalties")
      .choice("--penalty", f.penalty, {"all", "none", "input", "parameter", "both"},
              "all: one run with each of the others")
      .add("--input-weight X", f.input_weight, "weight of the input penalty", {.min = 0})
      .add("--param-weight X", f.param_weight, "weight of the parameter penalty", {.min = 0})
      .choice("--param-form", f.param_form, {"batch", "sample"},
              "gradient of the batch mean, or of every sample")
      .choice("--form", f.form, {"exact", "difference"},
              "gradients of penalties: double backward, or finite differences")
      .add("--step-size X", f.step_size, "of the differences", {.above = 0});
  f.safety.add_to(args);
  args.section("Training")
      .add("--steps N", f.steps, "steps of Adam", {.min = 1})
      .add("--batch N", f.batch, "images per step", {.min = 1})
      .add("--lr X", f.lr, "learning rate", {.above = 0})
      .add("--seed N", f.seed, "of the first run: weights, images, order")
      .add("--seeds N", f.seeds, "runs of each kind", {.min = 1, .max = 1000})
      .add("--records N", f.records, "measurements along a run", {.min = 1, .max = 10000})
      .add("--exact", f.exact, "spectral norms exactly, in place of by converged power iteration")
      .add("--lr-sweep", f.lr_sweep, "plain SGD at several rates instead")
      .add("--rates LIST", f.rates, "of the sweep",
           [](const std::string& text) { parse_rates(text); })
      .add("--target X", f.target, "training loss at which the sweep compares", {.above = 0})
      .add("--out DIR", f.out, "folder for log, weights and pictures");
  args.example("gradient_penalty --seeds 5")
      .example("gradient_penalty --model capsnet --steps 300 --batch 25")
      .example("gradient_penalty --lr-sweep --seeds 5");
  return train_main(args, argc, argv, f.safety, f.out, [&] {
    f.safety.start(args);
    if (f.form == "difference" && f.param_form == "sample")
      throw UsageError(
          "--param-form sample: --form difference moves the parameters of the mean loss");
    refuse_idle(f, args);
    if (f.lr_sweep && f.safety.ranks != nullptr && f.safety.ranks->size() > 1)
      throw ValueError(
          "--lr-sweep: its networks are too small to share batches. Hint: --spread gives whole "
          "ones to each process");
    Study study(f, args);
    return f.lr_sweep ? sweep_learning_rates(study) : train_with_penalties(study);
  });
}

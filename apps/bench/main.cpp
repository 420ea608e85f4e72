// Measures the library: time, arithmetic and memory of the workloads that matter, against the
// limits of the machine and, where it is installed, against PyTorch.

#include <fstream>
#include <optional>

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "curves.hpp"
#include "families.hpp"
#include "profile.hpp"
#include "report.hpp"
#include "torch.hpp"

using namespace capsfw;
using namespace capsfw::bench;

namespace {

struct Flags {
  std::vector<std::string> specs;
  std::string filter, profile, once, curves, python = "/usr/bin/python3";
  bool list = false, json = false, smoke = false, against_torch = false;
  int pairs = 7;
  MeasureOptions measure;
};

/// The workloads that the command line asks for, in the order of the list.
std::vector<Named> chosen(const Flags& flags) {
  std::vector<Named> all;
  for (const std::string& spec : flags.specs) all.push_back({spec, ""});
  if (all.empty()) all = flags.smoke ? smoke_workloads() : standard_workloads();
  std::erase_if(all,
                [&](const Named& n) { return n.spec.find(flags.filter) == std::string::npos; });
  if (all.empty())
    throw apps::UsageError(
        fmt::format("--filter: no workload has '{}' in its name. Hint: --list", flags.filter));
  return all;
}

/// Lets the peak of the resident memory start again from now (Linux).
void reset_peak_rss() { std::ofstream("/proc/self/clear_refs") << "5"; }

Result run(const std::string& spec, const Work& work, const Flags& flags, Probe* probe) {
  reset_peak_memory();
  reset_peak_rss();
  Result r;
  r.spec = spec;
  r.threads = num_threads();
  r.time = summarize(measure(work, flags.measure, probe));
  r.items = work.items;
  r.flops = work.flops;
  r.bytes = work.bytes;
  r.parameters = work.parameters;
  r.peak_tensor_mb = static_cast<double>(memory_stats().peak) * 1e-6;
  r.peak_rss_mb = work.peak_rss_mb ? work.peak_rss_mb() : peak_memory_mb();
  return r;
}

int measure_all(const Flags& flags) {
  const std::vector<Named> all = chosen(flags);
  std::optional<TorchSide> torch;
  if (flags.against_torch) torch.emplace(flags.python);
  if (torch) fmt::print(stderr, "against {}\n", torch->about());
  std::optional<Limits> limits;
  std::optional<Probe> probe;
  if (!flags.measure.smoke) {
    make_work(all[0].spec);  // a wrong name need not wait for the limits
    limits = measure_limits();
    probe.emplace(num_threads());
    fmt::print("{}\n", limits_line(*limits, flags.json));
  }
  if (!flags.json) fmt::print("{}\n", torch ? torch_heading() : table_heading());
  for (const Named& n : all) {
    if (interrupted()) return kInterruptedExit;
    trim_memory();
    const Work work = make_work(n.spec);
    Probe* p = probe ? &*probe : nullptr;
    if (!torch) {
      fmt::print("{}\n", result_line(run(n.spec, work, flags, p), limits, flags.json));
      continue;
    }
    Result ours;  // the memory of a few steps; the time comes from the pairs
    Flags few = flags;
    few.measure.repetitions = 1;
    ours = run(n.spec, work, few, p);
    if (const auto theirs = torch->compare(n.spec, work, flags.pairs, p))
      fmt::print("{}\n", torch_line(ours, *theirs, flags.json));
    else
      fmt::print(stderr, "{}: no PyTorch counterpart\n", n.spec);
  }
  return 0;
}

/// UsageError for a flag that nothing would read.
void refuse_idle(const Flags& f, const apps::Args& args) {
  args.refuse_idle(!f.against_torch,
                   "of --against-torch, which is not given. Hint: --against-torch",
                   {"--pairs", "--python"});
  args.refuse_idle(f.against_torch, "not of --against-torch. Hint: --pairs N", {"--repetitions"});
  args.refuse_idle(f.smoke, "not of --smoke, which takes one step. Hint: no --smoke",
                   {"--repetitions", "--seconds"});
  const std::string task = !f.once.empty()      ? "--once"
                           : f.list             ? "--list"
                           : !f.profile.empty() ? "--profile"
                           : !f.curves.empty()  ? "--curves"
                                                : "";
  if (task.empty()) return;
  const std::string why = fmt::format("not of {0}. Hint: no {0}", task);
  for (const char* other : {"--once", "--list", "--profile", "--curves"})
    args.refuse_idle(task != other, why, {other});
  const bool lists = task == "--list", curves = task == "--curves";
  args.refuse_idle(true, why, {"--json", "--against-torch"});
  args.refuse_idle(!curves, why, {"--repetitions", "--seconds"});
  args.refuse_idle(!lists, why, {"--filter"});
  args.refuse_idle(!lists && !curves, why, {"--smoke"});
  if (!lists && !f.specs.empty()) throw apps::UsageError("SPEC: " + why);
}

int bench_main(Flags& flags, const apps::Args& args) {
  refuse_idle(flags, args);
  if (!flags.once.empty()) {
    make_work(flags.once).step();
    return 0;
  }
  if (flags.list) {
    for (const Named& n : chosen(flags)) fmt::print("{:<42} {}\n", n.spec, n.about);
    return 0;
  }
  if (!flags.profile.empty()) {
    fmt::print("{}", profile_table(make_work(flags.profile), flags.profile));
    return 0;
  }
  flags.measure.smoke = flags.smoke;
  catch_interrupts();
  if (!flags.curves.empty()) {
    draw_curves(flags.curves, flags.measure, flags.smoke);
    return interrupted() ? kInterruptedExit : 0;
  }
  return measure_all(flags);
}

}  // namespace

int main(int argc, char** argv) {
  Flags flags;
  apps::Args args(
      "bench",
      "Measures workloads: median and range of their time, arithmetic and memory traffic "
      "as shares of what this machine reaches, peak memory, and PyTorch beside it.");
  args.positional("SPEC", flags.specs, "workloads, instead of the standard list (see --list)", 0);
  args.section("What to measure")
      .add("--list", flags.list, "print the names of the workloads and end")
      .add("--filter TEXT", flags.filter, "only workloads with this in their name")
      .add("--profile SPEC", flags.profile, "time per op, forward and backward, of one workload")
      .add("--curves DIR", flags.curves,
           "time over batch, image size, iterations, capsules and threads beside the limit, as "
           "pictures and tables in DIR")
      .add("--once SPEC", flags.once, "build a workload, run one step and end")
      .add("--smoke", flags.smoke, "one step of small workloads: does everything run?");
  args.section("How")
      .add("--repetitions N", flags.measure.repetitions,
           "clean repetitions of at least 60 ms each (at most three times as many are run)",
           {.min = 1})
      .add("--seconds X", flags.measure.max_seconds,
           "start no further repetition of a workload after that", {.above = 0})
      .add("--json", flags.json, "JSON lines instead of a table");
  args.section("PyTorch")
      .add("--against-torch", flags.against_torch,
           "run the same in PyTorch, in turn, and print ratios (needs python3-torch)")
      .add("--pairs N", flags.pairs, "clean rounds of the comparison", {.min = 1})
      .add("--python FILE", flags.python, "interpreter that has torch");
  args.example("bench --filter routing")
      .example("bench capsnet:mode=train,B=64,size=48 routing:mode=fwd,I=4096,J=10,r=5")
      .example("bench --against-torch --filter capsnet")
      .example("bench --profile em:mode=train,B=64");
  return apps::run_main(
      args, argc, argv, [&] { return bench_main(flags, args); }, apps::Banner::err);
}

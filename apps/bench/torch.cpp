#include "torch.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <set>
#include <sstream>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>
#include <capsfw/core/parallel.hpp>

#include "common/text.hpp"

#include "child.hpp"

namespace capsfw::bench {
namespace {

constexpr const char* kScript = CAPSFW_APP_DIR "/torch/side.py";

/// What the script answers to "go".
struct Answer {
  double ms = 0, cpu = 0, peak_mb = 0;
};

/// One repetition over there. Error if the program ended or says so.
Answer go(Child& child, const std::string& who) {
  std::string line = "no answer";
  Answer a;
  if (!child.say("go") || !child.hear(line) ||
      !(std::istringstream(line) >> a.ms >> a.cpu >> a.peak_mb))
    throw Error(fmt::format("PyTorch, {}: {}", who, line));
  return a;
}

/// The program, once it has built the workload and warmed up.
std::unique_ptr<Child> ready(const std::vector<std::string>& command, const std::string& who) {
  auto child = std::make_unique<Child>(command);
  std::string line = "it ended";
  if (!child->hear(line) || line != "ready") throw Error(fmt::format("PyTorch, {}: {}", who, line));
  return child;
}

}  // namespace

TorchSide::TorchSide(std::string python) : python_(std::move(python)) {
  std::vector<std::string> lines;
  try {
    lines = ask({"check"});
  } catch (const Error& e) {
    lines = {e.what()};
  }
  if (lines.empty() || !lines[0].starts_with("torch "))
    throw Error(fmt::format(
        "--against-torch needs PyTorch for '{}': {}. Hint: apt-get install python3-torch, or name "
        "another interpreter with --python",
        python_, lines.empty() ? "it gave no answer" : lines[0]));
  about_ = lines[0];
}

std::vector<std::string> TorchSide::ask(const std::vector<std::string>& words) const {
  std::vector<std::string> command = {python_, kScript};
  command.insert(command.end(), words.begin(), words.end());
  Child child(command);
  std::vector<std::string> lines;
  for (std::string line; child.hear(line);) lines.push_back(line);
  return lines;
}

std::vector<TorchSide::Program> TorchSide::candidates(const std::string& spec) const {
  std::vector<Program> out;
  for (const std::string& line : ask({"programs", spec, fmt::format("{}", num_threads())})) {
    Program p;
    if (std::istringstream(line) >> p.variant >> p.config) out.push_back(p);
  }
  return out;
}

std::vector<std::string> TorchSide::serve(const std::string& spec, const Program& p) const {
  return {python_, kScript, "serve", spec, p.variant, p.config, fmt::format("{}", num_threads())};
}

double TorchSide::try_out(const std::string& spec, const Program& p) const {
  const std::string who = fmt::format("{} {} {}", spec, p.variant, p.config);
  const auto child = ready(serve(spec, p), who);
  const double ms = std::min(go(*child, who).ms, go(*child, who).ms);
  fmt::print(stderr, "  tried PyTorch {}: {:.3f} ms\n", who, ms);
  return ms;
}

std::optional<TorchResult> TorchSide::compare(const std::string& spec,
                                              const Work& work,
                                              int pairs,
                                              Probe* probe) const {
  std::vector<Program> all = candidates(spec);
  if (all.empty()) return std::nullopt;
  const auto by_time = [](const Program& a, const Program& b) { return a.ms < b.ms; };
  for (Program& p : all) p.ms = std::numeric_limits<double>::infinity();
  const std::string first_config = all[0].config;
  for (Program& p : all)
    if (p.config == first_config) p.ms = try_out(spec, p);
  const std::string variant = std::min_element(all.begin(), all.end(), by_time)->variant;
  for (Program& p : all)
    if (p.variant == variant && p.config != first_config) p.ms = try_out(spec, p);
  std::sort(all.begin(), all.end(), by_time);
  all.resize(std::min<std::size_t>(all.size(), 2));
  if (all.size() == 2 && all[1].ms > 1.5 * all[0].ms) all.pop_back();

  std::vector<std::unique_ptr<Child>> children;
  for (const Program& p : all) children.push_back(ready(serve(spec, p), spec));
  const int steps = steps_to_fill(work.step);
  struct Round {
    double ours;
    std::vector<double> torch;
    bool clean;
  };
  std::vector<Round> rounds;
  std::vector<double> peak(all.size());
  bool before = probe == nullptr || probe->all_there();
  for (int clean = 0; clean < pairs && static_cast<int>(rounds.size()) < 3 * pairs;) {
    const Watch watch;
    double theirs_cpu = 0;
    Round round{time_steps(work.step, steps), {}, false};
    for (std::size_t k = 0; k < all.size(); ++k) {
      const Answer a = go(*children[k], spec);
      round.torch.push_back(a.ms);
      theirs_cpu += a.cpu;
      peak[k] = a.peak_mb;
    }
    const bool alone = watch.undisturbed(theirs_cpu),
               after = probe == nullptr || probe->all_there();
    round.clean = before && after && alone;
    clean += round.clean ? 1 : 0;
    before = after;
    rounds.push_back(round);
  }

  TorchResult result;
  result.pairs = static_cast<int>(rounds.size());
  result.clean = static_cast<int>(
      std::count_if(rounds.begin(), rounds.end(), [](const Round& r) { return r.clean; }));
  if (result.clean >= 3) std::erase_if(rounds, [](const Round& r) { return !r.clean; });
  result.ms = std::numeric_limits<double>::infinity();
  std::vector<double> ours;
  for (const Round& r : rounds) ours.push_back(r.ours);
  result.ours_ms = apps::median(ours);
  for (std::size_t k = 0; k < all.size(); ++k) {
    std::vector<double> torch, ratios;
    for (const Round& r : rounds) {
      torch.push_back(r.torch[k]);
      ratios.push_back(r.torch[k] / r.ours);
    }
    if (const double ms = apps::median(torch); ms < result.ms) {
      result.ms = ms;
      result.variant = fmt::format("{} {}", all[k].variant, all[k].config);
      result.peak_mb = peak[k];
      result.ratio = apps::median(ratios);
      result.low = *std::min_element(ratios.begin(), ratios.end());
      result.high = *std::max_element(ratios.begin(), ratios.end());
    }
  }
  return result;
}

}  // namespace capsfw::bench

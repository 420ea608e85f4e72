#include "profile.hpp"

#include <algorithm>
#include <chrono>
#include <map>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/node.hpp>
#include <capsfw/core/observer.hpp>

namespace capsfw::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr const char* kRest = "(rest)";

bool is_view(const TensorList& inputs, const TensorList& outputs) {
  return inputs.size() == 1 && outputs.size() == 1 && inputs[0].defined() && outputs[0].defined() &&
         inputs[0].storage() == outputs[0].storage();
}

class OpClock : public OpObserver {
 public:
  struct Row {
    double forward = 0, backward = 0;  // milliseconds
    std::int64_t calls = 0, rules = 0;
  };

  void start() { last_ = Clock::now(); }
  /// The end of a step: what came after the last op.
  void stop() { rows_[kRest].forward += lap(); }

  void op_done(std::string_view name,
               const TensorList& inputs,
               const TensorList& outputs) override {
    if (depth_ > 0) return;
    Row& row = rows_[std::string(name)];
    ++row.calls;
    // A view costs nothing. What was computed before it belongs to the op that is made with it.
    if (!is_view(inputs, outputs)) row.forward += lap();
  }
  void rule_begins(const Node&) override {
    if (depth_++ == 0) rows_[kRest].backward += lap();
  }
  void rule_done(const Node& node) override {
    if (--depth_ > 0) return;
    Row& row = rows_[node.name()];
    row.backward += lap();
    ++row.rules;
  }

  const std::map<std::string, Row>& rows() const { return rows_; }

 private:
  double lap() {
    const auto now = Clock::now();
    const double ms = std::chrono::duration<double, std::milli>(now - last_).count();
    last_ = now;
    return ms;
  }

  std::map<std::string, Row> rows_;
  Clock::time_point last_;
  int depth_ = 0;  // rules that run rules: only the outermost counts
};

}  // namespace

std::string profile_table(const Work& work, const std::string& spec) {
  const int steps = std::clamp(steps_to_fill(work.step), 3, 1000);
  const double plain = time_steps(work.step, steps);
  OpClock clock;
  {
    const ObserverGuard guard(&clock);
    for (int i = 0; i < steps; ++i) {
      clock.start();
      work.step();
      clock.stop();
    }
  }
  std::vector<std::pair<std::string, OpClock::Row>> rows(clock.rows().begin(), clock.rows().end());
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return a.second.forward + a.second.backward > b.second.forward + b.second.backward;
  });
  double forward = 0, backward = 0;
  for (const auto& [name, row] : rows) {
    forward += row.forward / steps;
    backward += row.backward / steps;
  }
  std::string table = fmt::format(
      "{}: {:.3f} ms per step, {:.3f} under the observer ({} steps each)\n"
      "{:<24} {:>8} {:>11} {:>8} {:>12} {:>10} {:>6}\n",
      spec, plain, forward + backward, steps, "op", "calls", "forward ms", "rules", "backward ms",
      "total ms", "%");
  const auto line = [&](const std::string& name, const OpClock::Row& row) {
    const double f = row.forward / steps, b = row.backward / steps;
    table += fmt::format("{:<24} {:>8.4g} {:>11.3f} {:>8.4g} {:>12.3f} {:>10.3f} {:>6.1f}\n", name,
                         static_cast<double>(row.calls) / steps, f,
                         static_cast<double>(row.rules) / steps, b, f + b,
                         100 * (f + b) / (forward + backward));
  };
  OpClock::Row total;
  for (const auto& [name, row] : rows) {
    line(name, row);
    total.calls += row.calls;
    total.rules += row.rules;
  }
  total.forward = forward * steps;
  total.backward = backward * steps;
  line("total", total);
  return table;
}

}  // namespace capsfw::bench

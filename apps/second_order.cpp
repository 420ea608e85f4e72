// What a gradient of a gradient costs, op by op: the time of the forward pass, of a plain backward
// pass, of one that is recorded, and of a penalty with its own backward pass.

#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include <fmt/format.h>
#include <capsfw/capsfw.hpp>

#include "common/args.hpp"
#include "common/text.hpp"

using namespace capsfw;
using namespace capsfw::apps;

namespace {

/// A function of tensors, at sizes that occur in a compact capsule network.
struct Row {
  std::string name, second;  ///< and where its second backward pass comes from
  Function fn;
  TensorList inputs;
};

std::vector<Row> rows(std::int64_t batch) {
  Rng rng(1);
  const auto normal = [&](const Shape& shape, double std) { return rng.normal(shape, 0, std); };
  const Tensor votes = normal({batch, 144, 10, 16}, 0.2);
  return {
      {"conv2d 32→64, 5x5/2",
       "closed triple of kernels",
       [](const TensorList& t) {
         return TensorList{conv2d(t[0], t[1], {}, {.stride = {2, 2}})};
       },
       {normal({batch, 32, 24, 24}, 1), normal({64, 32, 5, 5}, 0.05)}},
      {"softmax, rows of 10",
       "plain ops",
       [](const TensorList& t) { return TensorList{softmax(t[0])}; },
       {normal({batch, 144, 10}, 1)}},
      {"squash, capsules of 8",
       "plain ops",
       [](const TensorList& t) { return TensorList{squash(t[0])}; },
       {normal({batch, 144, 8}, 1)}},
      {"votes 144x8 → 10x16",
       "closed triple of products",
       [](const TensorList& t) { return TensorList{votes_full(t[0], t[1])}; },
       {normal({batch, 144, 8}, 0.3), normal({144, 10, 16, 8}, 0.1)}},
      {"dynamic routing, 3 iterations",
       "plain ops",
       [](const TensorList& t) { return TensorList{dynamic_routing(t[0]).poses}; },
       {votes}},
      {"EM routing, 3 iterations",
       "plain ops",
       [](const TensorList& t) {
         const Tensor a = sigmoid(t[1]), beta = zeros({10});
         const EmRouted r = em_routing(t[0], a, beta, beta, {0.01, 0.02, 0.03});
         return TensorList{r.poses, r.activations};
       },
       {votes, normal({batch, 144}, 1)}},
  };
}

double median_ms(int repeats, const std::function<void()>& run) {
  std::vector<double> times;
  for (int k = 0; k < repeats + 1 && !interrupted(); ++k) {
    const auto begin = std::chrono::steady_clock::now();
    run();
    if (k > 0 || repeats == 0)  // the first one warms up
      times.push_back(
          std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
              .count());
  }
  return median(times);
}

struct Times {
  double forward, backward, recorded, penalty;
};

Times measure(const Row& row, int repeats) {
  TensorList leaves;
  for (const Tensor& x : row.inputs) leaves.push_back(x.detach().requires_grad_());
  const auto forward = [&] {
    Tensor total = scalar(0);
    for (const Tensor& y : row.fn(leaves)) total = total + sum(square(y));
    return total;
  };
  Times t{};
  t.forward = median_ms(repeats, [&] { forward(); });
  t.backward = median_ms(repeats, [&] { grad({forward()}, leaves); }) - t.forward;
  t.recorded = median_ms(repeats, [&] { grad({forward()}, leaves, {}, {.create_graph = true}); }) -
               t.forward;
  t.penalty = median_ms(repeats, [&] {
    Tensor penalty = scalar(0);
    for (const Tensor& g : grad({forward()}, leaves, {}, {.create_graph = true}))
      penalty = penalty + sum(square(g));
    grad({penalty}, leaves);
  });
  return t;
}

}  // namespace

int main(int argc, char** argv) {
  std::int64_t batch = 32;
  int repeats = 11;
  std::string out;
  Args args("second_order", "Times first and second derivatives of the ops of capsule networks.");
  args.add("--batch N", batch, "samples", {.min = 1, .max = 100000})
      .add("--repeats N", repeats, "runs, of which the median counts", {.min = 1, .max = 10000})
      .add("--log FILE", out, "JSON lines");
  return run_main(args, argc, argv, [&] {
    catch_interrupts();
    std::optional<JsonLog> log;
    if (!out.empty()) log.emplace(out, JsonLogOptions{.fresh = true});
    fmt::print("milliseconds, medians of {}, batch {}\n\n{:<32}{:>9}{:>10}{:>10}{:>16}{:>10}  {}\n",
               repeats, batch, "op", "forward", "backward", "recorded", "whole penalty", "factor",
               "second backward pass");
    for (const Row& row : rows(batch)) {
      const Times t = measure(row, repeats);
      if (interrupted()) return kInterruptedExit;
      const double factor = t.penalty / (t.forward + t.backward);
      fmt::print("{:<32}{:>9.2f}{:>10.2f}{:>10.2f}{:>16.2f}{:>10.1f}  {}\n", row.name, t.forward,
                 t.backward, t.recorded, t.penalty, factor, row.second);
      if (log)
        log->write({{"op", row.name},
                    {"forward_ms", t.forward},
                    {"backward_ms", t.backward},
                    {"recorded_ms", t.recorded},
                    {"penalty_ms", t.penalty},
                    {"factor", factor},
                    {"second", row.second}});
    }
    return 0;
  });
}

// Properties of the gradients, for every row of the table of ops.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/core/node.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/gradcheck.hpp>
#include <capsfw/ops/reduce.hpp>

#include "op_table.hpp"
#include "support.hpp"

using namespace capsfw;
using namespace capsfw::op_table;
using capsfw::testing::bytes_of;
using capsfw::testing::Threads;
using capsfw::testing::values;

namespace {

bool every(const Row&) { return true; }

/// All bytes of values and gradients.
std::string bits_of(const Evaluated& e) {
  std::string bits;
  for (const auto* list : {&e.values, &e.gradients})
    for (const Tensor& t : *list) bits += bytes_of(t);
  return bits;
}

double dot(const TensorList& a, const TensorList& b) {
  double s = 0;
  for (std::size_t k = 0; k < a.size(); ++k) s += sum(a[k].detach() * b[k].detach()).item();
  return s;
}

/// Σ ⟨r, g⟩ for fixed random r: a scalar that depends on every gradient.
Tensor probe(const TensorList& g) {
  const TensorList r = random_like(g, 9);
  Tensor s = scalar(0, DType::f64);
  for (std::size_t k = 0; k < g.size(); ++k) s = s + sum(g[k] * r[k]);
  return s;
}

/// Values, gradients, recorded gradients and the second order of `f`, with f64 inputs.
TensorList everything(const std::function<TensorList(const TensorList&)>& f, const TensorList& x) {
  const TensorList in = leaves(x), y = f(in), c = leaves(random_like(y));
  TensorList all = y;
  const TensorList plain = grad(y, in, c, {.retain_graph = true});
  const TensorList linked = grad(y, in, c, {.create_graph = true});
  TensorList both = in;
  both.insert(both.end(), c.begin(), c.end());
  TensorList second(both.size());
  if (const Tensor p = probe(linked); p.requires_grad())
    second = grad({p}, both, {}, {.allow_unused = true});
  all.insert(all.end(), plain.begin(), plain.end());
  all.insert(all.end(), linked.begin(), linked.end());
  for (std::size_t i = 0; i < both.size(); ++i)
    all.push_back(second[i].defined() ? second[i] : zeros_like(both[i]));
  for (Tensor& t : all) t = t.detach();
  return all;
}

}  // namespace

TEST_CASE("op table: gradients agree with differences, in every element and random directions") {
  for_each_row(100, every, [](const Row& row) {
    const GradcheckResult r = gradcheck(row, sample(row, row.inputs), {.directions = 2});
    return r.ok ? std::string() : r.message;
  });
}

TEST_CASE("op table: second derivatives agree with differences in random directions") {
  for_each_row(100, every, [](const Row& row) {
    const GradcheckResult r =
        gradgradcheck(row, sample(row, row.inputs), {.directions = 3, .components = 0});
    return r.ok ? std::string() : r.message;
  });
}

TEST_CASE("op table: a gradient is recorded if create_graph says so, and only then") {
  for_each_row(100, every, [](const Row& row) -> std::string {
    const TensorList x = leaves(sample(row, row.inputs));
    const TensorList y = row(x);
    Tensor loss = scalar(0, DType::f64);  // of the squares, so that also linear ops depend on x
    for (const Tensor& t : y) loss = loss + sum(t * t);
    for (const Tensor& g : grad({loss}, x, {}, {.retain_graph = true}))
      if (g.requires_grad()) return "recorded without create_graph";
    for (const Tensor& g : grad({loss}, x, {}, {.create_graph = true}))
      if (g.requires_grad() == row.flat) return "not recorded with create_graph";
    return "";
  });
}

TEST_CASE("op table: the gradient of a linear op is its adjoint") {
  for_each_row(
      30, [](const Row& row) { return row.linear; },
      [](const Row& row) -> std::string {
        const TensorList x = sample(row, row.inputs), v = random_like(row(x), 6);
        const Evaluated e = evaluate(row, x, v);
        const double left = dot(e.values, v), right = dot(x, e.gradients);
        return std::abs(left - right) <= 1e-12 * (1 + std::abs(left))
                   ? ""
                   : fmt::format("<A x, v> = {} but <x, A' v> = {}", left, right);
      });
}

TEST_CASE(
    "op table: a fused op equals its reference, with the gradients of both modes and orders") {
  for_each_row(
      6, [](const Row& row) { return row.reference != nullptr; },
      [](const Row& row) -> std::string {
        const TensorList x = sample(row, row.inputs);
        return compare(everything(row, x), everything(row.reference, x), 1e-12, "tensor");
      });
}

TEST_CASE("op table: the kernel's gradient equals the recorded one") {
  for_each_row(100, every, [](const Row& row) {
    const TensorList x = sample(row, row.inputs);
    const TensorList plain = evaluate(row, x).gradients,
                     linked = evaluate(row, x, {}, true).gradients;
    return compare(plain, linked, 1e-13, "gradient");
  });
}

TEST_CASE("op table: nothing stays alive") {
  for_each_row(100, every, [](const Row& row) -> std::string {
    const TensorList x = sample(row, row.inputs);
    const std::int64_t nodes = live_nodes(), tensors = live_tensors();
    everything(row, x);
    evaluate(row, x);
    if (live_nodes() != nodes) return fmt::format("{} nodes", live_nodes() - nodes);
    if (live_tensors() != tensors) return fmt::format("{} tensors", live_tensors() - tensors);
    return "";
  });
}

TEST_CASE("op table: results and gradients have the same bits for 1, 2, 3 and 7 threads") {
  for_each_row(100, every, [](const Row& row) -> std::string {
    const TensorList x = sample(row, row.large, DType::f32);
    std::string expected;
    for (const int n : {1, 2, 3, 7}) {
      if (testing::kSanitized && n != 1 && n != 3) continue;  // slow there
      const Threads guard(n);
      std::string bits = bits_of(evaluate(row, x));
      if (expected.empty())
        expected = std::move(bits);
      else if (bits != expected)
        return fmt::format("{} threads differ from one", n);
    }
    return "";
  });
}

TEST_CASE("op table: results and gradients have the same bits wherever their arrays lie") {
  for_each_row(100, every, [](const Row& row) -> std::string {
    for (const bool large : {false, true}) {
      if (testing::kSanitized && large) continue;  // slow there
      const TensorList x = sample(row, large ? row.large : row.inputs, DType::f32);
      std::string expected;
      Rng rng(5);
      TensorList between;
      for (int i = 0; i < (testing::kSanitized ? 2 : large ? 4 : 60); ++i) {
        // Tensors of the same sizes come and go: those of the op lie side by side, or far apart.
        for (const Tensor& t : x) {
          for (int k = 0; k < 3; ++k) between.push_back(empty_like(t));
          between.erase(between.begin() + rng.below(static_cast<std::int64_t>(between.size())));
          if (between.size() > 24) between.erase(between.begin(), between.begin() + 8);
        }
        TensorList moved;
        for (const Tensor& t : x) moved.push_back(empty_like(t).copy_(t));
        std::string bits = bits_of(evaluate(row, moved));
        if (expected.empty())
          expected = std::move(bits);
        else if (bits != expected)
          return fmt::format("time {} differs from the first", i);
      }
    }
    return "";
  });
}

// The rows of products, softmax, capsules and linear algebra.

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/linalg.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/softmax.hpp>
#include <capsfw/ops/spectral.hpp>

#include "op_table.hpp"

namespace capsfw::op_table {
namespace {

void add_capsule_rows(std::vector<Row>& table) {
  const auto put = [&](Row row) { table.push_back(std::move(row)); };
  put({.name = "safe_norm",
       .call =
           [](const TensorList& x) {
             return TensorList{safe_norm(x[0]), safe_norm(x[0], {0, 1}, true)};
           },
       .outputs = {{2, 3}, {1, 1, 4}},
       .none = {{2, 0, 4}},
       .none_outputs = {{2, 0}, {1, 1, 4}}});
  put({.name = "safe_normalize",
       .call =
           [](const TensorList& x) {
             return TensorList{safe_normalize(x[0]), safe_normalize(x[0], 1)};
           },
       .outputs = {kSmall, kSmall},
       .none_outputs = {{0, 3, 4}, {0, 3, 4}}});
  const auto squash_row = [&](std::string label, std::int64_t d, Call call, Call reference) {
    put({.name = "squash",
         .label = std::move(label),
         .call = call,
         .reference = reference,
         .inputs = {{2, 3, d}},
         .outputs = {{2, 3, d}},
         .large = {{50, 150, d}},
         .none = {{0, 3, d}},
         .none_outputs = {{0, 3, d}}});
  };
  squash_row(
      "size 8", 8, [](const TensorList& x) { return TensorList{squash(x[0])}; },
      [](const TensorList& x) { return TensorList{squash_reference(x[0])}; });
  squash_row(
      "size 16, c = 0.5", 16, [](const TensorList& x) { return TensorList{squash(x[0], 0.5)}; },
      [](const TensorList& x) { return TensorList{squash_reference(x[0], 0.5)}; });
  squash_row(
      "size 5, c = 2", 5, [](const TensorList& x) { return TensorList{squash(x[0], 2.0)}; },
      [](const TensorList& x) { return TensorList{squash_reference(x[0], 2.0)}; });
  squash_row(
      "axis 1", 4, [](const TensorList& x) { return TensorList{squash(x[0], 1.0, 1)}; },
      [](const TensorList& x) { return TensorList{squash_reference(x[0], 1.0, 1)}; });
  put({.name = "squash_exp",
       .call =
           [](const TensorList& x) {
             return TensorList{squash_exp(x[0]), squash_exp(x[0], 1)};
           },
       .outputs = {kSmall, kSmall},
       .none_outputs = {{0, 3, 4}, {0, 3, 4}}});
  put({.name = "votes_full",
       .binary = votes_full,
       .inputs = {{2, 3, 4}, {3, 2, 5, 4}},
       .outputs = {{2, 3, 2, 5}},
       .large = {{8, 60, 8}, {60, 10, 16, 8}},
       .none = {{0, 3, 4}, {3, 2, 5, 4}},
       .none_outputs = {{0, 3, 2, 5}}});
  put({.name = "votes_shared",
       .binary = votes_shared,
       .inputs = {{2, 3, 4}, {2, 5, 4}},
       .outputs = {{2, 3, 2, 5}},
       .large = {{8, 60, 8}, {10, 16, 8}},
       .none = {{0, 3, 4}, {2, 5, 4}},
       .none_outputs = {{0, 3, 2, 5}}});
  put({.name = "votes_factorised",
       .call = [](const TensorList& x) { return TensorList{votes_factorised(x[0], x[1], x[2])}; },
       .inputs = {{2, 3, 4}, {2, 5, 6}, {3, 6, 4}},
       .outputs = {{2, 3, 2, 5}},
       .large = {{8, 60, 8}, {10, 16, 6}, {60, 6, 8}},
       .none = {{0, 3, 4}, {2, 5, 6}, {3, 6, 4}},
       .none_outputs = {{0, 3, 2, 5}}});
  put({.name = "votes_matrix",
       .binary = votes_matrix,
       .inputs = {{2, 3, 2, 2}, {3, 4, 2, 2}},
       .outputs = {{2, 3, 4, 4}},
       .large = {{16, 60, 4, 4}, {60, 10, 4, 4}},
       .none = {{0, 3, 2, 2}, {3, 4, 2, 2}},
       .none_outputs = {{0, 3, 4, 4}}});
  put({.name = "frobenius_normalize", .unary = frobenius_normalize});
  put({.name = "weighted_sum",
       .binary = weighted_sum,
       .inputs = {{2, 3, 4}, {2, 3, 4, 5}},
       .outputs = {{2, 4, 5}},
       .large = {{30, 60, 10}, {30, 60, 10, 16}},
       .none = {{2, 0, 4}, {2, 0, 4, 5}},
       .none_outputs = {{2, 4, 5}}});
  put({.name = "agreement",
       .binary = agreement,
       .inputs = {{2, 3, 4, 5}, {2, 4, 5}},
       .outputs = {{2, 3, 4}},
       .large = {{30, 60, 10, 16}, {30, 10, 16}},
       .none = {{2, 0, 4, 5}, {2, 4, 5}},
       .none_outputs = {{2, 0, 4}}});
  put({.name = "outer_votes",
       .binary = outer_votes,
       .inputs = {{2, 3, 4}, {2, 4, 5}},
       .outputs = {{2, 3, 4, 5}},
       .large = {{30, 60, 10}, {30, 10, 16}},
       .none = {{2, 0, 4}, {2, 4, 5}},
       .none_outputs = {{2, 0, 4, 5}}});
}

void add_linalg_rows(std::vector<Row>& table) {
  const auto put = [&](Row row) { table.push_back(std::move(row)); };
  put({.name = "tril",
       .call =
           [](const TensorList& x) {
             return TensorList{tril(x[0]), tril(x[0], -1)};
           },
       .outputs = {kSmall, kSmall},
       .none_outputs = {{0, 3, 4}, {0, 3, 4}},
       .linear = true});
  put({.name = "triu",
       .call =
           [](const TensorList& x) {
             return TensorList{triu(x[0]), triu(x[0], 1)};
           },
       .outputs = {kSmall, kSmall},
       .none_outputs = {{0, 3, 4}, {0, 3, 4}},
       .linear = true});
  put({.name = "cholesky",
       .unary = cholesky,
       .sample = definite,
       .inputs = {{2, 4, 4}},
       .outputs = {{2, 4, 4}},
       .large = {{3000, 5, 5}},
       .none = {{0, 4, 4}},
       .none_outputs = {{0, 4, 4}}});
  put({.name = "spectral_norm",
       .unary = spectral_norm,
       .inputs = {{2, 4, 3}},
       .outputs = {{2}},
       .large = {{500, 5, 6}},
       .none = {{0, 4, 3}},
       .none_outputs = {{0}},
       .f32_error = 1e-5});
  const auto solve_row = [&](std::string label, Call call) {
    put({.name = "triangular_solve",
         .label = std::move(label),
         .call = call,
         .sample = triangle,
         .inputs = {{2, 1, 3, 3}, {4, 3, 2}},
         .outputs = {{2, 4, 3, 2}},
         .large = {{3000, 5, 5}, {3000, 5, 3}},
         .none = {{0, 3, 3}, {0, 3, 2}},
         .none_outputs = {{0, 3, 2}}});
  };
  solve_row("lower", [](const TensorList& x) { return TensorList{triangular_solve(x[0], x[1])}; });
  solve_row("upper", [](const TensorList& x) {
    return TensorList{triangular_solve(x[0], x[1], {.upper = true})};
  });
  solve_row("lower, transposed", [](const TensorList& x) {
    return TensorList{triangular_solve(x[0], x[1], {.transpose = true})};
  });
  solve_row("upper, transposed", [](const TensorList& x) {
    return TensorList{triangular_solve(x[0], x[1], {.upper = true, .transpose = true})};
  });
}

}  // namespace

void add_product_rows(std::vector<Row>& table) {
  const auto put = [&](Row row) { table.push_back(std::move(row)); };
  put({.name = "matmul",
       .label = "batches broadcast",
       .binary = matmul,
       .inputs = {{2, 1, 3, 4}, {5, 4, 2}},
       .outputs = {{2, 5, 3, 2}},
       .large = {{6, 1, 60, 70}, {5, 70, 50}},
       .none = {{2, 1, 3, 0}, {5, 0, 2}},
       .none_outputs = {{2, 5, 3, 2}}});
  put({.name = "matmul",
       .label = "matrices",
       .binary = matmul,
       .inputs = {{3, 4}, {4, 2}},
       .outputs = {{3, 2}},
       .large = {{300, 200}, {200, 150}},
       .none = {{0, 4}, {4, 2}},
       .none_outputs = {{0, 2}}});
  put({.name = "matmul",
       .label = "vectors",
       .call =
           [](const TensorList& x) {
             return TensorList{matmul(x[0], x[1]), matmul(x[2], x[0]), matmul(x[0], x[0])};
           },
       .inputs = {{4}, {4, 2}, {3, 4}},
       .outputs = {{2}, {3}, {}},
       .large = {{400}, {400, 100}, {100, 400}},
       .none = {{0}, {0, 2}, {3, 0}},
       .none_outputs = {{2}, {3}, {}}});
  const auto einsum_row = [&](std::string equation, Shapes in, Shape out, Shapes large, Call f) {
    Row row{.name = "einsum",
            .label = std::move(equation),
            .call = f,
            .inputs = std::move(in),
            .outputs = {out},
            .large = std::move(large),
            .none = {}};
    put(std::move(row));
  };
  einsum_row("bie,ijde->bijd", {{2, 3, 4}, {3, 2, 5, 4}}, {2, 3, 2, 5},
             {{8, 60, 8}, {60, 10, 16, 8}},
             [](const TensorList& x) { return TensorList{einsum("bie,ijde->bijd", x[0], x[1])}; });
  einsum_row("ij,ij->", {{3, 4}, {3, 4}}, {}, {{300, 400}, {300, 400}},
             [](const TensorList& x) { return TensorList{einsum("ij,ij->", x[0], x[1])}; });
  einsum_row("i,j->ji", {{3}, {4}}, {4, 3}, {{300}, {400}},
             [](const TensorList& x) { return TensorList{einsum("i,j->ji", x[0], x[1])}; });
  einsum_row("abc,cd->ad (b summed alone)", {{2, 3, 4}, {4, 5}}, {2, 5}, {{60, 30, 40}, {40, 50}},
             [](const TensorList& x) { return TensorList{einsum("abc,cd->ad", x[0], x[1])}; });
  einsum_row("bji,bdj->dbi", {{2, 3, 4}, {2, 5, 3}}, {5, 2, 4}, {{20, 30, 40}, {20, 50, 30}},
             [](const TensorList& x) { return TensorList{einsum("bji,bdj->dbi", x[0], x[1])}; });
  put({.name = "einsum",
       .label = "nothing to sum",
       .call = [](const TensorList& x) { return TensorList{einsum("bij,bjk->bik", x[0], x[1])}; },
       .inputs = {{2, 3, 1}, {2, 1, 4}},
       .outputs = {{2, 3, 4}},
       .large = {{20, 60, 1}, {20, 1, 50}},
       .none = {{2, 3, 0}, {2, 0, 4}},
       .none_outputs = {{2, 3, 4}}});
  put({.name = "linear",
       .call =
           [](const TensorList& x) {
             return TensorList{linear(x[0], x[1], x[2]), linear(x[0], x[1])};
           },
       .inputs = {{2, 3, 4}, {5, 4}, {5}},
       .outputs = {{2, 3, 5}, {2, 3, 5}},
       .large = {{20, 30, 100}, {80, 100}, {80}},
       .none = {{2, 3, 0}, {5, 0}, {5}},
       .none_outputs = {{2, 3, 5}, {2, 3, 5}}});
  put({.name = "softmax",
       .call =
           [](const TensorList& x) {
             return TensorList{softmax(x[0]), softmax(x[0], 1)};
           },
       .reference =
           [](const TensorList& x) {
             return TensorList{softmax_reference(x[0]), softmax_reference(x[0], 1)};
           },
       .outputs = {kSmall, kSmall},
       .none_outputs = {{0, 3, 4}, {0, 3, 4}}});
  put({.name = "log_softmax",
       .call =
           [](const TensorList& x) {
             return TensorList{log_softmax(x[0]), log_softmax(x[0], 0)};
           },
       .reference =
           [](const TensorList& x) {
             return TensorList{log_softmax_reference(x[0]), log_softmax_reference(x[0], 0)};
           },
       .outputs = {kSmall, kSmall},
       .none = {{2, 0, 4}},
       .none_outputs = {{2, 0, 4}, {2, 0, 4}}});
  put({.name = "shares",
       .call =
           [](const TensorList& x) {
             return TensorList{shares(x[0]), shares(x[0], 1)};
           },
       .reference =
           [](const TensorList& x) {
             return TensorList{x[0] / sum(x[0], {-1}, true), x[0] / sum(x[0], {1}, true)};
           },
       .sample = positive,
       .outputs = {kSmall, kSmall},
       .none_outputs = {{0, 3, 4}, {0, 3, 4}}});
  add_capsule_rows(table);
  add_linalg_rows(table);
}

}  // namespace capsfw::op_table

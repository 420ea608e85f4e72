// The rows of reductions and layout.

#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>

#include "op_table.hpp"

namespace capsfw::op_table {

void add_shape_rows(std::vector<Row>& table) {
  const auto put = [&](Row row) { table.push_back(std::move(row)); };

  // Three results: over all axes, over two of them with keepdim, over the last.
  const auto reduction = [&](Row row) {
    row.outputs = {{}, {1, 3, 1}, {2, 3}};
    row.large = {{64, 70, 50}};
    row.none = {{2, 0, 4}};
    row.none_outputs = {{}, {1, 0, 1}, {2, 0}};
    put(std::move(row));
  };
  reduction({.name = "sum",
             .call =
                 [](const TensorList& x) {
                   return TensorList{sum(x[0]), sum(x[0], {0, 2}, true), sum(x[0], {-1})};
                 },
             .linear = true});
  reduction({.name = "mean", .call = [](const TensorList& x) {
               return TensorList{mean(x[0]), mean(x[0], {0, 2}, true), mean(x[0], {-1})};
             }});
  table.back().linear = true;
  reduction({.name = "var", .call = [](const TensorList& x) {
               return TensorList{var(x[0]), var(x[0], {0, 2}, 0, true), var(x[0], {-1})};
             }});
  reduction(
      {.name = "logsumexp", .call = [](const TensorList& x) {
         return TensorList{logsumexp(x[0]), logsumexp(x[0], {0, 2}, true), logsumexp(x[0], {-1})};
       }});
  table.back().none = {};  // the maximum of nothing
  reduction({.name = "max",
             .call =
                 [](const TensorList& x) {
                   return TensorList{max(x[0]), max(x[0], {0, 2}, true), max(x[0], {-1})};
                 },
             .sample = distinct});
  table.back().none = {};
  reduction({.name = "min",
             .call =
                 [](const TensorList& x) {
                   return TensorList{min(x[0]), min(x[0], {0, 2}, true), min(x[0], {-1})};
                 },
             .sample = distinct});
  table.back().none = {};
  reduction({.name = "norm", .call = [](const TensorList& x) {
               return TensorList{norm(x[0]), norm(x[0], {0, 2}, true), norm(x[0], {-1})};
             }});
  reduction({.name = "norm1",
             .call =
                 [](const TensorList& x) {
                   return TensorList{norm1(x[0]), norm1(x[0], {0, 2}, true), norm1(x[0], {-1})};
                 },
             .sample = off_zero});
  put({.name = "prod",
       .call =
           [](const TensorList& x) {
             return TensorList{prod(x[0], 1), prod(x[0], -1, true)};
           },
       .sample = positive,
       .outputs = {{2, 4}, {2, 3, 1}},
       .large = {{800, 12, 12}},
       .none = {{2, 0, 4}},
       .none_outputs = {{2, 4}, {2, 0, 1}}});
  put({.name = "prod",
       .label = "with zeros",
       .call = [](const TensorList& x) { return TensorList{prod(x[0], -1)}; },
       .sample = with_zeros,
       .inputs = {{5, 3}},
       .outputs = {{5}},
       .large = {{9000, 8}},
       .none = {}});
  put({.name = "cumsum",
       .call =
           [](const TensorList& x) {
             return TensorList{cumsum(x[0], 0), cumsum(x[0], 1), cumsum(x[0], -1)};
           },
       .outputs = {kSmall, kSmall, kSmall},
       .none_outputs = {{0, 3, 4}, {0, 3, 4}, {0, 3, 4}},
       .linear = true});

  // Everything below moves elements about, and is linear.
  const auto move = [&](Row row) {
    row.linear = true;
    put(std::move(row));
  };
  move({.name = "sum_to",
        .call =
            [](const TensorList& x) {
              return TensorList{sum_to(x[0], {x[0].size(1), 1})};
            },
        .outputs = {{3, 1}},
        .none_outputs = {{3, 1}}});
  move({.name = "broadcast_to",
        .call =
            [](const TensorList& x) {
              return TensorList{broadcast_to(x[0], {2, x[0].size(0), 4})};
            },
        .inputs = {{3, 1}},
        .outputs = {{2, 3, 4}},
        .large = {{20000, 1}},
        .none = {{0, 1}},
        .none_outputs = {{2, 0, 4}}});
  move({.name = "reshape",
        .call =
            [](const TensorList& x) {
              return TensorList{reshape(x[0], {x[0].size(0) * x[0].size(1), x[0].size(2)})};
            },
        .outputs = {{6, 4}},
        .none_outputs = {{0, 4}}});
  move({.name = "flatten",
        .call =
            [](const TensorList& x) {
              return TensorList{flatten(x[0], 1), flatten(x[0])};
            },
        .outputs = {{2, 12}, {24}},
        .none_outputs = {{0, 12}, {0}}});
  move({.name = "permute",
        .call =
            [](const TensorList& x) {
              return TensorList{permute(x[0], {2, 0, 1})};
            },
        .outputs = {{4, 2, 3}},
        .none_outputs = {{4, 0, 3}}});
  move({.name = "transpose",
        .call =
            [](const TensorList& x) {
              return TensorList{transpose(x[0]), transpose(x[0], 0, 2)};
            },
        .outputs = {{2, 4, 3}, {4, 3, 2}},
        .none_outputs = {{0, 4, 3}, {4, 3, 0}}});
  move({.name = "unsqueeze",
        .call =
            [](const TensorList& x) {
              return TensorList{unsqueeze(x[0], 1), unsqueeze(x[0], -1)};
            },
        .outputs = {{2, 1, 3, 4}, {2, 3, 4, 1}},
        .none_outputs = {{0, 1, 3, 4}, {0, 3, 4, 1}}});
  move({.name = "squeeze",
        .call = [](const TensorList& x) { return TensorList{squeeze(x[0], -2)}; },
        .inputs = {{2, 1, 4}},
        .outputs = {{2, 4}},
        .large = {{2000, 1, 50}},
        .none = {{0, 1, 4}},
        .none_outputs = {{0, 4}}});
  move({.name = "contiguous",
        .call = [](const TensorList& x) { return TensorList{contiguous(transpose(x[0], 0, 1))}; },
        .outputs = {{3, 2, 4}},
        .none_outputs = {{3, 0, 4}}});
  move({.name = "slice",
        .call =
            [](const TensorList& x) {
              return TensorList{slice(x[0], 1, 1, 99), slice(x[0], -1, -3, -1, 2)};
            },
        .outputs = {{2, 2, 4}, {2, 3, 1}},
        .none_outputs = {{0, 2, 4}, {0, 3, 1}}});
  move({.name = "narrow",
        .call = [](const TensorList& x) { return TensorList{narrow(x[0], 2, 1, 2)}; },
        .outputs = {{2, 3, 2}},
        .none_outputs = {{0, 3, 2}}});
  move({.name = "select",
        .call =
            [](const TensorList& x) {
              return TensorList{select(x[0], 1, 2), select(x[0], 2, -1)};
            },
        .outputs = {{2, 4}, {2, 3}},
        .none_outputs = {{0, 4}, {0, 3}}});
  move({.name = "slice_scatter",
        .call =
            [](const TensorList& x) {
              const Shape full = {x[0].size(0), x[0].size(1), 2 * x[0].size(2) + 2};
              return TensorList{slice_scatter(x[0], full, 2, 1, -1, 2)};
            },
        .outputs = {{2, 3, 10}},
        .none_outputs = {{0, 3, 10}}});
  move({.name = "pad",
        .call =
            [](const TensorList& x) {
              return TensorList{pad(x[0], {1, 2, 0, 1})};
            },
        .outputs = {{2, 4, 7}},
        .none_outputs = {{0, 4, 7}}});
  move({.name = "flip", .call = [](const TensorList& x) {
          return TensorList{flip(x[0], {0, -1})};
        }});
  move({.name = "cat",
        .call =
            [](const TensorList& x) {
              return TensorList{cat({x[0], x[1], x[0]}, 1)};
            },
        .inputs = {{2, 3, 4}, {2, 1, 4}},
        .outputs = {{2, 7, 4}},
        .large = {{41, 40, 50}, {41, 7, 50}},
        .none = {{2, 0, 4}, {2, 1, 4}},
        .none_outputs = {{2, 1, 4}}});
  move({.name = "stack",
        .call =
            [](const TensorList& x) {
              return TensorList{stack({x[0], x[1]}, 1), stack({x[1], x[0]}, -1)};
            },
        .inputs = {{2, 3}, {2, 3}},
        .outputs = {{2, 2, 3}, {2, 3, 2}},
        .large = {{900, 50}, {900, 50}},
        .none = {{0, 3}, {0, 3}},
        .none_outputs = {{0, 2, 3}, {0, 3, 2}}});
  move({.name = "split",
        .label = "equal",
        .call = [](const TensorList& x) { return split(x[0], 3, -1); },
        .outputs = {{2, 3, 3}, {2, 3, 1}},
        .none_outputs = {{0, 3, 3}, {0, 3, 1}}});
  move({.name = "split",
        .label = "given lengths",
        .call =
            [](const TensorList& x) {
              return split(x[0], {0, 1, x[0].size(1) - 1}, 1);
            },
        .outputs = {{2, 0, 4}, {2, 1, 4}, {2, 2, 4}},
        .none_outputs = {{0, 0, 4}, {0, 1, 4}, {0, 2, 4}}});
  move({.name = "unbind",
        .call = [](const TensorList& x) { return unbind(x[0], 1); },
        .outputs = {{2, 4}, {2, 4}, {2, 4}},
        .none_outputs = {{0, 4}, {0, 4}, {0, 4}}});
  move({.name = "diagonal",
        .call = [](const TensorList& x) { return TensorList{diagonal(x[0])}; },
        .inputs = {{2, 3, 3}},
        .outputs = {{2, 3}},
        .large = {{40, 50, 50}},
        .none = {{2, 0, 0}},
        .none_outputs = {{2, 0}}});
}

}  // namespace capsfw::op_table

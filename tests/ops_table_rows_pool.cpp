// The rows of pooling and normalisation.

#include <capsfw/ops/normalize.hpp>
#include <capsfw/ops/pool.hpp>

#include "op_table.hpp"

namespace capsfw::op_table {
namespace {

void add_window_rows(std::vector<Row>& table) {
  const auto put = [&](Row row) { table.push_back(std::move(row)); };
  put({.name = "max_pool2d",
       .call =
           [](const TensorList& x) {
             const PoolOptions wide = {.stride = {1, 2}, .padding = {1, 0}};
             return TensorList{max_pool2d(x[0], {2, 2}), max_pool2d(x[0], {3, 2}, wide)};
           },
       .sample = distinct,
       .inputs = {{2, 2, 4, 5}},
       .outputs = {{2, 2, 2, 2}, {2, 2, 4, 2}},
       .large = {{6, 8, 40, 50}},
       .none = {{0, 2, 4, 5}},
       .none_outputs = {{0, 2, 2, 2}, {0, 2, 4, 2}}});
  put({.name = "avg_pool2d",
       .call =
           [](const TensorList& x) {
             const PoolOptions wide = {
                 .stride = {1, 2}, .padding = {1, 1}, .count_include_pad = false};
             return TensorList{avg_pool2d(x[0], {2, 2}), avg_pool2d(x[0], {3, 2}, wide)};
           },
       .inputs = {{2, 2, 4, 5}},
       .outputs = {{2, 2, 2, 2}, {2, 2, 4, 3}},
       .large = {{6, 8, 40, 50}},
       .none = {{0, 2, 4, 5}},
       .none_outputs = {{0, 2, 2, 2}, {0, 2, 4, 3}},
       .linear = true});
  put({.name = "avg_pool2d_input",
       .call =
           [](const TensorList& x) {
             const Dims size = {2 * x[0].size(2), 2 * x[0].size(3) + 1};
             return TensorList{avg_pool2d_input(x[0], size, {2, 2})};
           },
       .inputs = {{2, 2, 3, 2}},
       .outputs = {{2, 2, 6, 5}},
       .large = {{6, 8, 30, 40}},
       .none = {{0, 2, 3, 2}},
       .none_outputs = {{0, 2, 6, 5}},
       .linear = true});
}

void add_adaptive_pool_rows(std::vector<Row>& table) {
  const auto put = [&](Row row) { table.push_back(std::move(row)); };
  put({.name = "adaptive_max_pool2d",
       .call =
           [](const TensorList& x) {
             return TensorList{adaptive_max_pool2d(x[0], {3, 2}),
                               adaptive_max_pool2d(x[0], {1, 1})};
           },
       .sample = distinct,
       .inputs = {{2, 2, 4, 5}},
       .outputs = {{2, 2, 3, 2}, {2, 2, 1, 1}},
       .large = {{6, 8, 40, 50}},
       .none = {{0, 2, 4, 5}},
       .none_outputs = {{0, 2, 3, 2}, {0, 2, 1, 1}}});
  put({.name = "adaptive_avg_pool2d",
       .call =
           [](const TensorList& x) {
             return TensorList{adaptive_avg_pool2d(x[0], {3, 2}), adaptive_avg_pool2d(x[0], {1, 1}),
                               adaptive_avg_pool2d(x[0], {5, 7})};
           },
       .inputs = {{2, 2, 4, 5}},
       .outputs = {{2, 2, 3, 2}, {2, 2, 1, 1}, {2, 2, 5, 7}},
       .large = {{6, 8, 40, 50}},
       .none = {{0, 2, 4, 5}},
       .none_outputs = {{0, 2, 3, 2}, {0, 2, 1, 1}, {0, 2, 5, 7}},
       .linear = true});
  put({.name = "adaptive_avg_pool2d_input",
       .call =
           [](const TensorList& x) {
             return TensorList{adaptive_avg_pool2d_input(x[0], {5, 3}),
                               adaptive_avg_pool2d_input(x[0], {2, 7})};
           },
       .inputs = {{2, 2, 3, 2}},
       .outputs = {{2, 2, 5, 3}, {2, 2, 2, 7}},
       .large = {{60, 8, 30, 40}},
       .none = {{0, 2, 3, 2}},
       .none_outputs = {{0, 2, 5, 3}, {0, 2, 2, 7}},
       .linear = true});
}

void add_normalize_rows(std::vector<Row>& table) {
  const auto put = [&](Row row) { table.push_back(std::move(row)); };
  put({.name = "batch_norm",
       .label = "training",
       .call =
           [](const TensorList& x) {
             return TensorList{batch_norm(x[0], x[1], x[2], {}, {}, true),
                               batch_norm(x[0], {}, {}, {}, {}, true, 0.1, 1e-3)};
           },
       .inputs = {{3, 2, 2, 2}, {2}, {2}},
       .outputs = {{3, 2, 2, 2}, {3, 2, 2, 2}},
       .large = {{20, 8, 30, 30}, {8}, {8}},
       .none = {{3, 0, 2, 2}, {0}, {0}},
       .none_outputs = {{3, 0, 2, 2}, {3, 0, 2, 2}},
       .f32_error = 1e-5});
  put({.name = "batch_norm",
       .label = "training, of relu",
       .call =
           [](const TensorList& x) {
             return TensorList{batch_norm(x[0], x[1], x[2], {}, {}, true, 0.1, 1e-5, true)};
           },
       .inputs = {{3, 2, 2, 3}, {2}, {2}},
       .outputs = {{3, 2, 2, 3}},
       .large = {{20, 8, 30, 30}, {8}, {8}},
       .none = {{3, 0, 2, 2}, {0}, {0}},
       .none_outputs = {{3, 0, 2, 2}},
       .f32_error = 1e-5});
  put({.name = "batch_norm",
       .label = "evaluation",
       .call =
           [](const TensorList& x) {
             const Shape c = {x[0].size(1)};
             return TensorList{batch_norm(x[0], x[1], x[2], full(c, 0.3, x[0].dtype()),
                                          full(c, 2.0, x[0].dtype()), false)};
           },
       .inputs = {{3, 2, 2}, {2}, {2}},
       .outputs = {{3, 2, 2}},
       .large = {{200, 8, 60}, {8}, {8}},
       .none = {{0, 2, 2}, {2}, {2}},
       .none_outputs = {{0, 2, 2}}});
  put({.name = "layer_norm",
       .call =
           [](const TensorList& x) {
             return TensorList{layer_norm(x[0], 1, x[1], x[2]), layer_norm(x[0], 2)};
           },
       .inputs = {{2, 3, 4}, {4}, {4}},
       .outputs = {kSmall, kSmall},
       .large = {{40, 50, 60}, {60}, {60}},
       .none = {{0, 3, 4}, {4}, {4}},
       .none_outputs = {{0, 3, 4}, {0, 3, 4}},
       .f32_error = 1e-5});
  put({.name = "group_norm",
       .call =
           [](const TensorList& x) {
             return TensorList{group_norm(x[0], 2, x[1], x[2]), group_norm(x[0], x[0].size(1))};
           },
       .inputs = {{2, 4, 3}, {4}, {4}},
       .outputs = {{2, 4, 3}, {2, 4, 3}},
       .large = {{40, 20, 90}, {20}, {20}},
       .none = {{0, 4, 3}, {4}, {4}},
       .none_outputs = {{0, 4, 3}, {0, 4, 3}},
       .f32_error = 1e-5});
  put({.name = "dropout",
       .call =
           [](const TensorList& x) {
             Rng rng(3);
             return TensorList{dropout(x[0], 0.4, rng)};
           },
       .linear = true});
}

}  // namespace

void add_pool_rows(std::vector<Row>& table) {
  add_window_rows(table);
  add_adaptive_pool_rows(table);
  add_normalize_rows(table);
}

}  // namespace capsfw::op_table

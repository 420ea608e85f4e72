// The rows of indexing and convolution.

#include <capsfw/ops/conv.hpp>
#include <capsfw/ops/index.hpp>

#include "op_table.hpp"

namespace capsfw::op_table {
namespace {

void add_index_rows(std::vector<Row>& table) {
  const auto put = [&](Row row) { table.push_back(std::move(row)); };
  put({.name = "gather",
       .call =
           [](const TensorList& x) {
             const Shape at = {x[0].size(0), 5, x[0].size(2) - 1};
             return TensorList{gather(x[0], 1, indices(at, x[0].size(1)))};
           },
       .outputs = {{2, 5, 3}},
       .none_outputs = {{0, 5, 3}},
       .linear = true});
  put({.name = "scatter_add",
       .call =
           [](const TensorList& x) {
             const Shape full = {x[0].size(0) + 1, 5, x[0].size(2)};
             return TensorList{scatter_add(full, 1, indices(x[0].shape(), 5), x[0])};
           },
       .outputs = {{3, 5, 4}},
       .none_outputs = {{1, 5, 4}},
       .linear = true});
  put({.name = "index_select",
       .call =
           [](const TensorList& x) {
             return TensorList{index_select(x[0], 1, indices({6}, x[0].size(1))),
                               index_select(x[0], -1, indices({2}, x[0].size(2)))};
           },
       .outputs = {{2, 6, 4}, {2, 3, 2}},
       .none_outputs = {{0, 6, 4}, {0, 3, 2}},
       .linear = true});
  put({.name = "index_add",
       .call =
           [](const TensorList& x) {
             return TensorList{index_add(5, 1, indices({x[0].size(1)}, 5), x[0])};
           },
       .outputs = {{2, 5, 4}},
       .none_outputs = {{0, 5, 4}},
       .linear = true});
  put({.name = "embedding",
       .call =
           [](const TensorList& x) {
             return TensorList{embedding(x[0], indices({3, 5}, x[0].size(0)))};
           },
       .inputs = {{4, 3}},
       .outputs = {{3, 5, 3}},
       .large = {{300, 9000}},
       .none = {{4, 0}},
       .none_outputs = {{3, 5, 0}},
       .linear = true});
  put({.name = "masked_fill",
       .call =
           [](const TensorList& x) {
             return TensorList{masked_fill(x[0], mask({x[0].size(1), 1}), 0)};
           },
       .linear = true});
  put({.name = "sort",
       .call =
           [](const TensorList& x) {
             return TensorList{sort(x[0]).values, sort(x[0], 1, true).values};
           },
       .sample = distinct,
       .outputs = {kSmall, kSmall},
       .none_outputs = {{0, 3, 4}, {0, 3, 4}}});
  put({.name = "topk",
       .call =
           [](const TensorList& x) {
             return TensorList{topk(x[0], 2).values, topk(x[0], 1, 0, false).values};
           },
       .sample = distinct,
       .outputs = {{2, 3, 2}, {1, 3, 4}},
       .none = {{2, 0, 4}},
       .none_outputs = {{2, 0, 2}, {1, 0, 4}}});
}

void add_conv_rows(std::vector<Row>& table) {
  const auto put = [&](Row row) { table.push_back(std::move(row)); };
  put({.name = "conv2d",
       .label = "bias",
       .call = [](const TensorList& x) { return TensorList{conv2d(x[0], x[1], x[2])}; },
       .inputs = {{2, 3, 5, 4}, {2, 3, 3, 2}, {2}},
       .outputs = {{2, 2, 3, 3}},
       .large = {{4, 8, 30, 30}, {16, 8, 5, 5}, {16}},
       .none = {{0, 3, 5, 4}, {2, 3, 3, 2}, {2}},
       .none_outputs = {{0, 2, 3, 3}}});
  put({.name = "conv2d",
       .label = "stride, padding, dilation, groups",
       .call =
           [](const TensorList& x) {
             const ConvOptions o = {
                 .stride = {2, 1}, .padding = {1, 2}, .dilation = {1, 2}, .groups = 2};
             return TensorList{conv2d(x[0], x[1], {}, o)};
           },
       .inputs = {{2, 4, 5, 4}, {6, 2, 3, 2}},
       .outputs = {{2, 6, 3, 6}},
       .large = {{4, 8, 30, 30}, {12, 4, 3, 2}},
       .none = {{0, 4, 5, 4}, {6, 2, 3, 2}},
       .none_outputs = {{0, 6, 3, 6}}});
  put({.name = "conv2d_input",
       .call =
           [](const TensorList& x) {
             const ConvOptions o = {.stride = {2, 1}, .padding = {1, 0}};
             const Dims size = {2 * x[0].size(2), x[0].size(3) + 1};
             return TensorList{conv2d_input(x[0], x[1], size, o)};
           },
       .inputs = {{2, 3, 3, 3}, {3, 2, 3, 2}},
       .outputs = {{2, 2, 6, 4}},
       .large = {{4, 16, 15, 30}, {16, 8, 3, 2}},
       .none = {{0, 3, 3, 3}, {3, 2, 3, 2}},
       .none_outputs = {{0, 2, 6, 4}}});
  put({.name = "conv2d_weight",
       .call =
           [](const TensorList& x) {
             const ConvOptions o = {.stride = {1, 1}, .padding = {1, 0}, .groups = 2};
             return TensorList{conv2d_weight(x[0], x[1], {3, 2}, o)};
           },
       .inputs = {{2, 4, 3, 4}, {2, 2, 3, 3}},
       .outputs = {{2, 2, 3, 2}},
       .large = {{4, 8, 30, 31}, {4, 16, 30, 30}},
       .none = {{0, 4, 3, 4}, {0, 2, 3, 3}},
       .none_outputs = {{2, 2, 3, 2}}});
  put({.name = "conv_transpose2d",
       .call =
           [](const TensorList& x) {
             const ConvOptions o = {
                 .stride = {2, 3}, .padding = {1, 0}, .dilation = {1, 2}, .groups = 2};
             return TensorList{conv_transpose2d(x[0], x[1], x[2], o, {1, 0})};
           },
       .inputs = {{2, 4, 3, 2}, {4, 3, 3, 2}, {6}},
       .outputs = {{2, 6, 6, 6}},
       .large = {{4, 8, 30, 30}, {8, 4, 3, 2}, {8}},
       .none = {{0, 4, 3, 2}, {4, 3, 3, 2}, {6}},
       .none_outputs = {{0, 6, 6, 6}}});
  put({.name = "unfold",
       .call =
           [](const TensorList& x) {
             const ConvOptions o = {.stride = {2, 1}, .padding = {1, 0}, .dilation = {1, 2}};
             return TensorList{unfold(x[0], {3, 2}, o)};
           },
       .inputs = {{2, 2, 4, 5}},
       .outputs = {{2, 12, 6}},
       .large = {{4, 8, 40, 50}},
       .none = {{0, 2, 4, 5}},
       .none_outputs = {{0, 12, 6}},
       .linear = true});
  put({.name = "fold",
       .call =
           [](const TensorList& x) {
             const Dims size = {x[0].size(2) / 3 + 1, 4};
             return TensorList{fold(x[0], size, {2, 2})};
           },
       .inputs = {{2, 12, 9}},
       .outputs = {{2, 3, 4, 4}},
       .large = {{40, 12, 90}},
       .none = {{0, 12, 9}},
       .none_outputs = {{0, 3, 4, 4}},
       .linear = true});
}

}  // namespace

void add_image_rows(std::vector<Row>& table) {
  add_index_rows(table);
  add_conv_rows(table);
}

}  // namespace capsfw::op_table

#include <capsfw/layers/word_embedding.hpp>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>

namespace capsfw {
namespace {

/// A copy of a table in f32, with zeros for the padding.
Tensor checked(const Tensor& table) {
  if (!table.defined() || table.dim() != 2 || table.size(0) < 2 || table.size(1) < 1)
    throw ShapeError(fmt::format(
        "WordEmbedding: the table must be [V, dim], a row for padding and one for unknown words "
        "at least; got {}",
        table.defined() ? table.shape().str() : "none"));
  check_floating(table, "WordEmbedding");
  const Tensor words = cast_data(narrow(table.detach(), 0, 1, table.size(0) - 1), DType::f32);
  return cat({zeros({1, table.size(1)}), words});
}

}  // namespace

WordTable word_table(std::string_view name) {
  if (name == "static") return WordTable::fixed;
  if (name == "tuned") return WordTable::tuned;
  if (name == "both") return WordTable::both;
  throw ValueError(fmt::format("word table: static, tuned or both; got '{}'", name));
}

WordEmbedding::WordEmbedding(const Tensor& table, WordTable kind) : kind_(kind) {
  weight =
      kind == WordTable::fixed ? buffer("weight", checked(table)) : param("weight", checked(table));
  if (kind == WordTable::both) fixed = buffer("fixed", checked(table));
}

Tensor WordEmbedding::forward(const Tensor& ids) {
  Tensor words = embedding(weight, ids);
  if (fixed.defined()) words = cat({embedding(fixed, ids), words}, -1);
  const Tensor padding = eq(ids, 0.0);
  return any(padding) ? masked_fill(words, unsqueeze(padding, -1), 0.0) : words;
}

}  // namespace capsfw

#include "parameters.hpp"

#include <unordered_map>
#include <unordered_set>

#include <fmt/format.h>

namespace capsfw::detail {
namespace {

void check_parameter(const std::string& who, const std::string& name, const Tensor& x) {
  const auto fail = [&](const char* rule, const std::string& got) {
    throw ValueError(fmt::format("{}: a parameter must {}; got '{}' {}", who, rule, name, got));
  };
  if (!x.defined()) fail("be a defined tensor", "undefined");
  const std::string kind = fmt::format("= {} {}", x.shape().str(), name_of(x.dtype()));
  if (!is_floating(x.dtype())) fail("be f32 or f64", kind);
  if (!x.is_leaf())
    fail("be a leaf", kind + ", the result of an op. Hint: pass the tensor that the op was given");
  if (!x.is_contiguous()) fail("be contiguous", kind + " with gaps. Hint: contiguous_data()");
}

}  // namespace

std::vector<ParamList::Entry> checked_parameters(const std::string& who,
                                                 const ParamList& params,
                                                 std::size_t first) {
  std::vector<ParamList::Entry> entries;
  for (const auto& [given, value] : params) {
    const std::string name = given.empty() ? std::to_string(first + entries.size()) : given;
    check_parameter(who, name, value);
    entries.emplace_back(name, value);
  }
  return entries;
}

void check_distinct(const std::string& who, const std::vector<ParamList::Entry>& entries) {
  std::unordered_map<const void*, std::string> tensors;
  std::unordered_set<std::string> names;
  for (const auto& [name, value] : entries) {
    const auto [at, fresh] = tensors.emplace(value.impl(), name);
    if (!fresh)
      throw ValueError(
          fmt::format("{}: every parameter is listed once; '{}' and '{}' are the same tensor", who,
                      at->second, name));
    if (!names.insert(name).second)
      throw ValueError(
          fmt::format("{}: names of parameters are distinct; got two of '{}'", who, name));
  }
}

Tensor copy_of(const Tensor& x) {
  Tensor y = empty(x.shape(), x.dtype());
  y.copy_(x);
  return y;
}

Tensor state_entry(const std::string& who,
                   const StateDict& state,
                   const std::string& name,
                   const Shape& shape,
                   DType dtype) {
  if (!state.contains(name))
    throw ValueError(
        fmt::format("{}: needs an entry '{}'; got {} entries without it. Hint: the parameters and "
                    "options must be those that were saved",
                    who, name, state.size()));
  const Tensor& x = state.at(name);
  const bool same_shape = x.defined() && x.shape() == shape;
  if (same_shape && x.dtype() == dtype) return x;
  const std::string message = fmt::format(
      "{}: '{}' must be {} {}; got {}", who, name, shape.str(), name_of(dtype),
      x.defined() ? fmt::format("{} {}", x.shape().str(), name_of(x.dtype())) : "undefined");
  if (same_shape) throw DTypeError(message);
  throw ShapeError(message);
}

std::int64_t state_count(const std::string& who,
                         const StateDict& state,
                         const std::string& name,
                         std::int64_t least) {
  const auto n = state_entry(who, state, name, {}, DType::i64).to_vector<std::int64_t>()[0];
  if (n < least)
    throw ValueError(fmt::format("{}: '{}' must be at least {}; got {}", who, name, least, n));
  return n;
}

}  // namespace capsfw::detail

#include "detail/run_state.hpp"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

namespace capsfw::detail {
namespace {

constexpr const char *kWhole = "run.whole", *kReal = "run.real", *kSums = "run.sums",
                     *kDrawn = "run.drawn", *kCurves = "run.curves";
constexpr const char *kEpochs = ".epoch", *kValues = ".value";

template <class T>
std::vector<T> values(const StateDict& state, const std::string& name, DType dtype) {
  const Tensor& t = state.at(name);
  if (t.dtype() != dtype || t.dim() != 1)
    throw ValueError(fmt::format("Run: '{}' must be a list of {} numbers; got {} {}", name,
                                 name_of(dtype), name_of(t.dtype()), t.shape().str()));
  return t.to_vector<T>();
}

template <class T, class Fields>
void assign(const StateDict& state, const std::string& name, DType dtype, const Fields& fields) {
  const auto v = values<T>(state, name, dtype);
  if (v.size() != fields.size())
    throw ValueError(
        fmt::format("Run: '{}' must hold {} numbers; got {}", name, fields.size(), v.size()));
  for (std::size_t i = 0; i < v.size(); ++i) *fields[i] = v[i];
}

}  // namespace

void RunState::save(StateDict& state) const {
  std::vector<std::int64_t> w;
  std::vector<double> r;
  for (const auto* v : whole(*this)) w.push_back(*v);
  for (const auto* v : real(*this)) r.push_back(*v);
  state.set(kWhole, from_vector(w));
  state.set(kReal, from_vector(r));
  for (const auto& [name, v] : sums)
    state.set(fmt::format("{}.{}", kSums, name), from_vector<double>({v}));
  for (const auto& [name, v] : drawn)
    state.set(fmt::format("{}.{}", kDrawn, name), from_vector<double>({v}));
  for (const auto& [name, c] : curves) {
    state.set(fmt::format("{}.{}{}", kCurves, name, kEpochs), from_vector(c.epoch));
    state.set(fmt::format("{}.{}{}", kCurves, name, kValues), from_vector(c.value));
  }
}

void RunState::load(const StateDict& state) {
  RunState s;
  assign<std::int64_t>(state, kWhole, DType::i64, whole(s));
  assign<double>(state, kReal, DType::f64, real(s));
  const auto each = [&](const char* group, auto& out) {
    const StateDict under = state.under(group);
    for (const auto& [name, t] : under) {
      const auto v = values<double>(under, name, DType::f64);
      if (v.size() != 1) throw ValueError(fmt::format("Run: '{}' must hold one number", name));
      out.emplace_back(name, v[0]);
    }
  };
  each(kSums, s.sums);
  each(kDrawn, s.drawn);
  const StateDict lines = state.under(kCurves);
  for (const auto& [name, t] : lines) {
    const auto v = values<double>(lines, name, DType::f64);
    const std::size_t dot = std::min(name.rfind('.'), name.size());
    Curve& c = s.curves[name.substr(0, dot)];
    (name.substr(dot) == kEpochs ? c.epoch : c.value) = v;
  }
  for (const auto& [name, c] : s.curves)
    if (c.epoch.size() != c.value.size())
      throw ValueError(fmt::format("Run: the curve '{}' must have a value for each epoch", name));
  *this = s;
}

}  // namespace capsfw::detail

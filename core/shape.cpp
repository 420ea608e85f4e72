#include <capsfw/core/shape.hpp>

#include <algorithm>

#include <fmt/format.h>

#include <capsfw/core/error.hpp>

namespace capsfw {

Dims::Dims(std::span<const std::int64_t> d) {
  if (d.size() > kMaxRank)
    throw ShapeError(fmt::format("shape: at most {} axes; got {}", kMaxRank, d.size()));
  std::copy(d.begin(), d.end(), d_.begin());
  rank_ = static_cast<int>(d.size());
}

Dims Dims::filled(int rank, std::int64_t value) {
  if (rank > kMaxRank)
    throw ShapeError(fmt::format("shape: at most {} axes; got {}", kMaxRank, rank));
  Dims d;
  std::fill_n(d.begin(), rank, value);
  d.rank_ = rank;
  return d;
}

namespace {

void check_position(int at, int end, const Dims& d, const char* what) {
  if (at < 0 || at >= end)
    throw ShapeError(
        fmt::format("shape: {} must lie in [0, {}) for {}; got {}", what, end, d.str(), at));
}

}  // namespace

std::int64_t Dims::back() const {
  if (rank_ == 0) throw ShapeError("shape: [] has no last axis");
  return (*this)[rank_ - 1];
}

void Dims::push_back(std::int64_t v) {
  if (rank_ == kMaxRank) throw ShapeError(fmt::format("shape: at most {} axes; got 9", kMaxRank));
  d_[static_cast<std::size_t>(rank_++)] = v;
}

void Dims::insert(int at, std::int64_t v) {
  check_position(at, rank_ + 1, *this, "the position of a new axis");
  push_back(v);
  std::rotate(begin() + at, end() - 1, end());
}

void Dims::erase(int at) {
  check_position(at, rank_, *this, "the axis to remove");
  std::rotate(begin() + at, begin() + at + 1, end());
  --rank_;
}

std::int64_t Dims::numel() const {
  std::int64_t n = 1;
  bool overflow = false;
  for (std::int64_t v : *this) {
    if (v == 0) return 0;
    overflow = overflow || __builtin_mul_overflow(n, v, &n);
  }
  if (overflow) throw ShapeError(fmt::format("shape: {} has more than 2^63 elements", str()));
  return n;
}

std::string Dims::str() const { return fmt::format("[{}]", fmt::join(begin(), end(), ", ")); }

Strides contiguous_strides(const Shape& shape) {
  Strides s = Dims::filled(shape.rank(), 1);
  for (int i = shape.rank() - 2; i >= 0; --i)
    // Only shapes without elements, whose strides nobody reads, are as large as that.
    if (__builtin_mul_overflow(s[i + 1], std::max<std::int64_t>(shape[i + 1], 1), &s[i])) s[i] = 1;
  return s;
}

Shape broadcast_shapes(const Shape& a, const Shape& b, std::string_view op) {
  const int rank = std::max(a.rank(), b.rank());
  Shape out = Dims::filled(rank, 1);
  for (int i = 1; i <= rank; ++i) {
    const std::int64_t da = i <= a.rank() ? a[a.rank() - i] : 1;
    const std::int64_t db = i <= b.rank() ? b[b.rank() - i] : 1;
    if (da != db && da != 1 && db != 1)
      throw ShapeError(
          fmt::format("{}: shapes must broadcast: equal or 1 on every axis counted from the last; "
                      "got a = {}, b = {} ({} vs {} on axis {})",
                      op, a.str(), b.str(), da, db, -i));
    out[rank - i] = da == 1 ? db : da;
  }
  return out;
}

bool broadcastable_to(const Shape& from, const Shape& to) {
  if (from.rank() > to.rank()) return false;
  for (int i = 1; i <= from.rank(); ++i) {
    const std::int64_t d = from[from.rank() - i];
    if (d != 1 && d != to[to.rank() - i]) return false;
  }
  return true;
}

Strides broadcast_strides(const Shape& shape, const Strides& strides, const Shape& to) {
  Strides s = Dims::filled(to.rank(), 0);
  const int lead = to.rank() - shape.rank();
  for (int i = 0; i < shape.rank(); ++i)
    s[lead + i] = shape[i] == 1 && to[lead + i] != 1 ? 0 : strides[i];
  return s;
}

int normalize_axis(std::int64_t axis, int rank, std::string_view op) {
  const std::int64_t a = axis < 0 ? axis + rank : axis;
  if (a < 0 || a >= rank)
    throw ShapeError(fmt::format("{}: axis must lie in [{}, {}) for rank {}; got {}", op, -rank,
                                 rank, rank, axis));
  return static_cast<int>(a);
}

Axes normalize_axes(const Axes& axes, int rank, std::string_view op) {
  Axes out;
  if (axes.empty()) {
    for (int i = 0; i < rank; ++i) out.push_back(i);
    return out;
  }
  for (std::int64_t a : axes) out.push_back(normalize_axis(a, rank, op));
  std::sort(out.begin(), out.end());
  if (std::adjacent_find(out.begin(), out.end()) != out.end())
    throw ShapeError(fmt::format("{}: axes must be distinct; got {}", op, axes.str()));
  return out;
}

}  // namespace capsfw

#pragma once
// Dims: up to eight integers by value. Shapes, strides and lists of axes are all Dims; being
// trivially copyable, they can be captured by the rules of the graph (docs/internals.md).

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace capsfw {

/// Largest rank of a tensor.
inline constexpr int kMaxRank = 8;

/// A list of at most kMaxRank integers, without heap storage. ShapeError when longer.
class Dims {
 public:
  Dims() = default;
  Dims(std::initializer_list<std::int64_t> d) : Dims(std::span(d.begin(), d.size())) {}
  Dims(const std::vector<std::int64_t>& d) : Dims(std::span(d)) {}
  explicit Dims(std::span<const std::int64_t> d);
  /// `rank` copies of `value`.
  static Dims filled(int rank, std::int64_t value);

  int rank() const { return rank_; }         ///< number of entries
  bool empty() const { return rank_ == 0; }  ///< rank 0?
  /// Entry i; not checked.
  std::int64_t& operator[](int i) { return d_[static_cast<std::size_t>(i)]; }
  /// Entry i; not checked.
  std::int64_t operator[](int i) const { return d_[static_cast<std::size_t>(i)]; }
  /// The last entry. ShapeError if there is none.
  std::int64_t back() const;
  const std::int64_t* begin() const { return d_.data(); }        ///< the first entry
  const std::int64_t* end() const { return d_.data() + rank_; }  ///< behind the last one
  std::int64_t* begin() { return d_.data(); }                    ///< the first entry
  std::int64_t* end() { return d_.data() + rank_; }              ///< behind the last one
  /// Appends; ShapeError beyond kMaxRank.
  void push_back(std::int64_t v);
  /// Inserts `v` before position `at`. ShapeError beyond kMaxRank or outside of [0, rank()].
  void insert(int at, std::int64_t v);
  /// Removes position `at`. ShapeError outside of [0, rank()).
  void erase(int at);
  /// Product of the entries (1 when empty): the number of elements of a shape.
  /// ShapeError if it does not fit into 63 bits.
  std::int64_t numel() const;
  /// "[2, 3]".
  std::string str() const;

  /// Equal rank and entries?
  friend bool operator==(const Dims& a, const Dims& b) {
    if (a.rank_ != b.rank_) return false;
    for (int i = 0; i < a.rank_; ++i)
      if (a[i] != b[i]) return false;
    return true;
  }

 private:
  std::array<std::int64_t, kMaxRank> d_{};
  int rank_ = 0;
};

using Shape = Dims;    ///< lengths of the axes of a tensor
using Strides = Dims;  ///< elements between neighbours along each axis
using Axes = Dims;     ///< axes; negative ones count from the last

/// Row-major strides in elements.
Strides contiguous_strides(const Shape& shape);

/// The common shape of NumPy broadcasting. ShapeError naming `op`, both shapes and the axis.
Shape broadcast_shapes(const Shape& a, const Shape& b, std::string_view op);

/// True if `from` can be expanded to `to`.
bool broadcastable_to(const Shape& from, const Shape& to);

/// Strides that read a tensor of `shape`, `strides` as if it had shape `to` (0 on expanded axes).
Strides broadcast_strides(const Shape& shape, const Strides& strides, const Shape& to);

/// Maps a possibly negative axis into [0, rank). ShapeError naming `op` when out of range.
int normalize_axis(std::int64_t axis, int rank, std::string_view op);

/// Sorted, distinct, non-negative axes; all of them when `axes` is empty. ShapeError on repeats.
Axes normalize_axes(const Axes& axes, int rank, std::string_view op);

}  // namespace capsfw

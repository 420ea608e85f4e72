#pragma once
// Tensor: a strided view of shared memory that may take part in a graph. Arithmetic and everything
// else that computes are free functions in ops/.

#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <capsfw/core/dtype.hpp>
#include <capsfw/core/shape.hpp>

namespace capsfw {

class Storage;
class Node;
class Tensor;
namespace detail {
struct TensorImpl;
}

using TensorList = std::vector<Tensor>;                            ///< several tensors, in order
using NamedTensors = std::vector<std::pair<std::string, Tensor>>;  ///< the same, with their names

/// A handle: copies share the data and the place in the graph. A default-constructed tensor is
/// undefined, which in lists of gradients means "none".
class Tensor {
 public:
  Tensor() = default;

  // ---- what it is ----
  bool defined() const { return impl_ != nullptr; }     ///< is there one?
  explicit operator bool() const { return defined(); }  ///< the same
  const Shape& shape() const;                           ///< lengths of the axes
  /// Distance between neighbours along each axis, in elements (may be 0 or negative).
  const Strides& strides() const;
  /// Number of axes.
  int dim() const { return shape().rank(); }
  /// Length of an axis; negative axes count from the last. ShapeError when out of range.
  std::int64_t size(int axis) const;
  std::int64_t numel() const { return shape().numel(); }  ///< number of elements
  DType dtype() const;                                    ///< element type
  /// True if the elements lie in row-major order without gaps.
  bool is_contiguous() const;

  // ---- its elements ----
  /// First element; neighbours are strides() apart. DTypeError unless T is the element type.
  template <class T>
  const T* data() const {
    return static_cast<const T*>(data_checked(dtype_v<T>));
  }
  /// The same for writing; counts as a change of the data (see Storage).
  template <class T>
  T* mutable_data() {
    return static_cast<T*>(mutable_data_checked(dtype_v<T>));
  }
  /// The only element, as a double. ShapeError unless numel() is 1.
  double item() const;
  /// All elements in row-major order, converted to T (float, double, std::int64_t or bool), as by
  /// cast_data().
  template <class T>
  std::vector<T> to_vector() const;
  /// Overwrites the elements with those of `source` (same shape, converted to this element type as
  /// by cast_data()). One of the two ways to change a tensor in place; never recorded. ShapeError
  /// if the shapes differ, ValueError where elements of this one share memory (expanded).
  Tensor& copy_(const Tensor& source);
  /// Sets every element. ValueError if the type has no such value (0.5 in i64, 2 in b8).
  Tensor& fill_(double value);

  // ---- its place in the graph ----
  /// True if gradients flow to or through this tensor.
  bool requires_grad() const;
  /// Marks a leaf as differentiable (or not). GradError on integer types and on results of ops.
  Tensor& requires_grad_(bool on = true);
  /// True unless an op of a recorded graph made it.
  bool is_leaf() const;
  /// The gradient that backward() left here; undefined if none.
  Tensor grad() const;
  /// Replaces the gradient; an undefined tensor clears it. ShapeError unless shape and element type
  /// are those of this tensor.
  void set_grad(const Tensor& g);
  /// The same data outside any graph. Shares memory and version.
  Tensor detach() const;
  /// Lets backward() leave a gradient at this intermediate tensor as well. GradError if no gradient
  /// flows to it.
  void retain_grad();
  /// Calls `hook` with the complete gradient of this tensor in every backward pass that reaches it;
  /// a defined result replaces the gradient. GradError if no gradient flows to it.
  void register_hook(std::function<Tensor(const Tensor&)> hook);
  /// The op that made it; null for leaves.
  std::shared_ptr<Node> grad_fn() const;

  // ---- for the library ----
  /// Exchanges data, shape and type of this very tensor, so that every handle sees the new value
  /// (Module::to). GradError unless it is a leaf, and if it requires a gradient and would become
  /// an integer.
  void set_data(const Tensor& value);
  /// The memory behind it, shared by views.
  const std::shared_ptr<Storage>& storage() const;
  /// Element offset of the first element in its storage.
  std::int64_t offset() const;
  /// Writes to this storage so far.
  std::uint64_t version() const;
  detail::TensorImpl* impl() const { return impl_.get(); }  ///< private to the library
  /// Private to the library.
  const std::shared_ptr<detail::TensorImpl>& impl_ptr() const { return impl_; }
  /// Private to the library.
  explicit Tensor(std::shared_ptr<detail::TensorImpl> impl) : impl_(std::move(impl)) {}

 private:
  const void* data_checked(DType t) const;
  void* mutable_data_checked(DType t);
  std::shared_ptr<detail::TensorImpl> impl_;
};

/// Uninitialised memory in row-major order.
Tensor empty(const Shape& shape, DType dtype = DType::f32);
/// Filled with 0, 1 or a value, which the type must hold, see fill_().
Tensor zeros(const Shape& shape, DType dtype = DType::f32);
Tensor ones(const Shape& shape, DType dtype = DType::f32);
/// See zeros.
Tensor full(const Shape& shape, double value, DType dtype = DType::f32);
/// A tensor of rank 0.
Tensor scalar(double value, DType dtype = DType::f32);
/// Of the shape and element type of x.
Tensor zeros_like(const Tensor& x);
Tensor ones_like(const Tensor& x);
/// Of the shape and element type of x.
Tensor full_like(const Tensor& x, double value);
/// Of the shape and element type of x.
Tensor empty_like(const Tensor& x);
/// start, start + step, ... while below `end` (above, for a negative step). ValueError if step is
/// 0, or the type does not hold start or step.
Tensor arange(double start, double end, double step = 1, DType dtype = DType::f32);
/// 0, 1, ..., n - 1 as i64.
Tensor arange(std::int64_t n);
/// `n` evenly spaced values from `start` to `end`, both included. DTypeError unless the type is
/// floating.
Tensor linspace(double start, double end, std::int64_t n, DType dtype = DType::f32);
/// Identity matrix [n, n]. ShapeError if n is negative.
Tensor eye(std::int64_t n, DType dtype = DType::f32);
/// A copy of `values` with the given shape (default: one axis). ShapeError if the count differs.
template <class T>
Tensor from_vector(const std::vector<T>& values, const Shape& shape);
template <class T>
Tensor from_vector(const std::vector<T>& values) {
  return from_vector(values, Shape{static_cast<std::int64_t>(values.size())});
}

/// A view of the same storage with other geometry, outside any graph (ops/layout.hpp has the
/// differentiable views). ShapeError unless there is one stride for each axis and all elements lie
/// in the memory of x.
Tensor strided_view(const Tensor& x,
                    const Shape& shape,
                    const Strides& strides,
                    std::int64_t offset);
/// A row-major copy unless it is one already; outside any graph.
Tensor contiguous_data(const Tensor& x);
/// The elements converted to `dtype`, row-major; outside any graph. Shares memory if nothing
/// changes. To i64 the fraction is dropped; ValueError for NaN, infinities and what is beyond 63
/// bits. To b8 all but 0 is true.
Tensor cast_data(const Tensor& x, DType dtype);

/// DTypeError unless x has a floating type.
void check_floating(const Tensor& x, std::string_view op);
/// DTypeError unless both have the same element type.
void check_same_type(const Tensor& a, const Tensor& b, std::string_view op);
/// `visit_float` of the type of x, whose shape the error then names.
template <class F>
decltype(auto) visit_float(const Tensor& x, std::string_view op, F&& f) {
  check_floating(x, op);
  return visit_float(x.dtype(), op, std::forward<F>(f));
}

/// Prints like NumPy: nested brackets, aligned columns, "..." above 1000 elements.
std::string to_string(const Tensor& x);
/// Writes to_string(x).
std::ostream& operator<<(std::ostream& os, const Tensor& x);

/// Tensors alive now, for tests that look for leaks.
std::int64_t live_tensors();

}  // namespace capsfw

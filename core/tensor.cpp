#include <capsfw/core/tensor.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/grad.hpp>

#include "strided.hpp"
#include "tensor_impl.hpp"

namespace capsfw {
namespace {

std::atomic<std::int64_t> g_live_tensors{0};

const detail::TensorImpl& checked(const std::shared_ptr<detail::TensorImpl>& impl) {
  if (!impl)
    throw ValueError(
        "tensor: an undefined tensor has no data (a default-constructed Tensor, or an absent "
        "gradient)");
  return *impl;
}

/// NaN, infinities and what lies beyond 63 bits have no integer: converting them is undefined.
template <class T>
void check_integers(const Tensor& x, std::string_view op) {
  const Tensor dense = contiguous_data(x);
  const T* p = dense.data<T>();
  const T* bad =
      std::find_if(p, p + x.numel(), [](T v) { return !(v >= -T(0x1p63) && v < T(0x1p63)); });
  if (bad != p + x.numel())
    throw ValueError(
        fmt::format("{}: {} has no value in i64; got x = {} {}, element {} in row-major order", op,
                    *bad, name_of(x.dtype()), x.shape().str(), bad - p));
}

/// y = x, element by element, in the type of y.
void convert(const Tensor& x, Tensor& y, std::string_view op) {
  if (y.dtype() == DType::i64 && is_floating(x.dtype()))
    visit_float(x.dtype(), "to", [&]<class X>() { check_integers<X>(x, op); });
  visit_any(y.dtype(), [&]<class Y>() {
    visit_any(x.dtype(),
              [&]<class X>() { detail::map1<Y, X>(x, y, [](X v) { return static_cast<Y>(v); }); });
  });
}

}  // namespace

namespace detail {

TensorImpl::TensorImpl(
    std::shared_ptr<Storage> s, const Shape& sh, const Strides& st, std::int64_t off, DType t)
    : storage(std::move(s)), shape(sh), strides(st), offset(off), dtype(t) {
  ++g_live_tensors;
}
TensorImpl::~TensorImpl() { --g_live_tensors; }

AutogradMeta& autograd_of(const Tensor& x) {
  auto& meta = x.impl()->autograd;
  if (!meta) meta = std::make_unique<AutogradMeta>();
  return *meta;
}

}  // namespace detail

std::int64_t live_tensors() { return g_live_tensors; }

void check_floating(const Tensor& x, std::string_view op) {
  if (!is_floating(x.dtype())) throw_not_floating(x.dtype(), op, x.shape().str());
}

void check_same_type(const Tensor& a, const Tensor& b, std::string_view op) {
  if (a.dtype() != b.dtype())
    throw DTypeError(
        fmt::format("{}: element types must be equal; got a = {} {}, b = {} {}. Hint: to(x, dtype)",
                    op, name_of(a.dtype()), a.shape().str(), name_of(b.dtype()), b.shape().str()));
}

const Shape& Tensor::shape() const { return checked(impl_).shape; }
const Strides& Tensor::strides() const { return checked(impl_).strides; }
std::int64_t Tensor::size(int axis) const { return shape()[normalize_axis(axis, dim(), "size")]; }
DType Tensor::dtype() const { return checked(impl_).dtype; }
const std::shared_ptr<Storage>& Tensor::storage() const { return checked(impl_).storage; }
std::int64_t Tensor::offset() const { return checked(impl_).offset; }
std::uint64_t Tensor::version() const { return storage()->version(); }

bool Tensor::is_contiguous() const {
  const auto& t = checked(impl_);
  if (t.shape.numel() == 0) return true;
  std::int64_t expected = 1;
  for (int i = t.shape.rank() - 1; i >= 0; --i) {
    if (t.shape[i] != 1 && t.strides[i] != expected) return false;
    expected *= t.shape[i];
  }
  return true;
}

const void* Tensor::data_checked(DType t) const {
  const auto& impl = checked(impl_);
  if (impl.dtype != t)
    throw DTypeError(
        fmt::format("data<T>: T must be the element type; the tensor is {} {}, T is {}",
                    name_of(impl.dtype), impl.shape.str(), name_of(t)));
  return static_cast<const std::byte*>(impl.storage->data()) +
         static_cast<std::size_t>(impl.offset) * size_of(t);
}

void* Tensor::mutable_data_checked(DType t) {
  const void* p = data_checked(t);
  impl_->storage->bump_version();
  return const_cast<void*>(p);
}

double Tensor::item() const {
  if (numel() != 1)
    throw ShapeError(fmt::format("item: takes a tensor of one element; got {}", shape().str()));
  return to_vector<double>()[0];
}

template <class T>
std::vector<T> Tensor::to_vector() const {
  const Tensor x = cast_data(*this, dtype_v<T>);
  const T* p = contiguous_data(x).template data<T>();
  return std::vector<T>(p, p + numel());
}
template std::vector<float> Tensor::to_vector<float>() const;
template std::vector<double> Tensor::to_vector<double>() const;
template std::vector<std::int64_t> Tensor::to_vector<std::int64_t>() const;
template std::vector<bool> Tensor::to_vector<bool>() const;

Tensor& Tensor::copy_(const Tensor& source) {
  if (source.shape() != shape())
    throw ShapeError(fmt::format("copy_: shapes must be equal; got target = {}, source = {}",
                                 shape().str(), source.shape().str()));
  for (int k = 0; k < dim(); ++k)
    if (strides()[k] == 0 && size(k) > 1 && numel() > 0)
      throw ValueError(fmt::format(
          "copy_: elements of an expanded target share memory; got target = {}, axis {} has stride "
          "0. Hint: contiguous(x)",
          shape().str(), k));
  // A source that shares the memory is copied first: rows run in parallel.
  const bool overlap = source.storage() == storage();
  convert(overlap ? empty_like(source).copy_(source) : source, *this, "copy_");
  return *this;
}

Tensor& Tensor::fill_(double value) {
  if (!holds(dtype(), value))
    throw ValueError(fmt::format("fill_: {} has no value in {}, the type of the tensor {}", value,
                                 name_of(dtype()), shape().str()));
  visit_any(dtype(), [&]<class T>() { detail::fill(*this, static_cast<T>(value)); });
  return *this;
}

bool Tensor::requires_grad() const {
  const auto& meta = checked(impl_).autograd;
  return meta && (meta->requires_grad || (meta->node && !meta->node->is_leaf()));
}

bool Tensor::is_leaf() const {
  const auto& meta = checked(impl_).autograd;
  return !meta || !meta->node || meta->node->is_leaf();
}

Tensor& Tensor::requires_grad_(bool on) {
  if (!is_leaf())
    throw GradError(
        "requires_grad_: only leaves can be switched; this tensor is the result of an op. Hint: "
        "detach() first");
  if (on && !is_floating(dtype()))
    throw GradError(
        fmt::format("requires_grad_: gradients exist for f32 and f64; got {}", name_of(dtype())));
  if (on || impl_->autograd) detail::autograd_of(*this).requires_grad = on;
  return *this;
}

Tensor Tensor::grad() const {
  const auto& meta = checked(impl_).autograd;
  return meta ? Tensor(meta->grad) : Tensor();
}

void Tensor::set_grad(const Tensor& g) {
  if (g.defined() && (g.shape() != shape() || g.dtype() != dtype()))
    throw ShapeError(fmt::format(
        "set_grad: the gradient must match its tensor; got tensor = {} {}, gradient = {} {}",
        shape().str(), name_of(dtype()), g.shape().str(), name_of(g.dtype())));
  detail::autograd_of(*this).grad = g.defined() ? g.detach().impl_ptr() : nullptr;
}

Tensor Tensor::detach() const {
  return Tensor(
      std::make_shared<detail::TensorImpl>(storage(), shape(), strides(), offset(), dtype()));
}

std::shared_ptr<Node> Tensor::grad_fn() const {
  return is_leaf() ? nullptr : impl_->autograd->node;
}

void Tensor::register_hook(std::function<Tensor(const Tensor&)> hook) {
  if (!requires_grad()) throw GradError("register_hook: the tensor requires no gradient");
  const auto node = is_leaf() ? Node::of_leaf(*this) : grad_fn();
  node->hooks().push_back({is_leaf() ? 0 : impl_->autograd->output, false, std::move(hook)});
}

void Tensor::retain_grad() {
  if (!requires_grad()) throw GradError("retain_grad: the tensor requires no gradient");
  if (is_leaf()) return;  // leaves always keep it
  const std::weak_ptr<detail::TensorImpl> self = impl_;
  grad_fn()->hooks().push_back({impl_->autograd->output, true, [self](const Tensor& g) {
                                  // A copy: others see the memory of a cotangent.
                                  if (Tensor t(self.lock()); t.defined())
                                    t.set_grad(empty_like(g).copy_(g));
                                  return Tensor();
                                }});
}

void Tensor::set_data(const Tensor& value) {
  if (!is_leaf()) throw GradError("set_data: only leaves can be exchanged");
  if (requires_grad() && !is_floating(value.dtype()))
    throw GradError(fmt::format(
        "set_data: this tensor requires a gradient, which exists for f32 and f64; got {} {}",
        name_of(value.dtype()), value.shape().str()));
  const Tensor v = contiguous_data(value);
  // A graph that saved the old data must notice: the version of a tensor never goes back.
  if (v.storage() == impl_->storage) v.storage()->bump_version();
  while (v.storage() != impl_->storage && v.version() <= version()) v.storage()->bump_version();
  impl_->storage = v.storage();
  impl_->shape = v.shape();
  impl_->strides = v.strides();
  impl_->offset = v.offset();
  impl_->dtype = v.dtype();
  if (impl_->autograd) {
    const std::shared_ptr<Node> old = std::exchange(impl_->autograd->node, nullptr);
    impl_->autograd->grad = nullptr;
    if (old && !old->hooks().empty()) Node::of_leaf(*this)->hooks() = old->hooks();
  }
}

namespace {

/// ShapeError unless every element of the view lies in the memory of x.
void check_view(const Tensor& x, const Shape& shape, const Strides& strides, std::int64_t offset) {
  bool good = shape.rank() == strides.rank();
  for (std::int64_t n : shape) good = good && n >= 0;
  const auto size = static_cast<std::int64_t>(x.storage()->bytes() / size_of(x.dtype()));
  if (good && shape.numel() > 0) {
    std::int64_t first = offset, last = offset;  // the lowest and the highest element
    for (int k = 0; k < shape.rank() && good; ++k) {
      std::int64_t reach = 0, &end = strides[k] < 0 ? first : last;
      good = !__builtin_mul_overflow(shape[k] - 1, strides[k], &reach) &&
             !__builtin_add_overflow(end, reach, &end);
    }
    good = good && first >= 0 && last < size;
  }
  if (!good)
    throw ShapeError(
        fmt::format("strided_view: one stride for each axis, and all elements in the memory of x, "
                    "which holds {}; got shape = {}, strides = {}, offset = {}",
                    size, shape.str(), strides.str(), offset));
}

}  // namespace

Tensor strided_view(const Tensor& x,
                    const Shape& shape,
                    const Strides& strides,
                    std::int64_t offset) {
  check_view(x, shape, strides, offset);
  return Tensor(
      std::make_shared<detail::TensorImpl>(x.storage(), shape, strides, offset, x.dtype()));
}

Tensor contiguous_data(const Tensor& x) {
  if (x.is_contiguous()) return x;
  Tensor y = empty(x.shape(), x.dtype(), "contiguous");
  convert(x, y, "contiguous");
  return y;
}

Tensor cast_data(const Tensor& x, DType dtype) {
  if (x.dtype() == dtype) return contiguous_data(x);
  Tensor y = empty(x.shape(), dtype, "to");
  convert(x, y, "to");
  return y;
}

}  // namespace capsfw

#pragma once
// Private: what a Tensor points to.

#include <capsfw/core/node.hpp>
#include <capsfw/core/storage.hpp>
#include <capsfw/core/tensor.hpp>

namespace capsfw::detail {

/// The part of a tensor that only differentiable tensors have.
struct AutogradMeta {
  bool requires_grad = false;        // leaves; results of ops have a node instead
  std::shared_ptr<Node> node;        // the op that made it, or the leaf node once it was used
  int output = 0;                    // which output of `node`
  std::shared_ptr<TensorImpl> grad;  // left by backward()
};

struct TensorImpl {
  TensorImpl(
      std::shared_ptr<Storage> s, const Shape& sh, const Strides& st, std::int64_t off, DType t);
  ~TensorImpl();
  TensorImpl(const TensorImpl&) = delete;
  TensorImpl& operator=(const TensorImpl&) = delete;

  std::shared_ptr<Storage> storage;
  Shape shape;
  Strides strides;
  std::int64_t offset;
  DType dtype;
  std::unique_ptr<AutogradMeta> autograd;  // null for plain data
};

/// The meta of `x`, made on demand.
AutogradMeta& autograd_of(const Tensor& x);

}  // namespace capsfw::detail

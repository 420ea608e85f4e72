// Must not compile: the rule of an op captures a tensor, which would keep memory alive and hide a
// dependency. With CAPSFW_ACCEPT the twin, which saves the tensor instead, must compile.

#include <capsfw/core/node.hpp>

using namespace capsfw;

Tensor scale(const Tensor& x, const Tensor& factor, const Tensor& y);

Tensor scale(const Tensor& x, const Tensor& factor, const Tensor& y) {
#ifdef CAPSFW_ACCEPT
  return record("scale", {x, factor}, y, Save::input1, [](const Saved& s, const Tensor& gy) {
    return TensorList{s.needs(0) ? gy : s.input(1), {}};
  });
#else
  return record("scale", {x}, y, Save::none,
                [factor](const Saved&, const Tensor& gy) { return gy.defined() ? gy : factor; });
#endif
}

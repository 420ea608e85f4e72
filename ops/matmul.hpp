#pragma once
// Matrix products. All of them run on one batched, strided product over OpenBLAS.

#include <string_view>

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// c = a · b over the last two axes, the others broadcast as a batch. A vector on the left counts
/// as a row, on the right as a column, and that axis disappears. vjp: ga = gc · bᵀ, gb = aᵀ · gc.
/// saves: a, b.   ShapeError unless a.size(-1) == b.size(-2).
Tensor matmul(const Tensor& a, const Tensor& b);

/// Two-operand einsum: "bij,bijd->bjd". Each letter at most once per operand; a letter of the
/// result must occur in an operand; letters missing from the result are summed. vjp: another einsum
/// per operand.   saves: a, b.   ShapeError naming the letter whose lengths differ.
Tensor einsum(std::string_view equation, const Tensor& a, const Tensor& b);

/// y = x · wᵀ + bias: x [..., in], w [out, in], bias [out] or undefined. vjp: gx = gy · w, gw = gyᵀ
/// · x, gbias = Σ gy over the rows.   saves: x, w. One op, so that neither a sum with the bias nor
/// a transposed gradient of w goes through memory.   ShapeError naming the layer's sizes.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

}  // namespace capsfw

#pragma once
// Triangles, the Cholesky factor, triangular systems. All act on the last two axes; the axes before
// are a batch. Made for the small matrices of Gaussian mixtures: plain loops, parallel over the
// batch.

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// The elements on and below diagonal `offset` (0 the main one, −1 the next below), zeros
/// elsewhere.   vjp: gx = tril(gy, offset).   saves: nothing.
Tensor tril(const Tensor& x, std::int64_t offset = 0);
/// The elements on and above diagonal `offset`, zeros elsewhere.   vjp: gx = triu(gy, offset).
Tensor triu(const Tensor& x, std::int64_t offset = 0);

/// Lower L with L Lᵀ = (a + aᵀ) / 2: of the symmetric part, so that the gradient is right for every
/// element of a [..., n, n].   vjp: ga = (S + Sᵀ) / 2, S = L⁻ᵀ Φ(Lᵀ gL) L⁻¹, where Φ takes the
/// lower triangle and halves the diagonal (Murray 2016, Differentiation of the Cholesky
/// decomposition, eq (10)).   saves: L.   ShapeError unless square; ValueError naming the matrix of
/// the batch that is not positive definite.
Tensor cholesky(const Tensor& a);

/// Options of triangular_solve().
struct SolveOptions {
  bool upper = false;      ///< the matrix is upper triangular
  bool transpose = false;  ///< solve with its transpose
};

/// x = L⁻¹ b (L⁻ᵀ b with transpose) for triangular L [..., n, n] and b [..., n, k]; batches
/// broadcast. The other triangle of L is not read; a zero on the diagonal gives infinities.
/// vjp: gb = L⁻ᵀ gx, gL = −tril(gb xᵀ), with transpose gb = L⁻¹ gx, gL = −tril(x gbᵀ); triu if
/// upper (Giles 2008, Collected matrix derivative results, section 2.3).   saves: L, x.
Tensor triangular_solve(const Tensor& l, const Tensor& b, SolveOptions options = {});

}  // namespace capsfw

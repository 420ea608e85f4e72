#include "em_plan.hpp"

#include <capsfw/core/dtype.hpp>

namespace capsfw::detail {
namespace {

Tensor or_nothing(const Tensor& x) { return x.defined() ? x : zeros({0}); }

Tensor or_undefined(const Tensor& x) { return x.shape() == Shape{0} ? Tensor() : x; }

/// x [rows, K, D] (K = 1 for an offset) to [K, blocks of D rows]: child i takes row[i].
template <class T>
Tensor to_blocks(const Tensor& x, const std::int64_t* row, std::int64_t i, std::int64_t pad) {
  constexpr std::int64_t kBlock = kernels::kEmBlock<T>;
  const std::int64_t d = x.size(-1), k = x.dim() == 3 ? x.size(1) : 1;
  Tensor out = zeros({k, d, pad}, x.dtype());
  const T* p = x.data<T>();
  T* q = out.mutable_data<T>();
  for (std::int64_t m = 0; m < i; ++m)
    for (std::int64_t e = 0; e < k * d; ++e)
      q[(e / d * pad + m / kBlock * kBlock) * d + e % d * kBlock + m % kBlock] =
          p[(row == nullptr ? m : row[m]) * k * d + e];
  return out;
}

}  // namespace

TensorList EmInputs::list() const {
  TensorList all;
  for (const Tensor* x :
       {&votes, &poses, &weight, &child, &row, &offset, &a_in, &beta_a, &beta_u, &mask, &lambdas})
    all.push_back(or_nothing(*x));
  return all;
}

EmInputs EmInputs::from(const TensorList& all) {
  EmInputs in;
  std::size_t k = 0;
  for (Tensor* x : {&in.votes, &in.poses, &in.weight, &in.child, &in.row, &in.offset, &in.a_in,
                    &in.beta_a, &in.beta_u, &in.mask, &in.lambdas})
    *x = or_undefined(all[k++]);
  return in;
}

bool fits_fused_em(const EmInputs& in) {
  const DType dtype = (in.votes.defined() ? in.votes : in.poses).dtype();
  if (!is_floating(dtype)) return false;
  for (const Tensor* x : {&in.votes, &in.poses, &in.weight, &in.a_in, &in.beta_a, &in.beta_u})
    if (x->defined() && (x->dtype() != dtype || x->numel() == 0)) return false;
  return true;
}

template <class T>
EmPlan<T> em_plan(const EmInputs& in, const EmSettings& o, TensorList& keep) {
  const auto floats = [&](const Tensor& x) -> const T* {
    if (!x.defined()) return nullptr;
    keep.push_back(contiguous_data(x));
    return keep.back().template data<T>();
  };
  const auto indices = [&](const Tensor& x) -> const std::int64_t* {
    if (!x.defined()) return nullptr;
    keep.push_back(contiguous_data(x));
    return keep.back().data<std::int64_t>();
  };
  EmPlan<T> n{};
  n.votes = floats(in.votes);
  n.poses = floats(in.poses);
  n.child = indices(in.child);
  if (in.votes.defined()) {
    n.samples = in.votes.size(0), n.patches = 1;
    n.i = in.votes.size(1), n.j = in.votes.size(2), n.d = in.votes.size(3);
  } else {
    n.patches = in.child.size(0), n.samples = in.poses.size(0) * n.patches;
    n.i = in.child.size(1), n.j = in.weight.size(1), n.d = in.poses.size(2);
    n.children = in.poses.size(1);
    n.side = std::llround(std::sqrt(static_cast<double>(n.d)));
    keep.push_back(zeros({n.d}, in.poses.dtype()));
    n.none = keep.back().template data<T>();
  }
  n.pad = (n.i + kernels::kEmBlock<T> - 1) / kernels::kEmBlock<T> * kernels::kEmBlock<T>;
  if (in.weight.defined()) {
    keep.push_back(to_blocks<T>(contiguous_data(in.weight), indices(in.row), n.i, n.pad));
    n.weight = keep.back().template data<T>();
  }
  if (in.offset.defined()) {
    keep.push_back(to_blocks<T>(contiguous_data(in.offset), nullptr, n.i, n.pad));
    n.offset = keep.back().template data<T>();
  }
  n.a_in = floats(in.a_in);
  n.beta_a = floats(in.beta_a);
  n.beta_u = floats(in.beta_u);
  if (in.mask.defined()) {
    keep.push_back(contiguous_data(in.mask));
    n.mask = keep.back().template data<bool>();
  }
  n.t = in.lambdas.numel();
  n.lambdas = in.lambdas.data<double>();
  n.variant = o.variant;
  n.eps = static_cast<T>(o.eps_var);
  n.activations =
      o.variant == EmVariant::v3 || o.variant == EmVariant::v4 || o.variant == EmVariant::hinton;
  return n;
}

template EmPlan<float> em_plan(const EmInputs&, const EmSettings&, TensorList&);
template EmPlan<double> em_plan(const EmInputs&, const EmSettings&, TensorList&);

}  // namespace capsfw::detail

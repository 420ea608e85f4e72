#include <capsfw/layers/penalty.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/per_sample.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/batch_statistics.hpp"

namespace capsfw {
namespace {

/// [B, ...] as [B, N].
Tensor rows(const Tensor& x) {
  const std::int64_t b = x.size(0);
  return reshape(x, {b, b == 0 ? 0 : x.numel() / b});
}

/// The mean over samples of rank 0; 0 for an empty batch.
Tensor batch_mean(const Tensor& total, std::int64_t batch) {
  return total * (1.0 / static_cast<double>(std::max<std::int64_t>(batch, 1)));
}

/// x, or a leaf with its numbers: what f is differentiated by.
Tensor differentiable(const Tensor& x) {
  return x.requires_grad() ? x : x.detach().requires_grad_();
}

/// ∇_{x_b} of values_b for all b; zeros where nothing depends on x.
Tensor sample_gradients(const Tensor& values,
                        const Tensor& x,
                        std::string_view who,
                        bool create_graph) {
  detail::check_per_sample(values, x, who);
  if (!x.requires_grad())
    throw GradError(fmt::format(
        "{}: x must require a gradient when the values are computed. Hint: x.requires_grad_()",
        who));
  detail::refuse_batch_statistics(values, x, who);
  if (!values.requires_grad()) return zeros_like(x);
  const Tensor g = grad(sum(values), x, {},
                        {.create_graph = create_graph, .retain_graph = true, .allow_unused = true});
  return g.defined() ? g : zeros_like(x);
}

/// Σ ‖g‖² over those that are defined.
Tensor square_norm(const TensorList& gradients, DType dtype) {
  Tensor total = scalar(0, dtype);
  for (const Tensor& g : gradients)
    if (g.defined()) total = total + sum(square(g));
  return total;
}

TensorList param_gradients(const Tensor& value, const TensorList& params, bool create_graph) {
  if (!value.requires_grad()) return TensorList(params.size());
  return grad({value}, params, {},
              {.create_graph = create_graph, .retain_graph = true, .allow_unused = true});
}

void check_step(const DifferenceOptions& o, std::string_view who) {
  if (!(o.step > 0 && std::isfinite(o.step)))
    throw ValueError(fmt::format("{}: the step must be positive; got {}", who, o.step));
}

/// A parameter that copy_ refuses would only show when it is put back, in a destructor.
void check_movable(const TensorList& params, std::string_view who) {
  for (std::size_t i = 0; i < params.size(); ++i)
    for (int k = 0; k < params[i].dim(); ++k)
      if (params[i].strides()[k] == 0 && params[i].size(k) > 1 && params[i].numel() > 0)
        throw ValueError(fmt::format(
            "{}: parameters are moved in place, and elements of an expanded one share memory; got "
            "params[{}] = {} {}, axis {} has stride 0. Hint: contiguous(x)",
            who, i, params[i].shape().str(), name_of(params[i].dtype()), k));
}

/// A number with the value of `value` and the gradient of `surrogate`.
Tensor with_gradient_of(const Tensor& value, const Tensor& surrogate) {
  return value.detach() + (surrogate - surrogate.detach());
}

/// Parameters that can be moved; they are back where they were when this ends.
class Moved {
 public:
  explicit Moved(const TensorList& params) : params_(params) {
    for (const Tensor& p : params) kept_.push_back(empty_like(p).copy_(p));
  }
  ~Moved() { to(0, {}); }
  Moved(const Moved&) = delete;
  Moved& operator=(const Moved&) = delete;

  /// kept + factor · direction.
  void to(double factor, const TensorList& direction) {
    const NoGradGuard no_grad;
    for (std::size_t i = 0; i < params_.size(); ++i)
      params_[i].copy_(!direction.empty() && direction[i].defined()
                           ? kept_[i] + direction[i] * factor
                           : kept_[i]);
  }

 private:
  TensorList params_, kept_;
};

}  // namespace

Tensor input_gradient_penalty(const Tensor& values, const Tensor& x) {
  const Tensor g = sample_gradients(values, x, "input_gradient_penalty", true);
  return batch_mean(sum(square(g)), x.size(0));
}

Tensor input_gradient_penalty(const SampleFunction& f, const Tensor& x) {
  const GradModeGuard recording(true);
  Tensor at = differentiable(x);
  const Tensor penalty = input_gradient_penalty(f(at), at);
  if (at.impl() != x.impl()) at.requires_grad_(false);  // nobody can ask for its gradient
  return penalty;
}

Tensor wgan_gp(const SampleFunction& critic,
               const Tensor& real,
               const Tensor& fake,
               const Tensor& mix) {
  if (real.dim() < 1 || real.shape() != fake.shape() || mix.shape() != Shape{real.size(0)})
    throw ShapeError(
        fmt::format("wgan_gp: real and fake of one shape [B, ...], mix [B]; got {}, {} and {}",
                    real.shape().str(), fake.shape().str(), mix.shape().str()));
  const GradModeGuard recording(true);
  Shape stretched = Dims::filled(real.dim(), 1);
  stretched[0] = real.size(0);
  const Tensor m = reshape(mix, stretched);
  const Tensor x = differentiable(m * real + (1.0 - m) * fake);
  const Tensor g = sample_gradients(critic(x), x, "wgan_gp", true);
  return batch_mean(sum(square(safe_norm(rows(g), {1}) - 1.0)), real.size(0));
}

Tensor wgan_gp(const SampleFunction& critic, const Tensor& real, const Tensor& fake, Rng& rng) {
  if (real.dim() < 1)
    throw ShapeError("wgan_gp: real and fake of one shape [B, ...]; got a number");
  return wgan_gp(critic, real, fake, rng.uniform({real.size(0)}, 0, 1, real.dtype()));
}

Tensor r1_penalty(const SampleFunction& critic, const Tensor& real) {
  return 0.5 * input_gradient_penalty(critic, real);
}

Tensor r2_penalty(const SampleFunction& critic, const Tensor& fake) {
  return 0.5 * input_gradient_penalty(critic, fake.detach());
}

Tensor jacobian_penalty(const Tensor& outputs, const Tensor& x, Rng& rng, int projections) {
  if (projections < 1)
    throw ValueError(fmt::format("jacobian_penalty: at least 1 projection; got {}", projections));
  if (outputs.dim() < 1)
    throw ShapeError("jacobian_penalty: outputs must be [B, ...]; got a number");
  const Tensor flat = rows(outputs);
  Tensor total = scalar(0, outputs.dtype());
  for (int k = 0; k < projections; ++k) {
    const Tensor p = safe_normalize(rng.normal(flat.shape(), 0, 1, outputs.dtype()));
    const Tensor g = sample_gradients(sum(flat * p, {1}), x, "jacobian_penalty", true);
    total = total + sum(square(g));
  }
  return batch_mean(total * (static_cast<double>(flat.size(1)) / projections), x.size(0));
}

Tensor param_gradient_penalty_batch(const Tensor& values, const TensorList& params) {
  if (values.dim() > 1)
    throw ShapeError(fmt::format("param_gradient_penalty_batch: values [B] or one number; got {}",
                                 values.shape().str()));
  const Tensor value = values.dim() == 0 ? values : batch_mean(sum(values), values.size(0));
  return square_norm(param_gradients(value, params, true), values.dtype());
}

Tensor param_gradient_penalty_per_sample(const BatchFunction& f,
                                         const TensorList& batch,
                                         const TensorList& params) {
  constexpr const char* kWho = "param_gradient_penalty_per_sample";
  for (const Tensor& t : batch)
    if (t.dim() < 1 || t.size(0) != batch[0].size(0))
      throw ShapeError(fmt::format("{}: one first axis for all tensors of the batch; got {} and {}",
                                   kWho, batch[0].shape().str(), t.shape().str()));
  if (batch.empty()) throw ShapeError(fmt::format("{}: an empty list of tensors", kWho));
  const GradModeGuard recording(true);
  Tensor total;
  for (std::int64_t b = 0; b < batch[0].size(0); ++b) {
    TensorList sample;
    for (const Tensor& t : batch) sample.push_back(narrow(t, 0, b, 1));
    const Tensor value = f(sample);
    detail::check_per_sample(value, sample[0], kWho);
    detail::refuse_batch_statistics(value, {}, kWho);
    const Tensor norm = square_norm(param_gradients(sum(value), params, true), value.dtype());
    total = total.defined() ? total + norm : norm;
  }
  if (!total.defined()) return scalar(0, params.empty() ? DType::f32 : params[0].dtype());
  return batch_mean(total, batch[0].size(0));
}

Tensor param_gradient_penalty_per_sample(const Tensor& values, Module& model) {
  const Tensor norms = per_sample_square_norms(values, model, {.create_graph = true});
  return batch_mean(sum(norms), values.size(0));
}

Tensor input_gradient_penalty_difference(const SampleFunction& f,
                                         const Tensor& values,
                                         const Tensor& x,
                                         DifferenceOptions o) {
  constexpr const char* kWho = "input_gradient_penalty_difference";
  check_step(o, kWho);
  const GradModeGuard recording(true);
  const Tensor at = x.detach(), g = sample_gradients(values, x, kWho, false);
  const Tensor length = norm(rows(g), {1});
  const Tensor direction = reshape(safe_normalize(rows(g)), x.shape()) * o.step;
  const Tensor ahead = f(at + direction);
  Tensor behind = values;
  if (o.central)
    behind = f(at - direction);
  else if (x.grad_fn())  // `values` lead to what x was made of, too
    behind = f(at);
  detail::check_per_sample(ahead, x, kWho);
  const Tensor slope = (ahead - behind) * length * (2 / (o.central ? 2 * o.step : o.step));
  return with_gradient_of(batch_mean(sum(square(length)), x.size(0)),
                          batch_mean(sum(slope), x.size(0)));
}

Tensor param_gradient_penalty_difference(const std::function<Tensor()>& loss,
                                         const TensorList& params,
                                         DifferenceOptions o) {
  check_step(o, "param_gradient_penalty_difference");
  check_movable(params, "param_gradient_penalty_difference");
  const GradModeGuard recording(true);
  const auto gradients = [&] {
    const Tensor value = loss();
    if (value.numel() != 1)
      throw ShapeError(
          fmt::format("param_gradient_penalty_difference: the loss must be one number; got {}",
                      value.shape().str()));
    return param_gradients(value, params, false);
  };
  const TensorList g = gradients();
  const DType dtype = params.empty() ? DType::f32 : params[0].dtype();
  const double value = square_norm(g, dtype).item();
  const double length = std::sqrt(value);
  Tensor surrogate = scalar(0, dtype);
  if (length > 0) {
    TensorList ahead, behind = g;
    {
      Moved moved(params);
      moved.to(o.step / length, g);
      ahead = gradients();
      if (o.central) {
        moved.to(-o.step / length, g);
        behind = gradients();
      }
    }
    const double factor = 2 * length / (o.central ? 2 * o.step : o.step);
    for (std::size_t i = 0; i < params.size(); ++i)
      if (ahead[i].defined() && behind[i].defined())
        surrogate = surrogate + sum(params[i] * ((ahead[i] - behind[i]).detach() * factor));
  }
  return with_gradient_of(scalar(value, dtype), surrogate);
}

}  // namespace capsfw

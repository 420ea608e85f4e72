#include <capsfw/layers/recurrent.hpp>

#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/debug.hpp>
#include <capsfw/layers/init.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/unary.hpp>

namespace capsfw {

RecurrentCell::RecurrentCell(const char* who,
                             std::int64_t gates,
                             std::int64_t in,
                             std::int64_t hidden,
                             bool has_cell,
                             Rng& rng)
    : who_(who), has_cell_(has_cell) {
  if (in < 1 || hidden < 1)
    throw ValueError(
        fmt::format("{}: sizes must be at least 1; got in = {}, hidden = {}", who, in, hidden));
  const double bound = 1 / std::sqrt(static_cast<double>(hidden));
  weight_ih = param("weight_ih", init::uniform({gates * hidden, in}, bound, rng));
  weight_hh = param("weight_hh", init::uniform({gates * hidden, hidden}, bound, rng));
  bias_ih = param("bias_ih", init::uniform({gates * hidden}, bound, rng));
  bias_hh = param("bias_hh", init::uniform({gates * hidden}, bound, rng));
}

Tensor RecurrentCell::project(const Tensor& x) const { return linear(x, weight_ih, bias_ih); }

CellState RecurrentCell::zero_state(std::int64_t batch) const {
  const Tensor zero = zeros({batch, hidden()}, weight_hh.dtype());
  return {zero, has_cell_ ? zero : Tensor()};
}

CellState RecurrentCell::operator()(const Tensor& x, const CellState& state) {
  if (x.dim() != 2 || x.size(1) != in())
    throw ShapeError(fmt::format("{}: x must be [B, {}]; got {}", who_, in(), x.shape().str()));
  const Shape shape{x.size(0), hidden()};
  for (const Tensor& t : {state.h, state.c})
    if (t.defined() && t.shape() != shape)
      throw ShapeError(fmt::format("{}: the state must be {} for x {}; got {}", who_, shape.str(),
                                   x.shape().str(), t.shape().str()));
  CellState before = zero_state(x.size(0));
  if (state.h.defined()) before.h = state.h;
  if (state.c.defined()) before.c = state.c;
  return step(project(x), before);
}

CellState LSTMCell::step(const Tensor& projected, const CellState& state) {
  const Tensor gates = projected + linear(state.h, weight_hh, bias_hh);
  const TensorList part = split(gates, hidden(), 1);
  const Tensor c = sigmoid(part[1]) * state.c + sigmoid(part[0]) * tanh(part[2]);
  return {sigmoid(part[3]) * tanh(c), c};
}

CellState GRUCell::step(const Tensor& projected, const CellState& state) {
  const TensorList p = split(projected, hidden(), 1),
                   q = split(linear(state.h, weight_hh, bias_hh), hidden(), 1);
  const Tensor r = sigmoid(p[0] + q[0]), z = sigmoid(p[1] + q[1]), n = tanh(p[2] + r * q[2]);
  return {n + z * (state.h - n)};
}

void RecurrentLayer::add(std::unique_ptr<RecurrentCell> forward,
                         std::unique_ptr<RecurrentCell> backward) {
  forward_ = std::move(forward);
  child("forward", *forward_);
  backward_ = std::move(backward);
  if (backward_) child("backward", *backward_);
}

RecurrentOutput RecurrentLayer::run(const Tensor& x, const Tensor& mask) {
  if (x.dim() != 3 || x.size(2) != forward_->in())
    throw ShapeError(fmt::format("recurrent layer: x must be [B, L, {}]; got {}", forward_->in(),
                                 x.shape().str()));
  if (mask.defined() && (mask.dtype() != DType::b8 || mask.shape() != Shape{x.size(0), x.size(1)}))
    throw ShapeError(fmt::format("recurrent layer: the mask must be b8 [{}, {}]; got {} {}",
                                 x.size(0), x.size(1), name_of(mask.dtype()), mask.shape().str()));
  const Scope scope(name());
  const std::int64_t length = x.size(1);
  const auto direction = [&](RecurrentCell& cell, bool backward) -> RecurrentOutput {
    const TensorList inputs = unbind(cell.project(x), 1);
    CellState state = cell.zero_state(x.size(0));
    TensorList states(inputs.size());
    for (std::int64_t k = 0; k < length; ++k) {
      const std::int64_t t = backward ? length - 1 - k : k;
      const CellState next = cell.step(inputs[static_cast<std::size_t>(t)], state);
      if (!mask.defined()) {
        state = next;
      } else {
        const Tensor word = unsqueeze(select(mask, 1, t), 1);
        state = {where(word, next.h, state.h),
                 next.c.defined() ? where(word, next.c, state.c) : Tensor()};
      }
      states[static_cast<std::size_t>(t)] = state.h;
    }
    return {states.empty() ? zeros({x.size(0), 0, cell.hidden()}, x.dtype()) : stack(states, 1),
            state.h};
  };
  RecurrentOutput out = direction(*forward_, false);
  if (backward_) {
    const RecurrentOutput back = direction(*backward_, true);
    out = {cat({out.states, back.states}, 2), cat({out.last, back.last}, 1)};
  }
  if (mask.defined()) out.states = where(unsqueeze(mask, 2), out.states, 0.0);
  set_output_shape(out.states.shape());
  return out;
}

LSTM::LSTM(std::int64_t in, std::int64_t hidden, Rng& rng, RecurrentOptions options) {
  auto forward = std::make_unique<LSTMCell>(in, hidden, rng);
  add(std::move(forward),
      options.bidirectional ? std::make_unique<LSTMCell>(in, hidden, rng) : nullptr);
}

GRU::GRU(std::int64_t in, std::int64_t hidden, Rng& rng, RecurrentOptions options) {
  auto forward = std::make_unique<GRUCell>(in, hidden, rng);
  add(std::move(forward),
      options.bidirectional ? std::make_unique<GRUCell>(in, hidden, rng) : nullptr);
}

}  // namespace capsfw

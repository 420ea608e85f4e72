#pragma once
// Recurrent layers. B sequences of L inputs, `in` and `hidden` the sizes of an input and of a
// state. Names, shapes and the order of the gates are PyTorch's.

#include <memory>

#include <capsfw/core/random.hpp>
#include <capsfw/layers/module.hpp>

namespace capsfw {

/// What a recurrent cell carries from step to step.
struct CellState {
  Tensor h;       ///< [B, hidden]
  Tensor c = {};  ///< [B, hidden], LSTM only
};

/// One step of a recurrence. Weights, with G gates: weight_ih [G·hidden, in], weight_hh [G·hidden,
/// hidden], bias_ih and bias_hh [G·hidden]; all start uniform in ±1/√hidden.
class RecurrentCell : public Module {
 public:
  /// x [B, in] -> the next state; an undefined state counts as zeros. ShapeError unless they fit.
  CellState operator()(const Tensor& x, const CellState& state = {});
  /// The same given W_ih x + b_ih [B, G·hidden], which can be made for all steps at once.
  virtual CellState step(const Tensor& projected, const CellState& state) = 0;
  /// W_ih x + b_ih of x [..., in].
  Tensor project(const Tensor& x) const;
  /// Zeros for a batch.
  CellState zero_state(std::int64_t batch) const;
  std::int64_t in() const { return weight_ih.size(1); }      ///< size of an input
  std::int64_t hidden() const { return weight_hh.size(1); }  ///< size of a state

  Tensor weight_ih, weight_hh, bias_ih, bias_hh;  ///< parameters, gates stacked

 protected:
  RecurrentCell(const char* who,
                std::int64_t gates,
                std::int64_t in,
                std::int64_t hidden,
                bool has_cell,
                Rng& rng);

 private:
  const char* who_;
  bool has_cell_;  ///< a state has c, too
};

/// i, f, o = sigmoid, g = tanh of the four parts (i, f, g, o) of W_ih x + b_ih + W_hh h + b_hh;
///   c' = f c + i g,   h' = o tanh(c').
/// Hochreiter, Schmidhuber 1997, with the forget gate of Gers, Schmidhuber, Cummins 2000.
class LSTMCell : public RecurrentCell {
 public:
  LSTMCell(std::int64_t in, std::int64_t hidden, Rng& rng)
      : RecurrentCell("LSTMCell", 4, in, hidden, true, rng) {}
  CellState step(const Tensor& projected, const CellState& state) override;
};

/// With the three parts (r, z, n) of p = W_ih x + b_ih and of q = W_hh h + b_hh:
///   r = sigmoid(p_r + q_r),  z = sigmoid(p_z + q_z),  n = tanh(p_n + r q_n),
///   h' = (1 − z) n + z h.
/// Cho et al. 2014, with the reset gate behind the product, as in cuDNN and PyTorch.
class GRUCell : public RecurrentCell {
 public:
  GRUCell(std::int64_t in, std::int64_t hidden, Rng& rng)
      : RecurrentCell("GRUCell", 3, in, hidden, false, rng) {}
  CellState step(const Tensor& projected, const CellState& state) override;
};

/// Options of LSTM and GRU.
struct RecurrentOptions {
  bool bidirectional = false;  ///< read from both ends
};

/// What a recurrent layer returns; the backward direction, if there is one, behind the forward one.
struct RecurrentOutput {
  Tensor states;  ///< h after every word [B, L, hidden], or [B, L, 2 hidden]; 0 where there is none
  Tensor last;    ///< h after the last word of each direction [B, hidden], or [B, 2 hidden]
};

/// A cell over all words of sequences. Where there is no word the state stays as it is, so that the
/// backward direction starts at the last word of each sequence.
class RecurrentLayer : public Layer {
 public:
  /// x [B, L, in]; mask b8 [B, L], true where there is a word, undefined: everywhere. ShapeError
  /// unless they fit.
  RecurrentOutput run(const Tensor& x, const Tensor& mask = {});
  /// Numbers of a state, of both directions.
  std::int64_t size() const { return forward_->hidden() * (backward_ ? 2 : 1); }
  /// The cell of a direction.
  RecurrentCell& cell(bool backward = false) { return backward ? *backward_ : *forward_; }

 protected:
  RecurrentLayer() = default;
  /// Child "forward" and, unless null, "backward".
  void add(std::unique_ptr<RecurrentCell> forward, std::unique_ptr<RecurrentCell> backward);
  /// The states.
  Tensor forward(const Tensor& x) override { return run(x).states; }

 private:
  std::unique_ptr<RecurrentCell> forward_, backward_;
};

/// Long short-term memory over sequences, see LSTMCell and RecurrentLayer.
class LSTM : public RecurrentLayer {
 public:
  LSTM(std::int64_t in, std::int64_t hidden, Rng& rng, RecurrentOptions options = {});
};

/// Gated recurrent units over sequences, see GRUCell and RecurrentLayer.
class GRU : public RecurrentLayer {
 public:
  GRU(std::int64_t in, std::int64_t hidden, Rng& rng, RecurrentOptions options = {});
};

}  // namespace capsfw

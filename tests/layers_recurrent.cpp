// Recurrent cells and layers: values of PyTorch, padding, derivatives.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/recurrent.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "gradients.hpp"
#include "support.hpp"

using namespace capsfw;
using capsfw::testing::contains;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;

namespace {

/// 0.6 sin(1.3 k + seed): numbers that another program can make, too.
Tensor wave(const Shape& shape, double seed) {
  std::vector<double> x(static_cast<std::size_t>(shape.numel()));
  for (std::size_t k = 0; k < x.size(); ++k)
    x[k] = 0.6 * std::sin(1.3 * static_cast<double>(k) + seed);
  return from_vector(x, shape);
}

/// Waves with seeds 1, 2, ... in PyTorch's order of the parameters.
void fill_with_waves(RecurrentLayer& layer) {
  layer.to(DType::f64);
  double seed = 0;
  for (Tensor p : layer.parameters()) p.copy_(wave(p.shape(), ++seed));
}

/// True for the first words [B, L].
Tensor first(const std::vector<std::int64_t>& counts, std::int64_t length) {
  std::vector<bool> mask;
  for (const std::int64_t n : counts)
    for (std::int64_t t = 0; t < length; ++t) mask.push_back(t < n);
  return from_vector(mask, {static_cast<std::int64_t>(counts.size()), length});
}

template <class L>
std::unique_ptr<L> make(std::int64_t in, std::int64_t hidden, bool both) {
  Rng rng(4);
  auto layer = std::make_unique<L>(in, hidden, rng, RecurrentOptions{.bidirectional = both});
  layer->to(DType::f64);
  return layer;
}

}  // namespace

// Values below are those of torch.nn.LSTM and torch.nn.GRU (PyTorch 1.13, float64,
// bidirectional=True) on a packed batch of 3 and 2 words.
TEST_CASE_TEMPLATE("recurrent layers agree with PyTorch", L, LSTM, GRU) {
  constexpr bool kLstm = std::is_same_v<L, LSTM>;
  const auto layer = make<L>(2, 2, true);
  fill_with_waves(*layer);
  const Tensor x = wave({2, 3, 2}, 20).requires_grad_();
  const RecurrentOutput out = layer->run(x, first({3, 2}, 3));
  const std::vector<double>
      states = kLstm ? std::vector<double>{0.0392542811494744,
                                           -0.0178959780399023,
                                           -0.0168080188344153,
                                           0.143297449766563,
                                           0.102011841354156,
                                           -0.107590909705844,
                                           0.0980184719990799,
                                           0.207842118339066,
                                           0.0839512781724749,
                                           -0.145145324573815,
                                           -0.0652070924228595,
                                           0.134165967988992,
                                           0.0524767289004608,
                                           -0.0638991255572151,
                                           0.129784174014691,
                                           0.166258884334028,
                                           0.102787929142747,
                                           -0.134133365389395,
                                           -0.0153462112011745,
                                           0.167889540987676,
                                           0,
                                           0,
                                           0,
                                           0}
                     : std::vector<double>{0.173978286320336,
                                           0.0708388842856651,
                                           -0.231902599569509,
                                           0.730139296360425,
                                           0.450850724617782,
                                           -0.0854421010858685,
                                           -0.012896198490684,
                                           0.674482902682056,
                                           0.490955720420312,
                                           -0.0346504259358503,
                                           -0.174927475821257,
                                           0.49527870295425,
                                           0.248260121648079,
                                           -0.0328826526393696,
                                           0.041410664306288,
                                           0.636348914840704,
                                           0.477603946696233,
                                           -0.152980399451867,
                                           -0.0715261548449081,
                                           0.572162596902122,
                                           0,
                                           0,
                                           0,
                                           0},
      last = kLstm
                 ? std::vector<double>{0.0839512781724749, -0.145145324573815, -0.0168080188344153,
                                       0.143297449766563,  0.102787929142747,  -0.134133365389395,
                                       0.129784174014691,  0.166258884334028}
                 : std::vector<double>{0.490955720420312, -0.0346504259358503, -0.231902599569509,
                                       0.730139296360425, 0.477603946696233,   -0.152980399451867,
                                       0.041410664306288, 0.636348914840704},
      gx = kLstm ? std::vector<double>{-0.0122865916241426,
                                       -0.234814214442372,
                                       0.0264284261326608,
                                       0.0102973179476713,
                                       -0.044346589385457,
                                       0.0122437077537595,
                                       0.0128971498375275,
                                       -0.195149296278704,
                                       0.00553913410062551,
                                       -0.0458244747759634,
                                       0,
                                       0}
                 : std::vector<double>{-0.330915802780778,
                                       0.00972448077564415,
                                       -0.561394093440837,
                                       0.171343296060232,
                                       -0.376279885658792,
                                       0.173054724264766,
                                       -0.500427713129961,
                                       -0.0160428503391844,
                                       -0.294314674316392,
                                       -0.148213997420689,
                                       0,
                                       0},
      gw = kLstm ? std::vector<double>{-0.00262127632529843,  0.00601120123958996,
                                       -9.07324723717253e-05, 0.0170055795653872,
                                       0.00248046710489657,   0.00324477094416827,
                                       0.000842334322393178,  0.010855252007899,
                                       0.0286758947586613,    0.183670120562295,
                                       0.00167526453304026,   0.0292796021100315,
                                       -0.00142384161699968,  0.00925918041697902,
                                       0.00990420246850313,   0.0591710784705766}
                 : std::vector<double>{-0.000713780342723615, 0.00478443619115142,
                                       -0.0484926339057074,   0.291223253191413,
                                       0.0035501772182721,    -0.00828897170273772,
                                       0.0195294196401041,    -0.103632337538353,
                                       -0.0435530913124847,   0.482633678322279,
                                       -0.125680079570906,    0.84743337122848},
      gb = kLstm ? std::vector<double>{0.135436539050754,   -0.119354052835747, 0.0370315382152353,
                                       -0.0352162662437808, 0.23842410801117,   0.225144288251736,
                                       0.18666493770422,    -0.0728120311015526}
                 : std::vector<double>{0.0790387093811316, -0.0619036733586092, -0.727981991282312,
                                       0.0725131696823282, 2.94491301860523,    0.848988614276797};
  CHECK(max_difference(out.states, from_vector(states, {2, 3, 4})) < 1e-13);
  CHECK(max_difference(out.last, from_vector(last, {2, 4})) < 1e-13);
  backward(sum(square(out.states)) + sum(out.last));
  CHECK(max_difference(x.grad(), from_vector(gx, {2, 3, 2})) < 1e-13);
  const RecurrentCell &forward = layer->cell(), &reverse = layer->cell(true);
  CHECK(max_difference(reverse.weight_hh.grad(), from_vector(gw, reverse.weight_hh.shape())) <
        1e-13);
  CHECK(max_difference(forward.bias_ih.grad(), from_vector(gb, forward.bias_ih.shape())) < 1e-13);
}

TEST_CASE("recurrent cells by hand") {
  Rng rng(1);
  LSTMCell lstm(1, 1, rng);
  GRUCell gru(1, 1, rng);
  for (RecurrentCell* cell :
       {static_cast<RecurrentCell*>(&lstm), static_cast<RecurrentCell*>(&gru)}) {
    cell->to(DType::f64);
    for (Tensor p : cell->parameters()) p.copy_(wave(p.shape(), 3));
  }
  const auto w = [](int gate) { return 0.6 * std::sin(1.3 * gate + 3); };  // all four tensors
  const auto sig = [](double v) { return 1 / (1 + std::exp(-v)); };
  const double x = 0.7, h = -0.4, c = 0.3;
  const auto p = [&](int gate) { return w(gate) * x + w(gate); };
  const auto q = [&](int gate) { return w(gate) * h + w(gate); };
  const auto one = [](double v) { return full({1, 1}, v, DType::f64); };

  const CellState l = lstm(one(x), {one(h), one(c)});
  const double c1 = sig(p(1) + q(1)) * c + sig(p(0) + q(0)) * std::tanh(p(2) + q(2));
  CHECK(l.c.item() == doctest::Approx(c1).epsilon(1e-14));
  CHECK(l.h.item() == doctest::Approx(sig(p(3) + q(3)) * std::tanh(c1)).epsilon(1e-14));

  const CellState g = gru(one(x), {one(h)});
  const double r = sig(p(0) + q(0)), z = sig(p(1) + q(1)), n = std::tanh(p(2) + r * q(2));
  CHECK(g.h.item() == doctest::Approx((1 - z) * n + z * h).epsilon(1e-14));
  CHECK_FALSE(g.c.defined());

  // No state is a state of zeros.
  CHECK(same_bits(lstm(one(x)).h, lstm(one(x), {one(0), one(0)}).h));
  CHECK(same_bits(gru(one(x)).h, gru(one(x), {one(0)}).h));
}

TEST_CASE_TEMPLATE("recurrent layers: padding changes nothing", L, LSTM, GRU) {
  const auto layer = make<L>(3, 4, true);
  Rng rng(7);
  const Tensor x = rng.normal({2, 5, 3}, 0, 1, DType::f64);
  const RecurrentOutput out = layer->run(x, first({5, 3}, 5)),
                        alone = layer->run(narrow(narrow(x, 0, 1, 1), 1, 0, 3));
  CHECK(max_difference(narrow(narrow(out.states, 0, 1, 1), 1, 0, 3), alone.states) < 1e-15);
  CHECK(max_difference(narrow(out.last, 0, 1, 1), alone.last) < 1e-15);
  CHECK(max_difference(narrow(narrow(out.states, 0, 1, 1), 1, 3, 2),
                       zeros({1, 2, 8}, DType::f64)) == 0);
  // What stands behind the end does not matter, and gets no gradient.
  Tensor other = contiguous(x.detach());
  narrow(select(other, 0, 1), 0, 3, 2).copy_(full({2, 3}, 9, DType::f64));
  other.requires_grad_();
  const RecurrentOutput same = layer->run(other, first({5, 3}, 5));
  CHECK(same_bits(same.states, out.states));
  backward(sum(square(same.states)) + sum(same.last));
  CHECK(max_difference(narrow(select(other.grad(), 0, 1), 0, 3, 2), zeros({2, 3}, DType::f64)) ==
        0);
  CHECK(capsfw::testing::largest(select(other.grad(), 0, 0)) > 0);
  // A full mask is no mask.
  CHECK(same_bits(layer->run(x, first({5, 5}, 5)).last, layer->run(x).last));
}

TEST_CASE_TEMPLATE("recurrent layers: the last state is that of each direction", L, LSTM, GRU) {
  const auto layer = make<L>(3, 2, true);
  const Tensor x = wave({1, 4, 3}, 2);
  const RecurrentOutput out = layer->run(x);
  CHECK(max_difference(narrow(out.last, 1, 0, 2), narrow(select(out.states, 1, 3), 1, 0, 2)) == 0);
  CHECK(max_difference(narrow(out.last, 1, 2, 2), narrow(select(out.states, 1, 0), 1, 2, 2)) == 0);
  const auto single = make<L>(3, 2, false);  // the same weights in the forward direction
  CHECK(max_difference(single->run(x).last, narrow(out.last, 1, 0, 2)) == 0);
  CHECK(single->size() == 2);
  CHECK(layer->size() == 4);
}

TEST_CASE_TEMPLATE("recurrent layers: first and second derivatives", L, LSTM, GRU) {
  const auto layer = make<L>(2, 2, true);
  const Tensor mask = first({3, 1}, 3);
  TensorList inputs{wave({2, 3, 2}, 5)};
  for (const Tensor& p : layer->parameters()) inputs.push_back(p.detach());
  const auto f = [&](const TensorList& in) {
    // Stand-ins for the parameters, in the cells themselves.
    std::size_t k = 1;
    TensorList before;
    for (const bool back : {false, true}) {
      RecurrentCell& cell = layer->cell(back);
      for (Tensor* t : {&cell.weight_ih, &cell.weight_hh, &cell.bias_ih, &cell.bias_hh}) {
        before.push_back(*t);
        *t = in[k++];
      }
    }
    const RecurrentOutput out = layer->run(in[0], mask);
    k = 0;
    for (const bool back : {false, true}) {
      RecurrentCell& cell = layer->cell(back);
      for (Tensor* t : {&cell.weight_ih, &cell.weight_hh, &cell.bias_ih, &cell.bias_hh})
        *t = before[k++];
    }
    return TensorList{out.states, out.last};
  };
  testing::check_gradients(f, inputs);
}

TEST_CASE("recurrent layers: names, sizes, errors") {
  Rng rng(1);
  LSTM lstm(3, 4, rng, {.bidirectional = true});
  std::vector<std::string> names;
  for (const auto& [name, p] : lstm.named_parameters()) names.push_back(name);
  CHECK(names == std::vector<std::string>{"forward.weight_ih", "forward.weight_hh",
                                          "forward.bias_ih", "forward.bias_hh",
                                          "backward.weight_ih", "backward.weight_hh",
                                          "backward.bias_ih", "backward.bias_hh"});
  CHECK(lstm.cell().weight_ih.shape() == Shape{16, 3});
  GRU gru(3, 4, rng);
  CHECK(gru.cell().weight_hh.shape() == Shape{12, 4});
  CHECK(gru.run(zeros({2, 0, 3})).states.shape() == Shape{2, 0, 4});
  CHECK(max_difference(gru.run(zeros({2, 0, 3})).last, zeros({2, 4})) == 0);
  CHECK(gru.run(zeros({0, 2, 3})).last.shape() == Shape{0, 4});
  CHECK(contains(message_of<ShapeError>([&] { gru.run(zeros({2, 5, 4})); }), "[B, L, 3]"));
  CHECK(contains(message_of<ShapeError>([&] {
                   gru.run(zeros({2, 5, 3}), zeros({2, 4}, DType::b8));
                 }),
                 "b8 [2, 5]"));
  CHECK(contains(message_of<ShapeError>([&] { gru.run(zeros({2, 5, 3}), zeros({2, 5})); }), "b8"));
  CHECK(contains(message_of<ShapeError>([&] { lstm.cell()(zeros({2, 4})); }), "LSTMCell"));
  CHECK(contains(message_of<ShapeError>([&] {
                   lstm.cell()(zeros({2, 3}), {zeros({2, 3})});
                 }),
                 "state must be [2, 4]"));
  CHECK_THROWS_AS(GRU(0, 4, rng), ValueError);
  CHECK_THROWS_AS(LSTM(3, 0, rng), ValueError);
}

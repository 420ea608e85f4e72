// Networks for sentences: words, padding, errors, baselines.

#include <cmath>

#include <doctest/doctest.h>

#include <capsfw/core/grad.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/layers/text_nets.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>
#include <capsfw/optim/adam.hpp>

#include "support.hpp"

using namespace capsfw;
using capsfw::testing::contains;
using capsfw::testing::largest;
using capsfw::testing::max_difference;
using capsfw::testing::message_of;
using capsfw::testing::same_bits;
using capsfw::testing::Threads;

namespace {

constexpr std::int64_t kWords = 30, kDim = 6, kClasses = 3;

/// Networks of every kind, each from the same seed.
struct NetKind {
  const char* name;
  std::function<std::unique_ptr<TextClassifier>(const Tensor& table)> make;
};

template <class Net, class Options>
NetKind kind(const char* name, const Options& options) {
  return {name, [options](const Tensor& table) -> std::unique_ptr<TextClassifier> {
            Rng rng(5);
            return std::make_unique<Net>(table, kClasses, options, rng);
          }};
}

TextCapsNetOptions tiny(std::vector<std::int64_t> ngrams = {3}) {
  return {.ngrams = std::move(ngrams),
          .filters = 5,
          .types = 3,
          .dim = 4,
          .window_types = 2,
          .words = WordTable::tuned};
}

std::vector<NetKind> net_kinds() {
  TextCapsNetOptions a = tiny(), b = tiny({2, 3, 4}), amended = tiny(), em = tiny(), fixed = tiny();
  a.noise_class = true;
  a.keep = 0.5;
  b.stride = 2;
  b.words = WordTable::both;
  amended.routing = "dynamic:leaky,activation";
  em.routing = "em:data_per_parent=0";  // λ does not follow the number of children
  fixed.shared_classes = fixed.shared_windows = false;
  fixed.length = 16;
  return {kind<TextCapsNet>("capsules A, noise class, partial sampling", a),
          kind<TextCapsNet>("capsules B, stride 2, two tables", b),
          kind<TextCapsNet>("capsules, leaky, amended", amended),
          kind<TextCapsNet>("capsules, em", em),
          kind<TextCapsNet>("capsules, weights for every place", fixed),
          kind<TextCnn>("n-grams", TextCnnOptions{.filters = 5, .words = WordTable::tuned}),
          kind<TextRnn>("lstm, last", TextRnnOptions{.hidden = 4, .words = WordTable::tuned}),
          kind<TextRnn>("gru, max", TextRnnOptions{.cell = RecurrentKind::gru,
                                                   .hidden = 4,
                                                   .pool = StatePool::max,
                                                   .words = WordTable::tuned}),
          kind<TextRnn>("gru, mean, forward", TextRnnOptions{.cell = RecurrentKind::gru,
                                                             .hidden = 4,
                                                             .bidirectional = false,
                                                             .pool = StatePool::mean,
                                                             .words = WordTable::tuned})};
}

Tensor table() { return Rng(2).normal({kWords, kDim}, 0, 1); }

/// Sentences of given lengths, padded.
struct Batch {
  Tensor ids, mask;
};
Batch batch_of(const std::vector<std::int64_t>& lengths, std::int64_t padded) {
  std::vector<std::int64_t> ids;
  std::vector<bool> mask;
  for (std::size_t b = 0; b < lengths.size(); ++b)
    for (std::int64_t t = 0; t < padded; ++t) {
      const bool word = t < lengths[b];
      ids.push_back(word ? 1 + (7 * t + 3 * static_cast<std::int64_t>(b) + t * t) % (kWords - 1)
                         : 0);
      mask.push_back(word);
    }
  const Shape shape{static_cast<std::int64_t>(lengths.size()), padded};
  return {from_vector(ids, shape), from_vector(mask, shape)};
}

/// Scores of a new network in training mode, and the gradients of all its parameters.
TensorList trained_on(const NetKind& kind, const Batch& batch) {
  const auto net = kind.make(table());
  const ClassifierOutput out = (*net)(batch.ids, batch.mask);
  const Tensor weights = Rng(9).normal(out.lengths.shape(), 0, 1);
  backward(sum(out.lengths * weights));
  TensorList all{out.lengths.detach()};
  for (const Tensor& p : net->parameters()) all.push_back(p.grad());
  return all;
}

bool same(const TensorList& a, const TensorList& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t k = 0; k < a.size(); ++k)
    if (!a[k].defined() || !b[k].defined() || !same_bits(a[k], b[k])) return false;
  return true;
}

}  // namespace

TEST_CASE("text: the amount of padding changes no bit of results and gradients") {
  const std::vector<std::vector<std::int64_t>> batches = {
      {1}, {5}, {8}, {13}, {9, 16, 2, 7, 12, 1, 5}, {0, 3, 1, 2, 6, 4, 4}};
  for (const NetKind& kind : net_kinds()) {
    const std::string name = kind.name;
    CAPTURE(name);
    for (const auto& lengths : batches) {
      const std::int64_t longest = *std::max_element(lengths.begin(), lengths.end());
      const auto padded = [&](std::int64_t more) {
        return trained_on(kind, batch_of(lengths, longest + more));
      };
      const TensorList exact = padded(0);
      CHECK(largest(exact[0]) > 0);
      for (const std::int64_t more : {1, 7, 40})
        if (!testing::kSanitized || more == 7) CHECK(same(padded(more), exact));
      for (const int threads : {1, 2}) {
        const Threads n(threads);
        CHECK(same(padded(9), exact));
      }
    }
  }
}

TEST_CASE("text: a sentence alone scores as in a batch") {
  const std::vector<std::int64_t> lengths = {9, 16, 2, 7, 0, 1, 5, 12, 3, 8};
  for (const NetKind& kind : net_kinds()) {
    const std::string name = kind.name;
    CAPTURE(name);
    const auto net = kind.make(table());
    net->to(DType::f64);
    net->eval();
    const Batch all = batch_of(lengths, 16);
    const ClassifierOutput together = (*net)(all.ids, all.mask);
    for (std::size_t b = 0; b < lengths.size(); ++b) {
      const auto at = static_cast<std::int64_t>(b);
      const Tensor ids = narrow(narrow(all.ids, 0, at, 1), 1, 0, lengths[b]);
      const ClassifierOutput alone = (*net)(ids);
      CHECK(max_difference(alone.lengths, narrow(together.lengths, 0, at, 1)) < 1e-12);
      if (alone.poses.defined())
        CHECK(max_difference(alone.poses, narrow(together.poses, 0, at, 1)) < 1e-12);
    }
  }
}

TEST_CASE("text: words count, their order too, and padding does not") {
  for (const NetKind& kind : net_kinds()) {
    const std::string name = kind.name;
    CAPTURE(name);
    const auto net = kind.make(table());
    net->eval();
    const Batch given = batch_of({8}, 8);
    const Tensor scores = (*net)(given.ids).lengths, turned = (*net)(flip(given.ids, {1})).lengths,
                 shorter = (*net)(narrow(given.ids, 1, 0, 7)).lengths;
    CHECK(max_difference(scores, turned) > 1e-6);
    CHECK(max_difference(scores, shorter) > 1e-6);
    // Without a mask zeros are words.
    const Batch padded = batch_of({8}, 12);
    CHECK(same_bits((*net)(padded.ids, padded.mask).lengths, scores));
    CHECK(max_difference((*net)(padded.ids).lengths, scores) > 1e-6);
  }
}

TEST_CASE("text: vectors of words in place of their ids") {
  for (const NetKind& kind : net_kinds()) {
    const std::string name = kind.name;
    CAPTURE(name);
    const auto net = kind.make(table());
    net->eval();
    const Batch given = batch_of({6, 9}, 11);
    WordEmbedding words(table(), net->words().kind());
    const Tensor x = words(given.ids).detach().requires_grad_();
    const ClassifierOutput out = net->from_words(x, given.mask);
    CHECK(same_bits(out.lengths, (*net)(given.ids, given.mask).lengths));
    backward(sum(out.lengths));
    CHECK(largest(narrow(select(x.grad(), 0, 0), 0, 0, 6)) > 0);
    CHECK(largest(narrow(select(x.grad(), 0, 0), 0, 6, 5)) == 0);
  }
}

TEST_CASE("text: what does not fit is an error") {
  for (const NetKind& kind : net_kinds()) {
    const std::string name = kind.name;
    CAPTURE(name);
    const auto net = kind.make(table());
    const auto run = [&](const Tensor& ids, const Tensor& mask = {}) { (*net)(ids, mask); };
    const Tensor ids = ones({2, 4}, DType::i64);
    CHECK_THROWS_AS(run(ones({2, 4})), DTypeError);
    CHECK_THROWS_AS(run(ones({4}, DType::i64)), ShapeError);
    CHECK_THROWS_AS(run(zeros({0, 4}, DType::i64)), ShapeError);
    CHECK_THROWS_AS(run({}), ShapeError);
    CHECK_THROWS_AS(run(full({2, 4}, static_cast<double>(kWords), DType::i64)), ValueError);
    CHECK_THROWS_AS(run(full({2, 4}, -1, DType::i64)), ValueError);
    CHECK_THROWS_AS(run(ids, ones({2, 4})), DTypeError);
    CHECK_THROWS_AS(run(ids, ones({2, 5}, DType::b8)), ShapeError);
    const Tensor gap =
        from_vector(std::vector<bool>{true, true, true, true, true, false, true, false}, {2, 4});
    CHECK(contains(message_of<ValueError>([&] { run(ids, gap); }),
                   "the mask of sentence 1 has a gap at position 1"));
    CHECK_THROWS_AS(net->from_words(zeros({2, 4, kDim + 1})), ShapeError);
    CHECK_THROWS_AS(kind.make(zeros({kWords})), ShapeError);
    // Sentences without any room for words are sentences without words.
    const Batch none = batch_of({0, 0}, 3);
    net->eval();
    CHECK(
        same_bits((*net)(zeros({2, 0}, DType::i64)).lengths, (*net)(none.ids, none.mask).lengths));
    if (!net->explains())
      CHECK(contains(message_of<ValueError>([&] { net->explain(ones({4}, DType::i64)); }),
                     "no capsules"));
    CHECK(contains(net->summary(), "words"));
    CHECK(net->classes() == kClasses);
  }
}

TEST_CASE("text: word vectors") {
  const Tensor t = Rng(1).normal({5, 3}, 0, 1);
  const Tensor ids = from_vector<std::int64_t>({2, 0, 4, 2}, {2, 2});
  WordEmbedding fixed(t), tuned(t, WordTable::tuned), both(t, WordTable::both);
  CHECK(fixed.parameters().empty());
  CHECK(tuned.named_buffers().empty());
  CHECK(both.named_parameters().size() == 1);
  CHECK(both.named_buffers().size() == 1);
  CHECK(both.dim() == 6);
  CHECK(fixed.words() == 5);
  const Tensor y = fixed(ids);
  CHECK(y.shape() == Shape{2, 2, 3});
  CHECK(max_difference(select(select(y, 0, 0), 0, 0), select(t, 0, 2)) == 0);
  CHECK(largest(select(select(y, 0, 0), 0, 1)) == 0);  // though row 0 of the table is not
  CHECK(largest(select(t, 0, 0)) > 0);
  CHECK(same_bits(tuned(ids), y));
  CHECK(same_bits(both(ids), cat({y, y}, -1)));

  // Padding has no gradient, even where a table was loaded whose row 0 is not 0.
  tuned.weight.copy_(t);
  CHECK(largest(select(select(tuned(ids), 0, 0), 0, 1)) == 0);
  backward(sum(tuned(ids)));
  CHECK(largest(select(tuned.weight.grad(), 0, 0)) == 0);
  CHECK(max_difference(select(tuned.weight.grad(), 0, 2), full({3}, 2)) == 0);
  CHECK(largest(select(tuned.weight.grad(), 0, 1)) == 0);
  backward(sum(both(ids)));
  CHECK(max_difference(select(both.weight.grad(), 0, 4), ones({3})) == 0);
  Adam adam(tuned.parameters(), {.lr = 0.1, .weight_decay = 0.1});
  WordEmbedding trained(t, WordTable::tuned);
  Adam steps(trained.parameters(), {.lr = 0.1, .weight_decay = 0.1});
  for (int k = 0; k < 3; ++k) {
    steps.zero_grad();
    backward(sum(square(trained(ids))));
    steps.step();
  }
  CHECK(largest(select(trained.weight, 0, 0)) == 0);  // and stays 0

  CHECK(same_bits(WordEmbedding(cast_data(t, DType::f64))(ids), y));

  CHECK_THROWS_AS(WordEmbedding(zeros({1, 3})), ShapeError);
  CHECK_THROWS_AS(WordEmbedding(zeros({3}, DType::f32)), ShapeError);
  CHECK_THROWS_AS(WordEmbedding(zeros({3, 3}, DType::i64)), DTypeError);
  CHECK(word_table("static") == WordTable::fixed);
  CHECK(word_table("both") == WordTable::both);
  CHECK(contains(message_of<ValueError>([] { word_table("frozen"); }), "static, tuned or both"));
}

TEST_CASE("text: n-gram filters by hand, and maxima over words that exist") {
  Rng rng(3);
  NGramConv conv(2, 3, 2, 2, rng);
  conv.to(DType::f64);
  const Tensor x = rng.normal({2, 6, 2}, 0, 1, DType::f64), y = conv(x);
  REQUIRE(y.shape() == Shape{2, 3, 3});
  for (std::int64_t b = 0; b < 2; ++b)
    for (std::int64_t p = 0; p < 3; ++p)
      for (std::int64_t f = 0; f < 3; ++f) {
        const Tensor words = narrow(select(x, 0, b), 0, 2 * p, 2);
        const double expected =
            sum(words * select(conv.weight, 0, f)).item() + select(conv.bias, 0, f).item();
        CHECK(select(select(select(y, 0, b), 0, p), 0, f).item() ==
              doctest::Approx(expected).epsilon(1e-12));
      }
  CHECK_THROWS_AS(conv(zeros({2, 1, 2}, DType::f64)), ShapeError);
  CHECK_THROWS_AS(conv(zeros({2, 3, 3}, DType::f64)), ShapeError);
  CHECK_THROWS_AS(NGramConv(2, 3, 0, 1, rng), ValueError);

  // A filter that likes padding: its maximum is still that of the words.
  TextCnn net(table(), 2, {.ngrams = {1}, .filters = 1, .dropout = 0}, rng);
  StateDict state = net.state_dict();
  for (Tensor p : net.parameters()) p.fill_(0.01);
  const Tensor bias = net.named_parameters()[1].second;
  REQUIRE(net.named_parameters()[1].first == "conv1.bias");
  Tensor(bias).fill_(5);
  const Batch given = batch_of({2, 6}, 6);
  const Tensor alone = net(narrow(narrow(given.ids, 0, 0, 1), 1, 0, 2)).logits;
  CHECK(max_difference(narrow(net(given.ids, given.mask).logits, 0, 0, 1), alone) < 1e-6);
}

TEST_CASE("text: networks learn whether a word follows another") {
  // Class 1: somewhere word 3 stands right before word 4; class 0: word 4 before word 3.
  Rng data(1);
  std::vector<std::int64_t> ids, labels;
  std::vector<bool> mask;
  constexpr std::int64_t kCount = 48, kLength = 9;
  for (std::int64_t b = 0; b < kCount; ++b) {
    const std::int64_t length = 4 + data.below(kLength - 3), at = data.below(length - 1);
    labels.push_back(b % 2);
    for (std::int64_t t = 0; t < kLength; ++t) {
      std::int64_t word = t < length ? 5 + data.below(kWords - 5) : 0;
      if (t == at) word = b % 2 == 1 ? 3 : 4;
      if (t == at + 1) word = b % 2 == 1 ? 4 : 3;
      ids.push_back(word);
      mask.push_back(t < length);
    }
  }
  const Tensor x = from_vector(ids, {kCount, kLength}), m = from_vector(mask, {kCount, kLength}),
               y = from_vector(labels, {kCount});
  TextCapsNetOptions capsules = tiny({2});
  capsules.filters = 16;
  capsules.types = 4;
  capsules.window = 2;
  capsules.window_types = 4;
  Rng rng(3);
  TextCapsNet a(table(), 2, capsules, rng);
  TextCnn b(table(), 2, {.ngrams = {2}, .filters = 16, .dropout = 0.2}, rng);
  TextRnn c(table(), 2, {.cell = RecurrentKind::gru, .hidden = 8, .pool = StatePool::max}, rng);
  for (TextClassifier* net : {static_cast<TextClassifier*>(&a), static_cast<TextClassifier*>(&b),
                              static_cast<TextClassifier*>(&c)}) {
    CAPTURE(net->summary());
    Adam adam(net->parameters(), {.lr = 0.02});
    for (int step = 0; step < (testing::kSanitized ? 5 : 60); ++step) {
      adam.zero_grad();
      const ClassifierOutput out = (*net)(x, m);
      backward(out.logits.defined() ? cross_entropy(out.logits, y)
                                    : margin_loss(out.lengths, one_hot(y, 2), {.lambda = 0.25}));
      adam.step();
    }
    net->eval();
    const double right = accuracy((*net)(x, m).lengths, y);
    CHECK((testing::kSanitized || right > 0.95));  // too slow there to learn
  }
}

#include <capsfw/layers/text_classifier.hpp>

#include <algorithm>

#include <fmt/format.h>

#include <capsfw/core/random.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/layout.hpp>

namespace capsfw {
namespace {

/// Axis 1 with `length` positions: cut off, or filled up with zeros.
Tensor with_length(const Tensor& x, std::int64_t length) {
  const std::int64_t have = x.size(1);
  if (have >= length) return narrow(x, 1, 0, length);
  Shape more = x.shape();
  more[1] = length - have;
  return cat({x, zeros(more, x.dtype())}, 1);
}

}  // namespace

Tensor Sentences::exist(std::int64_t windows, std::int64_t width, std::int64_t stride) const {
  const auto batch = static_cast<std::int64_t>(lengths.size());
  Tensor mask = zeros({batch, windows}, DType::b8);
  bool* p = mask.mutable_data<bool>();
  bool all = true;
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t n = 0; n < windows; ++n)
      all &= p[b * windows + n] = n * stride + width <= lengths[static_cast<std::size_t>(b)];
  return all ? Tensor() : mask;
}

TextClassifier::TextClassifier(std::string who,
                               const Tensor& table,
                               WordTable kind,
                               std::int64_t classes)
    : Classifier(std::move(who), classes), words_(table, kind) {
  if (classes < 1)
    throw ValueError(fmt::format("{}: at least 1 class; got {}", this->who(), classes));
  child("words", words_);
}

void TextClassifier::set_length(std::int64_t least, std::int64_t longest) {
  least_ = least;
  longest_ = longest;
}

std::int64_t TextClassifier::cut_to(const std::vector<std::int64_t>& lengths) const {
  return longest_ > 0 ? longest_ : *std::max_element(lengths.begin(), lengths.end());
}

std::vector<std::int64_t> TextClassifier::count_words(const Tensor& x, const Tensor& mask) const {
  const std::int64_t batch = x.size(0), length = x.size(1);
  std::vector<std::int64_t> words(static_cast<std::size_t>(batch), length);
  if (mask.defined()) {
    if (mask.dtype() != DType::b8)
      throw DTypeError(
          fmt::format("{}: the mask must be b8; got {}", who(), name_of(mask.dtype())));
    if (mask.shape() != Shape{batch, length})
      throw ShapeError(fmt::format("{}: the mask must be [{}, {}], as the words; got {}", who(),
                                   batch, length, mask.shape().str()));
    const std::vector<bool> is_word = mask.to_vector<bool>();
    for (std::int64_t b = 0; b < batch; ++b) {
      const auto begin = is_word.begin() + b * length, end = begin + length,
                 last = std::find(begin, end, false);
      if (std::find(last, end, true) != end)
        throw ValueError(fmt::format(
            "{}: the words of a sentence must come before its padding; the mask of sentence {} has "
            "a gap at position {}",
            who(), b, last - begin));
      words[static_cast<std::size_t>(b)] = last - begin;
    }
  }
  for (std::int64_t& n : words) {
    if (longest_ > 0 && n > longest_)
      throw ShapeError(fmt::format(
          "{}: the class capsules have weights of their own for each of {} words; got a sentence "
          "of {} words. Hint: cut it, or use shared weights",
          who(), longest_, n));
    n = std::max(n, least_);
  }
  return words;
}

Sentences TextClassifier::cut(const Tensor& ids, const Tensor& mask) {
  if (!ids.defined() || ids.dim() != 2 || ids.size(0) < 1)
    throw ShapeError(fmt::format("{}: ids must be [B, L] of at least one sentence; got {}", who(),
                                 ids.defined() ? ids.shape().str() : "none"));
  if (ids.dtype() != DType::i64)
    throw DTypeError(fmt::format("{}: ids must be i64; got {}", who(), name_of(ids.dtype())));
  std::vector<std::int64_t> lengths = count_words(ids, mask);
  const Tensor known = mask.defined() ? where(mask, ids, 0.0) : ids;
  const Tensor words = words_(with_length(known, cut_to(lengths)));
  return {words, std::move(lengths)};
}

ClassifierOutput TextClassifier::operator()(const Tensor& ids, const Tensor& mask) {
  return classify(cut(ids, mask));
}

ClassifierOutput TextClassifier::from_words(const Tensor& words, const Tensor& mask) {
  if (!words.defined() || words.dim() != 3 || words.size(0) < 1 || words.size(2) != words_.dim())
    throw ShapeError(fmt::format("{}: words must be [B, L, {}]; got {}", who(), words_.dim(),
                                 words.defined() ? words.shape().str() : "none"));
  std::vector<std::int64_t> lengths = count_words(words, mask);
  const Tensor known = mask.defined() ? where(unsqueeze(mask, 2), words, 0.0) : words;
  const Tensor cut = with_length(known, cut_to(lengths));
  return classify({cut, std::move(lengths)});
}

TextExplanation TextClassifier::explain(const Tensor& /*ids*/) {
  throw ValueError(fmt::format("{}: has no capsules whose votes could explain anything", who()));
}

std::string TextClassifier::summary() {
  const std::int64_t length = longest_ > 0 ? longest_ : std::max<std::int64_t>(least_, 20);
  return layer_table({1, length}, [&] { (*this)(ones({1, length}, DType::i64)); });
}

}  // namespace capsfw

#include <capsfw/layers/text_nets.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/index.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

namespace capsfw {
namespace {

/// The maximum over the places [B, P, F] that exist [B, P]; at least one does.
Tensor max_over_places(const Tensor& x, const Tensor& exist) {
  return max(exist.defined() ? masked_fill(x, unsqueeze(logical_not(exist), 2), -INFINITY) : x,
             {1});
}

std::int64_t features_of(const TextCnnOptions& o) {
  if (o.ngrams.empty()) throw ValueError("TextCnn: at least one n; got none");
  return static_cast<std::int64_t>(o.ngrams.size()) * o.filters;
}

std::unique_ptr<RecurrentLayer> states_of(const TextRnnOptions& o, std::int64_t dim, Rng& rng) {
  const RecurrentOptions options{.bidirectional = o.bidirectional};
  if (o.cell == RecurrentKind::lstm) return std::make_unique<LSTM>(dim, o.hidden, rng, options);
  return std::make_unique<GRU>(dim, o.hidden, rng, options);
}

ClassifierOutput output(const Tensor& logits) {
  return {.lengths = sigmoid(logits), .logits = logits};
}

}  // namespace

TextCnn::TextCnn(const Tensor& table, std::int64_t classes, const TextCnnOptions& o, Rng& rng)
    : TextClassifier("TextCnn", table, o.words, classes),
      options_(o),
      dropout_(o.dropout, rng),
      logits_(features_of(o), classes, rng) {
  for (const std::int64_t n : o.ngrams) {
    convs_.push_back(std::make_unique<NGramConv>(words().dim(), o.filters, n, 1, rng));
    child(fmt::format("conv{}", convs_.size()), *convs_.back());
  }
  child("dropout", dropout_);
  child("logits", logits_);
  set_length(*std::max_element(o.ngrams.begin(), o.ngrams.end()));
}

ClassifierOutput TextCnn::classify(const Sentences& sentences) {
  TensorList features;
  for (const auto& conv : convs_) {
    const Tensor grams = (*conv)(sentences.words);
    features.push_back(relu(max_over_places(grams, sentences.exist(grams.size(1), conv->width()))));
  }
  return output(logits_(dropout_(cat(features, 1))));
}

RecurrentKind recurrent_kind(std::string_view name) {
  if (name == "lstm") return RecurrentKind::lstm;
  if (name == "gru") return RecurrentKind::gru;
  throw ValueError(fmt::format("recurrent cell: lstm or gru; got '{}'", name));
}

StatePool state_pool(std::string_view name) {
  if (name == "last") return StatePool::last;
  if (name == "max") return StatePool::max;
  if (name == "mean") return StatePool::mean;
  throw ValueError(fmt::format("state pool: last, max or mean; got '{}'", name));
}

TextRnn::TextRnn(const Tensor& table, std::int64_t classes, const TextRnnOptions& o, Rng& rng)
    : TextClassifier("TextRnn", table, o.words, classes),
      options_(o),
      states_(states_of(o, words().dim(), rng)),
      dropout_(o.dropout, rng),
      logits_(states_->size(), classes, rng) {
  child("states", *states_);
  child("dropout", dropout_);
  child("logits", logits_);
}

ClassifierOutput TextRnn::classify(const Sentences& sentences) {
  const Tensor& x = sentences.words;
  const Tensor word = sentences.exist(x.size(1), 1);
  const RecurrentOutput r = states_->run(x, word);
  Tensor features;
  switch (options_.pool) {
    case StatePool::last:
      features = r.last;
      break;
    case StatePool::max:
      features = max_over_places(r.states, word);
      break;
    case StatePool::mean: {
      std::vector<double> lengths(sentences.lengths.begin(), sentences.lengths.end());
      features = sum(r.states, {1}) / unsqueeze(capsfw::to(from_vector(lengths), x.dtype()), 1);
      break;
    }
  }
  return output(logits_(dropout_(features)));
}

}  // namespace capsfw

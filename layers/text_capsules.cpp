#include <capsfw/layers/text_capsules.hpp>

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <capsfw/core/debug.hpp>
#include <capsfw/core/grad.hpp>
#include <capsfw/layers/init.hpp>
#include <capsfw/ops/arithmetic.hpp>
#include <capsfw/ops/capsule.hpp>
#include <capsfw/ops/layout.hpp>
#include <capsfw/ops/matmul.hpp>
#include <capsfw/ops/reduce.hpp>
#include <capsfw/ops/unary.hpp>

#include "detail/balance.hpp"

namespace capsfw {
namespace {

const TextCapsNetOptions& checked(const TextCapsNetOptions& o) {
  if (o.ngrams.empty() || o.types < 1 || o.dim < 1 || o.window < 1 || o.window_types < 1)
    throw ValueError(
        fmt::format("TextCapsNet: at least one n, and sizes of at least 1; got {} n-grams, {} "
                    "types, dim {}, a window of {}, {} types above",
                    o.ngrams.size(), o.types, o.dim, o.window, o.window_types));
  if (!o.shared_classes && o.length < 1)
    throw ValueError(
        "TextCapsNet: class capsules whose weights are not shared need sentences of one length. "
        "Hint: length, or shared_classes");
  return o;
}

/// Words that a window of n-grams of n words covers.
std::int64_t reach_of(const TextCapsNetOptions& o, std::int64_t n) {
  return n + (o.window - 1) * o.stride;
}

/// Children of the class capsules; 0: any number.
std::int64_t children_of_classes(const TextCapsNetOptions& o, std::int64_t n) {
  if (o.length == 0) return 0;
  if (o.length < reach_of(o, n))
    throw ValueError(
        fmt::format("TextCapsNet: sentences of {} words are shorter than a window of {} n-grams of "
                    "{}, {} words",
                    o.length, o.window, n, reach_of(o, n)));
  return ((o.length - n) / o.stride + 1 - o.window + 1) * o.window_types;
}

DenseCapsulesOptions capsules(const TextCapsNetOptions& o, bool shared) {
  return {.routing = o.routing, .votes = shared ? VoteWeights::shared : VoteWeights::full};
}

DenseCapsulesOptions windows_of(const TextCapsNetOptions& o) {
  DenseCapsulesOptions windows = capsules(o, o.shared_windows);
  windows.keep = o.keep;
  return windows;
}

DenseCapsulesOptions classes_of(const TextCapsNetOptions& o) {
  DenseCapsulesOptions classes = capsules(o, o.shared_classes);
  classes.noise_class = o.noise_class;
  return classes;
}

/// [B, N] repeated for T capsules at every place, child (t, n): [B, T·N].
Tensor for_types(const Tensor& exist, std::int64_t types) {
  if (!exist.defined()) return {};
  const std::int64_t b = exist.size(0), n = exist.size(1);
  return reshape(broadcast_to(unsqueeze(exist, 1), {b, types, n}), {b, types * n});
}

}  // namespace

NGramConv::NGramConv(
    std::int64_t dim, std::int64_t filters, std::int64_t n, std::int64_t stride, Rng& rng)
    : stride_(stride) {
  if (dim < 1 || filters < 1 || n < 1 || stride < 1)
    throw ValueError(fmt::format(
        "NGramConv: sizes must be at least 1; got dim = {}, filters = {}, n = {}, stride = {}", dim,
        filters, n, stride));
  const double bound = 1 / std::sqrt(static_cast<double>(n * dim));
  weight = param("weight", init::uniform({filters, n, dim}, bound, rng));
  bias = param("bias", init::uniform({filters}, bound, rng));
}

Tensor NGramConv::forward(const Tensor& x) {
  const std::int64_t filters = weight.size(0), n = weight.size(1), dim = weight.size(2);
  if (x.dim() != 3 || x.size(2) != dim || x.size(1) < n)
    throw ShapeError(fmt::format("NGramConv: x must be [B, L, {}] with at least {} words; got {}",
                                 dim, n, x.shape().str()));
  // What every word adds to the n-grams in which it is word k, then n shifted sums.
  const std::int64_t places = (x.size(1) - n) / stride_ + 1;
  const Tensor parts = reshape(linear(x, reshape(transpose(weight, 0, 1), {n * filters, dim})),
                               {x.size(0), x.size(1), n, filters});
  Tensor y = bias;
  for (std::int64_t k = 0; k < n; ++k)
    y = y + slice(select(parts, 2, k), 1, k, k + (places - 1) * stride_ + 1, stride_);
  return y;
}

TextCapsules::TextCapsules(std::int64_t dim,
                           std::int64_t classes_count,
                           std::int64_t n,
                           const TextCapsNetOptions& o,
                           Rng& rng)
    : dim_(o.dim),
      squash_c_(o.squash_c),
      conv(dim, o.filters, n, o.stride, rng),
      primary(o.filters, o.types * o.dim, rng),
      windows(o.types, o.dim, o.window_types, o.dim, {.kernel = {o.window}}, rng, windows_of(o)),
      classes(children_of_classes(o, n), o.dim, classes_count, o.dim, rng, classes_of(o)),
      reach_(reach_of(o, n)) {
  child("conv", conv);
  child("primary", primary);
  child("windows", windows);
  child("classes", classes);
}

Tensor TextCapsules::primaries(const Tensor& words) {
  const Tensor z = primary(relu(conv(words)));  // [B, P, types·dim]
  return squash(reshape(z, {z.size(0), z.size(1), z.size(2) / dim_, dim_}), squash_c_);
}

TextCapsules::Children TextCapsules::below(const Sentences& sentences) {
  const Tensor u = primaries(sentences.words);
  const ConvRouted r =
      windows.route(permute(u, {0, 2, 1, 3}), {}, {}, {}, false);  // [B, T, N, dim]
  const std::int64_t b = r.poses.size(0), types = r.poses.size(1), n = r.poses.size(2);
  return {reshape(r.poses, {b, types * n, dim_}),
          r.activations.defined() ? reshape(r.activations, {b, types * n}) : Tensor(),
          for_types(sentences.exist(n, reach_, conv.stride()), types), types, n};
}

void TextCapsules::balance(const Sentences& sample) {
  detail::scale_to_half_length({primary.weight, primary.bias},
                               [&] { return primaries(sample.words); });
  if (windows.routing().balances())
    windows.balance(permute(primaries(sample.words), {0, 2, 1, 3}));
  else
    detail::scale_to_half_length({windows.patch.votes.weight}, [&] { return below(sample).poses; });
  if (classes.routing().balances()) {
    const Children c = below(sample);
    classes.balance(c.poses, c.activations, c.exist);
  } else {
    detail::scale_to_half_length({classes.votes.weight}, [&] { return route(sample).poses; });
  }
}

Routed TextCapsules::route(const Sentences& sentences) {
  const Scope scope(name());
  const Children c = below(sentences);
  return classes.route(c.poses, c.activations, c.exist);
}

NGramVotes TextCapsules::explain(const Sentences& sentence) {
  const Children c = below(sentence);
  const Routed r = classes.route(c.poses, c.activations, c.exist);
  const std::int64_t j = r.poses.size(1);
  const auto at_places = [&](const Tensor& x) {  // [1, T·N, J'] -> [N, T, J], as far as they exist
    const std::int64_t there = (sentence.lengths[0] - reach_) / conv.stride() + 1;
    return narrow(transpose(reshape(narrow(x, 2, 0, j), {c.types, c.places, j}), 0, 1), 0, 0,
                  std::min(there, c.places));
  };
  const Tensor votes = classes.votes(c.poses);
  const Tensor direction = safe_normalize(weighted_sum(r.couplings, votes));
  return {reach_, conv.stride(), contiguous(at_places(r.couplings)),
          contiguous(at_places(safe_norm(votes))),
          sum(at_places(r.couplings * agreement(votes, direction)), {1})};
}

TextCapsNet::TextCapsNet(const Tensor& table,
                         std::int64_t classes,
                         const TextCapsNetOptions& options,
                         Rng& rng)
    : TextClassifier("TextCapsNet", table, options.words, classes), options_(checked(options)) {
  std::int64_t least = 1;
  for (const std::int64_t n : options.ngrams) {
    branches_.push_back(std::make_unique<TextCapsules>(words().dim(), classes, n, options, rng));
    child(fmt::format("grams{}", branches_.size()), *branches_.back());
    least = std::max(least, branches_.back()->reach());
  }
  set_length(least, options.length);
  balance(rng);
}

void TextCapsNet::balance(Rng& rng) {
  const NoGradGuard no_grad;
  eval();
  const std::int64_t length = longest() > 0 ? longest() : least_length() + 8;
  const Sentences sample = cut(rng.integers({8, length}, words().words() - 1) + 1.0, {});
  for (const auto& branch : branches_) branch->balance(sample);
  train();
}

ClassifierOutput TextCapsNet::classify(const Sentences& sentences) {
  Tensor poses, activations;
  TensorList couplings;
  for (const auto& branch : branches_) {
    const Routed r = branch->route(sentences);
    poses = poses.defined() ? poses + r.poses : r.poses;
    if (r.activations.defined())
      activations = activations.defined() ? activations + r.activations : r.activations;
    couplings.push_back(r.couplings);
  }
  const auto count = static_cast<double>(branches_.size());
  if (count > 1) {
    poses = poses / count;
    if (activations.defined()) activations = activations / count;
  }
  return {.lengths = activations.defined() ? activations : lengths(poses),
          .poses = poses,
          .couplings = count > 1 ? cat(couplings, 1) : couplings[0]};
}

TextExplanation TextCapsNet::explain(const Tensor& ids) {
  if (!ids.defined() || ids.dim() != 1)
    throw ShapeError(fmt::format("TextCapsNet: explain takes the ids of one sentence, [L]; got {}",
                                 ids.defined() ? ids.shape().str() : "none"));
  const NoGradGuard no_grad;
  const ModeGuard mode(*this);
  eval();
  const Sentences sentence = cut(unsqueeze(ids, 0), {});
  TextExplanation out{select(classify(sentence).lengths, 0, 0), {}};
  for (const auto& branch : branches_) out.grams.push_back(branch->explain(sentence));
  return out;
}

int TextCapsNet::routing_iterations() const { return branches_[0]->classes.routing().iterations(); }

int TextCapsNet::uniform_iterations() const {
  return branches_[0]->classes.routing().uniform_iterations();
}

void TextCapsNet::set_routing_iterations(int n) {
  for (const auto& branch : branches_) {
    branch->windows.routing().set_iterations(n);
    branch->classes.routing().set_iterations(n);
  }
}

}  // namespace capsfw

#pragma once
// Capsules for text: n-grams of words, their capsules, capsules of windows of n-grams, capsules of
// classes. L words of dim numbers, P places of n-grams, N of windows.

#include <memory>
#include <vector>

#include <capsfw/layers/basic.hpp>
#include <capsfw/layers/conv_capsule_layer.hpp>
#include <capsfw/layers/linear.hpp>
#include <capsfw/layers/text_classifier.hpp>

namespace capsfw {

/// Filters over every n words: x [B, L, dim] -> [B, P, filters], P = ⌊(L − n) / stride⌋ + 1,
///   y_pf = bias_f + Σ_k ⟨W_fk, x_{p·stride + k}⟩.
/// W [filters, n, dim] and the bias start uniform in ±1/√(n dim).   Kim 2014, eq (1) without the
/// relu.   ShapeError for sentences shorter than n; ValueError for sizes below 1.
class NGramConv : public Layer {
 public:
  NGramConv(std::int64_t dim, std::int64_t filters, std::int64_t n, std::int64_t stride, Rng& rng);
  std::int64_t width() const { return weight.size(1); }  ///< words under one filter
  std::int64_t stride() const { return stride_; }        ///< words between places
  Tensor weight, bias;                                   ///< parameters

 protected:
  Tensor forward(const Tensor& x) override;

 private:
  std::int64_t stride_;
};

/// Options of TextCapsNet.
struct TextCapsNetOptions {
  std::vector<std::int64_t> ngrams = {3};  ///< a branch for each
  std::int64_t filters = 32;               ///< of the n-gram convolution
  std::int64_t stride = 1;                 ///< words between n-grams
  std::int64_t types = 32;                 ///< of capsules at every n-gram
  std::int64_t dim = 16;                   ///< numbers of every capsule
  std::int64_t window = 3;                 ///< n-grams that a capsule above sees
  std::int64_t window_types = 16;          ///< of capsules at every window
  double squash_c = 1.0;                   ///< of the primary capsules
  RoutingSpec routing = {};                ///< of both layers of capsules
  bool shared_windows =
      true;  ///< one transformation per parent; else one for each child in a window
  bool shared_classes = true;  ///< the same for the class capsules; else `length` is needed
  std::int64_t length = 0;     ///< words of all sentences; 0: any
  bool noise_class = false;    ///< one more class takes part in the routing and is dropped
  double keep = 1.0;           ///< share of the capsules of a window that takes part in training
  WordTable words = WordTable::fixed;  ///< are word vectors trained?

  /// Model A of Zhao et al. 2018: n-grams of 3 words.
  static TextCapsNetOptions a() { return {}; }
  /// Model B: three branches for n-grams of 3, 4 and 5 words; the mean of their class capsules.
  static TextCapsNetOptions b() { return {.ngrams = {3, 4, 5}}; }
};

/// One branch of a TextCapsNet, from words to the poses of the class capsules.
class TextCapsules : public Module {
 public:
  TextCapsules(std::int64_t dim,
               std::int64_t classes,
               std::int64_t n,
               const TextCapsNetOptions& options,
               Rng& rng);
  /// Poses [B, J, dim] and couplings [B, N·T, J] (with the noise class) of the class capsules;
  /// child (t, n) has the index t·N + n.
  Routed route(const Sentences& sentences);
  /// Words that a window of n-grams covers.
  std::int64_t reach() const { return reach_; }
  /// What the n-grams of the windows of one sentence say.
  NGramVotes explain(const Sentences& sentence);
  /// Scales the weights, layer by layer, so that capsules of the sample have the mean length ½, or
  /// sets the starting values that their routing has (Routing::balance).
  void balance(const Sentences& sample);

 private:
  /// The children of the class capsules, (t, n) at t·N + n.
  struct Children {
    Tensor poses, activations, exist;
    std::int64_t types, places;
  };
  Children below(const Sentences& sentences);
  /// [B, P, types, dim].
  Tensor primaries(const Tensor& words);

  std::int64_t dim_;
  double squash_c_;

 public:
  NGramConv conv;         ///< n-grams
  Linear primary;         ///< primary capsules
  ConvCapsules windows;   ///< of neighbouring places
  DenseCapsules classes;  ///< of the whole sentence

 private:
  std::int64_t reach_;
};

/// Capsules for text. For every n of `ngrams` a branch:
///   n-gram convolution, relu -> [B, P, filters];
///   primary capsules: an affine map of every place, regrouped and squashed -> [B, P, types, dim];
///   windows: the capsules of `window` neighbouring places are routed to window_types capsules,
///   with the same weights at every place -> [B, N, window_types, dim];
///   classes: all of them are routed to the classes -> [B, J, dim];
/// then the mean of the poses over the branches, and their lengths. Leaky softmax, amendment by the
/// activation of the children and learned static couplings are options of the routing:
/// "dynamic:leaky,activation", "dynamic:iterations=1,prior" (with a `length`).   Zhao et al. 2018,
/// Investigating Capsule Networks with Dynamic Routing for Text Classification, section 2;
/// partial sampling: He 2018, section 4. EM routing takes its λ by the number of children of
/// the longest sentence in the batch, unless "em:data_per_parent=0" says otherwise. Weights start
/// so that random sentences give capsules of mean length ½, as those of CapsNet do.   ValueError
/// for sizes below 1, or without shared weights and without a length; ShapeError for longer
/// sentences than that.
class TextCapsNet : public TextClassifier {
 public:
  /// table [V, dim] of word vectors.
  TextCapsNet(const Tensor& table,
              std::int64_t classes,
              const TextCapsNetOptions& options,
              Rng& rng);
  const TextCapsNetOptions& options() const { return options_; }  ///< what it was made with
  /// The capsules of the k-th n-gram width.
  TextCapsules& branch(std::size_t k) { return *branches_.at(k); }

  int routing_iterations() const override;
  void set_routing_iterations(int n) override;
  int uniform_iterations() const override;
  bool explains() const override { return true; }
  TextExplanation explain(const Tensor& ids) override;

 protected:
  ClassifierOutput classify(const Sentences& sentences) override;

 private:
  void balance(Rng& rng);

  TextCapsNetOptions options_;
  std::vector<std::unique_ptr<TextCapsules>> branches_;
};

}  // namespace capsfw

#pragma once
// Sections of a report that several programs have.

#include <cstdint>
#include <string>
#include <vector>

#include <capsfw/data/dataset.hpp>
#include <capsfw/layers/classifier.hpp>
#include <capsfw/layers/image_classifier.hpp>
#include <capsfw/optim/evaluate.hpp>

#include "common/report.hpp"

namespace capsfw::apps {

/// An answer that is not right.
struct Mistake {
  std::int64_t sample, said, right;
  double score, right_score;  ///< of the two classes
};

/// All of them, those with the widest gap between the two scores first. scores f32 or f64 [N, J],
/// whose largest is the answer; labels i64 [N].
std::vector<Mistake> worst_mistakes(const Tensor& scores, const Tensor& labels);
inline constexpr std::size_t kMistakesShown = 40;

/// What a network says of every image of a set, noted while evaluate() goes over it:
///
///   Answers answers(test);
///   const Score score = answers.of(net, loss, "test");
///   answers.add_to(report, "Test set");
class Answers {
 public:
  explicit Answers(ImageSet set) : set_(std::move(set)) {}
  Answers(const Answers&) = delete;
  Answers& operator=(const Answers&) = delete;

  /// evaluate() on the set, over all ranks if there are any, with the answers noted.
  Score of(ImageClassifier& net,
           const BatchLoss& loss,
           const std::string& label,
           Ranks* ranks = nullptr);
  /// `loss`, which notes the answers on the way. For one evaluation; *this must outlive it.
  BatchLoss watching(BatchLoss loss);
  /// Adds the confusion matrix, and the worst mistakes as pictures. Nothing unless all images were
  /// seen. `where`: "Test set"; `group`: see Heading.
  void add_to(Report& report, const std::string& where, const std::string& group = {}) const;

 private:
  ImageSet set_;
  TensorList scores_;  // of the batches
};

/// Adds the table of summary(), with the class of each layer.
void add_layers(Report& report, Classifier& net, const std::string& group = {});

/// Adds images above what the decoder makes of their longest capsule; nothing without a decoder.
void add_reconstructions(Report& report,
                         ImageClassifier& net,
                         const ImageSet& set,
                         const std::string& group = {});

/// Adds sizes, shapes and fingerprint of the sets to the configuration.
void add_data(Report& report, const HeldOut& parts, const ImageSet& test);

}  // namespace capsfw::apps

#pragma once
// Pairs of images side by side, for networks that learned from single ones.

#include <cstdint>
#include <string>

#include <capsfw/data/dataset.hpp>
#include <capsfw/layers/image_classifier.hpp>
#include <capsfw/layers/loss.hpp>

namespace capsfw::apps {

/// Every image of a set beside one of a random permutation; pairs of one class are dropped.
class DigitPairs {
 public:
  /// `horizontal`: side by side; otherwise the first above the second, as in the experiments of Su
  /// 2018, From K-Means to Capsule.
  DigitPairs(const ImageSet& set, bool horizontal, std::uint64_t seed);
  std::int64_t size() const { return first_.size(); }
  /// Pairs `begin` to `end` - 1: images [n, C, 2H, W] or [n, C, H, 2W], classes i64 [n, 2].
  Tensor images(std::int64_t begin, std::int64_t end) const;
  Tensor labels(std::int64_t begin, std::int64_t end) const;
  /// How often the two largest scores of `net`, in evaluation mode, are those of the pair. Stops
  /// early, with the pairs so far, when interrupted.
  TwoDigitAccuracy score(ImageClassifier& net, const std::string& label) const;

 private:
  ImageSet first_, second_;
  bool horizontal_;
};

}  // namespace capsfw::apps

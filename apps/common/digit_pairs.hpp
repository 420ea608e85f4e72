#pragma once
// How well a network finds both images of a pair, and what it makes of them.

#include <array>
#include <string>
#include <vector>

#include <capsfw/data/synthetic.hpp>
#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/optim/ranks.hpp>

#include "common/report.hpp"

namespace capsfw::apps {

/// How often the two largest scores of `net`, in evaluation mode, are those of the pair. Stops
/// early, with the pairs so far, when interrupted. `ranks` share the pairs.
TwoDigitAccuracy score_pairs(ImageClassifier& net,
                             const DigitPairs& pairs,
                             const std::string& label,
                             Ranks* ranks = nullptr);
/// See above.
TwoDigitAccuracy score_pairs(ImageClassifier& net,
                             const OverlappedPairs& pairs,
                             const std::string& label,
                             Ranks* ranks = nullptr);

/// Of each pair, of a network in evaluation mode with a decoder: the input, its two images in two
/// colours, what the capsules of the two largest scores reconstruct, each in the colour of the
/// image that it is of, and both together; with the classes of the pair, and these two with their
/// scores.
std::vector<Picture> overlap_pictures(CapsNet& net,
                                      const PairBatch& pairs,
                                      const std::vector<std::string>& names);
/// The same as one picture. Figure 5 of Sabour et al. 2017.
Tensor draw_overlap(CapsNet& net, const PairBatch& pairs, const std::vector<std::string>& names);

/// A pair whose two classes have not the two largest scores.
struct PairMistake {
  std::int64_t sample;
  std::array<std::int64_t, 2> said, right;
  double wrong_score;   ///< the largest of a class that was said and is not there
  double missed_score;  ///< the smallest of a class that is there and was not said
};

/// All of them, those with the widest gap between the two scores first. scores f32 or f64 [N, J],
/// labels i64 [N, 2].
std::vector<PairMistake> worst_pair_mistakes(const Tensor& scores, const Tensor& labels);

/// Adds the worst mistakes among the first 1000 pairs, and, of capsules with a decoder, what they
/// reconstruct of the first ten. `net` is in evaluation mode meanwhile.
void add_pair_pictures(Report& report,
                       ImageClassifier& net,
                       const OverlappedPairs& pairs,
                       const std::vector<std::string>& names);

}  // namespace capsfw::apps

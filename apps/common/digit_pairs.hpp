#pragma once
// How well a network finds both images of a pair.

#include <string>
#include <vector>

#include <capsfw/data/synthetic.hpp>
#include <capsfw/layers/capsnet.hpp>
#include <capsfw/layers/loss.hpp>
#include <capsfw/optim/ranks.hpp>

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

/// Two images on top of each other, and what the capsules of the two largest scores make of it.
/// Figure 5 of Sabour et al. 2017.
Tensor draw_overlap(CapsNet& net, const PairBatch& pairs, const std::vector<std::string>& names);

}  // namespace capsfw::apps

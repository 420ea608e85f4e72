#pragma once
// How well a network that learned from single images finds both of a pair.

#include <string>

#include <capsfw/data/synthetic.hpp>
#include <capsfw/layers/image_classifier.hpp>
#include <capsfw/layers/loss.hpp>

namespace capsfw::apps {

/// How often the two largest scores of `net`, in evaluation mode, are those of the pair. Stops
/// early, with the pairs so far, when interrupted.
TwoDigitAccuracy score_pairs(ImageClassifier& net,
                             const DigitPairs& pairs,
                             const std::string& label);

}  // namespace capsfw::apps

#pragma once
// Networks for images on the command line.

#include <memory>
#include <string>

#include <capsfw/layers/conv_net.hpp>

#include "common/args.hpp"
#include "common/train_flags.hpp"

namespace capsfw::apps {

/// The flags that shape a network.
struct NetFlags {
  std::string arch = "compact", capsules = {}, votes = "full", gradient = "full", decoder = "auto",
              routing = "dynamic";
  int iterations = 3;
  double squash_c = 1.0, keep = 1.0;
  bool leaky = false, noise_class = false, vote_bias = false, frobenius = false, prior = false;

  /// Adds --arch, --capsules, --votes, --routing-iterations, --gradient, ... to `args`.
  void add_to(Args& args);
  /// The network for images [C, H, W] and so many classes. UsageError where flags contradict each
  /// other.
  std::unique_ptr<ImageClassifier> make(const Shape& image, std::int64_t classes, Rng& rng) const;
  /// Trains as the authors of --arch did, but for what the command line says.
  void set_training(TrainFlags& flags) const;
  /// The options of a capsule network.
  CapsNetOptions capsnet(const Shape& image, std::int64_t classes) const;
  /// --routing, or else the `usual` one, with the flags that set single options of it. UsageError
  /// where it has no such option.
  RoutingSpec routing_spec(const RoutingSpec& usual) const;
  /// UsageError for --reconstruction, which the program has, of a network without a decoder.
  void refuse_idle(const ImageClassifier& net, double reconstruction) const;

 private:
  const Args* args_ = nullptr;
};

}  // namespace capsfw::apps

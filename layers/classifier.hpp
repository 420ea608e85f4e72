#pragma once
// What all networks with a score for each class have in common.

#include <functional>
#include <string>

#include <capsfw/layers/module.hpp>

namespace capsfw {

/// What a Classifier returns. Undefined tensors are absent.
struct ClassifierOutput {
  Tensor lengths;     ///< class scores [B, J]: lengths of capsules, activations, or probabilities
  Tensor poses = {};  ///< of the class capsules [B, J, D]
  Tensor couplings = {};       ///< of the last capsule layer [B, I, J]
  Tensor reconstruction = {};  ///< [B, C, H, W], of images
  /// [B, J], unbounded: networks without capsules have lengths = sigmoid(logits).
  Tensor logits = {};
};

/// A network with a score for each class, whatever it looks at.
class Classifier : public Module {
 public:
  std::int64_t classes() const { return classes_; }  ///< number of classes
  /// Routing iterations of all layers; 0: there is no routing. ValueError for a number that the
  /// routing does not take.
  virtual int routing_iterations() const { return 0; }
  /// See routing_iterations.
  virtual void set_routing_iterations(int n);
  /// The number of iterations that leaves the couplings uniform; −1 if there is none.
  virtual int uniform_iterations() const { return -1; }
  /// A table of the layers with output shapes and parameter counts; runs one blank sample.
  virtual std::string summary() = 0;

 protected:
  /// `who` names the network in messages.
  Classifier(std::string who, std::int64_t classes) : who_(std::move(who)), classes_(classes) {}
  const std::string& who() const { return who_; }  ///< name in messages
  /// The table of summary(): `run` sends a blank sample of shape `input` [1, ...] through the
  /// network, in evaluation mode and without recording. Modules that are no layer are listed by
  /// their children.
  std::string layer_table(const Shape& input, const std::function<void()>& run);

 private:
  std::string who_;
  std::int64_t classes_;
};

}  // namespace capsfw

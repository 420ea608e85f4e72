#pragma once
// Capsule networks on the command line and in files.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <capsfw/data/safetensors.hpp>
#include <capsfw/layers/capsnet.hpp>

#include "common/args.hpp"

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
  /// The network for images [C, H, W] and so many classes. ValueError where flags contradict each
  /// other.
  CapsNetOptions options(const Shape& image, std::int64_t classes) const;
  /// --routing with the flags that set single options of it. UsageError where it has no such
  /// option.
  RoutingSpec routing_spec() const;

 private:
  const Args* args_ = nullptr;
};

/// A network read from a file, with the names of its classes.
struct LoadedNet {
  std::unique_ptr<CapsNet> net;
  std::vector<std::string> class_names;
};

/// Writes weights, architecture and class names as one safetensors file.
void save_net(const std::filesystem::path& path,
              const CapsNet& net,
              const std::vector<std::string>& class_names);

/// Reads what save_net wrote. IoError if it is no such file or holds a NaN or an infinity,
/// ValueError if weights and architecture differ.
LoadedNet load_net(const std::filesystem::path& path);

/// The tensors of a file, to go on training from. IoError if one holds a NaN or an infinity.
StateDict load_weights(const std::filesystem::path& path);

}  // namespace capsfw::apps

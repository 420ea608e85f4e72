#pragma once
// The trained networks that come with the programs, and digits to show them (apps/models).

#include <filesystem>
#include <string>
#include <vector>

#include <capsfw/data/dataset.hpp>

namespace capsfw::apps {

/// Folders in which a network or a set that comes with the programs is looked for, in this order:
///   $CAPSFW_MODEL_DIR
///   ../share/capsfw/models, seen from the folder of the running program: a build, an installation
///   /usr/local/share/capsfw/models, /usr/share/capsfw/models
std::vector<std::filesystem::path> model_places();

/// What --model names: a file, or without '/' and ending a network that comes with the programs
/// ("mnist", "mnist-efficient"). IoError naming the places if there is none.
std::filesystem::path find_model(const std::string& name);

/// The digits that come with the networks, for programs to start with where no set is installed:
/// the first ten test images of each class of MNIST, in their order. IoError naming the places if
/// they are missing.
ImageSet load_digits();

}  // namespace capsfw::apps

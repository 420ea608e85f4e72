#pragma once
// smallNORB: stereo pairs of toys from known viewpoints (LeCun, Huang, Bottou 2004, Learning
// Methods for Generic Object Recognition with Invariance to Pose and Lighting), and its format: a
// magic number for the type of the elements, the rank, max(3, rank) lengths, all 32-bit
// little-endian, then the elements in row-major order.

#include <cstdint>
#include <filesystem>
#include <vector>

#include <capsfw/core/tensor.hpp>
#include <capsfw/data/dataset.hpp>

namespace capsfw {

/// Element types of the format; the values are the magic numbers.
enum class NorbType : std::uint32_t {
  f32 = 0x1E3D4C51,
  f64 = 0x1E3D4C53,
  i32 = 0x1E3D4C54,
  u8 = 0x1E3D4C55,
  i16 = 0x1E3D4C56
};

/// A matrix of the format.
struct NorbMatrix {
  NorbType type = NorbType::u8;     ///< of the elements
  Shape shape;                      ///< lengths of the axes
  std::vector<std::uint8_t> bytes;  ///< elements, row-major, in the byte order of this machine
};

/// Reads a matrix, plain or packed with gzip; files of the other byte order are known by their
/// magic number. At most 4 GiB of elements. IoError naming the file and the rule: another magic
/// number (packed matrices, 0x1E3D4C52, too), rank outside 0..8, negative lengths, lengths that
/// overflow, missing or surplus data, damaged gzip. Memory grows with what the file holds.
NorbMatrix read_norb_matrix(const std::filesystem::path& path);

/// From where a toy was taken.
struct Viewpoint {
  int instance = 0;   ///< which of the ten toys of its category, 0 to 9
  int elevation = 0;  ///< of the camera, in degrees: 30, 35, ..., 70
  int azimuth = 0;    ///< in degrees: 0, 20, ..., 340
  int lighting = 0;   ///< 0 to 5
  /// All fields equal?
  bool operator==(const Viewpoint&) const = default;
};

/// What an image of a stereo pair becomes.
enum class Cameras : std::uint8_t {
  both,   ///< [2, H, W]
  left,   ///< [1, H, W], the first of the pair
  right,  ///< [1, H, W], the second one
};

/// Images with their viewpoints.
struct SmallNorb {
  ImageSet images;               ///< animal, human, airplane, truck, car
  std::vector<Viewpoint> views;  ///< one a pair
};

/// Reads the three matrices (dat, cat, info) of a part of smallNORB, 24,300 pairs of 96 x 96 pixels
/// each, plain or with ".gz", from the folder with all six files under their published names that
/// resolve_dataset("smallnorb", ...) finds.
SmallNorb load_small_norb(Split split, Cameras cameras = Cameras::both);

/// Reads dat (u8 [N, 2, H, W]), cat (i32 [N], 0 to 4) and info (i32 [N, 4]: instance, elevation in
/// steps of 5 degrees from 30 on, azimuth in steps of 10 degrees, lighting). IoError naming the
/// file: another type or shape, counts that differ, none, values outside their range.
SmallNorb load_norb_files(const std::filesystem::path& dat,
                          const std::filesystem::path& cat,
                          const std::filesystem::path& info,
                          Cameras cameras = Cameras::both);

/// Which viewpoints are kept for the test.
enum class NovelViewpoints : std::uint8_t {
  azimuth,   ///< trained on 300, 320, 340, 0, 20, 40 degrees
  elevation  ///< trained on the three smallest: 30, 35, 40 degrees
};

/// The test of generalisation to viewpoints that were never seen.
struct ViewpointSplit {
  ImageSet train;     ///< images of the training part, from the viewpoints trained on
  ImageSet familiar;  ///< of the test part, from the same viewpoints
  ImageSet novel;     ///< of the test part, from all others
};

/// The split of Hinton, Sabour, Frosst 2018, Matrix Capsules with EM Routing, section 5. ValueError
/// if a set has not as many viewpoints as images.
ViewpointSplit novel_viewpoints(const SmallNorb& train,
                                const SmallNorb& test,
                                NovelViewpoints kind);

}  // namespace capsfw

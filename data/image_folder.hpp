#pragma once
// Images of one's own: a folder for each class.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <capsfw/data/dataset.hpp>

namespace capsfw {

/// Options of load_image_folder.
struct ImageFolderOptions {
  ImageFormat format = {};  ///< 0: as the files have it, in which all must agree
  std::vector<std::string> extensions = {".png", ".jpg", ".jpeg"};  ///< upper case counts as lower
  double background = 0;     ///< shows through transparent pixels
  bool skip_broken = false;  ///< leave out files that cannot be read, instead of an IoError
  double test_share = 0.2;   ///< of every class, where no folder test/ says what is tested
  std::uint64_t seed = 0;    ///< of that choice
  std::int64_t max_bytes = std::int64_t{8} << 30;  ///< of all pixels, one byte each
};

/// Images from a folder, and what was left out.
struct ImageFolder {
  ImageSet set;                                ///< the images
  std::vector<std::filesystem::path> skipped;  ///< with skip_broken: files that cannot be read
};

/// Reads one folder per class, `folder`/CLASS/**/FILE: PNG and JPEG files at any depth, in the
/// order of their names; classes in the order of theirs, which give them their numbers. Names that
/// begin with a dot and files with other extensions are left out; folders deeper down that are
/// links are not followed. Memory: one byte per pixel of the result, and one picture of a file at a
/// time.
///
/// IoError naming what is wrong: no such folder, no folder for a class, a class without an image, a
/// name that is no UTF-8 or has control characters, a file that cannot be read, files whose sizes
/// or channels differ where options.format does not say what they become, more than max_bytes
/// (found before they are read); ValueError on bad options, also where every file of a set was
/// skipped.
ImageFolder load_image_folder(const std::filesystem::path& folder,
                              const ImageFolderOptions& options = {});

/// One part of a folder. With the folders `folder`/train and `folder`/test, that one: the classes
/// are those of train/, and test/ may lack some but have no other. Otherwise stratified_hold_out
/// chooses test_share of `folder` for the test, the same files for the same seed; only the files of
/// the part are read.
ImageFolder load_image_folder(const std::filesystem::path& folder,
                              Split split,
                              const ImageFolderOptions& options = {});

}  // namespace capsfw

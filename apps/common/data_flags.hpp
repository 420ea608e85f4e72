#pragma once
// Which images a program works on, on the command line.

#include <string>

#include <capsfw/data/augment.hpp>
#include <capsfw/data/dataset.hpp>

#include "common/args.hpp"

namespace capsfw::apps {

/// The flags of image sets. A program changes the defaults before it adds them.
struct DataFlags {
  std::string data = "fashion-mnist", size = {}, fit = "crop";
  int channels = 0, shift = 2, crop = 0, cutout = 0;
  std::int64_t val = 5000;
  double rotate = 0, zoom = 0, shear = 0, elastic = 0;
  bool flip = false, skip_broken = false;

  /// --data, --size, --channels, --fit, --skip-broken.
  void add_source(Args& args);
  /// Section "Data": these, --val, and random changes of training images: --shift, --rotate,
  /// --zoom, --shear, --elastic, --flip, --crop, --cutout.
  void add_data(Args& args);

  /// What --size, --channels and --fit say. UsageError for --fit and --skip-broken where nothing
  /// would read them.
  ImageFormat format() const;
  /// True if --data is a folder or a file, not the name of a public set.
  bool own_data() const;
  /// "MNIST", "CIFAR-10", or the name of the folder or file.
  std::string title() const;
  /// The random changes, but for the shifts, which DataLoader makes; empty if there are none.
  Transform augmentation() const;

 private:
  friend HeldOut load_training(const DataFlags&);
  const Args* args_ = nullptr;
};

/// A part of the set: mnist, mnist-affine (affine_digits), fashion-mnist, cifar10, cifar100,
/// smallnorb (two channels, or with
/// --channels 1 the left camera), smallnorb-azimuth and -elevation (novel_viewpoints), a folder of
/// images (load_image_folder), a .npz file (load_npz_images) or a .csv file (load_csv_images;
/// --size is needed), brought to the format. Says on stderr how many broken files were skipped.
ImageSet load_images(const DataFlags& flags, Split split);

/// `n` images of a set of `flags`, or all if there are no more: the first ones of a public set; of
/// own data, which come class by class, drawn by the seed and in the order of the draw.
ImageSet some_images(const DataFlags& flags,
                     const ImageSet& set,
                     std::int64_t n,
                     std::uint64_t seed);

/// The test part. ValueError unless its images have the shape of `train`: now, not after training.
ImageSet load_test(const DataFlags& flags, const ImageSet& train);

/// The training part, with images held out: the last --val ones of a public set, a stratified share
/// of own data. Without --val at most a tenth. ValueError if none remain to train on.
HeldOut load_training(const DataFlags& flags);

}  // namespace capsfw::apps

#pragma once
// CIFAR-10 and CIFAR-100 in their binary form: records of one label byte (CIFAR-100: the coarse,
// then the fine one) and 3072 bytes, 32 x 32 pixels of red, then green, then blue (Krizhevsky 2009,
// Learning Multiple Layers of Features from Tiny Images).

#include <filesystem>
#include <string>
#include <vector>

#include <capsfw/data/dataset.hpp>

namespace capsfw {

/// Reads data_batch_1.bin to data_batch_5.bin or test_batch.bin, each plain or with ".gz", and the
/// names in batches.meta.txt (if there is none: the official ones) from the folder with all six
/// that resolve_dataset("cifar10", ...) finds. Images [3, 32, 32]. IoError if they are missing or
/// bad.
ImageSet load_cifar10(Split split);

/// Reads train.bin or test.bin and the 100 names in fine_label_names.txt (if there is none:
/// numbers), as found by resolve_dataset("cifar100", ...). The labels are the fine ones.
ImageSet load_cifar100(Split split);

/// Reads files of records one after another: `label_bytes` bytes, of which the last one is the
/// class, then an image. IoError naming file and rule: a length that is no whole number of records
/// (a record is cut off), no record, a label without a name, damaged gzip, above 4 GiB.
ImageSet load_cifar_files(const std::vector<std::filesystem::path>& files,
                          int label_bytes,
                          std::vector<std::string> class_names);

}  // namespace capsfw

#pragma once
// What is fuzzed: every reader of files, each as a function of the bytes of one file that says
// whether they were read. A bad file makes an IoError, which is caught inside; any other exception,
// lack of memory too, and everything that a sanitizer sees, is a finding.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace capsfw::fuzz {

using Bytes = std::span<const std::uint8_t>;

bool idx(Bytes file);          ///< read_idx, to_tensor
bool gzip(Bytes file);         ///< read_idx of packed files
bool npy(Bytes file);          ///< load_npy
bool npz(Bytes file);          ///< load_npz
bool safetensors(Bytes file);  ///< load_safetensors
bool csv(Bytes file);          ///< load_csv with a separator of either kind
bool text(Bytes file);         ///< the first byte picks load_text, read_lines or Vocabulary::load
bool textset(
    Bytes file);  ///< load_text of parts(); the first byte picks a FILE.tsv or a public set
bool vectors(Bytes file);     ///< load_word_vectors; the first byte picks the format
bool image(Bytes file);       ///< load_image, of PNG files with checksums put right
bool idximages(Bytes file);   ///< load_idx_images of two parts()
bool cifar(Bytes file);       ///< load_cifar_files; the first byte picks the bytes of a label
bool norb(Bytes file);        ///< read_norb_matrix, or load_norb_files of three parts()
bool npzimages(Bytes file);   ///< load_npz_images
bool csvimages(Bytes file);   ///< load_csv_images
bool folder(Bytes file);      ///< load_image_folder; parts() are names and files in turn
bool checkpoint(Bytes file);  ///< CheckpointFolder::load, and save of what a file holds
bool classifier(Bytes file);  ///< apps::load_classifier, and one image through the network
bool textmodel(Bytes file);   ///< apps::load_text_model of two parts(), weights and vocabulary

struct Target {
  std::string_view name;
  bool (*run)(Bytes);
  int cost = 1;  ///< about how many times as long as the others: folders of real files
};
inline constexpr Target kTargets[] = {{"idx", idx},
                                      {"gzip", gzip},
                                      {"npy", npy},
                                      {"npz", npz},
                                      {"safetensors", safetensors},
                                      {"csv", csv},
                                      {"text", text},
                                      {"textset", textset, 4},
                                      {"vectors", vectors},
                                      {"image", image},
                                      {"idximages", idximages, 4},
                                      {"cifar", cifar},
                                      {"norb", norb, 4},
                                      {"npzimages", npzimages},
                                      {"csvimages", csvimages},
                                      {"folder", folder, 4},
                                      {"checkpoint", checkpoint, 4},
                                      {"classifier", classifier},
                                      {"textmodel", textmodel, 4}};

using Reader = std::function<void(const std::filesystem::path&)>;

/// Calls read(path of a file with these bytes); the file is in memory. False for an IoError.
bool with_file(Bytes bytes, const Reader& read);

using NamedBytes = std::pair<std::filesystem::path, Bytes>;

/// The same for a folder with files; names that lead out of it are passed over.
bool with_folder(const std::vector<NamedBytes>& files, const Reader& read);

/// Several files in one: before each part two bytes with its length, the lower one first; the last
/// one may be shorter.
std::vector<Bytes> parts(Bytes bytes);

}  // namespace capsfw::fuzz

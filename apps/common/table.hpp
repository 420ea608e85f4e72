#pragma once
// Matrices of numbers in files, as the programs take and give them.

#include <filesystem>
#include <string>
#include <vector>

#include <capsfw/core/tensor.hpp>

namespace capsfw::apps {

/// The matrix in a file: .csv, .tsv (tabs) or .npy, f64 [rows, columns]; [N] is a column. IoError
/// as load_csv and load_npy; ValueError for another ending, another rank, a matrix without
/// elements, or a NaN or an infinity, with its place.
Tensor load_matrix(const std::filesystem::path& path);

/// Writes [N] or [N, D] as .csv or .npy, by the ending; `names` are the columns of a CSV.
void save_matrix(const std::filesystem::path& path,
                 const Tensor& values,
                 const std::vector<std::string>& names = {});

}  // namespace capsfw::apps

#pragma once
// Tables of numbers as text: comma-separated values (RFC 4180).

#include <filesystem>
#include <string>
#include <vector>

#include <capsfw/core/tensor.hpp>

namespace capsfw {

/// A table of numbers.
struct CsvTable {
  std::vector<std::string> names;  ///< of the columns; empty if the file has no header
  Tensor values;                   ///< f64 [rows, columns]
};

/// Reads a table of numbers. The first line is a header if none of its fields is a number. Fields
/// may stand in quotes ("" is a quote in them), numbers may have spaces around and read "nan" and
/// "inf"; empty lines are skipped; lines end with LF or CR LF. IoError naming the file, line and
/// column for a field that is no number, a number outside the range of a double, a line of another
/// length than the first or of more than 2^20 fields, an open quote; and for a file without numbers
/// or above 1 GiB. ValueError for a separator that stands in numbers, quotes or ends of lines: a
/// letter, a digit, one of + - . " or CR or LF.
CsvTable load_csv(const std::filesystem::path& path, char separator = ',');

/// Writes [N] (one column) or [N, D], with the fewest digits from which the same numbers come back,
/// below a line of names if there are any. The file appears complete or not at all (AtomicFile).
/// ShapeError for another rank or number of names, without any number, and for more than 2^20
/// columns, which load_csv would not take; ValueError for a name that reads as a number, since
/// load_csv would take the line for one of numbers, and for a separator that load_csv would not
/// take; IoError if the file cannot be written.
void save_csv(const std::filesystem::path& path,
              const Tensor& values,
              const std::vector<std::string>& names = {},
              char separator = ',');

}  // namespace capsfw

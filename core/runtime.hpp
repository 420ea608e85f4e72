#pragma once
// What the library runs on.

#include <string>
#include <vector>

namespace capsfw {

/// Facts about this process, for the first line of a program.
struct RuntimeInfo {
  std::string version;       ///< of capsfw
  std::string cpu;           ///< model name
  std::string instructions;  ///< vector instructions of our kernels: baseline, avx2, avx512
  int threads = 1;           ///< see num_threads()
  std::string blas;          ///< kernels that OpenBLAS chose
  std::vector<std::string> warnings;  ///< what holds the machine back, each with its cure
  /// One line: "capsfw 0.1.0 | 2 threads | avx512 | OpenBLAS SkylakeX | Intel(R) ...".
  std::string str() const;
};

/// What the library found and chose on this machine.
RuntimeInfo runtime_info();

}  // namespace capsfw

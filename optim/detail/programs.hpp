#pragma once
// Private: what a process runs, to be compared with what others run.

#include <map>
#include <string>

namespace capsfw::detail {

/// Size and hash of the program's own file, and of the shared libraries that compute (capsfw, BLAS,
/// libm), by "the program" and "the library NAME"; "" where the system does not say.
std::map<std::string, std::string> programs();

}  // namespace capsfw::detail

// What libFuzzer calls: one program for each target, CAPSFW_FUZZ_TARGET.

#include "targets.hpp"

// The name is libFuzzer's.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,  // NOLINT
                                      std::size_t size) {
  capsfw::fuzz::CAPSFW_FUZZ_TARGET({data, size});
  return 0;
}

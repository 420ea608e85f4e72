# What nearly every file reads is parsed once for each target, which saves a third of the time of a build. Not
# beside a compiler launcher: ccache would have to be told to trust such a header.
set(default ON)
if(CMAKE_CXX_COMPILER_LAUNCHER)
  set(default OFF)
endif()
option(CAPSFW_PRECOMPILE "Parse common headers once for each target" ${default})

# capsfw_precompile(TARGET [HEADER...]): with these besides.
function(capsfw_precompile target)
  if(CAPSFW_PRECOMPILE)
    target_precompile_headers(${target} PRIVATE <algorithm> <cmath> <functional> <memory> <string> <vector>
                              <fmt/format.h> <capsfw/core/tensor.hpp> ${ARGN})
    if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
      # It forgets then which headers are the system's, and warns of what it has made of std::string itself.
      target_compile_options(${target} PRIVATE -Wno-stringop-overflow)
    endif()
  endif()
endfunction()

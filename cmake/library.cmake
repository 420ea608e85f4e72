# One library. Each folder is an object library of its own, so that a folder can be built alone.
set(CAPSFW_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wcast-align)
if(CAPSFW_WERROR)
  list(APPEND CAPSFW_WARNINGS -Werror)
endif()

# Loops with sqrt or comparisons vectorise only if the compiler need not set errno or raise floating-point
# exceptions for each element. Values are not affected: NaN and infinity keep their IEEE meaning.
set(CAPSFW_VECTOR_FLAGS -fno-math-errno -fno-trapping-math)
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  # The smaller alignment of vectors in memory (ops/kernels/lanes.hpp) does not reach clang through the
  # parameters of a template, and it would load them as if they were aligned.
  list(APPEND CAPSFW_VECTOR_FLAGS -fmax-type-align=8)
endif()

# What nearly every file reads is parsed once for each folder and each test program: clang takes half of the time for a
# test.
# Not beside ccache, which would have to be told to trust such a header; and not for the library by GCC, which forgets
# which headers are the system's and then says, wrongly, that its own std::string is out of bounds.
set(precompile ON)
if(CMAKE_CXX_COMPILER_LAUNCHER)
  set(precompile OFF)
endif()
option(CAPSFW_PRECOMPILE "Parse common headers once, not for each file" ${precompile})
set(CAPSFW_COMMON_HEADERS <algorithm> <cmath> <functional> <memory> <string> <vector> <fmt/format.h>
                          <capsfw/core/grad.hpp> <capsfw/core/node.hpp>)

add_library(capsfw)
add_library(capsfw::capsfw ALIAS capsfw)
foreach(folder core ops layers optim data)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.cpp)
  list(FILTER sources EXCLUDE REGEX "/optim/mpi/") # see mpi.cmake
  if(NOT sources)
    continue()
  endif()
  add_library(capsfw_${folder} OBJECT ${sources})
  set_target_properties(capsfw_${folder} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_compile_features(capsfw_${folder} PUBLIC cxx_std_20)
  target_compile_options(capsfw_${folder} PRIVATE ${CAPSFW_WARNINGS} ${CAPSFW_VECTOR_FLAGS})
  if(NOT CAPSFW_SIMD)
    target_compile_definitions(capsfw_${folder} PRIVATE CAPSFW_NO_SIMD)
  endif()
  target_include_directories(capsfw_${folder} PRIVATE ${CAPSFW_INCLUDE_DIR})
  target_link_libraries(capsfw_${folder} PRIVATE fmt::fmt)
  if(CAPSFW_PRECOMPILE AND CMAKE_CXX_COMPILER_ID MATCHES Clang)
    target_precompile_headers(capsfw_${folder} PRIVATE ${CAPSFW_COMMON_HEADERS})
  endif()
  target_sources(capsfw PRIVATE $<TARGET_OBJECTS:capsfw_${folder}>)
endforeach()
target_link_libraries(capsfw_core PRIVATE TBB::tbb)
target_include_directories(capsfw_core PRIVATE ${CAPSFW_CBLAS_DIR})
if(TARGET capsfw_data)
  target_include_directories(capsfw_data SYSTEM PRIVATE ${CAPSFW_STB_DIR})
  target_link_libraries(capsfw_data PRIVATE ZLIB::ZLIB nlohmann_json::nlohmann_json)
  # stb multiplies coefficients of a JPEG as int, and what a file wants may overflow: defined this way.
  set_source_files_properties(${PROJECT_SOURCE_DIR}/data/image.cpp PROPERTIES COMPILE_OPTIONS -fwrapv
                              SKIP_PRECOMPILE_HEADERS ON)
endif()

if(TARGET capsfw_optim)
  target_link_libraries(capsfw_optim PRIVATE nlohmann_json::nlohmann_json)
endif()

target_compile_features(capsfw PUBLIC cxx_std_20)
target_include_directories(capsfw PUBLIC $<BUILD_INTERFACE:${CAPSFW_INCLUDE_DIR}>
                                         $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(capsfw PRIVATE TBB::tbb capsfw::openblas fmt::fmt ZLIB::ZLIB Threads::Threads)
# Until 1.0 a minor version may change what programs link to, so the name of a shared library has both.
set_target_properties(capsfw PROPERTIES VERSION ${PROJECT_VERSION}
                                        SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})

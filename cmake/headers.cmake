# The public headers: one list, from which in-tree forwarders are made, so that the same
# #include <capsfw/core/tensor.hpp> works in the source tree and once installed. A header that is not
# listed here is private: no program can reach it.
set(CAPSFW_PUBLIC_HEADERS
    core/allocator.hpp core/backward_listener.hpp core/debug.hpp core/dot.hpp core/dtype.hpp core/error.hpp core/grad.hpp
    core/node.hpp core/observer.hpp core/parallel.hpp core/random.hpp core/replay.hpp core/runtime.hpp
    core/shape.hpp core/state_dict.hpp core/storage.hpp core/tensor.hpp core/vspace.hpp)
file(GLOB CAPSFW_UPPER_HEADERS RELATIVE ${PROJECT_SOURCE_DIR} CONFIGURE_DEPENDS
     ${PROJECT_SOURCE_DIR}/ops/*.hpp ${PROJECT_SOURCE_DIR}/layers/*.hpp ${PROJECT_SOURCE_DIR}/optim/*.hpp
     ${PROJECT_SOURCE_DIR}/data/*.hpp)
list(APPEND CAPSFW_PUBLIC_HEADERS ${CAPSFW_UPPER_HEADERS})

set(CAPSFW_INCLUDE_DIR ${PROJECT_BINARY_DIR}/include)
set(umbrella "#pragma once\n// All public headers of capsfw.\n\n")
foreach(header IN LISTS CAPSFW_PUBLIC_HEADERS)
  file(CONFIGURE OUTPUT ${CAPSFW_INCLUDE_DIR}/capsfw/${header}
       CONTENT "#pragma once\n#include \"${PROJECT_SOURCE_DIR}/${header}\"\n")
  string(APPEND umbrella "#include <capsfw/${header}>\n")
endforeach()
string(APPEND umbrella "#include <capsfw/core/version.hpp>\n")
file(CONFIGURE OUTPUT ${CAPSFW_INCLUDE_DIR}/capsfw/capsfw.hpp CONTENT "${umbrella}")
file(CONFIGURE OUTPUT ${CAPSFW_INCLUDE_DIR}/capsfw/core/version.hpp
     CONTENT "#pragma once\n#define CAPSFW_VERSION \"${PROJECT_VERSION}\"\n")

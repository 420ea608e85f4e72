# Debian's packages, nothing else: libopenblas-dev libtbb-dev libfmt-dev zlib1g-dev nlohmann-json3-dev
# libstb-dev; apps also libcli11-dev, tests doctest-dev. See scripts/install-deps.sh.
# GLOBAL: a project that has us as a subfolder links what our library links.
find_package(TBB REQUIRED GLOBAL)
find_package(fmt REQUIRED GLOBAL)
find_package(ZLIB REQUIRED GLOBAL)
find_package(nlohmann_json REQUIRED)
find_package(Threads REQUIRED GLOBAL)

include(${CMAKE_CURRENT_LIST_DIR}/openblas.cmake)
if(NOT TARGET capsfw::openblas)
  message(FATAL_ERROR "capsfw needs OpenBLAS (Debian: libopenblas-dev)")
endif()
# Debian keeps the headers of OpenBLAS apart from those of other BLAS packages.
find_path(CAPSFW_CBLAS_DIR cblas.h PATH_SUFFIXES ${CMAKE_LIBRARY_ARCHITECTURE}/openblas-pthread openblas REQUIRED)
find_path(CAPSFW_STB_DIR stb_image.h PATH_SUFFIXES stb REQUIRED)
mark_as_advanced(CAPSFW_CBLAS_DIR CAPSFW_STB_DIR)

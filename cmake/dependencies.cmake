# Debian's packages, nothing else: libopenblas-dev libtbb-dev libfmt-dev zlib1g-dev nlohmann-json3-dev
# libstb-dev; apps also libcli11-dev, tests doctest-dev. See scripts/install-deps.sh.
find_package(TBB REQUIRED)
find_package(fmt REQUIRED)
find_package(ZLIB REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(Threads REQUIRED)

set(BLA_VENDOR OpenBLAS)
find_package(BLAS REQUIRED)
# Debian keeps the headers of OpenBLAS apart from those of other BLAS packages.
find_path(CAPSFW_CBLAS_DIR cblas.h PATH_SUFFIXES ${CMAKE_LIBRARY_ARCHITECTURE}/openblas-pthread openblas REQUIRED)
find_path(CAPSFW_STB_DIR stb_image.h PATH_SUFFIXES stb REQUIRED)

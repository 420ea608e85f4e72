# capsfw::mpi: the processes that mpirun has started train together (optim/mpi_ranks.hpp). A library of its
# own, so that capsfw links no MPI. Without MPI it exists as well, and says what is missing.
option(CAPSFW_MPI "Use MPI where it is found (Debian: libopenmpi-dev)" ON)
if(CAPSFW_MPI)
  set(MPI_CXX_SKIP_MPICXX ON) # the C interface is all that is needed
  find_package(MPI QUIET GLOBAL COMPONENTS CXX)
endif()

add_library(capsfw_mpi STATIC ${PROJECT_SOURCE_DIR}/optim/mpi/launched.cpp)
add_library(capsfw::mpi ALIAS capsfw_mpi)
set_target_properties(capsfw_mpi PROPERTIES EXPORT_NAME mpi POSITION_INDEPENDENT_CODE ON)
target_compile_options(capsfw_mpi PRIVATE ${CAPSFW_WARNINGS})
target_link_libraries(capsfw_mpi PUBLIC capsfw PRIVATE $<BUILD_INTERFACE:fmt::fmt>)
if(MPI_CXX_FOUND)
  set(CAPSFW_WITH_MPI ON)
  target_sources(capsfw_mpi PRIVATE ${PROJECT_SOURCE_DIR}/optim/mpi/mpi_ranks.cpp)
  target_link_libraries(capsfw_mpi PRIVATE MPI::MPI_CXX)
else()
  set(CAPSFW_WITH_MPI OFF)
  message(STATUS "MPI is not there (libopenmpi-dev): programs train as one process only")
  target_sources(capsfw_mpi PRIVATE ${PROJECT_SOURCE_DIR}/optim/mpi/no_mpi.cpp)
endif()

// In place of mpi_ranks.cpp where there is no MPI.

#include <capsfw/core/error.hpp>
#include <capsfw/optim/mpi_ranks.hpp>

namespace capsfw {

std::unique_ptr<Ranks> mpi_ranks(MpiOptions) {
  throw ValueError(
      "mpi_ranks: this build of capsfw has no MPI, and cannot join the processes that were started "
      "together. Hint: install it (Debian: libopenmpi-dev openmpi-bin) and build again");
}

}  // namespace capsfw

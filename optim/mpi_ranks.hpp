#pragma once
// Ranks over MPI: the processes that mpirun, srun and their kind have started. Link capsfw::mpi.

#include <memory>

#include <capsfw/optim/ranks.hpp>

namespace capsfw {

/// Options of mpi_ranks.
struct MpiOptions {
  double timeout = 60;  ///< seconds without an answer after which a rank counts as lost
};

/// Ranks that a launcher has started this process with, by what mpirun or srun leave in the
/// environment; 0 without one.
int launched_ranks();

/// All processes of MPI_COMM_WORLD. Starts MPI, which nothing else in the process may use; the
/// thread that calls this makes all further calls. End it by finish(); a process that goes without
/// ends the others, too. ValueError if this build has no MPI or the timeout is not positive,
/// RankError where MPI fails.
std::unique_ptr<Ranks> mpi_ranks(MpiOptions options = {});

}  // namespace capsfw

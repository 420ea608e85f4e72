#include <charconv>
#include <cstdlib>
#include <cstring>

#include <capsfw/optim/mpi_ranks.hpp>

namespace capsfw {

int launched_ranks() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"})
    if (const char* text = std::getenv(name)) {
      int n = 1;
      std::from_chars(text, text + std::strlen(text), n);
      return n;
    }
  // PMIx says the rank only; Slurm, which starts processes by it, says how many there are.
  const char* tasks = std::getenv("SLURM_STEP_NUM_TASKS");
  if (std::getenv("PMIX_RANK") == nullptr) return 0;
  if (tasks == nullptr) return 1;
  int n = 1;
  std::from_chars(tasks, tasks + std::strlen(tasks), n);
  return n;
}

}  // namespace capsfw

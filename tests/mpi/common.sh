#!/usr/bin/env bash
# What the tests on several processes share: those of tests/cli, mpirun, and a limit for everything.
#   NAME.sh BIN     BIN: folder of the programs
source "$(dirname "${BASH_SOURCE[0]}")/../cli/common.sh"
command -v mpirun >/dev/null || { echo "no mpirun. Hint: scripts/install-deps.sh mpi" && exit 77; }
# As root, in containers that forbid a process to read another one's memory, on fewer cores than ranks.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
# The last one: mpirun shares no lock with ranks, which may be killed while they hold it (docs/distributed.md).
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none PMIX_MCA_gds=hash
# Never a hang: more than any of this takes, in programs of the sanitizers on a slow machine too.
limit=200
ranks() { timeout -k 5 $limit mpirun -np "$@"; }

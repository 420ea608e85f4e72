#!/usr/bin/env bash
# Builds the bench if needed and runs it; arguments go to it (--help, --list, --filter routing,
# --against-torch, --json). The build speaks on stderr, so that stdout is what was measured.
set -euo pipefail
cd "$(dirname "$0")/.."

{
  scripts/install-deps.sh build
  scripts/build.sh release bench
} >&2
# Either variable can halve the speed of OpenBLAS.
exec env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE build/release/bin/bench "$@"

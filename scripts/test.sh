#!/usr/bin/env bash
# Installs what is missing, builds everything and runs all tests but the nightly ones. Arguments go to
# ctest (for example -R routing, or -L fast). CAPSFW_PRESET chooses another preset: asan, dev.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${CAPSFW_PRESET:-release}

scripts/install-deps.sh build test data
[ "$preset" != asan ] || scripts/install-deps.sh clang  # whose sanitizers see more
scripts/build.sh "$preset"
exec ctest --preset "$preset" --no-tests=error --parallel "$(nproc)" "$@"

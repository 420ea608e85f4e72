#!/usr/bin/env bash
# Installs what is missing, builds everything and runs all tests but the nightly ones. Arguments go to
# ctest (for example -R routing, or -L fast). CAPSFW_PRESET chooses another preset: asan, fuzz, dev.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${CAPSFW_PRESET:-release}

scripts/install-deps.sh build test data
case $preset in asan | fuzz | clang) scripts/install-deps.sh clang ;; esac
scripts/build.sh "$preset"
exec ctest --preset "$preset" --no-tests=error --parallel "$(nproc)" "$@"

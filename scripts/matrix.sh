#!/usr/bin/env bash
# Builds and tests the library in ways that one build does not show: scripts/matrix.sh [WAY...]
#   clang    by clang 14, programs too; the fast tests
#   nosimd   without CAPSFW_SIMD: no header of intrinsics is read and no wide register used; all ops, golden
#   shared   as a shared library, in the hands of its consumers
#   tsan     under the thread sanitizer: the tests of core, data and optim
# Without arguments: clang nosimd shared.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "matrix.sh: FAILED: $*" >&2
  exit 1
}

clang() {
  scripts/install-deps.sh clang
  scripts/build.sh clang
  ctest --preset clang -L fast --parallel "$(nproc)"
}

nosimd() {
  scripts/build.sh nosimd capsfw capsfw_golden capsfw_test_ops
  scripts/no-intrinsics.sh build/nosimd
  ctest --preset nosimd -R '^(golden|ops: )' --parallel "$(nproc)"
}

shared() {
  scripts/build.sh shared capsfw
  scripts/consumer.sh --build build/shared
}

tsan() {
  scripts/build.sh tsan capsfw_test_core capsfw_test_data capsfw_test_optim
  ctest --preset tsan -R '^(core|data|optim):' --parallel "$(nproc)"
}

[ $# -gt 0 ] || set -- clang nosimd shared
for way in "$@"; do
  case $way in
  clang | nosimd | shared | tsan) ;;
  -h | --help) sed -n '2,7s/^# //p' scripts/matrix.sh && exit 0 ;;
  *) echo "matrix.sh: unknown way '$way': clang, nosimd, shared, tsan" >&2 && exit 2 ;;
  esac
done
scripts/install-deps.sh build test
for way in "$@"; do
  echo "== $way"
  "$way"
done

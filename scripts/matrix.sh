#!/usr/bin/env bash
# Builds and tests the library in ways that one build does not show: scripts/matrix.sh [WAY...]
#   clang    by clang 14, programs too; the fast tests
#   nosimd   without CAPSFW_SIMD: no header of intrinsics is read and no wide register used; all ops, golden
#   shared   as a shared library, in the hands of its consumers
#   tsan     under the thread sanitizer: the tests of core, data and optim, networks and layers on several threads
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

shared() (
  # Of the objects of the preset release only the link differs; whatever happens, it is put back.
  scripts/build.sh release
  prefix=$(mktemp -d)
  trap 'rm -rf "$prefix"; cmake --preset release -D BUILD_SHARED_LIBS=OFF >/dev/null' EXIT
  cmake --preset release -D BUILD_SHARED_LIBS=ON >/dev/null
  cmake --build --preset release --target capsfw capsfw_apps_common
  cmake --install build/release --prefix "$prefix" >/dev/null
  find "$prefix" -name 'libcapsfw.so*' | grep -q . || fail "no shared library in $prefix"
  scripts/consumer.sh --prefix "$prefix"
)

tsan() {
  scripts/build.sh tsan capsfw_test_{core,threads,optim,data}
  # Twice at most: what is reported of oneTBB's insides, which nobody has instrumented, varies with the timing.
  ctest --preset tsan -R '^(core|threads|data|optim):' --repeat until-pass:2 --parallel "$(nproc)"
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

#!/usr/bin/env bash
# Runs test programs under valgrind: exit status 1 for a leak or an access outside of memory.
set -euo pipefail

cd -- "$(dirname "${BASH_SOURCE[0]}")/.."
usage() {
  echo "usage: scripts/valgrind.sh [PART...] [-- DOCTEST_FLAG...]"
  echo "Parts: core ops layers threads optim data apps (default: all of them), built by the preset release and"
  echo "run by one thread with 20 to 50 times less speed than usual; flags choose among their cases:"
  echo "  scripts/valgrind.sh layers -- -tc='*routing*'"
  echo "BIN=FOLDER: test programs that are built already."
}

parts=()
while [ $# -gt 0 ]; do
  case "$1" in
  -h | --help) usage && exit 0 ;;
  --) shift && break ;;
  core | ops | layers | threads | optim | data | apps) parts+=("$1") ;;
  *) echo "valgrind.sh: '$1' is no part. Hint: scripts/valgrind.sh --help" >&2 && exit 2 ;;
  esac
  shift
done
[ ${#parts[@]} -gt 0 ] || parts=(core ops layers threads optim data apps)
command -v valgrind >/dev/null || {
  echo "valgrind.sh: valgrind is missing. Hint: apt-get install valgrind" >&2
  exit 2
}
if [ -z "${BIN:-}" ]; then
  BIN=build/release/bin
  cmake --preset release >/dev/null
  cmake --build --preset release --target "${parts[@]/#/capsfw_test_}"
fi

# valgrind 3.19 does not know AVX-512: our kernels and OpenBLAS's for older processors.
export CAPSFW_ISA=baseline OPENBLAS_CORETYPE=Haswell OPENBLAS_NUM_THREADS=1 CAPSFW_NUM_THREADS=1
failed=()
for part in "${parts[@]}"; do
  echo "== $part"
  code=0
  valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite,possible \
    --suppressions=tests/valgrind.supp "$BIN/capsfw_test_$part" "$@" || code=$?
  # Some tests wait for each other, or measure memory: they may fail here, and prove themselves elsewhere.
  [ $code -ne 9 ] || failed+=("$part")
  [ $code -eq 0 ] || [ $code -eq 9 ] || echo "note: tests of $part failed (exit code $code), without a finding of valgrind"
done
[ ${#failed[@]} -eq 0 ] || { echo "valgrind.sh: findings of ${failed[*]}" >&2 && exit 1; }
echo "valgrind.sh: no finding"

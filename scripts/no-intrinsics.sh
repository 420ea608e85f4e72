#!/usr/bin/env bash
# Says whether a build without CAPSFW_SIMD keeps its promise: no header of intrinsics is read, and no
# instruction of the library uses a register wider than the baseline of x86-64 has.
#   scripts/no-intrinsics.sh BUILD
set -euo pipefail
build=${1:-}
case $build in
'' | -h | --help) sed -n '2,4s/^# //p' "$0" && exit $((${#build} == 0 ? 2 : 0)) ;;
esac

fail() {
  echo "no-intrinsics.sh: FAILED: $*" >&2
  exit 1
}
grep -qs '^CAPSFW_SIMD:BOOL=OFF' "$build/CMakeCache.txt" || fail "$build is no build with CAPSFW_SIMD=OFF"
# oneTBB, in its one file, reads the intrinsics for a pause instruction.
readers=$(ninja -C "$build" -t deps | awk '/: #deps/ { file = $1 } /intrin\.h$/ { print file }' | sort -u |
  grep -v 'core/parallel\.cpp' || true)
[ -z "$readers" ] || fail "intrinsics are read by" "$readers"
wide=$(objdump -d "$build/libcapsfw.a" | grep -cE '%[yz]mm' || true)
[ "$wide" = 0 ] || fail "$wide instructions use wide vectors"
echo "no-intrinsics.sh: none in $build"

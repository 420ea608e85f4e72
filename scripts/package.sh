#!/usr/bin/env bash
# Makes the Debian package of the library, libcapsfw-dev_VERSION_ARCH.deb.
#   scripts/package.sh [--build DIR] [--out DIR] [--check]
# --build DIR  what is built there (default: builds the preset release)
# --out DIR    where the package goes (default: out)
# --check      unpacks it, without root, and builds programs against that (scripts/consumer.sh)
set -euo pipefail
here=$PWD
cd "$(dirname "$0")/.."

usage() { sed -n '2,6s/^# //p' scripts/package.sh; }
build='' out=out check=''
while [ $# -gt 0 ]; do
  case $1 in
  -h | --help) usage && exit 0 ;;
  --build) build=$(cd "$here" && cd "${2:?package.sh: --build wants a folder}" && pwd) && shift ;;
  --out) out=$(cd "$here" && realpath -m "${2:?package.sh: --out wants a folder}") && shift ;;
  --check) check=1 ;;
  *) usage >&2 && exit 2 ;;
  esac
  shift
done
if [ -z "$build" ]; then
  scripts/install-deps.sh build
  scripts/build.sh release
  build=build/release
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cpack --config "$build/CPackConfig.cmake" -B "$work" >"$work/said" 2>&1 || { cat "$work/said" >&2 && exit 1; }
mkdir -p "$out"
deb=$out/$(basename "$work"/*.deb)
mv "$work"/*.deb "$deb"
echo "$deb"

if [ -n "$check" ]; then
  dpkg-deb -x "$deb" "$work/unpacked"
  dpkg-deb -f "$deb" Depends
  scripts/consumer.sh --prefix "$work/unpacked/usr"
fi

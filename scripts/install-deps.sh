#!/usr/bin/env bash
# Installs the Debian packages that are missing. Asks for nothing; does nothing when all are there.
#   scripts/install-deps.sh [build] [test] [data] [fetch] [lint] [docs] [clang] [browser] [mpi]
set -euo pipefail

build=(g++ cmake ninja-build libopenblas-dev libopenblas-pthread-dev libtbb-dev libfmt-dev zlib1g-dev nlohmann-json3-dev libstb-dev libcli11-dev)
test=(doctest-dev pkg-config)
data=(dataset-fashion-mnist)
fetch=(curl ca-certificates)                # scripts/get-data.sh
lint=(clang-format-14)
clang=(clang-14 libclang-rt-14-dev)
docs=(doxygen pandoc)
mpi=(libopenmpi-dev openmpi-bin)           # optional: several processes that train together
browser=(chromium chromium-driver python3)  # tests of the pages that programs write

wanted=()
for part in "${@:-build}"; do
  case $part in
  build | test | data | fetch | lint | clang | docs | mpi | browser) declare -n list="$part" ;;
  -h | --help) sed -n '2,3s/^# //p' "$0" && exit 0 ;;
  *) echo "install-deps: no part '$part'; there are build, test, data, fetch, lint, docs, clang, browser, mpi" >&2 && exit 2 ;;
  esac
  wanted+=("${list[@]}")
done

missing=()
for package in "${wanted[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "install-deps: needs root or sudo to install: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null

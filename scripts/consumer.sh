#!/usr/bin/env bash
# Builds and runs programs outside of the source tree, in a temporary folder, as a user would: by
# find_package, by pkg-config, two programs of apps/, and with the sources as a subfolder.
#   scripts/consumer.sh --build DIR [--full]   installs what is built in DIR to a prefix, and moves that
#   scripts/consumer.sh --prefix DIR           takes an installed prefix (/usr, an unpacked package)
# --full builds the whole library in the subfolder, and not only a part of it. CXX is the compiler.
set -euo pipefail
root=$(CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() { sed -n '2,7s/^# //p' "${BASH_SOURCE[0]}"; }
build='' prefix='' full=''
while [ $# -gt 0 ]; do
  case $1 in
  -h | --help) usage && exit 0 ;;
  --build | --prefix)
    [ -d "${2:-}" ] || { echo "consumer.sh: $1 wants a folder; got '${2:-}'" >&2 && exit 2; }
    declare "${1#--}=$(cd "$2" && pwd)"
    shift
    ;;
  --full) full=1 ;;
  *) usage >&2 && exit 2 ;;
  esac
  shift
done
[ -n "$build$prefix" ] || { usage >&2 && exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
  echo "consumer.sh: FAILED: $*" >&2
  exit 1
}
step() { printf '== %s\n' "$*"; }
quietly() { "$@" >"$work/said" 2>&1 || { cat "$work/said" >&2 && fail "$*"; }; }

if [ -n "$build" ]; then
  step "install and move"
  quietly cmake --install "$build" --prefix "$work/installed"
  prefix=$work/moved
  mv "$work/installed" "$prefix"
  if grep -rlIF -e "$root" -e "$build" -e "$work" "$prefix"; then fail "these name paths of the build"; fi
  diff <(cd "$build/include" && find . -name '*.hpp' | sort) \
    <(cd "$prefix/include" && find . -name '*.hpp' ! -path './capsfw/apps/*' | sort) ||
    fail "the installed headers are not the public ones"
fi
libdir=$(dirname "$(find "$prefix" -path '*/cmake/capsfw/capsfw-config.cmake' | head -n 1)")/../..
[ -f "$libdir/pkgconfig/capsfw.pc" ] || fail "no CMake package or no pkg-config file in $prefix"
if [ "$prefix" != /usr ]; then
  export CMAKE_PREFIX_PATH=$prefix PKG_CONFIG_PATH=$libdir/pkgconfig LD_LIBRARY_PATH=$libdir
fi

# project NAME FILE...: a folder of its own with copies of the files.
project() {
  mkdir "$work/$1" && cd "$work/$1"
  shift
  cp "$@" .
}
configure() { quietly cmake -G Ninja -B build -D CMAKE_BUILD_TYPE=Debug; }

step "find_package"
project find_package "$root"/tests/consumer/{find_package/CMakeLists.txt,program.cpp}
configure
quietly cmake --build build
build/rings

step "pkg-config"
project pkg_config "$root/tests/consumer/program.cpp"
CXX=${CXX:-g++}
# [pkg_config]
$CXX -std=c++20 program.cpp -o rings $(pkg-config --cflags --libs capsfw)
# [pkg_config]
./rings

step "programs of apps/, unchanged"
if [ -d "$prefix/include/capsfw/apps" ] || grep -qs '^CAPSFW_BUILD_APPS:BOOL=ON' "$build/CMakeCache.txt"; then
  project apps "$root"/tests/consumer/apps/CMakeLists.txt "$root"/apps/{lesson_1_tensors,train_capsnet}.cpp
  configure
  quietly cmake --build build
  quietly build/lesson_1_tensors
  quietly build/train_capsnet --help
else
  echo "built without them"
fi

if [ -n "$build" ]; then
  step "subfolder"
  project subdirectory "$root"/tests/consumer/{subdirectory/CMakeLists.txt,program.cpp}
  ln -s "$root" capsfw
  cat >>CMakeLists.txt <<'CHECKS'
  foreach(target train_capsnet capsfw_test_core capsfw_apps_common)
    if(TARGET ${target})
      message(FATAL_ERROR "a subfolder builds ${target}")
    endif()
  endforeach()
  foreach(variable CMAKE_CXX_STANDARD CMAKE_CXX_EXTENSIONS BLA_VENDOR CMAKE_RUNTIME_OUTPUT_DIRECTORY)
    if(DEFINED ${variable})
      message(FATAL_ERROR "a subfolder sets ${variable}")
    endif()
  endforeach()
CHECKS
  configure
  if [ -n "$full" ]; then
    quietly cmake --build build
    build/rings
  else
    quietly cmake --build build --target capsfw_optim CMakeFiles/rings.dir/program.cpp.o
  fi
fi
echo "consumer.sh: all passed"

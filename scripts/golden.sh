#!/usr/bin/env bash
# Builds the golden runner if needed and runs it on a folder of cases; its closing line and its exit
# status are the runner's.
set -euo pipefail

usage() {
  echo "usage: scripts/golden.sh DIR [--only PATTERN] [--skip-unknown] [--verbose]"
  echo "Computes every case DIR/theme.case.safetensors with the library, in float64 and float32, and"
  echo "compares it with the values, gradients and second derivatives stored in the case. A case that"
  echo "gives an input or hyper-parameter that its kind does not read fails; so does one of unknown kind,"
  echo "unless --skip-unknown."
}

case "${1:-}" in
-h | --help) usage && exit 0 ;;
"" | -*) usage >&2 && exit 2 ;;
esac
root=$(CDPATH= cd -- "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
[ -d "$1" ] || { echo "golden.sh: '$1' is not a folder" >&2 && exit 1; }
cases=$(CDPATH= cd -- "$1" && pwd)
shift

{
  "$root/scripts/install-deps.sh" build test
  "$root/scripts/build.sh" release capsfw_golden
} >&2
exec "$root/build/release/bin/capsfw_golden" --cases "$cases" "$@"

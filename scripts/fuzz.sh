#!/usr/bin/env bash
# Fuzzes the readers of files with libFuzzer; exit status 1 for a finding.
set -euo pipefail

cd -- "$(dirname "${BASH_SOURCE[0]}")/.."
mapfile -t all < <(cd tests/fuzz/corpus && ls)
usage() {
  echo "usage: scripts/fuzz.sh [TARGET...] [--seconds N] [--jobs N]"
  echo "Builds the preset fuzz (clang 14) and runs each target for N seconds (default 60), as many at"
  echo "once as --jobs says (default: one for each processor). Inputs that reach new code stay in"
  echo "build/fuzz/corpus, findings in build/fuzz/findings: fix, then put the bytes into"
  echo "tests/fuzz/corpus/TARGET. CAPSFW_FUZZ_FLAGS has more flags for libFuzzer."
  echo "Targets: ${all[*]}"
}

seconds=60
jobs=$(nproc)
targets=()
while [ $# -gt 0 ]; do
  case "$1" in
  -h | --help) usage && exit 0 ;;
  --seconds | --jobs)
    [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || { echo "fuzz.sh: $1 takes a whole number above 0" >&2 && exit 2; }
    declare "${1#--}=$2"
    shift
    ;;
  *)
    [[ " ${all[*]} " == *" $1 "* ]] || { echo "fuzz.sh: '$1' is no target; there are ${all[*]}" >&2 && exit 2; }
    targets+=("$1")
    ;;
  esac
  shift
done
[ ${#targets[@]} -gt 0 ] || targets=("${all[@]}")
command -v clang++-14 >/dev/null || {
  echo "fuzz.sh: clang++-14 is missing. Hint: apt-get install clang-14" >&2
  exit 2
}
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz --target "${targets[@]/#/fuzz_}"

mkdir -p build/fuzz/findings build/fuzz/logs
fuzz() {
  local target=$1 seconds=$2 largest=16384
  mkdir -p "build/fuzz/corpus/$target"
  # A file of at most 16 KiB must neither take more than 1 GiB, 512 MiB of them at once, nor 10 s; a
  # picture has at most 1024 pixels for each byte.
  [ "$target" != image ] || largest=4096
  # shellcheck disable=SC2086
  if "build/fuzz/bin/fuzz_$target" -max_total_time="$seconds" -max_len="$largest" -rss_limit_mb=1024 \
    -malloc_limit_mb=512 -timeout=10 -print_final_stats=1 -verbosity=0 -use_value_profile=1 \
    -artifact_prefix="build/fuzz/findings/$target-" ${CAPSFW_FUZZ_FLAGS:-} \
    "build/fuzz/corpus/$target" "tests/fuzz/corpus/$target" >"build/fuzz/logs/$target" 2>&1; then
    echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "build/fuzz/logs/$target") files, no finding"
  else
    tail -n 40 "build/fuzz/logs/$target"
    echo "$target: FINDING, in build/fuzz/findings"
    return 1
  fi
}
export -f fuzz
echo "== $seconds s for each of ${targets[*]}"
printf '%s\n' "${targets[@]}" | xargs -P "$jobs" -I{} bash -c 'fuzz {} '"$seconds" ||
  { echo "fuzz.sh: findings, in build/fuzz/findings" >&2 && exit 1; }
echo "fuzz.sh: no finding"

#!/usr/bin/env bash
# What all tests of programs share: they run the programs as people do, on a tiny data set that is
# written here.   PART.sh BIN     BIN: folder of the programs
set -uo pipefail
export LC_ALL=C
bin=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null; rm -rf "$work"' EXIT
cd "$work" || exit 1
export HOME=$work/home XDG_DATA_HOME=$work/home/share
mkdir -p "$XDG_DATA_HOME" data empty

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  [ -s said ] && sed 's/^/  | /' said >&2
  exit 1
}

# expect CODE COMMAND...: runs it, keeps what it says in the file `said`.
expect() {
  local code=$1 got=0
  shift
  "$@" >said 2>&1 </dev/null || got=$?
  [ "$got" = "$code" ] || fail "exit code $got, not $code: $*"
}
# in_browser SCRIPT ARGUMENT...: the last line of a test, since it ends as skipped where there is none.
in_browser() {
  command -v python3 >/dev/null || { echo "skipped: no python3; scripts/install-deps.sh browser"; exit 77; }
  python3 "$tests/browser/$1" "${@:2}"
}
says() { grep -qF -- "$1" said || fail "no '$1' in the answer"; }

# IDX: header_idx RANK LENGTH... , then the bytes.
header_idx() {
  printf '\0\0\010'"\\$(printf %o "$1")"
  shift
  for n in "$@"; do printf "\\0\\0\\$(printf %o $((n / 256)))\\$(printf %o $((n % 256)))"; done
}
zeros() { head -c "$1" /dev/zero; }
# All ten classes, 20x24 pixels: class k is a bright band in rows 2k and 2k + 1.
ten_images() {
  for k in 0 1 2 3 4 5 6 7 8 9; do
    zeros $((k * 48)) && zeros 48 | tr '\0' '\310' && zeros $((432 - k * 48))
  done
}
# write_set FOLDER SPLIT TENS
write_set() {
  mkdir -p "$1"
  { header_idx 3 $(($3 * 10)) 20 24 && for ((i = 0; i < $3; ++i)); do ten_images; done; } |
    gzip -n >"$1/$2-images-idx3-ubyte.gz"
  { header_idx 1 $(($3 * 10)) && for ((i = 0; i < $3; ++i)); do printf '\0\1\2\3\4\5\6\7\10\11'; done; } \
    >"$1/$2-labels-idx1-ubyte"
}
write_set data/mnist train 5
write_set data/mnist t10k 2
export CAPSFW_DATA_DIR=$work/data

train=("$bin/train_capsnet" --data mnist --val 10 --batch 20 --shift 1)

# Fields that differ from run to run.
stable() { sed -E 's/"([a-z]+_per_second|seconds|train_seconds|seconds_per_epoch|ms_per_step|peak_[a-z]+_mb)":[^,}]*//g' "$1/metrics.jsonl"; }
# same A B: the same log, times and memory aside, and the same weights.
same() {
  [ "$(stable "$1")" = "$(stable "$2")" ] || { diff <(stable "$1") <(stable "$2") >&2; fail "$2: another log than $1"; }
  local file
  for file in "$1"/*.safetensors; do
    [ ! -e "$file" ] || cmp -s "$file" "$2/${file##*/}" || fail "$2: other weights in ${file##*/}"
  done
}
# appears PID FOLDER NAME: waits until there is such a file in it; 1 if the process ended first.
appears() {
  local i
  for ((i = 0; i < 6000; ++i)); do
    [ -z "$(find "$2" -name "$3" 2>/dev/null)" ] || return 0
    kill -0 "$1" 2>/dev/null || return 1
    sleep 0.01
  done
  fail "no $3 in $2 within a minute"
}

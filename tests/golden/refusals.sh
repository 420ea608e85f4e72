#!/usr/bin/env bash
# What the golden runner must not pass over: kinds, inputs, hyper-parameters and values that it does not
# honour. Each is a good case with some letters of its header changed.   refusals.sh RUNNER CASES
set -uo pipefail
export LC_ALL=C
runner=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
cases=$(cd "$2" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  sed 's/^/  | /' said >&2
  exit 1
}
# run CODE ARGUMENT...: the runner on the folder `in`; what it says goes to the file `said`.
run() {
  local code=$1 got=0
  shift
  "$runner" --cases in "$@" >said 2>&1 || got=$?
  [ "$got" = "$code" ] || fail "exit code $got, not $code: --cases in $*"
}
says() { grep -qF -- "$1" said || fail "no '$1' in the answer"; }
# change CASE FROM TO: `in` holds this case alone, changed. The length of the header must stay.
change() {
  [ "${#2}" = "${#3}" ] || fail "'$2' and '$3' differ in length"
  rm -rf in && mkdir in
  sed "s/$2/$3/g" "$cases/$1.safetensors" >"in/$1.safetensors"
  ! cmp -s "$cases/$1.safetensors" "in/$1.safetensors" || fail "$1 has no '$2'"
}
# refused MESSAGE CASE FROM TO
refused() {
  change "${@:2}"
  run 1
  says "FAIL  $2"
  says "$1"
  says "0 passed, 1 failed, 0 skipped"
}

# Given, but read by nobody. The values are right all the same: what is left out has them by default.
refused "routing.dynamic_r3_full: hp.detacx is given, but kind 'routing.dynamic_*' does not read it" \
  routing.dynamic_r3_full '"hp.detach"' '"hp.detacx"'
refused "optim.adam: hp.momentum is given, but kind 'optim.*' does not read it" \
  optim.adam '"hp.beta2":"0.999"' '"hp.momentum":"00"'
# An input under another name, and one that no list names.
refused "routing.dynamic_mark: in.mark is given, but kind 'routing.dynamic_*' does not read it" \
  routing.dynamic_mask 'mask"' 'mark"'
refused "routing.dynamic_mask: in.mask is given, but kind 'routing.dynamic_*' does not read it" \
  routing.dynamic_mask '"const_inputs":"mask"' '"const_inputs":""    '

# Values that are not honoured.
refused 'hp.shared: must be false for a weight' conv.dynamic_s1 '"hp.shared":"false"' '"hp.shared":"true" '
refused "hp.leaky: must be true or false; got 'trux'" routing.dynamic_leaky '"hp.leaky":"true"' '"hp.leaky":"trux"'
refused "got 'hintom'" em.hinton_t2 '"hp.variant":"hinton"' '"hp.variant":"hintom"'
refused "got 'match'" conv.em_patch_s1 '"hp.norm":"patch"' '"hp.norm":"match"'
refused "got 'inn3r'" cluster.kmeans_hard_inner '"hp.metric":"inner"' '"hp.metric":"inn3r"'
refused "got 'diat'" cluster.gmm_diag '"hp.kind":"diag"' '"hp.kind":"diat"'
refused "got 'tans'" penalty.inequality_equality '"hp.acts":"tanh"' '"hp.acts":"tans"'
refused "no optimizer 'agd'" optim.sgd '"hp.optimizer":"sgd"' '"hp.optimizer":"agd"'
refused 'hp.stride: must be a whole number; got 1.5' ops.conv2d_k3_s1_p0 '"hp.stride":"1,1"' '"hp.stride":"1.5"'
refused "the case has no hyper-parameter 'hp.K'" cluster.kmeans_soft_inner_K4 '"hp.K"' '"hp.k"'

# A kind that nobody computes, with and without leave to pass over it.
refused 'votes.fuld: of no known kind' votes.full '"case":"full"' '"case":"fuld"'
run 1 --skip-unknown
says 'skip  votes.fuld: of no known kind'
says '0 passed, 0 failed, 1 skipped'
cp "$cases/votes.shared.safetensors" in
run 0 --skip-unknown
says '1 passed, 0 failed, 1 skipped'

#!/usr/bin/env bash
# route: votes from a file through every routing.
source "$(dirname "$0")/common.sh"

# Votes [1, 2, 1, 2] of zeros as safetensors.
header='{"votes":{"dtype":"F32","shape":[1,2,3,2],"data_offsets":[0,48]}}'
{ printf "\\$(printf %o ${#header})\\0\\0\\0\\0\\0\\0\\0" && printf %s "$header" && zeros 48; } >votes.safetensors
expect 0 "$bin/route" --list && says "self-attention" && says "sharpness=1"
for routing in $("$bin/route" --list 2>/dev/null | grep -oE '^[a-z-]+  ' | grep -v self-routing); do
  expect 0 "$bin/route" --routing "$routing" --out r.npz votes.safetensors
  says "couplings          [1, 2, 3]"
done
expect 0 "$bin/route" --routing kmeans:iterations=2 --steps votes.safetensors
says "kmeans:iterations=2,sharpness=1" && says "steps.couplings    [2, 1, 2, 3]" && [ -s routed.safetensors ] ||
  fail "no routed.safetensors"
expect 1 "$bin/route" --tensor poses votes.safetensors && says "there is no 'poses'"
expect 1 "$bin/route" votes.txt && says "must end with"
expect 2 "$bin/route" --routing magic votes.safetensors && says "--routing: routing: one of dynamic"
expect 2 "$bin/route" --out r.txt votes.safetensors && says "--out: the name must end with"
expect 2 "$bin/route" && says "exactly one file"
expect 2 "$bin/route" --list --routing kmeans && says "--routing: not of --list"
expect 2 "$bin/route" --list votes.safetensors && says "FILE: not of --list"

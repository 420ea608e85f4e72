#!/usr/bin/env bash
# A program of one's own (own_program.cpp): the same bits, and a rank that sees NaN is named.
source "$(dirname "$0")/common.sh"
for n in 1 2 4; do expect 0 ranks $n "$bin/own_program" out-$n; done
for n in 2 4; do
  cmp -s out-1/model.safetensors out-$n/model.safetensors || fail "other weights on $n ranks"
done
# In step 5 of 15; without a checkpoint it began anew, with one it goes on.
expect 1 ranks 2 "$bin/own_program" bad 1
says "training, step 5: the loss of shard 2 is"
says ", on rank 1. Hint"
expect 0 ranks 2 "$bin/own_program" bad
cmp -s out-1/model.safetensors bad/model.safetensors || fail "other weights behind an error"

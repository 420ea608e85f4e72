#!/usr/bin/env bash
# --memory-limit and the estimate in front of the first step.
source "$(dirname "$0")/common.sh"

# The estimate is a line of every run; a limit above it changes nothing.
expect 0 "${train[@]}" --steps 4 --out a
says "a step of 20 samples takes about" && says "parameters" && says "activations and votes"
expect 0 "${train[@]}" --steps 4 --out b --memory-limit 4G
[ "$(stable a)" = "$(stable b)" ] || fail "a limit changes the run"
cmp -s a/model.safetensors b/model.safetensors || fail "a limit changes the weights"
# Less than a step takes: an error before the first one, with a batch that fits.
big=("${train[@]}" --arch compact --steps 2 --out c --batch 40 --val 0)
expect 0 "${big[@]}"
need=$(sed -nE 's/.*a step of 40 samples takes about ([0-9]+).*/\1/p' said)
[ "${need:-0}" -gt 10 ] || fail "no number in the estimate"
expect 1 "${big[@]}" --memory-limit "$((need * 9 / 10))M"
says "error: a step of 40 samples takes about" && says "the memory limit is" && says "Hint: a batch of"
batch=$(sed -nE 's/.*Hint: a batch of ([0-9]+).*/\1/p' said)
[ "$batch" -ge 10 ] && [ "$batch" -lt 40 ] || fail "a batch of $batch"
expect 0 "${big[@]}" --batch "$batch" --memory-limit "$((need * 9 / 10))M"
# Less than the network and the data take: the op and the bytes.
expect 1 "${big[@]}" --memory-limit 100k && says "no memory for" && says "of a limit of 100000"
[ -e c/model.safetensors ] || fail "a refused run took the weights of an earlier one"
expect 2 "${train[@]}" --memory-limit 12X && says "--memory-limit: must be a size as 512M, 2G or 2Gi" && says "got '12X'"
expect 2 "${train[@]}" --memory-limit 0 && says "at least 1 byte"
expect 0 "${train[@]}" --steps 1 --out d --memory-limit none

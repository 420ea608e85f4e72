#!/usr/bin/env bash
# train_matrix_capsules.
source "$(dirname "$0")/common.sh"

run=("$bin/train_matrix_capsules" --val 10 --batch 20)
expect 0 "$bin/train_matrix_capsules" --help
for flag in --data --arch --pose --routing --routing-iterations --competition --margin --lambda --growth --load; do
  says "$flag"
done
expect 0 "${run[@]}" --steps 3 --out a
says "capsules2   [B, 16, 1, 2, 4, 4]" && says "test accuracy"
[ "$(ls a | tr '\n' ' ')" = "checkpoints curves.png metrics.jsonl model.safetensors report.html " ] || fail "unexpected files: $(ls a)"
expect 0 "${run[@]}" --steps 3 --out b --threads 3
[ "$(stable a)" = "$(stable b)" ] && cmp -s a/model.safetensors b/model.safetensors || fail "two runs with one seed differ"
expect 0 "$bin/predict" --model a/model.safetensors a/curves.png
expect 0 "${run[@]}" --steps 1 --out c --load a/model.safetensors --routing-iterations 3 --competition child
says "with 3 routing iterations"
expect 2 "${run[@]}" --routing kmeans --out d && says "must be em with its options"
expect 2 "${run[@]}" --routing em:sharpness=2 --out d && says "sharpness"
expect 2 "${run[@]}" --optimizer rmsprop --momentum 0.5 --out d && says "--momentum: of --optimizer sgd; got rmsprop"
expect 2 "${run[@]}" --routing-iterations 0 --out d && says "--routing-iterations: must be"
[ ! -e d ] || fail "a refused command line left files"

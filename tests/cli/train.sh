#!/usr/bin/env bash
# train_capsnet: what a run leaves, equal seeds, every option, divergence.
source "$(dirname "$0")/common.sh"

expect 0 "${train[@]}" --epochs 3 --out a
says "capsfw 0." && says "primary     [B, 32, 8]" && says "test accuracy" && says "uniform couplings" && says "Made in a"
[ "$(ls a | tr '\n' ' ')" = "checkpoints curves.png metrics.jsonl model.safetensors reconstructions.png report.html " ] ||
  fail "unexpected files: $(ls a)"
for picture in curves reconstructions; do
  [ "$(head -c 4 a/$picture.png | tail -c 3)" = PNG ] || fail "$picture.png is no PNG"
done
grep -vqE '^\{("[a-z_]+":(-?[0-9][0-9.e+-]*|"[^"]*"|null|true|false),?)+\}$' a/metrics.jsonl && fail "metrics.jsonl is no JSON"
[ "$(grep -c '"event":"train"' a/metrics.jsonl)" = 6 ] && [ "$(grep -c '"event":"epoch"' a/metrics.jsonl)" = 3 ] ||
  fail "unexpected events: $(cat a/metrics.jsonl)"
tail -n 1 a/metrics.jsonl | grep -q '"test_accuracy":' || fail "the last line has no test_accuracy"
# O7: equal seeds, equal log and equal weights, for any number of threads.
expect 0 "${train[@]}" --epochs 3 --out b --threads 3
[ "$(stable a)" = "$(stable b)" ] || fail "two runs with one seed differ"
cmp -s a/model.safetensors b/model.safetensors || fail "the weights of two runs with one seed differ"
expect 0 "${train[@]}" --epochs 3 --out b --seed 2
[ "$(stable a)" != "$(stable b)" ] || fail "the seed has no effect"
[ "$(grep -c test_accuracy b/metrics.jsonl)" = 1 ] || fail "a second run into a folder keeps the old log"
# Every option of the network, in one run of two steps.
expect 0 "${train[@]}" --steps 2 --val 0 --out c --capsules 12x6,10x8 --votes factorised --leaky \
  --noise-class --vote-bias --prior --keep 0.5 --decoder fc --optimizer sgd --schedule cosine --warm-up 1 --clip 1 \
  --average 0.9 --elastic 20
says "capsules1   [B, 12, 6]"
says "(averages of the last step"
grep -q '"best_epoch":0,"val_accuracy":null' c/metrics.jsonl || fail "a validation accuracy without validation"
expect 1 "${train[@]}" --steps 1 --out none --prior --gradient detached && says "no gradient reaches a learned prior"
expect 1 "${train[@]}" --steps 1 --out /dev/null/x && says "error: '/dev/null/x': Not a directory"
expect 1 "${train[@]}" --steps 1 --out "" && says "error: ''"
# A run that diverges says so, wherever it shows first.
expect 1 "${train[@]}" --steps 1 --lr 1e30 --out d && says "validation: the loss is"
expect 1 "${train[@]}" --steps 1 --lr 1e30 --val 0 --out d && says "test: the loss is"
expect 1 "${train[@]}" --steps 5 --lr 1e30 --val 0 --out d && says "training, step 1: the loss is"

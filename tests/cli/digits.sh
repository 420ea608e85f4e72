#!/usr/bin/env bash
# two_digits.
source "$(dirname "$0")/common.sh"

run=("$bin/two_digits" --val 20 --batch 15 --steps 3)
expect 0 "${run[@]}" --out a
says "parameters" && says "| kmeans | 279488 | 1 |" && says "| dynamic | 279488 | 1 |" && says "| cnn | 276810 | 1 |"
for file in table.md metrics.jsonl curves.png kmeans.png dynamic.png cnn.png kmeans-1.safetensors; do
  [ -s a/$file ] || fail "no $file"
done
[ "$(grep -c '"event":"result"' a/metrics.jsonl)" = 3 ] || fail "not three results"
expect 0 "${run[@]}" --out b --networks cnn,kmeans --threads 3
cmp -s a/kmeans-1.safetensors b/kmeans-1.safetensors || fail "a network depends on the others or on threads"
expect 0 "${run[@]}" --out c --networks kmeans --seeds 2 --orientation horizontal
says "pairs (horizontal)" && says "| kmeans | 279488 | 2 |" && says "±"
cmp -s c/kmeans-1.safetensors c/kmeans-2.safetensors && fail "the seed has no effect"
expect 0 "$bin/predict" --model a/cnn-1.safetensors a/curves.png
expect 2 "${run[@]}" --networks mlp --out d && says "--networks: must be a list of kmeans, dynamic, cnn; got 'mlp'"
expect 2 "${run[@]}" --networks cnn,cnn --out d && says "--networks: items must be different"
expect 1 "${run[@]}" --val 0 --out d && says "--val: no pair"
[ ! -e d ] || fail "a refused run left files"

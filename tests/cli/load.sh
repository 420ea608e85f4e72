#!/usr/bin/env bash
# Weights from files, good and bad.
source "$(dirname "$0")/common.sh"

expect 0 "${train[@]}" --steps 2 --out a
expect 0 "${train[@]}" --steps 1 --out b --load a/model.safetensors
cp -r b before
head -c 5000 a/model.safetensors >short.safetensors
{ printf '\377'; tail -c +2 a/model.safetensors; } >damaged.safetensors
unchanged() {
  diff -r before b >/dev/null || fail "a failed --load changed the folder of an earlier run"
  [ ! -e new ] || fail "a failed --load left files"
}
for file in short damaged missing; do
  expect 1 "${train[@]}" --out b --load $file.safetensors && says "$file.safetensors" && unchanged
  expect 1 "${train[@]}" --out new --load $file.safetensors && unchanged
  expect 1 "$bin/predict" --model $file.safetensors a/curves.png && says "$file.safetensors"
done
# A weight that is no number (conv1.weight lies first): refused, not passed on.
start=$((8 + $(od -An -t u8 -N 8 a/model.safetensors)))
{ head -c "$start" a/model.safetensors && printf '\0\0\300\177' && tail -c +$((start + 5)) a/model.safetensors; } >nan.safetensors
expect 1 "${train[@]}" --out new --load nan.safetensors && says "conv1.weight [32, 1, 5, 5] holds a NaN" && unchanged
expect 1 "$bin/predict" --model nan.safetensors a/curves.png && says "conv1.weight [32, 1, 5, 5] holds a NaN"
expect 1 "${train[@]}" --out b --capsules 10x8 --load a/model.safetensors
says "shape: digits.votes.weight is [32, 10, 8, 8] here, [32, 10, 16, 8] in the state" && unchanged

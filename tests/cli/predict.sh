#!/usr/bin/env bash
# predict: good and bad pictures and networks.
source "$(dirname "$0")/common.sh"

expect 0 "${train[@]}" --steps 2 --out a
expect 0 "$bin/predict" --model a/model.safetensors a/curves.png a/reconstructions.png
grep -qE '^a/curves.png: [0-9]$' said || fail "no class for the first picture"
grep -qE '^a/reconstructions.png: [0-9]$' said || fail "no class for the second picture"
[ "$(grep -cE '^  [0-9] +[01]\.[0-9]{3} #*$' said)" = 20 ] || fail "not ten lengths a picture"
head -c 300 a/curves.png >short.png
printf 'hello' >text.png
for picture in short.png text.png missing.png a; do
  expect 1 "$bin/predict" --model a/model.safetensors $picture && says "error: " && says "$picture"
done
expect 1 "$bin/predict" --model nowhere.safetensors a/curves.png && says nowhere.safetensors
# Weights, but no network: the classes were renamed away. Same length, so the file is well-formed.
sed 's/class_names/class_games/' a/model.safetensors >other.safetensors
expect 1 "$bin/predict" --model other.safetensors a/curves.png && says "the description of the network is missing"
sed 's/\\"votes\\":0/\\"votes\\":9/' a/model.safetensors >other.safetensors
cmp -s a/model.safetensors other.safetensors && fail "no votes in the description"
expect 1 "$bin/predict" --model other.safetensors a/curves.png && says "damaged description"
# Without --model: the network that comes with the programs; by name, whatever folder has it.
expect 0 "$bin/predict" a/curves.png && says "a/curves.png: "
mkdir mnist && expect 0 "$bin/predict" --model mnist a/curves.png && rmdir mnist
expect 1 env CAPSFW_MODEL_DIR=empty "$bin/predict" --model other a/curves.png && says "other.safetensors: no such file; looked in"

#!/usr/bin/env bash
# The other architectures of train_capsnet.
source "$(dirname "$0")/common.sh"

for arch in efficient se cnn; do
  expect 0 "${train[@]}" --arch $arch --steps 3 --rotate 10 --zoom 0.1 --out $arch
  expect 0 "$bin/predict" --model $arch/model.safetensors $arch/curves.png
  expect 0 "${train[@]}" --arch $arch --steps 1 --out b --load $arch/model.safetensors
done
# What the authors of an architecture did is its default, and no more than that.
grep -q '"step":2,"epoch":1' efficient/metrics.jsonl || fail "efficient: no batches of 20 where --batch says so"
grep -q '"lr":0.0005' efficient/metrics.jsonl || fail "efficient: the learning rate is not 5e-4"
expect 0 "${train[@]}" --arch efficient --steps 1 --decay 0.9 --decoder conv --reconstruction 0.1 --optimizer sgd --momentum 0.5 --out b
expect 2 "${train[@]}" --arch efficient --schedule cosine --decay 0.9 --out c && says "--decay: of --schedule exponential or step; got cosine"
expect 2 "${train[@]}" --arch cnn --routing kmeans --out c && says "--routing: --arch cnn has no capsules"
expect 2 "${train[@]}" --arch efficient --routing-iterations 2 --out c &&
  says "--routing-iterations: the routing 'self-attention' has no option 'iterations'"
expect 2 "${train[@]}" --zoom 1 --out c && says "--zoom: must be"
# A canvas of its own, and a test set of another kind.
expect 0 "$bin/train_capsnet" --data mnist-affine --val 10 --batch 20 --steps 1 --out affine
says "[B, 1, 40, 40]" && says "40 training images, 10 validation images"

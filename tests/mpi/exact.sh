#!/usr/bin/env bash
# --shards: every program has the same bits on every number of processes.
source "$(dirname "$0")/common.sh"

# on_all NAME SHARDS RANKS COMMAND...: alone, and on each number of ranks.
on_all() {
  local name=$1 shards=$2 list=$3 n
  shift 3
  expect 0 "$@" --shards "$shards" --out "$name"
  for n in $list; do
    expect 0 ranks "$n" "$@" --shards "$shards" --out "$name-$n"
    says "$n ranks on 1 host"
    [ "$(grep -c '^capsfw ' said)" = 1 ] || fail "not one banner"
    same "$name" "$name-$n"
    [ -s "$name-$n/report.html" ] || fail "no report"
  done
}

# 40 images: batches of 18, 18 and 4 in shards of 5, 4 and 1; dropped capsules, rotations, clipping, averages.
on_all capsnet 4 "2 4" "$bin/train_capsnet" --data mnist --val 10 --batch 18 --shift 1 --rotate 10 --keep 0.5 --clip 1 --average 0.8 --epochs 2
# Batches of 2 leave shards without samples, and ranks without any.
on_all small 4 "4" "$bin/train_capsnet" --data mnist --val 10 --batch 2 --steps 3 --decoder none
# Batch norm.
on_all matrix 2 "2" "$bin/train_matrix_capsules" --data mnist --val 10 --batch 20 --steps 4
# Folds, dropped words.
for ((i = 0; i < 40; ++i)); do printf 'good\ta fine one no %d\nbad\ta dull one no %d\n' $i $i; done >films.tsv
on_all text 2 "2" "$bin/train_text_capsules" --data films.tsv --folds 4 --run-folds 2 --dim 8 --filters 6 --types 3 \
  --capsule-dim 4 --batch 10 --epochs 2
# Penalties: gradients of gradients.
on_all penalty 2 "2" "$bin/gradient_penalty" --data mnist --train 20 --val 10 --test 20 --probe 5 --steps 4 --batch 10 \
  --records 2 --hidden 8,6 --penalty both
on_all digits 2 "2" "$bin/two_digits" --val 20 --batch 15 --steps 2 --networks cnn,kmeans
# 260 test pairs: batches of 128, 128 and 4 for the ranks to share.
on_all overlapped 2 "2" "$bin/overlapped_digits" --val 20 --batch 16 --steps 2 --test-pairs 13
# Shards of one image: of one class.
on_all single 4 "2" "$bin/overlapped_digits" --val 20 --batch 4 --steps 2
on_all compare 2 "2" "$bin/compare_routings" --data mnist --val 10 --routings kmeans --baselines cnn --batch 20 --steps 2

# Nothing to share: refused before it touches anything.
expect 1 ranks 2 "$bin/gradient_penalty" --lr-sweep --data mnist --train 20 --val 10 --test 20 --out sweep
says "--lr-sweep: its networks are too small to share batches"
[ ! -e sweep ] || fail "a refused run left a folder"

# The fast mode: any number of ranks, and with two of them the bits of two shards.
job=("$bin/train_capsnet" --data mnist --val 10 --batch 18 --shift 1 --steps 4)
expect 0 "${job[@]}" --shards 2 --out two
expect 0 ranks 2 "${job[@]}" --out fast
cmp -s two/model.safetensors fast/model.safetensors || fail "two ranks add in one order only"
expect 0 ranks 3 "${job[@]}" --out three
says "MB a step"
# Batches of 2 leave two of four ranks without samples, from the first step on.
expect 0 ranks 4 "$bin/train_capsnet" --data mnist --val 10 --batch 2 --steps 3 --decoder none --out few
says "MB a step"

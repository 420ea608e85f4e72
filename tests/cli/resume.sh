#!/usr/bin/env bash
# A run that was killed goes on bit for bit, whichever program it is of.
source "$(dirname "$0")/common.sh"

# halted OUT COMMAND...: runs it and kills it once OUT has checkpoints of $halt_at or later, in the folder $halt_in of
# them. On a busy machine it may end before it is killed: then once more.
halted() {
  local out=$1 pid attempt
  shift
  for attempt in {1..20}; do
    rm -rf "$out"
    "$@" --out "$out" >/dev/null 2>&1 </dev/null &
    pid=$!
    if appears $pid "$out/checkpoints/${halt_in:-}" "$halt_at"; then
      kill -${signal:-KILL} $pid
      wait $pid 2>/dev/null || return 0
    else
      wait $pid || fail "it failed before it was killed: $*"
    fi
  done
  fail "it ended before it was killed, $attempt times: $*"
}
# goes_on NAME COMMAND...: killed once and resumed, it ends like the one that was not.
goes_on() {
  local name=$1
  shift
  expect 0 "$@" --out "$name-whole"
  halted "$name" "$@"
  expect 0 "$@" --out "$name" --resume
  says "goes on at step"
  same "$name-whole" "$name"
}

halt_at='step-000000000[4-9]*'
job=("${train[@]}" --epochs 9 --checkpoint-steps 1 --rotate 10 --keep 0.5 --clip 1)
goes_on capsnet "${job[@]}"
# Once more on what is finished: the same again. Longer: not with a schedule that knows the length.
expect 0 "${job[@]}" --out capsnet --resume && same capsnet-whole capsnet
expect 1 "${job[@]}" --out capsnet --resume --lr 0.01 && says "resume: --lr is '0.01' now and was '0.001'"
expect 1 "${job[@]}" --out capsnet --resume --epochs 10 && says "resume: --epochs is '10' now and was '9'"
same capsnet-whole capsnet
expect 0 "${train[@]}" --epochs 2 --schedule constant --out longer
expect 0 "${train[@]}" --epochs 4 --schedule constant --out longer --resume
expect 0 "${train[@]}" --epochs 4 --schedule constant --out longer-whole
same longer-whole longer
# SIGTERM between two checkpoints: one is written where it stopped.
signal=TERM halted capsnet "${job[@]}" --checkpoint-steps 4
expect 0 "${job[@]}" --out capsnet --resume --checkpoint-steps 4 && same capsnet-whole capsnet
# Without --resume a new run begins, and the old checkpoints are put aside.
expect 0 "${job[@]}" --out capsnet && says "now in capsnet/checkpoints.old" && same capsnet-whole capsnet
# Damaged: the one before. All damaged: an error, and nothing is lost.
halted capsnet "${job[@]}"
newest=$(ls capsnet/checkpoints/step-* | tail -n 1)
printf 'x' | dd of="$newest" bs=1 seek=5000 conv=notrunc status=none
expect 0 "${job[@]}" --out capsnet --resume && says "passed over" && same capsnet-whole capsnet
for file in capsnet/checkpoints/step-*; do printf x >"$file"; done
expect 1 "${job[@]}" --out capsnet --resume && says "none of its" && same capsnet-whole capsnet
# Other data, no data, no checkpoint.
cp -r data data2 && write_set data2/mnist train 6
halted capsnet "${job[@]}"
CAPSFW_DATA_DIR=$work/data2 expect 1 "${job[@]}" --out capsnet --resume && says "resume: the data is '50 images"
CAPSFW_DATA_DIR=$work/empty expect 1 "${job[@]}" --out capsnet --resume && says "mnist"
expect 0 "${job[@]}" --out capsnet --resume && same capsnet-whole capsnet
expect 0 "${train[@]}" --steps 1 --out none --resume && says "a new run begins"

# Several seeds: the finished ones are not trained again.
seeds=("${train[@]}" --steps 4 --checkpoint-steps 1 --seeds 2)
expect 0 "${seeds[@]}" --out seeds-whole && says "test accuracy of 2 seeds" && says "±"
[ "$(grep -c '"event":"test"' seeds-whole/metrics.jsonl)" = 2 ] || fail "not two tests"
expect 0 "${train[@]}" --steps 4 --out second --seed 2
cmp -s second/model.safetensors seeds-whole/model-2.safetensors || fail "a network depends on the one before"
cp -r seeds-whole seeds && expect 0 "${seeds[@]}" --out seeds --resume && same seeds-whole seeds
grep -q "epoch 1" said && fail "a finished network was trained again"
expect 0 "${train[@]}" --steps 4 --checkpoint-steps 1 --seeds 3 --out seeds --resume && says "test accuracy of 3 seeds"
grep -q "seed 2, epoch 1" said && fail "a finished network was trained again"
# Begun with one: it goes on as the first of several, whether it was finished or not.
expect 0 "${train[@]}" --steps 4 --checkpoint-steps 1 --out grown
expect 0 "${seeds[@]}" --out grown --resume && same seeds-whole grown && says "seed 1, goes on at step 4 of 4"
grep -q "seed 1, epoch 1" said && fail "a finished network was trained again"
expect 0 "${seeds[@]}" --out grown --resume && same seeds-whole grown
grep -q "epoch [12]" said && fail "a finished network was trained again"
halt_at='step-000000000[2-9]*' halted grown "${train[@]}" --steps 4 --checkpoint-steps 1
expect 0 "${seeds[@]}" --out grown --resume && same seeds-whole grown && says "seed 1, goes on at step"

# The other programs.
# Every checkpoint ends an epoch: what is scored next has the λ of the step before, which is not taken again.
goes_on matrix "$bin/train_matrix_capsules" --val 10 --batch 40 --epochs 6 --checkpoint-steps 1 --lambda 0.05 --growth 1
halt_at='step-000000000[2-9]*'
goes_on digits "$bin/two_digits" --val 20 --batch 15 --steps 6 --checkpoint-steps 1 --networks cnn,kmeans
goes_on overlapped "$bin/overlapped_digits" --val 20 --batch 15 --steps 6 --checkpoint-steps 1 --arch cnn --seeds 2
halt_at='step-000000000[4-9]*'
for ((i = 0; i < 40; ++i)); do printf 'good\ta fine one no %d\nbad\ta dull one no %d\n' $i $i; done >films.tsv
goes_on text "$bin/train_text_capsules" --data films.tsv --folds 4 --run-folds 2 --dim 8 --filters 6 --types 3 \
  --capsule-dim 4 --batch 10 --epochs 15 --patience 0 --checkpoint-steps 1
# Killed in the second network: the first one is not trained again.
halt_at='step-000000000[2-9]*'
job=("$bin/two_digits" --val 20 --batch 15 --steps 6 --checkpoint-steps 1 --networks cnn,kmeans)
halt_in=kmeans-1 halted late "${job[@]}"
expect 0 "${job[@]}" --out late --resume
grep -q "cnn, seed 1: epoch" said && fail "a finished network was trained again"
same digits-whole late
goes_on penalty "$bin/gradient_penalty" --data mnist --train 20 --val 10 --test 20 --probe 5 --steps 8 --batch 10 --records 4 \
  --hidden 8,6 --seeds 2 --checkpoint-steps 1
cmp -s penalty-whole/curves.png penalty/curves.png || fail "other curves"

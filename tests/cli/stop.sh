#!/usr/bin/env bash
# An interrupt saves what there is.
source "$(dirname "$0")/common.sh"

"${train[@]}" --steps 100000000 --out a >said 2>&1 </dev/null &
pid=$! code=0
for ((i = 0; i < 600; ++i)); do
  [ -s a/metrics.jsonl ] && break
  kill -0 $pid 2>/dev/null || break
  sleep 0.1
done
kill -INT $pid
wait $pid || code=$?
[ $code = 130 ] || fail "exit code $code after an interrupt, not 130"
says "Interrupted: the weights so far are in a/model.safetensors"
grep -q test_accuracy a/metrics.jsonl && fail "an interrupted run read the test set"
[ "$(ls a | tr '\n' ' ')" = "checkpoints metrics.jsonl model.safetensors report.html " ] || fail "unexpected files: $(ls a)"
says "--resume goes on"
# It goes on where it was, and stops where it would have.
step=$(ls a/checkpoints | sed -E 's/step-0*([0-9]+).*/\1/' | tail -n 1)
expect 1 "${train[@]}" --steps $((step + 3)) --out a --resume && says "resume: --steps is"
expect 0 "${train[@]}" --steps 1 --out b --load a/model.safetensors
# Without checkpoints nobody says that it would go on.
for program in "train_capsnet --data mnist" "two_digits --networks cnn"; do
  read -ra words <<<"$program"
  rm -rf c && code=0
  "$bin/${words[0]}" "${words[@]:1}" --val 20 --batch 15 --epochs 100000 --checkpoint-keep 0 --out c >said 2>&1 </dev/null &
  pid=$!
  until [ -s c/metrics.jsonl ]; do kill -0 $pid || fail "$program ended by itself"; sleep 0.02; done
  kill -INT $pid && wait $pid || code=$?
  [ $code = 130 ] && says "Interrupted: " && says "there is no checkpoint" || fail "$program: exit code $code after an interrupt"
  grep -q -- "--resume" said && fail "$program: it would not go on"
done
# A run that was killed had the number of this one: its temporary files are in no one's way, and go.
mkdir t
expect 0 bash -c 'touch t/.capsfw-$$-{0,1}.tmp && exec "$@"' - "${train[@]}" --steps 1 --out t
[ -z "$(find t -name '.capsfw-*')" ] || fail "left behind: $(find t -name '.capsfw-*')"

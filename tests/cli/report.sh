#!/usr/bin/env bash
# report.html of every program that trains, looked at in a browser (skipped where there is none).
source "$(dirname "$0")/common.sh"
tests=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

state() { grep -o '"state":"[a-z]*"' "$1/report.html"; }
made() { [ "$(state "$1")" = '"state":"finished"' ] || fail "$1/report.html: $(state "$1")"; }

expect 0 "${train[@]}" --epochs 3 --out capsnet && says "report.html" && made capsnet
expect 0 "${train[@]}" --epochs 2 --seeds 2 --out seeds && made seeds
cp seeds/report.html before.html
expect 0 "${train[@]}" --epochs 2 --seeds 2 --out seeds --resume && made seeds
diff <(sed -E 's/"updated":"[^"]*"//; s/"--resume","value":"[a-z]*","given":[a-z]*//' before.html) \
  <(sed -E 's/"updated":"[^"]*"//; s/"--resume","value":"[a-z]*","given":[a-z]*//' seeds/report.html) >/dev/null ||
  fail "the page of what was finished has changed"
expect 0 "$bin/train_matrix_capsules" --val 10 --batch 20 --steps 2 --out matrix && made matrix
expect 0 "$bin/two_digits" --val 20 --batch 15 --steps 2 --networks cnn,kmeans --out digits && made digits
expect 0 "$bin/compare_routings" --val 10 --batch 20 --steps 2 --routings kmeans,uniform --baselines cnn --seeds 2 \
  --out routings && made routings
# Both kinds of network: one with a decoder, one without.
expect 0 "$bin/overlapped_digits" --val 20 --batch 15 --steps 3 --shift 2 --out overlapped && made overlapped
expect 0 "$bin/overlapped_digits" --val 20 --batch 15 --steps 3 --shift 2 --arch cnn --seeds 2 --out overlapped-cnn && made overlapped-cnn
penalty=("$bin/gradient_penalty" --data mnist --train 20 --val 10 --test 20 --probe 5 --steps 4 --batch 10 --records 2 --hidden 8,6)
expect 0 "${penalty[@]}" --out penalty && made penalty
expect 0 "$bin/gradient_penalty" --data mnist --train 20 --val 10 --test 20 --steps 4 --batch 10 --hidden 8,6 --lr-sweep --rates 0.1,0.5 --target 2 --out sweep && made sweep
# Names that would be markup, were they not text.
for ((i = 0; i < 20; ++i)); do printf 'good\ta fine <img src=x> no %d\n</script><b>bad\ta dull one no %d\n' $i $i; done >films.tsv
expect 0 "$bin/train_text_capsules" --data films.tsv --folds 4 --run-folds 2 --dim 8 --filters 6 --types 3 --capsule-dim 4 \
  --batch 10 --epochs 2 --lr 1e-6 --out text && made text

# While it runs, after Ctrl-C, and when it has gone on.
"${train[@]}" --steps 100000000 --out stopped >said 2>&1 </dev/null &
pid=$! code=0
for ((i = 0; i < 600; ++i)); do
  # The page of an epoch is written behind its line, so in front of that of the next one.
  [ "$(grep -cs '"event":"epoch"' stopped/metrics.jsonl)" -ge 3 ] 2>/dev/null && break
  kill -0 $pid 2>/dev/null || fail "it ended by itself"
  sleep 0.1
done
[ "$(state stopped)" = '"state":"running"' ] || fail "while it runs: $(state stopped)"
kill -INT $pid
wait $pid || code=$?
[ $code = 130 ] || fail "exit code $code after an interrupt, not 130"
[ "$(state stopped)" = '"state":"interrupted"' ] || fail "after an interrupt: $(state stopped)"

# What ends with an error is no longer in progress.
expect 1 "${train[@]}" --steps 5 --lr 1e20 --out failed && says "error: "
[ "$(state failed)" = '"state":"failed"' ] || fail "after an error: $(state failed)"

in_browser report.py "$work"

#!/usr/bin/env bash
# --spread: each process trains networks of its own, and the log is that of one process.
source "$(dirname "$0")/common.sh"

# spread_over NAME RANKS COMMAND...: alone, and on so many ranks.
spread_over() {
  local name=$1 n=$2
  shift 2
  expect 0 "$@" --out "$name"
  expect 0 ranks "$n" "$@" --spread --out "$name-$n"
  says "$n ranks on 1 host"
  [ "$(grep -c '^capsfw ' said)" = 1 ] || fail "not one banner"
  same "$name" "$name-$n"
  [ "$(cd "$name" && ls)" = "$(cd "$name-$n" && ls)" ] || fail "other files: $(ls "$name" "$name-$n")"
  grep -q '"state":"finished"' "$name-$n/report.html" || fail "the report is not finished"
}

seeds=("$bin/train_capsnet" --data mnist --val 10 --batch 6 --shift 1 --keep 0.5 --decoder none --steps 3 --seeds 3)
spread_over seeds 2 "${seeds[@]}"
for ((i = 0; i < 40; ++i)); do printf 'good\ta fine one no %d\nbad\ta dull one no %d\n' $i $i; done >films.tsv
text=("$bin/train_text_capsules" --data films.tsv --folds 4 --run-folds 4 --dim 8 --filters 6 --types 3 --capsule-dim 4
  --batch 10 --epochs 2)
spread_over text 3 "${text[@]}"
diff text/report.txt text-3/report.txt || fail "another report"
spread_over compare 2 "$bin/compare_routings" --data mnist --val 10 --routings kmeans,dynamic --baselines cnn --batch 20 --steps 2
cut -d, -f1-8 compare/table.csv >a && cut -d, -f1-8 compare-2/table.csv | diff a - || fail "another table"
spread_over digits 4 "$bin/two_digits" --val 6 --batch 4 --steps 2 --networks cnn,kmeans
spread_over penalty 2 "$bin/gradient_penalty" --data mnist --train 20 --val 10 --test 20 --probe 5 --steps 4 --batch 10 \
  --records 2 --hidden 8,6
spread_over sweep 2 "$bin/gradient_penalty" --lr-sweep --rates 0.1,0.2 --data mnist --train 20 --val 10 --test 20 \
  --steps 2 --batch 10 --hidden 8,6 --seeds 2

# Begun alone with one seed, on two processes with three; with --spread and without.
expect 0 "${seeds[@]}" --seeds 1 --out grown
cp -r grown shared
expect 0 ranks 2 "${seeds[@]}" --spread --out grown --resume && same seeds grown && says "seed 1, goes on at step 3 of 3"
expect 0 ranks 2 "${seeds[@]}" --seeds 2 --out shared --resume && says "seed 1, goes on at step 3 of 3"

# One network cannot be shared so.
expect 1 ranks 2 "$bin/train_capsnet" --data mnist --val 10 --spread --out one
says "--spread: there is one network only"
expect 1 ranks 2 "$bin/overlapped_digits" --val 20 --batch 15 --spread --out one
says "--spread: there is one network only"
spread_over overlapped 2 "$bin/overlapped_digits" --val 6 --batch 4 --steps 2 --seeds 2 --arch cnn
# Without checkpoints nobody would know what was finished.
expect 1 ranks 2 "${seeds[@]}" --checkpoint-keep 0 --spread --out none
says "need checkpoints"

# Killed in the middle, it goes on on any number of processes; with SIGTERM as well.
for signal in KILL TERM; do
  for attempt in {1..20}; do  # on a busy machine it may end before the signal
    rm -rf gone
    timeout -k 5 $limit mpirun -np 2 "${seeds[@]}" --steps 40 --checkpoint-steps 1 --spread --out gone >said 2>&1 </dev/null &
    all=$!
    if appears $all gone/checkpoints/seed-2 'step-000000000[4-9]*'; then
      for pid in $(pgrep -P "$(pgrep -P $all)"); do kill -$signal "$pid"; done
      wait $all || break
    else
      wait $all || fail "it failed before signal $signal"
    fi
    [ "$attempt" != 20 ] || fail "signal $signal: exit code 0"
  done
  [ $signal = KILL ] || says "--resume goes on"
  [ -n "$(find gone/checkpoints -name 'step-*')" ] || fail "no checkpoint"
  expect 0 ranks 3 "${seeds[@]}" --steps 40 --checkpoint-steps 1 --spread --out gone --resume
  [ -e gone-whole ] || expect 0 "${seeds[@]}" --steps 40 --out gone-whole
  same gone-whole gone
done

# A signal to one of them before it has a folder, which all of them open together: nobody waits for it.
for ((i = 0; i < 40000; ++i)); do echo "good	a fine one no $i"; echo "bad	a dull one no $i"; done >long.tsv
for attempt in {1..10}; do
  rm -rf early
  timeout -k 5 $limit mpirun -np 2 "${text[@]}" --data long.tsv --spread --out early >said 2>&1 </dev/null &
  all=$! code=0
  for ((i = 0; i < 6000; ++i)); do
    pid=$(pgrep -P "$(pgrep -P $all | head -n 1)" train_text | tail -n 1)
    # It has its own answer to SIGTERM: signal 15, in hexadecimal digit 4 from the right.
    grep -q '^SigCgt:.*[4-7c-f]...$' "/proc/$pid/status" 2>/dev/null && break
    kill -0 $all 2>/dev/null || fail "it ended before a signal"
    sleep 0.01
  done
  sleep 0.0$((9 - attempt % 10)) && kill -TERM "$pid"
  sleep 0.3
  if [ -e early ]; then  # too late
    kill -KILL $(pgrep -P "$(pgrep -P $all | head -n 1)") 2>/dev/null
    wait $all
    continue
  fi
  wait $all || code=$?
  [ -e early ] || break
done
[ $code = 130 ] || fail "exit code $code after SIGTERM to one rank, attempt $attempt"
says "Interrupted: nothing was trained"
[ ! -e early ] || fail "a run that did not begin left files"

# A rank that stops while others wait for it at the end. The other one has all the work: twice the limit.
timeout -k 5 $((2 * limit)) mpirun -np 2 "${seeds[@]}" --seeds 2 --steps 40 --spread --rank-timeout 3 --out stopped >said 2>&1 </dev/null &
all=$!
appears $all stopped/checkpoints.ranks/1 metrics.jsonl || fail "it ended before rank 1 did its part"
for pid in $(pgrep -P "$(pgrep -P $all)"); do
  tr '\0' '\n' <"/proc/$pid/environ" | grep -q '^OMPI_COMM_WORLD_RANK=1$' && kill -STOP "$pid"
done
wait $all && fail "a stopped rank: exit code 0"
says "rank 1 does not answer"

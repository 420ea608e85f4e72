#!/usr/bin/env bash
# A process that dies, hangs, differs or sees NaN: all end soon, say which one, and go on later.
source "$(dirname "$0")/common.sh"

job=("$bin/train_capsnet" --data mnist --val 10 --batch 20 --shift 1 --rotate 10 --keep 0.5 --epochs 9 --checkpoint-steps 1
  --shards 4 --decoder none)
# rank_of PID: its rank.
rank_of() { tr '\0' '\n' <"/proc/$1/environ" 2>/dev/null | sed -n 's/^OMPI_COMM_WORLD_RANK=//p'; }
# struck SIGNAL RANK RANKS OUT: sends it the signal once there is a checkpoint of step 4 or later; the exit code in
# $code, the seconds in $took. On a busy machine all may end before the signal: then once more.
struck() {
  local all attempt pid
  for attempt in {1..20}; do
    rm -rf "$4"
    timeout -k 5 60 mpirun -np "$3" "${job[@]}" --rank-timeout 3 --out "$4" >said 2>&1 </dev/null &
    all=$! code=0
    if appears $all "$4/checkpoints" 'step-000000000[4-9]*'; then
      for pid in $(pgrep -P "$(pgrep -P $all)"); do
        [ "$(rank_of "$pid")" = "$2" ] && kill "-$1" "$pid"
      done
    else
      wait $all || fail "it failed before signal $1"
      continue
    fi
    SECONDS=0
    wait $all
    code=$? took=$SECONDS
    [ $code = 0 ] || break
  done
  [ $code != 0 ] && [ $code != 124 ] && [ $code != 137 ] || [ "$1$code" = KILL137 ] || fail "signal $1: exit code $code"
  [ $took -le 15 ] || fail "signal $1: it took $took s"
}

expect 0 "${job[@]}" --out whole
# Killed: mpirun says who. Any number of ranks goes on, to the same bits.
struck KILL 1 2 killed
says "rank 1"
expect 0 ranks 4 "${job[@]}" --out killed --resume
says "goes on at step"
same whole killed
struck KILL 0 2 killed
expect 0 "${job[@]}" --out killed --resume
same whole killed
# Killed while MPI starts, at one of several moments: mpirun ends, too.
hit=0
for delay in 0.05 0.1 0.15 0.2 0.25 0.3 0.35 0.4; do
  timeout -k 5 60 mpirun -np 2 "${job[@]}" --out early >said 2>&1 </dev/null &
  all=$!
  sleep $delay
  victim=$(pgrep -P "$(pgrep -P $all)" | tail -n 1) || true
  SECONDS=0 rc=0
  # All, where there are no ranks yet; nothing, where they are through.
  if [ -n "$victim" ]; then hit=$((hit + 1)) && kill -KILL "$victim" || true; else kill $all || true; fi
  wait $all || rc=$?
  [ $SECONDS -le 15 ] || fail "killed $delay s after its start, mpirun goes on for $SECONDS s"
done
[ $hit -ge 1 ] || fail "no rank was killed while MPI started"
# Stopped: rank 0 waits for three seconds, asks who is there, and names it.
struck STOP 1 2 stopped
says "rank 1 does not answer"
expect 0 ranks 2 "${job[@]}" --out stopped --resume
same whole stopped
struck STOP 0 2 stopped
says "rank 0 does not answer"
# SIGTERM to one of them: a checkpoint, and the end of all.
struck TERM 1 2 ended
[ $code = 130 ] || fail "SIGTERM: exit code $code, not 130"
expect 0 ranks 2 "${job[@]}" --out ended --resume
same whole ended
# Also to one that waits for the others, which score the sentences held out: fewer than a batch, all of rank 0's.
for ((i = 0; i < 60; ++i)); do
  for word in fine dull; do printf '%s\ta %s one no %d that nobody will want to see again in any other year\n' $word $word $i; done
done >films.tsv
job=("$bin/train_text_capsules" --data films.tsv --test films.tsv --dev 0.8 --arch b --dim 64 --filters 32 --types 4 --capsule-dim 8
  --batch 20 --epochs 60 --patience 0 --shards 2 --checkpoint-steps 4)
for attempt in 1 2; do
  struck TERM 1 2 text
  [ $code = 130 ] || fail "SIGTERM to a rank that waits: exit code $code, not 130"
  says "Interrupted: the weights of the first run so far are in text/model.safetensors"
done

# What differs is refused, with its name, before anything is written.
one=("$bin/train_capsnet" --data mnist --val 10 --batch 20 --steps 2 --out differs)
expect 1 timeout 60 mpirun -np 1 "${one[@]}" : -np 1 "${one[@]}" --lr 0.5
says "ranks differ: --lr is '0.001' on rank 0 and '0.5' on rank 1"
cp -r data data2 && write_set data2/mnist train 6
expect 1 timeout 60 mpirun -np 1 "${one[@]}" : -np 1 env CAPSFW_DATA_DIR="$work/data2" "${one[@]}"
says "ranks differ: the data is"
cp -r data data3 && write_set data3/mnist t10k 3
expect 1 timeout 60 mpirun -np 1 "${one[@]}" : -np 1 env CAPSFW_DATA_DIR="$work/data3" "${one[@]}"
says "ranks differ: the data is"
expect 1 timeout 60 mpirun -np 1 "${one[@]}" : -np 1 "${one[@]}" --on-nan skip-step
says "ranks differ: --on-nan is 'stop' on rank 0 and 'skip-step' on rank 1"
if ! grep -q '| baseline |' said; then  # a build for sanitizers has no other instructions
  expect 1 timeout 60 mpirun -np 1 "${one[@]}" : -np 1 env CAPSFW_ISA=baseline "${one[@]}"
  says "ranks differ: CAPSFW_ISA"
fi
cp "$bin/train_capsnet" other && printf x >>other
expect 1 timeout 60 mpirun -np 1 "${one[@]}" : -np 1 ./other "${one[@]:1}"
says "ranks differ: the program is"
[ ! -e differs ] || fail "a refused run left a folder"
# A rank that fails by itself ends all.
expect 1 timeout 60 mpirun -np 1 "${one[@]}" : -np 1 env CAPSFW_DATA_DIR="$work/empty" "${one[@]}"
says "error: rank 1: "
# NaN; shards that do not fit.
expect 1 ranks 2 "$bin/train_capsnet" --data mnist --val 10 --batch 20 --epochs 9 --lr 1e30 --out nan
says "the loss of shard"
says ", on rank"
expect 1 ranks 2 "${one[@]}" --shards 1
says "the number of ranks must divide shards; got 1 shards and 2 ranks"
expect 1 "${one[@]}" --shards 6
says "shards must be a power of two"

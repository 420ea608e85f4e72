#!/usr/bin/env bash
# Kills a training with SIGKILL at random times and goes on with it, again and again: it must always
# go on, never lose more than one checkpoint interval, and end bit for bit like one left alone.
#   scripts/kill-test.sh [KILLS] [SEED] [APP]
# KILLS: at least so many (default 200). SEED: of the times (default 1). APP: train_capsnet (default),
# train_matrix_capsules, two_digits, compare_routings, train_text_capsules. BIN=FOLDER: where they are.
# RANKS=N: on so many processes, of which a random one is killed; the others must end within 20 seconds.
set -uo pipefail
cd "$(dirname "$0")/.."
kills=${1:-200} seed=${2:-1} app=${3:-train_capsnet}
source tests/cli/common.sh "${BIN:-build/release/bin}"   # a tiny data set, and a folder that goes away

interval=2
write_set data/mnist train 12
sentences() { for ((i = 0; i < 120; ++i)); do printf 'good\ta fine one no %d\nbad\ta dull one no %d\n' $i $i; done; }
common=(--batch 10 --checkpoint-steps $interval --checkpoint-keep 2)
case $app in
  # Shifts, rotations, sampled capsules; batches made ahead by a thread; Adam.
  train_capsnet) job=(--data mnist --val 10 --shift 2 --rotate 15 --zoom 0.1 --keep 0.5 --clip 1
    --capsules 10x8 --decoder none --steps 220) ;;
  train_matrix_capsules) job=(--data mnist --val 10 --shift 2 --rotate 15 --steps 60) ;;
  two_digits) job=(--data mnist --val 20 --networks kmeans,cnn --seeds 2 --shift 2 --steps 50) ;;
  compare_routings) job=(--data mnist --val 10 --routings dynamic,kmeans --baselines se --shift 2 --steps 60) ;;
  train_text_capsules)
    sentences >films.tsv
    job=(--data films.tsv --folds 4 --run-folds 2 --dim 16 --filters 16 --types 4 --capsule-dim 8 --steps 150 --patience 0) ;;
  *) echo "kill-test: no such program: $app" >&2; exit 2 ;;
esac
run=("$bin/$app" "${job[@]}" "${common[@]}")
if [ -n "${RANKS:-}" ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl_vader_single_copy_mechanism=none
  export PMIX_MCA_gds=hash   # no lock that a killed rank may hold (docs/distributed.md)
  run=(mpirun -np "$RANKS" --oversubscribe --bind-to none "${run[@]}" --shards 4)
fi
# struck: SIGKILL for the process, or for one of its ranks. False if there is nothing to kill any more.
struck() {
  [ -n "${RANKS:-}" ] || { kill -KILL $pid 2>/dev/null; return; }
  local children
  mapfile -t children < <(pgrep -P $pid)
  [ ${#children[@]} -gt 0 ] && kill -KILL "${children[RANDOM % ${#children[@]}]}" 2>/dev/null || return 1
  for ((i = 0; i < 2000; ++i)); do
    kill -0 $pid 2>/dev/null || return 0
    [ "$(cut -d' ' -f3 /proc/$pid/stat 2>/dev/null)" != Z ] || return 0
    sleep 0.01
  done
  fail "kill-test: the others went on for 20 seconds"
}

now() { date +%s.%N; }
calc() { awk "BEGIN { $1 }"; }

# Left alone: what must come out, how long it takes, and how long it takes to start.
begin=$(now)
expect 0 "${run[@]}" --out whole
whole=$(calc "print $(now) - $begin")
begin=$(now)
expect 0 "${run[@]}" --out whole --resume
start=$(calc "print $(now) - $begin")
# Times of kills are uniform in [0, span): about a twelfth of the job is done between two of them.
span=$(calc "m = ($whole - $start) / 12; if (m < 0.02) m = 0.02; a = $start + m; print a + sqrt(a * a - $start * $start)")
echo "$app: $whole s when left alone, $start s to start; kills within $span s"

RANDOM=$seed
last_of() { find "$1/checkpoints" -name 'step-*' 2>/dev/null | sed -E 's/.*step-0*([0-9]+)\..*/\1/' | sort -n | tail -n 1; }
done_kills=0 writes=0 jobs=0 starts=0
while ((done_kills < kills)); do
  rm -rf killed && ((++jobs))
  while true; do
    "${run[@]}" --out killed --resume >said 2>&1 </dev/null &
    pid=$! && ((++starts))
    sleep "$(calc "printf \"%.4f\", $span * $RANDOM / 32768")"
    if ((done_kills < kills)) && struck; then
      wait $pid 2>/dev/null
      code=$?
      # mpirun says 137; or 1, where a rank was killed before it had joined the others.
      [ -z "${RANKS:-}" ] || [ $code = 0 ] || code=137
    else
      wait $pid
      code=$?
    fi
    case $code in
      0) break ;;
      137) ((++done_kills)) ;;
      *) fail "kill-test: exit code $code after $done_kills kills" ;;
    esac
    # A temporary file: the kill fell into a write.
    [ -n "$(find killed/checkpoints -name '.capsfw-*.tmp' 2>/dev/null)" ] && ((++writes))
    # What the log had come to, against what the newest checkpoint holds.
    if [ "$app" = train_capsnet ] && [ -s killed/metrics.jsonl ]; then
      logged=$(grep -o '"event":"train","seed":[0-9]*,"step":[0-9]*' killed/metrics.jsonl | tail -n 1 | grep -o '[0-9]*$')
      kept=$(last_of killed)
      ((${logged:-0} - ${kept:-0} <= interval)) || fail "step ${logged} was logged, and the newest checkpoint is of step ${kept:-0}"
    fi
  done
  [ "$(stable whole)" = "$(stable killed)" ] || { diff <(stable whole) <(stable killed) >&2; fail "another log after $done_kills kills"; }
  for file in whole/*.safetensors; do
    cmp -s "$file" "killed/${file##*/}" || fail "other weights in ${file##*/} after $done_kills kills"
  done
done
echo "$app: $done_kills kills, $writes of them inside a checkpoint write, $starts starts, $jobs jobs: each ended bit for bit like the one left alone"

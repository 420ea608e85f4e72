#!/usr/bin/env bash
# scripts/repeat-results.py: a kept log is repeated, and what differs is named.
tests=$(cd "$(dirname "$0")/.." && pwd)
source "$(dirname "$0")/common.sh"
command -v python3 >/dev/null || { echo "skipped: no python3; scripts/install-deps.sh browser"; exit 77; }

repeat=("$tests/../scripts/repeat-results.py" --bin "$bin" --results kept)
mkdir -p kept/mnist
command="train_capsnet --data mnist --val 10 --batch 20 --shift 1 --epochs 3 --seed 4"
expect 0 "${train[@]}" --epochs 3 --seed 4 --out first
{ echo "{\"event\":\"command\",\"command\":\"$command\"}" && cat first/metrics.jsonl; } >kept/mnist/small.jsonl
expect 0 "${repeat[@]}" --list && says "mnist/small" && says "$command"
expect 0 "${repeat[@]}" --work a mnist && says "mnist/small: 3 of 3 epochs" && says ": the same"
expect 0 "${repeat[@]}" --work b --epochs 1 mnist/small && says "of 3 epochs" && says ": the same"
# Another digit of the second epoch, a line too many, a command that fails, and no such log.
sed -E '/"epoch":2,/s/"loss":([0-9.]*)[0-9]/"loss":\17777/' kept/mnist/small.jsonl >kept/other.jsonl
expect 1 "${repeat[@]}" --work c other && says "epoch 2: loss 0." && says "1 numbers differ" && says "0 of 1 logs are the same"
{ cat kept/mnist/small.jsonl && sed 's/"epoch":3,/"epoch":4,/' first/metrics.jsonl; } >kept/longer.jsonl
expect 1 "${repeat[@]}" --work d longer && says "longer: 4 lines, where the kept log has 5"
sed 's/--seed 4/--sedd 4/' kept/mnist/small.jsonl >kept/wrong.jsonl
expect 1 "${repeat[@]}" --work e wrong && says "ended with 2" && says "--sedd"
expect 1 "${repeat[@]}" mnist/smal && says "mnist/smal: no such log or folder of logs in kept. Hint: --list"
# What is no log, and a program that is not there.
for text in "" "[1]" '{"event":"comm' '{"event":"epoch"}' '{"command":""}' '{"command":"mpirun -x"}' '{"command":"a \\"b"}'; do
  printf '%s\n' "$text" >kept/bad.jsonl
  expect 1 "${repeat[@]}" bad && says "kept/bad.jsonl: its first line must be" && says "Hint: scripts/keep-results.py"
done
printf '{"event":"command","command":"no_such"}\n' >kept/bad.jsonl
expect 1 "${repeat[@]}" --work f bad && says "bad: there is no program $bin/no_such. Hint: scripts/build.sh"
{ cat kept/mnist/small.jsonl && echo '{"event":"te' ; } >kept/bad.jsonl
expect 1 "${repeat[@]}" --work g bad && says "kept/bad.jsonl: each line must be an object of JSON"
expect 2 "${repeat[@]}" --epochs -1 mnist && says "--epochs: must not be negative; got -1"
expect 1 "$tests/../scripts/keep-results.py" kept/nothing a "" && says "kept/nothing: must be a folder with one log (*.jsonl); it has 0"

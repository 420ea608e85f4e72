#!/usr/bin/env bash
# gradient_penalty, robustness and second_order.
source "$(dirname "$0")/common.sh"

expect 0 "$bin/gradient_penalty" --help
for flag in --data --train --val --test --probe --model --hidden --activation --penalty --input-weight \
  --param-weight --param-form --form --step-size --steps --batch --lr --seed --seeds --records --exact \
  --lr-sweep --rates --target --out; do says "$flag"; done
expect 2 "$bin/gradient_penalty" --hidden 64,x --out out && says "--hidden: widths look like 64,32"
expect 2 "$bin/gradient_penalty" --penalty big --out out && says "must be one of all, none, input, parameter, both"
few=("$bin/gradient_penalty" --data mnist --train 20 --val 10 --test 20 --steps 4 --batch 10)
small=("${few[@]}" --probe 5 --records 2)
mlp=("${small[@]}" --hidden 8,6)
expect 2 "${mlp[@]}" --train 45 --out out && says "together less than 50; got 45 and 10"
[ ! -e out ] || fail "a refused command line left files"
expect 0 "${mlp[@]}" --seeds 2 --out a
for text in "mlp with 3972 parameters" "step 0.01, central: relative error" "penalty both, seed 1, after 4 steps" \
  "total (f): left" "par., val" "Made in a"; do says "$text"; done
[ "$(ls a | tr '\n' ' ')" = "checkpoints curves.png inequality-both.png inequality-input.png inequality-none.png inequality-parameter.png metrics.jsonl model-both.safetensors model-input.safetensors model-none.safetensors model-parameter.safetensors report.html " ] ||
  fail "unexpected files: $(ls a)"
[ "$(grep -c '"event":"run"' a/metrics.jsonl)" = 8 ] && [ "$(grep -c '"event":"record"' a/metrics.jsonl)" = 24 ] ||
  fail "unexpected events"
# Equal seeds, equal log, whatever the threads; the penalties change the weights.
expect 0 "${mlp[@]}" --seeds 2 --out b --threads 3
[ "$(stable a)" = "$(stable b)" ] || fail "two runs with one seed differ"
for kind in input parameter both; do
  cmp -s <(tail -c 200 a/model-none.safetensors) <(tail -c 200 a/model-$kind.safetensors) &&
    fail "the penalty $kind did not change the weights"
done
expect 0 "${mlp[@]}" --penalty both --form difference --exact --out c
expect 0 "${mlp[@]}" --penalty both --param-form sample --steps 1 --out sample
# What would have no effect is refused.
expect 2 "${mlp[@]}" --form difference --param-form sample --out out && says "--param-form sample"
expect 2 "${mlp[@]}" --model cnn --out out && says "--hidden: of an mlp; --model is cnn"
expect 2 "${small[@]}" --model cnn --exact --out out && says "--exact: of an mlp; --model is cnn"
expect 2 "${mlp[@]}" --rates 0.1 --out out && says "--rates: of --lr-sweep, which is not given"
expect 2 "${mlp[@]}" --lr-sweep --out out && says "--records: not of --lr-sweep"
expect 2 "${mlp[@]}" --penalty input --param-weight 1 --out out && says "--param-weight: of the parameter penalty"
expect 2 "${mlp[@]}" --penalty none --form difference --out out && says "--form: of a penalty; --penalty is none"
expect 2 "${mlp[@]}" --step-size 0.1 --out out && says "--step-size: of --form difference"
expect 2 "${few[@]}" --lr-sweep --on-nan skip-step --out out && says "--on-nan: not of --lr-sweep"
expect 2 "${mlp[@]}" --checkpoint-steps 2 --checkpoint-keep 0 --out out && says "--checkpoint-steps: of checkpoints"
expect 2 "${mlp[@]}" --fit stretch --out out && says "--fit: of images brought to a --size"
expect 2 "${mlp[@]}" --spread --out out && says "--spread: of several processes; there is one. Hint: mpirun -np N gradient_penalty"
expect 2 "${mlp[@]}" --on-nan rollback --checkpoint-keep 0 --out out && says "--on-nan rollback: goes back to checkpoints"
[ ! -e out ] || fail "a refused command line left files"
expect 0 "${few[@]}" --hidden 8,6 --lr-sweep --rates 0.1,0.5 --target 2 --out d && says "|grad L|^2" && says "lr-sweep.png"
# Interrupted in the first run: there is no result, and nothing is said to be there.
"${mlp[@]}" --steps 100000000 --out stopped >said 2>&1 </dev/null &
pid=$! code=0
until [ -s stopped/metrics.jsonl ] || ! kill -0 $pid 2>/dev/null; do sleep 0.1; done
kill -INT $pid
wait $pid || code=$?
[ $code = 130 ] && says "Interrupted: --resume goes on" || fail "exit code $code after an interrupt, not 130"
grep -q "Made in" said && fail "an interrupted run has made something"
[ "$(ls stopped | tr '\n' ' ')" = "checkpoints metrics.jsonl report.html " ] || fail "unexpected files: $(ls stopped)"
# Killed behind the record of the first weights, it goes on without another one.
zero=("${mlp[@]}" --penalty input --steps 1000 --on-nan rollback --checkpoint-keep 1000 --checkpoint-minutes 0)
for attempt in {1..20}; do  # on a busy machine it may end before the signal
  rm -rf killed
  "${zero[@]}" --out killed >said 2>&1 </dev/null &
  pid=$!
  appears $pid killed/checkpoints/input-1 'step-0000000000*' && kill -KILL $pid 2>/dev/null
  wait $pid 2>/dev/null || break
done
find killed/checkpoints/input-1 -name 'step-*' ! -name 'step-0000000000*' -delete
expect 0 "${zero[@]}" --out killed --resume && says "goes on at step 0 of 1000"
[ "$(grep -c '"event":"record".*"step":0,' killed/metrics.jsonl)" = 1 ] || fail "not one record of the first weights"
for kind in capsnet cnn; do
  expect 0 "${small[@]}" --model $kind --steps 1 --batch 4 --penalty both --out $kind
  [ -s $kind/model-both.safetensors ] || fail "no model of $kind"
done
# Attacks on all of them, and on what other programs save.
expect 0 "${train[@]}" --steps 1 --out t
expect 0 "${train[@]}" --steps 1 --arch se --out se
expect 0 "$bin/train_matrix_capsules" --val 10 --batch 20 --steps 1 --out m
expect 0 "$bin/robustness" --data mnist --test 12 --batch 5 --steps 2 --epsilons 0.05,0.3 --out r \
  a/model-none.safetensors capsnet/model-both.safetensors cnn/model-both.safetensors t/model.safetensors \
  se/model.safetensors m/model.safetensors
for text in "mlp, none" "capsnet, both" "convnet, both" "capsnet, model" "convnet, model" "matrix-capsnet, model" \
  "PGD, 2 steps"; do says "$text"; done
[ "$(ls r | tr '\n' ' ')" = "examples.png robustness.jsonl robustness.png " ] || fail "unexpected files: $(ls r)"
[ "$(grep -c '"event":"attack"' r/robustness.jsonl)" = 30 ] || fail "unexpected events"
expect 2 "$bin/robustness" --data mnist --skip-broken --out out a/model-none.safetensors && says "--skip-broken: of a folder"
# Two networks of one name are told apart, and the log of a training in the same folder stays.
cp -r a b && cp b/metrics.jsonl before.jsonl
expect 0 "$bin/robustness" --data mnist --test 12 --steps 1 --epsilons 0.1 --out b {a,b}/model-none.safetensors
says "mlp, a/model-none.safetensors" && says "mlp, b/model-none.safetensors"
cmp before.jsonl b/metrics.jsonl || fail "the log of the training was overwritten"
expect 2 "$bin/robustness" --data mnist {a,a}/model-none.safetensors && says "is given twice"
expect 2 "$bin/robustness" --epsilons 0 x && says "rates look like"
expect 0 "$bin/predict" --model a/model-none.safetensors a/curves.png
expect 1 "$bin/robustness" --data mnist nowhere.safetensors && says nowhere.safetensors
expect 1 "$bin/robustness" --data fashion-mnist a/model-none.safetensors && says "the network knows 10 classes"
sed 's/\\"classes\\":10/\\"classes\\":-1/' a/model-none.safetensors >other.safetensors
expect 1 "$bin/robustness" --data mnist other.safetensors && says "damaged description"
expect 0 "$bin/second_order" --batch 2 --repeats 1 --log costs.jsonl && says "dynamic routing"
[ "$(wc -l <costs.jsonl)" = 6 ] || fail "unexpected lines in costs.jsonl"

#!/usr/bin/env bash
# two_digits and overlapped_digits.
source "$(dirname "$0")/common.sh"

run=("$bin/two_digits" --val 20 --batch 15 --steps 3)
expect 0 "${run[@]}" --out a
says "parameters" && says "| kmeans | 279488 | 1 |" && says "| dynamic | 279488 | 1 |" && says "| cnn | 276810 | 1 |"
for file in table.md metrics.jsonl curves.png kmeans.png dynamic.png cnn.png kmeans-1.safetensors; do
  [ -s a/$file ] || fail "no $file"
done
[ "$(grep -c '"event":"result"' a/metrics.jsonl)" = 3 ] || fail "not three results"
expect 0 "${run[@]}" --out b --networks cnn,kmeans --threads 3
cmp -s a/kmeans-1.safetensors b/kmeans-1.safetensors || fail "a network depends on the others or on threads"
expect 0 "${run[@]}" --out c --networks kmeans --seeds 2 --orientation horizontal
says "pairs (horizontal)" && says "| kmeans | 279488 | 2 |" && says "±"
[ -s c/kmeans-2.safetensors ] || fail "no weights of the second seed"
cmp -s c/kmeans-1.safetensors c/kmeans-2.safetensors && fail "the seed has no effect"
expect 0 "$bin/predict" --model a/cnn-1.safetensors a/curves.png
expect 2 "${run[@]}" --networks mlp --out d && says "--networks: must be a list of kmeans, dynamic, cnn; got 'mlp'"
expect 2 "${run[@]}" --networks cnn,cnn --out d && says "--networks: items must be different"
expect 2 "${run[@]}" --decay 0.5 --out d && says "--decay: of --schedule exponential or step; got constant"
expect 1 "${run[@]}" --val 0 --out d && says "--val: no pair"
cp -r data one && { header_idx 1 20 && zeros 20; } >one/mnist/t10k-labels-idx1-ubyte
expect 1 env CAPSFW_DATA_DIR="$work/one" "${run[@]}" --out d && says "no pair of different classes among the test images"
[ ! -e d ] || fail "a refused run left files"

# On top of each other.
run=("$bin/overlapped_digits" --val 20 --batch 15 --steps 3 --shift 2)
expect 0 "${run[@]}" --out e
says "[B, 1, 24, 28]" && says "20 pairs held out" && says "of the test pairs" && says "1 seeds"
for file in metrics.jsonl curves.png overlap.png report.html model.safetensors; do [ -s e/$file ] || fail "no $file"; done
expect 0 "${run[@]}" --out f --threads 3
cmp -s e/model.safetensors f/model.safetensors || fail "the weights depend on threads"
expect 0 "${run[@]}" --out g --arch cnn --seeds 2 --test-pairs 2
says "seed 2: " && says "2 seeds" && says "±"
[ "$(grep -c '"event":"test"' g/metrics.jsonl)" = 2 ] || fail "not two results"
[ -e g/overlap.png ] && fail "a picture of reconstructions without a decoder"
expect 1 "${run[@]}" --val 0 --out d && says "--val: pairs need two classes"
expect 1 "${run[@]}" --batch 1 --out d && says "--batch: pairs are made of its images; got 1"
expect 2 "${run[@]}" --arch cnn --reconstruction 1 --out h && says "--reconstruction: of a decoder; --arch cnn"
expect 1 "${run[@]}" --batch 31 --out h && says "--batch: there are 30 training images; got 31"
[ ! -e h ] || fail "a refused run left files"
# Interrupted while it reads: many images, so that there is time for that.
mkdir -p many/mnist && cp data/mnist/t10k-* many/mnist
ten_images >images && printf '\0\1\2\3\4\5\6\7\10\11' >labels
for ((i = 0; i < 11; ++i)); do cat images images >twice && mv twice images && cat labels labels >twice && mv twice labels; done
{ header_idx 3 20480 20 24 && cat images; } >many/mnist/train-images-idx3-ubyte
{ header_idx 1 20480 && cat labels; } >many/mnist/train-labels-idx1-ubyte
for attempt in {1..10}; do
  rm -rf i said
  CAPSFW_DATA_DIR=$work/many "${run[@]}" --out i >said 2>&1 </dev/null &
  pid=$! code=0
  until [ -s said ] || ! kill -0 $pid 2>/dev/null; do sleep 0.01; done
  sleep 0.0$((5 - attempt % 5)) && kill -INT $pid
  wait $pid || code=$?
  # Too early, and it did not hear; or too late, and there is a folder.
  [ $code = 0 ] || [ -e i ] || break
done
[ $code = 130 ] && says "Interrupted: nothing was trained" || fail "exit code $code after an interrupt at the start, attempt $attempt"
[ ! -e i ] || fail "a run that did not begin left files"
# Interrupted while they train.
for program in "two_digits --networks cnn" overlapped_digits "compare_routings --routings uniform"; do
  read -ra words <<<"$program"
  rm -rf j && code=0
  "$bin/${words[0]}" "${words[@]:1}" --val 20 --batch 15 --epochs 100000 --out j >said 2>&1 </dev/null &
  pid=$!
  until [ -s j/metrics.jsonl ]; do kill -0 $pid || fail "$program ended by itself"; sleep 0.02; done
  kill -INT $pid && wait $pid || code=$?
  [ $code = 130 ] && says "Interrupted: --resume goes on" || fail "$program: exit code $code after an interrupt"
done

#!/usr/bin/env bash
# Runs the programs as people do, on a tiny data set that it writes itself.
#   apps_cli.sh BIN PART     BIN: folder of the programs; PART: flags data train load stop predict penalty cluster
#   archs matrix digits compare route
set -uo pipefail
export LC_ALL=C
bin=$(cd "$1" && pwd)
part=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export HOME=$work/home XDG_DATA_HOME=$work/home/share
mkdir -p "$XDG_DATA_HOME" data empty

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  [ -s said ] && sed 's/^/  | /' said >&2
  exit 1
}

# expect CODE COMMAND...: runs it, keeps what it says in the file `said`.
expect() {
  local code=$1 got=0
  shift
  "$@" >said 2>&1 </dev/null || got=$?
  [ "$got" = "$code" ] || fail "exit code $got, not $code: $*"
}
says() { grep -qF -- "$1" said || fail "no '$1' in the answer"; }

# IDX: header_idx RANK LENGTH... , then the bytes.
header_idx() {
  printf '\0\0\010'"\\$(printf %o "$1")"
  shift
  for n in "$@"; do printf "\\0\\0\\$(printf %o $((n / 256)))\\$(printf %o $((n % 256)))"; done
}
zeros() { head -c "$1" /dev/zero; }
# All ten classes, 20x24 pixels: class k is a bright band in rows 2k and 2k + 1.
ten_images() {
  for k in 0 1 2 3 4 5 6 7 8 9; do
    zeros $((k * 48)) && zeros 48 | tr '\0' '\310' && zeros $((432 - k * 48))
  done
}
# write_set FOLDER SPLIT TENS
write_set() {
  mkdir -p "$1"
  { header_idx 3 $(($3 * 10)) 20 24 && for ((i = 0; i < $3; ++i)); do ten_images; done; } |
    gzip -n >"$1/$2-images-idx3-ubyte.gz"
  { header_idx 1 $(($3 * 10)) && for ((i = 0; i < $3; ++i)); do printf '\0\1\2\3\4\5\6\7\10\11'; done; } \
    >"$1/$2-labels-idx1-ubyte"
}
write_set data/mnist train 5
write_set data/mnist t10k 2
export CAPSFW_DATA_DIR=$work/data

train=("$bin/train_capsnet" --data mnist --val 10 --batch 20 --shift 1)

flags() {
  expect 0 "$bin/train_capsnet" --help
  for flag in --data --val --shift --arch --capsules --votes --routing-iterations --gradient --squash-c \
    --leaky --noise-class --vote-bias --prior --keep --decoder --epochs --steps --minutes --batch \
    --optimizer --lr --momentum --weight-decay --schedule --decay --warm-up --clip --reconstruction \
    --seed --load --out --threads --version; do says "$flag"; done
  says "train_capsnet --data mnist --arch paper --epochs 1"
  expect 0 "$bin/predict" --help && says --model && says --invert
  expect 0 "$bin/train_capsnet" --version && says "capsfw 0."

  # A wrong command line is answered with the flag, before any data are read.
  export CAPSFW_DATA_DIR=$work/empty
  wrong() {
    local message=$1
    shift
    expect 2 "$bin/train_capsnet" --data mnist --out out "$@" && says "$message" && says "--help"
  }
  wrong "--epoch: unknown flag. Hint: --epochs?" --epoch 3
  wrong "--epochs: must be a whole number, at least 1; got '0'" --epochs 0
  wrong "--lr: must be a number, above 0; got 'fast'" --lr fast
  wrong "--lr: must be" --lr nan
  wrong "--arch: must be one of compact, paper, efficient, se, cnn; got 'big'" --arch big
  wrong "--keep: must be" --keep 0
  wrong "--batch: needs a value" --batch
  wrong "--capsules: capsules: sizes look like 32x8,10x16 (count x size); got '32y8'" --capsules 32y8,10x16
  wrong "'spare': unexpected argument" spare
  export CAPSFW_DATA_DIR=$work/data
  wrong "--capsules: the last layer must have one capsule per class; got 7 for 10 classes" --val 10 --capsules 16x8,7x16
  expect 2 "$bin/predict" && says IMAGE
  [ ! -e out ] || fail "a refused command line left files"
}

data() {
  # Nothing anywhere: every place is named, and the cure.
  if [ ! -e /usr/share/datasets/mnist ] && [ ! -e /usr/local/share/datasets/mnist ]; then
    export CAPSFW_DATA_DIR=$work/empty
    expect 1 "${train[@]}" --out out
    for place in "$work/empty/mnist" "$work/empty (" /usr/share/datasets/mnist /usr/local/share/datasets/mnist \
      "$XDG_DATA_HOME/capsfw/mnist" datasets/mnist Hint CAPSFW_DATA_DIR; do says "$place"; done
  fi
  bad() { # bad MESSAGE: what train_capsnet says about $work/bad/mnist
    export CAPSFW_DATA_DIR=$work/bad
    expect 1 "${train[@]}" --steps 1 --out out && says "error: " && says "$1"
    [ ! -e out ] || fail "bad data left files"
    rm -r bad
  }
  local images=train-images-idx3-ubyte labels=train-labels-idx1-ubyte
  fresh() { mkdir -p bad && cp -r data/mnist bad/; }
  fresh && head -c 60 data/mnist/$images.gz >bad/mnist/$images.gz && bad "$images.gz"
  fresh && { head -c 40 data/mnist/$images.gz; zeros 40; tail -c +81 data/mnist/$images.gz; } \
    >bad/mnist/$images.gz && bad "$images.gz"
  fresh && rm bad/mnist/$images.gz && gzip -dc data/mnist/$images.gz | head -c 5000 >bad/mnist/$images && bad "$images"
  fresh && printf 'P5 20 24 255 and so on' >bad/mnist/$labels && bad "$labels"
  fresh && { header_idx 1 49; zeros 49; } >bad/mnist/$labels && bad "the counts must be equal; got 50 and 49"
  fresh && { header_idx 1 50; zeros 49; printf '\12'; } >bad/mnist/$labels && bad "must lie in [0, 10); got 10"
  fresh && { header_idx 3 50 9 9; zeros 4050; } | gzip -n >bad/mnist/$images.gz && bad "does not fit 1 pixels"
  export CAPSFW_DATA_DIR=$work/data
  expect 1 "${train[@]}" --val 50 --out out && says "so that images to train on remain"
}

# Fields that differ from run to run.
stable() { sed -E 's/"(images_per_second|seconds|train_seconds|peak_memory_mb)":[^,}]*//g' "$1/metrics.jsonl"; }

train() {
  expect 0 "${train[@]}" --epochs 3 --out a
  says "capsfw 0." && says "primary     [B, 32, 8]" && says "test accuracy" && says "uniform couplings" && says "Made in a"
  [ "$(ls a | tr '\n' ' ')" = "curves.png metrics.jsonl model.safetensors reconstructions.png " ] ||
    fail "unexpected files: $(ls a)"
  for picture in curves reconstructions; do
    [ "$(head -c 4 a/$picture.png | tail -c 3)" = PNG ] || fail "$picture.png is no PNG"
  done
  grep -vqE '^\{("[a-z_]+":(-?[0-9][0-9.e+-]*|"[^"]*"|null|true|false),?)+\}$' a/metrics.jsonl && fail "metrics.jsonl is no JSON"
  [ "$(grep -c '"event":"train"' a/metrics.jsonl)" = 6 ] && [ "$(grep -c '"event":"epoch"' a/metrics.jsonl)" = 3 ] ||
    fail "unexpected events: $(cat a/metrics.jsonl)"
  tail -n 1 a/metrics.jsonl | grep -q '"test_accuracy":' || fail "the last line has no test_accuracy"
  # O7: equal seeds, equal log and equal weights, for any number of threads.
  expect 0 "${train[@]}" --epochs 3 --out b --threads 3
  [ "$(stable a)" = "$(stable b)" ] || fail "two runs with one seed differ"
  cmp -s a/model.safetensors b/model.safetensors || fail "the weights of two runs with one seed differ"
  expect 0 "${train[@]}" --epochs 3 --out b --seed 2
  [ "$(stable a)" != "$(stable b)" ] || fail "the seed has no effect"
  [ "$(grep -c test_accuracy b/metrics.jsonl)" = 1 ] || fail "a second run into a folder keeps the old log"
  # Every option of the network, in one run of two steps.
  expect 0 "${train[@]}" --steps 2 --val 0 --out c --capsules 12x6,10x8 --votes factorised --gradient detached --leaky \
    --noise-class --vote-bias --prior --keep 0.5 --decoder fc --optimizer sgd --schedule cosine --warm-up 1 --clip 1
  says "capsules1   [B, 12, 6]"
  expect 1 "${train[@]}" --steps 1 --out /dev/null/x && says "error: '/dev/null/x': Not a directory"
  expect 1 "${train[@]}" --steps 1 --out "" && says "error: ''"
  # A run that diverges says so, wherever it shows first.
  expect 1 "${train[@]}" --steps 1 --lr 1e30 --out d && says "validation: the loss is"
  expect 1 "${train[@]}" --steps 1 --lr 1e30 --val 0 --out d && says "test: the loss is"
  expect 1 "${train[@]}" --steps 5 --lr 1e30 --val 0 --out d && says "training, step 1: the loss is"
}

load() {
  expect 0 "${train[@]}" --steps 2 --out a
  expect 0 "${train[@]}" --steps 1 --out b --load a/model.safetensors
  cp -r b before
  head -c 5000 a/model.safetensors >short.safetensors
  { printf '\377'; tail -c +2 a/model.safetensors; } >damaged.safetensors
  unchanged() {
    diff -r before b >/dev/null || fail "a failed --load changed the folder of an earlier run"
    [ ! -e new ] || fail "a failed --load left files"
  }
  for file in short damaged missing; do
    expect 1 "${train[@]}" --out b --load $file.safetensors && says "$file.safetensors" && unchanged
    expect 1 "${train[@]}" --out new --load $file.safetensors && unchanged
    expect 1 "$bin/predict" --model $file.safetensors a/curves.png && says "$file.safetensors"
  done
  # A weight that is no number (conv1.weight lies first): refused, not passed on.
  local start
  start=$((8 + $(od -An -t u8 -N 8 a/model.safetensors)))
  { head -c "$start" a/model.safetensors && printf '\0\0\300\177' && tail -c +$((start + 5)) a/model.safetensors; } >nan.safetensors
  expect 1 "${train[@]}" --out new --load nan.safetensors && says "conv1.weight [32, 1, 5, 5] holds a NaN" && unchanged
  expect 1 "$bin/predict" --model nan.safetensors a/curves.png && says "conv1.weight [32, 1, 5, 5] holds a NaN"
  expect 1 "${train[@]}" --out b --capsules 10x8 --load a/model.safetensors
  says "shape: digits.votes.weight is [32, 10, 8, 8] here, [32, 10, 16, 8] in the state" && unchanged
}

stop() {
  "${train[@]}" --steps 100000000 --out a >said 2>&1 </dev/null &
  local pid=$! code=0
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
  [ "$(ls a | tr '\n' ' ')" = "metrics.jsonl model.safetensors " ] || fail "unexpected files: $(ls a)"
  expect 0 "${train[@]}" --steps 1 --out b --load a/model.safetensors
}

predict() {
  expect 0 "${train[@]}" --steps 2 --out a
  expect 0 "$bin/predict" --model a/model.safetensors a/curves.png a/reconstructions.png
  grep -qE '^a/curves.png: [0-9]$' said || fail "no class for the first picture"
  grep -qE '^a/reconstructions.png: [0-9]$' said || fail "no class for the second picture"
  [ "$(grep -cE '^  [0-9] +[01]\.[0-9]{3} #*$' said)" = 20 ] || fail "not ten lengths a picture"
  head -c 300 a/curves.png >short.png
  printf 'hello' >text.png
  for picture in short.png text.png missing.png a; do
    expect 1 "$bin/predict" --model a/model.safetensors $picture && says "error: " && says "$picture"
  done
  expect 1 "$bin/predict" --model nowhere.safetensors a/curves.png && says nowhere.safetensors
  # Weights, but no network: the classes were renamed away. Same length, so the file is well-formed.
  sed 's/class_names/class_games/' a/model.safetensors >other.safetensors
  expect 1 "$bin/predict" --model other.safetensors a/curves.png && says "the description of the network is missing"
  sed 's/\\"votes\\":0/\\"votes\\":9/' a/model.safetensors >other.safetensors
  cmp -s a/model.safetensors other.safetensors && fail "no votes in the description"
  expect 1 "$bin/predict" --model other.safetensors a/curves.png && says "damaged description"
}

penalty() {
  expect 0 "$bin/gradient_penalty" --help
  for flag in --data --train --val --test --probe --model --hidden --activation --penalty --input-weight \
    --param-weight --param-form --form --step-size --steps --batch --lr --seed --seeds --records --exact \
    --lr-sweep --rates --target --out; do says "$flag"; done
  expect 2 "$bin/gradient_penalty" --hidden 64,x --out out && says "--hidden: widths look like 64,32"
  expect 2 "$bin/gradient_penalty" --penalty big --out out && says "must be one of all, none, input, parameter, both"
  local small=("$bin/gradient_penalty" --data mnist --train 20 --val 10 --test 20 --probe 5 --steps 4 --batch 10
    --records 2 --hidden 8,6)
  expect 2 "${small[@]}" --train 45 --out out && says "together less than 50; got 45 and 10"
  [ ! -e out ] || fail "a refused command line left files"
  expect 0 "${small[@]}" --seeds 2 --out a
  for text in "mlp with 3972 parameters" "step 0.01, central: relative error" "penalty both, seed 1, after 4 steps" \
    "total (f): left" "par., val" "Made in a"; do says "$text"; done
  [ "$(ls a | tr '\n' ' ')" = "curves.png inequality-both.png inequality-input.png inequality-none.png inequality-parameter.png metrics.jsonl model-both.safetensors model-input.safetensors model-none.safetensors model-parameter.safetensors " ] ||
    fail "unexpected files: $(ls a)"
  [ "$(grep -c '"event":"run"' a/metrics.jsonl)" = 8 ] && [ "$(grep -c '"event":"record"' a/metrics.jsonl)" = 24 ] ||
    fail "unexpected events"
  # Equal seeds, equal log, whatever the threads; the penalties change the weights.
  expect 0 "${small[@]}" --seeds 2 --out b --threads 3
  stable_ms() { sed -E 's/"ms_per_step":[^,}]*//' "$1/metrics.jsonl"; }
  [ "$(stable_ms a)" = "$(stable_ms b)" ] || fail "two runs with one seed differ"
  for kind in input parameter both; do
    cmp -s <(tail -c 200 a/model-none.safetensors) <(tail -c 200 a/model-$kind.safetensors) &&
      fail "the penalty $kind did not change the weights"
  done
  expect 0 "${small[@]}" --penalty both --form difference --param-form sample --exact --out c
  expect 0 "${small[@]}" --lr-sweep --rates 0.1,0.5 --target 2 --out d && says "|grad L|^2" && says "lr-sweep.png"
  for kind in capsnet cnn; do
    expect 0 "${small[@]}" --model $kind --steps 1 --batch 4 --penalty both --out $kind
    [ -s $kind/model-both.safetensors ] || fail "no model of $kind"
  done
  # Attacks on all of them, and on a network of train_capsnet.
  expect 0 "${train[@]}" --steps 1 --out t
  expect 0 "$bin/robustness" --data mnist --test 12 --batch 5 --steps 2 --epsilons 0.05,0.3 --out r \
    a/model-none.safetensors capsnet/model-both.safetensors cnn/model-both.safetensors t/model.safetensors
  for text in "mlp, none" "capsnet, both" "cnn, both" "capsnet, model" "PGD, 2 steps"; do says "$text"; done
  [ "$(ls r | tr '\n' ' ')" = "examples.png metrics.jsonl robustness.png " ] || fail "unexpected files: $(ls r)"
  [ "$(grep -c '"event":"attack"' r/metrics.jsonl)" = 20 ] || fail "unexpected events"
  expect 2 "$bin/robustness" --epsilons 0 x && says "rates look like"
  expect 1 "$bin/robustness" --data mnist nowhere.safetensors && says nowhere.safetensors
  sed 's/\\"classes\\":10/\\"classes\\":-1/' a/model-none.safetensors >other.safetensors
  expect 1 "$bin/robustness" --data mnist other.safetensors && says "damaged description"
  expect 0 "$bin/second_order" --batch 2 --repeats 1 --log costs.jsonl && says "dynamic routing"
  [ "$(wc -l <costs.jsonl)" = 6 ] || fail "unexpected lines in costs.jsonl"
}

cluster() {
  local run=("$bin/cluster")
  expect 0 "${run[@]}" --help && for flag in --method --k --covariance --eps --metric --sharpness --iterations --init \
    --restarts --seed --out --format FILE; do says "$flag"; done
  # Without arguments: the demonstration, in a folder of its own.
  expect 0 "${run[@]}" && says "600 points of size 2, 3 clusters by kmeans" && says "Made in out/cluster"
  [ "$(ls out/cluster | tr '\n' ' ')" = "centres.csv clusters.png couplings.csv data.csv iterations.png labels.csv \
metrics.jsonl score.png " ] || fail "unexpected files: $(ls out/cluster)"
  [ "$(grep -c '"event":"iteration"' out/cluster/metrics.jsonl)" = 31 ] || fail "not 31 iterations in the log"
  tail -n 1 out/cluster/metrics.jsonl | grep -q '"sizes":\[20[01].0,' || fail "the groups were not found"
  # Every method, from its file; equal seeds give equal files, for any number of threads.
  for flags in "--method kmeans --metric inner" "--method kmeans-soft --sharpness 4" "--method gmm --covariance full" \
    "--method gmm --covariance diag" "--method gmm --covariance spherical" "--method fuzzy-kl" \
    "--method fuzzy-entropy --sharpness 2"; do
    expect 0 "${run[@]}" out/cluster/data.csv $flags --iterations 12 --restarts 2 --out a
    expect 0 "${run[@]}" out/cluster/data.csv $flags --iterations 12 --restarts 2 --out b --threads 3
    diff <(stable a) <(stable b) >/dev/null || fail "two runs with one seed differ: $flags"
    for file in labels.csv centres.csv couplings.csv clusters.png iterations.png; do
      cmp -s a/$file b/$file || fail "$file of two runs with one seed differ: $flags"
    done
    # The first 200 points are a group.
    [ "$(sed -n '2,201p' a/labels.csv | sort | uniq -c | sort -rn | awk 'NR == 1 { print $1 }')" -ge 195 ] ||
      fail "the groups were not found: $flags"
    rm -r a b
  done
  # Centres of one run start another; tables as NPY; other sizes of points.
  expect 0 "${run[@]}" out/cluster/data.csv --init out/cluster/centres.csv --iterations 1 --format npy --out n
  expect 0 "${run[@]}" n/centres.npy --k 2 --init first --out m && says "3 points of size 2, 2 clusters"
  [ -s m/labels.npy ] || fail "the tables do not have the format of FILE"
  printf '1;2\n' | tr ';' '\t' >t.tsv && expect 0 "${run[@]}" t.tsv --k 1 --out m
  printf 'a\n1\n2\n9\n' >one.csv && expect 0 "${run[@]}" one.csv --k 2 --out m
  awk -v OFS=, 'BEGIN { for (i = 0; i < 40; ++i) print i % 4, i % 3, i % 5, (i % 2) * 9, 1 }' >five.csv
  expect 0 "${run[@]}" five.csv --k 2 --out m
  [ "$(sed 1d m/labels.csv | head -n 4 | tr '\n' ' ')" = "0 1 0 1 " ] ||
    [ "$(sed 1d m/labels.csv | head -n 4 | tr '\n' ' ')" = "1 0 1 0 " ] || fail "the even and odd rows were not parted"
  # Mistakes leave nothing behind.
  rm -r m n
  expect 2 "${run[@]}" --covariance diag --out m && says "--covariance: is for gmm; got --method kmeans"
  expect 2 "${run[@]}" --method gmm --sharpness 2 --out m && says "--sharpness: is for kmeans-soft and fuzzy-entropy"
  expect 2 "${run[@]}" one.csv five.csv --out m && says "FILE: takes one"
  expect 2 "${run[@]}" --init first --restarts 2 --out m && says "--restarts: needs --init k-means++"
  expect 1 "${run[@]}" one.csv --k 4 --out m && says "--k: must be at most the 3 points; got 4"
  expect 1 "${run[@]}" five.csv --init one.csv --out m && says "'one.csv': must be 3 centres of size 5; got [3, 1]"
  expect 1 "${run[@]}" missing.csv --out m && says missing.csv
  expect 1 "${run[@]}" a.txt --out m && says "must end with .csv, .tsv or .npy"
  printf '1,2\n3,nan\n' >bad.csv && expect 1 "${run[@]}" bad.csv --out m &&
    says "'bad.csv': row 2, column 2: must be finite; got nan"
  printf '1,2\n3\n' >bad.csv && expect 1 "${run[@]}" bad.csv --out m && says "line 2: must have 2 fields"
  [ ! -e m ] || fail "a mistake left files"
  expect 1 "${run[@]}" --out /dev/null/x && says "error: "
  # Ctrl-C saves what there is.
  awk -v OFS=, 'BEGIN { for (i = 0; i < 3000; ++i) print sin(i * i), cos(i * 3), sin(i * 7) }' >many.csv
  "${run[@]}" many.csv --method kmeans-soft --k 20 --iterations 1000000 --out i >said 2>&1 </dev/null &
  local pid=$! code=0
  for ((t = 0; t < 600; ++t)); do
    [ -s i/metrics.jsonl ] && break
    sleep 0.1
  done
  kill -INT $pid
  wait $pid || code=$?
  [ $code = 130 ] && says Interrupted && [ -s i/centres.csv ] || fail "exit code $code after an interrupt, or no files"
}

archs() {
  for arch in efficient se cnn; do
    expect 0 "${train[@]}" --arch $arch --steps 3 --rotate 10 --zoom 0.1 --out $arch
    expect 0 "$bin/predict" --model $arch/model.safetensors $arch/curves.png
    expect 0 "${train[@]}" --arch $arch --steps 1 --out b --load $arch/model.safetensors
  done
  # What the authors of an architecture did is its default, and no more than that.
  grep -q '"step":2,"epoch":1' efficient/metrics.jsonl || fail "efficient: no batches of 20 where --batch says so"
  grep -q '"lr":0.0005' efficient/metrics.jsonl || fail "efficient: the learning rate is not 5e-4"
  expect 2 "${train[@]}" --arch cnn --routing kmeans --out c && says "--routing: --arch cnn has no capsules"
  expect 2 "${train[@]}" --arch efficient --routing-iterations 2 --out c &&
    says "--routing-iterations: the routing 'self-attention' has no option 'iterations'"
  expect 2 "${train[@]}" --zoom 1 --out c && says "--zoom: must be"
}

matrix() {
  local run=("$bin/train_matrix_capsules" --val 10 --batch 20)
  expect 0 "$bin/train_matrix_capsules" --help
  for flag in --data --arch --pose --routing --routing-iterations --competition --margin --lambda --growth --load; do
    says "$flag"
  done
  expect 0 "${run[@]}" --steps 3 --out a
  says "capsules2   [B, 16, 1, 2, 4, 4]" && says "test accuracy"
  [ "$(ls a | tr '\n' ' ')" = "curves.png metrics.jsonl model.safetensors " ] || fail "unexpected files: $(ls a)"
  expect 0 "${run[@]}" --steps 3 --out b --threads 3
  [ "$(stable a)" = "$(stable b)" ] && cmp -s a/model.safetensors b/model.safetensors || fail "two runs with one seed differ"
  expect 0 "$bin/predict" --model a/model.safetensors a/curves.png
  expect 0 "${run[@]}" --steps 1 --out c --load a/model.safetensors --routing-iterations 3 --competition child
  says "with 3 routing iterations"
  expect 2 "${run[@]}" --routing kmeans --out d && says "must be em with its options"
  expect 2 "${run[@]}" --routing em:sharpness=2 --out d && says "sharpness"
  expect 2 "${run[@]}" --routing-iterations 0 --out d && says "--routing-iterations: must be"
  [ ! -e d ] || fail "a refused command line left files"
}

digits() {
  local run=("$bin/two_digits" --val 20 --batch 15 --steps 3)
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
  cmp -s c/kmeans-1.safetensors c/kmeans-2.safetensors && fail "the seed has no effect"
  expect 0 "$bin/predict" --model a/cnn-1.safetensors a/curves.png
  expect 2 "${run[@]}" --networks mlp --out d && says "--networks: must be a list of kmeans, dynamic, cnn; got 'mlp'"
  expect 2 "${run[@]}" --networks cnn,cnn --out d && says "--networks: items must be different"
  expect 1 "${run[@]}" --val 0 --out d && says "--val: no pair"
  [ ! -e d ] || fail "a refused run left files"
}

compare() {
  local run=("$bin/compare_routings" --val 10 --batch 20 --steps 2)
  expect 0 "${run[@]}" --routings kmeans,uniform --iterations 1,2 --sharpness 1,4 --votes full,shared --baselines none --out a
  [ "$(grep -c '^| kmeans |' a/table.md)" = 8 ] && [ "$(grep -c '^| uniform |' a/table.md)" = 2 ] ||
    fail "lists are not crossed: $(cat a/table.md)"
  [ "$(wc -l <a/table.csv)" = 11 ] && [ -s a/chart.png ] || fail "no CSV of 11 lines, or no chart"
  expect 0 "${run[@]}" --routings dynamic --baselines se,cnn --seeds 2 --out b
  grep -q '^| se |' b/table.md && grep -q '^| cnn |' b/table.md && says "±" || fail "no baselines: $(cat b/table.md)"
  expect 2 "${run[@]}" --routings magic --out c && says "--routings: routing: one of dynamic"
  expect 2 "${run[@]}" --iterations 1,x --out c && says "--iterations: must be a list of numbers"
  expect 1 "${run[@]}" --votes shared --out c && says "ConvNet: no number of hidden units"
  [ ! -e c ] || fail "a refused command line left files"
}

route() {
  # Votes [1, 2, 1, 2] of zeros as safetensors.
  local header='{"votes":{"dtype":"F32","shape":[1,2,3,2],"data_offsets":[0,48]}}'
  { printf "\\$(printf %o ${#header})\\0\\0\\0\\0\\0\\0\\0" && printf %s "$header" && zeros 48; } >votes.safetensors
  expect 0 "$bin/route" --list && says "self-attention" && says "sharpness=1"
  for routing in $("$bin/route" --list 2>/dev/null | grep -oE '^[a-z][a-z-]+ ' | grep -v self-routing); do
    expect 0 "$bin/route" --routing "$routing" --out r.npz votes.safetensors
    says "couplings          [1, 2, 3]"
  done
  expect 0 "$bin/route" --routing kmeans:iterations=2 --steps votes.safetensors
  says "kmeans:iterations=2,sharpness=1" && says "steps.couplings    [2, 1, 2, 3]" && [ -s routed.safetensors ] ||
    fail "no routed.safetensors"
  expect 1 "$bin/route" --tensor poses votes.safetensors && says "there is no 'poses'"
  expect 1 "$bin/route" votes.txt && says "must end with"
  expect 2 "$bin/route" --routing magic votes.safetensors && says "--routing: routing: one of dynamic"
  expect 2 "$bin/route" --out r.txt votes.safetensors && says "--out: the name must end with"
  expect 2 "$bin/route" && says "exactly one file"
}

case $part in
flags | data | train | load | stop | predict | penalty | cluster | archs | matrix | digits | compare | route) "$part" ;;
*) fail "no part '$part'" ;;
esac

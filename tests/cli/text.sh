#!/usr/bin/env bash
# train_text_capsules: training, folds, what is saved, questions, mistakes.
source "$(dirname "$0")/common.sh"

# Two classes told apart by one word; three sentences a line of the pattern.
sentences() {
  local i
  for ((i = 0; i < $1; ++i)); do
    printf 'good\tthis film is a fine one no %d\nbad\tthis film is a dull one no %d\n' $i $i
  done
}
sentences 30 >films.tsv
sentences 5 >test.tsv
small=(--dim 8 --filters 6 --types 3 --capsule-dim 4 --window-types 3 --batch 10 --lr 0.01)
run=("$bin/train_text_capsules")
train=("${run[@]}" --data films.tsv --test test.tsv "${small[@]}")

expect 0 "${run[@]}" --help && for flag in --data --test --folds --run-folds --dev --vectors --channels --arch \
  --routing --loss --patience --seeds --transfer --predict --explain --model --out; do says "$flag"; done
expect 0 "${train[@]}" --epochs 6 --transfer --out a
says "films.tsv: 60 sentences, 0 to develop on, 10 to test on; 2 classes" && says "bad" && says "precision"
says "pairs of two classes" && says "exact match" && says "with uniform couplings"
[ "$(ls a | tr '\n' ' ')" = "checkpoints confusion.png curves.png metrics.jsonl model.safetensors report.html report.txt vocabulary.txt " ] ||
  fail "unexpected files: $(ls a)"
[ "$(sed -n 1,2p a/vocabulary.txt | tr '\n' ' ')" = "<pad> <unk> " ] || fail "not a vocabulary"
for event in epoch test transfer result; do grep -q "\"event\":\"$event\"" a/metrics.jsonl || fail "no $event"; done
# Equal seeds give equal runs, for any number of threads; another seed another one.
expect 0 "${train[@]}" --epochs 6 --transfer --out b --threads 3
diff <(stable a) <(stable b) >/dev/null || fail "two runs with one seed differ"
cmp -s a/model.safetensors b/model.safetensors || fail "two networks of one seed differ"
expect 0 "${train[@]}" --epochs 6 --seed 2 --out b
cmp -s a/model.safetensors b/model.safetensors && fail "the seed has no effect"

# The saved folder is all that is needed.
mv films.tsv hidden.tsv && cp -r a moved
expect 0 "${run[@]}" --model moved --predict "A FINE film, isn't it?"
grep -qxE 'good|bad' said || fail "no class"
[ "$(grep -cE '^  (good|bad) +[01]\.[0-9]{3}' said)" = 2 ] || fail "not two scores"
expect 0 "${run[@]}" --model moved --out votes --explain "a dull <b>zebra</b> film"
says "zebra?(" && says "n-grams for" && says "coupling"
grep -q $'\x1b' said && fail "colours in a pipe"
[ -s votes/explain.png ] || fail "no picture"
grep -q '<b>zebra' votes/explain.html && fail "the page is not escaped"
grep -q 'zebra' votes/explain.html || fail "no words on the page"
expect 1 "${run[@]}" --model moved --predict "" && says "no words in the text"
expect 0 "${run[@]}" --out moved --predict "fine" --explain "fine" && says "good"
mv hidden.tsv films.tsv

# Every network and loss; folds; vectors of a file; another routing.
for flags in "--arch b --loss spread" "--arch static --loss margin50" "--loss ce --noise-class --keep 0.5" \
  "--routing kmeans:iterations=2 --channels both" "--routing dynamic:leaky,activation"; do
  expect 0 "${train[@]}" --steps 3 $flags --out c
  expect 0 "${run[@]}" --out c --explain "a fine film"
done
base=("${run[@]}" --data films.tsv --test test.tsv --dim 8 --batch 10 --steps 3 --out c)
for flags in "--arch cnn --filters 4 --ngrams 2,3" "--arch lstm --hidden 4" "--arch gru --hidden 4 --loss margin"; do
  expect 0 "${base[@]}" $flags --transfer && says "exact match"
  expect 0 "${run[@]}" --out c --predict "a fine film"
  expect 1 "${run[@]}" --out c --explain "a fine film" && says "--explain: this network has no capsules"
done
expect 0 "${run[@]}" --data films.tsv "${small[@]}" --steps 2 --folds 5 --run-folds 2 --seeds 2 --out c
says "fold 2/5" && says "seed 2, fold 1/5" && says "test accuracy of 4 runs" && says "±"
[ "$(grep -c '"event":"test"' c/metrics.jsonl)" = 4 ] || fail "not four tests"
printf 'fine 1 2\ndull 3 4\nother 5 6\n' >vectors.txt
expect 0 "${base[@]:0:5}" --arch cnn --filters 4 --steps 2 --vectors vectors.txt --channels static --out c
says "vectors of 2 of them"

# Mistakes, none of which leaves files.
wrong() {
  local code=$1 message=$2
  shift 2
  expect "$code" "$@" --out d && says "$message"
  [ ! -e d ] || fail "a refused run left files"
}
wrong 2 "--data: must be one of mr, subj, trec, cr, mpqa, sst2, or a FILE.tsv; got 'imdb'" "${run[@]}" --data imdb
wrong 1 "data set 'text': not found; looked in" "${run[@]}" --data mr
wrong 2 "--types: --arch cnn has no capsules" "${run[@]}" --data films.tsv --arch cnn --types 4
wrong 2 "--hidden: --arch a has no states" "${run[@]}" --data films.tsv --hidden 4
wrong 2 "--routing: --arch static has learned couplings" "${run[@]}" --arch static --routing kmeans
wrong 2 "--ngrams: must be whole numbers from 1 to 100; got 'x'" "${run[@]}" --ngrams 2,x
wrong 2 "--test: the set 'trec' has parts of its own" "${run[@]}" --test test.tsv
wrong 2 "--run-folds: must be at most --folds 3; got 4" "${run[@]}" --folds 3 --run-folds 4
wrong 2 "--dim: --vectors has vectors" "${run[@]}" --vectors vectors.txt --dim 4
wrong 1 "'none.tsv'" "${run[@]}" --data none.tsv
# What nothing would read.
wrong 2 "--range: of random word vectors; --vectors is given" "${run[@]}" --vectors vectors.txt --range 0.1
wrong 2 "--threshold: of --transfer, which is not given" "${train[@]}" --threshold 0.4
wrong 2 "--model: of --predict and --explain, which are not given" "${train[@]}" --model a
wrong 2 "--epochs: of training, and --predict and --explain train nothing" "${run[@]}" --predict fine --epochs 2
wrong 2 "--momentum: of --optimizer sgd; got adam" "${train[@]}" --momentum 0.5
for flag in --folds --run-folds; do
  wrong 2 "$flag: of sets without a test part; films.tsv has one. Hint: --seeds N" "${train[@]}" $flag 3
done
wrong 2 "--patience: of an epoch chosen by sentences held out; --dev is 0" "${train[@]}" --dev 0 --patience 3
mkdir -p sst/text && for part in train dev test; do printf '0 a dull one\n1 a fine one\n' >sst/text/stsa.binary.$part; done
wrong 2 "--dev: of sets without a part to choose the epoch; sst2 has one" env CAPSFW_DATA_DIR="$work/sst" "${run[@]}" --data sst2 --dev 0.2
printf 'good\tx\nbad y\n' >bad.tsv && wrong 1 "line 2: must be a class, a tab and a text" "${run[@]}" --data bad.tsv
printf 'good\tx\nworse\ty\n' >bad.tsv && wrong 1 "line 2: the class must be one of" "${train[@]}" --test bad.tsv
printf 'good\tcaf\351\nbad\ty\n' >bad.tsv && wrong 1 "line 1: must be UTF-8" "${run[@]}" --data bad.tsv --encoding utf8
printf 'fine 1\nbad 1 2\n' >bad.tsv
wrong 1 "model.safetensors" "${run[@]}" --predict x
expect 1 "${run[@]}" --model a --predict " - " && says "no words in the text"
wrong 1 "word vectors 'bad.tsv': line 2: must be a word and 1 numbers" "${base[@]:0:5}" --vectors bad.tsv
sed -i '$d' moved/vocabulary.txt && expect 1 "${run[@]}" --model moved --predict x && says "the vocabulary beside it"

# Ctrl-C saves what there is.
"${train[@]}" --epochs 100000 --patience 0 --out i >said 2>&1 </dev/null &
pid=$! code=0
for ((t = 0; t < 600; ++t)); do
  [ -s i/metrics.jsonl ] && break
  sleep 0.1
done
kill -INT $pid
wait $pid || code=$?
[ $code = 130 ] && says "Interrupted" && [ -s i/model.safetensors ] || fail "exit code $code after an interrupt, or no files"
expect 0 "${run[@]}" --model i --predict "a fine film"

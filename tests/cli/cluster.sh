#!/usr/bin/env bash
# cluster: every method, every format, mistakes, interrupts.
source "$(dirname "$0")/common.sh"

run=("$bin/cluster")
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
expect 2 "${run[@]}" five.csv --init first --seed 2 --out m && says "--seed: of k-means++ and of the demonstration"
expect 1 "${run[@]}" one.csv --k 4 --out m && says "--k: must be at most the 3 points; got 4"
expect 1 "${run[@]}" five.csv --init one.csv --out m && says "'one.csv': must be 3 centres of size 5; got [3, 1]"
expect 1 "${run[@]}" missing.csv --out m && says missing.csv
expect 1 "${run[@]}" a.txt --out m && says "must end with .csv, .tsv or .npy"
printf '1,2\n3,nan\n' >bad.csv && expect 1 "${run[@]}" bad.csv --out m &&
  says "'bad.csv': row 2, column 2: must be finite; got nan"
printf '1,2\n3\n' >bad.csv && expect 1 "${run[@]}" bad.csv --out m && says "line 2: must have 2 fields"
[ ! -e m ] || fail "a mistake left files"
expect 1 "${run[@]}" --out /dev/null/x && says "error: "
# Numbers whose products overflow.
awk -v OFS=, 'BEGIN { for (i = 0; i < 30; ++i) print sin(i * i) "e200", cos(i * 3) "e200" }' >huge.csv
expect 1 "$bin/cluster" huge.csv --method fuzzy-kl --k 4 --out huge && says "kl_clustering: a result is not finite"
expect 0 "$bin/cluster" huge.csv --method fuzzy-entropy --k 4 --out huge
# Ctrl-C saves what there is.
awk -v OFS=, 'BEGIN { for (i = 0; i < 3000; ++i) print sin(i * i), cos(i * 3), sin(i * 7) }' >many.csv
"${run[@]}" many.csv --method kmeans-soft --k 20 --iterations 1000000 --out i >said 2>&1 </dev/null &
pid=$! code=0
for ((t = 0; t < 600; ++t)); do
  [ -s i/metrics.jsonl ] && break
  sleep 0.1
done
kill -INT $pid
wait $pid || code=$?
[ $code = 130 ] && says Interrupted && [ -s i/centres.csv ] || fail "exit code $code after an interrupt, or no files"

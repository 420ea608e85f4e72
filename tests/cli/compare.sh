#!/usr/bin/env bash
# compare_routings.
source "$(dirname "$0")/common.sh"

run=("$bin/compare_routings" --val 10 --batch 20 --steps 2)
expect 0 "${run[@]}" --routings kmeans,uniform --iterations 1,2 --sharpness 1,4 --votes full,shared --baselines none --out a
[ "$(grep -c '^| kmeans |' a/table.md)" = 8 ] && [ "$(grep -c '^| uniform |' a/table.md)" = 2 ] ||
  fail "lists are not crossed: $(cat a/table.md)"
[ "$(wc -l <a/table.csv)" = 11 ] && [ -s a/chart.png ] || fail "no CSV of 11 lines, or no chart"
expect 0 "${run[@]}" --routings dynamic --baselines se,cnn --seeds 2 --out b
grep -q '^| se |' b/table.md && grep -q '^| cnn |' b/table.md && says "±" || fail "no baselines: $(cat b/table.md)"
# Networks that differ in other options say so.
expect 0 "${run[@]}" --routings dynamic,dynamic:detach --baselines none --out d
grep -q '^| dynamic detach=false |' d/table.md && grep -q '^| dynamic detach=true |' d/table.md || fail "rows of one name: $(cat d/table.md)"
grep -q '"network":"dynamic r=3 detach=true"' d/metrics.jsonl || fail "one name for two networks in the log"
expect 2 "${run[@]}" --routings dynamic,dynamic:iterations=3 --out c && says "dynamic r=3: stands in the comparison more than once"
expect 2 "${run[@]}" --routings magic --out c && says "--routings: routing: one of dynamic"
expect 2 "${run[@]}" --iterations 1,x --out c && says "--iterations: must be a list of numbers"
for flag in --iterations --sharpness; do
  expect 2 "${run[@]}" --routings uniform $flag 1,2 --out c && says "$flag: of a routing with the option ${flag#--}" && says "Hint: route --list"
done
expect 2 "${run[@]}" --momentum 0.5 --out c && says "--momentum: of --optimizer sgd"
[ ! -e c ] || fail "a refused command line left files"

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
expect 2 "${run[@]}" --routings magic --out c && says "--routings: routing: one of dynamic"
expect 2 "${run[@]}" --iterations 1,x --out c && says "--iterations: must be a list of numbers"
[ ! -e c ] || fail "a refused command line left files"

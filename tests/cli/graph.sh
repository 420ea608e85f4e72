#!/usr/bin/env bash
# grad_graph: graphs as DOT, and as SVG where Graphviz is there.
source "$(dirname "$0")/common.sh"

boxes() { grep -c 'shape=box' "$1"; }

expect 0 "$bin/grad_graph" && says graph.dot && [ -s graph.dot ] || fail "no graph.dot"
grep -q 'penalty.*sum\|penalty.*mul' graph.dot || fail "no penalty in the graph"
if command -v dot >/dev/null; then
  says graph.svg
  grep -q '</svg>' graph.svg || fail "no graph.svg"
  expect 0 "$bin/grad_graph" --out ./-o.dot && grep -q '</svg>' ./-o.svg || fail "no ./-o.svg"
else
  says "Graphviz is not installed"
fi
# Without Graphviz there is a note, and no half of a picture.
expect 0 env PATH=/nowhere "$bin/grad_graph" --of parameter-penalty --out p.dot && says "Graphviz is not installed"
[ -s p.dot ] && [ ! -e p.svg ] && [ ! -e p.svg.half ] || fail "p.dot alone"
# With one that fails there is an error, and none either.
mkdir broken && printf '#!/bin/sh\nexit 3\n' >broken/dot && chmod +x broken/dot
expect 1 env PATH="$work/broken" "$bin/grad_graph" --out p.dot && says "dot could not write it"
[ ! -e p.svg ] && [ ! -e p.svg.half ] || fail "p.svg"

# A fused routing is one op; its iterations show in plain ops.
nothing() { env PATH=/nowhere "$bin/grad_graph" "$@"; }
expect 0 nothing --of routing --out fused.dot
[ "$(boxes fused.dot)" = 1 ] || fail "$(boxes fused.dot) ops, not 1"
expect 0 nothing --of routing --routing dynamic:iterations=3 --reference --out plain.dot
for t in 1 2 3; do grep -q "label=\".*/iteration $t\"" plain.dot || fail "no iteration $t"; done
grep -q "iteration 4" plain.dot && fail "an iteration 4"
[ "$(grep -c softmax plain.dot)" -ge 2 ] || fail "no softmax of couplings"
for routing in kmeans em heinsen self-routing; do
  expect 0 nothing --of routing --routing "$routing" --reference --gradient --out r.dot
  grep -q 'gradient by votes' r.dot || fail "$routing: no gradient"
done
# More orders, more ops.
for of in routing input-penalty parameter-penalty; do
  expect 0 nothing --of $of --out one.dot
  expect 0 nothing --of $of --gradient --out two.dot
  [ "$(boxes two.dot)" -gt "$(boxes one.dot)" ] || fail "$of: no gradient"
done
grep -q 'gradient of a gradient' two.dot || fail "no second order"
expect 0 nothing --of parameter-penalty --gradient --out again.dot && cmp -s two.dot again.dot || fail "not the same twice"

expect 2 "$bin/grad_graph" --routing magic && says "--routing: routing: one of dynamic"
expect 2 "$bin/grad_graph" --routing kmeans && says "go with --of routing"
expect 2 "$bin/grad_graph" --of circles && says "--of"
expect 2 "$bin/grad_graph" --out graph.png && says "--out: the name must end with .dot"
expect 1 "$bin/grad_graph" --out nowhere/graph.dot && says "nowhere/graph.dot"
expect 1 "$bin/grad_graph" --of routing --routing dynamic:iterations=0 --out r.dot && says "at least 1 iteration"

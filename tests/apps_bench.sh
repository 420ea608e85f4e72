#!/usr/bin/env bash
# Runs the bench as people do, on its small workloads.   apps_bench.sh BIN ROOT
set -uo pipefail
export LC_ALL=C PYTHONDONTWRITEBYTECODE=1
bench=$(cd "$1" && pwd)/bench
torch=$(cd "$2" && pwd)/apps/bench/torch
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

fail() {
  printf 'FAILED: %s\n' "$*" >&2
  sed 's/^/  | /' out err >&2
  exit 1
}
# expect CODE COMMAND...: what it prints goes to the files `out` and `err`.
expect() {
  local code=$1 got=0
  shift
  "$@" >out 2>err </dev/null || got=$?
  [ "$got" = "$code" ] || fail "exit code $got, not $code: $*"
}
says() { grep -qE -- "$2" "$1" || fail "no '$2' in $1"; }

expect 0 "$bench" --help
says out '--against-torch'

# Wrong names are answered with what would be right, before anything is measured.
expect 2 "$bench" capsnet:mode=run
says err "mode must be one of train, infer; got 'run'"
expect 2 "$bench" capsnet:Q=1
says err "no key 'Q'; capsnet has B, mode"
expect 2 "$bench" nothing:B=1
says err "no family 'nothing'; there are capsnet"
expect 2 "$bench" capsnet:B
says err 'must look like family:key=value'
expect 2 "$bench" capsnet:
says err "must look like family:key=value,key=value; got ''"
expect 2 "$bench" capsnet:B=1,
says err "must look like family:key=value,key=value; got ''"
expect 2 "$bench" capsnet:B=0
says err 'B must be an integer of 1 to 2147483647'
expect 2 "$bench" capsnet:B=1,B=2
says err "'B' is given twice"
expect 2 "$bench" --filter 'no such thing' --list
says err 'no workload'

# A flag that nothing would read is refused.
idle() { # idle FLAG COMMAND...
  expect 2 "$bench" "${@:2}"
  says err "^error: $1: (not )?of .* Hint: "
}
idle --pairs --pairs 3
idle --python --python python3
idle --repetitions --against-torch --repetitions 3
idle --seconds --smoke --seconds 1
idle --json --list --json
idle --curves --list --curves curves
idle --filter --profile capsnet:mode=train,B=1 --filter caps
idle --smoke --once prim --smoke
idle SPEC --profile capsnet:mode=train,B=1 em:mode=train,B=1
[ ! -e curves ] || fail "a refused command line left files"

# Every standard workload has a distinct name, and every small one runs and says how long it took.
expect 0 "$bench" --list
[ "$(cut -d' ' -f1 out | sort -u | wc -l)" = "$(wc -l <out)" ] || fail "a name stands twice"
for family in capsnet routing em emroute gp effcaps text prim startup; do says out "^$family"; done
expect 0 "$bench" --list --smoke
names=$(wc -l <out)
expect 0 "$bench" --smoke --json
[ "$(grep -cE '^\{"workload":"[^"]+","threads":[0-9]+,"ms":[0-9.e-]+,.*"flops":.*"peak_rss_mb":[0-9.]+\}$' out)" = "$names" ] ||
  fail "not $names lines of JSON"
expect 0 "$bench" --smoke --filter emroute --threads 1
says out '^emroute:mode=fwdbwd,B=1,I=18 +[0-9.]+'

# Curves leave pictures, points and tables.
expect 0 "$bench" --curves curves --smoke
for file in iterations.png curves.jsonl curves.md; do [ -s "curves/$file" ] || fail "no curves/$file"; done
says curves/curves.md '^\| iterations \| ms'

# The networks have the parameters of the papers and of public code.
expect 0 "$bench" --smoke --json capsnet:mode=infer,B=1 em:mode=infer,B=1 effcaps:B=1 text:B=1,L=9
says out '"workload":"capsnet:mode=infer,B=1".*"parameters":8215568,'
says out '"workload":"em:mode=infer,B=1".*"parameters":68572,'
says out '"workload":"effcaps:B=1".*"parameters":1573168,'
says out '"workload":"text:B=1,L=9".*"parameters":43680,'

# Ops of the forward pass and their rules in the backward pass.
expect 0 "$bench" --profile capsnet:mode=train,B=1
says out '^conv2d +2 +[0-9.]+ +2 +[0-9.]+ '
says out '^dynamic_routing +1 +[0-9.]+ +1 '
says out '^total .* 100\.0$'

# Without PyTorch there is a clear answer.
expect 1 "$bench" --against-torch --python "$work/no-python"
says err 'needs PyTorch .* Hint: apt-get install python3-torch'
if command -v python3 >/dev/null; then
  for script in "$torch"/*.py; do
    expect 0 python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read())' "$script"
  done
fi
if /usr/bin/python3 -c 'import torch' 2>/dev/null; then
  echo go >line
  /usr/bin/python3 "$torch/side.py" serve routing:mode=fwdbwd,B=1,I=8,r=2 mul stock 1 \
    <line >out 2>err || fail "the PyTorch side"
  says out '^ready$'
  says out '^[0-9.e-]+ [0-9.e-]+ [0-9.]+$'
fi

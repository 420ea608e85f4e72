#!/usr/bin/env python3
"""Is anything slower than it was? Runs two builds of `bench` in turn and prints the ratio of their times.

  scripts/compare-builds.py OLD/bin/bench NEW/bin/bench [--pairs 20] [--seconds 0.3] [SPEC...]

Each pair is a process of either program over all workloads, the first one by turns; the time of a workload in a
process is the median of its repetitions. A line holds the median of the ratios old / new and the interval that
holds the true median with 95 % (order statistics of the binomial, nothing assumed about the distribution). Below 1
at both ends: the new program is slower, which is marked and makes the script end with 1. Of sixty workloads that
did not change, one or two are marked by chance: name those as SPEC and look again. Without SPEC: all workloads that
both programs know. Needs Python 3 alone, and a machine with nothing else to do.
"""
import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys


# Either variable can halve the speed of OpenBLAS (scripts/bench.sh).
ENVIRONMENT = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}


def program(path):
    if not (os.path.isfile(path) and os.access(path, os.X_OK)):
        raise argparse.ArgumentTypeError(f"{path}: no such program. Hint: scripts/build.sh makes build/release/bin/bench")
    return pathlib.Path(path).resolve()


def names(bench):
    done = subprocess.run([bench, "--list"], capture_output=True, text=True)
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    if done.returncode != 0 or not listed:
        sys.exit(f"{bench} --list: no workloads. Is it a bench? {done.stderr.strip()}")
    return listed


def milliseconds(bench, specs, seconds):
    command = [bench, "--json", "--repetitions", "5", "--seconds", str(seconds), *specs]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    lines = map(json.loads, done.stdout.splitlines())
    return {line["workload"]: line["ms"] for line in lines if "workload" in line}


def interval(values):
    """The narrowest pair of order statistics around the median that holds it with 95 % or more."""
    n, tail, k = len(values), 0.0, 0
    while k < n // 2 and tail + math.comb(n, k) / 2**n <= 0.025:
        tail += math.comb(n, k) / 2**n
        k += 1
    ordered = sorted(values)
    return ordered[max(k - 1, 0)], ordered[min(n - k, n - 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=program)
    parser.add_argument("new", type=program)
    parser.add_argument("spec", nargs="*")
    parser.add_argument("--pairs", type=int, default=20, help="at least 6 (default 20)")
    parser.add_argument("--seconds", type=float, default=0.3, help="of a workload in a process (default 0.3)")
    options = parser.parse_intermixed_args()
    if options.pairs < 6:
        parser.error("--pairs: fewer than 6 have no interval of 95 %")
    known = names(options.old)
    specs = options.spec or [spec for spec in names(options.new) if spec in known]
    old, new = [], []
    for pair in range(options.pairs):
        sides = [(options.old, old), (options.new, new)]
        for bench, runs in sides if pair % 2 == 0 else sides[::-1]:
            runs.append(milliseconds(bench, specs, options.seconds))
        print(f"pair {pair + 1} of {options.pairs}", file=sys.stderr, flush=True)

    width = max(map(len, specs))
    print(f"{'workload':{width}} {'old ms':>9} {'new ms':>9} {'old/new':>8}   95 %")
    slower = 0
    for spec in specs:
        ratios = [a[spec] / b[spec] for a, b in zip(old, new)]
        low, high = interval(ratios)
        slower += high < 1
        print(f"{spec:{width}} {statistics.median(a[spec] for a in old):9.3f} "
              f"{statistics.median(b[spec] for b in new):9.3f} {statistics.median(ratios):8.3f}   "
              f"{low:.3f} to {high:.3f}{'  slower' if high < 1 else ''}")
    sys.exit(1 if slower else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)

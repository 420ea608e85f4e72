#!/usr/bin/env python3
"""Keeps the log of a run under docs/results, and makes the table of text results of what is kept.

  scripts/keep-results.py RUN NAME "COMMAND"    the log in RUN -> docs/results/NAME.jsonl, behind a line with
                                                the command, the commit and the processor; lines about single
                                                steps are left out
  scripts/keep-results.py --text-table          Markdown: the rows are docs/results/text/SET-ARCH.jsonl

Needs Python 3 alone.
"""
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs/results"
SETS = ["trec", "sst2", "cr", "mpqa", "subj", "mr"]
ARCHS = ["a", "b", "static", "cnn", "lstm"]


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def keep(run, name, command):
    logs = list(pathlib.Path(run).glob("*.jsonl"))
    if len(logs) != 1:
        sys.exit(f"{run}: must be a folder with one log (*.jsonl); it has {len(logs)}")
    lines = [line for line in lines_of(logs[0]) if line["event"] != "train"]
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    first = {"event": "command", "command": command, "commit": commit.stdout.strip(), "cpu": cpu,
             "cores": len(os.sched_getaffinity(0))}
    target = RESULTS / f"{name}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in [first] + lines))
    print(target.relative_to(ROOT))


def share(values):
    values = [100 * v for v in values]
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def cell(data, arch):
    """Test accuracies, the largest mean on the development part, seconds an epoch."""
    lines = lines_of(RESULTS / f"text/{data}-{arch}.jsonl")
    tests = [line for line in lines if line["event"] == "test"]
    epochs = [line["seconds"] for line in lines if line["event"] == "epoch"]
    return ([line["test_accuracy"] for line in tests], [line["dev_accuracy"] for line in tests],
            statistics.mean(epochs))


def text_table():
    print("| set | " + " | ".join(ARCHS) + " |\n| --- |" + " --: |" * len(ARCHS))
    for data in SETS:
        cells = [cell(data, arch) for arch in ARCHS]
        print(f"| {data} | " + " | ".join(share(test) for test, _, _ in cells) + " |")
    print("\nOn the development part:\n\n| set | " + " | ".join(ARCHS) + " |\n| --- |" + " --: |" * len(ARCHS))
    for data in SETS:
        print(f"| {data} | " + " | ".join(share(cell(data, arch)[1]) for arch in ARCHS) + " |")
    print("\nSeconds an epoch, evaluation left out:\n\n| set | " + " | ".join(ARCHS) + " |\n| --- |" +
          " --: |" * len(ARCHS))
    for data in SETS:
        print(f"| {data} | " + " | ".join(f"{cell(data, arch)[2]:.1f}" for arch in ARCHS) + " |")


def main():
    if sys.argv[1:] == ["--text-table"]:
        text_table()
    elif len(sys.argv) == 4:
        keep(*sys.argv[1:])
    else:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"keep-results.py: {type(error).__name__}: {error}")

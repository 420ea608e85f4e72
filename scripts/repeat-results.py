#!/usr/bin/env python3
"""Repeats runs whose logs are kept under docs/results, and says whether the figures are the same.

  scripts/repeat-results.py --list                         the kept logs, their epochs, hours and commands
  scripts/repeat-results.py mnist/stacked text/cr-a        the commands in these logs, to their ends
  scripts/repeat-results.py --epochs 1 mnist               all logs of a folder, each until its first epoch (or record) is written

Compares all numbers of all lines, but for times and memory, digit by digit: the bits of a run depend on the
processor's kernels (AVX2, AVX-512, SSE2) and not on the number of threads. Ends with 1 where any differs. The runs are made in
--work (a new folder; a name of a log becomes a folder in it, `scripts/keep-results.py` keeps one in place of the
old). A command of mpirun runs under it. Needs Python 3 alone.
"""
import argparse
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
NAMES = ("event", "network", "model", "penalty", "attack", "epsilon", "lr", "seed", "fold", "epoch", "step")
COUNTED = ("epoch", "record", "sweep", "attack")


def is_time(key):
    return "second" in key or key.startswith("peak_") or key == "ms_per_step"


def lines_of(path):
    """All lines but those of single steps, by what names them; a last line that is still being written is left out.
    Of a folder: of the log in it, if there is one by now."""
    lines = {}
    if path.suffix != ".jsonl":
        path = next(path.glob("*.jsonl"), None)
    for text in path.read_text().splitlines(keepends=True) if path else []:
        line = json.loads(text) if text.endswith("\n") else {"event": "train"}
        line.setdefault("seed", 1)  # some old logs of one seed do not name it
        if line["event"] not in ("train", "command"):
            name = ", ".join(f"{key} {line[key]}" for key in NAMES if key in line and (key != "step" or line["event"] == "record"))
            lines[name] = {key: value for key, value in line.items() if key not in NAMES and not is_time(key)}
    return lines


def counted(lines):
    return sum(name.split(",")[0].split()[1] in COUNTED for name in lines)


def run(command, folder, out, epochs):
    """Runs it in `folder` until the log in `out` has `epochs` of the lines that are counted, or to its end for 0."""
    with open(f"{out}.out", "w") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, stdin=subprocess.DEVNULL, start_new_session=True)
    enough = False
    try:
        while process.poll() is None and not enough:
            time.sleep(0.05)
            enough = epochs > 0 and counted(lines_of(out)) >= epochs
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
    if process.wait() != 0 and not enough:
        text = pathlib.Path(said.name).read_text().strip().splitlines()
        sys.exit(f"{shlex.join(map(str, command))}: ended with {process.returncode}: {text[-1] if text else ''}")


def differences(kept, new):
    for name, line in new.items():
        if name not in kept:
            yield f"{name}: not in the kept log"
        for key in line.keys() & kept.get(name, {}).keys():
            if line[key] != kept[name][key]:
                yield f"{name}: {key} {kept[name][key]} -> {line[key]}"


def repeat(name, options):
    kept_log = options.results / f"{name}.jsonl"
    command = shlex.split(json.loads(kept_log.read_text().splitlines()[0])["command"])
    program = command.index("-np") + 2 if command[0] == "mpirun" else 0
    command[program] = options.bin.resolve() / command[program]
    if "--out" not in command:
        command += ["--out", name.replace("/", "-")]
    out = options.work / command[command.index("--out") + 1]
    start = time.monotonic()
    run(command, options.work, out, options.epochs)
    kept, new = lines_of(kept_log), lines_of(out)
    if options.epochs == 0 and len(new) < len(kept):
        sys.exit(f"{name}: {len(new)} lines, where the kept log has {len(kept)}")
    found = list(differences(kept, new))
    print(f"{name}: {counted(new)} of {counted(kept)} epochs or records, {time.monotonic() - start:.0f} s: "
          + (f"{len(found)} numbers differ" if found else "the same"))
    for text in found[:options.show]:
        print(f"  {text}", flush=True)
    return not found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a log, or a folder of logs, under docs/results")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--epochs", type=int, default=0, help="stop each run after so many epochs or records; 0: never")
    parser.add_argument("--show", type=int, default=3, help="so many differences of each log are printed")
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/release/bin", help="folder of the programs")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "docs/results")
    parser.add_argument("--work", type=pathlib.Path, help="folder of the runs (a temporary one)")
    options = parser.parse_args()
    known = sorted(str(log.relative_to(options.results).with_suffix("")) for log in options.results.rglob("*.jsonl"))
    chosen = [log for name in options.names for log in known if log == name or log.startswith(name.rstrip("/") + "/")]
    for name in options.names:
        if not any(log == name or log.startswith(name.rstrip("/") + "/") for log in known):
            sys.exit(f"{name}: no such log or folder of logs in {options.results}. Hint: --list")
    if options.list:
        for name in known:
            lines = [json.loads(line) for line in (options.results / f"{name}.jsonl").read_text().splitlines()]
            hours = sum(line.get("seconds", 0) for line in lines if line["event"] == "epoch") / 3600
            print(f"{name:32} {counted(lines_of(options.results / (name + '.jsonl'))):4} {hours:5.2f} h  {lines[0]['command']}")
        return 0
    if not chosen:
        parser.error("the name of a log is missing. Hint: --list")
    options.work = (options.work or pathlib.Path(tempfile.mkdtemp(prefix="capsfw-results-"))).resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    print(f"runs in {options.work}", flush=True)
    same = [repeat(name, options) for name in dict.fromkeys(chosen)]
    print(f"{sum(same)} of {len(same)} logs are the same")
    return 0 if all(same) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"repeat-results.py: {type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted")

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
        try:
            line = json.loads(text) if text.endswith("\n") else {"event": "train"}
            line.setdefault("seed", 1)  # some old logs of one seed do not name it
        except (ValueError, AttributeError):
            sys.exit(f"{path}: each line must be an object of JSON; got {text[:60].strip()}")
        if line.get("event", "train") not in ("train", "command"):
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
            if json.dumps(line[key]) != json.dumps(kept[name][key]):  # a NaN is the same as a NaN
                yield f"{name}: {key} {kept[name][key]} -> {line[key]}"


def command_of(log):
    """The command in the first line of a kept log."""
    try:
        command = shlex.split(json.loads(log.read_text().split("\n")[0])["command"])
        program = command.index("-np") + 2 if command[0] == "mpirun" else 0
        return command[:program], command[program], command[program + 1:]
    except (ValueError, KeyError, IndexError, TypeError):
        sys.exit(f"{log}: its first line must be {{\"event\": \"command\", \"command\": \"PROGRAM ...\", ...}}. "
                 "Hint: scripts/keep-results.py writes such logs")


def repeat(name, options):
    kept_log = options.results / f"{name}.jsonl"
    launcher, program, arguments = command_of(kept_log)
    path = options.bin.resolve() / program
    if not os.access(path, os.X_OK):
        sys.exit(f"{name}: there is no program {path}. Hint: scripts/build.sh makes build/release/bin; --bin DIR")
    if "--out" not in arguments[:-1]:
        arguments += ["--out", name.replace("/", "-")]
    out = options.work / arguments[arguments.index("--out") + 1]
    command = [*launcher, path, *arguments]
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
            log = options.results / f"{name}.jsonl"
            launcher, program, arguments = command_of(log)
            hours = sum(json.loads(line).get("seconds", 0) for line in log.read_text().splitlines()) / 3600
            print(f"{name:32} {counted(lines_of(log)):4} {hours:5.2f} h  {shlex.join([*launcher, program, *arguments])}")
        return 0
    if not chosen:
        parser.error("the name of a log is missing. Hint: --list")
    if options.epochs < 0:
        parser.error(f"--epochs: must not be negative; got {options.epochs}")
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

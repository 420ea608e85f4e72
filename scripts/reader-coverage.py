#!/usr/bin/env python3
"""Lines of the readers of files that the fuzzers' corpora reach, as the table of docs/hostile-files.md.

reader-coverage.py [CORPUS...]      default: tests/fuzz/corpus; more than one: their files together

Compiles data/, the readers of apps/common and capsfw_replay with g++ --coverage -O0, links them with the
library of the preset release (which must be built), and runs all files and damaged copies of them. Counts the
lines of functions that were entered; those that were not (writers, what looks for public sets) are listed below.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ROOT / "build/release"
MODELS = ["classifier_io", "description", "text_model"]

def compiled(source, folder):
    target = folder / (source.relative_to(ROOT).as_posix().replace("/", "_") + ".o")
    subprocess.run(["g++", "-std=c++20", "-O0", "--coverage", "-fprofile-abs-path", "-w", "-DFMT_SHARED",
                    f"-I{RELEASE}/include", f"-I{ROOT}/apps", "-I/usr/include/stb", "-c", source, "-o", target],
                   check=True)
    return target


def lines_of(source, folder):
    """(lines reached, lines, names of functions that were never entered)."""
    name = source.relative_to(ROOT).as_posix().replace("/", "_")
    out = subprocess.run(["gcov", "--json-format", "--stdout", "--demangled-names", folder / f"{name}.gcda"],
                         capture_output=True, cwd=folder, check=True).stdout
    reached, every, unused = set(), set(), []
    for file in json.loads(out)["files"]:
        if Path(file["file"]).resolve() != source:
            continue
        inside = set()
        for f in file["functions"]:
            if f["execution_count"] > 0:
                inside.update(range(f["start_line"], f["end_line"] + 1))
            elif "lambda" not in f["demangled_name"]:
                unused.append(f["demangled_name"].split("(")[-2 if "anonymous" in f["demangled_name"] else 0])
        for line in file["lines"]:
            if line["line_number"] in inside:
                every.add(line["line_number"])
                if line["count"] > 0:
                    reached.add(line["line_number"])
    return len(reached), len(every), unused


def main():
    if len(sys.argv) > 1 and sys.argv[1] in ("-h", "--help"):
        print(__doc__.strip())
        return 0
    if not (RELEASE / "libcapsfw.a").exists():
        sys.exit("reader-coverage.py: no build/release/libcapsfw.a. Hint: scripts/build.sh release")
    corpora = [Path(c).resolve() for c in sys.argv[1:]] or [ROOT / "tests/fuzz/corpus"]
    readers = sorted((ROOT / "data").rglob("*.cpp"))
    readers += [ROOT / f"apps/common/{m}.cpp" for m in MODELS]
    others = [ROOT / f"tests/fuzz/{t}.cpp" for t in ("replay", "arrays", "images", "sets", "texts", "with_file", "models")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda s: compiled(s, folder), readers + others))
        subprocess.run(["g++", "--coverage", *objects, RELEASE / "libcapsfw.a", "-lfmt", "-lz", "-ltbb", "-lopenblas",
                        "-o", folder / "replay"], check=True)
        together = folder / "corpus"
        for corpus in corpora:
            for target in corpus.iterdir():
                (together / target.name).mkdir(parents=True, exist_ok=True)
                for file in target.iterdir():
                    shutil.copy(file, together / target.name / file.name)
        subprocess.run([folder / "replay", together, "20"], check=True, stdout=subprocess.DEVNULL)
        print("| reader | lines |\n| --- | --- |")
        never = []
        for source in readers:
            reached, every, unused = lines_of(source, folder)
            if every > 0:
                print(f"| `{source.relative_to(ROOT)}` | {100 * reached // every} % of {every} |")
                never.append(f"{source.name}: {', '.join(unused)}")
        print("\nNever entered:", *(n for n in never if not n.endswith(": ")), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3
"""The PyTorch side of `bench --against-torch`: the same workloads, shapes and arithmetic.

  side.py check                                   one line: the version of torch, or what is missing
  side.py programs SPEC THREADS                   "FORMULATION CONFIGURATION" per line, the first
                                                  configuration being the likely best; nothing if
                                                  there is no counterpart
  side.py serve SPEC FORMULATION CONFIG THREADS   builds the workload, warms up, says "ready"; then
                                                  answers every line "go" with one repetition: ms of
                                                  a step, CPU seconds, peak memory in MB

What users meet is the configuration `stock`. The others are the best that is known for PyTorch on a
CPU: an allocator that keeps its memory (JEMALLOC names the library, else the usual places are
searched; else the tunables of glibc), one thread pool for PyTorch and BLAS (OPENBLAS_OPENMP_DIR,
Debian's libopenblas0-openmp), kernels for AVX-512.
"""
import glob
import math
import os
import resource
import sys
import time

MARK = "CAPSFW_BENCH_CONFIGURATION"
CLEARED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "OPENBLAS_NUM_THREADS", "ATEN_CPU_CAPABILITY",
           "GLIBC_TUNABLES", "MALLOC_CONF", "LD_PRELOAD", "LD_LIBRARY_PATH", "OMP_NUM_THREADS",
           "OMP_WAIT_POLICY", "OMP_PROC_BIND", "GOMP_SPINCOUNT")
KEEP_MEMORY = ":".join("glibc.malloc." + t for t in (
    "hugetlb=1", "mmap_threshold=8589934592", "trim_threshold=17179869184", "top_pad=268435456"))


def first_match(variable, pattern):
    """What the variable names, else the first file or folder that fits the pattern."""
    found = [os.environ[variable]] if os.environ.get(variable) else sorted(glob.glob(pattern))
    return next((f for f in found if os.path.exists(f)), None)


def configurations():
    """Name -> environment; the likely best first."""
    with open("/proc/cpuinfo") as f:
        wide = "avx512f" in f.read()
    jemalloc = first_match("JEMALLOC", "/usr/lib/*/libjemalloc.so.2")
    openmp = first_match("OPENBLAS_OPENMP_DIR", "/usr/lib/*/openblas-openmp")
    kernels = {"OPENBLAS_CORETYPE": "SkylakeX"} if wide else {}
    aten = {"ATEN_CPU_CAPABILITY": "avx512"} if wide else {}
    pool = {"LD_LIBRARY_PATH": openmp} if openmp else {}
    found = {}
    if jemalloc:
        keep = {"LD_PRELOAD": jemalloc, "MALLOC_CONF": "thp:always,background_thread:false,"
                "dirty_decay_ms:-1,muzzy_decay_ms:-1"}
        found["jemalloc"] = {**kernels, **pool, **keep}
        if wide:
            found["jemalloc+avx512"] = {**kernels, **aten, **pool, **keep}
    if openmp:
        found["glibc+openmp"] = {**kernels, **aten, **pool, "GLIBC_TUNABLES": KEEP_MEMORY}
    found["glibc+passive"] = {**kernels, "GLIBC_TUNABLES": KEEP_MEMORY, "OMP_WAIT_POLICY": "passive"}
    found["stock"] = {}
    return found


def environment(name, threads):
    env = {k: v for k, v in os.environ.items() if k not in CLEARED}
    env.update(configurations()[name], OMP_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads)
    env[MARK] = name
    return env


def parse(spec):
    family, _, rest = spec.partition(":")
    values = dict(part.split("=") for part in rest.split(",") if part)
    return family, {k: int(v) if v.lstrip("-").isdigit() else v for k, v in values.items()}


def family_of(name):
    """(formulations(keys), build(keys, formulation)) of a family; None if PyTorch has no such."""
    import capsules
    import matrix
    import networks
    import others
    return {"capsnet": (capsules.capsnet_formulations, capsules.capsnet),
            "routing": (capsules.routing_formulations, capsules.routing),
            "em": (matrix.net_formulations, matrix.net),
            "emroute": (matrix.routing_formulations, matrix.routing),
            "gp": (others.penalty_formulations, others.penalty),
            "effcaps": (networks.efficient_formulations, networks.efficient),
            "text": (networks.text_formulations, networks.text),
            "prim": (others.primitive_formulations, others.primitive),
            "startup": (others.startup_formulations, others.startup)}.get(name)


def repeat(step, n):
    start = time.perf_counter()
    for _ in range(n):
        step()
    return (time.perf_counter() - start) / n


def cpu_seconds():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def peak_mb():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(u.ru_maxrss for u in used) * 1024 / 1e6


def serve(spec, formulation, threads):
    import torch
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    family, keys = parse(spec)
    step = family_of(family)[1](keys, formulation)
    repeat(step, 1)
    seconds = repeat(step, 1)
    if seconds < 0.06:
        seconds = repeat(step, min(20, max(1, int(0.06 / seconds))))
    steps = max(1, math.ceil(0.06 / seconds))
    print("ready", flush=True)
    for _ in sys.stdin:
        before = cpu_seconds()
        ms = repeat(step, steps) * 1e3
        print(ms, cpu_seconds() - before, peak_mb(), flush=True)


def main(words):
    if words[:1] == ["check"]:
        try:
            import torch
            print("torch %s, configurations: %s" % (torch.__version__, ", ".join(configurations())))
        except ImportError as e:
            print(e)
    elif words[:1] == ["programs"] and len(words) == 3:
        family, keys = parse(words[1])
        found = family_of(family)
        for formulation in found[0](keys) if found else ():
            for name in configurations():
                print(formulation, name)
    elif words[:1] == ["serve"] and len(words) == 5:
        spec, formulation, name, threads = words[1:]
        if os.environ.get(MARK) != name:  # libraries read their environment when they are loaded
            os.execve(sys.executable, [sys.executable] + sys.argv, environment(name, threads))
        serve(spec, formulation, threads)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])

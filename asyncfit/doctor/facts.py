"""What is here: processor, cores, quota, BLAS, versions, variables. It imports nothing that may be missing.

Where a system does not tell (no /proc on macOS and Windows), a fact is None or empty, and NumPy's own look at the
processor stands in for its flags.
"""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata

import numpy as np

from asyncfit import machine

__all__ = ["VARIABLES", "Facts", "collect", "cpu_info", "quota"]

Read = Callable[[str], str | None]

VARIABLES = (
    *machine.THREAD_VARIABLES,
    "GOTO_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_DYNAMIC",
    "MKL_ENABLE_INSTRUCTIONS",
    "OMP_DYNAMIC",
    "OMP_PROC_BIND",
    "OMP_THREAD_LIMIT",
    "OMP_WAIT_POLICY",
    "NPY_DISABLE_CPU_FEATURES",
    "PYTHONASYNCIODEBUG",
    "PYTHONDEVMODE",
    "PYTHONMALLOC",
)
"""The variables that force something."""

PACKAGES = ("asyncfit", "numpy", "h5py", "anyio", "trio", "uvloop", "scipy", "threadpoolctl")

# What NumPy calls sets of instructions, by its versions, as flags.
NUMPY_LEVELS = {
    "AVX512F": "avx512f", "AVX512_SKX": "avx512bw", "X86_V4": "avx512bw", "AVX512_ICL": "avx512bw", "AVX2": "avx2",
    "X86_V3": "avx2", "FMA3": "fma", "AVX": "avx", "ASIMD": "asimd", "SVE": "sve",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What decides the speed.

    Attributes:
        system, architecture: as `platform` names them: "Linux", "x86_64".
        processor: the name of its model.
        flags: the instruction sets that matter, in the spelling of /proc/cpuinfo.
        cpus: logical ones of the machine; `usable`: those that this process may run on; `cores`: physical ones.
        quota: how many CPUs' worth of time a container may take; None where it is not limited.
        load: processes that wanted to run, on average over the last minute.
        blas, kernels, threads: as `TrainBegin.params` tells them; "unknown" where BLAS does not say.
        versions: by package, None for one that is not installed.
        variables: those of `VARIABLES` that are set.
        debug: whether the interpreter was built for debugging.
    """

    system: str
    architecture: str
    python: str
    processor: str | None = None
    flags: tuple[str, ...] = ()
    cpus: int = 1
    usable: int = 1
    cores: int | None = None
    quota: float | None = None
    load: float | None = None
    blas: str = "unknown"
    kernels: str = "unknown"
    threads: int | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    debug: bool = False


def collect() -> Facts:
    """The facts of this process and machine."""
    told = machine.blas()
    text = read("/proc/cpuinfo")
    processor, flags, cores = cpu_info(text) if text else (None, (), None)
    if processor is None:
        processor = asked("sysctl", "-n", "machdep.cpu.brand_string") if sys.platform == "darwin" else None
    threads = str(told["threads"])
    return Facts(
        system=platform.system() or sys.platform,
        architecture=platform.machine() or "unknown",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        processor=processor or platform.processor() or None,
        flags=flags or numpy_flags(),
        cpus=os.cpu_count() or 1,
        usable=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cores=cores,
        quota=quota(read),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        blas=told["blas"],
        kernels=told["kernels"],
        threads=int(threads) if threads.isdecimal() else None,
        versions={name: version(name) for name in PACKAGES},
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
        debug=hasattr(sys, "gettotalrefcount"),
    )


def cpu_info(text: str) -> tuple[str | None, tuple[str, ...], int | None]:
    """Name, flags that matter, and number of physical cores, out of /proc/cpuinfo; None for what it does not tell."""
    name: str | None = None
    flags: set[str] = set()
    places: set[tuple[str, str]] = set()
    for block in text.split("\n\n"):
        lines = (line.partition(":") for line in block.splitlines())
        entries = {key.strip(): value.strip() for key, _, value in lines}
        name = name or entries.get("model name")
        flags |= set((entries.get("flags") or entries.get("Features") or "").split())
        if "core id" in entries:
            places.add((entries.get("physical id", "0"), entries["core id"]))
    wanted = ("sse", "avx", "fma", "amx", "asimd", "sve")
    kept = tuple(sorted(flag for flag in flags if flag.startswith(wanted)))
    return name, kept, len(places) or None


def numpy_flags() -> tuple[str, ...]:
    """What NumPy found of the processor when it was imported."""
    shown: object = np.show_config(mode="dicts")
    simd = shown.get("SIMD Extensions", {}) if isinstance(shown, Mapping) else {}
    names = [*simd.get("baseline", []), *simd.get("found", [])]
    found = {NUMPY_LEVELS[name] for name in names if name in NUMPY_LEVELS}
    if "avx512bw" in found:
        found |= {"avx512f", "avx512dq", "avx512vl"}
    return tuple(sorted(found | ({"fma"} if "avx2" in found else set())))


def quota(read: Read) -> float | None:
    """How many CPUs' worth of time the control groups of this process leave it (version 2 or 1); None: no limit.

    `read` gives a file's text, None where there is none.
    """
    found = []
    for line in (read("/proc/self/cgroup") or "0::/").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            for folder in up("/sys/fs/cgroup", path):
                limit, _, period = (read(f"{folder}/cpu.max") or "max").partition(" ")
                found.append(share(limit, period or "100000"))
        elif "cpu" in controllers.split(","):
            for root in ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"):
                for folder in up(root, path):
                    limit, period = (read(f"{folder}/cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
                    found.append(share(limit, period))
    return min((one for one in found if one is not None), default=None)


def up(root: str, path: str) -> list[str]:
    """The group's folder and those above it; a container may see its own group as the root."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return ["/".join([root, *parts[:n]]) for n in range(len(parts), -1, -1)]


def share(limit: str, period: str) -> float | None:
    try:
        found = float(limit) / float(period)
    except (ValueError, ZeroDivisionError):
        return None
    return found if math.isfinite(found) and found > 0 else None


def read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def asked(*command: str) -> str | None:
    """What a program of the system prints, None if it does not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def version(package: str) -> str | None:
    if package == "asyncfit":  # it may run from its sources, not installed
        return str(sys.modules["asyncfit"].__version__)
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

"""From facts to advice: pure functions, one for each thing that may be wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from .facts import Facts
from .kernels import family_of, level_of
from .speed import Speed

__all__ = ["Advice", "advise", "allowed", "library"]


@dataclass(frozen=True, slots=True)
class Advice:
    """Something worth knowing.

    Attributes:
        weight: "slow" costs speed, "wrong" may crash or mislead, "note" is only to be known.
        about: "kernels", "threads", "blas", "variables", "python", "machine".
        what: what is so, and why it matters.
        do: what to do about it; None if nothing.
    """

    weight: str
    about: str
    what: str
    do: str | None = None


def advise(facts: Facts, speed: Speed | None = None) -> list[Advice]:
    """What a user of this machine should know, the weightiest first."""
    rules = (of_the_library, of_kernels, of_threads, of_variables, of_python)
    found = [one for rule in rules for one in rule(facts)] + list(of_speed(facts, speed))
    return sorted(found, key=lambda one: ("wrong", "slow", "note").index(one.weight))


def library(facts: Facts) -> str:
    """The kind of BLAS: "openblas", "mkl", "accelerate", "blis", "reference" or "unknown"."""
    name = facts.blas.lower()
    for kind in ("openblas", "mkl", "accelerate", "blis"):
        if kind in name:
            return kind
    word = name.split(" ")[0]
    return "reference" if word in ("blas", "cblas", "lapack", "netlib", "none", "refblas") else "unknown"


def allowed(facts: Facts) -> int:
    """How many threads can really run at a time."""
    limits = [facts.usable, *([facts.cores] if facts.cores else [])]
    if facts.quota is not None:
        limits.append(math.ceil(facts.quota))
    return max(1, min(limits))


THREAD_VARIABLES = {
    "openblas": ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"),
    "mkl": ("MKL_NUM_THREADS", "OMP_NUM_THREADS"),
    "accelerate": ("VECLIB_MAXIMUM_THREADS",),
    "blis": ("BLIS_NUM_THREADS", "OMP_NUM_THREADS"),
}
"""What says how many threads a BLAS uses; the first that is set wins."""


def of_the_library(facts: Facts) -> Iterator[Advice]:
    if library(facts) == "reference":
        yield Advice(
            "slow", "blas",
            f"NumPy uses {facts.blas}, a BLAS without kernels for this processor: matrix products are many times "
            "slower than they could be",
            "install NumPy from PyPI, which brings OpenBLAS along: pip install --force-reinstall numpy",
        )  # fmt: skip


def of_kernels(facts: Facts) -> Iterator[Advice]:
    """OpenBLAS's kernels against what the processor has."""
    has, uses = level_of(facts.flags), family_of(facts.kernels)
    forced = facts.variables.get("OPENBLAS_CORETYPE") if library(facts) == "openblas" else None
    if has is None or uses is None or has.kind != uses.kind:
        return
    if uses.rank < has.rank:
        lost = f"the processor has {has.name}, but BLAS computes with its {facts.kernels} kernels ({uses.name})"
        if forced:
            yield Advice(
                "slow", "kernels", f"{lost}, because OPENBLAS_CORETYPE={forced} forces them: {uses.cost}",
                "unset OPENBLAS_CORETYPE, unless you need the bits of these kernels; for one run alone: "
                'af.ProcessExecutor(env={"OPENBLAS_CORETYPE": None})',
            )  # fmt: skip
        else:
            yield Advice(
                "slow", "kernels", f"{lost}: it does not know this processor, or is too old. {uses.cost}",
                "pip install --upgrade numpy; if that does not help, set "
                f"OPENBLAS_CORETYPE={has.core} before Python starts",
            )  # fmt: skip
    elif uses.rank > has.rank and forced:
        yield Advice(
            "wrong", "kernels",
            f"OPENBLAS_CORETYPE={forced} forces {facts.kernels} kernels, which need {uses.name}; the processor has "
            f"{has.name} only, so that a matrix product may end the process",
            "unset OPENBLAS_CORETYPE",
        )  # fmt: skip
    elif forced:
        yield Advice(
            "note", "kernels",
            f"OPENBLAS_CORETYPE={forced} forces BLAS's kernels; they suit this processor, and the last bits of results "
            "depend on it",
        )  # fmt: skip


def of_threads(facts: Facts) -> Iterator[Advice]:
    """BLAS's threads against cores and quota."""
    threads, can = facts.threads, allowed(facts)
    names = THREAD_VARIABLES.get(library(facts), ("OMP_NUM_THREADS",))
    setter = next((name for name in names if name in facts.variables), None)
    if facts.quota is not None and facts.quota < facts.usable:
        yield Advice(
            "note", "threads",
            f"this container may take the time of {facts.quota:g} CPUs, though it sees {facts.usable}: what is used up "
            "early in a period makes everything stand still for the rest of it, the event loop too",
        )  # fmt: skip
    if threads is None:
        return
    if threads > can:
        why = (
            f"the container's quota is {facts.quota:g} CPUs"
            if facts.quota is not None and math.ceil(facts.quota) == can
            else f"the process may run on {facts.usable} CPUs"
            if facts.usable == can
            else f"there are {can} cores, and two threads of one core share its arithmetic units"
        )
        yield Advice(
            "slow", "threads",
            f"BLAS uses {threads} threads, but {why}: threads wait for each other, and products get slower, not faster",
            f"set {setter or names[0]}={can} before Python starts",
        )  # fmt: skip
    elif threads < can and setter:
        yield Advice(
            "note", "threads",
            f"{setter}={facts.variables[setter]} keeps BLAS at {threads} of {can} threads. Networks with hundreds of "
            "units in a layer train faster with all; small ones do not, and several runs at a time want one each",
            f"for large networks: set {setter}={can}",
        )  # fmt: skip


def of_variables(facts: Facts) -> Iterator[Advice]:
    """What is set and does nothing, or contradicts."""
    kind, variables = library(facts), facts.variables
    theirs = {"openblas": ("OPENBLAS_", "GOTO_"), "mkl": ("MKL_",), "accelerate": ("VECLIB_",)}
    for owner, beginnings in theirs.items():
        idle = [name for name in variables if name.startswith(beginnings)]
        if idle and kind not in (owner, "unknown") and not (len(idle) == 1 and idle[0].endswith("_THREADS")):
            yield Advice("note", "variables", f"{', '.join(idle)} has no effect: BLAS is {facts.blas}")
    winners = [name for name in THREAD_VARIABLES.get(kind, ()) if name in variables]
    if len({variables[name] for name in winners}) > 1:
        others = ", ".join(f"{name}={variables[name]}" for name in winners[1:])
        yield Advice("note", "variables", f"{winners[0]}={variables[winners[0]]} counts for BLAS; {others} does not")
    if variables.get("NPY_DISABLE_CPU_FEATURES"):
        yield Advice(
            "slow", "variables",
            f"NPY_DISABLE_CPU_FEATURES={variables['NPY_DISABLE_CPU_FEATURES']} takes instructions away from NumPy: "
            "activations and optimizers are slower",
            "unset NPY_DISABLE_CPU_FEATURES",
        )  # fmt: skip


def of_python(facts: Facts) -> Iterator[Advice]:
    if facts.debug:
        yield Advice(
            "slow", "python", "this Python was built for debugging: each call costs several times as much",
            "use a release build",
        )  # fmt: skip
    for name, cost in (
        ("PYTHONASYNCIODEBUG", "asyncio checks each callback and keeps a traceback for each task"),
        ("PYTHONDEVMODE", "Python runs in development mode: allocations are checked, asyncio is in debug mode"),
        ("PYTHONMALLOC", "Python allocates otherwise than it would"),
    ):
        value = facts.variables.get(name)
        if value and not (name == "PYTHONMALLOC" and value in ("pymalloc", "mimalloc", "default")):
            yield Advice("slow", "python", f"{name}={value}: {cost}", f"unset {name} where speed counts")


def of_speed(facts: Facts, speed: Speed | None) -> Iterator[Advice]:
    if facts.load is not None and facts.load > facts.cpus * 1.25:
        yield Advice(
            "note", "machine",
            f"the machine is busy: on average {facts.load:.1f} processes wanted to run on {facts.cpus} CPUs in the "
            "last minute, so what is measured here is less than it can do",
        )  # fmt: skip
    if speed is None:
        return
    small, large = speed.products[min(speed.products)], speed.products[max(speed.products)]
    if large < 0.6 * small:
        yield Advice(
            "slow", "threads",
            f"large matrix products ({large:.0f} GFLOP/s) are much slower than small ones ({small:.0f}): BLAS's "
            "threads are in each other's way, or in that of other processes",
            f"try fewer threads: {THREAD_VARIABLES.get(library(facts), ('OMP_NUM_THREADS',))[0]}=1",
        )  # fmt: skip
    if speed.call > 3:
        yield Advice(
            "slow", "machine",
            f"the smallest NumPy call takes {speed.call:.1f} µs, where 0.3 to 1 is usual: small networks, which are "
            "mostly calls, suffer; a tracer, a debugger, emulation or a busy machine does that",
        )  # fmt: skip

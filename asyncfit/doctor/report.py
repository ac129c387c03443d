"""Facts, figures and advice as text for people, and as plain JSON types."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

from .advice import Advice, allowed
from .facts import Facts
from .kernels import family_of, level_of
from .speed import Speed

__all__ = ["as_dict", "as_text"]

WIDTH = 100
MARKS = {"wrong": "!!", "slow": "! ", "note": "- "}


def as_dict(facts: Facts, speed: Speed | None, advice: Sequence[Advice]) -> dict[str, Any]:
    """`{"facts", "speed", "advice"}`; `speed` is None if nothing was measured."""
    told = dataclasses.asdict(facts) | {"flags": list(facts.flags), "allowed": allowed(facts)}
    measured = None
    if speed is not None:
        products = {str(size): round(value, 2) for size, value in speed.products.items()}
        figures = {"memory": round(speed.memory, 2), "call": round(speed.call, 3), "batch": round(speed.batch, 2)}
        measured = {"products": products, **figures}
    return {"facts": told, "speed": measured, "advice": [dataclasses.asdict(one) for one in advice]}


def as_text(facts: Facts, speed: Speed | None, advice: Sequence[Advice]) -> str:
    """The same for a terminal."""
    has, uses = level_of(facts.flags), family_of(facts.kernels)
    there = [f"{name} {version}" for name, version in facts.versions.items() if version]
    missing = [name for name in ("uvloop", "trio") if facts.versions and not facts.versions.get(name)]
    rows = [
        ("Python", f"{facts.python}, {facts.system} {facts.architecture}"),
        ("Versions", ", ".join(there) + (f" (not installed: {', '.join(missing)})" if missing else "")),
        ("Processor", f"{facts.processor or 'unknown'}{f', has {has.name}' if has else ''}"),
        ("CPUs", _cpus(facts)),
        (
            "BLAS",
            f"{facts.blas}, {facts.kernels} kernels{f' ({uses.name})' if uses else ''}, {_threads(facts.threads)}",
        ),
        ("Variables", ", ".join(f"{name}={value}" for name, value in facts.variables.items()) or "none that matter"),
    ]
    if speed is not None:
        products = ", ".join(f"{value:.0f} at {size}×{size}" for size, value in speed.products.items())
        rows += [
            ("Products", f"{products} (GFLOP/s, float32)"),
            ("Memory", f"{speed.memory:.1f} GB/s, read and written"),
            ("Calls", f"{speed.call:.2f} µs for a small NumPy call"),
            ("Training", f"{speed.batch:.1f} µs for a batch of 32 in a network of 16-32-1, with Adam"),
        ]
    lines = [line for label, text in rows for line in _wrapped(f"{label:<11}", text)]
    lines += ["", "What to do" if any(one.do for one in advice) else "Nothing stands in the way."]
    for one in advice:
        lines += _wrapped(f"{MARKS[one.weight]} ", f"{one.what}.".replace("..", "."))
        if one.do:
            lines += _wrapped("   → ", one.do)
    return "\n".join(lines)


def _cpus(facts: Facts) -> str:
    cores = f", {facts.cores} cores" if facts.cores else ""
    limit = f", a quota of {facts.quota:g}" if facts.quota is not None else ""
    return f"{facts.cpus}{cores}; this process may use {facts.usable}{limit}"


def _threads(threads: int | None) -> str:
    return "threads unknown" if threads is None else f"{threads} thread{'s' * (threads != 1)}"


def _wrapped(begin: str, text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=begin, subsequent_indent=" " * len(begin), break_long_words=False)

"""Six networks against loops by hand and, with `--peers`, against the libraries that happen to be installed.

    python -m tests.benchmarks.bench_models [W1 W2 …] [--peers] [--rounds 7] [--python OTHER_INTERPRETER …]

Each contender runs in a process of its own, all wait while one computes, and rounds alternate, so that noise meets
everybody. Where a peer is not installed for this interpreter, those given with `--python` are tried (asyncfit itself
runs here). `OPENBLAS_CORETYPE` is taken out of their environment: BLAS picks its kernels by itself. Printed are
microseconds a batch (least and median over the rounds) and how many times as long as asyncfit's each takes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from .contenders import CONTENDERS
from .workloads import WORKLOADS

ROOT = Path(__file__).parents[2]
PAUSE = 0.3
"""Seconds before each race: threads that still spin for work, of the contender before, have gone to sleep then."""
OURS = ("asyncfit", "NumPy by hand")


@dataclass
class Contender:
    name: str
    process: subprocess.Popen[str]
    seconds: list[float] = field(default_factory=list)

    def race(self, batches: int) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{batches}\n")
        self.process.stdin.flush()
        self.seconds.append(float(self.process.stdout.readline()) / batches)

    def end(self) -> None:
        self.process.communicate()


def started(name: str, workload: str, pythons: list[str]) -> Contender | None:
    """The contender, ready; None where it is not installed."""
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    environment["PYTHONPATH"] = str(ROOT)
    for python in pythons:
        process = subprocess.Popen(
            [python, "-m", "tests.benchmarks.contenders", name, workload],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment, cwd=ROOT,
        )  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "ready":
                return Contender(name, process)
        process.communicate()
    return None


def compare(workload: str, names: list[str], pythons: list[str], rounds: int) -> None:
    work = WORKLOADS[workload]
    print(f"\n{workload}: {work.title}")
    contenders: list[Contender] = []
    try:
        for name in names:
            found = started(name, workload, [sys.executable] if name in OURS else [sys.executable, *pythons])
            if found:
                contenders.append(found)
        batches = {}
        for one in contenders:  # as many batches as take about half a second, in whole epochs
            one.race(work.steps)
            epochs = max(1, round(0.5 / (one.seconds.pop() * work.steps)))
            batches[one.name] = epochs * work.steps
        for _ in range(rounds):
            for one in contenders:
                time.sleep(PAUSE)
                one.race(batches[one.name])
    finally:
        for one in contenders:
            one.end()
    if not contenders or contenders[0].name != "asyncfit":
        print("  asyncfit cannot build it")
        return
    ours = contenders[0].seconds
    for one in contenders:
        ratios = [theirs / mine for theirs, mine in zip(one.seconds, ours, strict=True)]
        print(
            f"  {one.name:<22} {min(one.seconds) * 1e6:9.1f} µs (median {statistics.median(one.seconds) * 1e6:9.1f})"
            f"   ratio {min(one.seconds) / min(ours):5.2f} (median {statistics.median(ratios):5.2f})",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", default=list(WORKLOADS), metavar="W1 …")
    parser.add_argument("--peers", action="store_true", help="compare with other libraries, too")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--python", action="append", default=[], help="an interpreter that has peers; may be repeated")
    given = parser.parse_args()
    if unknown := set(given.workloads) - set(WORKLOADS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    names = [name for name in CONTENDERS if given.peers or name in OURS]
    for workload in given.workloads:
        compare(workload, names, given.python, given.rounds)


if __name__ == "__main__":
    main()

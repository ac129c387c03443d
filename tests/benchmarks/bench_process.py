"""The process executor against the thread, on the MNIST network with an async subscriber on every batch.

Runs alternate in one process. Printed are the seconds from TrainBegin to TrainEnd (a worker's start is told apart) with
their ratio, and how late a 1 ms ticker on the host's loop is meanwhile, against the idle loop. Promises: at most 1.1
times as long as the thread; with one BLAS thread a p99 within 1 ms of idle.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

import anyio
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

import asyncfit as af
from tests.benchmarks.bench_lag import DATA, idle, made, shown, tick


def digits() -> tuple[np.ndarray, np.ndarray]:
    with np.load(DATA) as file:
        return file["images"].reshape(-1, 784)[:8000] / np.float32(255), file["labels"][:8000]


async def fitted(executor: str | af.ProcessExecutor, epochs: int) -> tuple[float, float, list[float]]:
    """Seconds of training, seconds before it, and the lags of a ticker beside it."""
    x, y = digits()
    bus, seen, lags = af.EventBus(), 0, list[float]()
    times: list[float] = []

    @bus.on(af.BatchEnd, overflow="block")
    async def listen(event: af.BatchEnd) -> None:
        nonlocal seen
        seen += 1

    @bus.on(af.TrainBegin, af.TrainEnd)
    async def note(event: af.Event) -> None:
        times.append(event.time)

    async with anyio.create_task_group() as group:
        group.start_soon(tick, lags)
        called = time.time()
        await made().fit(x, y, batch_size=32, epochs=epochs, bus=bus, executor=executor)
        group.cancel_scope.cancel()
    assert seen == epochs * 250
    return times[1] - times[0], times[0] - called, lags


async def main(repeats: int, epochs: int) -> None:
    seconds: dict[str, list[float]] = {"thread": [], "process": []}
    late: list[float] = []
    quiet: list[float] = []
    async with af.ProcessExecutor() as pool:
        _, first, _ = await fitted(pool, 1)
        print(f"a worker's start, with the hand-over of the data: {first:.2f} s")
        for _ in range(repeats):
            quiet += await idle(1.0)
            for name, executor in (("thread", "thread"), ("process", pool)):
                took, _, lags = await fitted(executor, epochs)
                seconds[name].append(took)
                late += lags if name == "process" else []
    for name, taken in seconds.items():
        print(f"{name:8} least {min(taken):.3f} s, median {statistics.median(taken):.3f} s")
    ratios = [p / t for p, t in zip(seconds["process"], seconds["thread"], strict=True)]
    least = min(seconds["process"]) / min(seconds["thread"])
    print(f"process/thread: {least:.2f} of the least, {statistics.median(ratios):.2f} median")
    print(f"BLAS threads: {os.environ.get('OPENBLAS_NUM_THREADS', 'as it likes')}")
    print(f"idle     {shown(quiet)}")
    print(f"process  {shown(late)}")


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 7, int(sys.argv[2]) if len(sys.argv) > 2 else 4)

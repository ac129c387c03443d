"""What a batch costs: a whole `fit` of the tutorial's network against a loop written by hand.

16-32-1, batch 32, 2,048 rows, shuffled, SGD. The hand-written loop (`handwritten.py`) computes the same loss and
gathers the same batches into preallocated buffers. All runs alternate in one process; printed are microseconds a batch
and ratios. Promises: at most 1.10 when nobody listens, at most 1.25 with five async subscribers on every batch.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import anyio
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

import asyncfit as af
from asyncfit import layers
from tests.benchmarks.handwritten import HandwrittenBinary

ROWS, BATCH, EPOCHS = 2048, 32, 150
BATCHES = EPOCHS * ROWS // BATCH

rng = np.random.default_rng(0)
x = rng.standard_normal((ROWS, 16)).astype(np.float32)
y = (x[:, :1] > 0).astype(np.float32)


def model() -> af.Sequential:
    made = af.Sequential([layers.Input((16,)), layers.Dense(32, "relu"), layers.Dense(1, "sigmoid")], seed=0)
    made.compile(optimizer="sgd", loss="binary_crossentropy")
    return made


def by_hand() -> float:
    hand = HandwrittenBinary(model().get_weights(), BATCH)
    order = np.random.default_rng(1)
    began = time.perf_counter()
    total = 0.0
    for _ in range(EPOCHS):
        rows = order.permutation(ROWS)
        for start in range(0, ROWS, BATCH):
            hand.gather(x, y, rows[start : start + BATCH])
            total += hand.step(hand.x, hand.y)[0]
    return time.perf_counter() - began


def fit(subscribers: int) -> float:
    async def main() -> float:
        bus = af.EventBus()
        losses: list[list[float]] = [[] for _ in range(subscribers)]

        def listener(kept: list[float]) -> Callable[[af.BatchEnd], object]:
            async def on_batch_end(event: af.BatchEnd) -> None:
                kept.append(event.logs["loss"])

            return on_batch_end

        for kept in losses:
            bus.subscribe(af.BatchEnd, listener(kept), buffer=100_000)
        trained = model()
        began = time.perf_counter()
        await trained.fit(x, y, batch_size=BATCH, epochs=EPOCHS, bus=bus)
        took = time.perf_counter() - began
        assert all(len(kept) == BATCHES for kept in losses)
        return took

    return anyio.run(main)


def main(repeats: int) -> None:
    runs: dict[str, Callable[[], float]] = {
        "by hand": by_hand,
        "fit, nobody listens": lambda: fit(0),
        "fit, one async subscriber": lambda: fit(1),
        "fit, five async subscribers": lambda: fit(5),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            gc.collect()
            seconds[name].append(run())
    for name, all_of_them in seconds.items():
        took = all_of_them[1:]
        ratios = [one / hand for one, hand in zip(took, seconds["by hand"][1:], strict=True)]
        print(
            f"{name:<30} {min(took) / BATCHES * 1e6:6.1f} µs (median {median(took) / BATCHES * 1e6:6.1f})   "
            f"ratio {min(took) / min(seconds['by hand'][1:]):.2f} (median {median(ratios):.2f})"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)

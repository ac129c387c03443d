"""Three gates that each sleep 20 ms at every epoch's end, on 20 epochs that compute for 60 ms: what do they cost?

The two runs alternate in one process; printed is the ratio of their times. Promise: at most 1.10 (lookahead 1).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import anyio
import numpy as np

import asyncfit as af

EPOCHS, BATCHES, SECONDS = 20, 20, 0.060


class Busy:
    """Computes for a given time a batch, in NumPy, without the interpreter's lock for most of it."""

    def __init__(self) -> None:
        self.learning_rate = 0.1
        self.matrix = np.random.default_rng(0).normal(size=(128, 128)).astype(np.float32)
        self.out = np.empty_like(self.matrix)

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        until = time.thread_time() + SECONDS / BATCHES
        while time.thread_time() < until:
            np.sin(self.matrix, out=self.out)
        return {"loss": 1.0}

    test_batch = train_batch

    def state(self) -> dict[str, Any]:
        return {"matrix": self.matrix, "rate": self.learning_rate}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.matrix[...] = state["matrix"]


class Sleeps(af.Callback):
    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        await anyio.sleep(0.020)


async def once(busy: Busy, gates: int) -> float:
    x = np.zeros((BATCHES * 32, 1))
    began = time.perf_counter()
    await af.Trainer(busy).fit(x, x, epochs=EPOCHS, callbacks=[Sleeps() for _ in range(gates)], lookahead=1)
    return time.perf_counter() - began


async def main(repeats: int) -> None:
    busy = Busy()
    await once(busy, 0)
    bare, gated = [], []
    for _ in range(repeats):
        bare.append(await once(busy, 0))
        gated.append(await once(busy, 3))
    print(f"without gates {median(bare):.3f} s, with three {median(gated):.3f} s for {EPOCHS} epochs")
    print(f"ratio of medians {median(gated) / median(bare):.3f} (promised: at most 1.10)")


if __name__ == "__main__":
    anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 5)

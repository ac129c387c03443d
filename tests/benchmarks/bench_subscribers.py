"""What one delivered event costs with 1 to 1,000 queued async subscribers on one run, and what they hold.

Each subscriber gets every batch. Printed are µs for each delivery (of the whole run, compute included) and the memory
that the run holds at its fullest. Promise: the cost for each delivery stays flat, memory is bounded.
"""

from __future__ import annotations

import time
import tracemalloc

import anyio
import numpy as np

import asyncfit as af
from asyncfit.testing import Scripted

BATCHES = 2000


async def run(subscribers: int, batches: int) -> float:
    """Seconds; every subscriber gets every event."""
    bus, seen = af.EventBus(), 0

    async def listen(event: af.BatchEnd) -> None:
        nonlocal seen
        seen += 1

    for _ in range(subscribers):
        bus.subscribe(af.BatchEnd, listen, overflow="block")
    x = np.zeros((batches, 1))
    began = time.perf_counter()
    await af.Trainer(Scripted([1.0])).fit(x, batch_size=1, bus=bus, shuffle=False)
    seconds = time.perf_counter() - began
    assert seen == batches * subscribers
    return seconds


async def held(subscribers: int) -> float:
    """MiB at the fullest with subscribers that never finish: their queues drop."""
    bus = af.EventBus()

    async def stuck(event: af.BatchEnd) -> None:
        await anyio.sleep_forever()

    for _ in range(subscribers):
        bus.subscribe(af.BatchEnd, stuck)
    tracemalloc.start()
    x = np.zeros((BATCHES * 5, 1))
    await af.Trainer(Scripted([1.0])).fit(x, batch_size=1, bus=bus, shuffle=False, drain_timeout=0.0)
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return peak


async def main() -> None:
    base = min([await run(0, BATCHES) for _ in range(3)])
    for subscribers in (1, 10, 100, 1000):
        batches = max(200, BATCHES // subscribers)
        least = min([await run(subscribers, batches) for _ in range(3)]) - base * batches / BATCHES
        print(f"{subscribers:5} subscribers: {least / subscribers / batches * 1e6:.2f} µs a delivery")
    for subscribers in (10, 100, 1000):
        print(f"{subscribers:5} that are stuck: {await held(subscribers):.1f} MiB at most")


if __name__ == "__main__":
    anyio.run(main)

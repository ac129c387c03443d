"""What a delivery costs: a burst of events to async subscribers, besides what the handlers do themselves.

Run it: `python tests/benchmarks/bench_bus.py`. Prints µs per delivery, queueing and statistics included; the second
figure is the same number of bare `await handler(event)`.
"""

from __future__ import annotations

import time

import anyio

from asyncfit.bus import EventBus
from asyncfit.events import BatchEnd, FrozenDict

EVENTS = 1000


def burst() -> list[BatchEnd]:
    """A thousand batch events."""
    logs = FrozenDict(loss=0.5)
    return [BatchEnd(run_id="r", seq=i, epoch=0, batch=i, step=i, size=32, logs=logs) for i in range(EVENTS)]


async def measure(subscribers: int, rounds: int = 30) -> tuple[float, float]:
    """The least µs per delivery over so many bursts, and that of bare calls."""
    events = burst()
    arrived = [0] * subscribers
    handlers = []

    def make(index: int) -> None:
        async def handler(event: BatchEnd) -> None:
            arrived[index] += 1

        handlers.append(handler)

    for index in range(subscribers):
        make(index)
    delivered, bare = [], []
    async with EventBus() as bus:
        mailboxes = []
        for handler in handlers:
            subscription = bus.subscribe(BatchEnd, handler, buffer=2 * EVENTS)
            mailboxes.extend(subscription.mailboxes)
        await anyio.wait_all_tasks_blocked()
        for _ in range(rounds):
            start = time.perf_counter()
            for event in events:
                for mailbox in mailboxes:
                    mailbox.put(event)
            for mailbox in mailboxes:
                await mailbox.drained()
            delivered.append((time.perf_counter() - start) / (EVENTS * subscribers))
            start = time.perf_counter()
            for event in events:
                for handler in handlers:
                    await handler(event)
            bare.append((time.perf_counter() - start) / (EVENTS * subscribers))
    assert arrived == [2 * rounds * EVENTS] * subscribers
    return min(delivered) * 1e6, min(bare) * 1e6


def main() -> None:
    """Print one line for each backend and number of subscribers."""
    backends: list[tuple[str, str, dict[str, bool]]] = [
        ("asyncio", "asyncio", {}),
        ("uvloop", "asyncio", {"use_uvloop": True}),
        ("trio", "trio", {}),
    ]
    for name, backend, options in backends:
        for subscribers in (1, 5):
            cost, bare = anyio.run(measure, subscribers, backend=backend, backend_options=options)
            print(f"{name:8} {subscribers} subscriber(s): {cost:.2f} µs per delivery (bare await {bare:.2f} µs)")


if __name__ == "__main__":
    main()

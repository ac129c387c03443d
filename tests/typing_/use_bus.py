"""The bus as a user writes it. mypy reads this file (a test runs it too); each wrong use must be an error."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, assert_type

from asyncfit.bus import EventBus
from asyncfit.callback import Callback, inline
from asyncfit.events import BatchBegin, BatchEnd, EpochBegin, EpochEnd, Event, TrainEnd
from asyncfit.streams import EventStream
from asyncfit.subscriptions import SubscriberStats, Subscription

bus = EventBus()


async def on_batch(event: BatchEnd) -> None: ...
async def on_either(event: BatchEnd | EpochEnd) -> None: ...
def on_any(event: Event) -> None: ...


assert_type(bus.subscribe(BatchEnd, on_batch, every=10, overflow="latest"), Subscription)
assert_type(bus.subscribe(BatchEnd, EpochEnd, on_either), Subscription)
bus.subscribe(BatchEnd, EpochEnd, TrainEnd, on_any)
bus.subscribe(BatchEnd, EpochEnd, TrainEnd, BatchBegin, on_any)
bus.subscribe(BatchEnd | EpochEnd, on_either)
bus.subscribe(BatchEnd, lambda event: print(event.step))
bus.subscribe(BatchEnd, EpochEnd, on_batch)  # type: ignore[arg-type]
bus.subscribe(EpochEnd, on_batch)  # type: ignore[arg-type]
assert_type(bus.subscribe(Event, on_any).statistics(), SubscriberStats)


@bus.on(BatchEnd, every=100)
async def one(event: BatchEnd) -> None:
    assert_type(event.step, int)


@bus.on(BatchEnd, EpochEnd, gate=True, on_error="log")
async def two(event: BatchEnd | EpochEnd) -> None: ...


@bus.on(BatchEnd, BatchBegin, EpochBegin, thread=True)
def three(event: BatchEnd | BatchBegin | EpochBegin) -> None: ...


@bus.on(BatchEnd | EpochEnd)
async def union(event: BatchEnd | EpochEnd) -> None: ...


@bus.on(BatchEnd, EpochEnd, BatchBegin, TrainEnd)
def four(event: Event) -> None: ...


@bus.on(EpochEnd)  # type: ignore[arg-type]
async def wrong(event: BatchEnd) -> None: ...


async def read() -> None:
    assert_type(bus.events(BatchEnd), EventStream[BatchEnd])
    assert_type(bus.events(BatchEnd, EpochEnd, gate=True), EventStream[BatchEnd | EpochEnd])
    assert_type(bus.events(), EventStream[Event])
    assert_type(bus.events(BatchEnd | EpochEnd), EventStream[Any])
    async with bus, bus.events(EpochEnd) as stream:
        async for event in stream:
            assert_type(event, EpochEnd)
    await bus.publish(TrainEnd(outcome="completed"))
    bus.publish_nowait(TrainEnd(outcome="completed"))


class Tracker(Callback):
    gates = "batch"
    order = 5
    timeout = 2.0
    on_error = "log"

    async def on_batch_end(self, event: BatchEnd) -> None: ...

    def on_epoch_end(self, event: EpochEnd) -> None:
        event.stop("enough")

    async def on_train_end(self, event) -> None:  # type: ignore[no-untyped-def]
        ...

    @inline
    def on_batch_begin(self, event: BatchBegin) -> None: ...

    @inline(replayable=True)
    def on_epoch_begin(self, event: EpochBegin) -> Awaitable[None] | None: ...

from __future__ import annotations

import gc
from typing import Any

import anyio
import pytest

from asyncfit.bus import EventBus
from asyncfit.events import BatchEnd, EpochEnd, Event, EventsDropped, TrainEnd
from asyncfit.mailbox import Mailbox
from asyncfit.streams import EventStream, stream_subscription

from .test_bus import LIMIT, batch, epoch

pytestmark = pytest.mark.anyio


async def test_a_stream_gets_what_is_published_from_the_moment_it_is_made() -> None:
    bus = EventBus()
    bus.publish_nowait(batch(0))
    stream = bus.events(BatchEnd)
    bus.publish_nowait(batch(1))
    await bus.publish(batch(2))
    with anyio.fail_after(LIMIT):
        assert (await anext(stream)).step == 1
        assert (await anext(stream)).step == 2
    stats = stream.statistics()
    assert (stats.delivered, stats.queued, stats.name) == (2, 0, "events(BatchEnd)")
    stream.close()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_stream_ends_with_the_block_of_the_bus_after_what_waits() -> None:
    bus, got = EventBus(), list[int]()

    async def read(stream: EventStream[BatchEnd]) -> None:
        async for event in stream:
            got.append(event.step)

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg, bus:
            late = bus.events(BatchEnd)
            tg.start_soon(read, bus.events(BatchEnd))
            await anyio.wait_all_tasks_blocked()
            for step in range(3):
                await bus.publish(batch(step))
        assert [event.step async for event in late] == got == [0, 1, 2]
    assert bus.subscriptions == ()


async def test_closing_wakes_who_waits() -> None:
    bus, ended = EventBus(), anyio.Event()
    stream = bus.events(BatchEnd)

    async def read() -> None:
        async for _ in stream:
            pass
        ended.set()

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg:
            tg.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            await stream.aclose()
            await ended.wait()
    stream.close()
    assert bus.subscriptions == ()


async def test_a_gate_is_held_from_the_hand_over_to_the_next_step() -> None:
    bus, log = EventBus(), list[str]()

    async def publish() -> None:
        for number in range(2):
            await bus.publish(epoch(number))
            log.append(f"published {number}")

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg, bus.events(EpochEnd, gate=True) as stream:
            tg.start_soon(publish)
            async for event in stream:
                await anyio.wait_all_tasks_blocked()
                log.append(f"handled {event.epoch}")
                if event.epoch == 1:
                    break
    assert log == ["handled 0", "published 0", "handled 1", "published 1"]


@pytest.mark.parametrize("end", ["close", "collect", "block"])
async def test_a_held_gate_is_released_by(end: str) -> None:
    bus = EventBus()
    published = anyio.Event()

    async def publish() -> None:
        await bus.publish(epoch(0))
        published.set()

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg:
            async with bus:
                stream = bus.events(EpochEnd, gate=True)
                tg.start_soon(publish)
                assert (await anext(stream)).epoch == 0
                await anyio.wait_all_tasks_blocked()
                assert not published.is_set()
                if end == "close":
                    stream.close()
                elif end == "collect":
                    del stream
                    gc.collect()
                if end != "block":
                    await published.wait()
                    assert bus.subscriptions == ()
            await published.wait()


async def test_a_consumer_that_publishes_what_it_gates_does_not_wait_for_itself() -> None:
    bus, got = EventBus(), list[int]()
    with anyio.fail_after(LIMIT):
        async with bus, bus.events(BatchEnd, gate=True) as stream:
            bus.publish_nowait(batch(0))
            async for event in stream:
                got.append(event.step)
                if event.step == 3:
                    break
                await bus.publish(batch(event.step + 1))
    assert got == [0, 1, 2, 3]


async def test_two_tasks_on_one_stream_are_refused() -> None:
    stream = EventBus().events(BatchEnd)
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg:
            tg.start_soon(anext, stream)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(RuntimeError, match="another task waits"):
                await anext(stream)
            tg.cancel_scope.cancel()


async def test_a_step_that_is_cancelled_loses_no_event() -> None:
    bus = EventBus()
    stream = bus.events(BatchEnd)
    got = list[int]()
    with anyio.fail_after(LIMIT):
        for step in range(20):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tg:

                    async def read() -> None:
                        got.append((await anext(stream)).step)

                    tg.start_soon(read)
                    await anyio.wait_all_tasks_blocked()
                    await bus.publish(batch(step)) if step % 2 else bus.publish_nowait(batch(step))
                    scope.cancel()
        stream_rest = stream.statistics().queued
        got += [(await anext(stream)).step for _ in range(stream_rest)]
    assert got == list(range(20))


async def test_a_stream_says_what_it_dropped() -> None:
    bus = EventBus()
    stream = bus.events(buffer=2)
    for step in range(5):
        bus.publish_nowait(batch(step))
    got: list[Any] = [await anext(stream) for _ in range(3)]
    assert isinstance(got[0], EventsDropped)
    assert [event.step for event in got[1:]] == [3, 4]
    assert stream.statistics().dropped == 3


async def test_overflow_fail_is_raised_to_who_reads() -> None:
    bus = EventBus()
    stream = bus.events(BatchEnd, buffer=2, overflow="fail")
    for step in range(5):
        bus.publish_nowait(batch(step))
    with pytest.raises(Exception, match="fell 2 events behind"):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_bus_keeps_no_stream_alive() -> None:
    bus = EventBus()
    bus.events(BatchEnd)
    gc.collect()
    assert bus.subscriptions == ()


class Quiet:
    """A home that needs to hear nothing."""

    def failed(self, mailbox: Mailbox, error: BaseException, event: Event | None) -> None:
        raise error

    def report_failure(self, mailbox: Mailbox, error: BaseException, event: Event | None) -> None: ...
    def interrupted(self, mailbox: Mailbox) -> None: ...
    def on_full(self, mailbox: Mailbox, full: bool) -> None: ...
    def closed(self, mailbox: Mailbox) -> None: ...


async def test_a_stream_of_one_home_ends_after_train_end_or_with_its_home() -> None:
    for kinds in ((Event,), (BatchEnd,)):
        subscription = stream_subscription(kinds, {})
        stream = EventStream[Event](subscription, bound=True)
        mailbox = Mailbox(subscription, Quiet())
        assert not mailbox.pumped
        mailbox.put(batch(0))
        if kinds == (Event,):
            mailbox.put(TrainEnd(outcome="completed"))
        else:
            mailbox.end()
        with anyio.fail_after(LIMIT):
            assert "BatchEnd" in [event.type async for event in stream]


async def test_a_stream_reads_from_all_its_homes() -> None:
    subscription = stream_subscription((BatchEnd,), {})
    stream = EventStream[Any](subscription)
    got = list[int]()

    async def read() -> None:
        async for event in stream:
            got.append(event.step)

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg:
            tg.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            mailboxes = [Mailbox(subscription, Quiet()) for _ in range(2)]  # come while it waits
            for step in range(4):
                mailboxes[step % 2].put(batch(step))
                await anyio.wait_all_tasks_blocked()
            mailboxes[0].close()
            mailboxes[1].put(batch(4))
            await anyio.wait_all_tasks_blocked()
            stream.finish()
    assert got == list(range(5))
    assert stream.statistics().delivered == 5

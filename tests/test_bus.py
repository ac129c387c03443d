from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Sequence
from typing import Any

import anyio
import anyio.to_thread
import pytest

from asyncfit.bus import EventBus
from asyncfit.errors import AsyncFitError, SubscriberTimeout
from asyncfit.events import BatchEnd, EpochBegin, EpochEnd, Event, EventsDropped, SubscriberFailed, TrainEnd
from asyncfit.subscriptions import Subscription

LIMIT = 5.0


def batch(step: int, **more: Any) -> BatchEnd:
    return BatchEnd(**{"seq": step, "epoch": 0, "batch": step, "step": step, "size": 1, "logs": {}, **more})


def epoch(number: int, **more: Any) -> EpochEnd:
    return EpochEnd(epoch=number, logs={}, **more)


def steps(events: list[Any]) -> list[int]:
    return [event.step for event in events]


def accounted(subscription: Subscription) -> int:
    s = subscription.statistics()
    return s.delivered + s.dropped + s.cancelled + s.queued + (s.busy_for is not None)


# --- without a loop ------------------------------------------------------------------------------------------------


def test_plain_handlers_are_served_without_a_loop() -> None:
    bus = EventBus()
    got: list[Any] = []

    @bus.on(BatchEnd)
    def handler(event: BatchEnd) -> None:
        got.append(event.step)

    bus.publish_nowait(batch(0))
    bus.publish_nowait(EpochBegin(epoch=0))
    bus.publish_nowait(batch(1))
    assert got == [0, 1]
    assert bus.subscriptions[0].statistics().delivered == 2


def test_publish_nowait_refuses_before_anybody_gets_it_if_somebody_is_async() -> None:
    bus = EventBus()
    got: list[Any] = []
    bus.subscribe(BatchEnd, got.append)

    @bus.on(BatchEnd)
    async def waits(event: BatchEnd) -> None: ...

    with pytest.raises(RuntimeError, match=r"waits is async.*async with bus.*await bus\.publish"):
        bus.publish_nowait(batch(0))
    assert got == []


def test_an_exception_reaches_who_publishes_after_all_have_been_served() -> None:
    bus = EventBus()
    got: list[Any] = []

    @bus.on(BatchEnd)
    def fails(event: BatchEnd) -> None:
        raise ValueError(f"at {event.step}")

    bus.subscribe(BatchEnd, got.append)
    with pytest.raises(ValueError, match="at 3") as caught:
        bus.publish_nowait(batch(3))
    assert steps(got) == [3]
    assert "fails, at BatchEnd, epoch 0, batch 3, step 3" in caught.value.__notes__[0]


def test_a_handler_that_publishes_neither_recurses_nor_reorders() -> None:
    bus = EventBus()
    first: list[Any] = []
    second: list[Any] = []

    @bus.on(BatchEnd)
    def publishes(event: BatchEnd) -> None:
        first.append(event.step)
        if event.step < 5:
            bus.publish_nowait(batch(event.step + 1))
            assert first[-1] == event.step  # the next one waits until this handler has returned

    bus.subscribe(BatchEnd, lambda event: second.append(event.step))
    bus.publish_nowait(batch(0))
    assert first == second == list(range(6))


def test_a_plain_handler_that_gives_back_a_coroutine_needs_a_loop() -> None:
    bus = EventBus()

    async def later(event: BatchEnd) -> None: ...

    bus.subscribe(BatchEnd, lambda event: later(event))
    with pytest.raises(RuntimeError, match="await"):
        bus.publish_nowait(batch(0))


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(TypeError, match=r"publish_nowait takes an event, BatchEnd\(…\), not the class"):
        EventBus().publish_nowait(BatchEnd)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="got 3"):
        EventBus().publish_nowait(3)  # type: ignore[arg-type]


# --- not entered ---------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_awaited_publish_runs_handlers_of_all_sorts_in_the_publishers_task() -> None:
    bus = EventBus()
    got: list[Any] = []
    task = anyio.get_current_task().id

    class Handler:
        async def __call__(self, event: Event) -> None:
            got.append("object")

        async def method(self, event: Event) -> None:
            got.append("method")

    async def function(event: Event) -> None:
        await anyio.lowlevel.checkpoint()
        assert anyio.get_current_task().id == task
        got.append("function")

    async def two(tag: str, event: Event) -> None:
        got.append(tag)

    def plain(event: Event) -> None:
        got.append("plain")

    def threaded(event: Event) -> None:
        assert threading.current_thread() is not threading.main_thread()
        got.append("thread")

    for handler in (Handler(), Handler().method, function, functools.partial(two, "partial"), plain):
        bus.subscribe(BatchEnd, handler)
    bus.subscribe(BatchEnd, lambda event: function(event))
    bus.subscribe(BatchEnd, threaded, thread=True)
    await bus.publish(batch(0))
    assert got == ["object", "method", "function", "partial", "plain", "function", "thread"]


@pytest.mark.anyio
async def test_concurrent_publishers_keep_the_order_and_each_waits_for_its_own_event() -> None:
    bus = EventBus()
    got: list[Any] = []

    @bus.on(BatchEnd)
    async def handler(event: BatchEnd) -> None:
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        got.append(event.step)

    async def publish(step: int) -> None:
        await bus.publish(batch(step))
        assert step in got

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg:
            for step in range(5):
                tg.start_soon(publish, step)
    assert sorted(got) == list(range(5))


@pytest.mark.anyio
async def test_a_publisher_that_is_cancelled_leaves_the_bus_usable() -> None:
    bus = EventBus()
    got: list[Any] = []
    block = anyio.Event()

    @bus.on(BatchEnd)
    async def handler(event: BatchEnd) -> None:
        if event.step == 0:
            await block.wait()
        got.append(event.step)

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg:
            tg.start_soon(bus.publish, batch(0))
            await anyio.wait_all_tasks_blocked()
            tg.cancel_scope.cancel()
        await bus.publish(batch(1))
    assert got == [1]
    stats = bus.subscriptions[0].statistics()
    assert (stats.delivered, stats.cancelled) == (1, 1)


@pytest.mark.anyio
async def test_handlers_that_publish_to_each_other_do_not_deadlock_when_not_entered() -> None:
    bus = EventBus()
    got: list[Any] = []

    @bus.on(BatchEnd, order=1)
    async def one(event: BatchEnd) -> None:
        got.append(("one", event.step))
        if event.step < 4:
            await bus.publish(batch(event.step + 1))

    @bus.on(BatchEnd, gate=True)
    async def two(event: BatchEnd) -> None:
        await anyio.lowlevel.checkpoint()
        got.append(("two", event.step))

    with anyio.fail_after(LIMIT):
        await bus.publish(batch(0))
    for name in ("one", "two"):
        assert [step for who, step in got if who == name] == list(range(5))


@pytest.mark.anyio
async def test_a_timeout_holds_without_tasks_too() -> None:
    bus = EventBus()

    @bus.on(BatchEnd, timeout=0.01)
    async def slow(event: BatchEnd) -> None:
        await anyio.sleep_forever()

    with anyio.fail_after(LIMIT):
        with pytest.raises(SubscriberTimeout, match=r"slow.*0\.01 s"):
            await bus.publish(batch(0))


# --- entered -------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_leaving_the_block_drains_what_is_queued() -> None:
    bus = EventBus()
    got: list[Any] = []

    @bus.on(BatchEnd)
    async def handler(event: BatchEnd) -> None:
        await anyio.lowlevel.checkpoint()
        got.append(event.step)
        if event.step == 3:
            bus.publish_nowait(batch(4))

    with anyio.fail_after(LIMIT):
        async with bus:
            for step in range(4):
                bus.publish_nowait(batch(step))
            assert got == []
    assert got == list(range(5))
    assert accounted(bus.subscriptions[0]) == 5


@pytest.mark.anyio
async def test_a_bus_can_be_entered_again_but_not_twice_at_once() -> None:
    bus = EventBus()
    got: list[Any] = []
    bus.subscribe(BatchEnd, got.append)
    with anyio.fail_after(LIMIT):
        for step in range(2):
            async with bus:
                with pytest.raises(RuntimeError, match="entered already"):
                    await bus.__aenter__()
                bus.publish_nowait(batch(step))
        bus.publish_nowait(batch(2))
    assert steps(got) == [0, 1, 2]
    assert bus.subscriptions[0].statistics().delivered == 3


@pytest.mark.anyio
async def test_publish_waits_for_gates_and_for_nobody_else() -> None:
    bus = EventBus()
    got: list[Any] = []
    go = anyio.Event()

    @bus.on(EpochEnd, gate=True)
    async def gate(event: EpochEnd) -> None:
        await anyio.lowlevel.checkpoint()
        got.append("gate")

    @bus.on(EpochEnd)
    async def queued(event: EpochEnd) -> None:
        await go.wait()
        got.append("queued")

    with anyio.fail_after(LIMIT):
        async with bus:
            await bus.publish(epoch(0))
            assert got == ["gate"]
            go.set()
    assert got == ["gate", "queued"]


@pytest.mark.anyio
async def test_gates_run_together_within_an_order_and_orders_one_after_the_other() -> None:
    bus = EventBus()
    got: list[Any] = []
    both = [anyio.Event(), anyio.Event()]

    def subscribe(name: str, order: int, mine: int) -> None:
        async def handler(event: EpochEnd) -> None:
            both[mine].set()
            await both[1 - mine].wait()  # returns only if the other runs at the same time
            got.append(name)

        bus.subscribe(EpochEnd, handler, gate=True, order=order, name=name)

    async def last(event: EpochEnd) -> None:
        got.append("last")

    bus.subscribe(EpochEnd, last, gate=True, order=200)
    subscribe("a", 0, 0)
    subscribe("b", 0, 1)
    with anyio.fail_after(LIMIT):
        async with bus:
            await bus.publish(epoch(0))
    assert got[-1] == "last"
    assert sorted(got) == ["a", "b", "last"]


@pytest.mark.anyio
async def test_nothing_overtakes_an_event_that_waits_for_an_earlier_order() -> None:
    bus = EventBus()
    got: list[Any] = []
    go = anyio.Event()

    @bus.on(EpochEnd, gate=True)
    async def first(event: EpochEnd) -> None:
        await go.wait()

    @bus.on(EpochEnd, BatchEnd, gate=True, order=100)
    async def second(event: Event) -> None:
        got.append(event.type)

    with anyio.fail_after(LIMIT):
        async with bus, anyio.create_task_group() as tg:
            tg.start_soon(bus.publish, epoch(0))
            await anyio.wait_all_tasks_blocked()
            tg.start_soon(bus.publish, batch(0))
            await anyio.wait_all_tasks_blocked()
            assert got == []
            go.set()
    assert got == ["EpochEnd", "BatchEnd"]


@pytest.mark.anyio
async def test_the_first_gate_error_in_the_order_of_subscription_is_raised_and_later_orders_do_not_start() -> None:
    bus = EventBus()
    got: list[Any] = []
    second_failed = anyio.Event()

    @bus.on(EpochEnd, gate=True)
    async def one(event: EpochEnd) -> None:
        await second_failed.wait()
        raise ValueError("one")

    @bus.on(EpochEnd, gate=True)
    async def two(event: EpochEnd) -> None:
        second_failed.set()
        raise ValueError("two")

    late = bus.subscribe(EpochEnd, got.append, gate=True, order=1)
    with anyio.fail_after(LIMIT):
        async with bus:
            with pytest.raises(ValueError, match="one"):
                await bus.publish(epoch(0))
    assert got == []
    assert late.statistics().cancelled == 1


@pytest.mark.anyio
async def test_an_error_of_a_queued_handler_leaves_the_block_as_itself() -> None:
    bus = EventBus()

    @bus.on(BatchEnd)
    async def fails(event: BatchEnd) -> None:
        raise KeyError("mine")

    async def use() -> None:
        async with bus:
            bus.publish_nowait(batch(0))
            await anyio.sleep_forever()

    with anyio.fail_after(LIMIT), pytest.raises(KeyError, match="mine"):
        await use()
    assert accounted(bus.subscriptions[0]) == 1


@pytest.mark.anyio
async def test_an_error_of_the_body_leaves_the_block_as_itself_and_drains_nothing() -> None:
    bus = EventBus()

    @bus.on(BatchEnd)
    async def stuck(event: BatchEnd) -> None:
        await anyio.sleep_forever()

    async def use() -> None:
        async with bus:
            for step in range(3):
                bus.publish_nowait(batch(step))
            await anyio.wait_all_tasks_blocked()
            raise KeyError("body")

    with anyio.fail_after(LIMIT), pytest.raises(KeyError, match="body"):
        await use()
    stats = bus.subscriptions[0].statistics()
    assert (stats.delivered, stats.cancelled) == (0, 3)


@pytest.mark.anyio
async def test_cancelling_the_block_ends_it() -> None:
    bus = EventBus()

    @bus.on(BatchEnd)
    async def stuck(event: BatchEnd) -> None:
        await anyio.sleep_forever()

    with anyio.fail_after(LIMIT):
        with anyio.CancelScope() as scope:
            async with bus:
                bus.publish_nowait(batch(0))
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
    assert scope.cancelled_caught
    assert bus.subscriptions[0].statistics().cancelled == 1


@pytest.mark.anyio
@pytest.mark.parametrize("on_error", ["log", "detach"])
async def test_logged_errors_become_events_and_the_bus_goes_on(on_error: Any, caplog: pytest.LogCaptureFixture) -> None:
    bus = EventBus()
    failures: list[Any] = []

    @bus.on(BatchEnd, on_error=on_error)
    async def fails(event: BatchEnd) -> None:
        raise ValueError(event.step)

    bus.subscribe(SubscriberFailed, failures.append)
    with caplog.at_level(logging.CRITICAL), anyio.fail_after(LIMIT):
        async with bus:
            for step in range(3):
                await bus.publish(batch(step))
                await anyio.wait_all_tasks_blocked()
    assert [str(f.error) for f in failures] == (["0", "1", "2"] if on_error == "log" else ["0"])
    assert len(bus.subscriptions) == (2 if on_error == "log" else 1)


@pytest.mark.anyio
async def test_a_subscriber_to_failures_that_fails_comes_to_rest() -> None:
    bus = EventBus()

    @bus.on(SubscriberFailed, BatchEnd, on_error="log")
    async def fails(event: Event) -> None:
        raise ValueError(event.type)

    with anyio.fail_after(LIMIT):
        async with bus:
            await bus.publish(batch(0))
    assert bus.subscriptions[0].statistics().errors == 2


@pytest.mark.anyio
async def test_a_timeout_ends_one_delivery_and_the_next_is_made() -> None:
    bus = EventBus()
    got: list[Any] = []
    failures: list[Any] = []

    @bus.on(BatchEnd, timeout=0.02, on_error="log")
    async def slow(event: BatchEnd) -> None:
        if event.step == 0:
            await anyio.sleep_forever()
        got.append(event.step)

    bus.subscribe(SubscriberFailed, failures.append)
    with anyio.fail_after(LIMIT):
        async with bus:
            for step in range(3):
                bus.publish_nowait(batch(step))
    assert got == [1, 2]
    assert isinstance(failures[0].error, SubscriberTimeout)
    assert "test_bus.py" in str(failures[0].error)
    assert accounted(bus.subscriptions[0]) == 3


@pytest.mark.anyio
async def test_a_gate_that_times_out_is_answered_though_its_thread_runs_on() -> None:
    bus = EventBus()
    go = threading.Event()

    @bus.on(EpochEnd, gate=True, thread=True, timeout=0.02)
    def slow(event: EpochEnd) -> None:
        go.wait(LIMIT)

    with anyio.fail_after(LIMIT):
        async with bus:
            with pytest.raises(SubscriberTimeout, match="in a thread"):
                await bus.publish(epoch(0))
            go.set()


@pytest.mark.anyio
async def test_a_gate_may_publish_what_it_gates_itself() -> None:
    bus = EventBus()
    got: list[Any] = []

    @bus.on(BatchEnd, gate=True)
    async def gate(event: BatchEnd) -> None:
        got.append(event.step)
        if event.step < 3:
            await bus.publish(batch(event.step + 1))

    with anyio.fail_after(LIMIT):
        async with bus:
            await bus.publish(batch(0))
    assert got == [0, 1, 2, 3]


@pytest.mark.anyio
async def test_two_gates_that_publish_to_each_other_do_not_wait_in_a_circle() -> None:
    bus = EventBus()
    got: list[Any] = []

    @bus.on(BatchEnd, EpochEnd, gate=True)
    async def one(event: Event) -> None:
        got.append(("one", event.type))
        if isinstance(event, BatchEnd):
            await bus.publish(epoch(0))

    @bus.on(EpochEnd, EpochBegin, gate=True, order=5)
    async def two(event: Event) -> None:
        got.append(("two", event.type))
        if isinstance(event, EpochBegin):
            await bus.publish(epoch(1))

    with anyio.fail_after(LIMIT):
        async with bus, anyio.create_task_group() as tg:
            tg.start_soon(bus.publish, batch(0))
            tg.start_soon(bus.publish, EpochBegin(epoch=0))
    assert len(got) == 6


@pytest.mark.anyio
async def test_cancelling_itself_and_others_from_within_a_handler() -> None:
    bus = EventBus()
    got: list[Any] = []

    async def first(event: BatchEnd) -> None:
        got.append("first")
        subscriptions[0].cancel()
        subscriptions[1].cancel()

    async def second(event: BatchEnd) -> None:
        got.append("second")

    subscriptions = [bus.subscribe(BatchEnd, first), bus.subscribe(BatchEnd, second)]
    with anyio.fail_after(LIMIT):
        async with bus:
            for step in range(3):
                bus.publish_nowait(batch(step))
    assert got.count("first") == 1
    assert bus.subscriptions == ()
    assert [accounted(s) for s in subscriptions] == [3, 3]
    subscriptions[0].cancel()


@pytest.mark.anyio
async def test_cancelling_a_gate_that_is_out_releases_its_event() -> None:
    bus = EventBus()

    @bus.on(EpochEnd, gate=True)
    async def stuck(event: EpochEnd) -> None:
        await go.wait()

    go = anyio.Event()
    with anyio.fail_after(LIMIT):
        async with bus:
            async with anyio.create_task_group() as tg:
                tg.start_soon(bus.publish, epoch(0))
                await anyio.wait_all_tasks_blocked()
                bus.subscriptions[0].cancel()
            go.set()


@pytest.mark.anyio
async def test_a_handler_may_subscribe() -> None:
    bus = EventBus()
    got: list[Any] = []

    @bus.on(BatchEnd)
    async def subscribes(event: BatchEnd) -> None:
        if event.step == 0:
            bus.subscribe(BatchEnd, got.append)

    with anyio.fail_after(LIMIT):
        async with bus:
            await bus.publish(batch(0))
            await anyio.wait_all_tasks_blocked()
            await bus.publish(batch(1))
    assert steps(got) == [1]


@pytest.mark.anyio
async def test_with_block_ends_a_subscription() -> None:
    bus = EventBus()
    got: list[Any] = []
    with bus.subscribe(BatchEnd, got.append):
        await bus.publish(batch(0))
    await bus.publish(batch(1))
    assert steps(got) == [0]


# --- overflow ------------------------------------------------------------------------------------------------------


async def overflowing(overflow: Any, buffer: int, events: Sequence[Event], *kinds: Any) -> tuple[list[Any], Any]:
    """What a subscriber gets that is busy with an event of its own while `events` arrive."""
    bus = EventBus()
    got: list[Any] = []
    go = anyio.Event()

    async def handler(event: Any) -> None:
        await go.wait()
        got.append(event)

    subscription = bus.subscribe(*kinds, handler, overflow=overflow, buffer=buffer, on_error="log")
    with anyio.fail_after(LIMIT):
        async with bus:
            bus.publish_nowait(batch(-1))
            await anyio.wait_all_tasks_blocked()
            for event in events:
                bus.publish_nowait(event)
            go.set()
    assert accounted(subscription) == len(events) + 1
    return got[1:], subscription.statistics()


@pytest.mark.anyio
async def test_drop_oldest_drops_the_oldest_and_says_so() -> None:
    got, stats = await overflowing("drop_oldest", 3, [batch(i) for i in range(10)], Event)
    notice, *rest = got
    assert isinstance(notice, EventsDropped)
    assert (notice.first, notice.last, notice.count, notice.seq) == (0, 6, 7, 6)
    assert steps(rest) == [7, 8, 9]
    assert stats.dropped == 7


@pytest.mark.anyio
async def test_drop_oldest_says_nothing_to_who_did_not_ask_for_it() -> None:
    got, _ = await overflowing("drop_oldest", 2, [batch(i) for i in range(5)], BatchEnd)
    assert steps(got) == [3, 4]


@pytest.mark.anyio
async def test_lifecycle_events_are_never_dropped_and_keep_their_place() -> None:
    events: list[Event] = []
    for i in range(6):
        events += [batch(2 * i), epoch(i, seq=2 * i + 1)]
    got, stats = await overflowing("drop_oldest", 2, events, BatchEnd, EpochEnd)
    assert [event.epoch for event in got if isinstance(event, EpochEnd)] == list(range(6))
    assert [event.seq for event in got] == sorted(event.seq for event in got)
    assert steps([event for event in got if isinstance(event, BatchEnd)]) == [8, 10]
    assert stats.dropped == 4


@pytest.mark.anyio
async def test_latest_keeps_the_newest_of_each_type() -> None:
    from asyncfit.events import BatchBegin

    events: list[Event] = []
    for i in range(5):
        events += [BatchBegin(epoch=0, batch=i, step=i, seq=2 * i), batch(i, seq=2 * i + 1)]
    got, stats = await overflowing("latest", 256, events, BatchEnd, BatchBegin)
    assert [(event.type, event.step) for event in got] == [("BatchBegin", 4), ("BatchEnd", 4)]
    assert stats.dropped == 8


@pytest.mark.anyio
async def test_fail_ends_the_subscriber() -> None:
    got, stats = await overflowing("fail", 3, [batch(i) for i in range(10)][:4], BatchEnd)
    assert got == []
    assert stats.errors == 1
    assert stats.cancelled == 4


@pytest.mark.anyio
async def test_fail_with_raise_says_how_far_behind() -> None:
    bus = EventBus()

    @bus.on(BatchEnd, overflow="fail", buffer=2)
    async def slow(event: BatchEnd) -> None:
        await anyio.sleep_forever()

    async def use() -> None:
        async with bus:
            for step in range(10):
                await bus.publish(batch(step))

    with anyio.fail_after(LIMIT), pytest.raises(AsyncFitError, match=r"slow fell 2 events behind \(buffer=2"):
        await use()


@pytest.mark.anyio
async def test_a_subscriber_with_too_many_lifecycle_events_is_ended_and_nobody_else() -> None:
    bus = EventBus()
    failures: list[Any] = []

    @bus.on(EpochEnd)
    async def stuck(event: EpochEnd) -> None:
        await go.wait()

    go = anyio.Event()
    bus.subscribe(SubscriberFailed, failures.append)
    with anyio.fail_after(LIMIT):
        async with bus:
            for number in range(10_002):
                bus.publish_nowait(epoch(number))
            await anyio.wait_all_tasks_blocked()
            go.set()
            assert "10,000 events behind" in str(failures[0].error)
            assert len(bus.subscriptions) == 1


@pytest.mark.anyio
async def test_block_makes_the_publisher_wait() -> None:
    bus = EventBus()
    got: list[Any] = []
    published: list[Any] = []
    turns = [anyio.Event() for _ in range(10)]

    @bus.on(BatchEnd, overflow="block", buffer=2)
    async def slow(event: BatchEnd) -> None:
        await turns[event.step].wait()
        got.append(event.step)

    async def publish() -> None:
        for step in range(10):
            await bus.publish(batch(step))
            published.append(step)

    with anyio.fail_after(LIMIT):
        async with bus, anyio.create_task_group() as tg:
            tg.start_soon(publish)
            await anyio.wait_all_tasks_blocked()
            assert published == [0, 1, 2]  # one in hand, two waiting
            with pytest.raises(anyio.WouldBlock, match="slow"):
                bus.publish_nowait(batch(99))
            bus.publish_nowait(epoch(0))  # not subscribed, so nobody is in the way
            for turn in turns:
                turn.set()
                await anyio.wait_all_tasks_blocked()
    assert got == published == list(range(10))


@pytest.mark.anyio
async def test_a_blocking_subscriber_that_publishes_to_itself_does_not_wait_for_itself() -> None:
    bus = EventBus()
    got: list[Any] = []

    @bus.on(BatchEnd, overflow="block", buffer=1)
    async def handler(event: BatchEnd) -> None:
        got.append(event.step)
        if event.step < 8:
            await bus.publish(batch(2 * event.step + 1))
            await bus.publish(batch(2 * event.step + 2))

    with anyio.fail_after(LIMIT):
        async with bus:
            await bus.publish(batch(0))
    assert got == list(range(17))


# --- filters -------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_filters_apply_to_gates_and_queued_alike() -> None:
    bus = EventBus()
    queued: list[Any] = []
    gated: list[Any] = []
    bus.subscribe(BatchEnd, queued.append, every=3)
    bus.subscribe(BatchEnd, gated.append, gate=True, where=lambda event: event.step == 4)
    with anyio.fail_after(LIMIT):
        async with bus:
            for step in range(10):
                await bus.publish(batch(step))
    assert steps(queued) == [2, 5, 8]
    assert steps(gated) == [4]


@pytest.mark.anyio
async def test_an_error_in_where_is_the_subscribers_error() -> None:
    bus = EventBus()
    bus.subscribe(BatchEnd, print, where=lambda event: 1 / 0, name="picky")
    with pytest.raises(ZeroDivisionError) as caught:
        await bus.publish(batch(0))
    assert "in where= of picky" in caught.value.__notes__


# --- the loop and other threads ------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_thousand_queued_events_do_not_hold_the_loop() -> None:
    import time

    bus = EventBus()
    turns = 0
    done = False

    @bus.on(BatchEnd, buffer=10_000)
    async def handler(event: BatchEnd) -> None:
        end = time.perf_counter() + 0.0001
        while time.perf_counter() < end:
            pass

    async def ticker() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await anyio.lowlevel.checkpoint()

    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg:
            async with bus:
                for step in range(500):
                    bus.publish_nowait(batch(step))
                tg.start_soon(ticker)
            done = True
    assert turns > 20  # 50 ms of work in slices of 0.5 ms


@pytest.mark.anyio
async def test_a_plain_handler_that_holds_the_loop_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    import time

    bus = EventBus()

    @bus.on(BatchEnd)
    def lazy(event: BatchEnd) -> None:
        end = time.perf_counter() + 0.06
        while time.perf_counter() < end:
            pass

    with anyio.fail_after(LIMIT):
        async with bus:
            for step in range(2):
                bus.publish_nowait(batch(step))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "lazy" in messages[0]
    assert "thread=True" in messages[0]


@pytest.mark.anyio
async def test_another_thread_is_told_how_to_reach_an_entered_bus() -> None:
    bus = EventBus()
    bus.subscribe(BatchEnd, print)
    async with bus:
        with pytest.raises(RuntimeError, match=r"anyio\.from_thread\.run_sync\(bus\.publish_nowait"):
            await anyio.to_thread.run_sync(bus.publish_nowait, batch(0))


@pytest.mark.anyio
async def test_where_tells_the_line_at_which_a_handler_is_suspended() -> None:
    bus = EventBus()
    go = anyio.Event()

    async def inner() -> None:
        await go.wait()

    @bus.on(BatchEnd)
    async def handler(event: BatchEnd) -> None:
        await inner()

    with anyio.fail_after(LIMIT):
        async with bus:
            bus.publish_nowait(batch(0))
            await anyio.wait_all_tasks_blocked()
            stats = bus.subscriptions[0].statistics()
            assert stats.where is not None
            assert "test_bus.py" in stats.where
            assert stats.where.endswith("in inner")
            assert stats.busy_for is not None
            go.set()
    assert bus.subscriptions[0].statistics().where is None


def test_a_task_that_the_loop_cancels_is_not_silent(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        bus = EventBus()
        go = anyio.Event()

        @bus.on(EpochEnd, gate=True, name="cut")
        async def handler(event: EpochEnd) -> None:
            await go.wait()

        async with asyncio.timeout(LIMIT), bus:
            subscription = bus.subscriptions[0]
            publisher = asyncio.create_task(bus.publish(epoch(0)))
            await anyio.wait_all_tasks_blocked()
            (task,) = [t for t in asyncio.all_tasks() if "cut" in t.get_name()]
            task.cancel()
            await publisher
            assert subscription.statistics().cancelled == 1
            assert bus.subscriptions == ()

    asyncio.run(main())
    assert "cut was cancelled from outside" in caplog.text


def test_a_handler_that_awaits_a_cancelled_task_failed() -> None:
    async def main() -> None:
        bus = EventBus()

        @bus.on(BatchEnd)
        async def handler(event: BatchEnd) -> None:
            task = asyncio.create_task(asyncio.sleep(10))
            task.cancel()
            await task

        async with asyncio.timeout(LIMIT):
            async with bus:
                bus.publish_nowait(batch(0))

    with pytest.raises(Exception, match="handler awaited a task that was cancelled"):
        asyncio.run(main())


def test_the_loop_can_end_while_a_handler_waits() -> None:
    async def main() -> None:
        bus = EventBus()

        @bus.on(BatchEnd)
        async def handler(event: BatchEnd) -> None:
            await anyio.sleep_forever()

        async def host() -> None:
            async with bus:
                bus.publish_nowait(batch(0))
                await anyio.sleep_forever()

        task = asyncio.create_task(host())
        await anyio.wait_all_tasks_blocked()
        assert not task.done()

    asyncio.run(main())


# --- who else listens ----------------------------------------------------------------------------------------------


def test_a_listener_hears_of_subscriptions_that_come_and_go() -> None:
    bus = EventBus()
    heard: list[Any] = []

    class Run:
        thread = threading.get_ident()

        def subscribed(self, subscription: Subscription) -> None:
            heard.append(("+", subscription.name))

        def unsubscribed(self, subscription: Subscription) -> None:
            heard.append(("-", subscription.name))

    run = Run()
    bus._attach(run)
    subscription = bus.subscribe(TrainEnd, print, name="one")
    subscription.cancel()
    subscription.cancel()
    bus._detach(run)
    bus.subscribe(TrainEnd, print)
    assert heard == [("+", "one"), ("-", "one")]


def test_reprs_can_be_read() -> None:
    bus = EventBus()
    subscription = bus.subscribe(BatchEnd, EpochEnd, print, every=10, gate=True, name="report")
    assert repr(subscription) == "<Subscription report: BatchEnd, EpochEnd, gate, every=10; 0 delivered>"
    assert repr(bus) == "<EventBus: 1 subscriber>\n  report  gate  BatchEnd, EpochEnd every=10  0 delivered"
    subscription.cancel()
    assert repr(subscription).endswith("cancelled>")
    assert repr(bus) == "<EventBus: no subscribers>"

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from asyncfit.callback import Callback, subscription_of
from asyncfit.errors import SubscriberTimeout
from asyncfit.events import BatchEnd, EpochEnd, Event
from asyncfit.mailbox import Gate, Mailbox, clock, handling, would_wait_for
from asyncfit.subscriptions import How, Subscription, handler_hook

from .test_bus import LIMIT, batch, epoch


class Home:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def failed(self, mailbox: Mailbox, error: BaseException, event: Event | None) -> None:
        self.told.append(("failed", repr(error), event and event.type))

    def report_failure(self, mailbox: Mailbox, error: BaseException, event: Event | None) -> None:
        self.told.append(("report", repr(error), event and event.type))

    def interrupted(self, mailbox: Mailbox) -> None:
        self.told.append(("interrupted",))

    def on_full(self, mailbox: Mailbox, full: bool) -> None:
        self.told.append(("full", full))

    def closed(self, mailbox: Mailbox) -> None:
        self.told.append(("closed",))


def subscription(handler: Any, *kinds: type[Event], **how: Any) -> Subscription:
    options = How.of("test", how)
    hook = handler_hook(handler, options, "test")
    return Subscription(dict.fromkeys(kinds or (Event,), hook), options, hook.label, source=handler)


@asynccontextmanager
async def running(mailbox: Mailbox) -> AsyncIterator[None]:
    """With its pump; drained when the block is left."""
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg:
            tg.start_soon(mailbox.pump)
            yield
            await mailbox.drained()
            mailbox.end()


@pytest.mark.anyio
async def test_a_callbacks_hooks_run_in_one_queue_and_a_gate_includes_the_backlog() -> None:
    got: list[Any] = []

    class Tracker(Callback):
        async def on_batch_end(self, event: BatchEnd) -> None:
            await anyio.lowlevel.checkpoint()
            got.append(event.step)

        def on_epoch_end(self, event: EpochEnd) -> None:
            got.append("epoch")

    mailbox = Mailbox(subscription_of(Tracker()), Home())
    async with running(mailbox):
        for step in range(3):
            mailbox.put(batch(step))
        assert mailbox.put_gate(epoch(0), lambda m, error: got.append(("done", m is mailbox, error))) is not None
        mailbox.put(batch(3))
    assert got == [0, 1, 2, "epoch", ("done", True, None), 3]


@pytest.mark.anyio
async def test_a_callback_loses_nothing_and_says_when_the_source_should_wait() -> None:
    home, count = Home(), 0

    class Counter(Callback):
        async def on_batch_end(self, event: BatchEnd) -> None:
            nonlocal count
            count += 1

    mailbox = Mailbox(subscription_of(Counter()), home)
    for step in range(10_050):
        mailbox.put(batch(step))
    assert home.told == [("full", True)]
    assert mailbox.full
    async with running(mailbox):
        pass
    assert count == 10_050
    assert home.told[:2] == [("full", True), ("full", False)]


@pytest.mark.anyio
async def test_what_a_handler_raises_goes_to_the_gate_or_to_the_home_and_the_pump_goes_on() -> None:
    home, answers = Home(), list[Any]()

    async def fails(event: Event) -> None:
        raise ValueError(event.type)

    mailbox = Mailbox(subscription(fails), home)
    async with running(mailbox):
        mailbox.put_gate(epoch(0), lambda m, error: answers.append(repr(error)))
        mailbox.put(batch(0))
        mailbox.put(batch(1))
    assert answers == ["ValueError('EpochEnd')"]
    assert home.told[:2] == [("failed", "ValueError('BatchEnd')", "BatchEnd")] * 2
    assert mailbox.statistics().errors == 3


@pytest.mark.anyio
async def test_the_homes_timer_ends_one_delivery() -> None:
    home, answers, got = Home(), list[Any](), list[int]()

    async def slow(event: BatchEnd) -> None:
        if event.step == 0:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):  # takes its time to clean up
                    await release.wait()
        got.append(event.step)

    release = anyio.Event()
    mailbox = Mailbox(subscription(slow, BatchEnd, gate=True, timeout=3.0), home)
    now = clock()
    assert not mailbox.overdue(now)
    assert mailbox.next_check(now) == now + 3.0
    async with running(mailbox):
        for step in range(2):
            mailbox.put_gate(batch(step), lambda m, error: answers.append(error))
        await anyio.wait_all_tasks_blocked()
        assert not mailbox.overdue(clock())
        due = mailbox.next_check(clock())
        assert mailbox.overdue(due)
        mailbox.expire()
        assert isinstance(answers[0], SubscriberTimeout)  # at once
        assert "in slow" in str(answers[0])
        assert len(answers) == 1
        assert not mailbox.overdue(math.inf)
        release.set()
    assert got == [1]
    assert answers[1] is None
    stats = mailbox.statistics()
    assert (stats.delivered, stats.errors, stats.cancelled) == (2, 1, 0)


@pytest.mark.anyio
async def test_closing_answers_gates_that_wait_and_the_one_in_hand() -> None:
    answers: list[Any] = []
    go = anyio.Event()

    async def waits(event: Event) -> None:
        await go.wait()

    home = Home()
    mailbox = Mailbox(subscription(waits), home)
    async with running(mailbox):
        for number in range(3):
            mailbox.put_gate(epoch(number), lambda m, error: answers.append(error))
        await anyio.wait_all_tasks_blocked()
        mailbox.close()
        assert answers == [None] * 3
        assert mailbox.put_gate(epoch(9), lambda m, error: answers.append(error)) is None
        go.set()
    stats = mailbox.subscription.statistics()
    assert (stats.delivered, stats.cancelled, stats.queued) == (1, 2, 0)
    assert home.told == [("closed",)]
    assert mailbox.subscription.mailboxes == []
    assert len(answers) == 3


@pytest.mark.anyio
async def test_a_subscription_has_one_queue_in_each_home_and_one_account() -> None:
    got: list[int] = []
    subscribed = subscription(lambda event: got.append(event.step), BatchEnd)
    one, two = Mailbox(subscribed, Home()), Mailbox(subscribed, Home())
    async with running(one), running(two):
        one.put(batch(1))
        two.put(batch(2))
    assert sorted(got) == [1, 2]
    assert subscribed.statistics().delivered == 2
    one.put(batch(3))
    two.put(batch(4))
    subscribed.cancel()
    assert one.is_closed
    assert two.is_closed


@pytest.mark.anyio
async def test_a_held_gate_holds_what_is_behind_it() -> None:
    got: list[Any] = []
    mailbox = Mailbox(subscription(got.append), Home())
    first = Mailbox(subscription(print), Home())
    async with running(mailbox):
        gate = mailbox.put_gate(epoch(0), lambda m, error: None, [first])
        assert gate is not None
        mailbox.put(batch(0))
        await anyio.wait_all_tasks_blocked()
        assert got == []
        assert would_wait_for(mailbox, first)
        mailbox.proceed(gate)
        await mailbox.drained()
        assert [event.type for event in got] == ["EpochEnd", "BatchEnd"]
        gate = mailbox.put_gate(epoch(1), lambda m, error: got.append("withdrawn"), [first])
        assert isinstance(gate, Gate)
        mailbox.withdraw(gate)
        mailbox.withdraw(gate)
    assert got[2:] == ["withdrawn"]
    assert mailbox.statistics().cancelled == 1


@pytest.mark.anyio
async def test_snapshots_and_lag_are_counted() -> None:
    go = anyio.Event()

    async def waits(event: Event) -> None:
        assert handling.get() is mailbox
        await go.wait()

    mailbox = Mailbox(subscription(waits), Home())
    async with running(mailbox):
        for number in range(3):
            mailbox.put(epoch(number)._attach(None, object()))
        mailbox.put(epoch(3, time=clock() - 1e6))
        await anyio.wait_all_tasks_blocked()
        assert mailbox.statistics().snapshots == 3
        go.set()
    stats = mailbox.statistics()
    assert stats.snapshots == 0
    assert stats.max_lag > 1e6
    assert stats.seconds > 0
    assert "0 waiting" in repr(mailbox)


@pytest.mark.anyio
async def test_cancelling_the_pump_counts_what_is_in_hand_and_what_waits() -> None:
    answers: list[Any] = []

    async def waits(event: Event) -> None:
        await anyio.sleep_forever()

    mailbox = Mailbox(subscription(waits), Home())
    with anyio.fail_after(LIMIT):
        async with anyio.create_task_group() as tg:
            tg.start_soon(mailbox.pump)
            mailbox.put_gate(epoch(0), lambda m, error: answers.append(error))
            mailbox.put(batch(0))
            await anyio.wait_all_tasks_blocked()
            tg.cancel_scope.cancel()
    assert answers == [None]
    assert mailbox.subscription.statistics().cancelled == 2

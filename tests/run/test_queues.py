"""Queued subscribers of a run: each has its own queue and task, nothing is lost silently, nobody slows compute down."""

from __future__ import annotations

import gc
import itertools
import logging
import re
import threading
from typing import Any

import anyio
import anyio.from_thread
import numpy as np
import pytest

import asyncfit as af
from asyncfit import delivery, mailbox
from asyncfit.testing import LoopbackExecutor

from .helpers import Gate, Linear, fit, kinds, nothing_left, until, whole


class Slow:
    """A handler that takes its first event and then waits until it may go on."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.inside = anyio.Event()
        self.go_on = anyio.Event()

    async def __call__(self, event: af.Event) -> None:
        self.seen.append(event)
        self.inside.set()
        await self.go_on.wait()


def stats_of(run: af.Run, name: str) -> af.SubscriberStats:
    (stats,) = [stats for stats in run.subscribers if stats.name == name]
    return stats


# --- overflow --------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("overflow", ["drop_oldest", "latest", "block", "fail"])
async def test_every_policy_accounts_for_every_event(overflow: Any) -> None:
    """Delivered, dropped and cancelled together are what was published."""
    slow, second = Slow(), Gate(1)
    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, slow, overflow=overflow, buffer=4, on_error="log", name="slow")
    with nothing_left(), anyio.fail_after(20):
        async with fit(Linear(second), epochs=2000, bus=bus) as run:
            await slow.inside.wait()
            second.open.set()
            if overflow != "block":
                await until(lambda: run._ledger.compute_ended)
                assert stats_of(run, "slow").queued <= 4
            else:
                await until(lambda: run._worker._compute._throttled)  # type: ignore[union-attr]
                step = run.progress.step
                assert step < 6000, "compute waits"
                for _ in range(100):
                    await anyio.lowlevel.checkpoint()
                assert run.progress.step <= step + 1
            slow.go_on.set()
    stats = stats_of(run, "slow")
    assert stats.delivered + stats.dropped + stats.cancelled == 6000 or overflow == "fail"
    steps = [event.step for event in slow.seen if isinstance(event, af.BatchEnd)]
    assert steps == sorted(steps)
    assert {
        "drop_oldest": (5, 5995, 0),
        "latest": (2, 5998, 0),
        "block": (6000, 0, 0),
        "fail": (1, 0, 5),
    }[overflow] == (stats.delivered, stats.dropped, stats.cancelled)
    if overflow in ("drop_oldest", "latest"):
        assert steps[-1] == 5999, "the newest is never dropped"


@pytest.mark.anyio
async def test_who_missed_events_is_told_so_before_the_next() -> None:
    slow, second = Slow(), Gate(1)
    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, af.EventsDropped, slow, buffer=4)
    async with fit(Linear(second), epochs=20, bus=bus) as run:
        await slow.inside.wait()
        second.open.set()
        await until(lambda: run._ledger.compute_ended)
        slow.go_on.set()
    first, gap, *rest = slow.seen
    assert (first.step, kinds([gap]), [event.step for event in rest]) == (0, ["EventsDropped"], [56, 57, 58, 59])
    assert gap.count == 55
    assert first.seq < gap.first < gap.last < rest[0].seq
    assert stats_of(run, "Slow").dropped == 55


@pytest.mark.anyio
async def test_a_full_queue_that_blocks_changes_no_result() -> None:
    async def slow(event: af.BatchEnd) -> None:
        await anyio.lowlevel.checkpoint()

    models = [Linear(), Linear()]
    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, slow, overflow="block", buffer=1)
    for model, on in zip(models, (None, bus), strict=True):
        await fit(model, epochs=30, bus=on)
    np.testing.assert_array_equal(models[0].w, models[1].w)


@pytest.mark.anyio
async def test_lifecycle_events_are_not_dropped() -> None:
    slow = Slow()
    bus = af.EventBus()
    bus.subscribe(af.Event, slow, buffer=1, overflow="latest")
    async with fit(epochs=20, bus=bus) as run:
        await slow.inside.wait()
        await until(lambda: run._ledger.compute_ended)
        slow.go_on.set()
    kept = [event.type for event in slow.seen if not event.lossy and event.type != "EventsDropped"]
    assert kept == ["TrainBegin", *["EpochBegin", "EpochEnd"] * 20, "TrainEnd"]


@pytest.mark.anyio
@pytest.mark.parametrize("on_error", ["raise", "log", "detach"])
async def test_too_many_that_must_not_be_lost_end_the_subscriber_and_not_the_run(
    on_error: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mailbox, "MOST_LOSSLESS", 1000)
    slow, bus = Slow(), af.EventBus()
    facts: list[af.SubscriberFailed] = []
    bus.subscribe(af.EpochBegin, slow, name="slow", on_error=on_error)
    bus.subscribe(af.SubscriberFailed, facts.append)
    bus.subscribe(af.EpochEnd, lambda event: None)
    async with fit(epochs=10**6, bus=bus) as run:
        async for _ in run.events(af.SubscriberFailed):
            break
        run.stop()
        slow.go_on.set()
    assert run.outcome == "stopped"
    (fact,) = facts
    assert fact.name == "slow"
    assert "slow fell 1,000 events behind" in str(fact.error)
    assert stats_of(run, "slow").cancelled == 1001
    assert len(slow.seen) == 1
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


@pytest.mark.anyio
async def test_one_that_fails_when_full_ends_the_run_if_it_says_so() -> None:
    slow = Slow()
    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, slow, overflow="fail", buffer=2, name="slow")
    bus.subscribe(af.EpochBegin, lambda event: None, gate=True)  # a boundary is open while the queue fills up
    with pytest.raises(af.AsyncFitError, match="slow fell 2 events behind"), nothing_left():
        await fit(epochs=1000, bus=bus, grace=0.05)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_an_error_in_a_queued_handler_fails_the_run() -> None:
    error = ArithmeticError("here")
    ends: list[af.TrainEnd] = []

    async def handler(event: af.BatchEnd) -> None:
        if event.step >= 4:
            raise error

    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, handler)
    bus.subscribe(af.TrainEnd, ends.append)
    with nothing_left(), pytest.raises(ArithmeticError) as raised:
        await fit(epochs=10**6, bus=bus, run_id="r")
    assert raised.value is error
    assert re.search(r"in .*handler, at BatchEnd, epoch \d+, batch \d, step \d+, run r", error.__notes__[0])
    assert [(end.outcome, end.error) for end in ends] == [("failed", error)]


@pytest.mark.anyio
async def test_errors_that_come_too_late_to_matter_are_kept() -> None:
    go_on = anyio.Event()

    async def handler(event: af.EpochEnd) -> None:
        await go_on.wait()
        raise ArithmeticError(f"epoch {event.epoch}")

    bus = af.EventBus()
    bus.subscribe(af.EpochEnd, handler)
    bus.subscribe(af.TrainEnd, lambda event: go_on.set())
    with pytest.raises(ArithmeticError, match="epoch 0"):
        async with fit(epochs=3, bus=bus) as run:
            pass
    assert run.outcome == "completed"
    assert [str(error) for error in run.errors] == ["epoch 0", "epoch 1", "epoch 2"]


@pytest.mark.anyio
async def test_a_timeout_for_each_subscriber() -> None:
    took: list[int] = []

    async def handler(event: af.EpochEnd) -> None:
        took.append(event.epoch)
        if event.epoch == 1:
            await anyio.sleep_forever()

    async def quick(event: af.BatchEnd) -> None:
        await anyio.lowlevel.checkpoint()

    bus = af.EventBus()
    facts: list[Any] = []
    bus.subscribe(af.EpochEnd, handler, timeout=0.03, on_error="log", name="slow")
    bus.subscribe(af.BatchEnd, quick, timeout=30.0)
    bus.subscribe(af.SubscriberFailed, facts.append)
    async with fit(epochs=10**6, bus=bus) as run:
        await until(lambda: facts)
        run.stop()
    assert isinstance(facts[0].error, af.SubscriberTimeout)
    assert facts[0].error.name == "slow"
    assert took[:2] == [0, 1]
    assert len(took) == len(run.history.epoch) + (run.history.partial is not None)


# --- ways ------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_plain_handlers_in_threads() -> None:
    threads: list[int] = []
    seen: list[int] = []

    def handler(event: af.BatchEnd) -> None:
        threads.append(threading.get_ident())
        seen.append(event.step)

    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, handler, thread=True)
    with nothing_left():
        await fit(epochs=5, bus=bus)
    assert threading.get_ident() not in threads
    assert seen == list(range(15))


@pytest.mark.anyio
async def test_filters() -> None:
    every: list[Any] = []
    some: list[Any] = []
    timed: list[Any] = []
    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, every.append, every=4)
    bus.subscribe(af.BatchEnd, some.append, where=lambda event: event.batch == 1)
    bus.subscribe(af.BatchEnd, timed.append, every_s=3600.0)
    await fit(epochs=4, bus=bus)
    assert [event.step for event in every] == [3, 7, 11]
    assert [event.step for event in some] == [1, 4, 7, 10]
    assert [event.step for event in timed] == [0]


@pytest.mark.anyio
async def test_what_nobody_asked_for_is_not_reported() -> None:
    """Events without subscribers cost nothing: neither report nor number."""
    async with fit(epochs=3) as run:
        seen = [event async for event in run.events(af.TrainBegin, af.EpochBegin, af.EpochEnd, af.TrainEnd)]
    whole(seen)
    async with fit(epochs=3) as run:
        fourth = [event async for event in run.events(af.BatchEnd, every=4)]
    assert [event.step for event in fourth] == [3, 7]


@pytest.mark.anyio
async def test_a_callback_is_one_subscriber_in_order_and_lossless() -> None:
    class Everything(af.Callback):
        def __init__(self) -> None:
            self.seen: list[af.Event] = []

        async def note(self, event: Any) -> None:
            await anyio.lowlevel.checkpoint()
            self.seen.append(event)

        on_train_begin = on_train_end = on_epoch_begin = on_epoch_end = note
        on_batch_begin = on_batch_end = on_validation_begin = on_validation_end = note

    callback = Everything()
    await fit(epochs=200, callbacks=callback, validation_split=0.34, lookahead=1)
    whole(callback.seen)
    assert kinds(callback.seen).count("BatchEnd") == 400


@pytest.mark.anyio
async def test_a_bus_that_two_runs_share() -> None:
    bus = af.EventBus()
    seen: list[af.Event] = []
    bus.subscribe(af.Event, seen.append, overflow="block")
    async with fit(epochs=5, bus=bus, run_id="one"), fit(epochs=5, bus=bus, run_id="two"):
        pass
    for name in ("one", "two"):
        whole([event for event in seen if event.run_id == name])
    assert not bus._listeners


@pytest.mark.anyio
async def test_subscribers_that_come_and_go_while_it_runs() -> None:
    bus = af.EventBus()
    all_of_it: list[Any] = []
    bus.subscribe(af.BatchEnd, all_of_it.append, overflow="block")
    async with fit(epochs=10**6, bus=bus) as run:
        for _ in range(5):
            got: list[af.BatchEnd] = []
            subscription = bus.subscribe(af.BatchEnd, got.append, overflow="block")
            await until(lambda: len(got) > 3)  # noqa: B023
            subscription.cancel()
            count = len(got)
            assert [event.step for event in got] == list(range(got[0].step, got[0].step + count))
            await anyio.lowlevel.checkpoint()
            assert len(got) == count
        run.stop()
    assert [event.step for event in all_of_it] == list(range(run.progress.step))


@pytest.mark.anyio
async def test_a_gate_that_comes_while_it_runs_holds_what_follows() -> None:
    model = Linear()
    held: list[tuple[int, int]] = []

    async def gate(event: af.BatchEnd) -> None:
        await anyio.lowlevel.checkpoint()
        held.append((event.step + 1, model.batches))
        if len(held) == 3:
            event.stop("three")

    bus = af.EventBus()
    async with fit(model, epochs=10**6, bus=bus) as run:
        await until(lambda: run.progress.step > 10)
        bus.subscribe(af.BatchEnd, gate, gate=True)
        await run.wait()
    assert len(held) >= 3
    assert held[-1][0] == held[-1][1] == run.progress.step
    assert run.reason == "three"


@pytest.mark.anyio
async def test_a_handler_may_cancel_itself_and_others() -> None:
    bus = af.EventBus()
    seen: list[Any] = []

    async def once(event: af.EpochEnd) -> None:
        seen.append(event.epoch)
        mine.cancel()
        other.cancel()

    mine = bus.subscribe(af.EpochEnd, once, gate=True)
    other = bus.subscribe(af.TrainEnd, seen.append)
    await fit(epochs=3, bus=bus)
    assert seen == [0]


# --- run.events ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("how", ["close", "collect", "with", "cancel"])
async def test_a_stream_that_is_left_in_the_middle(gate: bool, how: str) -> None:
    with nothing_left(), anyio.fail_after(20):
        async with fit(epochs=30) as run:
            stream = run.events(af.EpochEnd, gate=gate)
            if how == "with":
                async with stream:
                    assert (await anext(stream)).epoch == 0
            elif how == "cancel":
                with anyio.move_on_after(0) as scope:
                    scope.cancel()
                    await anext(stream)
                stream.close()
            else:
                assert (await anext(stream)).epoch == 0
                if how == "close":
                    stream.close()
                    stream.close()
                else:
                    del stream
                    gc.collect()
            await run.wait()
    assert run.history.epoch == list(range(30))


@pytest.mark.anyio
async def test_breaking_off_a_loop_releases_the_gate() -> None:
    with anyio.fail_after(20):
        async with fit(epochs=30) as run:
            async for event in run.events(af.EpochEnd, gate=True):
                if event.epoch == 3:
                    break
            await run.wait()
    assert run.outcome == "completed"


@pytest.mark.anyio
async def test_a_gate_is_held_until_the_next_step_of_the_iteration() -> None:
    model = Linear()
    async with fit(model, epochs=5) as run:
        async for event in run.events(af.EpochEnd, gate=True):
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            assert model.batches == 3 * (event.epoch + 1)
            event.add_logs(seen=event.epoch)
            if event.epoch == 2:
                event.stop("there")
    assert run.history.history["seen"] == [0, 1, 2]
    assert run.reason == "there"


@pytest.mark.anyio
async def test_streams_end_after_train_end_and_raise_nothing() -> None:
    def breaks(model: Linear) -> None:
        if model.batches == 4:
            raise ArithmeticError

    async with anyio.create_task_group() as group:
        run = await fit(Linear(breaks), epochs=5).start(group)
        seen = [event async for event in run.events()]
        whole(seen)
        assert isinstance(seen[-1], af.TrainEnd)
        assert seen[-1].outcome == "failed"
        assert [event async for event in run.events()] == [], "of a run that is over there is nothing to come"
        with pytest.raises(ArithmeticError):
            await run.wait()


@pytest.mark.anyio
async def test_a_stream_may_still_be_read_when_the_run_is_over() -> None:
    async with anyio.create_task_group() as group:
        run = await fit(epochs=3).start(group)
        stream, gated = run.events(af.EpochEnd), run.events(af.TrainEnd)
        await run.wait()
    assert [event.epoch async for event in stream] == [0, 1, 2]
    assert kinds([event async for event in gated]) == ["TrainEnd"]


@pytest.mark.anyio
async def test_a_stream_that_nobody_reads_holds_nothing_up() -> None:
    async with fit(epochs=300) as run:
        stream = run.events(af.BatchEnd, buffer=8)
        await run.wait()
        assert stream.statistics().dropped == 900 - 8


@pytest.mark.anyio
async def test_many_streams_at_once_on_the_loopback_executor() -> None:
    """Every stream has the same events in the same order, whatever the pace of its reader."""
    got: list[list[int]] = [[] for _ in range(8)]

    async def read(number: int, stream: af.EventStream[af.BatchEnd]) -> None:
        async for event in stream:
            got[number].append(event.seq)
            for _ in range(number):
                await anyio.lowlevel.checkpoint()

    async with fit(epochs=20, executor=LoopbackExecutor()) as run, anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(read, number, run.events(af.BatchEnd, overflow="block", buffer=1 + number))
    assert len(got[0]) == 60
    assert all(one == other for one, other in itertools.pairwise(got))


@pytest.mark.anyio
async def test_a_stream_of_a_paused_run_waits() -> None:
    gate = Gate(2)
    gate.open.set()
    async with fit(Linear(gate), epochs=10**6) as run:
        stream = run.events(af.RunPaused, af.RunResumed)
        run.pause()
        assert isinstance(await anext(stream), af.RunPaused)
        with anyio.move_on_after(0.01) as scope:
            await anext(stream)
        assert scope.cancelled_caught
        run.resume()
        assert isinstance(await anext(stream), af.RunResumed)
        run.stop()


@pytest.mark.anyio
async def test_streams_that_come_and_go_leave_no_more_than_their_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "PAST", 20)
    async with fit(epochs=3) as run:
        for _ in range(100):
            async with run.events(af.EpochEnd):
                pass
        assert len(run.subscribers) == 20
        assert len(run._delivery._boxes) == len(run._delivery._streams) == 20


@pytest.mark.anyio
async def test_a_thousand_subscribers_each_get_all_or_keep_what_their_queue_holds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Half of them are quick and lossless, half stand still: those hold no more than their buffers, and are counted."""
    bus, seen, stuck = af.EventBus(), [0] * 500, anyio.Event()
    events: set[int] = set()

    def quick(number: int) -> Any:
        async def listen(event: af.BatchEnd) -> None:
            seen[number] += 1
            events.add(id(event))

        return listen

    async def stand(event: af.BatchEnd) -> None:
        await stuck.wait()

    for number in range(500):
        bus.subscribe(af.BatchEnd, quick(number), overflow="block")
        bus.subscribe(af.BatchEnd, stand, buffer=3)
    with nothing_left(), anyio.fail_after(60):
        async with fit(epochs=30, bus=bus, drain_timeout=0.1) as run:
            pass
    assert seen == [90] * 500
    for stats in run.subscribers:
        assert stats.delivered + stats.dropped + stats.cancelled == 90
        assert stats.dropped == 0 if stats.name != "stand" else stats.cancelled <= 4
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "and 480 more" in warning

"""The handle: plain and immediate, from tasks, threads, signal handlers, before the first batch, after the end."""

from __future__ import annotations

import dataclasses
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import pytest

import asyncfit as af

from .helpers import Gate, Linear, X, Y, fit, kinds, nothing_left, until, whole


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Remark(af.Event):
    """An event of a user's own."""

    text: str


def opened(at: int) -> Gate:
    """Tells when so many batches are done, and holds nothing up."""
    gate = Gate(at)
    gate.open.set()
    return gate


@contextmanager
def on_signal(act: Callable[[], object]) -> Iterator[None]:
    """`act` is the handler of a signal, which is raised at once."""
    before = signal.signal(signal.SIGUSR1, lambda number, frame: act())
    try:
        signal.raise_signal(signal.SIGUSR1)
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


async def from_here(act: Callable[[], object]) -> None:
    act()


async def from_another_task(act: Callable[[], object]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(from_here, act)


async def from_another_thread(act: Callable[[], object]) -> None:
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()


async def from_a_signal_handler(act: Callable[[], object]) -> None:
    with on_signal(act):
        await anyio.lowlevel.checkpoint()


FROM = [from_here, from_another_task, from_another_thread, from_a_signal_handler]
everywhere = pytest.mark.parametrize("asked", FROM)


# --- stop and cancel -------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@everywhere
async def test_stop(asked: Any) -> None:
    gate = opened(4)
    with nothing_left():
        async with fit(Linear(gate), epochs=10**6) as run:
            stream = run.events(af.StopRequested | af.TrainEnd)
            await until(gate.reached.is_set)
            await asked(lambda: run.stop("enough", resumable=True))
            seen = [event async for event in stream]
    assert kinds(seen) == ["StopRequested", "TrainEnd"]
    asked_for, end = seen
    assert isinstance(asked_for, af.StopRequested)
    assert isinstance(end, af.TrainEnd)
    assert (asked_for.who, asked_for.reason, asked_for.resumable) == ("run", "enough", True)
    assert (end.outcome, end.reason, end.resumable) == ("stopped", "enough", True)
    assert (run.outcome, run.reason, run.error) == ("stopped", "enough", None)


@pytest.mark.anyio
@everywhere
async def test_cancel(asked: Any) -> None:
    gate = opened(4)
    with nothing_left():
        async with anyio.create_task_group() as group:
            run = await fit(Linear(gate), epochs=10**6).start(group)
            await until(gate.reached.is_set)
            await asked(lambda: run.cancel("no more"))
            for _ in range(2):
                with pytest.raises(af.RunCancelled, match="no more") as raised:
                    await run.wait()
                assert raised.value.reason == "no more"
    assert (run.outcome, run.reason, run.history.outcome) == ("cancelled", "no more", "cancelled")


@pytest.mark.anyio
async def test_cancel_does_not_wait_for_gates() -> None:
    inside = anyio.Event()

    class Hangs(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            inside.set()
            await anyio.sleep_forever()

    with nothing_left(), anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            run = await fit(callbacks=Hangs(), grace=0.05).start(group)
            await inside.wait()
            run.cancel()
            with pytest.raises(af.RunCancelled):
                await run.wait()
    assert run.outcome == "cancelled"


@pytest.mark.anyio
async def test_the_awaiting_task_gets_run_cancelled() -> None:
    class Gives(af.Callback):
        runs: list[af.Run]

        def on_epoch_end(self, event: af.EpochEnd) -> None:
            trainer._user.cancel("by a callback")  # type: ignore[union-attr]

    trainer = af.Trainer(Linear())
    with pytest.raises(af.RunCancelled, match="by a callback"):
        await trainer.fit(X, Y, callbacks=Gives())


@pytest.mark.anyio
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_stop_before_the_first_batch_and_after_the_end(when: str) -> None:
    async with fit(epochs=2) as run:
        stream = run.events()
        if when == "before":
            run.stop("early")
        await run.wait()
        run.stop("late")
        await run.stop("late")
        seen = [event async for event in stream]
    whole(seen)
    if when == "before":
        assert kinds(seen) == ["TrainBegin", "StopRequested", "EpochBegin", "EpochEnd", "TrainEnd"]
        assert run.history.partial == {"epoch": 0}
        assert run.outcome == "stopped"
    else:
        assert run.outcome == "completed"


@pytest.mark.anyio
async def test_a_cancellation_before_it_began_leaves_no_events() -> None:
    seen: list[af.Event] = []
    bus = af.EventBus()
    bus.subscribe(af.Event, seen.append)
    async with anyio.create_task_group() as group:
        run = await fit(bus=bus).start(group)
        run.cancel("at once")
        with pytest.raises(af.RunCancelled, match="at once"):
            await run.wait()
    assert seen == []
    assert run.history.outcome == run.outcome == "cancelled"
    assert run.history.reason == "at once"


@pytest.mark.anyio
async def test_a_cancel_after_the_end_changes_nothing() -> None:
    async with fit() as run:
        await run.wait()
        await run.cancel()
    assert run.outcome == "completed"


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["gate", "queued", "stream", "fact", "body"])
async def test_awaiting_a_stop_does_not_deadlock(how: str) -> None:
    """Neither in a handler that holds the event, nor behind one, nor in the body of the block."""
    over: list[str | None] = []

    async def handler(event: af.EpochEnd) -> None:
        await run.stop("from inside")
        over.append(run.outcome)

    bus = af.EventBus()
    if how in ("gate", "queued"):
        bus.subscribe(af.EpochEnd, handler, gate=how == "gate")
    with anyio.fail_after(10), nothing_left():
        async with fit(epochs=10**6, bus=bus) as run:
            if how == "stream":
                async for _ in run.events(af.EpochEnd, gate=True):
                    await run.stop("from inside")
            elif how == "fact":  # at an event that no gate holds, of a stream that has gates
                async for event in run.events(gate=True):
                    if isinstance(event, af.RunPaused):
                        await run.stop("from inside")
                        assert run.outcome == "stopped"
                    elif isinstance(event, af.EpochEnd):
                        run.pause()
            elif how == "body":
                await run.stop("from inside")
                assert run.outcome == "stopped"
            else:
                await run.wait()
    assert run.outcome == "stopped"
    assert run.history.reason == "from inside"
    if how == "gate":
        assert run.history.epoch == [0], "it acted as of the event that the handler held"
        assert len(over) == 1


# --- pause and resume ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@everywhere
async def test_pause_and_resume(asked: Any) -> None:
    gate, model = opened(4), Linear()
    model._before = gate
    async with fit(model, epochs=10**6) as run:
        facts = run.events(af.RunPaused, af.RunResumed)
        await until(gate.reached.is_set)
        await asked(run.pause)
        assert run.paused
        assert isinstance(await anext(facts), af.RunPaused)
        assert "paused" in repr(run)
        snapshot = await run.snapshot()  # a paused run still answers
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert (await run.snapshot()).step == snapshot.step == run.progress.step
        await asked(run.resume)
        assert not run.paused
        assert isinstance(await anext(facts), af.RunResumed)
        await until(lambda: run.progress.step > snapshot.step)
        run.pause()
        run.stop()  # a paused run can be stopped
        await run.wait()
    assert run.outcome == "stopped"


@pytest.mark.anyio
async def test_a_pause_changes_no_result() -> None:
    plain, paused = Linear(), Linear()
    await fit(plain, epochs=3)
    async with fit(paused, epochs=3) as run:
        run.pause()
        run.resume()
        run.pause()
        async for _ in run.events(af.RunPaused):
            run.resume()
    np.testing.assert_array_equal(plain.w, paused.w)


@pytest.mark.anyio
async def test_a_run_that_is_over_cannot_be_paused() -> None:
    async with fit() as run:
        await run.wait()
        run.pause()
        assert not run.paused


# --- the learning rate -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
@everywhere
async def test_set_learning_rate(asked: Any) -> None:
    gate, model = opened(4), Linear()
    model._before = gate
    async with fit(model, epochs=10**6) as run:
        facts = run.events(af.LearningRateChanged)
        await until(gate.reached.is_set)
        await asked(lambda: run.set_learning_rate(0.003))
        fact = await anext(facts)
        assert (fact.who, fact.value, fact.previous) == ("run", 0.003, 0.01)
        run.stop()
        await run.wait()
    assert model.learning_rate == 0.003


@pytest.mark.anyio
@pytest.mark.parametrize(
    "rate", [-1, float("nan"), float("inf"), "0.1", b"0.1", None, True, pytest.param(10**400, id="huge")]
)
async def test_a_rate_that_is_none_is_refused_at_once(rate: Any) -> None:
    async with fit() as run:
        with pytest.raises(af.InvalidInput, match="a learning rate is a finite number of at least 0"):
            run.set_learning_rate(rate)


class Scheduled:
    """Its rate follows a schedule of its own."""

    def __init__(self) -> None:
        self._model = Linear()

    @property
    def learning_rate(self) -> float:
        return 0.1 / (1 + self._model.batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@pytest.mark.anyio
async def test_a_scheduled_rate_is_refused_everywhere() -> None:
    said = []

    class Sets(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            try:
                event.set_learning_rate(0.1)
            except af.InvalidInput as error:
                said.append(str(error))

    async with fit(Scheduled(), callbacks=Sets()) as run:
        with pytest.raises(af.InvalidInput, match="the learning rate of Scheduled has no setter"):
            run.set_learning_rate(0.1)
    assert said == ["the learning rate of Scheduled has no setter: it follows a schedule of its own"]
    assert run.outcome == "completed"


# --- events of one's own ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
@everywhere
async def test_publish(asked: Any) -> None:
    gate = opened(4)
    async with fit(Linear(gate), epochs=10**6) as run:
        stream = run.events(Remark)
        await until(gate.reached.is_set)
        remark = Remark(text="so far")
        await asked(lambda: run.publish(remark))
        stamped = await anext(stream)
        assert (stamped.run_id, stamped.text) == (run.id, "so far")
        assert stamped.seq > 0
        assert (remark.run_id, remark.seq) == (None, -1)
        run.stop()


@pytest.mark.anyio
async def test_own_events_are_numbered_with_all_others() -> None:
    """Also those from before the run began, and from handlers."""

    async def comment(event: af.EpochEnd) -> None:
        run.publish(Remark(text=f"epoch {event.epoch}"))

    bus = af.EventBus()
    bus.subscribe(af.EpochEnd, comment, gate=True)
    async with fit(epochs=2, bus=bus) as run:
        run.publish(Remark(text="before"))
        seen = [event async for event in run.events()]
    whole(seen)
    texts = [event.text for event in seen if isinstance(event, Remark)]
    assert texts == ["before", "epoch 0", "epoch 1"]
    assert isinstance(seen[1], Remark)
    after = seen[[event.type for event in seen].index("EpochEnd") + 1]
    assert isinstance(after, Remark), "it follows the event that its author held"
    with pytest.raises(af.DetachedEvent, match="has ended"):
        run.publish(Remark(text="nobody would hear it"))


@pytest.mark.anyio
async def test_a_handler_cannot_wait_for_its_own_run() -> None:
    """It is told so at once, as is who iterates over a gate; who iterates otherwise may wait."""
    told: list[str] = []

    async def waits(event: af.EpochEnd) -> None:
        try:
            await run.wait()
        except RuntimeError as error:
            told.append(str(error))

    bus = af.EventBus()
    bus.subscribe(af.EpochEnd, waits, gate=True)
    bus.subscribe(af.EpochEnd, waits)
    async with fit(epochs=1, bus=bus) as run:
        pass
    assert len(told) == 2
    assert all("in hand, which cannot end before" in text for text in told)
    with anyio.fail_after(10):
        async with fit(epochs=3) as run:
            async for _ in run.events(af.EpochEnd, gate=True):
                with pytest.raises(RuntimeError, match="in hand"):
                    await run.wait()
        assert run.outcome == "completed"
        async with fit(epochs=3) as run:
            async for _ in run.events(af.EpochEnd):
                await run.wait()
        assert run.outcome == "completed"


@pytest.mark.anyio
@pytest.mark.parametrize("event", [af.EpochBegin(epoch=3), af.Event, "text", None])
async def test_publish_refuses_what_is_no_event_of_ones_own(event: Any) -> None:
    async with fit() as run:
        with pytest.raises(TypeError, match=r"takes an event|is published by the run itself"):
            run.publish(event)


# --- snapshots -------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_snapshot_of_a_run_that_goes_on() -> None:
    model = Linear()
    async with fit(model, epochs=10**6) as run:
        first = await run.snapshot()
        before = first.get_weights()[0]
        await until(lambda: run.progress.step > first.step + 5)
        second = await run.snapshot()
        assert second.step > first.step
        np.testing.assert_array_equal(first.state()["w"], before)
        assert first.state()["batches"] == first.step
        assert set(first.state()) == {"w", "batches", "learning_rate"}
        with pytest.raises(ValueError, match="read-only"):
            first.state()["w"][0] = 1.0
        np.testing.assert_array_equal(await first.predict(X), X @ before)
        run.stop()
    assert (await run.snapshot()).step == run.progress.step
    np.testing.assert_array_equal((await run.snapshot()).state()["w"], model.w)


@pytest.mark.anyio
async def test_a_snapshot_names_the_way_for_what_keras_does_with_its_model() -> None:
    async with fit(Linear()) as run:
        snapshot: Any = await run.snapshot()
    with pytest.raises(AttributeError, match=r"event\.set_learning_rate"):
        snapshot.optimizer.learning_rate = 0.1
    with pytest.raises(AttributeError, match=r"event\.stop\(\)"):
        snapshot.stop_training = True
    for name in ("compile", "fit", "set_weights"):
        with pytest.raises(AttributeError, match=f"a snapshot has no {name}: "):
            getattr(snapshot, name)


@pytest.mark.anyio
async def test_a_snapshot_before_the_first_batch_and_after_the_end_while_the_next_run_goes_on() -> None:
    trainer = af.Trainer(Linear())
    async with trainer.fit(X, Y, batch_size=2) as run:
        assert (await run.snapshot()).state()["batches"] <= 3
    async with trainer.fit(X, Y, batch_size=2, epochs=10**6) as second:
        late = await run.snapshot()  # whole, though the next run is at work
        assert late.state()["batches"] >= 3
        second.stop()


@pytest.mark.anyio
async def test_many_wait_for_snapshots_and_for_the_end() -> None:
    got: list[Any] = []

    async def snapshot() -> None:
        got.append((await run.snapshot()).step)

    async def wait() -> None:
        got.append(await run.wait())

    async with fit(epochs=50) as run, anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(snapshot)
            group.start_soon(wait)
    assert got.count(run.history) == 5
    assert len(got) == 10


@pytest.mark.anyio
async def test_cancelling_a_wait_does_not_cancel_the_run() -> None:
    async with fit(epochs=10**6) as run:
        with anyio.move_on_after(0.01):
            await run.wait()
        assert run.outcome is None
        run.stop()


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_progress() -> None:
    gate = Gate(4)
    async with fit(Linear(gate), epochs=5) as run:
        at = run.progress
        assert (at.epoch, at.batch, at.step, at.rate, at.eta, dict(at.logs)) == (0, 0, 0, 0.0, None, {})
        await until(gate.reached.is_set)
        at = run.progress
        assert (at.epoch, at.epochs, at.batch, at.steps, at.step) == (1, 5, 1, 3, 4)
        assert at.rate > 0
        assert at.eta is not None
        assert at.eta > 0
        assert set(at.logs) == {"loss"}
        assert repr(run) == f"<Run {run.id}: epoch 2/5, step 4, 0 subscribers>"
        gate.open.set()
    at = run.progress
    assert (at.epoch, at.step, at.ahead, at.eta) == (4, 15, 0, None)
    assert repr(run) == f"<Run {run.id}: completed at step 15, 0 subscribers>"


@pytest.mark.anyio
async def test_repr_before_the_start_and_names() -> None:
    async with fit(run_id="mine") as run:
        assert repr(run) == "<Run mine: starting, 0 subscribers>"
        assert run.id == run.history.run_id == "mine"


@pytest.mark.anyio
async def test_subscribers_are_those_of_this_run() -> None:
    """Of a bus that two runs share, too; those that have gone stay listed."""
    bus = af.EventBus()

    async def watch(event: af.EpochEnd) -> None: ...

    class Counts(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None: ...

        @af.inline
        def on_batch_end(self, event: af.BatchEnd) -> None: ...

    bus.subscribe(af.EpochEnd, watch)
    bus.subscribe(af.BatchEnd, lambda event: None, inline=True, name="inside")
    async with fit(epochs=2, bus=bus, callbacks=Counts()) as one, fit(epochs=5, bus=bus) as other:
        stream = one.events(af.EpochBegin)
        await one.wait()
        await other.wait()
        stream.close()
    figures = {stats.name: stats for stats in one.subscribers}
    assert {name: stats.delivered for name, stats in figures.items()} == {
        "watch": 2, "Counts": 2 + 6, "inside": 6, "events(EpochBegin)": 0,
    }  # fmt: skip
    assert figures["inside"].mode == "inline"
    assert figures["Counts"].mode == "gate"
    assert {stats.name: stats.delivered for stats in other.subscribers} == {"watch": 5, "inside": 15}
    assert all(stats.queued == 0 and stats.busy_for is None for stats in one.subscribers)


@pytest.mark.anyio
async def test_a_handler_that_is_at_it_can_be_seen() -> None:
    inside, go_on = anyio.Event(), anyio.Event()

    async def slow(event: af.EpochEnd) -> None:
        inside.set()
        await go_on.wait()

    bus = af.EventBus()
    bus.subscribe(af.EpochEnd, slow, gate=True)
    async with fit(bus=bus) as run:
        await inside.wait()
        (stats,) = run.subscribers
        assert stats.busy_for is not None
        assert stats.where is not None
        assert "test_handle.py" in stats.where
        assert stats.snapshots == 1
        go_on.set()
    assert run.subscribers[0].snapshots == 0


@pytest.mark.anyio
@pytest.mark.parametrize("reason", [3, None, b"x"])
async def test_a_reason_is_text(reason: Any) -> None:
    async with fit() as run:
        for ask in (run.stop, run.cancel):
            with pytest.raises(TypeError, match="a reason is text"):
                ask(reason)
    assert run.outcome == "completed"

"""`event.start_soon` and `event.publish`: work that no gate waits for, and the run's end that does."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
import pytest

import asyncfit as af

from .helpers import Gate, Linear, X, Y, fit, kinds, nothing_left, until, whole

DATA = (X, Y)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note(af.Event):
    text: str


class Starts(af.Callback):
    """Starts `work(event)` at one kind of event; `gates` says whether as a gate."""

    def __init__(self, work: Callable[[Any], Awaitable[object]], at: str = "EpochEnd", **settings: Any) -> None:
        self.work = work
        self.at = at
        for name, value in settings.items():
            setattr(self, name, value)

    async def on_train_begin(self, event: af.TrainBegin) -> None:
        self._start(event)

    async def on_batch_end(self, event: af.BatchEnd) -> None:
        self._start(event)

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        self._start(event)

    def _start(self, event: af.Event) -> None:
        if event.type == self.at:
            event.start_soon(self.work, event)


def watched() -> tuple[af.EventBus, list[af.Event]]:
    seen: list[af.Event] = []
    bus = af.EventBus()
    bus.subscribe(af.Event, seen.append, name="seen", overflow="block")
    return bus, seen


@pytest.mark.anyio
@pytest.mark.parametrize("at", ["TrainBegin", "BatchEnd", "EpochEnd"])
async def test_training_goes_on_and_train_end_waits(at: str) -> None:
    """The work ends only after compute has; what it publishes comes before TrainEnd."""
    model = Linear()

    async def work(event: af.Event) -> None:
        await until(lambda: model.batches == 6)
        event.publish(Note(text=f"after {event.type}"))

    bus, seen = watched()
    with anyio.fail_after(20), nothing_left():
        history = await fit(model, epochs=2, bus=bus, callbacks=Starts(work, at, gates="batch"))
    assert history.outcome == "completed"
    whole(seen)
    notes = [event.text for event in seen if isinstance(event, Note)]
    assert notes == [f"after {at}"] * {"TrainBegin": 1, "BatchEnd": 6, "EpochEnd": 2}[at]


@pytest.mark.anyio
async def test_a_handler_that_nobody_waits_for_may_start_work_too() -> None:
    gate = Gate(1)

    async def work(event: af.Event) -> None:
        gate.open.set()
        await until(lambda: model.batches == 3)
        event.publish(Note(text="done"))

    model = Linear(gate)
    bus, seen = watched()
    with anyio.fail_after(20):
        await fit(model, epochs=1, bus=bus, callbacks=Starts(work, "TrainBegin", gates="none"))
    assert "Note" in kinds(seen)[:-1]


@pytest.mark.anyio
async def test_it_may_use_the_run_and_the_model_when_compute_is_over() -> None:
    """A snapshot that it asks for then is of the final state, and does not wait for the end, which waits for it."""
    model = Linear()
    snapshots: list[af.Snapshot] = []
    figures: list[dict[str, float]] = []

    async def work(event: af.Event) -> None:
        await run._compute_over.wait()
        snapshots.append(await run.snapshot())
        figures.append(await trainer.evaluate(*DATA))

    trainer = af.Trainer(model)
    with anyio.fail_after(20):
        async with trainer.fit(*DATA, batch_size=2, callbacks=Starts(work, "TrainBegin"), epochs=2) as run:
            pass
    assert (snapshots[0].step, snapshots[0].state()["batches"]) == (6, 6)
    assert figures == [await trainer.evaluate(*DATA)]


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["during", "at the end"])
async def test_what_it_raises_fails_the_run(how: str) -> None:
    model = Linear()

    async def work(event: af.Event) -> None:
        await until(lambda: how == "during" or model.batches == 6)
        raise ValueError("no room")

    bus, seen = watched()
    with anyio.fail_after(20), pytest.raises(ValueError, match="no room") as caught:
        await fit(model, epochs=2 if how == "at the end" else 10**6, bus=bus, callbacks=Starts(work, "TrainBegin"))
    assert "in work that Starts started with start_soon" in caught.value.__notes__
    end = seen[-1]
    assert isinstance(end, af.TrainEnd)
    assert (end.outcome, end.error) == ("failed", caught.value)
    whole(seen)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["completes", "is cancelled"])
async def test_work_that_nobody_waits_for_goes_on_until_all_have_dealt_with_train_end(how: str) -> None:
    log: list[str] = []

    class Ticks(af.Callback):
        def on_train_begin(self, event: af.TrainBegin) -> None:
            event.start_soon(self.tick, wait=False)

        async def on_train_end(self, event: af.TrainEnd) -> None:
            await until(lambda: log.count("tick") > 3)
            log.append("end")

        async def tick(self) -> None:
            try:
                while True:
                    await anyio.sleep(0.001)
                    log.append("tick")
            finally:
                log.append("cancelled")

    async def run() -> None:
        gate = Gate(at=1)
        async with fit(Linear(gate), epochs=2 if how == "completes" else 10**6, callbacks=Ticks()) as live:
            await until(gate.reached.is_set)
            if how == "is cancelled":
                live.cancel()
            gate.open.set()

    with anyio.fail_after(20), nothing_left():
        if how == "completes":
            await run()
        else:
            with pytest.raises(af.RunCancelled):
                await run()
    assert [word for word in log if word != "tick"] == ["end", "cancelled"]


@pytest.mark.anyio
async def test_work_that_nobody_waits_for_may_start_as_long_as_anything_is_delivered() -> None:
    events: list[af.Event] = []
    began = anyio.Event()

    async def work() -> None:
        began.set()
        await anyio.sleep_forever()

    class Late(af.Callback):
        async def on_train_end(self, event: af.TrainEnd) -> None:
            events.append(event)
            event.start_soon(work, wait=False)
            await began.wait()

    with anyio.fail_after(20), nothing_left():
        await fit(callbacks=Late())
        with pytest.raises(af.DetachedEvent, match="the run has ended"):
            events[0].start_soon(work, wait=False)


@pytest.mark.anyio
async def test_work_that_nobody_waits_for_fails_the_run_too() -> None:
    async def work(event: af.Event) -> None:
        raise ValueError("no room")

    class Begins(af.Callback):
        def on_train_begin(self, event: af.TrainBegin) -> None:
            event.start_soon(work, event, wait=False)

    with anyio.fail_after(20), nothing_left(), pytest.raises(ValueError, match="no room"):
        await fit(epochs=10**6, callbacks=Begins())


@pytest.mark.anyio
@pytest.mark.parametrize("on_error", ["log", "detach"])
async def test_what_it_raises_acts_by_on_error(on_error: str, caplog: pytest.LogCaptureFixture) -> None:
    async def work(event: Any) -> None:
        raise ValueError(f"epoch {event.epoch}")

    bus, seen = watched()
    starts = Starts(work, on_error=on_error)
    with anyio.fail_after(20):
        async with fit(epochs=3, bus=bus, callbacks=starts, lookahead=0) as run:
            pass
    assert run.outcome == "completed"
    failures = [str(event.error) for event in seen if isinstance(event, af.SubscriberFailed)]
    assert "epoch 0" in failures
    (mine,) = [stats for stats in run.subscribers if stats.name == "Starts"]
    assert mine.errors == len(failures)
    assert on_error == "detach" or failures == ["epoch 0", "epoch 1", "epoch 2"]


@pytest.mark.anyio
async def test_a_cancellation_leaves_it_half_of_the_grace_time(caplog: pytest.LogCaptureFixture) -> None:
    """Then it is cancelled, and TrainEnd still has time to be told to all."""
    told: list[str] = []

    class Slow(Starts):
        async def on_train_end(self, event: af.TrainEnd) -> None:
            await anyio.sleep(0.01)
            told.append(f"TrainEnd {event.outcome}")

    async def quick(event: af.Event) -> None:
        try:
            await cancelled.wait()
        finally:
            told.append("quick")

    async def hangs(event: af.Event) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            told.append("cut off")

    cancelled = anyio.Event()
    gate = Gate(4)
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(20):
            callbacks = [Slow(hangs, "TrainBegin"), Starts(quick, "TrainBegin")]
            run = await fit(Linear(gate), epochs=10**6, grace=0.3, callbacks=callbacks).start(tasks)
            await until(gate.reached.is_set)
            ending = run.cancel("enough")
            gate.open.set()
            cancelled.set()
            await ending
    assert told == ["quick", "cut off", "TrainEnd cancelled"]
    assert "work that Slow started was cut off" in caplog.text


@pytest.mark.anyio
async def test_a_cancellation_while_the_end_waits_for_it() -> None:
    async def hangs(event: af.Event) -> None:
        await anyio.sleep_forever()

    bus, seen = watched()
    with anyio.fail_after(20), nothing_left():
        async with fit(epochs=1, grace=0.1, bus=bus, callbacks=Starts(hangs)) as run:
            await run._compute_over.wait()
            assert run.outcome is None
            run.cancel("enough")
    assert run.outcome == "completed", "all that it was asked for was done before"
    whole(seen)


@pytest.mark.anyio
async def test_a_thread_that_cannot_be_interrupted_is_waited_for() -> None:
    released, told = threading.Event(), []

    def blocks() -> None:
        assert released.wait(20)
        told.append("written")

    async def work(event: af.Event) -> None:
        await anyio.to_thread.run_sync(blocks)
        event.publish(Note(text="written"))

    bus, seen = watched()
    with anyio.fail_after(20), nothing_left():
        async with fit(epochs=1, grace=0.02, bus=bus, callbacks=Starts(work)) as run:
            await run._compute_over.wait()
            run.cancel()
            await until(lambda: anyio.current_time() > run._until)
            released.set()
    assert told == ["written"]
    assert "Note" in kinds(seen)[:-1], "what is done is told, though its time is over"


@pytest.mark.anyio
async def test_nothing_comes_after_train_end() -> None:
    """Neither from its own handlers nor from late ones of earlier events."""
    told: list[str] = []
    ended = anyio.Event()

    class Late(af.Callback):
        gates = "none"

        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            await ended.wait()
            self._try(event)

        async def on_train_end(self, event: af.TrainEnd) -> None:
            self._try(event)

        def _try(self, event: af.Event) -> None:
            with pytest.raises(af.DetachedEvent, match=r"TrainEnd|has ended") as caught:
                event.publish(Note(text="too late"))
            told.append(str(caught.value))
            with pytest.raises(af.DetachedEvent, match="TrainEnd") as caught:
                event.start_soon(anyio.sleep, 1)
            told.append(str(caught.value))

    bus, seen = watched()
    bus.subscribe(af.TrainEnd, lambda event: ended.set())
    with anyio.fail_after(20):
        await fit(epochs=1, bus=bus, callbacks=Late())
    assert len(told) == 4
    assert "Note" not in kinds(seen)


@pytest.mark.anyio
async def test_from_a_thread_and_from_compute() -> None:
    """In a thread of the pool, and inline, the work still runs on the run's loop, in the caller's context."""
    done: list[tuple[str, int]] = []

    async def work(what: str) -> None:
        await anyio.lowlevel.checkpoint()
        done.append((what, threading.get_ident()))

    class Threaded(af.Callback):
        thread = True

        def on_epoch_end(self, event: af.EpochEnd) -> None:
            event.start_soon(work, "thread")

    class Inline(af.Callback):
        @af.inline
        def on_batch_end(self, event: af.BatchEnd) -> None:
            event.start_soon(work, "inline")

    with anyio.fail_after(20):
        await fit(epochs=1, callbacks=[Threaded(), Inline()])
    assert sorted(done) == sorted((what, threading.get_ident()) for what in ("inline", "inline", "inline", "thread"))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("given", "part"), [(len, "to_thread.run_sync"), (3, "async function"), (lambda: None, "async function")]
)
async def test_start_soon_takes_an_async_function(given: Any, part: str) -> None:
    class Wrong(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            event.start_soon(given)

    with pytest.raises(TypeError, match=part):
        await fit(callbacks=Wrong())


@pytest.mark.anyio
async def test_a_coroutine_in_place_of_the_function_is_told_so() -> None:
    class Wrong(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            event.start_soon(anyio.sleep(1))  # type: ignore[arg-type]

    with pytest.raises(TypeError, match=r"drop the \(\)"):
        await fit(callbacks=Wrong())


@pytest.mark.anyio
async def test_files_may_be_told_of_by_anybody_and_all_else_by_the_run_alone() -> None:
    class Tells(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            event.publish(af.CheckpointSaved(path="a.h5", size=3, seconds=0.1, step=4))
            event.publish(af.CheckpointFailed(path="b.h5", error=OSError("full"), step=4))
            for wrong in (af.EpochBegin(epoch=3), af.Event(), "text"):
                with pytest.raises(TypeError, match=r"takes an event|is published by the run itself"):
                    event.publish(wrong)  # type: ignore[arg-type]

    bus, seen = watched()
    await fit(epochs=1, bus=bus, callbacks=Tells())
    assert kinds(seen)[-3:] == ["CheckpointSaved", "CheckpointFailed", "TrainEnd"]
    assert all(event.run_id == seen[0].run_id for event in seen)


@pytest.mark.anyio
@pytest.mark.parametrize("gates", ["none", "batch"])
async def test_a_callback_s_every_thins_its_batches_alone(gates: str) -> None:
    """Epochs, facts and events of one's own all count."""
    got: list[Any] = []
    gate = Gate(1)  # else a handler that nobody waits for may find the run at its end

    class Tenth(af.Callback):
        every = 2

        async def on_batch_end(self, event: af.BatchEnd) -> None:
            got.append(event.step)

        async def on_batch_begin(self, event: af.BatchBegin) -> None:
            got.append(f"begin {event.step}")

        async def on_epoch_begin(self, event: af.EpochBegin) -> None:
            got.append(f"epoch {event.epoch}")
            if event.epoch == 0:
                event.publish(Note(text="own"))

        async def on_note(self, event: Note) -> None:
            got.append(event.text)
            gate.open.set()

    tenth = Tenth()
    tenth.gates = gates  # type: ignore[assignment]
    await fit(Linear(gate), epochs=2, callbacks=tenth)
    assert [one for one in got if one != "own"] == ["epoch 0", "begin 1", 1, "epoch 1", "begin 3", 3, "begin 5", 5]
    assert got.count("own") == 1

"""How runs end: one TrainEnd on every path, limits that hold, the model free, the history kept, nothing left."""

# ruff: noqa: PT012

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import anyio
import numpy as np
import pytest

import asyncfit as af
from asyncfit.data import given_fit

from .helpers import Gate, Linear, X, Y, fit, nothing_left, until, whole


class Trouble(Exception):
    """What goes wrong on purpose."""


def breaks(at: int) -> Callable[[Linear], None]:
    def before(model: Linear) -> None:
        if model.batches == at:
            raise Trouble(f"batch {at}")

    return before


class Hangs(af.Callback):
    """Waits at TrainEnd until it is cancelled."""

    def __init__(self) -> None:
        self.inside = anyio.Event()
        self.cancelled = False

    async def on_train_end(self, event: af.TrainEnd) -> None:
        self.inside.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled = True


# --- one TrainEnd on every path --------------------------------------------------------------------------------------


async def completes(how: dict[str, Any]) -> None:
    await fit(**how)


async def has_no_epochs(how: dict[str, Any]) -> None:
    await fit(**how | {"epochs": 2, "initial_epoch": 2})


async def is_stopped(how: dict[str, Any]) -> None:
    async with fit(**how) as run:
        run.stop("enough")


async def is_cancelled(how: dict[str, Any]) -> None:
    gate = Gate(1)
    gate.open.set()
    with pytest.raises(af.RunCancelled):
        async with fit(Linear(gate), **how | {"epochs": 10**6}) as run:
            await until(gate.reached.is_set)
            run.cancel("now")
            await anyio.sleep_forever()


async def fails_in_compute(how: dict[str, Any]) -> None:
    with pytest.raises(Trouble, match="batch 4"):
        await fit(Linear(breaks(4)), **how)


async def fails_in_validation(how: dict[str, Any]) -> None:
    class Model(Linear):
        def test_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Any:
            raise Trouble("validation")

    with pytest.raises(Trouble, match="validation"):
        await fit(Model(), **how | {"validation_data": (X, Y)})


async def fails_in_a_gate(how: dict[str, Any]) -> None:
    async def gate(event: af.EpochEnd) -> None:
        await anyio.lowlevel.checkpoint()
        raise Trouble("gate")

    how["bus"].subscribe(af.EpochEnd, gate, gate=True)
    with pytest.raises(Trouble, match="gate"):
        await fit(**how)


async def fails_at_the_begin(how: dict[str, Any]) -> None:
    async def gate(event: af.TrainBegin) -> None:
        raise Trouble("begin")

    how["bus"].subscribe(af.TrainBegin, gate, gate=True)
    with pytest.raises(Trouble, match="begin"):
        await fit(**how)


async def fails_at_the_end(how: dict[str, Any]) -> None:
    async def gate(event: af.TrainEnd) -> None:
        raise Trouble("end")

    how["bus"].subscribe(af.TrainEnd, gate, gate=True)
    with pytest.raises(Trouble, match="end"):
        await fit(**how)


async def fails_to_load(how: dict[str, Any]) -> None:
    """The state cannot be put back when work ahead is undone."""

    class Model(Linear):
        def load_state(self, state: Any) -> None:
            raise Trouble("load")

    async def gate(event: af.EpochEnd) -> None:
        event.set_weights(event_model[0])

    async def keep(event: af.EpochBegin) -> None:
        event_model.append(event.model)

    event_model: list[Any] = []
    how["bus"].subscribe(af.EpochEnd, gate, gate=True)
    how["bus"].subscribe(af.EpochBegin, keep, gate=True)
    with pytest.raises(Trouble, match="load"):
        await fit(Model(), **how)


PATHS = [
    (completes, "completed"),
    (has_no_epochs, "completed"),
    (is_stopped, "stopped"),
    (is_cancelled, "cancelled"),
    (fails_in_compute, "failed"),
    (fails_in_validation, "failed"),
    (fails_in_a_gate, "failed"),
    (fails_at_the_begin, "failed"),
    (fails_at_the_end, "completed"),
    (fails_to_load, "failed"),
]


@pytest.mark.anyio
@pytest.mark.parametrize("lookahead", [0, 1])
@pytest.mark.parametrize(("path", "outcome"), PATHS)
async def test_one_train_end_on_every_path(path: Any, outcome: str, lookahead: int) -> None:
    bus = af.EventBus()
    seen: list[af.Event] = []
    bus.subscribe(af.Event, seen.append, overflow="block")
    with nothing_left(), anyio.fail_after(20):
        await path({"bus": bus, "epochs": 5, "lookahead": lookahead})
    whole(seen)
    end = seen[-1]
    assert isinstance(end, af.TrainEnd)
    assert end.outcome == outcome
    assert isinstance(end.error, Trouble) == (outcome == "failed")
    assert not bus._listeners


@pytest.mark.anyio
@pytest.mark.parametrize("lookahead", [0, 1, 3])
async def test_after_a_batch_that_raised_the_model_is_as_it_left_it(lookahead: int) -> None:
    model = Linear(breaks(4))
    ends: list[af.TrainEnd] = []
    bus = af.EventBus()
    bus.subscribe(af.TrainEnd, ends.append)
    bus.subscribe(af.EpochEnd, lambda event: None, gate=True)
    with pytest.raises(Trouble):
        await fit(model, epochs=5, bus=bus, lookahead=lookahead)
    assert ends[0].step == model.batches == 4


# --- what is left ----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(("path", "outcome"), PATHS)
async def test_the_history_is_kept_on_every_path(path: Any, outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainers: list[af.Trainer] = []
    make = af.Trainer.__init__

    def kept(self: af.Trainer, trainable: Any) -> None:
        make(self, trainable)
        trainers.append(self)

    monkeypatch.setattr(af.Trainer, "__init__", kept)
    await path({"bus": af.EventBus(), "epochs": 5})
    history = trainers[0].history
    assert history is not None
    assert history.outcome == outcome
    assert history.params["steps"] == 3
    assert len(history.epoch) == len(history.history.get("loss", []))


@pytest.mark.anyio
async def test_a_cut_epoch_is_kept_as_partial() -> None:
    async def gate(event: af.BatchEnd) -> None:
        if event.step == 4:
            event.stop("in the midst")

    bus, model = af.EventBus(), Linear()
    bus.subscribe(af.BatchEnd, gate, gate=True)
    history = await fit(model, epochs=5, bus=bus, validation_data=(X, Y))
    assert history.epoch == [0]
    assert history.partial is not None
    assert set(history.partial) == {"epoch", "loss", "learning_rate"}
    assert history.partial["epoch"] == 1
    assert (history.outcome, history.reason) == ("stopped", "in the midst")


@pytest.mark.anyio
async def test_the_model_is_free_again_and_goes_on() -> None:
    trainer = af.Trainer(Linear(breaks(4)))
    for _ in range(2):
        with pytest.raises(Trouble):
            await trainer.fit(X, Y, batch_size=2, epochs=5)
    trainer.trainable._before = lambda model: None  # type: ignore[attr-defined]
    assert (await trainer.fit(X, Y, batch_size=2)).outcome == "completed"


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_handlers_that_hang_have_the_grace_time() -> None:
    """After a failure: the run ends with its own exception, and the handler is cancelled."""
    hangs = Hangs()
    with nothing_left(), anyio.fail_after(4), pytest.raises(Trouble):
        await fit(Linear(breaks(4)), epochs=5, callbacks=hangs, grace=0.05)
    assert hangs.cancelled


@pytest.mark.anyio
async def test_a_cancelled_handler_that_takes_its_time_is_waited_for() -> None:
    """It is its own cleaning up, which nothing may tear."""
    cleaned = False

    class Cleans(af.Callback):
        async def on_train_end(self, event: af.TrainEnd) -> None:
            nonlocal cleaned
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.05)
                cleaned = True

    with pytest.raises(Trouble):
        await fit(Linear(breaks(4)), epochs=5, callbacks=Cleans(), grace=0.01)
    assert cleaned


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["scope", "run.cancel"])
async def test_a_cancellation_gets_through_while_train_end_is_handled(how: str) -> None:
    """A run that has completed but cannot get away: who gives up on it is not held for ever."""
    hangs = Hangs()
    with nothing_left(), anyio.fail_after(4):
        with anyio.CancelScope() as scope:
            async with fit(epochs=2, callbacks=hangs, grace=0.05) as run:
                await hangs.inside.wait()
                if how == "scope":
                    scope.cancel()
                else:
                    run.cancel()
        assert scope.cancelled_caught == (how == "scope")
    assert hangs.cancelled
    assert run.outcome == "completed"


@pytest.mark.anyio
async def test_slow_queued_handlers_have_the_drain_time(caplog: pytest.LogCaptureFixture) -> None:
    took: list[int] = []

    async def slow(event: af.EpochEnd) -> None:
        took.append(event.epoch)
        await anyio.sleep_forever()

    bus = af.EventBus()
    bus.subscribe(af.EpochEnd, slow, name="slow")
    with nothing_left(), anyio.fail_after(4):
        async with fit(epochs=5, bus=bus, drain_timeout=0.05) as run:
            pass
    assert run.outcome == "completed"
    assert took == [0]
    assert run.subscribers[0].cancelled == 5
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith("slow")


@pytest.mark.anyio
async def test_a_cancellation_gets_through_while_queues_are_drained(caplog: pytest.LogCaptureFixture) -> None:
    inside = anyio.Event()

    async def slow(event: af.TrainEnd) -> None:
        inside.set()
        await anyio.sleep_forever()

    bus = af.EventBus()
    bus.subscribe(af.TrainEnd, slow)
    with nothing_left(), anyio.fail_after(4), anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:

            async def cancel() -> None:
                await inside.wait()
                scope.cancel()

            group.start_soon(cancel)
            await fit(bus=bus, drain_timeout=3600.0, grace=0.05)
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_no_time_at_all() -> None:
    class Quick(af.Callback):
        ends = 0

        def on_train_end(self, event: af.TrainEnd) -> None:
            self.ends += 1

    quick = Quick()
    with pytest.raises(Trouble):
        await fit(Linear(breaks(4)), epochs=5, callbacks=quick, grace=0.0)
    await fit(callbacks=quick, drain_timeout=0.0)
    assert quick.ends >= 1


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["grace", "drain_timeout"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), "5", None, True])
async def test_times_are_numbers_of_seconds(name: str, value: Any) -> None:
    with pytest.raises(af.InvalidInput, match=f"{name} is a number of seconds of at least 0"):
        fit(**{name: value})


# --- errors beside ---------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_errors_of_train_end_handlers() -> None:
    """After a normal end the first is raised; after a failure all are kept, and the failure is raised."""

    class Bad(af.Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        async def on_train_end(self, event: af.TrainEnd) -> None:
            raise Trouble(self.name)

    with pytest.raises(Trouble, match="one"):
        async with fit(callbacks=[Bad("one"), Bad("two")]) as run:
            pass
    assert run.outcome == "completed"
    assert sorted(str(error) for error in run.errors) == ["one", "two"]

    with pytest.raises(Trouble, match="batch 1"):
        async with fit(Linear(breaks(1)), callbacks=[Bad("one"), Bad("two")]) as run:
            await anyio.sleep_forever()
    assert sorted(str(error) for error in run.errors) == ["one", "two"]
    assert isinstance(run.error, Trouble)
    assert str(run.error) == "batch 1"


@pytest.mark.anyio
async def test_a_failure_while_a_gate_is_out_waits_for_its_decision() -> None:
    """Compute fails in work ahead; the gate undoes that work, so it never happened."""
    failed = Gate(4)
    failed.open.set()

    def before(model: Linear) -> None:
        failed(model)
        if model.batches == 4 and model.learning_rate == 0.01:
            raise Trouble("in work ahead")

    async def gate(event: af.EpochEnd) -> None:
        if event.epoch == 0:
            await until(failed.reached.is_set)
            event.set_learning_rate(0.005)

    model, bus = Linear(before), af.EventBus()
    bus.subscribe(af.EpochEnd, gate, gate=True)
    history = await fit(model, epochs=3, bus=bus, lookahead=1)
    assert history.outcome == "completed"
    assert model.batches == 9


@pytest.mark.anyio
async def test_news_of_the_model_come_before_and_can_be_cancelled() -> None:
    """What a run awaits before TrainBegin does not hold a cancellation up for longer than the grace time."""
    inside = anyio.Event()

    async def news() -> None:
        inside.set()
        await anyio.sleep_forever()

    own = af.Trainer(Linear())
    how: dict[str, Any] = {
        "bus": None, "executor": "thread", "lookahead": 0, "seed": 0, "run_id": None, "drain_timeout": 1.0,
    }  # fmt: skip
    with nothing_left(), anyio.fail_after(4), pytest.raises(af.RunCancelled, match="never mind"):
        async with own._fit(
            "x",
            own.trainable,
            given_fit(X, Y),
            callbacks=[],
            before=lambda subscriptions: [news],
            grace=0.05,
            **how,
        ) as run:
            await inside.wait()
            run.cancel("never mind")
            await anyio.sleep_forever()
    assert run.outcome == "cancelled"
    await own.fit(X, Y)


@pytest.mark.anyio
async def test_many_runs_leave_nothing() -> None:
    await fit()
    with nothing_left():
        for _ in range(20):
            async with fit(epochs=3, lookahead=1, callbacks=af.Callback()) as run:
                async for _event in run.events(af.EpochEnd, gate=True):
                    await run.snapshot()
    np.testing.assert_equal(run.outcome, "completed")

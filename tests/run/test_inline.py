"""Inline handlers: they run in compute, at the event, on the live model; what they ask for is done at once."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import anyio
import numpy as np
import pytest

import asyncfit as af

from .helpers import Linear, X, Y, fit, kinds, nothing_left, until, whole


async def train(bus: af.EventBus, model: Any = None, **how: Any) -> list[af.Event]:
    seen: list[af.Event] = []
    bus.subscribe(af.Event, seen.append, overflow="block")
    with anyio.fail_after(20):
        await fit(model, **{"epochs": 3, "bus": bus} | how)
    whole(seen)
    return seen


@pytest.mark.anyio
async def test_it_runs_in_compute_at_the_event_on_the_live_model() -> None:
    model, threads, steps = Linear(), set(), []

    def look(event: Any) -> None:
        threads.add(threading.get_ident())
        assert event.model is model
        steps.append((event.type, model.batches))

    bus = af.EventBus()
    bus.subscribe(af.TrainBegin | af.EpochBegin | af.EpochEnd | af.BatchEnd, look, inline=True)
    await train(bus, model, epochs=2)
    assert steps == [
        ("TrainBegin", 0),
        *[("EpochBegin", 0), ("BatchEnd", 1), ("BatchEnd", 2), ("BatchEnd", 3), ("EpochEnd", 3)],
        *[("EpochBegin", 3), ("BatchEnd", 4), ("BatchEnd", 5), ("BatchEnd", 6), ("EpochEnd", 6)],
    ]
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [af.TrainBegin, af.EpochBegin, af.BatchEnd, af.ValidationBegin, af.EpochEnd])
async def test_stop(kind: Any) -> None:
    def stop(event: Any) -> None:
        if getattr(event, "epoch", 1) == 1:
            event.stop("inside")

    bus, model = af.EventBus(), Linear()
    bus.subscribe(kind, stop, inline=True, name="inside")
    seen = await train(bus, model, validation_data=(X, Y))
    end = seen[-1]
    assert isinstance(end, af.TrainEnd)
    assert (end.outcome, end.reason) == ("stopped", "inside")
    assert end.step == model.batches == {af.TrainBegin: 0, af.EpochBegin: 3, af.BatchEnd: 4}.get(kind, 6)
    assert [stop.who for stop in seen if isinstance(stop, af.StopRequested)] == ["inside"]


@pytest.mark.anyio
async def test_the_rate_of_each_batch() -> None:
    """A schedule by hand gives what a loop by hand gives."""
    by_hand = Linear()
    for step in range(9):
        rows = slice(step % 3 * 2, step % 3 * 2 + 2)
        by_hand.learning_rate = 0.01 / (1 + step)
        by_hand.train_batch(X[rows], Y[rows])

    def schedule(event: af.BatchBegin) -> None:
        event.model.learning_rate = 0.01 / (1 + event.step)  # type: ignore[attr-defined]

    def through_the_event(event: af.EpochBegin) -> None:
        event.set_learning_rate(0.02)

    model, bus = Linear(), af.EventBus()
    bus.subscribe(af.BatchBegin, lambda event: setattr(model, "learning_rate", 0.01 / (1 + event.step)), inline=True)
    await train(bus, model)
    np.testing.assert_array_equal(model.w, by_hand.w)

    model, bus = Linear(), af.EventBus()
    bus.subscribe(af.EpochBegin, through_the_event, inline=True, name="mine")
    seen = await train(bus, model)
    assert [e.logs["learning_rate"] for e in seen if isinstance(e, af.EpochEnd)] == [0.02] * 3
    facts = [event for event in seen if isinstance(event, af.LearningRateChanged)]
    assert (facts[0].who, facts[0].previous, facts[0].value) == ("mine", 0.01, 0.02)


@pytest.mark.anyio
async def test_logs() -> None:
    def validated(event: af.ValidationEnd) -> None:
        event.add_logs(f1=0.5)

    def ended(event: af.EpochEnd) -> None:
        event.add_logs(score=event.logs["val_f1"] + event.epoch)

    bus = af.EventBus()
    bus.subscribe(af.ValidationEnd, validated, inline=True)
    bus.subscribe(af.EpochEnd, ended, inline=True)
    seen = await train(bus, validation_data=(X, Y))
    assert [e.logs["score"] for e in seen if isinstance(e, af.EpochEnd)] == [0.5, 1.5, 2.5]
    assert [e.logs["f1"] for e in seen if isinstance(e, af.ValidationEnd)] == [0.5] * 3


@pytest.mark.anyio
async def test_an_error_fails_the_run() -> None:
    error = ArithmeticError("inside")

    def handler(event: af.BatchEnd) -> None:
        if event.step == 4:
            raise error

    bus, model, ends = af.EventBus(), Linear(), []
    bus.subscribe(af.BatchEnd, handler, inline=True, name="mine")
    bus.subscribe(af.TrainEnd, lambda event: ends.append((event.outcome, event.step)))
    with nothing_left(), pytest.raises(ArithmeticError) as raised:
        await fit(model, bus=bus, epochs=3, run_id="r")
    assert raised.value is error
    assert error.__notes__ == ["in mine, inline, at BatchEnd(epoch 1, step 4) of run r"]
    assert ends == [("failed", 5)]
    assert model.batches == 5, "the model is as that batch left it"


@pytest.mark.anyio
async def test_what_it_cannot_ask_for() -> None:
    said: list[str] = []

    def handler(event: af.EpochEnd) -> None:
        for ask in (
            lambda: event.restore_at_end(event.model),
            lambda: event.set_weights({"w": 1}),  # type: ignore[arg-type]
            lambda: event.set_learning_rate(-1.0),
            lambda: event.stop(3),  # type: ignore[arg-type]
        ):
            try:
                ask()  # type: ignore[no-untyped-call]
            except (TypeError, ValueError) as error:
                said.append(str(error))

    bus = af.EventBus()
    bus.subscribe(af.EpochEnd, handler, inline=True)
    await train(bus, epochs=1)
    assert len(said) == 4
    assert "restore_at_end() is for gates" in said[0]


@pytest.mark.anyio
async def test_a_stop_after_it_has_returned_is_a_request_from_outside() -> None:
    kept: list[Any] = []

    bus = af.EventBus()
    bus.subscribe(af.EpochBegin, kept.append, inline=True)
    async with fit(epochs=10**6, bus=bus) as run:
        await until(lambda: kept)
        with pytest.raises(af.GateReleased):
            kept[0].set_learning_rate(0.5)
        kept[0].stop("late")
        await run.wait()
    assert run.reason == "late"


def test_async_handlers_are_refused_at_the_door() -> None:
    async def handler(event: af.BatchEnd) -> None: ...

    with pytest.raises(TypeError, match="inline=True is for plain functions, compute cannot await"):
        af.EventBus().subscribe(af.BatchEnd, handler, inline=True)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [af.TrainEnd, af.LearningRateChanged])
async def test_what_is_no_event_of_compute_is_refused_before_the_run(kind: Any) -> None:
    bus, own = af.EventBus(), af.Trainer(Linear())
    bus.subscribe(kind, lambda event: None, inline=True, name="mine")
    with pytest.raises(af.InvalidInput, match=rf"mine: {kind.__name__} does not happen in compute.*without inline"):
        await own.fit(X, Y, bus=bus)
    await own.fit(X, Y)

    class Mine(af.Callback):
        @af.inline
        def on_train_end(self, event: af.TrainEnd) -> None: ...

    with pytest.raises(af.InvalidInput, match="TrainEnd does not happen in compute"):
        await own.fit(X, Y, callbacks=Mine())


@pytest.mark.anyio
async def test_of_all_events_it_gets_those_of_compute() -> None:
    bus: af.EventBus = af.EventBus()
    seen: list[af.Event] = []
    bus.subscribe(af.Event, seen.append, inline=True)
    await fit(bus=bus)
    assert kinds(seen) == ["TrainBegin", "EpochBegin", *["BatchBegin", "BatchEnd"] * 3, "EpochEnd"]


# --- beside gates ----------------------------------------------------------------------------------------------------


class Decides(af.Callback):
    """A gate that changes the rate at each epoch's end, so that work ahead is undone."""

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        event.set_learning_rate(0.01 / (2 + event.epoch))


class Counter(af.Callback):
    """Counts batches, and nudges the weights by the count: what was undone shows."""

    def __init__(self) -> None:
        self.count = 0
        self.replays = 0

    @af.inline(replayable=True)
    def on_batch_end(self, event: af.BatchEnd) -> None:
        self.count += 1
        self.replays += event.replay
        event.model.w += 1e-3 * self.count  # type: ignore[attr-defined]

    def state_dict(self) -> Mapping[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]


class Strict(Counter):
    """The same, but it must not see a step twice."""

    steps: list[int]

    def __init__(self) -> None:
        super().__init__()
        self.steps = []

    @af.inline
    def on_batch_end(self, event: af.BatchEnd) -> None:
        self.steps.append(event.step)
        super().on_batch_end(event)


@pytest.mark.anyio
@pytest.mark.parametrize("lookahead", [0, 1, 3])
@pytest.mark.parametrize("kind", [Counter, Strict])
async def test_the_bits_do_not_depend_on_the_lookahead(kind: type[Counter], lookahead: int) -> None:
    results = []
    for ahead in (0, lookahead):
        model, counter = Linear(), kind()
        with anyio.fail_after(20):
            await fit(model, epochs=6, callbacks=[counter, Decides()], lookahead=ahead)
        assert counter.count == 18
        results.append(model.w)
    np.testing.assert_array_equal(results[0], results[1])
    if isinstance(counter, Strict):
        assert counter.steps == list(range(18)), "lookahead is 0 while it is subscribed"
        assert counter.replays == 0


@pytest.mark.anyio
async def test_a_replay_says_so() -> None:
    counter, model = Counter(), Linear()
    undone = 0

    class Waits(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            nonlocal undone
            if event.epoch == 1:
                with anyio.fail_after(10):
                    while model.batches < 9:  # noqa: ASYNC110
                        await anyio.sleep(0.001)
                undone = model.batches - 6
                event.set_learning_rate(0.001)

    await fit(model, epochs=4, callbacks=[counter, Waits()], lookahead=1)
    assert undone == 3
    assert counter.replays == 3
    assert counter.count == 12


@pytest.mark.anyio
async def test_one_that_comes_and_goes_while_it_runs() -> None:
    bus = af.EventBus()
    async with fit(epochs=10**6, bus=bus) as run:
        for _ in range(3):
            seen: list[Any] = []
            subscription = bus.subscribe(af.BatchEnd, seen.append, inline=True)
            await until(lambda: len(seen) > 3)  # noqa: B023
            subscription.cancel()
            step = (await run.snapshot()).step  # compute has heard of it
            await until(lambda: run.progress.step > step + 10)  # noqa: B023
            assert max(event.step for event in seen) <= step
        run.stop()
    assert all(stats.mode == "inline" for stats in run.subscribers)

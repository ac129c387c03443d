"""Passes: what `evaluate` and `predict` publish, when, to whom; and that they can be cancelled at every batch."""

from __future__ import annotations

import asyncio
import mmap
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest
import trio

import asyncfit as af
from asyncfit import passes, stepping
from asyncfit.layers import Dense, Dropout
from asyncfit.nn import Outputs

from .run import helpers
from .run.helpers import Gate, Linear, nothing_left, until
from .run.helpers import X as TRAINER_X
from .run.helpers import Y as TRAINER_Y
from .run.test_cancel import Counted, Instrument, Steps, every_step

RNG = np.random.default_rng(5)
X = RNG.standard_normal((50, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 50)
BATCH, STEPS = 8, 7


def small() -> af.Sequential:
    model = af.Sequential([Dense(6, input_shape=(4,), activation="tanh"), Dropout(0.5), Dense(3, "softmax")], seed=3)
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def evaluate(model: Any, **how: Any) -> Any:
    return model.evaluate(X, Y, **{"batch_size": BATCH, **how})


def predict(model: Any, **how: Any) -> Any:
    return model.predict(X, **{"batch_size": BATCH, **how})


BOTH = [pytest.param(evaluate, "Evaluate", id="evaluate"), pytest.param(predict, "Predict", id="predict")]


def listening(**how: Any) -> tuple[af.EventBus, list[Any]]:
    bus = af.EventBus()
    seen: list[Any] = []
    bus.subscribe(af.Event, seen.append, **{"overflow": "block", "name": "seen", **how})
    return bus, seen


def whole(seen: list[Any], sort: str, outcome: str = "completed") -> Any:
    """The stream of one pass is whole; returns its End."""
    names = [event.type for event in seen]
    batches = [event for event in seen if event.type == f"{sort}BatchEnd"]
    assert names == [f"{sort}Begin", *[f"{sort}BatchEnd"] * len(batches), f"{sort}End"]
    assert [event.seq for event in seen] == list(range(len(seen)))
    assert len({event.run_id for event in seen}) == 1
    assert [event.batch for event in batches] == list(range(len(batches)))
    assert [event.time for event in seen] == sorted(event.time for event in seen)
    end = seen[-1]
    assert (end.outcome, end.batches) == (outcome, len(batches))
    return end


class Blocks:
    """Predictions wait in their thread at these batches until they are let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *at: int) -> None:
        self.reached, self.open, self.computed = threading.Event(), threading.Event(), 0
        put = Outputs.put

        def blocked(outputs: Outputs, x: Any) -> Any:
            if self.computed in at:
                self.reached.set()
                assert self.open.wait(20)
                self.reached.clear()
                self.open.clear()
            self.computed += 1
            return put(outputs, x)

        monkeypatch.setattr(Outputs, "put", blocked)


@pytest.fixture
def steppings(monkeypatch: pytest.MonkeyPatch) -> list[stepping.Stepping[Any]]:
    """All that are made in the test."""
    made: list[stepping.Stepping[Any]] = []
    init = stepping.Stepping.__init__

    def kept(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        init(self, *args, **kwargs)

    monkeypatch.setattr(stepping.Stepping, "__init__", kept)
    return made


async def told(steps: stepping.Stepping[Any]) -> None:
    """The steps know that they are to end; the caller may be cancelled itself."""
    with anyio.CancelScope(shield=True):
        await until(lambda: steps._ended)


# --- what is published -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(("ask", "sort"), BOTH)
@pytest.mark.parametrize("entered", [False, True])
async def test_begin_batches_end_in_order_and_the_result_as_without(ask: Any, sort: str, entered: bool) -> None:
    model, (bus, seen) = small(), listening()
    expected = await ask(model)
    with anyio.fail_after(20), nothing_left(within=5):
        if entered:
            async with bus:
                result = await ask(model, bus=bus)
        else:
            result = await ask(model, bus=bus)
    np.testing.assert_array_equal(result, expected)
    end = whole(seen, sort)
    assert len(seen) == STEPS + 2
    assert seen[0].params == {"samples": 50, "batch_size": BATCH, "steps": STEPS}
    assert [event.size for event in seen[1:-1]] == [8] * 6 + [2]
    assert (end.reason, end.error) == ("", None)
    for event in seen:
        assert af.Event.from_dict(event.to_dict()).to_dict() == event.to_dict()


@pytest.mark.anyio
async def test_an_evaluated_batch_has_its_own_figures_and_the_end_those_of_all() -> None:
    model, (bus, seen) = small(), listening()
    result = await evaluate(model, bus=bus)
    for event in seen[1:-1]:
        rows = slice(event.batch * BATCH, event.batch * BATCH + event.size)
        assert dict(event.logs) == model.test_batch(X[rows], Y[rows])
    assert seen[-1].logs == dict(zip(("loss", "accuracy"), result, strict=True))
    assert await evaluate(model, bus=bus, return_dict=True) == seen[-1].logs


@pytest.mark.anyio
async def test_a_predicted_batch_has_its_rows_of_the_result_read_only() -> None:
    model, (bus, seen) = small(), listening()
    result = await predict(model, bus=bus, steps=3)
    assert result.shape == (24, 3)
    for event in seen[1:-1]:
        assert np.shares_memory(event.outputs, result)
        np.testing.assert_array_equal(event.outputs, result[event.batch * 8 : event.batch * 8 + 8])
        with pytest.raises(ValueError, match="read-only"):
            event.outputs[0] = 0
    assert result.flags.writeable
    assert seen[1].to_dict()["outputs"] == {"$omitted": "array", "text": "shape (8, 3), float32"}


@pytest.mark.anyio
async def test_every_pass_has_an_id_of_its_own() -> None:
    model, (bus, seen) = small(), listening()
    await predict(model, bus=bus)
    await evaluate(model, bus=bus)
    ids = {event.run_id for event in seen}
    assert len(ids) == 2
    assert [event.seq for event in seen] == 2 * list(range(STEPS + 2))


@pytest.mark.anyio
async def test_callbacks_have_hooks_for_it_under_keras_names_too() -> None:
    model, calls = small(), []

    class Ours(af.Callback):
        def on_evaluate_begin(self, event: af.EvaluateBegin) -> None:
            calls.append(event.type)

        async def on_evaluate_batch_end(self, event: af.EvaluateBatchEnd) -> None:
            calls.append(event.type)

        def on_evaluate_end(self, event: af.EvaluateEnd) -> None:
            calls.append(event.type)

        async def on_predict_begin(self, event: af.PredictBegin) -> None:
            calls.append(event.type)

        def on_predict_batch_end(self, event: af.PredictBatchEnd) -> None:
            calls.append(event.type)

        async def on_predict_end(self, event: af.PredictEnd) -> None:
            calls.append(event.type)

    await evaluate(model, callbacks=Ours(), steps=2)
    await predict(model, callbacks=[Ours()], steps=1)
    assert calls == [
        "EvaluateBegin", "EvaluateBatchEnd", "EvaluateBatchEnd", "EvaluateEnd",
        "PredictBegin", "PredictBatchEnd", "PredictEnd",
    ]  # fmt: skip
    calls.clear()

    class Keras(af.Callback):
        def on_test_begin(self, event: af.ValidationBegin | af.EvaluateBegin) -> None:
            calls.append(event.type)

        def on_test_batch_end(self, event: af.EvaluateBatchEnd) -> None:
            calls.append(event.type)

        def on_test_end(self, event: af.ValidationEnd | af.EvaluateEnd) -> None:
            calls.append(event.type)

    await model.fit(X, Y, validation_data=(X, Y), callbacks=Keras())
    await evaluate(model, callbacks=Keras(), steps=1)
    assert calls == ["ValidationBegin", "ValidationEnd", "EvaluateBegin", "EvaluateBatchEnd", "EvaluateEnd"]
    base = af.Callback()
    for event in (af.EvaluateBegin(params={}), af.ValidationBegin(epoch=0)):
        assert base.on_test_begin(event) is None


@pytest.mark.anyio
async def test_the_callbacks_of_compile_take_part_in_runs_only() -> None:
    calls = []

    class Hears(af.Callback):
        def on_event(self, event: af.Event) -> None:
            calls.append(event.type)

    model = small()
    model.compile("sgd", "sparse_categorical_crossentropy", callbacks=Hears())
    calls.clear()
    await evaluate(model)
    await predict(model)
    assert calls == []


@pytest.mark.anyio
async def test_who_listens_is_heard_with_filters_and_policies() -> None:
    model, bus = small(), af.EventBus()
    thinned: list[int] = []
    dropped: list[af.Event] = []
    go_on = anyio.Event()
    bus.subscribe(af.PredictBatchEnd, lambda event: thinned.append(event.batch), every=3)
    assert await predict(model, bus=bus) is not None
    assert thinned == [2, 5]

    async def slow(event: af.Event) -> None:
        await go_on.wait()
        dropped.append(event)

    def ended(event: af.PredictEnd) -> None:
        go_on.set()

    bus.subscribe(af.PredictBegin, af.PredictBatchEnd, af.EventsDropped, slow, buffer=2)
    bus.subscribe(af.PredictEnd, ended, gate=True)
    with anyio.fail_after(20):
        await predict(model, bus=bus)
    assert [event.type for event in dropped] == ["PredictBegin", "EventsDropped", "PredictBatchEnd", "PredictBatchEnd"]
    gap: Any = dropped[1]
    assert (gap.first, gap.last, gap.count) == (1, 5, 5)


@pytest.mark.anyio
async def test_batches_that_nobody_listens_to_are_no_events() -> None:
    model, bus = small(), af.EventBus()
    ends: list[Any] = []
    bus.subscribe(af.PredictEnd, ends.append)
    await predict(model, bus=bus)
    assert (ends[0].seq, ends[0].batches) == (1, STEPS)
    numbers: list[int] = []
    for every in (4, 6):
        bus.subscribe(af.PredictBatchEnd, lambda event: numbers.append(event.batch), every=every)
    await predict(model, bus=bus)
    assert sorted(numbers) == [3, 5]
    assert ends[1].seq == 1 + 3  # of every second batch there is an event


@pytest.mark.anyio
async def test_who_comes_while_it_goes_on_gets_what_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, bus, blocks = small(), af.EventBus(), Blocks(monkeypatch, 3)
    seen: list[Any] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: predict(model, bus=bus))
        await until(blocks.reached.is_set)
        bus.subscribe(af.Event, seen.append)
        blocks.open.set()
    assert [getattr(event, "batch", None) for event in seen] == [3, 4, 5, 6, None]
    assert [event.seq for event in seen] == [1, 2, 3, 4, 5]


@pytest.mark.anyio
async def test_a_subscriber_that_blocks_makes_computing_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stepping, "AHEAD", 4)
    model, bus, blocks, behind, taken = small(), af.EventBus(), Blocks(monkeypatch), [], []

    async def slow(event: af.PredictBatchEnd) -> None:
        await anyio.lowlevel.checkpoint()
        taken.append(event.batch)
        behind.append(blocks.computed - event.batch)

    bus.subscribe(af.PredictBatchEnd, slow, overflow="block", buffer=2)
    with anyio.fail_after(20):
        await model.predict(np.zeros((3000, 4)), batch_size=1, bus=bus)
    assert taken == list(range(3000))
    assert max(behind) <= 2 + 4 + 1 + 4  # the queue, those that came before it was full, and those not yet taken


@pytest.mark.anyio
async def test_batches_come_as_they_are_done(monkeypatch: pytest.MonkeyPatch, steppings: list[Any]) -> None:
    model, (bus, seen), blocks = small(), listening(), Blocks(monkeypatch, 2, 3, 6)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: predict(model, bus=bus))
        for batches in (2, 3, 6):
            await until(lambda: blocks.reached.is_set() and len(seen) == 1 + batches)  # noqa: B023
            assert blocks.computed == batches
            await until(lambda: not steppings[0].woken)  # nobody looks of his own accord any more
            blocks.open.set()
            await until(lambda: not blocks.open.is_set())
    whole(seen, "Predict")


# --- gates -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_begin_and_end_wait_for_their_gates_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    model, blocks, calls = small(), Blocks(monkeypatch), []

    class Late(af.Callback):
        order = 100

        async def on_predict_begin(self, event: af.PredictBegin) -> None:
            calls.append(f"begin {self.order}, {blocks.computed} done")
            await anyio.lowlevel.checkpoint()
            calls.append(f"begun {self.order}, {blocks.computed} done")

        async def on_predict_end(self, event: af.PredictEnd) -> None:
            calls.append(f"end {self.order}")
            await anyio.lowlevel.checkpoint()
            calls.append(f"ended {self.order}")

    class Early(Late):
        order = 0

    await predict(model, callbacks=[Late(), Early()])
    calls.append("result")
    assert calls == [
        "begin 0, 0 done", "begun 0, 0 done", "begin 100, 0 done", "begun 100, 0 done",
        "end 0", "ended 0", "end 100", "ended 100", "result",
    ]  # fmt: skip


@pytest.mark.anyio
async def test_nobody_waits_for_gates_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model, blocks, calls = small(), Blocks(monkeypatch), []

    class Gates(af.Callback):
        gates = "batch"

        async def on_predict_batch_end(self, event: af.PredictBatchEnd) -> None:
            if event.batch == 0:
                await until(lambda: blocks.computed == STEPS)
            calls.append(event.batch)

    await predict(model, callbacks=Gates())
    assert calls == list(range(STEPS))


@pytest.mark.anyio
async def test_a_pass_has_no_room_for_events_and_work_of_others() -> None:
    model = small()
    seen: list[af.Event] = []

    class Asks(af.Callback):
        def on_predict_begin(self, event: af.PredictBegin) -> None:
            with pytest.raises(af.DetachedEvent, match="for runs"):
                event.start_soon(anyio.lowlevel.checkpoint)
            seen.append(event)

        def on_predict_batch_end(self, event: af.PredictBatchEnd) -> None:
            with pytest.raises(af.DetachedEvent):
                event.publish(af.Event())
            seen.append(event)

    await predict(model, callbacks=Asks(), steps=1)
    assert len(seen) == 2


# --- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [af.EvaluateBegin, af.EvaluateBatchEnd, af.EvaluateEnd])
@pytest.mark.parametrize("gate", [False, True])
async def test_a_handler_that_raises_ends_the_pass_with_its_error(kind: Any, gate: bool) -> None:
    model, (bus, seen) = small(), listening()
    error = ZeroDivisionError("oh")
    rows = 40 if kind is af.EvaluateEnd else 40_000

    async def fails(event: Any) -> None:
        await anyio.lowlevel.checkpoint()
        raise error

    bus.subscribe(kind, fails, gate=gate)
    with anyio.fail_after(20), nothing_left(within=5), pytest.raises(ZeroDivisionError, match="oh") as raised:
        await model.evaluate(X[[0] * rows], Y[[0] * rows], batch_size=1, bus=bus)
    assert raised.value is error
    if kind is af.EvaluateEnd:
        assert whole(seen, "Evaluate").logs
        return
    end = whole(seen, "Evaluate", "failed")
    assert end.error is error
    assert not end.logs
    assert end.batches < 40_000
    if kind is af.EvaluateBegin and gate:
        assert end.batches == 0


@pytest.mark.anyio
@pytest.mark.parametrize("policy", ["log", "detach"])
async def test_errors_that_are_only_logged(policy: Any, caplog: pytest.LogCaptureFixture) -> None:
    model, calls = small(), []
    told: list[str] = []

    class Fails(af.Callback):
        on_error = policy

        def on_predict_begin(self, event: af.PredictBegin) -> None:
            raise ZeroDivisionError("oh")

        def on_predict_end(self, event: af.PredictEnd) -> None:
            calls.append(event.outcome)
            raise ZeroDivisionError("again")

    class Hears(af.Callback):
        def on_event(self, event: af.Event) -> None:
            told.append(f"{event.seq} {event.type}")

    await predict(model, callbacks=[Fails(), Hears()], steps=1)
    assert calls == (["completed"] if policy == "log" else [])
    assert "Fails failed" in caplog.text
    assert told == ["0 PredictBegin", "1 SubscriberFailed", "2 PredictBatchEnd", "3 PredictEnd"]


@pytest.mark.anyio
async def test_bad_input_is_refused_before_anything_is_published() -> None:
    model, (bus, seen) = small(), listening()
    bad = X.copy()
    bad[7] = np.nan
    for ask in (lambda: model.predict(bad, bus=bus), lambda: model.evaluate(bad, Y, bus=bus)):
        with pytest.raises(af.InvalidInput, match="1 of 50 rows, the first is row 7"):
            await ask()
    with pytest.raises(af.InvalidInput, match="the label 3"):
        await model.evaluate(X, Y + 2, bus=bus)
    assert seen == []
    assert not bus._listeners


def test_who_cannot_listen_is_refused_at_once() -> None:
    model, bus = small(), af.EventBus()
    with pytest.raises(TypeError, match=r"bus= takes an af.EventBus\(\)"):
        evaluate(model, bus=print)
    with pytest.raises(TypeError, match="callbacks takes Callback objects"):
        predict(model, callbacks=[print])
    bus.subscribe(af.PredictBatchEnd, print, inline=True)
    for ask in (evaluate, predict):
        with pytest.raises(af.InvalidInput, match="PredictBatchEnd does not happen in compute"):
            ask(model, bus=bus)
    with pytest.raises(TypeError, match="did you mean 'callbacks'"):
        predict(model, callback=[])


@pytest.mark.anyio
async def test_what_no_handler_may_raise_goes_its_way() -> None:
    model, (bus, _) = small(), listening()

    def leave(event: Any) -> None:
        raise SystemExit(3)

    bus.subscribe(af.PredictBegin, leave)
    with anyio.fail_after(20), pytest.raises(SystemExit):
        await predict(model, bus=bus)


# --- cancelling ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("listened", [False, True])
@pytest.mark.parametrize("at", range(STEPS))
async def test_cancelling_ends_it_at_the_very_batch(
    monkeypatch: pytest.MonkeyPatch, steppings: list[Any], at: int, listened: bool
) -> None:
    model, (bus, seen), blocks = small(), listening(), Blocks(monkeypatch, at)
    with anyio.fail_after(20), nothing_left(within=5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: predict(model, bus=bus if listened else None))
            await until(blocks.reached.is_set)
            tasks.cancel_scope.cancel()
            await told(steppings[-1])
            blocks.open.set()
    assert blocks.computed == at + 1
    if listened:
        end = whole(seen, "Predict", "cancelled")
        assert end.batches == at + 1
        assert "cancelled" in end.reason


class Suspends(af.Callback):
    """Gates and queued hooks that suspend."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def on_event(self, event: af.Event) -> None:
        await anyio.lowlevel.checkpoint()
        self.seen.append(event)

    async def on_evaluate_begin(self, event: af.EvaluateBegin) -> None:
        await self.on_event(event)

    async def on_evaluate_end(self, event: af.EvaluateEnd) -> None:
        await self.on_event(event)


async def once(steps: Steps, natively: bool) -> None:
    """One evaluation, cancelled at the given step of any task; checks all that must hold however far it came."""
    model, hears, result = small(), Suspends(), []
    bus, seen = listening()

    async def asks() -> None:
        result.append(await evaluate(model, bus=bus, callbacks=hears))

    threads = set(threading.enumerate())
    with anyio.fail_after(20):
        if natively:
            task = asyncio.ensure_future(asks())
            steps.cancel = task.cancel
            await asyncio.wait([task])
            assert task.cancelled() or result
        else:
            with anyio.CancelScope() as scope:
                steps.cancel = scope.cancel
                await asks()
        steps.cancel = None
        await until(lambda: helpers._threads() <= threads)
    assert not bus._listeners
    assert [event.id for event in hears.seen] == [event.id for event in seen]
    if seen:
        whole(seen, "Evaluate", seen[-1].outcome)
        assert seen[-1].outcome == "completed" if result else seen[-1].outcome in ("cancelled", "completed")


@pytest.mark.parametrize(("natively", "use_uvloop"), [(False, False), (True, False), (True, True)])
def test_cancelled_at_any_step_of_any_task_on_asyncio(natively: bool, use_uvloop: bool) -> None:
    def run(steps: Steps) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.set_task_factory(lambda loop, coro, **kw: asyncio.Task(Counted(coro, steps), loop=loop, **kw))
            await once(steps, natively)

        anyio.run(main, backend_options={"use_uvloop": use_uvloop})

    assert every_step(run) > 20


def test_cancelled_at_any_step_of_any_task_on_trio() -> None:
    def run(steps: Steps) -> None:
        async def main() -> None:
            trio.lowlevel.add_instrument(Instrument(steps))
            await once(steps, False)

        trio.run(main)

    assert every_step(run) > 20


def test_asyncios_own_cancellations_are_obeyed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for listened in (False, True):
        model, (bus, seen), blocks = small(), listening(), Blocks(monkeypatch, 2)

        async def main(ask: Callable[[], Awaitable[Any]] = lambda: predict(model, bus=bus if listened else None),
                       blocks: Blocks = blocks) -> None:  # fmt: skip
            task = asyncio.ensure_future(ask())
            await until(blocks.reached.is_set)
            task.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
            assert not task.done(), "the thread is still at it"
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done()
            blocks.open.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert blocks.computed == 3

        with nothing_left(within=5):
            asyncio.run(main())
        if listened:
            whole(seen, "Predict", "cancelled")
        monkeypatch.undo()


@pytest.mark.anyio
async def test_cancelled_before_it_began_it_publishes_nothing() -> None:
    model, (bus, seen) = small(), listening()
    with anyio.fail_after(20), nothing_left(within=5), anyio.CancelScope() as scope:
        scope.cancel()
        await predict(model, bus=bus)
    assert seen == []
    assert not bus._listeners


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [af.PredictBegin, af.PredictEnd])
async def test_cancelled_while_a_gate_holds_it(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "GRACE", 0.05)
    model, (bus, seen), held = small(), listening(), []
    began, cleaned = anyio.Event(), []

    async def holds(event: Any) -> None:
        held.append(event.type)
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            cleaned.append(event.type)

    bus.subscribe(kind, holds, gate=True)
    with anyio.fail_after(20), nothing_left(within=5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: predict(model, bus=bus))
            await began.wait()
            tasks.cancel_scope.cancel()
    assert held == cleaned == [kind.__name__]
    whole(seen, "Predict", "cancelled" if kind is af.PredictBegin else "completed")


@pytest.mark.anyio
async def test_a_begin_that_is_answered_late_is_not_taken_for_the_end() -> None:
    model, bus, done = small(), af.EventBus(), []
    began, ending = anyio.Event(), anyio.Event()

    async def begin(event: af.PredictBegin) -> None:
        began.set()
        await ending.wait()
        done.append(event.type)

    async def end(event: af.PredictEnd) -> None:
        ending.set()
        await until(lambda: done)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        done.append(event.type)

    bus.subscribe(af.PredictBegin, begin, gate=True)
    bus.subscribe(af.PredictEnd, end, gate=True)
    bus.subscribe(af.PredictEnd, lambda event: done.append("all others"))
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: predict(model, bus=bus))
            await began.wait()
            tasks.cancel_scope.cancel()
    assert done == ["PredictBegin", "PredictEnd", "all others"]


@pytest.mark.parametrize("use_uvloop", [False, True])
def test_when_the_loop_ends_so_does_the_pass_with_its_end_delivered(
    monkeypatch: pytest.MonkeyPatch, use_uvloop: bool
) -> None:
    model, (bus, seen), blocks, ended = small(), listening(), Blocks(monkeypatch, 2), []

    class Ends(af.Callback):
        async def on_predict_end(self, event: af.PredictEnd) -> None:
            await asyncio.sleep(0)
            ended.append(event.outcome)

    async def main() -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.ensure_future(predict(model, bus=bus, callbacks=Ends()))
        await until(blocks.reached.is_set)
        asyncio.get_running_loop().call_later(0.05, blocks.open.set)
        return task

    with nothing_left(within=5):
        task: asyncio.Task[Any] = anyio.run(main, backend_options={"use_uvloop": use_uvloop})
    assert task.cancelled()
    assert ended == ["cancelled"]
    assert whole(seen, "Predict", "cancelled").batches == 3


@pytest.mark.anyio
async def test_handlers_of_a_cancelled_pass_have_their_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    model, blocks, ended = small(), Blocks(monkeypatch, 1), []

    class Ends(af.Callback):
        async def on_predict_end(self, event: af.PredictEnd) -> None:
            await anyio.sleep(0.02)
            ended.append(event.outcome)

    with anyio.fail_after(20), nothing_left(within=5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: predict(model, callbacks=Ends()))
            await until(blocks.reached.is_set)
            tasks.cancel_scope.cancel()
            blocks.open.set()
    assert ended == ["cancelled"]


@pytest.mark.anyio
async def test_queued_handlers_that_hang_are_named_and_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(passes, "DRAIN", 0.05)
    model, bus = small(), af.EventBus()

    async def hangs(event: Any) -> None:
        await anyio.sleep_forever()

    bus.subscribe(af.PredictBatchEnd, hangs, name="sleeper")
    with anyio.fail_after(20), nothing_left(within=5):
        assert (await predict(model, bus=bus)).shape == (50, 3)
    assert "had not taken all their events" in caplog.text
    assert "sleeper" in caplog.text


@pytest.mark.anyio
async def test_a_snapshots_passes_are_cancelled_within_a_batch(
    monkeypatch: pytest.MonkeyPatch, steppings: list[Any]
) -> None:
    model, kept = small(), []

    class Keeps(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            kept.append(event.model)

    await model.fit(X, Y, callbacks=Keeps())
    np.testing.assert_array_equal(await kept[0].predict(X), await model.predict(X))
    assert await kept[0].evaluate(X, Y) == await model.evaluate(X, Y)
    blocks = Blocks(monkeypatch, 1)
    with anyio.fail_after(20), nothing_left(within=5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: kept[0].predict(X, batch_size=BATCH))
            await until(blocks.reached.is_set)
            tasks.cancel_scope.cancel()
            await told(steppings[-1])
            blocks.open.set()
    assert blocks.computed == 2


INTERRUPTED = """
    import signal, sys, numpy as np, asyncfit as af
    from asyncfit.layers import Dense
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin without
    model = af.Sequential([Dense(3, input_shape=(4,))])

    class Presses(af.Callback):
        def on_predict_batch_end(self, event):
            if event.batch == 20:
                signal.raise_signal(signal.SIGINT)

    class Tells(af.Callback):
        async def on_predict_end(self, event):
            print("end", event.outcome, 20 <= event.batches < 400_000, flush=True)

    job = model.predict(np.zeros((400_000, 4)), batch_size=1, callbacks=[Presses(), Tells()])
    try:
        {run}
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize("run", ["job.blocking()", "import trio; trio.run(lambda: job)"])
def test_ctrl_c_ends_it_with_its_end_delivered(run: str) -> None:
    code = textwrap.dedent(INTERRUPTED).format(run=run)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    outcome = "cancelled" if "blocking" in run else "failed"  # trio raises it in the handler itself
    assert ran.stdout == f"end {outcome} True\ninterrupted\n", ran


# --- many at once ----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_many_at_once_beside_training_each_with_events_of_its_own() -> None:
    model = small()
    expected, figures = await predict(model), await evaluate(model)
    frozen = await _snapshot(model)
    results: list[Any] = []
    streams: list[list[Any]] = []

    async def ask(what: Any) -> None:
        bus, seen = listening()
        streams.append(seen)
        results.append(await what(model, bus=bus))

    with anyio.fail_after(60), nothing_left(within=5):
        async with anyio.create_task_group() as tasks:
            for _ in range(30):
                tasks.start_soon(ask, evaluate)
                tasks.start_soon(ask, predict)
        for seen in streams:
            whole(seen, seen[0].type.removesuffix("Begin"))
        for result in results:
            np.testing.assert_array_equal(result, figures if isinstance(result, list) else expected)
        async with model.fit(X, Y, epochs=100_000, batch_size=8) as run:
            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(ask, evaluate)
                    tasks.start_soon(ask, predict)
            run.stop("enough")
    for seen in streams[60:]:
        whole(seen, seen[0].type.removesuffix("Begin"))
    np.testing.assert_array_equal(await frozen.predict(X, batch_size=BATCH), expected)


async def _snapshot(model: af.Sequential) -> af.Snapshot:
    kept: list[af.Snapshot] = []

    class Keeps(af.Callback):
        def on_train_begin(self, event: af.TrainBegin) -> None:
            kept.append(event.model)
            event.stop()

    await model.fit(X, Y, callbacks=Keeps())
    return kept[0]


@pytest.mark.anyio
async def test_one_bus_serves_a_run_and_passes_at_a_time() -> None:
    model, (bus, seen) = small(), listening()
    with anyio.fail_after(20), nothing_left(within=5):
        async with bus, model.fit(X, Y, epochs=100_000, batch_size=8, bus=bus) as run:
            await until(lambda: len(seen) > 3)
            await predict(model, bus=bus)
            late: list[Any] = []
            with bus.subscribe(af.EvaluateEnd, late.append):
                await evaluate(model, bus=bus)
            await evaluate(model, bus=bus)
            run.stop()
    by_id: dict[Any, list[Any]] = {}
    for event in seen:
        by_id.setdefault(event.run_id, []).append(event)
    trained = by_id.pop(run.id)
    assert {event.type for event in by_id.pop(None)} == {"LayerCreated", "ModelCompiled"}
    assert [event.seq for event in trained] == list(range(len(trained)))
    assert trained[-1].type == "TrainEnd"
    for mine, sort in zip(by_id.values(), ("Predict", "Evaluate", "Evaluate"), strict=True):
        whole(mine, sort)
    assert len(late) == 1


@pytest.mark.anyio
async def test_a_handler_may_ask_the_model_again() -> None:
    model, answers = small(), []
    expected = await predict(model)

    class Asks(af.Callback):
        async def on_evaluate_begin(self, event: af.EvaluateBegin) -> None:
            answers.append(await predict(model, callbacks=Asks()))

        async def on_evaluate_batch_end(self, event: af.EvaluateBatchEnd) -> None:
            answers.append(await predict(model))

    with anyio.fail_after(20):
        await evaluate(model, callbacks=Asks())
    assert len(answers) == 1 + STEPS
    for answer in answers:
        np.testing.assert_array_equal(answer, expected)


@pytest.mark.anyio
async def test_more_listened_passes_than_threads_that_wait_for_their_handlers() -> None:
    model = small()
    limiter = anyio.to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 2
    rows = np.zeros((300, 4))

    class Asks(af.Callback):
        async def on_predict_begin(self, event: af.PredictBegin) -> None:
            await predict(model)

        async def on_predict_batch_end(self, event: af.PredictBatchEnd) -> None:
            if event.batch % 100 == 0:
                await predict(model)

    bus = af.EventBus()

    async def blocks(event: af.PredictBatchEnd) -> None:
        if event.batch % 50 == 0:
            await predict(model)

    bus.subscribe(af.PredictBatchEnd, blocks, overflow="block", buffer=1)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(lambda: model.predict(rows, batch_size=1, callbacks=Asks(), bus=bus))
    limiter.total_tokens = before


# --- big inputs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sparse(tmp_path: Path) -> Iterator[Any]:
    """200 MB of zeros in a file that takes no room on the disk."""
    path = tmp_path / "x.bin"
    with path.open("wb") as file:
        file.truncate(50_000 * 1000 * 4)
    mapped = np.memmap(path, np.float32, "r", shape=(50_000, 1000))
    yield mapped
    base: Any = mapped
    assert isinstance(base._mmap, mmap.mmap)


def _private() -> int:
    """Memory of our own, without pages of files, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


@pytest.mark.anyio
@pytest.mark.parametrize("dtype", ["float32", "float64"])
async def test_a_memory_map_is_read_in_batches(sparse: Any, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = sparse if dtype == "float32" else sparse.view(np.float64)
    model = af.Sequential([Dense(1, input_shape=(x.shape[1],))])
    model.compile("sgd", "mse")
    y = np.zeros(len(x))
    await model.predict(x[:100])
    before = _private()
    most = 0

    class Watches(af.Callback):
        every = 200

        def on_predict_batch_end(self, event: af.PredictBatchEnd) -> None:
            nonlocal most
            most = max(most, _private())

        def on_evaluate_batch_end(self, event: af.EvaluateBatchEnd) -> None:
            nonlocal most
            most = max(most, _private())

    tracemalloc.start()
    try:
        with anyio.fail_after(60):
            outputs = await model.predict(x, batch_size=100, callbacks=Watches())
            loss = await model.evaluate(x, y, batch_size=100, callbacks=Watches())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outputs.shape == (50_000, 1)
    assert loss == 0
    assert peak < 10e6
    assert 0 < most < before + 40e6


@pytest.mark.anyio
async def test_a_memory_map_is_checked_as_it_is_read(tmp_path: Path) -> None:
    path, model, (bus, seen) = tmp_path / "x.npy", small(), listening()
    np.save(path, X)
    mapped = np.load(path, mmap_mode="r+")
    np.testing.assert_array_equal(await model.predict(mapped), await model.predict(X))
    assert await model.evaluate(mapped, Y) == await model.evaluate(X, Y)
    mapped[19, 2] = np.inf
    mapped.flush()
    with pytest.raises(af.InvalidInput, match="x holds NaN or infinity in row 19"):
        await model.predict(mapped, batch_size=BATCH, bus=bus)
    end = whole(seen, "Predict", "failed")
    assert end.batches == 2
    assert isinstance(end.error, af.InvalidInput)
    wide = np.load(path, mmap_mode="r").astype(np.float64)
    wide[19, 2] = 1e300
    np.save(tmp_path / "wide.npy", wide)
    with pytest.raises(af.InvalidInput, match=r"x holds numbers too big for float32 .* in row 19"):
        await model.evaluate(np.load(tmp_path / "wide.npy", mmap_mode="r"), Y)


@pytest.mark.anyio
async def test_checking_a_big_array_beforehand_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ticks = small(), []
    tick = stepping.Stepping.tick
    scope = anyio.CancelScope()

    def ticked(self: Any) -> None:
        ticks.append(1)
        if len(ticks) == 3:
            anyio.from_thread.run_sync(scope.cancel)
            while not self._ended:
                time.sleep(0.001)
        tick(self)

    monkeypatch.setattr(stepping.Stepping, "tick", ticked)
    with anyio.fail_after(20), scope:
        await model.predict(np.zeros((2_000_000, 4), np.float32))
    assert scope.cancelled_caught
    assert len(ticks) == 3


# --- a model of one's own --------------------------------------------------------------------------------------------


class Watched(Linear):
    """Its test batches can be held up."""

    def __init__(self, at: int = -1) -> None:
        super().__init__()
        self.tested, self.reached, self.open = 0, threading.Event(), threading.Event()
        self._at = at

    def test_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Any:
        if self.tested == self._at:
            self.reached.set()
            assert self.open.wait(20)
        self.tested += 1
        return super().test_batch(x, y, sample_weight)


@pytest.mark.anyio
async def test_a_trainers_evaluate_publishes_too() -> None:
    trainer, (bus, seen) = af.Trainer(Linear()), listening()
    expected = await trainer.evaluate(TRAINER_X, TRAINER_Y, batch_size=2)
    with nothing_left(within=5):
        assert await trainer.evaluate(TRAINER_X, TRAINER_Y, batch_size=2, bus=bus) == expected
    end = whole(seen, "Evaluate")
    assert (end.batches, end.logs) == (3, expected)
    assert [event.logs for event in seen[1:-1]] == [
        Linear().test_batch(TRAINER_X[i : i + 2], TRAINER_Y[i : i + 2]) for i in (0, 2, 4)
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("listened", [False, True])
async def test_a_cancelled_evaluate_lets_go_of_the_model(steppings: list[Any], listened: bool) -> None:
    model, (bus, seen) = Watched(at=1), listening()
    trainer = af.Trainer(model)
    with anyio.fail_after(20), nothing_left(within=5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                lambda: trainer.evaluate(TRAINER_X, TRAINER_Y, batch_size=1, bus=bus if listened else None)
            )
            await until(model.reached.is_set)
            tasks.cancel_scope.cancel()
            await told(steppings[-1])
            model.open.set()
        assert model.tested == 2
        await trainer.fit(TRAINER_X, TRAINER_Y)
    assert not trainer._holders
    if listened:
        whole(seen, "Evaluate", "cancelled")


@pytest.mark.anyio
async def test_a_run_that_begins_waits_for_an_evaluate_of_the_live_model() -> None:
    model, (bus, seen) = Watched(at=1), listening()
    trainer = af.Trainer(model)
    expected = await af.Trainer(Linear()).evaluate(TRAINER_X, TRAINER_Y)
    found: list[Any] = []

    async def ask() -> None:
        found.append(await trainer.evaluate(TRAINER_X, TRAINER_Y, batch_size=1, bus=bus))

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until(model.reached.is_set)
            async with trainer.fit(TRAINER_X, TRAINER_Y, bus=bus):
                model.open.set()
    assert found[0]["loss"] == pytest.approx(expected["loss"])
    names = [event.type for event in seen if "Batch" not in event.type]
    assert names.index("TrainBegin") > names.index("EvaluateBegin")


@pytest.mark.anyio
async def test_beside_training_a_trainer_evaluates_a_copy() -> None:
    gate, (bus, seen) = Gate(at=1), listening()
    trainer = af.Trainer(Linear(gate))
    expected = await trainer.evaluate(TRAINER_X, TRAINER_Y)
    with anyio.fail_after(20), nothing_left(within=5):
        async with trainer.fit(TRAINER_X, TRAINER_Y, batch_size=2, epochs=2):
            gate.open.set()
            await trainer.evaluate(TRAINER_X, TRAINER_Y, bus=bus)
    assert "loss" in whole(seen, "Evaluate").logs
    assert expected


@pytest.mark.anyio
async def test_handlers_that_would_wait_for_themselves_are_told() -> None:
    trainer, told = af.Trainer(Linear()), []

    class Asks(af.Callback):
        async def on_evaluate_begin(self, event: af.EvaluateBegin) -> None:
            for what in (
                lambda: trainer.evaluate(TRAINER_X, TRAINER_Y),
                lambda: trainer.save("model.h5"),
                lambda: trainer.load("model.h5"),
                lambda: trainer.fit(TRAINER_X, TRAINER_Y),
            ):
                with pytest.raises(af.ModelBusy, match="Asks handles an event of an evaluate") as raised:
                    await what()
                told.append(str(raised.value))

        async def on_evaluate_end(self, event: af.EvaluateEnd) -> None:
            await trainer.evaluate(TRAINER_X, TRAINER_Y)
            await trainer.fit(TRAINER_X, TRAINER_Y)

    with anyio.fail_after(20):
        await trainer.evaluate(TRAINER_X, TRAINER_Y, callbacks=Asks())
    assert len(told) == 4


@pytest.mark.anyio
async def test_who_waits_for_the_model_takes_no_thread_from_who_uses_it() -> None:
    trainer, bus = af.Trainer(Linear()), af.EventBus()
    limiter = anyio.to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 2

    async def slow(event: af.EvaluateBatchEnd) -> None:
        await anyio.lowlevel.checkpoint()

    bus.subscribe(af.EvaluateBatchEnd, slow, overflow="block", buffer=1)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(lambda: trainer.evaluate(TRAINER_X, TRAINER_Y, batch_size=1, bus=bus))
    limiter.total_tokens = before

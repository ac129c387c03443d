"""`async with model.fit(…) as run`: what the body and the run do to each other."""

# ruff: noqa: PT012

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

import asyncfit as af
from asyncfit.data import FitPlan

from .helpers import Gate, Linear, X, Y, fit, nothing_left, until


class Mistake(Exception):
    """Made by a body."""


def breaks(at: int) -> Any:
    def before(model: Linear) -> None:
        if model.batches == at:
            raise ArithmeticError(f"batch {at}")

    return before


class Ends(af.Callback):
    """Keeps the TrainEnds."""

    def __init__(self) -> None:
        self.seen: list[af.TrainEnd] = []

    async def on_train_end(self, event: af.TrainEnd) -> None:
        await anyio.lowlevel.checkpoint()
        self.seen.append(event)


@pytest.mark.anyio
async def test_an_exception_of_the_body_cancels_the_run_and_leaves_as_itself() -> None:
    ends, mistake = Ends(), Mistake("mine")
    with nothing_left():
        with pytest.raises(Mistake) as raised:
            async with fit(epochs=10**6, callbacks=ends) as run:
                async for _ in run.events(af.BatchEnd):
                    raise mistake
        assert raised.value is mistake
        assert run.outcome == "cancelled"
        assert run.error is mistake
    (end,) = ends.seen
    assert (end.outcome, end.error) == ("cancelled", mistake)
    assert "mine" in end.reason


@pytest.mark.anyio
async def test_one_before_the_run_has_begun_leaves_no_events() -> None:
    ends, own = Ends(), af.Trainer(Linear())
    with pytest.raises(Mistake):
        async with own.fit(X, Y, callbacks=ends) as run:
            raise Mistake
    assert not ends.seen
    assert run.outcome == run.history.outcome == "cancelled"
    await own.fit(X, Y)


@pytest.mark.anyio
async def test_a_run_that_fails_cancels_the_body_and_its_exception_leaves() -> None:
    ends, left = Ends(), []
    with nothing_left():
        with pytest.raises(ArithmeticError, match="batch 4"):
            async with fit(Linear(breaks(4)), epochs=5, callbacks=ends):
                try:
                    await anyio.sleep_forever()
                except BaseException as error:
                    left.append(error)
                    raise
        assert isinstance(left[0], anyio.get_cancelled_exc_class())
    await anyio.lowlevel.checkpoint()  # it is not cancelled any longer
    assert [end.outcome for end in ends.seen] == ["failed"]
    assert ends.seen[0].step == 4


@pytest.mark.anyio
async def test_it_also_leaves_a_body_that_was_over() -> None:
    with pytest.raises(ArithmeticError, match="batch 4"):
        async with fit(Linear(breaks(4)), epochs=5):
            pass


@pytest.mark.anyio
async def test_a_cancelled_run_cancels_the_body() -> None:
    with pytest.raises(af.RunCancelled, match="enough") as raised:
        async with fit(epochs=10**6) as run:
            run.cancel("enough")
            await anyio.sleep_forever()
    assert raised.value.reason == "enough"
    await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["completes", "stops"])
async def test_a_run_that_ends_well_leaves_the_body_alone(how: str) -> None:
    async with fit(epochs=2 if how == "completes" else 10**6) as run:
        if how == "stops":
            run.stop()
        await run.wait()
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        finished = True
    assert finished
    assert run.outcome == ("completed" if how == "completes" else "stopped")


@pytest.mark.anyio
async def test_a_body_that_swallows_the_cancellation_hides_no_failure() -> None:
    with pytest.raises(ArithmeticError, match="batch 1"):
        async with fit(Linear(breaks(1))):
            try:
                await anyio.sleep_forever()
            except anyio.get_cancelled_exc_class():
                pass
    with anyio.move_on_after(0.01) as scope:  # and leaves nothing behind that a later timeout could trip over
        await anyio.sleep_forever()
    assert scope.cancelled_caught
    task = asyncio.current_task() if anyio.get_cancelled_exc_class() is asyncio.CancelledError else None
    assert task is None or task.cancelling() == 0


@pytest.mark.anyio
async def test_a_body_that_answers_the_cancellation_with_an_error_of_its_own() -> None:
    with pytest.raises(Mistake):
        async with fit(Linear(breaks(1))) as run:
            try:
                await anyio.sleep_forever()
            finally:
                raise Mistake
    assert isinstance(run.error, ArithmeticError)


@pytest.mark.anyio
async def test_the_wait_in_the_body_raises_what_the_block_raises() -> None:
    seen = []
    with pytest.raises(ArithmeticError):
        async with fit(Linear(breaks(1))) as run:
            try:
                await run.wait()
            except BaseException as error:
                seen.append(error)
                raise
    assert isinstance(seen[0], ArithmeticError | anyio.get_cancelled_exc_class())


@pytest.mark.anyio
async def test_a_body_that_is_cancelled_from_outside_cancels_the_run() -> None:
    gate = Gate(4)
    gate.open.set()
    with nothing_left(), anyio.CancelScope() as scope:
        async with fit(Linear(gate), epochs=10**6) as run:
            await until(gate.reached.is_set)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert run.outcome == "cancelled"
    assert run.error is None


@pytest.mark.anyio
async def test_a_cancellation_from_outside_while_the_run_fails() -> None:
    """Both reach the body at once: the scope outside gets its own cancellation, and nothing is left cancelled."""
    with anyio.CancelScope() as scope:
        async with fit(Linear(breaks(1)), callbacks=_Cancels(scope)) as run:
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert run.outcome == "failed"
    await anyio.lowlevel.checkpoint()


class _Cancels(af.Callback):
    def __init__(self, scope: anyio.CancelScope) -> None:
        self._scope = scope

    async def on_train_end(self, event: af.TrainEnd) -> None:
        self._scope.cancel()


@pytest.mark.anyio
async def test_a_deadline_around_the_block() -> None:
    with nothing_left(), pytest.raises(TimeoutError):
        with anyio.fail_after(0.02):
            async with fit(epochs=10**6):
                await anyio.sleep_forever()


@pytest.mark.anyio
async def test_a_deadline_while_the_block_waits_for_the_run() -> None:
    with nothing_left(), pytest.raises(TimeoutError):
        with anyio.fail_after(0.02):
            async with fit(epochs=10**6) as run:
                pass
    assert run.outcome == "cancelled"


@pytest.mark.anyio
@pytest.mark.parametrize("failing", ["outer", "inner"])
async def test_of_two_runs_in_nested_blocks_one_fails(failing: str) -> None:
    models = {name: Linear(breaks(4) if name == failing else lambda model: None) for name in ("outer", "inner")}
    with nothing_left(), pytest.raises(ArithmeticError, match="batch 4"):
        async with fit(models["outer"], epochs=10**6) as outer, fit(models["inner"], epochs=10**6) as inner:
            await anyio.sleep_forever()
    assert {outer.outcome, inner.outcome} == {"failed", "cancelled"}
    await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_both_of_two_runs_fail() -> None:
    with pytest.raises(ArithmeticError):
        async with fit(Linear(breaks(4)), epochs=9), fit(Linear(breaks(4)), epochs=9):
            await anyio.sleep_forever()
    await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_data_that_cannot_be_used_leaves_the_block_before_any_event() -> None:
    ends, own = Ends(), af.Trainer(Linear())
    with pytest.raises(ZeroDivisionError):
        async with own._fit("x", own.trainable, _Broken(), **_HOW | {"callbacks": [ends]}) as run:
            seen = [event async for event in run.events()]
    assert not ends.seen
    assert run.outcome == run.history.outcome == "failed"
    assert isinstance(run.error, ZeroDivisionError)
    assert "seen" not in locals() or not seen
    await own.fit(X, Y)


_HOW: dict[str, Any] = {
    "bus": None, "executor": "thread", "lookahead": 0, "seed": 0, "run_id": None, "drain_timeout": 1.0, "grace": 1.0,
}  # fmt: skip


class _Broken(FitPlan):
    """A plan whose data turns out to be unusable when it is read."""

    def __init__(self) -> None:
        names = ("rows", "validation", "split_at", "steps_per_epoch", "class_weight", "validation_steps")
        how: dict[str, Any] = dict.fromkeys(names)
        how |= {"epochs": 1, "initial_epoch": 0, "batch_size": 2, "shuffle": False, "validation_freq": 1}
        super().__init__(validation_batch_size=2, **how)

    def read(self, *args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError


@pytest.mark.anyio
async def test_a_stream_of_a_started_run_that_never_begins_comes_to_its_end() -> None:
    own = af.Trainer(Linear())
    async with anyio.create_task_group() as group:
        run = await own._fit("x", own.trainable, _Broken(), **_HOW | {"callbacks": []}).start(group)
        with anyio.fail_after(10):
            assert [event async for event in run.events()] == []
        with pytest.raises(ZeroDivisionError):
            await run.wait()
        assert [event async for event in run.events()] == []


@pytest.mark.anyio
async def test_what_may_be_asked_of_a_run_that_never_begins() -> None:
    """A snapshot is the model as it is, a stop and a pause change nothing."""
    own = af.Trainer(Linear())
    async with anyio.create_task_group() as group:
        run = await own._fit("x", own.trainable, _Broken(), **_HOW | {"callbacks": []}).start(group)
        run.stop()
        run.pause()
        run.set_learning_rate(0.5)
        with anyio.fail_after(10):
            assert (await run.snapshot()).step == 0
            await run.stop()
        assert run.outcome == "failed"


@pytest.mark.anyio
@pytest.mark.parametrize("interrupt", [SystemExit, KeyboardInterrupt])
async def test_what_no_handler_may_raise_ends_the_run_and_goes_on_its_way(interrupt: type[BaseException]) -> None:
    ends = Ends()

    class Quits(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            raise interrupt("now")

    with pytest.raises(interrupt, match="now"):
        await fit(epochs=5, callbacks=[Quits(), ends])
    assert [end.outcome for end in ends.seen] == ["failed"]


@pytest.mark.anyio
async def test_streams_of_the_run_end_with_its_block() -> None:
    async with anyio.create_task_group() as group:
        seen: list[af.Event] = []
        reading = anyio.Event()

        async def read(stream: af.EventStream[af.Event]) -> None:
            async for event in stream:
                seen.append(event)
                reading.set()
            seen.append(af.Event())

        with pytest.raises(Mistake):
            async with fit(epochs=10**6) as run:
                group.start_soon(read, run.events(af.EpochEnd, gate=True))
                await reading.wait()
                raise Mistake
        with anyio.fail_after(10):
            while not seen or seen[-1].run_id is not None:
                await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
async def test_a_gate_that_is_forgotten_in_a_body_is_released_by_its_end() -> None:
    with anyio.fail_after(10):
        async with fit(epochs=5) as run:
            stream = run.events(af.EpochEnd, gate=True)
            async for _ in stream:
                break
        assert run.history.epoch == [0, 1, 2, 3, 4]

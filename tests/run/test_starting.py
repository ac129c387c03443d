"""The ways to start a run, and what each gives back."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import warnings
from typing import Any

import anyio
import numpy as np
import pytest
import trio

import asyncfit as af
from asyncfit import layers

from .helpers import Gate, Linear, X, Y, fit, here, kinds, nothing_left, until, whole

here_too = contextvars.ContextVar("here_too", default="nowhere")


def trainer() -> af.Trainer:
    return af.Trainer(Linear())


# --- everywhere ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_await_gives_the_history() -> None:
    history = await fit(epochs=2)
    assert history.outcome == "completed"
    assert history.epoch == [0, 1]
    assert set(history.history) == {"loss", "learning_rate"}
    assert history.params["steps"] == 3


@pytest.mark.anyio
async def test_the_block_gives_the_live_run() -> None:
    with nothing_left():
        async with fit(epochs=2) as run:
            assert run.outcome is None
            seen = [event async for event in run.events()]
        whole(seen)
        assert run.outcome == run.history.outcome == "completed"
        assert all(event.run_id == run.id for event in seen)


@pytest.mark.anyio
async def test_nothing_is_published_before_the_body_suspends() -> None:
    """What was subscribed before has everything, in whatever order it looks at it."""
    async with fit() as run:
        first, second = run.events(), run.events(af.BatchEnd)
        one = [event async for event in first]
        assert [event.batch async for event in second] == [0, 1, 2]
    whole(one)


@pytest.mark.anyio
async def test_in_an_anyio_group() -> None:
    async with anyio.create_task_group() as group:
        run = await fit(epochs=2).start(group)
        seen = [event async for event in run.events()]
        assert (await run.wait()) is run.history
    whole(seen)


@pytest.mark.anyio
async def test_a_started_run_publishes_nothing_before_its_caller_suspends() -> None:
    async with anyio.create_task_group() as group:
        run = await fit().start(group)
        stream = run.events()
        await run.wait()
        whole([event async for event in stream])


@pytest.mark.anyio
async def test_what_fails_in_a_group_is_raised_by_wait_alone() -> None:
    def fails(model: Linear) -> None:
        raise ArithmeticError("no")

    async with anyio.create_task_group() as group:
        run = await fit(Linear(fails)).start(group)
        with pytest.raises(ArithmeticError, match="no"):
            await run.wait()
    assert run.outcome == "failed"


@pytest.mark.anyio
async def test_a_group_that_is_cancelled_takes_the_run_with_it() -> None:
    gate, free = Gate(2), trainer()
    free.trainable = Linear(gate)
    with nothing_left():
        async with anyio.create_task_group() as group:
            run = await free.fit(X, Y, batch_size=2, epochs=100).start(group)
            await until(gate.reached.is_set)
            group.cancel_scope.cancel()
            gate.open.set()
        assert run.outcome == "cancelled"
    await free.fit(X, Y)


@pytest.mark.anyio
async def test_start_soon_takes_fit_itself() -> None:
    own = trainer()
    async with anyio.create_task_group() as group:
        group.start_soon(own.fit, X, Y)
    assert own.history is not None
    assert own.history.outcome == "completed"


@pytest.mark.anyio
@pytest.mark.parametrize("group", [3, "group", object()])
async def test_start_refuses_what_is_no_group(group: Any) -> None:
    own = trainer()
    with pytest.raises(TypeError, match=r"a task group or a nursery"):
        await own.fit(X, Y).start(group)
    await own.fit(X, Y)


@pytest.mark.anyio
async def test_a_group_that_is_over_leaves_the_model_free() -> None:
    async with anyio.create_task_group() as group:
        pass
    own = trainer()
    with pytest.raises(RuntimeError):
        await own.fit(X, Y).start(group)
    await own.fit(X, Y)


@pytest.mark.anyio
async def test_one_that_is_dropped_says_where_it_was_made() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dropped = trainer().fit(X, Y)
        file, line = here()
        del dropped
        gc.collect()
    (warning,) = caught
    assert "trainer.fit(…) was never awaited" in str(warning.message)
    assert (warning.filename, warning.lineno) == (file, line - 1)


@pytest.mark.anyio
async def test_each_can_be_used_once() -> None:
    used = fit()
    await used
    for again in (lambda: used.__aenter__(), lambda: used.start(), lambda: used):
        with pytest.raises(af.NotStarted, match="used already; call it again"):
            await again()
    entered = fit()
    async with entered:
        pass
    with pytest.raises(af.NotStarted, match="used already"):
        await entered


@pytest.mark.anyio
async def test_events_before_entering_says_what_to_write() -> None:
    unused = fit()
    with pytest.raises(af.NotStarted, match=r"async with trainer\.fit\(…\) as run: … run\.events"):
        unused.events(af.EpochEnd)
    unused.close()


@pytest.mark.anyio
async def test_blocking_on_a_running_loop_says_to_await() -> None:
    with pytest.raises(RuntimeError, match=r"(asyncio|trio) runs in this thread.*await it"):
        fit().blocking()


@pytest.mark.anyio
async def test_two_models_side_by_side_and_one_at_a_time_each() -> None:
    one, other = trainer(), trainer()
    async with one.fit(X, Y, epochs=3) as first, other.fit(X, Y, epochs=3) as second:
        with pytest.raises(af.ModelBusy, match=f"run {first.id} is training this model"):
            await one.fit(X, Y)
        seen = [event async for event in first.events()]
        await second.wait()
    whole(seen)
    assert first.outcome == second.outcome == "completed"


@pytest.mark.anyio
async def test_a_run_works_in_a_copy_of_the_context_it_was_started_in() -> None:
    seen: dict[str, str] = {}

    def compute(model: Linear) -> None:
        seen["compute"] = here_too.get()

    def inline(event: af.BatchEnd) -> None:
        seen["inline"] = here_too.get()
        here_too.set("inline")

    async def one(event: af.BatchEnd) -> None:
        seen["one"] = here_too.get()
        here_too.set("one")

    async def two(event: af.BatchEnd) -> None:
        seen.setdefault("two", here_too.get())

    def in_thread(event: af.BatchEnd) -> None:
        seen.setdefault("thread", here_too.get())

    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, inline, inline=True)
    bus.subscribe(af.BatchEnd, one)
    bus.subscribe(af.BatchEnd, two)
    bus.subscribe(af.BatchEnd, in_thread, thread=True)
    here_too.set("caller")
    await fit(Linear(compute), bus=bus)
    assert here_too.get() == "caller"
    assert seen == {"compute": "caller", "inline": "inline", "one": "one", "two": "caller", "thread": "caller"}
    assert here_too.get() == "caller"


# --- on asyncio ------------------------------------------------------------------------------------------------------


def test_blocking_in_a_script() -> None:
    assert fit().blocking().outcome == "completed"


def test_asyncio_run() -> None:
    assert asyncio.run(fit()).outcome == "completed"


def test_create_task() -> None:
    async def main() -> None:
        task = asyncio.create_task(fit())
        assert (await task).outcome == "completed"

    asyncio.run(main())


def test_a_task_that_is_cancelled_before_it_began() -> None:
    async def main() -> None:
        own = trainer()
        task = asyncio.create_task(own.fit(X, Y))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await own.fit(X, Y)

    asyncio.run(main())


def test_gather_and_asyncio_groups_take_it() -> None:
    async def main() -> None:
        one, two = await asyncio.gather(fit(), fit())
        assert one.outcome == two.outcome == "completed"
        async with asyncio.TaskGroup() as group:
            task = group.create_task(fit())
            run = await fit().start(group)
        assert task.result().outcome == run.outcome == "completed"

    asyncio.run(main())


def test_an_asyncio_group_that_aborts_before_the_run_began() -> None:
    async def main() -> None:
        own = trainer()
        with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012
            async with asyncio.TaskGroup() as group:
                run = await own.fit(X, Y).start(group)
                raise ValueError("body")
        assert [type(e) for e in raised.value.exceptions] == [ValueError]
        assert run.outcome == "cancelled"
        with pytest.raises(af.RunCancelled):
            await run.wait()
        await own.fit(X, Y)

    with nothing_left():
        asyncio.run(main())


def test_an_asyncio_group_that_is_over_leaves_the_model_free() -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            pass
        own = trainer()
        with pytest.raises(RuntimeError):
            await own.fit(X, Y).start(group)
        await own.fit(X, Y)

    asyncio.run(main())


@pytest.mark.parametrize("use_uvloop", [False, True])
def test_the_loop_owns_a_run_that_is_started_without_a_group(use_uvloop: bool) -> None:
    async def main() -> None:
        run = await fit(epochs=2).start()
        gc.collect()
        assert (await run.wait()).epoch == [0, 1]

    with nothing_left():
        anyio.run(main, backend_options={"use_uvloop": use_uvloop})


@pytest.mark.parametrize("use_uvloop", [False, True])
@pytest.mark.parametrize("suspended", [False, True])
def test_a_loop_that_ends_cancels_the_runs_it_owns(
    use_uvloop: bool, suspended: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """`asyncio.run` returns while a run goes on: it is wound down as after any other cancellation."""
    gate, ends = Gate(4), []
    gate.open.set()
    own = af.Trainer(Linear(gate))

    class Watches(af.Callback):
        async def on_train_end(self, event: af.TrainEnd) -> None:
            await anyio.sleep(0.01)
            ends.append(event.outcome)

    async def main() -> af.Run:
        run = await own.fit(X, Y, batch_size=2, epochs=10**6, callbacks=Watches()).start()
        if suspended:
            await until(gate.reached.is_set)
        return run

    with nothing_left():
        run: af.Run = anyio.run(main, backend_options={"use_uvloop": use_uvloop})
        assert run.outcome == run.history.outcome == "cancelled"
        assert ends == (["cancelled"] if suspended else [])
        assert own._user is None
    assert not caplog.records


def test_an_async_generator_may_be_closed_by_another_task() -> None:
    """As servers do it with streamed answers."""

    async def main() -> None:
        own = trainer()

        async def stream() -> Any:
            async with own.fit(X, Y, batch_size=2, epochs=10**6) as run:
                runs.append(run)
                async for event in run.events(af.EpochEnd):
                    yield event

        runs: list[af.Run] = []
        events = stream()
        first = await asyncio.create_task(anext(events))
        assert first.epoch == 0
        await asyncio.create_task(events.aclose())
        assert runs[0].outcome == "cancelled"
        await own.fit(X, Y)

    with nothing_left():
        asyncio.run(main())


# --- on trio ---------------------------------------------------------------------------------------------------------


def test_in_a_nursery() -> None:
    async def main() -> None:
        own = trainer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(own.fit, X, Y)
        assert own.history is not None
        assert own.history.outcome == "completed"
        async with trio.open_nursery() as nursery:
            run = await own.fit(X, Y).start(nursery)
            assert kinds([event async for event in run.events(af.TrainEnd)]) == ["TrainEnd"]

    trio.run(main)


def test_on_trio_a_run_needs_an_owner() -> None:
    async def main() -> None:
        own = trainer()
        with pytest.raises(af.NotStarted, match=r"needs an owner: await trainer\.fit\(…\)\.start\(nursery\)"):
            await own.fit(X, Y).start()
        await own.fit(X, Y)

    trio.run(main)


def test_a_failure_that_nobody_waits_for_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fails(model: Linear) -> None:
        raise ArithmeticError("no")

    async def main() -> None:
        async with anyio.create_task_group() as group:
            await fit(Linear(fails), run_id="mine").start(group)

    anyio.run(main)
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "run mine failed, and nobody waits for it" in record.getMessage()


@pytest.mark.parametrize(
    "use",
    [
        lambda job: job[0],
        lambda job: list(job),
        lambda job: len(job),
        lambda job: float(job),
        lambda job: job > 0.5,
        lambda job: job <= 0.5,
        lambda job: 1 - job,
        lambda job: "loss" in job,
        np.asarray,
        lambda job: np.argmax(job, axis=1),
        lambda job: round(job, 3),
    ],
)
def test_who_forgot_to_await_is_told(use: Any) -> None:
    model = af.Sequential([layers.Input((2,)), layers.Dense(1)])
    job = model.predict(np.zeros((3, 2)))
    with pytest.raises(TypeError, match=r"model\.predict\(…\) has to be awaited first: `await model\.predict"):
        use(job)
    job.close()

"""A live run from other threads: what may be awaited there works there, and what may not is refused in words."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import pytest

import asyncfit as af
from asyncfit import layers
from asyncfit.signals import Signal
from asyncfit.testing import LoopbackExecutor, Scripted

rng = np.random.default_rng(0)
X = rng.standard_normal((64, 4)).astype(np.float32)
Y = (X[:, :1] > 0).astype(np.float32)


def made() -> af.Sequential:
    model = af.Sequential([layers.Input((4,)), layers.Dense(4, "relu"), layers.Dense(1, "sigmoid")], seed=1)
    model.compile("adam", "binary_crossentropy")
    return model


ASKS: list[tuple[str, Callable[[af.Sequential, af.Run, Any], Any]]] = [
    ("predict", lambda model, run, path: model.predict(X[:3]).blocking()),
    ("evaluate", lambda model, run, path: model.evaluate(X, Y).blocking()),
    ("save", lambda model, run, path: model.save(path / "m.h5").blocking()),
    ("snapshot", lambda model, run, path: anyio.run(run.snapshot)),
    ("wait", lambda model, run, path: anyio.run(run.wait)),
    ("stop", lambda model, run, path: anyio.run(_stopped, run)),
]


async def _stopped(run: af.Run) -> None:
    await run.stop("from a thread")


@pytest.mark.anyio
@pytest.mark.parametrize(("what", "ask"), ASKS, ids=[what for what, _ in ASKS])
@pytest.mark.parametrize("gated", [False, True])
async def test_another_thread_gets_its_answer(what: str, ask: Any, gated: bool, tmp_path: Any) -> None:
    """With a loop of its own, as `.blocking()` makes one."""
    model, bus = made(), af.EventBus()
    if gated:
        bus.subscribe(af.EpochEnd, lambda event: None, gate=True)
    answers: list[Any] = []
    with anyio.fail_after(30):
        async with model.fit(X, Y, epochs=100_000, bus=bus) as run:

            def thread() -> None:
                answers.append(ask(model, run, tmp_path))
                run.stop("answered")

            async with anyio.create_task_group() as group:
                group.start_soon(anyio.to_thread.run_sync, thread)
                if what == "wait":
                    run.stop("so that there is an end")
    assert len(answers) == 1
    assert run.outcome == "stopped"


@pytest.mark.anyio
async def test_a_handler_in_a_thread_may_predict() -> None:
    model, bus = made(), af.EventBus()
    shapes: list[tuple[int, ...]] = []
    bus.subscribe(af.EpochEnd, lambda event: shapes.append(model.predict(X[:3]).blocking().shape), thread=True)
    with anyio.fail_after(30):
        await model.fit(X, Y, epochs=3, bus=bus)
    assert shapes == [(3, 1)] * 3


@pytest.mark.anyio
async def test_what_belongs_into_the_loops_thread_says_so() -> None:
    model, bus = made(), af.EventBus()
    told: list[str] = []

    def elsewhere(event: af.EpochEnd) -> None:
        for attempt in (lambda: run.events(af.EpochEnd), lambda: bus.subscribe(af.EpochEnd, print)):
            with pytest.raises(RuntimeError, match="thread") as raised:
                attempt()
            told.append(str(raised.value))

    bus.subscribe(af.EpochEnd, elsewhere, thread=True, gate=True)
    with anyio.fail_after(30):
        async with model.fit(X, Y, epochs=1, bus=bus) as run:
            pass
    assert len(told) == 2
    assert len(bus.subscriptions) == 1


@pytest.mark.anyio
async def test_a_signal_is_heard_in_every_loop() -> None:
    signal, heard = Signal(), []
    ready = threading.Barrier(3, timeout=20)

    async def listen() -> None:
        async with anyio.create_task_group() as group:

            async def wait() -> None:
                await signal.wait()
                heard.append(threading.get_ident())

            group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(ready.wait)

    others = [threading.Thread(target=anyio.run, args=(listen,), kwargs={"backend": b}) for b in ("asyncio", "trio")]
    for other in others:
        other.start()
    await anyio.to_thread.run_sync(ready.wait)
    signal.set()
    for other in others:
        await anyio.to_thread.run_sync(other.join, 20)
        assert not other.is_alive()
    with anyio.fail_after(5):
        await signal.wait()
    assert len(set(heard)) == 2


@pytest.mark.anyio
async def test_of_two_rates_asked_for_the_last_one_holds() -> None:
    """However compute stands when it hears of them: between the first one's report and the second's arrival too."""
    for lookahead in (0, 1):
        for step in range(12):
            trainable = Scripted([1.0])
            bus, changes = af.EventBus(), list[af.LearningRateChanged]()
            bus.subscribe(af.EpochEnd, lambda event: None, gate=True)
            bus.subscribe(af.LearningRateChanged, changes.append)
            fit = af.Trainer(trainable).fit(
                np.zeros((8, 1)), batch_size=2, epochs=4, bus=bus, lookahead=lookahead, executor=LoopbackExecutor()
            )
            with anyio.fail_after(20):
                async with fit as run:
                    while run.progress.step < step:
                        await anyio.lowlevel.checkpoint()
                    run.set_learning_rate(0.5)
                    await anyio.lowlevel.checkpoint()
                    run.set_learning_rate(0.25)
            assert trainable.learning_rate == 0.25, (lookahead, step)
            assert changes[-1].value == 0.25, (lookahead, step)
            assert len({change.value for change in changes}) == len(changes)


@pytest.mark.anyio
@pytest.mark.parametrize("error", [GeneratorExit, StopIteration, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("method", ["train_batch", "test_batch"])
async def test_whatever_a_batch_raises_ends_the_run(method: str, error: type[BaseException]) -> None:
    trainable: Any = Scripted([1.0])

    def raises(x: Any, y: Any, sample_weight: Any = None) -> Any:
        raise error("from a batch")

    setattr(trainable, method, raises)
    trainer = af.Trainer(trainable)
    with anyio.fail_after(20):
        with pytest.raises((error, RuntimeError)) as raised:
            await trainer.fit(np.zeros((4, 1)), validation_data=(np.zeros((4, 1)),) * 2)
    assert "from a batch" in str(raised.value) or isinstance(raised.value.__cause__, error)
    assert trainer.history is not None
    assert trainer.history.outcome == "failed"


@pytest.mark.anyio
async def test_a_snapshot_of_an_earlier_run_is_of_the_same_model() -> None:
    model = made()
    async with model.fit(X, Y, epochs=1) as run:
        pass
    early = await run.snapshot()
    await model.fit(X, Y, epochs=2)
    bus = af.EventBus()
    bus.subscribe(af.EpochEnd, lambda event: event.restore_at_end(early), gate=True)
    await model.fit(X, Y, epochs=1, bus=bus)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), early.get_weights(), strict=True))
    model.compile("sgd", "mse")
    bus = af.EventBus()
    bus.subscribe(af.EpochEnd, lambda event: event.set_weights(early), gate=True)
    with pytest.raises(af.InvalidInput, match="of the model that is trained"):
        await model.fit(X, Y, epochs=1, bus=bus)

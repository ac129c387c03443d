"""Cancelling a run at every single step that any of its tasks takes: nothing hangs, leaks or is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import anyio
import numpy as np
import pytest
import trio

import asyncfit as af
from asyncfit.executors.thread import ThreadExecutor
from asyncfit.testing import LoopbackExecutor, Scripted

X, Y = np.zeros((6, 2)), np.zeros(6)


class Watcher(af.Callback):
    """Async hooks that suspend, gates among them."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def on_train_begin(self, event: af.TrainBegin) -> None:
        self.seen.append("TrainBegin")
        await anyio.lowlevel.checkpoint()

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        await anyio.lowlevel.checkpoint()
        self.seen.append("EpochEnd")
        if event.epoch == 0:
            event.set_learning_rate(0.5)

    async def on_batch_end(self, event: af.BatchEnd) -> None:
        await anyio.lowlevel.checkpoint()

    async def on_train_end(self, event: af.TrainEnd) -> None:
        await anyio.lowlevel.checkpoint()
        self.seen.append("TrainEnd")
        self.outcome = event.outcome


class Counted(Coroutine[Any, Any, Any]):
    """A coroutine whose suspensions are counted."""

    def __init__(self, inner: Coroutine[Any, Any, Any], step: Callable[[], None]) -> None:
        self._inner = inner
        self._step = step
        self.__name__ = getattr(inner, "__name__", "counted")

    def send(self, value: Any) -> Any:
        result = self._inner.send(value)
        self._step()
        return result

    def throw(self, *args: Any) -> Any:
        result = self._inner.throw(*args)
        self._step()
        return result

    def close(self) -> None:
        self._inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError


class Steps:
    """Cancels the main task when the tasks of the program have suspended so many times."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.cancel: Callable[[], object] | None = None
        self.hit = False

    def __call__(self) -> None:
        if self.cancel is None:
            return
        self.left -= 1
        if self.left == 0:
            self.hit = True
            self.cancel()


async def run_once(
    steps: Steps, host: Callable[[Any], Awaitable[None]], executor: Callable[[], Any] = LoopbackExecutor
) -> None:
    """One run, cancelled at the given step; checks all that must hold however far it came."""
    threads = set(threading.enumerate())
    watcher = Watcher()
    trainable = Scripted([3.0, 2.0, 1.0], [3.0, 2.0, 1.0])
    trainer = af.Trainer(trainable)
    ends: list[af.TrainEnd] = []
    begins: list[af.TrainBegin] = []
    bus = af.EventBus()
    bus.subscribe(af.TrainBegin, begins.append)
    bus.subscribe(af.TrainEnd, ends.append)
    fit = trainer.fit(
        X, Y, batch_size=2, epochs=3, validation_data=(X, Y), callbacks=watcher, bus=bus,
        executor=executor(), lookahead=1,
    )  # fmt: skip
    with anyio.fail_after(20):
        await host((steps, fit))
    assert trainer._user is None, "the model is free again"
    assert len(ends) == len(begins) <= 1, "one TrainEnd for each TrainBegin"
    if begins:
        assert ends[0].outcome == ("cancelled" if steps.hit and ends[0].outcome != "completed" else "completed")
        assert trainable.weights[0] == ends[0].step, "the model is in the state of TrainEnd.step"
        assert watcher.seen[-1] == "TrainEnd"
        assert watcher.seen.count("TrainEnd") == 1
    new = [
        t for t in threading.enumerate() if t not in threads and "AnyIO" not in t.name and "trio" not in t.name.lower()
    ]
    assert not new
    assert not bus._listeners


async def awaited(what: Any) -> None:
    steps, fit = what
    scope = anyio.CancelScope()
    with scope:
        steps.cancel = scope.cancel
        await fit
    steps.cancel = None


async def natively(what: Any) -> None:
    """Cancelled by asyncio itself, as `asyncio.timeout` and a server do it."""
    steps, fit = what
    task = asyncio.create_task(fit)
    steps.cancel = task.cancel
    await asyncio.wait([task])
    steps.cancel = None
    if task.cancelled():
        assert steps.hit
    else:
        task.result()


async def entered(what: Any) -> None:
    steps, fit = what
    with anyio.CancelScope() as scope:
        steps.cancel = scope.cancel
        async with fit as run:
            async for event in run.events(af.EpochEnd, gate=True):
                await anyio.lowlevel.checkpoint()
                assert event.run_id == run.id
    steps.cancel = None


async def started(what: Any) -> None:
    steps, fit = what
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            steps.cancel = scope.cancel
            run = await fit.start(group)
            await run.wait()
    steps.cancel = None


def every_step(run: Callable[[Steps], None]) -> int:
    """Runs with a cancel at step 1, 2, 3 … until a run ends before its step comes."""
    for at in range(1, 2000):
        steps = Steps(at)
        run(steps)
        if not steps.hit:
            return at
    raise AssertionError("the run takes more steps than that")


def on_asyncio(
    host: Callable[[Any], Awaitable[None]],
    use_uvloop: bool,
    executor: Callable[[], Any] = LoopbackExecutor,
    once: Callable[..., Awaitable[None]] = run_once,
) -> Callable[[Steps], None]:
    def run(steps: Steps) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()

            def factory(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> Any:
                return asyncio.Task(Counted(coro, steps), loop=loop, **kwargs)

            loop.set_task_factory(factory)
            await once(steps, host, executor)
            loop.set_task_factory(None)
            await anyio.lowlevel.checkpoint()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        anyio.run(main, backend="asyncio", backend_options={"use_uvloop": use_uvloop})

    return run


class Instrument(trio.abc.Instrument):
    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps()


def on_trio(
    host: Callable[[Any], Awaitable[None]],
    executor: Callable[[], Any] = LoopbackExecutor,
    once: Callable[..., Awaitable[None]] = run_once,
) -> Callable[[Steps], None]:
    def run(steps: Steps) -> None:
        async def main() -> None:
            trio.lowlevel.add_instrument(Instrument(steps))
            await once(steps, host, executor)

        trio.run(main, strict_exception_groups=True)

    return run


HOSTS = [pytest.param(awaited, id="await"), pytest.param(entered, id="block"), pytest.param(started, id="start")]


@pytest.mark.parametrize("host", [*HOSTS, pytest.param(natively, id="task.cancel")])
def test_at_every_step_on_asyncio(host: Callable[[Any], Awaitable[None]]) -> None:
    assert every_step(on_asyncio(host, False)) > 50


def test_at_every_step_on_uvloop() -> None:
    assert every_step(on_asyncio(natively, True)) > 50


@pytest.mark.parametrize("host", HOSTS)
def test_at_every_step_on_trio(host: Callable[[Any], Awaitable[None]]) -> None:
    assert every_step(on_trio(host)) > 50


@pytest.mark.parametrize("host", HOSTS)
def test_at_many_steps_with_compute_in_a_thread(host: Callable[[Any], Awaitable[None]]) -> None:
    for at in range(1, 100, 3):
        on_asyncio(host, at % 2 == 0, ThreadExecutor)(Steps(at))
        on_trio(host, ThreadExecutor)(Steps(at))


@pytest.mark.parametrize("use_uvloop", [False, True])
def test_a_timeout_around_fit_is_a_timeout(use_uvloop: bool) -> None:
    """Also when a gate hangs: its handler has the grace time, and no more."""

    class Hangs(af.Callback):
        cancelled = False

        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            try:
                await anyio.sleep_forever()
            finally:
                self.cancelled = True

    async def main() -> None:
        trainer, hangs = af.Trainer(Scripted([1.0])), Hangs()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await trainer.fit(X, Y, epochs=3, callbacks=hangs, grace=0.05)
        assert trainer.history is not None
        assert trainer.history.outcome == "cancelled"
        assert hangs.cancelled
        assert asyncio.all_tasks() == {asyncio.current_task()}

    anyio.run(main, backend_options={"use_uvloop": use_uvloop})

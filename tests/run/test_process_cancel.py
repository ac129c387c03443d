"""Runs in worker processes that are cancelled at many steps, torn down with their loop, or short of descriptors."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

import asyncfit as af
from asyncfit.executors.process import OwnProcess
from asyncfit.testing import Scripted

from .helpers import nothing_left
from .portable import Watched
from .test_cancel import Steps, Watcher, X, Y, awaited, natively, on_asyncio, on_trio, run_once, started
from .test_process import children, fit, no_process_left

pytestmark = pytest.mark.timeout(120)


async def two_in_a_pool(
    steps: Steps, host: Callable[[Any], Awaitable[None]], executor: Callable[[], Any] = OwnProcess
) -> None:
    trainable, ends = Scripted([3.0, 2.0]), list[af.TrainEnd]()
    trainer, bus = af.Trainer(trainable), af.EventBus()
    bus.subscribe(af.TrainEnd, ends.append)

    async def both() -> None:
        async with af.ProcessExecutor() as pool:
            for epochs in (2, 1):
                await trainer.fit(X, Y, batch_size=2, epochs=epochs, callbacks=Watcher(), executor=pool, bus=bus)

    with anyio.fail_after(20):
        await host((steps, both()))
    assert trainer._user is None
    assert trainable.weights[0] == sum(end.step for end in ends), "the model is in the state of TrainEnd.step"


@pytest.mark.parametrize("once", [run_once, two_in_a_pool])
def test_at_many_steps(once: Callable[..., Awaitable[None]]) -> None:
    before = children()
    for at in range(1, 90, 11):
        on_asyncio(natively, at % 2 == 0, OwnProcess, once)(Steps(at))
        on_trio(awaited, OwnProcess, once)(Steps(at + 2))
        if once is run_once:
            on_trio(started, OwnProcess, once)(Steps(at + 4))
        assert children() <= before


async def torn_down(what: Any) -> None:
    """All tasks of the loop are cancelled, as asyncio does when its main one has ended, and once more soon after."""
    steps, coro = what
    main, task = asyncio.current_task(), asyncio.create_task(coro)

    def cancel_all() -> None:
        for each in asyncio.all_tasks():
            if each is not main:
                each.cancel()

    def first() -> None:
        cancel_all()
        steps.left, steps.cancel = 3, cancel_all

    steps.cancel = first
    await asyncio.wait([task])
    steps.cancel = None


async def one(steps: Steps, host: Callable[[Any], Awaitable[None]], executor: Callable[[], Any] = OwnProcess) -> None:
    model, ends, bus = Scripted([3.0, 2.0]), list[af.TrainEnd](), af.EventBus()
    bus.subscribe(af.TrainEnd, ends.append)
    with nothing_left(), anyio.fail_after(30):
        await host(
            (steps, af.Trainer(model).fit(X, Y, batch_size=2, epochs=2, bus=bus, executor=executor(), grace=0.1))
        )
    for end in ends:
        assert model.weights[0] == end.step


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("once", [one, two_in_a_pool])
def test_a_loop_that_is_torn_down_leaves_no_process(once: Callable[..., Awaitable[None]]) -> None:
    before = children()
    for at in range(6, 60, 8):
        on_asyncio(torn_down, False, OwnProcess, once)(Steps(at))
        assert children() <= before
        gc.collect()  # tasks that were cancelled before they began warn here, where that is expected


class Keeps(af.Callback):
    def __init__(self) -> None:
        self.kept: list[af.Snapshot] = []

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        self.kept.append(event.model)
        if event.epoch == 1:
            event.set_weights(self.kept[0])


def test_whichever_descriptor_is_one_too_many_the_run_fails_and_leaves_nothing(tmp_path: Path) -> None:
    """At whatever place the system refuses: there is an error that says so, at once."""
    outcomes: list[str] = []

    async def with_so_many(free: int) -> None:
        model, keeps = Watched(tmp_path, floats=20_000), Keeps()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with no_process_left():
            filled: list[int] = []
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 50, hard))
            try:
                with anyio.fail_after(10):
                    try:
                        while True:
                            filled.append(os.dup(0))
                    except OSError:
                        pass
                    for _ in range(free):
                        os.close(filled.pop())
                    await fit(model, epochs=3, callbacks=keeps, lookahead=1)
                    outcomes.append("completed")
            except TimeoutError:
                raise
            except OSError as error:
                assert "oo many" in str(error) and "open" in str(error)  # noqa: PT018, PT017
                outcomes.append("OSError")
            except af.WorkerLost as error:
                assert "no worker process could be started" in str(error)  # noqa: PT017
                outcomes.append("WorkerLost")
            finally:
                for each in filled:
                    os.close(each)
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            keeps.kept.clear()
            del model
            gc.collect()

    async def main() -> None:
        await anyio.to_thread.run_sync(gc.collect)  # what the loop itself opens is open
        for free in range(1, 40, 2):
            await with_so_many(free)
            if outcomes[-1] == "completed":
                break

    anyio.run(main)
    assert set(outcomes) == {"OSError", "WorkerLost", "completed"}

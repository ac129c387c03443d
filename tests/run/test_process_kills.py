"""A worker that dies, at any moment: an error that says how, a whole stream of events, and nothing left behind.

`ASYNCFIT_KILLS=50` kills fifty workers in each state on each loop; the suite itself kills a few.
"""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

import asyncfit as af
from asyncfit import layers

from .helpers import kinds, until, whole
from .portable import Forks, Watched
from .test_process import children, fit, listening, no_process_left

KILLS = int(os.environ.get("ASYNCFIT_KILLS", "3"))

pytestmark = [pytest.mark.anyio, pytest.mark.in_turn, pytest.mark.timeout(60 + 10 * KILLS)]


class Gate(af.Callback):
    """Keeps boundaries open for a while, so that work is done ahead of them."""

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        await anyio.sleep(0.003)
        self.newest = event.model


class Saves(af.Callback):
    """Writes a file at each epoch's end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.saved = 0

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        await event.model.save(self.path)
        self.saved += 1


async def killed(run: af.Run, before: set[int], how: int = signal.SIGKILL) -> float:
    """Kill the worker; when that was."""
    (pid,) = children() - before
    os.kill(pid, how)
    return time.monotonic()


def started(before: set[int]) -> bool:
    return bool(children() - before)


def beyond(run: af.Run, step: int) -> bool:
    return run.progress.step > step


def told(events: list[af.Event], kind: str) -> bool:
    return kind in kinds(events)


def saved(saves: Saves) -> bool:
    return saves.saved > 1


def check(events: list[af.Event], run: af.Run, error: BaseException, batches: int) -> None:
    whole([event for event in events if event.run_id])
    end = events[-1]
    assert isinstance(end, af.TrainEnd)
    assert end.outcome == run.outcome == "failed"
    assert end.error is error is run.error
    assert end.step == batches, "the model is in the state of TrainEnd.step"


@pytest.mark.parametrize("gated", [False, True], ids=["ungated", "gated"])
@pytest.mark.parametrize("state", ["starting", "training", "paused"])
async def test_killed_while(state: str, gated: bool, tmp_path: Path) -> None:
    rng = random.Random(f"{state} {gated}")
    with no_process_left():
        for _ in range(KILLS):
            model = Watched(tmp_path, floats=rng.choice([2, 20_000]))
            bus, events = listening()
            before, callbacks = children(), [Gate()] if gated else []
            run, at = None, 0.0
            with pytest.raises(af.WorkerLost, match="ended by signal 9") as caught:  # noqa: PT012
                async with fit(
                    model, epochs=10**6, bus=bus, callbacks=callbacks, lookahead=rng.randrange(3), validation_data=None
                ) as run:
                    await until(partial(started, before))
                    if state != "starting":
                        await until(partial(beyond, run, 3))
                    if state == "paused":
                        run.pause()
                        await until(partial(told, events, "RunPaused"))
                    await anyio.sleep(rng.random() * (0.3 if state == "starting" else 0.05))
                    at = await killed(run, before)
                    await anyio.sleep_forever()
            assert time.monotonic() - at < 1
            assert caught.value.signal == signal.SIGKILL
            assert run is not None
            check(events, run, caught.value, model.batches)
            assert not model.ballast[0] % 3, "at the end of an epoch"
            for callback in callbacks:
                vars(callback).clear()


async def test_killed_in_validation(tmp_path: Path) -> None:
    rng = random.Random(1)
    x, y = np.ones((60, 2)), np.ones(60)
    with no_process_left():
        for kill in range(KILLS):
            folder = tmp_path / str(kill)
            folder.mkdir()
            model = Watched(folder)
            at = rng.randrange(90)
            (folder / f"wait-test-{at}").touch()
            bus, events = listening()
            before = children()
            run = None
            with pytest.raises(af.WorkerLost) as caught:  # noqa: PT012
                async with fit(model, epochs=10**6, bus=bus, validation_data=(x, y)) as run:
                    await until((folder / f"test-{at}").exists)
                    await killed(run, before)
                    await anyio.sleep_forever()
            assert run is not None
            check(events, run, caught.value, model.batches)


async def test_killed_while_a_file_is_written(tmp_path: Path) -> None:
    rng = random.Random(2)
    x, y = np.ones((64, 40), np.float32), np.ones(64, np.float32)
    with no_process_left():
        for _ in range(KILLS):
            model = af.Sequential([layers.Input((40,)), layers.Dense(300, "relu"), layers.Dense(1)], seed=1)
            model.compile("adam", "mse")
            saves = Saves(tmp_path / "model.h5")
            bus, events = listening()
            before = children()
            run = None
            with pytest.raises(af.WorkerLost) as caught:  # noqa: PT012
                async with model.fit(x, y, epochs=10**6, bus=bus, callbacks=saves, executor="process") as run:
                    await until(partial(saved, saves))
                    await anyio.sleep(rng.random() * 0.03)
                    await killed(run, before)
                    await anyio.sleep_forever()
            assert run is not None
            assert model.optimizer is not None
            check(events, run, caught.value, model.optimizer.iterations)
            assert os.listdir(tmp_path) == ["model.h5"]
            again = await af.load_model(tmp_path / "model.h5")
            assert again.count_params() == model.count_params()
            events.clear()


@pytest.mark.parametrize(
    ("what", "words", "number"),
    [("exit", "exit code 7", (7, None)), ("crash", "signal 11 [(]SIGSEGV[)]", (None, signal.SIGSEGV))],
)
async def test_how_it_ended_is_told(what: str, words: str, number: Any, tmp_path: Path) -> None:
    (tmp_path / f"{what}-batch-4").touch()
    model = Watched(tmp_path)
    bus, events = listening()
    with no_process_left(), pytest.raises(af.WorkerLost, match=words) as caught:
        await fit(model, epochs=4, bus=bus)
    assert (caught.value.exitcode, caught.value.signal) == number
    assert model.batches == 3
    whole(events)


async def test_gates_that_are_out_when_it_dies_are_let_go(tmp_path: Path) -> None:
    class Holds(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            os.kill(next(iter(children() - before)), signal.SIGKILL)
            await anyio.sleep_forever()

    before = children()
    bus, events = listening()
    with no_process_left(), anyio.fail_after(10), pytest.raises(af.WorkerLost):
        await fit(Watched(tmp_path), epochs=4, bus=bus, callbacks=Holds(), grace=0.1)
    whole(events)


async def test_what_was_undone_is_not_what_is_left(tmp_path: Path) -> None:
    """Reports of work ahead that were under way when it was undone are of no account."""

    class Decides(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            if event.epoch == 0:
                while not (tmp_path / "batch-11").exists():  # nobody is to hear of it meanwhile
                    time.sleep(0.002)  # noqa: ASYNC251
                event.set_learning_rate(0.5)
            if event.epoch == 5:
                os.kill(next(iter(children() - before)), signal.SIGKILL)
                await anyio.sleep_forever()

    before, model = children(), Watched(tmp_path)
    bus, events = listening()
    with no_process_left(), pytest.raises(af.WorkerLost):
        await fit(model, epochs=60, callbacks=Decides(), lookahead=3, grace=0.1, bus=bus)
    end = events[-1]
    assert isinstance(end, af.TrainEnd)
    assert end.step == model.batches == 15, "the end of epoch 4"
    assert model.learning_rate == 0.5


async def test_killed_while_a_process_of_its_own_lives_on() -> None:
    with no_process_left(), anyio.fail_after(10), pytest.raises(af.WorkerLost, match="signal 9"):
        await fit(Forks(), epochs=4)


async def test_others_of_a_pool_go_on(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "wait-batch-2").touch()
    with no_process_left():
        async with af.ProcessExecutor(workers=2) as executor, anyio.create_task_group() as group:
            runs = [
                await fit(Watched(tmp_path / name), epochs=3, executor=executor).start(group) for name in ("one", "two")
            ]
            for name in ("one", "two"):
                await until((tmp_path / name / "batch-2").exists)
            os.kill(int((tmp_path / "one" / "batch-2").read_text()), signal.SIGKILL)
            with pytest.raises(af.WorkerLost):
                await runs[0].wait()
            (tmp_path / "two" / "wait-batch-2").unlink()
            assert (await runs[1].wait()).outcome == "completed"
            assert (await fit(Watched(tmp_path), executor=executor)).outcome == "completed", "a new worker"

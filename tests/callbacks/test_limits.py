"""Runs that end at a time or at a signal, to be continued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

import asyncfit as af
from asyncfit.callbacks import EarlyStopping, StopOnSignal, TimeLimit
from tests.run.helpers import Gate, Linear, fit, nothing_left, until

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Iterator[None]:
    before = [signal.getsignal(number) for number in HANDLED]
    yield
    assert [signal.getsignal(number) for number in HANDLED] == before


async def forever(**how: Any) -> af.History:
    """A run that only something from outside ends."""
    with nothing_left(), anyio.fail_after(20):
        return await fit(**{"epochs": 10**9} | how)


@pytest.mark.anyio
async def test_a_time_limit_stops_within_an_epoch_and_resumably() -> None:
    ends: list[af.TrainEnd] = []
    stops: list[af.StopRequested] = []
    bus = af.EventBus()
    bus.subscribe(af.TrainEnd, ends.append)
    bus.subscribe(af.StopRequested, stops.append)
    history = await forever(callbacks=TimeLimit(0.05), bus=bus)
    assert (history.outcome, history.reason) == ("stopped", "the time limit of 0.05 s is reached")
    assert ends[0].resumable
    assert [stop.who for stop in stops] == ["TimeLimit"]


@pytest.mark.anyio
async def test_the_clock_runs_while_the_run_is_paused() -> None:
    gate = Gate(at=1)
    with anyio.fail_after(20):
        async with fit(Linear(gate), epochs=10**9, callbacks=TimeLimit(0.1)) as run:
            await until(gate.reached.is_set)
            run.pause()
            gate.open.set()
    assert run.reason == "the time limit of 0.1 s is reached"


@pytest.mark.anyio
async def test_a_run_that_is_done_before_leaves_no_clock() -> None:
    with nothing_left():
        history = await fit(callbacks=TimeLimit(1000))
    assert history.outcome == "completed"


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan"), "soon", True])
def test_a_time_limit_is_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(af.InvalidInput, match="seconds=…"):
        TimeLimit(seconds)


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_first_signal_stops_resumably(number: signal.Signals) -> None:
    bus = af.EventBus()
    ends: list[af.TrainEnd] = []
    stops: list[str] = []
    bus.subscribe(af.TrainEnd, ends.append)
    bus.subscribe(af.StopRequested, lambda event: stops.append(event.who))
    bus.subscribe(af.BatchEnd, lambda event: os.kill(os.getpid(), number), where=lambda event: event.step == 20)
    history = await forever(callbacks=StopOnSignal(), bus=bus)
    assert (history.outcome, history.reason) == ("stopped", f"{number.name} was received")
    assert ends[0].resumable
    assert stops == ["StopOnSignal"]


@pytest.mark.anyio
async def test_the_second_signal_cancels_and_the_third_goes_on() -> None:
    class Stuck(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGUSR1)
            await anyio.sleep_forever()

    others: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: others.append(number))
    try:
        with pytest.raises(af.RunCancelled, match="SIGUSR1 was received"):
            await forever(callbacks=[StopOnSignal(signal.SIGUSR1), Stuck()], grace=0.05)
        assert others == [signal.SIGUSR1]
        os.kill(os.getpid(), signal.SIGUSR1)
        assert len(others) == 2, "put back"
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.anyio
async def test_all_runs_hear_a_signal_and_the_handler_stays_until_the_last_has_ended() -> None:
    def endless() -> af.Fit:
        return fit(epochs=10**9, callbacks=StopOnSignal(signal.SIGUSR1))

    async with endless() as one, endless() as two:
        await until(lambda: min(one.progress.step, two.progress.step) > 3)
        two.stop("by itself")
        await two.wait()
        os.kill(os.getpid(), signal.SIGUSR1)
        await one.wait()
    assert (one.reason, two.reason) == ("SIGUSR1 was received", "by itself")

    async with endless() as one, endless() as two:
        await until(lambda: min(one.progress.step, two.progress.step) > 3)
        os.kill(os.getpid(), signal.SIGUSR1)
    assert one.reason == two.reason == "SIGUSR1 was received"


@pytest.mark.anyio
@pytest.mark.parametrize("error", [ArithmeticError, SystemExit])
async def test_a_failing_run_puts_the_handlers_back(error: type[BaseException]) -> None:
    class Fails(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            assert signal.getsignal(signal.SIGTERM) is not before
            raise error

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(error):
        await forever(callbacks=[StopOnSignal(), Fails()])


@pytest.mark.anyio
async def test_the_state_of_the_best_epoch_and_a_signal_go_together() -> None:
    bus = af.EventBus()
    bus.subscribe(af.EpochEnd, lambda event: os.kill(os.getpid(), signal.SIGTERM), where=lambda e: e.epoch == 2)
    callbacks = [EarlyStopping("loss", patience=10**6, restore_best_weights=True), StopOnSignal()]
    assert (await forever(callbacks=callbacks, bus=bus)).reason == "SIGTERM was received"


def test_another_thread_is_refused_before_any_batch() -> None:
    model, errors = Linear(), []

    def train() -> None:
        try:
            fit(model, callbacks=StopOnSignal()).blocking()
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=train, name="worker 7")
    thread.start()
    thread.join(20)
    assert len(errors) == 1
    assert "StopOnSignal: Python handles signals in the main thread only, and this run is in thread 'worker 7'" in str(
        errors
    )
    assert model.batches == 0


@pytest.mark.anyio
async def test_a_signal_that_is_named_twice_is_heard_once() -> None:
    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, lambda event: signal.raise_signal(signal.SIGUSR1), where=lambda event: event.step == 20)
    history = await forever(callbacks=StopOnSignal(signal.SIGUSR1, signal.SIGUSR1), bus=bus)
    assert (history.outcome, history.reason) == ("stopped", "SIGUSR1 was received")


@pytest.mark.parametrize("given", [signal.SIGKILL, 0, 4000, "SIGINT", None, True])
def test_a_signal_that_nobody_can_handle_is_refused(given: Any) -> None:
    with pytest.raises(af.InvalidInput, match="StopOnSignal takes signals that can be handled"):
        StopOnSignal(given)


PROGRAM = """
import os, signal, sys
import numpy as np
import asyncfit as af
from asyncfit.callbacks import StopOnSignal
from asyncfit.testing import Scripted

class Third(af.Callback):
    async def on_epoch_end(self, event):
        for _ in range(int(sys.argv[1])):
            os.kill(os.getpid(), signal.SIGTERM)

x = np.zeros((4, 1))
try:
    history = af.Trainer(Scripted([1.0])).fit(x, x, epochs=10**9, callbacks=[StopOnSignal(), Third()]).blocking()
    print(history.outcome)
except af.RunCancelled:
    print("cancelled")
"""


@pytest.mark.parametrize(("times", "out", "code"), [(1, "stopped", 0), (2, "cancelled", 0), (3, "", -signal.SIGTERM)])
def test_a_whole_program(times: int, out: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(times)], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.returncode) == (out, code), done.stderr

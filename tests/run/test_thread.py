"""The thread executor: wake-ups are few, and no report is left behind by that."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import anyio
import pytest

from asyncfit.compute import Work
from asyncfit.executors.thread import GATHER, ThreadWorker
from asyncfit.protocol import BatchBegun, End, Ended, TrainBegun

from .helpers import Gate, Linear, X, Y, fit, nothing_left, until


class Rows:
    """Three batches an epoch."""

    def steps(self, epoch: int) -> int:
        return 3

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, Any, Any, int]]:
        for batch in range(start, 3):
            yield X[batch * 2 : batch * 2 + 2], Y[batch * 2 : batch * 2 + 2], None, 2


def begun(batch: int, when: float) -> BatchBegun:
    return BatchBegun(0, when, 0, batch, batch, False, None)


@pytest.mark.anyio
async def test_what_comes_right_after_a_wake_up_waits_for_no_other_report() -> None:
    gate = Gate(0)
    with nothing_left(), anyio.fail_after(10):
        worker = ThreadWorker(Work(trainable=Linear(gate), data=Rows(), epochs=1, params={}))
        try:
            await worker.wait()
            assert isinstance(worker.reports.popleft(), TrainBegun)
            for _ in range(3):
                now = time.time() + 2 * GATHER
                worker._report(begun(0, now))  # wakes
                await worker.wait()
                worker._report(begun(1, now + GATHER / 2))  # does not, and compute is busy for long
                while len(worker.reports) < 2:
                    await worker.wait()
                worker.reports.clear()
            while worker._gathering:
                await worker.wait()
            with anyio.move_on_after(4 * GATHER) as idle:  # and then it sleeps
                await worker.wait()
            assert idle.cancelled_caught
            gate.open.set()
        finally:
            worker.send(End())
            gate.open.set()
            while not any(isinstance(report, Ended) for report in worker.reports):
                await worker.wait()
            await worker.aclose()


@pytest.mark.anyio
async def test_giving_it_up_ends_the_thread_after_its_batch() -> None:
    gate = Gate(0)
    model = Linear(gate)
    with nothing_left():
        worker = ThreadWorker(Work(trainable=model, data=Rows(), epochs=10**6, params={}))
        assert gate.reached.wait(10)
        threading.Timer(0.01, gate.open.set).start()
        await worker.aclose()
        worker.wake()  # may come late, from a signal handler
    assert model.batches == 1


class Keeps(Linear):
    """A model in plain Python: its thread never gives the interpreter's lock up by itself."""

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        total = 0
        for number in range(200_000):
            total += number
        return super().train_batch(x, y, sample_weight)


@pytest.mark.anyio
async def test_who_keeps_the_interpreters_lock_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async with fit(Keeps(), epochs=10**9) as run:
        await until(lambda: "Keeps keeps the interpreter's lock" in caplog.text)
        run.stop()
    assert 'executor="process"' in caplog.text
    assert caplog.text.count("interpreter's lock") == 1

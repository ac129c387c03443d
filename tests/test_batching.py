"""Rows gathered into batches."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import numpy as np
import pytest
import trio

import asyncfit as af
from asyncfit.jobs import running_library

from .run.helpers import Gate, Linear, nothing_left, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


class Rows:
    """Rows that come when they are let through."""

    def __init__(self, most: int = 1000) -> None:
        self.most, self.taken = most, 0
        self.cancelled = False
        self.closed = 0
        self.send, self._receive = anyio.create_memory_object_stream[None](1000)

    def let(self, count: int) -> None:
        for _ in range(count):
            self.send.send_nowait(None)

    async def __call__(self) -> AsyncIterator[Any]:
        try:
            with anyio.CancelScope():  # must be left in the task that it was entered in
                while self.taken < self.most:
                    await self._receive.receive()
                    self.taken += 1
                    yield np.full(3, self.taken), self.taken
        except BaseException as error:
            self.cancelled = self.cancelled or not isinstance(error, GeneratorExit)
            raise
        finally:
            self.closed += 1
            self.send.close()
            self._receive.close()


def numbers(batch: Any) -> list[int]:
    x, y = batch
    assert (x[:, 0] == y).all()
    return [int(number) for number in y]


async def test_rows_of_an_async_iterator() -> None:
    rows = Rows(10)
    rows.let(10)
    with nothing_left():
        assert [numbers(batch) async for batch in af.batches(rows(), 4)] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    assert (rows.closed, rows.cancelled) == (1, False)


async def test_what_takes_too_long_comes_as_a_smaller_batch_and_cancels_nothing() -> None:
    rows = Rows(9)
    with nothing_left():
        async with af.batches(rows(), 4, max_wait=0.02) as gathered:
            rows.let(6)
            assert numbers(await anext(gathered)) == [1, 2, 3, 4]
            assert numbers(await anext(gathered)) == [5, 6]
            rows.let(1)
            assert numbers(await anext(gathered)) == [7]
            with anyio.move_on_after(0.03) as waits:
                await anext(gathered)
            assert waits.cancelled_caught  # not one row, so not one batch; and who waits may be cancelled
            rows.let(1)
            await until(lambda: rows.taken == 8)
            assert numbers(await anext(gathered)) == [8]
            rows.let(1)
            assert numbers(await anext(gathered)) == [9]
            with pytest.raises(StopAsyncIteration):
                await anext(gathered)
            assert not rows.cancelled
    assert rows.closed == 1


async def test_rows_that_were_gathered_survive_a_cancellation() -> None:
    send, receive = anyio.create_memory_object_stream[int](10)
    async with af.batches(receive, 3) as gathered:
        send.send_nowait(1)
        with anyio.move_on_after(0.02):
            await anext(gathered)
        send.send_nowait(2)
        send.send_nowait(3)
        assert (await anext(gathered)).tolist() == [1, 2, 3]
        await send.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(gathered)
    assert receive.statistics().open_receive_streams == 0


@pytest.mark.parametrize("max_wait", [None, 5.0])
async def test_streams_and_queues(max_wait: float | None) -> None:
    send, receive = anyio.create_memory_object_stream[Any](10)
    for number in range(5):
        send.send_nowait(([number] * 3, number, 1.0))
    send.close()
    got = [batch async for batch in af.batches(receive, 2, max_wait=max_wait)]
    assert [batch[0].shape for batch in got] == [(2, 3), (2, 3), (1, 3)]
    assert [len(batch) for batch in got] == [3, 3, 3]
    receive.close()
    if running_library() == "trio":
        out, into = trio.open_memory_channel[Any](10)
        for number in range(3):
            out.send_nowait(number)
        out.close()
        assert [batch.tolist() async for batch in af.batches(into, 2, max_wait=max_wait)] == [[0, 1], [2]]
        return
    waiting: asyncio.Queue[Any] = asyncio.Queue()
    for number in range(4):
        waiting.put_nowait(number)
    gathered = af.batches(waiting, 2, max_wait=max_wait)
    assert [(await anext(gathered)).tolist() for _ in range(2)] == [[0, 1], [2, 3]]


@pytest.mark.parametrize("max_wait", [None, 5.0])
async def test_what_the_source_raises_goes_through(max_wait: float | None) -> None:
    async def rows() -> AsyncIterator[int]:
        yield 1
        raise LookupError("no more")

    with nothing_left():
        async with af.batches(rows(), 2, max_wait=max_wait) as gathered:
            with pytest.raises(LookupError):
                await anext(gathered)


@pytest.mark.parametrize("max_wait", [None, 0.01])
@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_a_run_on_gathered_rows(executor: str, max_wait: float | None) -> None:
    rows = Rows()
    rows.let(6)
    model = af.Sequential([af.layers.Input((3,)), af.layers.Dense(1)], seed=1)
    model.compile(loss="mse")
    sizes: list[int] = []
    bus = af.EventBus()
    bus.on(af.BatchEnd)(lambda event: sizes.append(event.size))
    with nothing_left(), anyio.fail_after(20):
        async with model.fit(
            af.batches(rows(), 4, max_wait=max_wait), steps_per_epoch=100, bus=bus, executor=executor
        ) as run:
            await until(lambda: run.progress.step == (2 if max_wait else 1))
            run.stop("enough")
    assert sizes[0] == 4
    assert sum(sizes) == (6 if max_wait else 4)
    assert rows.closed == 1


async def test_a_run_takes_no_more_than_it_can_train_on() -> None:
    gate, rows = Gate(1), Rows()
    rows.let(100)
    pairs = _pairs(rows())
    with nothing_left():
        async with af.Trainer(Linear(gate)).fit(af.batches(pairs, 3), steps_per_epoch=9) as run:
            assert await anyio.to_thread.run_sync(gate.reached.wait, 20)
            await until(lambda: rows.taken == 9)  # a batch is done, one in hand, one ahead
            for _ in range(20):
                await anyio.lowlevel.checkpoint()
            assert rows.taken == 9
            run.stop("enough")
            gate.open.set()


async def _pairs(rows: Any) -> AsyncIterator[Any]:
    async with aclosing(rows):
        async for x, y in rows:
            yield x[:2], y


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([(1, 2), (3,)], "all rows are alike"),
        ([(1, 2), 3], "all rows are alike"),
        ([1, (2, 3)], "some rows are tuples"),
        ([[1, 2], [3]], r"x of a row has shape \(1,\)"),
        ([(1, 2, 3, 4)] * 2, "each row is x"),
    ],
)
async def test_rows_that_are_not_alike_are_refused(rows: list[Any], says: str) -> None:
    async def given() -> AsyncIterator[Any]:
        for row in rows:
            yield row

    async with af.batches(given(), 2) as gathered:
        with pytest.raises(af.InvalidInput, match=says):
            await anext(gathered)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: af.batches([1, 2], 2), "not a list"),
        (lambda: af.batches(queue.Queue(), 2), "not a Queue; use asyncio.Queue"),
        (lambda: af.batches(_Endless(), 0), "size=0"),
        (lambda: af.batches(_Endless(), 2, max_wait=0), "max_wait=0"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, says: str) -> None:
    with pytest.raises(af.InvalidInput, match=says):
        make()


class _Endless:
    def __aiter__(self) -> Any:
        return self

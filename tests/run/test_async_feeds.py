"""Runs on async iterators: read on the loop, with backpressure, and closed in the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest

import asyncfit as af
from asyncfit import callbacks
from asyncfit.executors import memory, remote, thread
from asyncfit.feeding import AT_ONCE
from asyncfit.protocol import Fed
from asyncfit.testing import LoopbackExecutor

from .helpers import Gate, Linear, nothing_left, until, whole
from .test_feeds import BATCHES, Halves, X, Y, by_rows, made, stop_at

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


class Source:
    """An async generator that can be held up; it knows what was taken, where, and how it ended."""

    def __init__(self, batches: int | None = None, waits_at: int | None = None) -> None:
        self.batches, self.taken, self.waits_at = batches, 0, waits_at
        self.waiting, self.go_on = anyio.Event(), anyio.Event()
        self.threads: set[int] = set()
        self.closed = 0

    async def __call__(self) -> AsyncGenerator[Any]:
        try:
            while self.batches is None or self.taken < self.batches:
                self.threads.add(threading.get_ident())
                if self.taken == self.waits_at:
                    self.waiting.set()
                    await self.go_on.wait()
                await anyio.lowlevel.checkpoint()
                self.taken += 1
                yield BATCHES[(self.taken - 1) % 5]
        finally:
            self.closed += 1
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()


@pytest.mark.in_turn
@pytest.mark.parametrize("executor", ["thread", "process", "loopback"])
@pytest.mark.parametrize("prefetch", [0, 1, 3])
async def test_the_same_bits_as_from_arrays(executor: str, prefetch: int) -> None:
    expected = await by_rows(validation_data=(X, Y), validation_batch_size=16, callbacks=[Halves()])
    source, held = Source(), Source()
    runner: Any = LoopbackExecutor() if executor == "loopback" else executor
    with nothing_left():
        history = await made().fit(
            source(), steps_per_epoch=5, epochs=3, executor=runner, prefetch=prefetch, callbacks=[Halves()],
            validation_data=held(), validation_steps=5,
        )  # fmt: skip
    assert history.history == expected
    assert (source.taken, held.taken) == (15, 15)
    assert (source.closed, held.closed) == (1, 1)
    assert source.threads == held.threads == {threading.get_ident()}


async def test_what_has_a_length_is_iterated_anew() -> None:
    class Sized:
        begun = 0

        def __len__(self) -> int:
            return 5

        async def __aiter__(self) -> AsyncIterator[Any]:
            self.begun += 1
            for batch in BATCHES:
                yield batch

    sized = Sized()
    with nothing_left():
        assert (await made().fit(sized, epochs=3)).history == await by_rows()
    assert sized.begun == 3
    sized.begun = 0
    parts = await made().fit(sized, epochs=4, steps_per_epoch=3)  # 3, 2, 3 and 2
    assert parts.history == (await made().fit(BATCHES, epochs=4, steps_per_epoch=3, shuffle=False)).history
    assert sized.begun == 2
    assert await made().evaluate(sized) == await made().evaluate(X, Y, batch_size=16)


async def test_memory_streams_with_backpressure() -> None:
    send, receive = anyio.create_memory_object_stream[Any](0)
    sent = 0

    async def feed() -> None:
        nonlocal sent
        async with send:
            for batch in BATCHES * 2:
                await send.send(batch)
                sent += 1

    gate = Gate(2)
    with nothing_left():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(feed)
            async with af.Trainer(Linear(gate)).fit(_pairs(aiter(receive)), steps_per_epoch=5, epochs=9) as run:
                assert await anyio.to_thread.run_sync(gate.reached.wait, 20)
                await until(lambda: sent == 4)  # two done, one in hand, one ahead
                for _ in range(50):
                    await anyio.lowlevel.checkpoint()
                assert sent == 4
                gate.open.set()
    assert (run.outcome, run.reason) == ("stopped", "data ended")
    assert run.progress.step == 10
    await receive.aclose()


@pytest.mark.in_turn
@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("how", ["stop", "cancel", "scope", "block", "pause"])
async def test_a_run_that_waits_for_data_can_be_asked_for_everything(how: str, executor: str) -> None:
    source = Source(waits_at=3)
    seen: list[af.Event] = []
    bus = af.EventBus()
    bus.on(af.Event)(seen.append)
    model = made()

    async def ask(run: af.Run) -> None:
        await source.waiting.wait()
        await until(lambda: run.progress.step == 3)
        assert (await model.predict(X[:2])).shape == (2, 1)
        assert (await run.snapshot()).step == 3
        run.set_learning_rate(0.5)
        await until(lambda: any(isinstance(event, af.LearningRateChanged) for event in seen))
        if how == "stop":
            run.stop("enough")
        elif how == "cancel":
            run.cancel("enough")
        elif how == "block":
            raise ZeroDivisionError
        elif how == "pause":
            run.pause()
            await until(lambda: any(isinstance(event, af.RunPaused) for event in seen))
            source.go_on.set()
            await until(lambda: source.taken >= 4)
            assert run.progress.step == 3
            run.resume()

    with nothing_left(), anyio.fail_after(30):
        with anyio.CancelScope() as scope:
            try:
                async with model.fit(source(), steps_per_epoch=5, epochs=2, bus=bus, executor=executor) as run:
                    await ask(run)
                    if how == "scope":
                        scope.cancel()
                        await anyio.lowlevel.checkpoint()
            except (af.RunCancelled, ZeroDivisionError):
                assert how in ("cancel", "block")
    assert source.closed == 1
    mine = [event for event in seen if event.run_id is not None]
    whole(mine)
    end = mine[-1]
    assert isinstance(end, af.TrainEnd)
    assert end.outcome == {"stop": "stopped", "pause": "completed"}.get(how, "cancelled")
    assert end.step == (10 if how == "pause" else 3)
    assert end.unread == 0


async def test_waiting_wakes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(waits_at=2)
    async with made().fit(source(), steps_per_epoch=5, bus=af.EventBus()) as run:
        await source.waiting.wait()
        await until(lambda: run.progress.step == 2)
        worker: Any = run._worker
        await anyio.sleep(0.05)
        woken = 0
        wait = worker.wait

        async def counted() -> None:
            nonlocal woken
            await wait()
            woken += 1

        monkeypatch.setattr(worker, "wait", counted)
        await anyio.sleep(0.1)
        assert woken <= 1
        source.go_on.set()


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("ends", ["go on", "stop", "cancel"])
async def test_a_long_wait_holds_no_thread(own: bool, ends: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread, "LEAVE", 0.01)
    source, held = Source(waits_at=7), Source(waits_at=3)

    def computing() -> list[threading.Thread]:
        return [one for one in threading.enumerate() if one.name == "asyncfit compute"]

    threads = set[int]()
    model: Any = af.Trainer(Linear(lambda model: threads.add(threading.get_ident()))) if own else made()
    pairs = _pairs(source()) if own else source()
    how: dict[str, Any] = {} if own else {"validation_data": held(), "validation_steps": 5}
    with nothing_left(), anyio.fail_after(20):
        try:
            async with model.fit(pairs, steps_per_epoch=5, epochs=2, **how) as run:
                if not own:  # it waits amid a validation as well
                    await held.waiting.wait()
                    await until(lambda: not computing())
                    held.go_on.set()
                await source.waiting.wait()
                await until(lambda: run.progress.step == 7)
                if own:
                    await anyio.sleep(0.05)
                    assert len(computing()) == 1
                else:
                    await until(lambda: not computing())
                    assert (await run.snapshot()).step == 7  # what is asked for is done in another one
                    await until(lambda: not computing())
                if ends == "go on":
                    source.go_on.set()
                else:
                    getattr(run, ends)("enough")
        except af.RunCancelled:
            assert ends == "cancel"
    assert run.progress.step == (10 if ends == "go on" else 7)
    assert len(threads) == own
    if not own and ends == "go on":
        expected = await by_rows(epochs=2, validation_data=(X, Y), validation_batch_size=16)
        assert run.history.history == expected


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_what_the_source_raises_leaves_fit_as_itself(executor: str) -> None:
    broken = LookupError("no more")

    async def batches() -> AsyncIterator[Any]:
        yield BATCHES[0]
        yield BATCHES[1]
        raise broken

    ends: list[af.TrainEnd] = []
    bus = af.EventBus()
    bus.on(af.TrainEnd)(ends.append)
    with nothing_left(), pytest.raises(LookupError) as caught:
        await made().fit(batches(), steps_per_epoch=5, bus=bus, executor=executor)
    assert caught.value is broken
    assert (ends[0].outcome, ends[0].step) == ("failed", 2)
    with nothing_left(), pytest.raises(af.InvalidInput, match="batch 0 of x has no y"):
        await made().fit(_one(X), steps_per_epoch=5, executor=executor)


async def _pairs(batches: Any) -> AsyncIterator[Any]:
    async with aclosing(batches):
        async for x, y in batches:
            yield x[:, :2], y


async def _one(item: Any) -> AsyncIterator[Any]:
    yield item


async def test_an_error_of_the_source_goes_before_one_of_its_closing() -> None:
    class Batches:
        def __aiter__(self) -> Batches:
            return self

        async def __anext__(self) -> Any:
            raise LookupError("no more")

        async def aclose(self) -> None:
            raise OSError("cannot close")

    class Read:
        def __iter__(self) -> Read:
            return self

        def __next__(self) -> Any:
            raise LookupError("no more")

        def close(self) -> None:
            raise OSError("cannot close")

    for source in (Batches, Read):
        with nothing_left(), pytest.raises(LookupError) as caught:
            await made().fit(source(), steps_per_epoch=5)
        assert any("cannot close" in note for note in caught.value.__notes__)
        with nothing_left(within=5), pytest.raises(LookupError):
            await made().evaluate(source())
    with nothing_left(), pytest.raises(LookupError) as caught:
        await made().predict(Batches())
    assert any("cannot close" in note for note in caught.value.__notes__)


async def test_a_source_may_leave_a_scope_open_at_the_end_of_a_pass() -> None:
    async def batches() -> AsyncIterator[Any]:
        with anyio.CancelScope():
            for batch in BATCHES:
                yield batch

    with nothing_left(within=5):
        with anyio.move_on_after(30) as scope:
            for _ in range(3):
                assert (await made().predict(batches(), steps=2)).shape == (32, 1)
            await anyio.lowlevel.checkpoint()
        assert not scope.cancelled_caught


async def test_a_pass_whose_source_awaits_a_cancelled_task(anyio_backend_name: str) -> None:
    if anyio_backend_name == "trio":
        pytest.skip("trio has no tasks to await")

    async def batches() -> AsyncIterator[Any]:
        yield BATCHES[0]
        task = asyncio.ensure_future(asyncio.sleep(0))
        task.cancel()
        await task

    for work in (made().predict, made().evaluate):
        with nothing_left(within=5), pytest.raises(RuntimeError, match="x awaited a task that was cancelled"):
            await work(batches())


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_a_run_that_waits_for_what_it_validates_on_shows_its_state(executor: str) -> None:
    model, source = made(), Source(waits_at=1)

    async def predicts() -> AsyncIterator[Any]:
        async with aclosing(source()) as batches:
            async for x, y in batches:
                await model.predict(x)  # of the model that is being validated
                yield x, y

    with nothing_left(), anyio.fail_after(30):
        async with model.fit(
            X, Y, batch_size=16, validation_data=predicts(), validation_steps=3, executor=executor
        ) as run:
            await source.waiting.wait()
            snapshot = await run.snapshot()
            source.go_on.set()
            history = await run.wait()
    assert snapshot.step == 5
    for mine, last in zip(snapshot.get_weights(), model.get_weights(), strict=True):
        assert (mine == last).all()
    assert len(history.history["val_loss"]) == 1


async def test_a_validation_that_is_shorter_than_it_says() -> None:
    class Short:
        def __len__(self) -> int:
            return 4

        async def __aiter__(self) -> AsyncIterator[Any]:
            yield BATCHES[0]

    with nothing_left(), pytest.raises(RuntimeError, match=r"ended after 1 of 4 batches.*validation_steps="):
        await made().fit(X, Y, validation_data=Short())


async def test_what_closing_it_raises_is_told_too() -> None:
    async def batches() -> AsyncIterator[Any]:
        try:
            while True:
                yield BATCHES[0]
        finally:
            raise OSError("cannot close")

    with nothing_left(), pytest.raises(OSError, match="cannot close"):
        await made().fit(batches(), steps_per_epoch=5)


@pytest.mark.parametrize(
    "kind", ["train_begin", "epoch_begin", "batch_begin", "batch_end", "validation_end", "epoch_end"]
)
@pytest.mark.parametrize("how", ["stop", "cancel"])
async def test_a_run_that_ends_at_any_event_leaves_nothing(kind: str, how: str) -> None:
    source, held = Source(), Source()

    class Ends(af.Callback):
        gates = "batch"

    async def hook(self: Any, event: Any) -> None:
        run = runs[0]
        run.stop("enough") if how == "stop" else run.cancel("enough")

    setattr(Ends, f"on_{kind}", hook)
    runs: list[af.Run] = []
    with nothing_left(), anyio.fail_after(20):
        try:
            async with made().fit(
                source(), steps_per_epoch=3, epochs=3, callbacks=[Ends()], validation_data=held(), validation_steps=2
            ) as run:
                runs.append(run)
        except af.RunCancelled:
            assert how == "cancel"
    assert source.closed == bool(source.taken)
    assert held.closed == bool(held.taken)


async def test_the_data_ends() -> None:
    for batches in (0, 7, 10):
        source = Source(batches)
        with nothing_left():
            history = await made().fit(source(), steps_per_epoch=5, epochs=9)
        assert (history.outcome, history.reason) == ("stopped", "data ended")
        assert history.epoch == list(range(batches // 5))
        assert source.closed == 1


async def test_large_batches_are_checked_off_the_loop() -> None:
    asked: set[int] = set()

    class Lazy:
        ndim = 2

        def __array__(self, *args: Any, **kwargs: Any) -> Any:
            asked.add(threading.get_ident())
            return X

    rows = AT_ONCE // 40 + 100
    x = np.ones((rows, 5), "f8")
    x[7] = np.nan
    with nothing_left(), pytest.raises(af.InvalidInput, match="row 7"):
        await made().fit(_one((x, np.ones(rows))), steps_per_epoch=1)
    await made().fit(_one((Lazy(), Y)), steps_per_epoch=1)
    assert threading.get_ident() not in asked


async def test_evaluate_and_predict_hold_no_thread_while_they_wait() -> None:
    model = made()
    figures, outputs = await model.evaluate(X, Y, batch_size=16), await model.predict(X, batch_size=16)
    with nothing_left():
        source = Source(5, waits_at=3)
        ends: list[Any] = []
        bus = af.EventBus()
        bus.on(af.PredictBatchEnd)(lambda event: ends.append(event.batch))
        async with anyio.create_task_group() as tasks:

            async def let_it_go_on() -> None:
                await source.waiting.wait()
                assert limiter.borrowed_tokens == 0
                await until(lambda: ends == [0, 1, 2])
                source.go_on.set()

            limiter = anyio.to_thread.current_default_thread_limiter()
            tasks.start_soon(let_it_go_on)
            assert (await model.predict(source(), bus=bus) == outputs).all()
        assert source.closed == 1
        for steps in (None, 5):
            source = Source(None if steps else 5)
            assert await model.evaluate(source(), steps=steps) == figures
            assert source.closed == 1
        assert (await model.predict(Source()(), steps=2) == outputs[:32]).all()
        async with model.fit(X, Y) as run:
            snapshot = await run.snapshot()
        assert await snapshot.evaluate(Source(5)(), None) == await snapshot.evaluate(X, Y, batch_size=16)


@pytest.mark.parametrize("listened", [False, True])
async def test_cancelling_a_pass_closes_its_source(listened: bool) -> None:
    source = Source(waits_at=2)
    how: dict[str, Any] = {"bus": af.EventBus()} if listened else {}
    with nothing_left(), anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: made().evaluate(source(), **how))
            await source.waiting.wait()
            tasks.cancel_scope.cancel()
    assert source.closed == 1


async def test_it_goes_on_where_the_data_goes_on(tmp_path: Any) -> None:
    how: dict[str, Any] = {"epochs": 3, "seed": 4, "steps_per_epoch": 5}
    expected = await made().fit(Source()(), **how)
    source = Source()
    first = await made().fit(source(), callbacks=[callbacks.BackupAndRestore(tmp_path)], bus=stop_at(7), **how)
    assert first.outcome == "stopped"
    rest = Source()
    rest.taken = 8
    again = await made().fit(rest(), callbacks=[callbacks.BackupAndRestore(tmp_path)], resume_data="continue", **how)
    assert again.history == expected.history


@pytest.mark.in_turn
@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_large_batches_are_packed_off_the_loop(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[int] = []
    dumps = memory.dumps

    def noted(obj: Any, *more: Any) -> Any:
        if isinstance(obj, Fed):
            packed.append(threading.get_ident())
        return dumps(obj, *more)

    monkeypatch.setattr(memory, "dumps", noted)
    monkeypatch.setattr(remote, "dumps", noted)
    rows = AT_ONCE // 20 + 100
    batch = np.ones((rows, 5), "f4"), np.ones(rows, "f4")

    async def batches() -> AsyncIterator[Any]:
        for _ in range(4):
            yield batch

    with nothing_left():
        data = batches() if kind == "async" else iter([batch] * 4)
        history = await made().fit(data, steps_per_epoch=2, epochs=2, executor="process")
    assert history.history == (await made().fit(iter([batch] * 4), steps_per_epoch=2, epochs=2)).history
    assert len(packed) == 4
    assert threading.get_ident() not in packed
    outcome = ""
    with nothing_left():  # what was packed and not sent is closed
        try:
            async with made().fit(iter([batch] * 99), steps_per_epoch=50, prefetch=9, executor="process") as run:
                await until(lambda: run.progress.step > 3)
                run.cancel()
        except af.RunCancelled:
            outcome = "cancelled"
    assert outcome == "cancelled"


@pytest.mark.parametrize("waits", [False, True])
async def test_an_iterator_that_is_no_generator_is_closed_with_time_to_do_so(waits: bool) -> None:
    class Socket:
        taken = 0
        closed = False

        def __init__(self) -> None:
            self.waiting = anyio.Event()

        def __aiter__(self) -> Socket:
            return self

        async def __anext__(self) -> Any:
            if waits and self.taken == 3:
                self.waiting.set()
                await anyio.sleep_forever()
            self.taken += 1
            return BATCHES[0]

        async def aclose(self) -> None:
            await anyio.lowlevel.checkpoint()
            self.closed = True

    socket = Socket()
    with nothing_left(), anyio.fail_after(20):
        async with made().fit(socket, steps_per_epoch=100, epochs=None) as run:
            if waits:
                await socket.waiting.wait()
            await until(lambda: run.progress.step >= 3)
            run.stop("enough")
    assert socket.closed


async def test_a_generator_may_yield_within_scopes_of_its_own() -> None:
    async def batches() -> AsyncIterator[Any]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            with anyio.CancelScope():
                while True:
                    yield BATCHES[0]

    for prefetch in (0, 3):
        with nothing_left(), anyio.fail_after(20):
            async with made().fit(batches(), steps_per_epoch=100, epochs=None, prefetch=prefetch) as run:
                await until(lambda: run.progress.step >= 3)
                run.stop("enough")
        assert run.outcome == "stopped"

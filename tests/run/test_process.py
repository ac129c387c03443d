"""The process executor: the same events, decisions and bits as in a thread, and nothing of it is left behind."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

import asyncfit as af
from asyncfit import layers
from asyncfit.data import FitPlan
from asyncfit.executors import child, remote
from asyncfit.pool import SharedState

from .helpers import Linear, X, Y, kinds, nothing_left, until, whole
from .portable import Asks, CannotGoBack, Halve, Names, PickledOnce, RaisesUnusual, Stumbles, Watched, forked
from .test_bits import Case, made, trained

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]


def children(parent: int | None = None) -> set[int]:
    """Processes of ours that live, or that nobody has waited for.

    Asked of each process: `/proc/*/task/*/children` misses some when a thread ends meanwhile.
    """
    found, parent = set(), parent or os.getpid()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                fields = (process / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            if int(fields[1]) == parent:
                found.add(int(process.name))
    return found


@contextmanager
def no_process_left() -> Iterator[None]:
    before = children()
    with nothing_left():
        yield
    assert children() <= before


def fit(model: Any, **how: Any) -> af.Fit:
    return af.Trainer(model).fit(X, Y, **{"batch_size": 2, "shuffle": False, "executor": "process", **how})


def listening(*kinds_: type[af.Event]) -> tuple[af.EventBus, list[af.Event]]:
    bus, events = af.EventBus(), list[af.Event]()
    bus.subscribe(*(kinds_ or (af.Event,)), events.append, overflow="block")
    return bus, events


async def test_the_same_bits_as_in_a_thread() -> None:
    thread = await trained(Case(1, 0, 0))
    with no_process_left():
        assert await trained(Case(1, 3, 1, process=True)) == thread
        assert await trained(Case(0, 0, 0, process=True)) == thread
        assert await trained(Case(3, 0, 1, batch_gate=True, process=True)) == thread


async def test_the_same_events_in_the_same_order() -> None:
    streams = []
    for executor in ("thread", "process"):
        bus, events = listening()
        await fit(Linear(), executor=executor, epochs=3, validation_data=(X, Y), bus=bus, seed=3)
        whole(events)
        told = [{**event.to_dict(), "time": 0, "run_id": 0} for event in events]
        params = told[0].pop("params")
        assert params["executor"] == executor
        assert params.pop("memory") >= params["state_bytes"]  # a process takes more
        streams.append((told, {**params, "executor": ""}))
    assert streams[0] == streams[1]


async def test_at_the_end_the_model_here_has_the_state_from_there() -> None:
    model = Linear()
    history = await fit(model, epochs=4)
    other = Linear()
    await fit(other, epochs=4, executor="thread")
    assert history.outcome == "completed"
    assert np.array_equal(model.w, other.w)
    assert model.batches == 12


async def test_large_states_come_in_memory_of_their_own_and_go_back(tmp_path: Path) -> None:
    class Best(af.Callback):
        kept: list[af.Snapshot]

        async def on_train_begin(self, event: af.TrainBegin) -> None:
            self.kept = []

        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            self.kept.append(event.model)
            if event.epoch == 1:
                event.restore_at_end(event.model)
            if event.epoch == 3:
                event.set_weights(self.kept[0])

    model = Watched(tmp_path, floats=20_000)
    best = Best()
    with no_process_left():
        await fit(model, epochs=6, callbacks=best)
        assert all(isinstance(snapshot._state, SharedState) for snapshot in best.kept)
        steps = [snapshot.state()["ballast"][0] for snapshot in best.kept]
        assert steps == [3, 6, 9, 12, 6, 9], (
            "set_weights went back by two epochs: all of a Trainable's state is weights"
        )
        assert model.ballast[0] == 6, "the state of epoch 1 was restored at the end"
        best.kept.clear()
        gc.collect()


async def test_hundreds_of_snapshots_may_be_kept(tmp_path: Path) -> None:
    class Keeps(af.Callback):
        kept: list[af.Snapshot]

        async def on_train_begin(self, event: af.TrainBegin) -> None:
            self.kept = []

        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            self.kept.append(event.model)
            if event.epoch == 100:
                event.set_weights(event.model if event.epoch % 2 else self.kept[90])

    keeps, before = Keeps(), len(os.listdir("/proc/self/fd"))
    with no_process_left():
        async with fit(Watched(tmp_path, floats=4000), epochs=200, callbacks=keeps, lookahead=1) as run:
            await until(lambda: run.outcome)
            assert len(os.listdir("/proc/self/fd")) - before < 100
        steps = [snapshot.state()["ballast"][7] for snapshot in keeps.kept]
        assert steps == [3 * (n + 1 if n <= 100 else n - 9) for n in range(200)]
        keeps.kept.clear()


async def test_a_process_that_we_forked_delays_nothing() -> None:
    """It has a copy of our end of the socket, so the worker sees no end of it by itself."""

    class Forks(af.Callback):
        async def on_train_begin(self, event: af.TrainBegin) -> None:
            self.child = forked(60)

        async def on_train_end(self, event: af.TrainEnd) -> None:
            self.ended = time.monotonic()

    forks = Forks()
    try:
        await fit(Linear(), callbacks=forks)
        assert time.monotonic() - forks.ended < child.EXIT
    finally:
        os.kill(forks.child, signal.SIGKILL)
        os.waitpid(forks.child, 0)  # noqa: ASYNC222  # it is dead


async def test_predictions_and_snapshots_beside_it(tmp_path: Path) -> None:
    model = made()
    x = np.zeros((90, 6), np.float32)
    with no_process_left():
        async with model.fit(x, x[:, 0], epochs=100_000, executor="process") as run:
            await until(lambda: run.progress.step > 20)
            assert (await model.predict(x)).shape == (90, 1)
            snapshot = await run.snapshot()
            assert snapshot.step > 20
            assert "epoch" in repr(run)
            run.stop("enough")
        assert (await snapshot.predict(x)).shape == (90, 1)
        assert run.history.outcome == "stopped"
        del snapshot


async def test_steering_works_as_in_a_thread(tmp_path: Path) -> None:
    bus, events = listening()
    async with fit(Linear(), epochs=10**6, bus=bus) as run:
        run.pause()  # before the first batch
        run.resume()
        await until(lambda: run.progress.step > 10)
        run.set_learning_rate(0.5)
        run.pause()
        await until(lambda: "RunPaused" in kinds(events[2:]))
        step = -1
        while run.progress.step != step:  # the batch in flight
            step = run.progress.step
            await anyio.sleep(0.2)
        run.resume()
        await until(lambda: run.progress.step > step)
        run.stop()
    await until(lambda: events[-1].type == "TrainEnd")
    whole(events)
    changed = next(event for event in events if isinstance(event, af.LearningRateChanged))
    assert changed.value == 0.5


async def test_what_a_batch_raises_comes_out_as_itself(tmp_path: Path) -> None:
    (tmp_path / "raise-batch-4").touch()
    bus, events = listening()
    model = Watched(tmp_path)
    with no_process_left(), pytest.raises(ArithmeticError, match="at batch 4") as caught:
        await fit(model, epochs=4, bus=bus)
    assert "in the worker process" in caught.value.__notes__[-1]
    assert "portable.py" in caught.value.__notes__[-1]
    whole(events)
    end = events[-1]
    assert isinstance(end, af.TrainEnd)
    assert (end.outcome, end.step) == ("failed", 4)
    assert model.batches == 4


async def test_an_exception_that_cannot_travel_comes_in_words() -> None:
    with no_process_left(), pytest.raises(af.AsyncFitError, match="Unusual: unusual: 1, 2"):
        await fit(RaisesUnusual(), epochs=4)


async def test_an_array_of_a_snapshot_stays_what_it_was(tmp_path: Path) -> None:
    """Though the snapshot is dropped, and memory goes round."""

    class Keeps(af.Callback):
        kept: list[Any]

        async def on_train_begin(self, event: af.TrainBegin) -> None:
            self.kept = []

        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            self.kept.append(event.model.state()["ballast"][5:])

    keeps = Keeps()
    with no_process_left():
        await fit(Watched(tmp_path, floats=20_000), epochs=9, callbacks=keeps, lookahead=2)
        assert [array[0] for array in keeps.kept] == [array[-1] for array in keeps.kept] == list(range(3, 30, 3))
        keeps.kept.clear()


async def test_figures_may_have_names_of_any_kind() -> None:
    for name in (np.str_("accuracy"), ("accuracy", 1), 7):
        logs = []
        for executor in ("thread", "process"):
            bus, events = listening(af.BatchEnd, af.EpochEnd)
            with no_process_left():
                await fit(Names(name), epochs=2, executor=executor, bus=bus)
            logs.append([(event.type, dict(event.logs)) for event in events])  # type: ignore[attr-defined]
        assert logs[0] == logs[1]
        assert logs[0][0][1][name] == 1.5


async def test_compute_that_ends_with_an_error_leaves_nothing_for_the_next_run(tmp_path: Path) -> None:
    """A run's reports all come before its last one, and a model that cannot go back has its newest whole state."""

    class Decides(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            if event.epoch == 2:
                await until((tmp_path / "batch-10").exists)
                event.set_learning_rate(0.5)

    (tmp_path / "raise-batch-10").touch()
    model, (bus, events) = CannotGoBack(tmp_path), listening()
    with no_process_left():
        async with af.ProcessExecutor() as executor:
            with pytest.raises(OSError, match="cannot go back"):
                await fit(model, epochs=9, callbacks=Decides(), executor=executor, bus=bus, lookahead=3)
            whole(events)
            end = events[-1]
            assert isinstance(end, af.TrainEnd)
            assert model.batches == end.step
            bus, events = listening()
            async with fit(Linear(), epochs=1, executor=executor, bus=bus) as run:
                pass
            whole(events)
            assert run.progress.step == 3


async def test_a_run_in_a_worker_that_was_used_tells_its_progress() -> None:
    async with af.ProcessExecutor() as executor:
        for _ in range(3):
            async with fit(Linear(), epochs=1, executor=executor, steps_per_epoch=1) as run:
                pass
            assert run.progress.step == 1


async def test_waiting_for_the_last_handlers_costs_nothing(tmp_path: Path) -> None:
    class Dawdles(af.Callback):
        async def on_train_end(self, event: af.TrainEnd) -> None:
            os.kill(next(iter(children() - before)), signal.SIGKILL)
            began = time.process_time()
            await anyio.sleep(0.3)
            self.used = time.process_time() - began

    before, dawdles = children(), Dawdles()
    with no_process_left():
        assert (await fit(Linear(), callbacks=dawdles)).outcome == "completed"
    assert dawdles.used < 0.2


# --- what may go there -----------------------------------------------------------------------------------------------


async def test_what_cannot_go_there_is_refused_when_fit_is_called() -> None:
    class Inner(Linear):
        pass

    for model in (Inner(), Linear(before=lambda model: None)):
        with pytest.raises(af.InvalidInput, match=r"cannot compute in a process of its own.*factory="):
            fit(model)
    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, lambda event: None, inline=True)
    with pytest.raises(af.InvalidInput, match=r"inline.*process of its own.*make it a gate"):
        fit(Linear(), bus=bus)

    class Looks(af.Callback):
        @af.inline
        def on_batch_end(self, event: af.BatchEnd) -> None:
            pass

    with pytest.raises(af.InvalidInput, match=r"Looks\.on_batch_end is inline"):
        fit(Linear(), callbacks=Looks())


async def test_inline_handlers_that_come_later_are_refused_or_named(caplog: pytest.LogCaptureFixture) -> None:
    bus, seen = af.EventBus(), list[af.Event]()
    late = fit(Linear(), bus=bus)
    handler = bus.subscribe(af.BatchEnd, seen.append, inline=True)
    with pytest.raises(af.InvalidInput, match="process of its own"):
        await late
    handler.cancel()
    async with fit(Linear(), epochs=10**6, bus=bus, lookahead=1) as run:
        await until(lambda: run.progress.step > 3)
        for _ in range(2):
            bus.subscribe(af.BatchEnd, seen.append, inline=True)
        bus.subscribe(af.EpochEnd, print, thread=True).cancel()
        step = run.progress.step
        await until(lambda: run.progress.step > step)
        run.stop()
    assert not seen
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert all("is inline" in text and "will not be called" in text for text in told)


@pytest.mark.parametrize("given", ["linear", "a.b:", "a.b:c d", "__main__:made", 3, ":made"])
async def test_a_factory_is_named_by_module_and_function(given: Any) -> None:
    with pytest.raises(af.InvalidInput, match="factory="):
        af.ProcessExecutor(factory=given)


@pytest.mark.parametrize("how", [{"workers": 0}, {"workers": True}, {"threads": 0}, {"env": {"A": 1}}, {"env": 3}])
async def test_settings_that_make_no_sense(how: Any) -> None:
    with pytest.raises(af.InvalidInput, match="ProcessExecutor"):
        af.ProcessExecutor(**how)


async def test_a_factory_makes_the_model_there() -> None:
    class Inner(Linear):
        """Not importable; its twin there is."""

    model = Inner()
    model.w[:] = 3
    with no_process_left():
        async with af.ProcessExecutor(factory="tests.run.portable:linear") as executor:
            await fit(model, epochs=2, executor=executor)
    other = Linear()
    other.w[:] = 3
    await fit(other, epochs=2, executor="thread")
    assert np.array_equal(model.w, other.w)


async def test_a_factory_that_raises_fails_the_run() -> None:
    bus, events = listening()
    with no_process_left():
        async with af.ProcessExecutor(factory="tests.run.portable:broken") as executor:
            with pytest.raises(OSError, match="the factory has no material"):
                await fit(Linear(), executor=executor, bus=bus)
            async with af.ProcessExecutor(factory="tests.run.nothing:here") as other:
                with pytest.raises(ModuleNotFoundError, match=r"tests\.run\.nothing") as caught:
                    await fit(Linear(), executor=other)
                assert any("factory='tests.run.nothing:here'" in note for note in caught.value.__notes__)
    assert kinds(events) == ["TrainBegin", "EpochBegin", "TrainEnd"]


async def test_portable_callbacks_run_on_a_copy_there() -> None:
    runs = []
    for executor in ("thread", "process"):
        bus, events = listening(af.LearningRateChanged, af.SubscriberFailed)
        halve, stumbles = Halve(), Stumbles()
        async with fit(Linear(), epochs=4, executor=executor, bus=bus, callbacks=[halve, stumbles]) as run:
            pass
        figures = {s.name: (s.mode, s.delivered, s.errors) for s in run.subscribers if s.name in ("Halve", "Stumbles")}
        told = [(e.type, getattr(e, "who", ""), getattr(e, "step", 0), str(getattr(e, "error", ""))) for e in events]
        runs.append((sorted(told), run.history.history, figures))
    assert runs[0] == runs[1]
    assert runs[0][2] == {"Halve": ("inline", 4, 0), "Stumbles": ("inline", 12, 2)}


async def test_what_a_copy_asks_for_reaches_the_run() -> None:
    with no_process_left():
        with pytest.raises(af.RunCancelled, match="asked there"):
            await fit(Linear(), epochs=10**7, callbacks=Asks("cancel"))
        history = await fit(Linear(), epochs=10**7, callbacks=Asks("stop"))
    assert (history.outcome, history.reason) == ("stopped", "asked there")


async def test_a_portable_callback_that_cannot_be_pickled_decides_here() -> None:
    halve = Halve()
    halve.unpicklable = lambda: None  # type: ignore[attr-defined]
    halve2 = Halve()
    one = await fit(Linear(), epochs=4, executor="thread", callbacks=halve2)
    with no_process_left():
        async with fit(Linear(), epochs=4, callbacks=halve) as run:
            pass
    assert run.history.history == one.history


# --- the pool --------------------------------------------------------------------------------------------------------


async def test_a_pool_serves_many_runs_with_few_processes(tmp_path: Path) -> None:
    seen: set[int] = set()
    with no_process_left():
        async with af.ProcessExecutor(workers=2) as executor:
            async with anyio.create_task_group() as group:
                for number in range(5):
                    (tmp_path / str(number)).mkdir()
                    group.start_soon(lambda n: fit(Watched(tmp_path / str(n)), epochs=2, executor=executor), number)
            assert len(children()) == 2
            assert "0 of 2 workers busy" in repr(executor)
        for number in range(5):
            seen |= {int(path.read_text()) for path in (tmp_path / str(number)).glob("batch-*")}
        assert len(seen) == 2


async def test_workers_come_in_the_order_in_which_runs_were_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the data of the one that was first take longer to look at."""
    go_on, read, begun = threading.Event(), FitPlan.read, list[str]()
    reads: list[FitPlan] = []

    def slowly(plan: FitPlan, *args: Any) -> Any:
        reads.append(plan)
        if len(reads) == 1:
            assert go_on.wait(60)
        return read(plan, *args)

    def listening(name: str) -> af.EventBus:
        bus = af.EventBus()
        bus.on(af.TrainBegin)(lambda event: begun.append(name))
        return bus

    monkeypatch.setattr(FitPlan, "read", slowly)
    with no_process_left(), anyio.fail_after(60):
        async with af.ProcessExecutor(1) as pool, fit(Linear(), executor=pool, bus=listening("one")):
            await until(lambda: len(reads) == 1)
            async with fit(Linear(), executor=pool, bus=listening("two")):
                await until(lambda: repr(pool) == "<ProcessExecutor: 1 of 1 workers busy, 1 run waits>")
                go_on.set()
    assert begun == ["one", "two"]


async def test_a_run_whose_data_are_refused_gives_its_place_back() -> None:
    with no_process_left(), anyio.fail_after(60):
        async with af.ProcessExecutor(1) as pool:
            model = af.Sequential([layers.Dense(2, activation="softmax", input_shape=2)])
            model.compile("sgd", "sparse_categorical_crossentropy")
            with pytest.raises(af.InvalidInput):
                await model.fit(X, [9] * len(X), executor=pool)
            assert repr(pool) == "<ProcessExecutor: 0 of 1 workers busy, 0 runs wait>"
            await fit(Linear(), executor=pool)


async def test_who_waits_for_a_worker_has_begun_nothing_and_can_be_cancelled(tmp_path: Path) -> None:
    (tmp_path / "wait-batch-0").touch()
    bus, events = listening()
    with no_process_left():
        async with af.ProcessExecutor() as executor:
            async with fit(Watched(tmp_path), executor=executor) as first:
                await until((tmp_path / "batch-0").exists)
                waiting = Linear()
                with anyio.move_on_after(0.05):
                    await fit(waiting, executor=executor, bus=bus)
                assert not events
                await fit(waiting, executor="thread")  # it is free again
                (tmp_path / "wait-batch-0").unlink()
            assert first.outcome == "completed"
            await fit(waiting, executor=executor)


async def test_who_waits_for_a_worker_can_be_stopped(tmp_path: Path) -> None:
    (tmp_path / "wait-batch-0").touch()
    bus, events = listening()
    with no_process_left():
        async with af.ProcessExecutor() as executor:
            async with fit(Watched(tmp_path), executor=executor) as first:
                await until((tmp_path / "batch-0").exists)
                model = Linear()
                async with fit(model, executor=executor, bus=bus) as waiting:
                    await until(lambda: "waits for a worker" in repr(waiting))
                    assert "1 of 1 workers busy, 1 run waits" in repr(executor)
                    with anyio.fail_after(5):
                        await waiting.stop("never mind")
                assert (waiting.outcome, waiting.reason, model.batches) == ("stopped", "never mind", 0)
                whole(events)
                assert (await fit(model, executor="thread")).outcome == "completed", "the model is free"
                (tmp_path / "wait-batch-0").unlink()
            assert first.outcome == "completed"
            assert (await fit(Linear(), executor=executor)).outcome == "completed"


async def test_a_pool_belongs_to_its_block(tmp_path: Path) -> None:
    executor = af.ProcessExecutor()
    with pytest.raises(af.NotStarted, match=r"async with af\.ProcessExecutor"):
        await fit(Linear(), executor=executor)
    async with executor:
        await fit(Linear(), executor=executor)
    with pytest.raises(af.NotStarted, match="has ended"):
        await fit(Linear(), executor=executor)
    with pytest.raises(af.NotStarted, match="entered already"):
        await executor.__aenter__()
    with pytest.raises(TypeError, match="executor="):
        fit(Linear(), executor=af.ProcessExecutor)


async def test_leaving_a_pool_with_an_error_ends_its_runs(tmp_path: Path) -> None:
    (tmp_path / "wait-batch-0").touch()
    with no_process_left():
        async with anyio.create_task_group() as group:
            with pytest.raises(ZeroDivisionError):  # noqa: PT012
                async with af.ProcessExecutor() as executor:
                    run = await fit(Watched(tmp_path), executor=executor).start(group)
                    await until((tmp_path / "batch-0").exists)
                    raise ZeroDivisionError
            with pytest.raises(af.WorkerLost, match="block of its ProcessExecutor was left"):
                await run.wait()


async def test_leaving_a_pool_with_an_error_refuses_the_runs_that_wait(tmp_path: Path) -> None:
    (tmp_path / "wait-batch-0").touch()
    with no_process_left():
        async with anyio.create_task_group() as group:
            with pytest.raises(ZeroDivisionError):  # noqa: PT012
                async with af.ProcessExecutor() as executor:
                    run = await fit(Watched(tmp_path), executor=executor).start(group)
                    await until((tmp_path / "batch-0").exists)
                    waiting = await fit(Linear(), executor=executor, epochs=10**6).start(group)
                    await until(lambda: "1 run waits" in repr(executor))
                    raise ZeroDivisionError
            with pytest.raises(af.WorkerLost):
                await run.wait()
            with pytest.raises(af.NotStarted, match="has ended"):
                await waiting.wait()


async def test_a_run_that_cannot_begin_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(*_: Any) -> Any:
        raise RuntimeError("can't start new thread")

    with no_process_left():
        async with af.ProcessExecutor() as executor:
            with monkeypatch.context() as patched:
                patched.setattr(remote, "in_context", no_thread)
                with pytest.raises(RuntimeError, match="new thread"):
                    await fit(Linear(), executor=executor)
            assert (await fit(Linear(), executor=executor)).outcome == "completed"


async def test_without_a_process_or_a_message_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> Any:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    for module, name in ((subprocess, "Popen"), (os, "pipe")):
        with no_process_left(), monkeypatch.context() as patched:
            patched.setattr(module, name, none)
            with pytest.raises(af.WorkerLost, match=r"no worker process could be started.*temporarily unavailable"):
                await fit(Linear())
    with no_process_left(), pytest.raises(RuntimeError, match="not this time"):
        await fit(PickledOnce())


async def test_an_idle_worker_that_died_is_replaced() -> None:
    with no_process_left():
        async with af.ProcessExecutor() as executor:
            await fit(Linear(), executor=executor)
            (pid,) = children()
            os.kill(pid, signal.SIGKILL)
            await until(lambda: not children() or executor._idle[0].status() is not None)
            assert (await fit(Linear(), executor=executor)).outcome == "completed"


async def test_the_environment_of_the_workers() -> None:
    bus, events = listening(af.TrainBegin)
    async with af.ProcessExecutor(threads=1, env={"ASYNCFIT_TEST": "1"}) as executor:
        await fit(Linear(), executor=executor, bus=bus)
    (begin,) = events
    assert isinstance(begin, af.TrainBegin)
    assert begin.params["threads"] in (1, "1")


# --- cancelling ------------------------------------------------------------------------------------------------------


async def test_cancelling_asks_first(tmp_path: Path) -> None:
    model = Watched(tmp_path)
    bus, events = listening()
    with no_process_left():
        async with af.ProcessExecutor() as executor:
            run = None
            with pytest.raises(af.RunCancelled, match="no more"):  # noqa: PT012
                async with fit(model, epochs=10**6, executor=executor, bus=bus) as run:
                    await until((tmp_path / "batch-5").exists)
                    run.cancel("no more")
                    await anyio.sleep_forever()
            (pid,) = children()  # the worker is still good
            assert run is not None
            assert run.outcome == "cancelled"
            assert (await fit(Linear(), executor=executor)).outcome == "completed"
            assert children() == {pid}
    whole(events)
    end = events[-1]
    assert isinstance(end, af.TrainEnd)
    assert model.batches == end.step >= 6


async def test_what_does_not_listen_is_killed_after_the_grace_time(tmp_path: Path) -> None:
    (tmp_path / "spin-batch-7").touch()
    model = Watched(tmp_path)
    bus, events = listening()
    with no_process_left(), pytest.raises(af.RunCancelled):  # noqa: PT012
        async with fit(model, epochs=10**6, bus=bus, grace=0.2) as run:
            await until((tmp_path / "batch-7").exists)
            run.cancel()
            await anyio.sleep_forever()
    whole(events)
    end = events[-1]
    assert isinstance(end, af.TrainEnd)
    assert (end.outcome, end.step) == ("cancelled", 6), "as of the last boundary that nobody can undo"
    assert model.batches == 6


# --- scripts ---------------------------------------------------------------------------------------------------------


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            print("main runs")
            import numpy as np
            import asyncfit as af
            from asyncfit import layers

            model = af.Sequential([layers.Input((2,)), layers.Dense(1)], seed=1)
            model.compile("sgd", "mse")
            x = np.ones((8, 2))
            history = model.fit(x, x[:, :1], epochs=3, executor="process").blocking()
            print(history.outcome, len(history.epoch))
            """
        )
    )
    root = str(Path(af.__file__).parents[1])
    out = subprocess.run(
        [sys.executable, "-W", "error", script], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip
    assert (out.stdout, out.stderr) == ("main runs\ncompleted 3\n", "")


def test_killing_the_parent_ends_the_worker_within_two_seconds(tmp_path: Path) -> None:
    (tmp_path / "spin-batch-3").touch()  # even a worker that listens to nobody
    code = f"""
import sys
sys.path.insert(0, {str(Path(af.__file__).parents[1])!r})
from tests.run.test_process import fit, Watched
fit(Watched({str(tmp_path)!r}), epochs=1000).blocking()
"""
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "batch-3").exists() or not (tmp_path / "batch-3").read_text():
            assert parent.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        worker = int((tmp_path / "batch-3").read_text())
        parent.kill()
        parent.wait()
        killed = time.monotonic()
        while Path(f"/proc/{worker}").exists() and _state(worker) != "Z":
            assert time.monotonic() - killed < 2
            time.sleep(0.01)
    finally:
        parent.kill()
        parent.wait()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def test_sequential_models_with_functions_of_the_main_module_are_refused() -> None:
    stranger = type("Odd", (layers.Dense,), {"__module__": "__main__"})
    model = af.Sequential([layers.Input((2,)), stranger(1)])
    model.compile("sgd", "mse")
    with pytest.raises(af.InvalidInput, match="Odd is defined in the main module"):
        model.fit(np.ones((4, 2)), np.ones(4), executor="process")

"""Workers that die and are replaced: nobody sees an event twice or misses one, and the bits are those without a loss.

`ASYNCFIT_KILLS=50` kills fifty workers in each state on each loop; the suite itself kills a few.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

import asyncfit as af
from asyncfit.saving import Checkpoint, Wish

from .helpers import X, Y, kinds, until, whole
from .portable import Counts, Dies, Fails, Gone, Publishes, Watched
from .test_process import children, no_process_left
from .test_process_kills import KILLS
from .test_resuming import Keeps, all_callbacks, network, same
from .test_resuming import X as ROWS
from .test_resuming import Y as TARGETS

TIMES = max(1, KILLS // 5)
"""Each of these runs loses five workers."""

pytestmark = [pytest.mark.anyio, pytest.mark.in_turn, pytest.mark.timeout(120 + 30 * KILLS)]


class Seen:
    """What a bus brings, as it can be compared."""

    def __init__(self) -> None:
        self.bus = af.EventBus()
        self.events: list[af.Event] = []
        self.bus.subscribe(af.Event, self.events.append, overflow="block")

    @property
    def lost(self) -> list[af.WorkerRestarted]:
        return [event for event in self.events if isinstance(event, af.WorkerRestarted)]

    def plain(self, *without: str) -> list[dict[str, Any]]:
        """All of the run but the losses, when it was and how it was numbered."""
        told = []
        for event in self.events:
            if event.run_id and event.type not in ("WorkerRestarted", *without):
                fields = event.to_dict()
                if isinstance(event, af.TrainBegin):
                    fields["params"] = {**fields["params"], "executor": "", "trainable": "", "memory": 0}
                told.append({name: value for name, value in fields.items() if name not in ("time", "seq", "run_id")})
        return told

    def check(self) -> None:
        whole([event for event in self.events if event.run_id])


def fit(model: Any, executor: Any, **how: Any) -> af.Fit:
    return af.Trainer(model).fit(X, Y, **{"batch_size": 2, "shuffle": False, "seed": 3, "executor": executor, **how})


class Logs(af.Callback):
    """A gate that decides by what it sees, and remembers what it was asked about."""

    gates = "epoch"

    def __init__(self, decides: bool = True) -> None:
        self.asked: list[Any] = []
        self.decides = decides

    def _note(self, event: Any) -> None:
        logs = getattr(event, "logs", None)
        self.asked.append((event.type, event.epoch, None if logs is None else dict(logs), event.learning_rate))

    async def on_epoch_begin(self, event: af.EpochBegin) -> None:
        self._note(event)
        await anyio.sleep(0.001)

    async def on_validation_begin(self, event: af.ValidationBegin) -> None:
        self._note(event)
        await anyio.sleep(0.002)

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        self._note(event)
        await anyio.sleep(0.003)
        if event.epoch % 4 == 1 and self.decides:
            event.set_learning_rate(event.learning_rate * 0.9)
        if event.epoch == 2:
            self.kept = event.model
        if event.epoch == 6 and self.decides:
            event.set_weights(self.kept)
            event.restore_at_end(event.model)


class BatchGate(af.Callback):
    gates = "batch"

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def on_batch_begin(self, event: af.BatchBegin) -> None:
        self.asked.append(event.step)
        await anyio.sleep(0.001)

    async def on_batch_end(self, event: af.BatchEnd) -> None:
        self.asked.append((event.step, dict(event.logs)))
        await anyio.sleep(0.001)


async def killer(run: af.Run, before: set[int], rng: random.Random, kills: list[int], most: int) -> None:
    """Kill this run's workers at random moments."""
    while len(kills) < most:
        await anyio.sleep(rng.random() * rng.choice([0.02, 0.2, 0.6]))
        for pid in living(before):
            if len(kills) < most:
                os.kill(pid, signal.SIGKILL)
                kills.append(pid)


def living(before: set[int]) -> list[int]:
    """Workers of ours that are no corpses."""
    found = []
    for pid in children() - before:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(pid)
        except (OSError, IndexError):
            pass
    return found


STATES: dict[str, dict[str, Any]] = {
    "ungated": {},
    "gated, lookahead 0": {"gate": Logs, "lookahead": 0},
    "gated, lookahead 1": {"gate": Logs, "lookahead": 1},
    "gated, lookahead 3": {"gate": Logs, "lookahead": 3},
    "gated, nothing decided": {"gate": partial(Logs, decides=False), "lookahead": 2},
    "batches gated": {"gate": BatchGate, "lookahead": 1, "epochs": 12},
    "large states": {"gate": Logs, "lookahead": 2, "floats": 20_000},
    "inline": {"gate": Logs, "lookahead": 2, "inline": True},
}


@pytest.mark.parametrize("state", STATES)
async def test_killed_at_random_moments(state: str, tmp_path: Path) -> None:
    how = {"epochs": 40, "floats": 2, "lookahead": 0, **STATES[state]}
    epochs, lookahead = how["epochs"], how["lookahead"]

    async def one(executor: Any, seen: Seen, kills: int) -> tuple[Watched, list[Any], Any, Any, list[int]]:
        model = Watched(tmp_path, floats=how["floats"])
        gates = [how["gate"]()] if "gate" in how else []
        counts = [Counts()] if "inline" in how else []
        killed: list[int] = []
        before = children()
        async with anyio.create_task_group() as group:
            async with fit(
                model, executor, epochs=epochs, lookahead=lookahead, bus=seen.bus, callbacks=[*gates, *counts],
                validation_data=(X, Y),
            ) as run:  # fmt: skip
                if kills:
                    rng = random.Random(f"{state} {kills} {time.monotonic()}")
                    group.start_soon(killer, run, before, rng, killed, kills)
            group.cancel_scope.cancel()
        figures = [(s.name, s.delivered) for s in run.subscribers if s.mode == "inline"]
        asked = gates[0].asked if gates else []
        vars(gates[0] if gates else seen).pop("kept", None)
        return model, asked, run.history, figures, killed

    undisturbed = Seen()
    model, asked, history, _, _ = await one("thread", undisturbed, 0)
    for _ in range(TIMES):
        seen = Seen()
        with no_process_left():
            async with af.ProcessExecutor(restarts=1000) as executor:
                mine, mine_asked, mine_history, _, killed = await one(executor, seen, 5)
            seen.check()
            same(mine.state(), model.state())
            assert mine_asked == asked
            assert mine_history.history == history.history
            assert seen.plain() == undisturbed.plain()
            assert len(seen.lost) <= len(killed)
            left = [event.left for event in seen.lost]
            assert left == list(range(999, 999 - len(left), -1))
            assert all(isinstance(event.error, af.WorkerLost) for event in seen.lost)
            seen.events.clear()


MOMENTS = ["batch-0", "batch-2", "batch-3", "batch-7", "batch-11", "test-0", "test-4", "test-11"]


@pytest.mark.parametrize(("moment", "gated"), list(zip(MOMENTS, [True, False, True, False] * 2, strict=True)))
async def test_a_worker_that_ends_itself_at_a_batch(moment: str, gated: bool, tmp_path: Path) -> None:
    def gates() -> list[Any]:
        return [Logs()] if gated else []

    how: dict[str, Any] = {"epochs": 4, "lookahead": 2, "validation_data": (X, Y)}
    undisturbed, seen = Seen(), Seen()
    model, mine = Watched(tmp_path), Dies(tmp_path / "died", moment)
    await fit(model, "thread", bus=undisturbed.bus, callbacks=gates(), **how)
    with no_process_left():
        async with af.ProcessExecutor(restarts=1) as executor:
            history = await fit(mine, executor, bus=seen.bus, callbacks=gates(), **how)
        seen.check()
        same(mine.state(), model.state())
        assert history.outcome == "completed"
        assert seen.plain() == undisturbed.plain()
        (lost,) = seen.lost
        assert lost.left == 0
        assert lost.from_step % 3 == 0
        assert isinstance(lost.error, af.WorkerLost)
        assert lost.error.exitcode == 7
        seen.events.clear()


async def test_one_that_dies_at_the_same_batch_again_and_again(tmp_path: Path) -> None:
    (tmp_path / "exit-batch-4").touch()
    seen, model = Seen(), Watched(tmp_path)
    began = time.monotonic()
    with no_process_left():
        async with af.ProcessExecutor(restarts=3) as executor:
            with pytest.raises(af.WorkerLost, match="exit code 7"):
                await fit(model, executor, epochs=4, bus=seen.bus)
        seen.check()
        assert [event.left for event in seen.lost] == [2, 1, 0]
        assert model.batches == 3
        assert kinds(seen.events).count("BatchEnd") == 4
        end = seen.events[-1]
        assert isinstance(end, af.TrainEnd)
        assert (end.outcome, end.step) == ("failed", 3)
    assert time.monotonic() - began < 30


async def test_each_run_has_its_own_restarts(tmp_path: Path) -> None:
    async with af.ProcessExecutor(restarts=1) as executor:
        for number in range(2):
            seen, mine = Seen(), Dies(tmp_path / str(number), "batch-1")
            await fit(mine, executor, epochs=2, bus=seen.bus)
            assert len(seen.lost) == 1
            assert mine.batches == 6


async def test_lost_while_starting_and_while_paused(tmp_path: Path) -> None:
    seen, model, before = Seen(), Watched(tmp_path), children()
    with no_process_left():
        async with af.ProcessExecutor(restarts=3) as executor:
            async with fit(model, executor, epochs=10**6, bus=seen.bus) as run:
                await until(lambda: children() - before)
                os.kill((children() - before).pop(), signal.SIGKILL)
                await until(lambda: seen.lost)
                run.pause()
                await until(lambda: "RunPaused" in kinds(seen.events))
                await worker_idle(before)
                os.kill((children() - before).pop(), signal.SIGKILL)
                await until(lambda: len(seen.lost) == 2)
                await worker_idle(before)
                step = run.progress.step
                await anyio.sleep(0.05)
                assert run.progress.step == step, "it is paused still"
                run.resume()
                await until(lambda: run.progress.step > step)
                run.stop("enough")
            assert run.outcome == "stopped"
        seen.check()
        end = seen.events[-1]
        assert isinstance(end, af.TrainEnd)
        assert end.step == model.batches


async def worker_idle(before: set[int]) -> None:
    """There is one worker, and it uses no processor."""

    def used(pid: int) -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    with anyio.fail_after(20):
        while True:
            pids = children() - before
            try:
                once = {pid: used(pid) for pid in pids}
                await anyio.sleep(0.15)
                if len(pids) == 1 and once == {pid: used(pid) for pid in pids} and min(once.values()) > 10:
                    return
            except OSError:
                pass


REQUESTS: dict[str, Callable[[af.Run], object]] = {
    "stop": lambda run: run.stop("asked"),
    "resumable stop": lambda run: run.stop("asked", resumable=True),
    "cancel": lambda run: run.cancel("asked"),
    "rate": lambda run: run.set_learning_rate(0.25),
}


@pytest.mark.parametrize("first", ["request", "kill"])
@pytest.mark.parametrize("what", REQUESTS)
async def test_requests_are_not_lost(what: str, first: str, tmp_path: Path) -> None:
    """Asked for while a batch is under way in which the worker is killed, before or after that."""
    (tmp_path / "wait-batch-4").touch()
    seen, model, before, keeps = Seen(), Watched(tmp_path), children(), Keeps(tmp_path, Wish())
    with no_process_left():
        async with af.ProcessExecutor(restarts=1) as executor:
            task = fit(model, executor, epochs=4, bus=seen.bus, callbacks=keeps)
            try:
                async with task as run:
                    await until((tmp_path / "batch-4").exists)
                    if first == "request":
                        REQUESTS[what](run)
                        await anyio.sleep(0.01)
                    os.kill((children() - before).pop(), signal.SIGKILL)
                    (tmp_path / "wait-batch-4").unlink()
                    if first == "kill":
                        REQUESTS[what](run)
            except af.RunCancelled:
                assert what == "cancel"
        seen.check()
        end = seen.events[-1]
        assert isinstance(end, af.TrainEnd)
        assert end.step == model.batches
        if what == "rate":
            changed = [event for event in seen.events if isinstance(event, af.LearningRateChanged)]
            assert [event.value for event in changed] == [0.25]
            assert model.learning_rate == 0.25
            assert end.step == 12
        else:
            assert end.outcome == ("cancelled" if what == "cancel" else "stopped")
            assert end.step in (3, 4, 5), "what was done and not told is as if it had not been"
            steps = [event.step for event in seen.events if isinstance(event, af.BatchEnd)]
            assert steps == list(range(end.step))
        if what == "resumable stop":
            ((checkpoint, _),) = keeps.taken
            assert checkpoint.position.step == end.step
            same(checkpoint.state, model.state())
        keeps.taken.clear()


async def test_a_snapshot_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "wait-batch-4").touch()
    model, before, given = Watched(tmp_path), children(), list[af.Snapshot]()

    async def ask(run: af.Run) -> None:
        given.append(await run.snapshot())

    async with (
        af.ProcessExecutor(restarts=1) as executor,
        anyio.create_task_group() as group,
        fit(model, executor, epochs=10**6) as run,
    ):
        await until((tmp_path / "batch-4").exists)
        group.start_soon(ask, run)
        await anyio.sleep(0.02)
        os.kill((children() - before).pop(), signal.SIGKILL)
        (tmp_path / "wait-batch-4").unlink()
        await until(lambda: given)
        run.stop()
    assert given[0].step >= 3
    assert given[0].state()["batches"] == given[0].step


@pytest.mark.parametrize(
    ("event", "decision"),
    [
        ("TrainBegin", "rate"), ("TrainBegin", "stop"), ("EpochBegin", "nothing"), ("EpochBegin", "rate"),
        ("ValidationBegin", "rate"), ("ValidationEnd", "nothing"), ("ValidationEnd", "stop"), ("EpochEnd", "rate"),
        ("EpochEnd", "stop"), ("EpochEnd", "restore"),
    ],
)  # fmt: skip
async def test_lost_while_a_gate_is_out(event: str, decision: str, tmp_path: Path) -> None:
    before: set[int] = set()

    def gate(kills: bool) -> Any:
        async def handle(told: Any) -> None:
            if getattr(told, "epoch", 1) == 1:
                if kills:
                    (pid,) = living(before)
                    os.kill(pid, signal.SIGKILL)
                    await until(lambda: pid not in living(before))
                if decision == "rate":
                    told.set_learning_rate(0.5)
                elif decision == "stop":
                    told.stop("enough")
                elif decision == "restore" and event not in ("TrainBegin", "ValidationBegin"):
                    told.restore_at_end(told.model)

        return handle

    how: dict[str, Any] = {"epochs": 4, "lookahead": 2, "validation_data": (X, Y)}
    undisturbed, seen = Seen(), Seen()
    model, mine = Watched(tmp_path), Watched(tmp_path)
    undisturbed.bus.subscribe(getattr(af, event), gate(False), gate=True)
    await fit(model, "thread", bus=undisturbed.bus, **how)
    with no_process_left():
        before |= children()
        seen.bus.subscribe(getattr(af, event), gate(True), gate=True)
        async with af.ProcessExecutor(restarts=2) as executor:
            await fit(mine, executor, bus=seen.bus, **how)
        seen.check()
        same(mine.state(), model.state())
        assert seen.plain() == undisturbed.plain()
        assert len(seen.lost) == 1
        seen.events.clear()


async def test_inline_handlers_tell_everything_once(tmp_path: Path) -> None:
    """Their own events, their failures, and how often they were called."""
    undisturbed, seen = Seen(), Seen()

    def mine() -> list[Any]:
        return [Publishes(), Fails("log"), Gone()]

    await fit(Watched(tmp_path), "thread", epochs=5, bus=undisturbed.bus, callbacks=mine())
    with no_process_left():
        async with af.ProcessExecutor(restarts=3) as executor:
            model = Dies(tmp_path / "died", "batch-3", "batch-7", "batch-10")
            async with fit(model, executor, epochs=5, bus=seen.bus, callbacks=mine()) as run:
                pass
        seen.check()
        assert len(seen.lost) == 3

        def own(of: Seen) -> list[Any]:
            return sorted(repr(told) for told in of.plain())

        assert own(seen) == own(undisturbed)
        figures = {s.name: s.delivered for s in run.subscribers if s.mode == "inline"}
        assert figures["Publishes"] >= 15, "those that were repeated count as well"
        seen.events.clear()


def by_step(taken: tuple[Checkpoint, Path]) -> tuple[int, bool]:
    at = taken[0].position
    return at.step, at.begun


@pytest.mark.parametrize("wish", [Wish(every=2), Wish(every=4, boundaries=True)], ids=str)
async def test_checkpoints_are_those_without_a_loss(wish: Wish, tmp_path: Path) -> None:
    how: dict[str, Any] = {"batch_size": 8, "validation_split": 0.25, "epochs": 6, "lookahead": 2}
    keeps, undisturbed, first = Keeps(tmp_path, wish), Seen(), network()
    callbacks = [Logs() if wish.boundaries else Counts()]
    history = await first.fit(ROWS, TARGETS, bus=undisturbed.bus, callbacks=[*callbacks, keeps], **how)
    for _ in range(TIMES):
        again, seen, mine, killed, before = Keeps(tmp_path, wish), Seen(), network(), list[int](), children()
        callbacks = [Logs() if wish.boundaries else Counts()]
        with no_process_left():
            async with af.ProcessExecutor(restarts=1000) as executor, anyio.create_task_group() as group:
                async with mine.fit(
                    ROWS, TARGETS, bus=seen.bus, callbacks=[*callbacks, again], executor=executor, **how
                ) as run:
                    group.start_soon(killer, run, before, random.Random(time.monotonic()), killed, 4)
                group.cancel_scope.cancel()
            seen.check()
            same(mine.state(), first.state())
            assert run.history.history == history.history
            assert seen.plain() == undisturbed.plain()
            for each in (keeps, again):
                each.taken.sort(key=by_step)  # as they were told: which is written first is the loop's to choose
            assert [c.position for c, _ in again.taken] == [c.position for c, _ in keeps.taken]
            for (one, _), (other, _) in zip(again.taken, keeps.taken, strict=True):
                same(one.state, other.state)
                assert one.change == other.change or one.change is not None
            again.taken.clear()
            seen.events.clear()


async def test_a_resumed_run(tmp_path: Path) -> None:
    how: dict[str, Any] = {"batch_size": 8, "validation_split": 0.25, "epochs": 5, "lookahead": 1}
    keeps, first = Keeps(tmp_path, Wish(every=3)), network()
    history = await first.fit(ROWS, TARGETS, callbacks=[*all_callbacks(), keeps], **how)
    for _, path in keeps.taken[:: max(1, len(keeps.taken) // (TIMES + 1))]:
        mine, killed, before, seen = network(), list[int](), children(), Seen()
        with no_process_left():
            async with af.ProcessExecutor(restarts=1000) as executor, anyio.create_task_group() as group:
                async with mine.fit(
                    ROWS, TARGETS, callbacks=all_callbacks(), resume=path, executor=executor, bus=seen.bus, **how
                ) as run:
                    group.start_soon(killer, run, before, random.Random(time.monotonic()), killed, 4)
                group.cancel_scope.cancel()
            same(mine.state(), first.state())
            assert run.history.history == history.history
            steps = [event.step for event in seen.events if isinstance(event, af.BatchEnd)]
            assert steps == list(range(steps[0], steps[0] + len(steps)))
            seen.events.clear()


async def test_the_end_of_the_executor_is_no_loss(tmp_path: Path) -> None:
    seen, failed = Seen(), list[BaseException]()

    async def train(executor: Any) -> None:
        try:
            await fit(Watched(tmp_path), executor, epochs=10**6, bus=seen.bus)
        except af.WorkerLost as error:
            failed.append(error)

    with no_process_left():
        async with anyio.create_task_group() as group:
            with pytest.raises(ZeroDivisionError):  # noqa: PT012
                async with af.ProcessExecutor(restarts=5) as executor:
                    group.start_soon(train, executor)
                    await until(lambda: len(seen.events) > 5)
                    raise ZeroDivisionError
    assert "block of its ProcessExecutor was left" in str(failed[0])
    assert not seen.lost
    failed.clear()


async def test_when_no_other_worker_can_be_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, before = Watched(tmp_path), children()
    async with af.ProcessExecutor(restarts=5) as executor:
        with pytest.raises(af.WorkerLost, match="signal 9") as caught:  # noqa: PT012
            async with fit(model, executor, epochs=10**6) as run:
                await until(lambda: run.progress.step > 3)
                monkeypatch.setattr(sys, "executable", "/nowhere/python")
                os.kill((children() - before).pop(), signal.SIGKILL)
                await anyio.sleep_forever()
    assert "another worker could not be started" in caught.value.__notes__[0]
    assert model.batches % 3 == 0


@pytest.mark.parametrize("restarts", [-1, 1.0, True, "2"])
async def test_restarts_is_a_number(restarts: Any) -> None:
    with pytest.raises(af.InvalidInput, match="restarts"):
        af.ProcessExecutor(restarts=restarts)


async def test_the_fact_has_a_hook(tmp_path: Path) -> None:
    class Notes(af.Callback):
        async def on_train_begin(self, event: af.TrainBegin) -> None:
            self.lost: list[af.WorkerRestarted] = []

        async def on_worker_restarted(self, event: af.WorkerRestarted) -> None:
            self.lost.append(event)

    notes = Notes()
    async with af.ProcessExecutor(restarts=1) as executor:
        await fit(Dies(tmp_path / "died", "batch-4"), executor, epochs=3, callbacks=notes)
    (fact,) = notes.lost
    assert (fact.from_step, fact.left) == (3, 0)
    assert fact.to_dict()["from_step"] == 3
    assert np.isfinite(fact.time)

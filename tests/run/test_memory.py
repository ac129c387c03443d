"""What a run keeps copies of its state in."""

from __future__ import annotations

import gc
import mmap
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.to_thread
import numpy as np
import pytest

import asyncfit as af
from asyncfit import budget, executors
from asyncfit.pool import Pool, SharedState
from asyncfit.testing import LoopbackExecutor

from .helpers import Large, fit, until
from .test_process import children

pytestmark = [pytest.mark.anyio, pytest.mark.in_turn]


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[Pool]:
    """The pools that runs in this process make."""
    made: list[Pool] = []

    def pool(**how: Any) -> Pool:
        made.append(Pool(**how))
        return made[-1]

    for module in (executors.thread, executors.loopback):
        monkeypatch.setattr(module, "Pool", pool)
    return made


EXECUTORS = pytest.mark.parametrize("executor", ["thread", LoopbackExecutor()], ids=["thread", "loopback"])


@EXECUTORS
async def test_snapshots_are_copied_into_memory_that_goes_round(executor: Any, pools: list[Pool]) -> None:
    seen: list[int] = []

    class Looks(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            state = event.model.state()
            seen.append(state["w"].__array_interface__["data"][0])
            assert (state["w"] == 3 * (event.epoch + 1)).all()
            assert isinstance(event.model._state, SharedState)

    with anyio.fail_after(30):
        await fit(Large(), epochs=50, callbacks=Looks(), lookahead=1, executor=executor)
    assert len(seen) == 50
    assert len(set(seen)) <= 4
    gc.collect()
    assert (pools[0].in_use, pools[0].idle) == (0, 0)


@EXECUTORS
async def test_a_snapshot_is_its_holders_as_long_as_they_like(executor: Any) -> None:
    kept: dict[int, Any] = {}

    class Keeps(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            kept[3 * (event.epoch + 1)] = event.model if event.epoch % 2 else event.model.state()["w"][5:]

    with anyio.fail_after(30):
        await fit(Large(), epochs=20, callbacks=Keeps(), lookahead=3, executor=executor)
    gc.collect()
    for steps, one in kept.items():
        array = one.state()["w"] if isinstance(one, af.Snapshot) else one
        assert (array == steps).all()
        assert not array.flags.writeable
        if isinstance(one, af.Snapshot):
            assert np.array_equal(one.get_weights()[0], array)


@EXECUTORS
async def test_what_nobody_looks_at_is_not_copied(executor: Any, pools: list[Pool]) -> None:
    with anyio.fail_after(30):
        await fit(Large(), epochs=5, callbacks=Watches(), executor=executor)
    assert pools[0]._next & 0xFFFF == 0, "no block was made"


class Watches(af.Callback):
    gates = "none"

    def on_epoch_end(self, event: af.EpochEnd) -> None:
        pass


# --- bounds ----------------------------------------------------------------------------------------------------------


class Peak(Pool):
    """Notes how many blocks were in use at most, besides what the subscribers of `runs` had not come to yet."""

    runs: ClassVar[list[af.Run]] = []

    def __init__(self, **how: Any) -> None:
        super().__init__(**how)
        self.peak = self.kept = 0
        self.detail: list[tuple[str, int]] = []

    def share(self, state: Mapping[str, Any]) -> dict[str, Any]:
        copied = super().share(state)
        statistics = [one for run in self.runs for one in run.subscribers]
        theirs = sum(one.snapshots for one in statistics if one.mode == "queued")
        ours = self.in_use - theirs - reading.count
        if ours > self.peak:
            self.peak, self.detail = ours, [(one.name, one.snapshots) for one in statistics]
        with self._lock:
            self.kept = max(self.kept, len(self._blocks))
        return copied


class Reading:
    """How many predictions are under way."""

    count = 0


reading = Reading()


class Slow(af.Callback):
    """Gates that take their time, and change the state now and then."""

    def __init__(self, pace: int, decides: bool) -> None:
        self.pace, self.decides = pace, decides

    async def _wait(self) -> None:
        for _ in range(self.pace):
            await anyio.lowlevel.checkpoint()

    async def on_train_begin(self, event: af.TrainBegin) -> None:
        await self._wait()

    async def on_epoch_begin(self, event: af.EpochBegin) -> None:
        await self._wait()

    async def on_validation_end(self, event: af.ValidationEnd) -> None:
        await self._wait()
        assert event.model.step == 6 * (event.epoch + 1)

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        await self._wait()
        if self.decides and event.epoch % 3 == 0:
            event.set_learning_rate(0.9 * event.learning_rate)


class SetsRates(af.Callback):
    gates = "none"

    @af.inline
    def on_epoch_end(self, event: af.EpochEnd) -> None:
        event.set_learning_rate(0.5 + event.epoch)


@dataclass(frozen=True, kw_only=True)
class Load:
    lookahead: int
    pace: int | None = None
    decides: bool = False
    validation: bool = False
    gate: int = 0
    batches: int = 0
    epochs: bool = False
    predictions: int = 0
    inline: bool = False


LOADS = [
    *(Load(lookahead=ahead, pace=20) for ahead in range(4)),
    *(Load(lookahead=ahead, pace=20, validation=True, decides=True) for ahead in range(4)),
    Load(lookahead=1, pace=0, validation=True, predictions=3),
    Load(lookahead=0, predictions=3),
    Load(lookahead=0, batches=1),
    Load(lookahead=3, pace=40, batches=1),
    Load(lookahead=3, pace=40, batches=1, epochs=True, decides=True, validation=True, gate=4, predictions=2),
    Load(lookahead=1, pace=20, validation=True, inline=True, batches=2),
    Load(lookahead=2, epochs=True),
    Load(lookahead=2, gate=1, predictions=1),
]


async def loaded(load: Load, executor: Any) -> None:
    x, y = np.ones((12, 2)), np.ones(12)
    bus, trainer = af.EventBus(), af.Trainer(Large())

    async def slow(event: af.BatchEnd | af.EpochEnd) -> None:
        for _ in range(15):
            await anyio.lowlevel.checkpoint()

    if load.gate:
        bus.subscribe(af.BatchEnd, slow, gate=True, every=load.gate)
    if load.batches:
        bus.subscribe(af.BatchEnd, slow, snapshots=True, every=load.batches, buffer=4)
    if load.epochs:
        bus.subscribe(af.EpochEnd, slow, snapshots=True)
    callbacks: list[af.Callback] = [] if load.pace is None else [Slow(load.pace, load.decides)]
    if load.inline:
        callbacks.append(SetsRates())

    async def predict() -> None:
        while run.outcome is None:
            reading.count += 1
            try:
                await trainer._read(lambda state: float(state["w"][0]))
            finally:
                reading.count -= 1

    with anyio.fail_after(60):
        async with (
            trainer.fit(
                x, y, batch_size=2, epochs=10, callbacks=callbacks, bus=bus, lookahead=load.lookahead,
                executor=executor, validation_data=(x, y) if load.validation else None,
            ) as run,
            anyio.create_task_group() as tasks,
        ):  # fmt: skip
            Peak.runs[:] = [run]
            for _ in range(load.predictions):
                tasks.start_soon(predict)


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small states are counted as large ones are."""
    monkeypatch.setattr(budget, "SPARE", 0)
    yield
    Peak.runs.clear()


@EXECUTORS
@pytest.mark.parametrize("load", LOADS, ids=str)
async def test_there_are_never_more_copies_than_the_budget_says(
    load: Load, executor: Any, tight: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Peak] = []

    def pool(**how: Any) -> Peak:
        made.append(Peak(**how))
        return made[-1]

    for module in (executors.thread, executors.loopback):
        monkeypatch.setattr(module, "Pool", pool)
    await loaded(load, executor)
    (peak,) = made
    most = budget.copies(Large().state(), lookahead=load.lookahead)
    assert most == load.lookahead + 5
    assert peak.most == most
    assert peak.peak <= most, peak.detail
    if load.pace and not (load.batches or load.gate or load.predictions or load.inline):
        assert peak.peak <= load.lookahead + 2, "the open boundaries and the newest confirmed one"
    gc.collect()
    assert (peak.in_use, peak.idle) == (0, 0)


@EXECUTORS
async def test_a_loop_that_is_held_up_lets_no_copies_gather(
    executor: Any, tight: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Peak] = []

    def pool(**how: Any) -> Peak:
        made.append(Peak(**how))
        return made[-1]

    for module in (executors.thread, executors.loopback):
        monkeypatch.setattr(module, "Pool", pool)
    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, lambda event: None, snapshots=True, overflow="block")
    with anyio.fail_after(30):
        async with fit(Large(), epochs=20, bus=bus, executor=executor) as run:
            Peak.runs[:] = [run]
            while run.outcome is None:
                threading.Event().wait(0.005)  # meanwhile compute has all the time that it likes
                await anyio.lowlevel.checkpoint()
    assert made[0].peak <= 4
    assert run.subscribers[0].delivered == 60


async def test_many_epochs_leave_the_memory_as_it_is() -> None:
    """A thousand snapshots, of which some are kept for a while."""
    kept: deque[Any] = deque(maxlen=5)

    class Keeps(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            kept.append(event.model.state()["w"][3:])
            if event.epoch == 200:
                sizes.append(resident())
            if event.epoch == 999:
                sizes.append(resident())

    sizes: list[int] = []
    model = Large()
    model.w = np.zeros(250_000)  # 2 MB
    with anyio.fail_after(60):
        await fit(model, epochs=1000, callbacks=Keeps(), lookahead=1)
    assert sizes[1] - sizes[0] < 8 << 20


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm") as figures:
        return int(figures.read().split()[1]) * mmap.PAGESIZE


async def test_what_was_kept_for_a_while_goes_back_to_the_system(pools: list[Pool]) -> None:
    kept: list[Any] = []
    idle: list[int] = []

    class Keeps(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            if event.epoch < 40:
                kept.append(event.model)
            elif event.epoch == 40:
                kept.clear()
            else:
                idle.append(pools[0].idle)

    with pytest.MonkeyPatch.context() as patch, anyio.fail_after(30):
        patch.setattr(budget, "SPARE", 0)
        await fit(Large(), epochs=50, callbacks=Keeps())
    assert max(idle[1:]) <= 5


async def test_params_tell_how_many_bytes_that_are() -> None:
    told: dict[str, Any] = {}

    class Reads(af.Callback):
        def on_train_begin(self, event: af.TrainBegin) -> None:
            told.update(event.params)

    with anyio.fail_after(30):
        await fit(Large(), epochs=1, callbacks=Reads(), lookahead=2)
    block = -(-80_000 // mmap.PAGESIZE) * mmap.PAGESIZE
    assert told["state_bytes"] == 80_000
    assert told["memory"] == 80_000 + (3 + 1 + 1 + (4 << 20) // block) * block
    large = {"w": np.zeros(1 << 23, np.uint8), "b": np.zeros(5, np.uint8)}
    copy = (1 << 23) + mmap.PAGESIZE
    assert budget.memory(large, lookahead=1, savers=1) == (1 << 23) + 5 + (2 + 1 + 1 + 2 + 2) * copy
    assert budget.memory(large, lookahead=0, remote=True) == 3 * ((1 << 23) + 5) + (1 + 1 + 1 + 2) * copy


@EXECUTORS
async def test_nobody_who_is_done_with_an_event_keeps_its_model(executor: Any, pools: list[Pool]) -> None:
    """Neither the run nor a subscriber that gets no other event for long."""
    in_use: list[int] = []

    class Begins(af.Callback):
        async def on_train_begin(self, event: af.TrainBegin) -> None:
            assert event.model.step == 0
            await anyio.lowlevel.checkpoint()

    class Counts(af.Callback):
        gates = "none"

        def on_epoch_end(self, event: af.EpochEnd) -> None:
            in_use.append(pools[0].in_use)

    async def once(event: af.BatchEnd) -> None:
        assert event.model.step == 300

    bus = af.EventBus()
    bus.subscribe(af.BatchEnd, once, gate=True, every=300)
    bus.subscribe(af.BatchEnd, once, snapshots=True, every=300)
    with anyio.fail_after(30):
        async with af.Trainer(Large()).fit(
            np.ones((4, 2)), np.ones(4), batch_size=2, epochs=200, callbacks=[Begins(), Counts()], bus=bus,
            executor=executor,
        ) as run:  # fmt: skip
            async for event in run.events(af.BatchEnd, snapshots=True, every=300):
                assert event.model.step == 300
                del event
    assert in_use[-1] == 0


def blocks(of: int | str) -> set[str]:
    """The blocks of a pool that a process has mapped, by inode."""
    found = set()
    try:
        with open(f"/proc/{of}/maps") as maps:
            for line in maps:
                fields = line.split()
                if "memfd:asyncfit" in line and fields[1].endswith("s"):  # what is handed over is mapped for one alone
                    found.add(fields[4])
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        pass
    return found


@pytest.mark.parametrize(
    "load", [each for each in LOADS if not each.inline and each.pace != 0 and each.lookahead in (1, 3)], ids=str
)
async def test_both_sides_of_a_process_have_no_more_copies_together(load: Load, tight: None) -> None:
    most: list[int] = []

    def look(event: af.EpochEnd) -> None:
        ours = blocks("self")
        theirs = [blocks(str(child)) for child in children()]
        most.append(len(set().union(ours, *theirs)))

    bus = af.EventBus()
    bus.subscribe(af.EpochEnd, look)
    x, y = np.ones((12, 2)), np.ones(12)

    async def slow(event: af.BatchEnd | af.EpochEnd) -> None:
        for _ in range(15):
            await anyio.lowlevel.checkpoint()

    if load.gate:
        bus.subscribe(af.BatchEnd, slow, gate=True, every=load.gate)
    if load.batches:
        bus.subscribe(af.BatchEnd, slow, snapshots=True, every=load.batches, buffer=1)
    callbacks = [] if load.pace is None else [Slow(load.pace, load.decides)]
    with anyio.fail_after(60):
        async with af.Trainer(Large()).fit(
            x, y, batch_size=2, epochs=15, callbacks=callbacks, bus=bus, lookahead=load.lookahead,
            executor="process", validation_data=(x, y) if load.validation else None,
        ):  # fmt: skip
            pass
    assert len(most) == 15
    kept = 2 * bool(load.batches)  # one waits for its handler, which has another one in its hands
    assert 1 <= max(most) <= load.lookahead + 5 + kept


@EXECUTORS
@pytest.mark.parametrize("overflow", ["newest", "wait"])
@pytest.mark.parametrize("lookahead", [0, 2])
async def test_a_saver_has_two_copies_more(
    executor: Any, overflow: Any, lookahead: int, tight: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is being written, and one that waits for that."""
    made: list[Peak] = []

    def pool(**how: Any) -> Peak:
        made.append(Peak(**how))
        return made[-1]

    for module in (executors.thread, executors.loopback):
        monkeypatch.setattr(module, "Pool", pool)
    backup = af.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=1, overflow=overflow)
    with anyio.fail_after(60):
        await fit(Large(), epochs=8, callbacks=[Slow(20, True), backup], lookahead=lookahead, executor=executor)
    most = budget.copies(Large().state(), lookahead=lookahead, savers=1)
    assert made[0].most == most == lookahead + 7
    assert made[0].peak <= most
    assert (made[0].in_use, made[0].idle) == (0, 0)


class Counted(Pool):
    """Knows how many blocks are held, also when it is closed."""

    held = 0

    def _taken(self, *what: Any) -> Any:
        Counted.held += 1
        return super()._taken(*what)

    def _left(self, block: Any) -> None:
        Counted.held -= 1
        super()._left(block)


async def test_no_state_waits_for_a_collection(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cycle of a few objects holds gigabytes as long as nobody looks for cycles."""
    monkeypatch.setattr(executors.thread, "Pool", Counted)
    monkeypatch.setattr(Counted, "held", 0)
    model = af.Sequential([af.layers.Input((64,)), af.layers.Dense(128, activation="relu"), af.layers.Dense(1)], seed=1)
    model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    x = np.random.default_rng(0).random((64, 64), np.float32)
    y = x[:, 0]
    uses: list[Callable[[af.Snapshot], Any]] = [
        lambda snapshot: snapshot.predict(x[:32]),
        lambda snapshot: snapshot.evaluate(x, y),
        lambda snapshot: snapshot.save(tmp_path / "model.h5"),
        lambda snapshot: anyio.to_thread.run_sync(snapshot.get_weights),
        lambda snapshot: model.predict(x[:32]),
        lambda snapshot: model.evaluate(x, y),
        lambda snapshot: model.save(tmp_path / "model.h5"),
        lambda snapshot: run.snapshot(),
    ]
    met: list[int] = []

    class Uses(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            await uses[event.epoch % len(uses)](event.model)
            met.append(Counted.held)
            event.restore_at_end(event.model)

    with anyio.fail_after(60):
        await model.fit(x, y, epochs=1)  # what is planned once
        gc.collect()
        gc.disable()
        try:
            async with model.fit(x, y, epochs=24, callbacks=Uses(), lookahead=1) as run:
                for use in uses[4:]:
                    await use(None)  # type: ignore[arg-type]
                with anyio.move_on_after(0):
                    await model.predict(x)
            await until(lambda: not Counted.held)  # the thread of the one that was cancelled may be at it
        finally:
            gc.enable()
    assert len(met) == 24
    assert max(met) <= 7, "two open, the newest, the one to be restored, those of predictions"

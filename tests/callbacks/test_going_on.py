"""What callbacks take along from a run that was cut to the one that goes on with it, and what they refuse to take."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

import asyncfit as af
from asyncfit.callbacks import (
    BackupAndRestore,
    CSVLogger,
    EarlyStopping,
    JSONLinesLogger,
    ModelCheckpoint,
    ReduceLROnPlateau,
    StopOnSignal,
    SwapEMAWeights,
    TimeLimit,
    writes,
)
from asyncfit.testing import Scripted

from .test_backup import HOW as FITS
from .test_backup import X, Y, deciders, network, same

pytestmark = pytest.mark.timeout(60)

ROWS = np.zeros((2, 1))
HOW: dict[str, Any] = {"batch_size": 1, "validation_data": (ROWS, ROWS)}


class StopsAfter(af.Callback):
    """Stops, to be continued, at the end of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.at = epoch

    def on_epoch_end(self, event: af.EpochEnd) -> None:
        if event.epoch == self.at:
            event.stop("later", resumable=True)


@pytest.mark.anyio
async def test_the_newest_wish_for_the_end_stays_the_newest(tmp_path: Path) -> None:
    """Two that restore the best weights: whoever asked last has it his way, also if a run was cut behind that."""
    figures: dict[str, Any] = {"loss": [1.0, 3.0, 3.0, 3.0, 3.0, 3.0], "val_loss": [5.0, 4.0, 3.0, 2.0, 3.0, 3.0]}

    def stoppers() -> list[af.Callback]:
        how: dict[str, Any] = {"patience": 9, "restore_best_weights": True}
        return [EarlyStopping("val_loss", **how), EarlyStopping("loss", **how)]

    whole, model = Scripted(**figures), Scripted(**figures)
    await af.Trainer(whole).fit(ROWS, ROWS, epochs=6, callbacks=stoppers(), **HOW)
    best = whole.epoch
    assert best < 5, "the last that was the best of anything"
    for more in ([StopsAfter(4)], []):
        model = Scripted(**figures)
        mine = [*stoppers(), BackupAndRestore(tmp_path / "backup", False), *more]
        await af.Trainer(model).fit(ROWS, ROWS, epochs=6, callbacks=mine, **HOW)
    assert model.epoch == best


@pytest.mark.anyio
async def test_a_checkpoint_waits_for_the_files_that_its_states_speak_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in between, the run that goes on would believe that the best model is in its file."""
    go, made = threading.Event(), writes._make_folder

    def waits(path: str) -> None:
        assert go.wait(20)
        made(path)

    monkeypatch.setattr(writes, "_make_folder", waits)
    bus, saved, backup = af.EventBus(), list[str](), tmp_path / "backup"
    bus.subscribe(af.CheckpointSaved, lambda event: saved.append(Path(event.path).name), name="saved")
    mine = [ModelCheckpoint(tmp_path / "best.h5", "loss", save_best_only=True), BackupAndRestore(backup)]
    model = Scripted([1.0, 2.0])
    with anyio.fail_after(20):
        async with af.Trainer(model).fit(ROWS, ROWS, epochs=2, callbacks=mine, bus=bus, **HOW) as run:
            await run._compute_over.wait()
            assert not saved
            assert not [name for name in os.listdir(backup) if name.endswith(".h5")]
            go.set()
    assert saved[0] == "best.h5"
    assert len(saved) > 1


@pytest.mark.anyio
async def test_files_that_were_being_written_are_deleted_in_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's last checkpoint waits for ModelCheckpoint's file no longer than the end of the run takes."""
    go, made = threading.Event(), writes._make_folder

    def waits(path: str) -> None:
        assert go.wait(20)
        made(path)

    monkeypatch.setattr(writes, "_make_folder", waits)
    for more in ([StopsAfter(1)], []):
        bus = af.EventBus()
        bus.subscribe(af.CheckpointSaved, lambda event: go.set(), name="goes on")
        mine = [ModelCheckpoint(tmp_path / "{epoch}.h5", keep_last=1), BackupAndRestore(tmp_path / "backup", False)]
        model = Scripted([1.0])
        await af.Trainer(model).fit(ROWS, ROWS, epochs=4, callbacks=[*mine, *more], bus=bus, drain_timeout=0.1, **HOW)
    assert os.listdir(tmp_path) == ["4.h5"]


BAD: list[Any] = [np.zeros((3, 3)), "x\0", None, [1, {"a": 2}], 2**70, True, np.array(1j), -7]
NUMBERS = [np.int64(3), np.array(3), 3]


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_a_state_of_another_kind_is_refused_and_changes_nothing(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for made in (
        EarlyStopping(),
        ReduceLROnPlateau(),
        ModelCheckpoint(path.with_suffix(".h5")),
        CSVLogger(path),
        JSONLinesLogger(path),
        SwapEMAWeights(),
    ):
        before = made.state_dict()
        for name, kind in made.keeps.items():
            if (kind is np.ndarray and isinstance(value, np.ndarray)) or (kind is float and value is BAD[-1]):
                continue
            with pytest.raises(af.InvalidInput, match="state"):
                made.load_state_dict({**before, name: value})
            if not isinstance(made, CSVLogger | ModelCheckpoint):
                assert made.state_dict() == before


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_numbers_are_numbers_however_a_file_gives_them_back(value: Any) -> None:
    plateau = ReduceLROnPlateau()
    plateau.load_state_dict({"wait": value, "best": value})
    assert plateau.state_dict() == {"wait": 3, "best": 3.0, "cooldown_counter": 0}
    assert type(plateau.best) is float


class Broken(af.Callback):
    """Has a state that it does not take back."""

    def on_epoch_end(self, event: af.EpochEnd) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {"a": 1}

    def load_state_dict(self, state: Any) -> None:
        raise ValueError("not this")


@pytest.mark.anyio
async def test_what_was_loaded_for_a_run_that_never_began_is_forgotten(tmp_path: Path) -> None:
    backup = BackupAndRestore(tmp_path, False)
    stopping = EarlyStopping("loss", patience=9)
    first = [stopping, Broken(), StopsAfter(2), backup]
    await af.Trainer(Scripted([1.0])).fit(ROWS, ROWS, epochs=6, callbacks=first, **HOW)
    stopping = EarlyStopping("loss", patience=9)
    with pytest.raises(ValueError, match="not this"):
        await af.Trainer(Scripted([1.0])).fit(ROWS, ROWS, epochs=6, callbacks=[stopping, Broken(), backup], **HOW)
    assert len(os.listdir(tmp_path)) == 1
    await af.Trainer(Scripted([5.0])).fit(ROWS, ROWS, epochs=2, callbacks=stopping, **HOW)
    assert (stopping.best, stopping.best_epoch) == (5.0, 0)


class Clock(TimeLimit):
    """Tells when its time is up."""

    async def _expire(self, event: af.TrainBegin) -> None:
        await super()._expire(event)
        self.over.set()

    def on_train_begin(self, event: af.TrainBegin) -> None:
        self.over = anyio.Event()
        super().on_train_begin(event)


class Cuts(af.Callback):
    """In the middle of an epoch the process gets a signal, or the time is up."""

    gates = "batch"

    def __init__(self, clock: Clock | None) -> None:
        self.clock = clock

    async def on_batch_end(self, event: af.BatchEnd) -> None:
        if event.step == 6 and self.clock is None:
            signal.raise_signal(signal.SIGTERM)
        if event.step == 6 and self.clock is not None:
            await self.clock.over.wait()


@pytest.mark.anyio
@pytest.mark.parametrize("who", ["signal", "time"])
async def test_stopped_by_a_signal_or_by_the_clock_it_goes_on(who: str, tmp_path: Path) -> None:
    whole, cut, model = network(), network(), network()
    await whole.fit(X, Y, epochs=4, callbacks=deciders(), **FITS)
    clock = Clock(0.01) if who == "time" else None
    stops = [clock or StopOnSignal(), Cuts(clock), BackupAndRestore(tmp_path)]
    first = await cut.fit(X, Y, epochs=4, callbacks=[*deciders(), *stops], **FITS)
    assert (first.outcome, len(first.epoch)) == ("stopped", 1)
    history = await model.fit(X, Y, epochs=4, callbacks=[*deciders(), BackupAndRestore(tmp_path)], **FITS)
    assert (history.outcome, len(history.epoch)) == ("completed", 4)
    same(model, whole)

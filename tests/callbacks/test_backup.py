"""`BackupAndRestore`: nothing of a run is lost, one run at a time, and what is written is bounded, told and deleted."""

from __future__ import annotations

import errno
import gc
import inspect
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import pytest

import asyncfit as af
from asyncfit import layers
from asyncfit.backups import Directory, file_name
from asyncfit.callbacks import BackupAndRestore, EarlyStopping, ReduceLROnPlateau
from asyncfit.formats.checkpoint_h5 import Writer
from asyncfit.resuming import Resumed, newest
from asyncfit.saving import Checkpoint, Occasion
from tests.run.helpers import Linear, nothing_left, until

pytestmark = [pytest.mark.in_turn, pytest.mark.timeout(120)]

ROOT = Path(__file__).parent.parent.parent
RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(44, 5)).astype("float32"), RNG.normal(size=(44, 1)).astype("float32")
HOW: dict[str, Any] = {"batch_size": 8, "validation_split": 0.25}
"""33 rows to train on: five batches an epoch."""


def network(units: int = 8) -> af.Sequential:
    model = af.Sequential(
        [layers.Input((5,)), layers.Dense(units, "relu"), layers.Dropout(0.3), layers.Dense(1)], seed=5
    )
    model.compile("adam", "mse", metrics=["mae"])
    return model


def deciders() -> list[af.Callback]:
    return [EarlyStopping(patience=30, restore_best_weights=True), ReduceLROnPlateau(patience=1, factor=0.5)]


def watched() -> tuple[af.EventBus, list[Any]]:
    seen: list[Any] = []
    bus = af.EventBus()
    bus.subscribe(af.Event, seen.append, name="seen", overflow="block")
    return bus, seen


def only(events: list[Any], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def saved(events: list[Any]) -> list[int]:
    return [event.step for event in only(events, af.CheckpointSaved)]


def same(one: af.Sequential, other: af.Sequential) -> None:
    ours, theirs = one.state(), other.state()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


class Fails(af.Callback):
    """Ends the run with an error when a batch has been done."""

    def __init__(self, step: int) -> None:
        self.at, self.gates = step, "batch"

    def on_batch_end(self, event: af.BatchEnd) -> None:
        if event.step == self.at:
            raise RuntimeError("the lights went out")


class Stops(af.Callback):
    def __init__(self, step: int, **how: Any) -> None:
        self.at, self.how, self.gates = step, how, "batch"

    def on_batch_end(self, event: af.BatchEnd) -> None:
        if event.step == self.at:
            event.stop("enough", **self.how)


class Settles(af.Callback):
    """Holds each batch until what was to be written for the one before is."""

    gates = "batch"
    order = 300

    def __init__(self, backup: BackupAndRestore) -> None:
        self.backup = backup

    async def on_batch_begin(self, event: af.BatchBegin) -> None:
        await until(lambda: not self.backup._places)

    async def on_epoch_begin(self, event: af.EpochBegin) -> None:
        await until(lambda: not self.backup._places)


class Paces(af.Callback):
    """Holds each batch until the checkpoint of the one before is whole."""

    gates = "batch"

    def __init__(self, backup: BackupAndRestore) -> None:
        self.backup = backup

    async def on_batch_begin(self, event: af.BatchBegin) -> None:
        await until(lambda: all(place.whole for place in self.backup._places))


class Disk:
    """A disk that can be slow, and full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes: list[str] = []
        self.began, self.free = threading.Event(), threading.Event()
        self.free.set()
        self.error: Exception | None = None
        real = Writer.write

        def write(writer: Writer, path: str, content: Any) -> int:
            self.writes.append(os.path.basename(path))
            self.began.set()
            assert self.free.wait(60)
            if self.error is not None:
                raise self.error
            return real(writer, path, content)

        monkeypatch.setattr(Writer, "write", write)

    @property
    def steps(self) -> list[int]:
        return [int(name[16:28]) for name in self.writes]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(monkeypatch)
    yield made
    made.free.set()


def full() -> af.CheckpointError:
    return af.CheckpointError(errno.ENOSPC, "the file was not written: the disk is full", "x")


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.exists() else []


def size_of(path: str) -> int:
    return os.path.getsize(path)


def checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.h5"))


# --- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("save_freq", ["epoch", 1, 3])
async def test_the_same_script_again_goes_on_to_the_same_end(save_freq: Any, executor: str, tmp_path: Path) -> None:
    first = network()
    undisturbed = await first.fit(X, Y, callbacks=deciders(), epochs=6, executor=executor, **HOW)
    folder = tmp_path / "backup"

    def script(*more: af.Callback, bus: af.EventBus | None = None) -> tuple[af.Sequential, af.Fit]:
        model = network()
        backup = BackupAndRestore(folder, save_freq)
        mine = [*deciders(), backup, Settles(backup), *more]
        return model, model.fit(X, Y, callbacks=mine, epochs=6, executor=executor, bus=bus, **HOW)

    ids: list[str] = []
    for attempt, at in enumerate((7, 13, 28)):
        bus, seen = watched()
        with pytest.raises(RuntimeError, match="the lights went out"):
            await script(Fails(at), bus=bus)[1]
        every = 5 if save_freq == "epoch" else save_freq
        begin = only(seen, af.TrainBegin)[0]
        resumed = begin.params["resumed"]
        before = 0 if resumed is None else resumed["step"]
        assert (begin.attempt, before) == (attempt, [0, 7, 13][attempt] // every * every)
        assert saved(seen) == [step for step in range(before + 1, at + 1) if step % every == 0]
        assert files(folder)[-1] == file_name(attempt, at // every * every)
        ids += [event.id for event in seen if event.run_id]
    bus, seen = watched()
    model, last = script(bus=bus)
    history = await last
    ids += [event.id for event in seen if event.run_id]
    assert len(set(ids)) == len(ids)
    same(model, first)
    assert history.history == undisturbed.history
    assert history.epoch == undisturbed.epoch
    assert not folder.exists()


@pytest.mark.anyio
async def test_a_file_is_a_model_too(tmp_path: Path) -> None:
    model = network()
    bus, seen = watched()
    await model.fit(X, Y, callbacks=BackupAndRestore(tmp_path, delete_checkpoint=False), epochs=2, bus=bus, **HOW)
    event = only(seen, af.CheckpointSaved)[-1]
    assert size_of(event.path) == event.size
    same(await af.load_model(event.path), model)


KILLED = """
import os, sys
import numpy as np
import asyncfit as af
from asyncfit import layers
from asyncfit.callbacks import BackupAndRestore

rng = np.random.default_rng(3)
x, y = rng.normal(size=(40, 5)).astype("float32"), rng.normal(size=(40, 1)).astype("float32")
model = af.Sequential([layers.Input((5,)), layers.Dense(4), layers.Dense(1)], seed=5)
model.compile("adam", "mse")
folder, at = sys.argv[1], int(sys.argv[2])
bus = af.EventBus()

@bus.on(af.CheckpointSaved)
def die(event):
    if 0 <= at <= event.step:
        os.kill(os.getpid(), 9)

callbacks = [BackupAndRestore(folder, 2, overflow="wait")] if folder else []
history = model.fit(x, y, epochs=30, batch_size=8, callbacks=callbacks, bus=bus).blocking()
print(repr(history.history["loss"][-1]), len(history.epoch), model.state()["params"].tobytes().hex())
"""


def test_a_killed_process_is_gone_on_with(tmp_path: Path) -> None:
    def script(folder: Path | str, at: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, str(folder), str(at)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    undisturbed = script("", -1)
    folder = tmp_path / "backup"
    for attempt, at in enumerate((0, 30, 80)):
        killed = script(folder, at)
        assert (killed.returncode, killed.stderr) == (-9, "")
        assert ".lock" in files(folder)
        assert files(folder)[-1].startswith(f"checkpoint-000{attempt}-")
    last = script(folder, -1)
    assert last.stderr == ""
    assert (last.returncode, last.stdout) == (0, undisturbed.stdout)
    assert files(tmp_path) == []


@pytest.mark.anyio
async def test_an_attempt_without_a_file_has_had_its_number(tmp_path: Path) -> None:
    """It was killed, or cancelled, before its first checkpoint: its events were seen, the very first one included."""
    attempts: list[int] = []
    written: list[int] = []

    class Looks(af.Callback):
        def on_train_begin(self, event: af.TrainBegin) -> None:
            written.append(json.loads((tmp_path / ".lock").read_text())["attempt"])

    for at in (6, 5, 5, 5):
        bus, seen = watched()
        backup = BackupAndRestore(tmp_path, 5)
        mine = [Looks(), backup, Settles(backup), Fails(at)]
        with pytest.raises(RuntimeError, match="the lights went out"):
            await network().fit(X, Y, callbacks=mine, epochs=3, bus=bus, **HOW)
        attempts.append(only(seen, af.TrainBegin)[0].attempt)
        assert only(seen, af.TrainBegin)[0].id.split(":")[1] == str(attempts[-1])
    assert attempts == [0, 1, 2, 3]
    assert written[1:] == attempts[1:]


@pytest.mark.anyio
@pytest.mark.parametrize("begins", [True, False])
async def test_a_number_is_used_up_when_the_run_begins(begins: bool, tmp_path: Path) -> None:
    """Whatever its end was like: it may be cut off before it hears of it."""
    await interrupted(tmp_path)
    backup = BackupAndRestore(tmp_path)
    found = await anyio.to_thread.run_sync(backup.find, "r")
    assert found is not None
    assert found.attempt == 1
    if begins:
        event = af.TrainBegin(run_id=found.run["run_id"], attempt=1, seq=1, time=0.0, params={"epochs": 4})
        await backup.on_train_begin(event)
    backup.release()
    backup.release()
    assert (".lock" in files(tmp_path)) is begins
    found = await anyio.to_thread.run_sync(backup.find, "r")
    assert found is not None
    assert found.attempt == 1 + begins
    backup.release()


@pytest.mark.anyio
async def test_by_time_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    rows = 10**6
    trainer, (bus, seen) = af.Trainer(Linear()), watched()
    backup = BackupAndRestore(tmp_path, False, every_s=0.05)
    how: dict[str, Any] = {"batch_size": 1, "shuffle": False, "bus": bus}
    async with trainer.fit(np.zeros((rows, 2)), np.zeros(rows), callbacks=backup, **how) as run:
        await until(lambda: len(saved(seen)) >= 3)
        run.stop("seen enough", resumable=True)
    assert only(seen, af.EpochEnd)[-1].epoch == 0
    assert len(saved(seen)) >= 4
    assert files(tmp_path)[-1] == file_name(0, run.progress.step)
    again, (bus, seen) = af.Trainer(Linear()), watched()
    how["bus"] = bus
    async with again.fit(np.zeros((rows, 2)), np.zeros(rows), callbacks=backup, **how) as run:
        await until(lambda: seen)
        run.stop()
    assert only(seen, af.TrainBegin)[0].params["resumed"]["batch"] > 0
    assert files(tmp_path) == []


@pytest.mark.anyio
async def test_a_run_that_was_complete_has_nothing_left_to_do_or_only_the_further_epochs(tmp_path: Path) -> None:
    """However fast the epochs are: if the files are to stay, the last one is written."""
    first, longer = network(), network()
    backup = BackupAndRestore(tmp_path, delete_checkpoint=False)
    undisturbed = await first.fit(X, Y, callbacks=backup, epochs=3, **HOW)
    whole = await longer.fit(X, Y, epochs=5, **HOW)
    for epochs, end, history in ((3, first, undisturbed), (5, longer, whole)):
        again, (bus, seen) = network(), watched()
        told = await again.fit(X, Y, callbacks=backup, epochs=epochs, bus=bus, **HOW)
        assert (told.outcome, told.history) == ("completed", history.history)
        assert len(only(seen, af.EpochEnd)) == epochs - 3
        same(again, end)


@pytest.mark.anyio
async def test_one_that_goes_on_from_elsewhere_is_written_down_as_what_it_is(tmp_path: Path) -> None:
    """`resume=` names another directory: the attempt is of that run, and its number is remembered here too."""
    await interrupted(tmp_path / "one")
    seen: list[Any] = []

    class Looks(af.Callback):
        order = 300

        def on_epoch_begin(self, event: af.EpochBegin) -> None:
            seen.append((event.run_id, event.attempt, json.loads((tmp_path / "two" / ".lock").read_text())))

    async def fails() -> None:
        how: dict[str, Any] = {"epochs": 4, "resume": tmp_path / "one"}
        await network().fit(X, Y, callbacks=[BackupAndRestore(tmp_path / "two"), Looks(), Fails(17)], **how, **HOW)

    for attempt in (1, 2):
        with pytest.raises(RuntimeError, match="the lights went out"):
            await fails()
        run, number, lock = seen[-1]
        assert (number, lock["run"], lock["attempt"]) == (attempt, run, attempt)
        assert files(tmp_path / "two")[-1] == file_name(1, 15)  # the second goes on from there, and comes to no other
    assert seen[0][0] == seen[-1][0]


# --- damage ----------------------------------------------------------------------------------------------------------


async def interrupted(folder: Path, at: int = 13, **how: Any) -> None:
    """A run that left checkpoints at every second batch."""
    backup = BackupAndRestore(folder, 2, keep=9, **how)
    with pytest.raises(RuntimeError, match="the lights went out"):
        await network().fit(X, Y, callbacks=[backup, Settles(backup), Fails(at)], epochs=4, **HOW)


@pytest.mark.anyio
async def test_of_damaged_files_the_one_before_is_used_and_they_go(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = network()
    undisturbed = await first.fit(X, Y, epochs=4, **HOW)
    await interrupted(tmp_path)
    paths = checkpoints(tmp_path)
    assert [path.name for path in paths] == [file_name(0, step) for step in (2, 4, 6, 8, 10, 12)]
    paths[-1].write_bytes(paths[-1].read_bytes()[:-100])
    content = bytearray(paths[-2].read_bytes())
    content[4096:-4096] = bytes(byte ^ 1 for byte in content[4096:-4096])
    paths[-2].write_bytes(content)
    model, (bus, seen) = network(), watched()
    prune, left = Directory.prune, []

    def looks(directory: Directory, keep: int, damaged: Any = ()) -> None:
        prune(directory, keep, damaged)
        left.append([(file.attempt, file.step) for file in directory.listed()])

    monkeypatch.setattr(Directory, "prune", looks)
    backup = BackupAndRestore(tmp_path, 2)
    mine = [backup, Settles(backup)]
    with caplog.at_level(logging.WARNING, "asyncfit"):
        history = await model.fit(X, Y, callbacks=mine, bus=bus, epochs=4, **HOW)
    same(model, first)
    assert history.history == undisturbed.history
    assert only(seen, af.TrainBegin)[0].params["resumed"]["step"] == 8
    failed = only(seen, af.CheckpointFailed)
    assert [event.path for event in failed] == [str(paths[-1]), str(paths[-2])]
    assert all(isinstance(event.error, af.BadFile) for event in failed)
    assert [record.message.split(" ")[0] for record in caplog.records] == [str(paths[-1]), str(paths[-2])]
    assert left[:2] == [[(0, 8), (1, 10)], [(1, 10), (1, 12)]]  # always two that can be read


@pytest.mark.anyio
async def test_if_none_is_whole_nothing_is_begun_anew_behind_ones_back(tmp_path: Path) -> None:
    await interrupted(tmp_path)
    for path in checkpoints(tmp_path):
        path.write_bytes(b"")
    before = files(tmp_path)
    bus, seen = watched()
    with pytest.raises(af.BadFile, match="Delete them if training is to begin anew") as caught:
        await network().fit(X, Y, callbacks=BackupAndRestore(tmp_path), bus=bus, **HOW)
    assert before[0] in str(caught.value)
    assert files(tmp_path) == before
    assert not only(seen, af.TrainBegin)
    Directory(str(tmp_path)).open()  # it is free


@pytest.mark.anyio
async def test_another_model_is_refused_and_takes_nothing(tmp_path: Path) -> None:
    await interrupted(tmp_path)
    before = files(tmp_path)
    model, backup = network(9), BackupAndRestore(tmp_path)
    with pytest.raises(af.InvalidInput, match="units was 8 and is 9"):
        await model.fit(X, Y, callbacks=backup, **HOW)
    assert files(tmp_path) == before
    bus, seen = watched()
    await network().fit(X, Y, callbacks=backup, bus=bus, epochs=4, **HOW)
    assert only(seen, af.TrainBegin)[0].attempt == 1


# --- one at a time ---------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_second_run_is_refused_by_name_before_anything_starts(tmp_path: Path) -> None:
    async with network().fit(X, Y, callbacks=BackupAndRestore(tmp_path), epochs=10**6, run_id="first", **HOW) as run:
        bus, seen = watched()
        model = network()
        with pytest.raises(af.DirectoryBusy, match=rf"run 'first' of this process \({os.getpid()}") as caught:
            await model.fit(X, Y, callbacks=BackupAndRestore(tmp_path), bus=bus, **HOW)
        assert caught.value.run_id == "first"
        assert not [event for event in seen if event.run_id]
        await model.fit(X, Y, **HOW)  # neither the model nor the first run has anything of it
        run.stop()
    assert run.outcome == "stopped"


@pytest.mark.anyio
@pytest.mark.parametrize("when", ["start", "TrainBegin"])
async def test_a_directory_that_cannot_be_written_fails_before_anything_starts(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    backup = BackupAndRestore(tmp_path / "backup")
    monkeypatch.setattr(os, "pwrite" if when == "start" else "makedirs", fail)
    bus, seen = watched()
    with nothing_left(), pytest.raises(af.CheckpointError, match=os.strerror(errno.ENOSPC)):
        await network().fit(X, Y, callbacks=backup, bus=bus, **HOW)
    assert not only(seen, af.TrainBegin)
    assert files(tmp_path) == []


@pytest.mark.anyio
async def test_a_directory_that_vanishes_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, (bus, seen) = tmp_path / "backup", watched()
    backup = BackupAndRestore(folder, 1)

    class Vanishes(af.Callback):
        gates = "batch"

        def on_batch_end(self, event: af.BatchEnd) -> None:
            if event.step == 3:
                os.rename(folder, tmp_path / "old")

    mine = [backup, Settles(backup), Vanishes()]
    with caplog.at_level(logging.WARNING, "asyncfit"):
        await network().fit(X, Y, callbacks=mine, epochs=2, bus=bus, **HOW)
    assert "was removed while run" in caplog.text
    assert saved(seen) == list(range(1, 11))
    assert files(tmp_path) == ["old"]


# --- ends ------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("delete", [True, False])
@pytest.mark.parametrize("end", ["completed", "stopped", "resumable", "cancelled", "failed"])
async def test_what_stays_when_it_ends(end: str, delete: bool, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    backup = BackupAndRestore(folder, 1, delete_checkpoint=delete)
    more: list[af.Callback] = [Settles(backup)]
    if end in ("stopped", "resumable"):
        more.append(Stops(6, resumable=end == "resumable"))
    elif end == "failed":
        more.append(Fails(6))
    with nothing_left():

        async def run_it() -> None:
            async with network().fit(
                X, Y, callbacks=[backup, *more], epochs=2 if end == "completed" else 99, **HOW
            ) as run:
                if end == "cancelled":
                    await until(lambda: run.progress.step > 6)
                    run.cancel("not today")
                    await anyio.sleep_forever()

        if end == "cancelled":
            with pytest.raises(af.RunCancelled):
                await run_it()
        elif end == "failed":
            with pytest.raises(RuntimeError, match="the lights went out"):
                await run_it()
        else:
            await run_it()
    if end in ("completed", "stopped") and delete:
        assert files(tmp_path) == []
        return
    there = files(folder)
    assert len(there) == 2
    assert all(name.startswith("checkpoint-0000-") for name in there)
    if end == "resumable":
        assert there[-1] == file_name(0, 7)
    directory = Directory(str(folder))
    directory.open()  # it is free
    directory.close()


@pytest.mark.anyio
async def test_a_run_that_never_begins_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    with nothing_left(), pytest.raises(RuntimeError, match="no"):
        async with network().fit(X, Y, callbacks=BackupAndRestore(folder), **HOW):
            raise RuntimeError("no")
    assert files(tmp_path) == []
    network().fit(X, Y, callbacks=BackupAndRestore(folder), **HOW).close()
    assert files(tmp_path) == []


@pytest.mark.anyio
async def test_one_object_serves_one_run_after_another(tmp_path: Path) -> None:
    backup, firsts = BackupAndRestore(tmp_path / "backup", 2), []
    for _ in range(2):
        bus, seen = watched()
        await network().fit(X, Y, callbacks=[backup, Settles(backup)], epochs=2, bus=bus, **HOW)
        firsts.append(only(seen, af.TrainBegin)[0])
        assert saved(seen) == [2, 4, 6, 8, 10]
    assert [(event.attempt, event.params["resumed"]) for event in firsts] == [(0, None)] * 2
    assert firsts[0].run_id != firsts[1].run_id
    assert files(tmp_path) == []


# --- slots -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_of_those_that_wait_the_newest_is_written(disk: Disk, tmp_path: Path) -> None:
    disk.free.clear()
    most: list[int] = []
    backup = BackupAndRestore(tmp_path, 1)
    bus, seen = watched()
    bus.subscribe(af.BatchEnd, lambda event: most.append(len(backup._places)), name="looks")
    async with network().fit(X, Y, callbacks=[backup, Paces(backup)], epochs=4, bus=bus, **HOW):
        await until(lambda: backup._places and backup._places[-1].step == 20 and backup._places[-1].waits)
        assert disk.steps == [1]
        disk.free.set()
    assert saved(seen) == disk.steps == [1, 20]
    assert max(most) == 2


class Slow(af.Callback):
    """Takes its time with each batch, so that its state of a batch is not to be had before."""

    gates = "none"

    def __init__(self) -> None:
        self.go, self.seen = anyio.Event(), 0

    async def on_batch_end(self, event: af.BatchEnd) -> None:
        await self.go.wait()
        self.seen = event.step + 1

    def state_dict(self) -> Mapping[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen = state["seen"]


@pytest.mark.anyio
async def test_one_that_is_being_collected_does_not_give_way(disk: Disk, tmp_path: Path) -> None:
    """Else none would ever be whole."""
    offered: list[int] = []

    class Sees(BackupAndRestore):
        def accept(self, occasion: Occasion) -> bool:
            offered.append(occasion.position.step)
            return super().accept(occasion)

    class Reads(af.Callback):
        def on_train_begin(self, event: af.TrainBegin) -> None:
            self.found: list[Any] = []

        def on_checkpoint_saved(self, event: af.CheckpointSaved) -> None:
            found = newest([event.path])
            assert found is not None
            self.found.append((event.step, Resumed.of(found).callbacks["Slow"]))

        def on_train_end(self, event: af.TrainEnd) -> None:
            """Only behind it the files are deleted."""

    slow, backup, reads = Slow(), Sees(tmp_path, 1, keep=9), Reads()
    async with network().fit(X, Y, callbacks=[slow, backup, reads], epochs=4, **HOW):
        await until(lambda: len(offered) == 20)
        assert len(backup._places) == 2
        assert disk.steps == []
        slow.go.set()
    assert reads.found == [(1, {"seen": 1}), (2, {"seen": 2})]


@pytest.mark.anyio
async def test_training_waits_if_all_are_to_be_written(disk: Disk, tmp_path: Path) -> None:
    rows, most, matrix = 2000, [], np.eye(60)
    backup, model = BackupAndRestore(tmp_path, 3, overflow="wait"), Linear(lambda model: np.linalg.svd(matrix))
    bus, seen = watched()
    bus.subscribe(af.BatchEnd, lambda event: most.append(len(backup._places)), name="looks", overflow="block")
    disk.free.clear()
    how: dict[str, Any] = {"batch_size": 1, "shuffle": False, "epochs": 1}
    async with af.Trainer(model).fit(np.zeros((rows, 2)), np.zeros(rows), callbacks=backup, bus=bus, **how) as run:
        await until(lambda: len(backup._places) >= 2)
        at = -1
        while at != run.progress.step:  # until it stands still
            at = run.progress.step
            with anyio.fail_after(20):
                for _ in range(200):
                    await anyio.sleep(0.001)
        assert at < rows
        assert disk.steps == [3]
        disk.free.set()
        await until(lambda: run.progress.step > at)
        run.stop("seen", resumable=True)
    last = run.progress.step
    assert list(dict.fromkeys(disk.steps)) == [*range(3, last, 3), last]  # that of the stop may be of the same batch
    assert saved(seen) == disk.steps


@pytest.mark.anyio
async def test_a_stop_while_training_waits(disk: Disk, tmp_path: Path) -> None:
    backup = BackupAndRestore(tmp_path, 1, overflow="wait")
    disk.free.clear()
    async with network().fit(X, Y, callbacks=backup, epochs=10**5, **HOW) as run:
        await until(lambda: len(backup._places) >= 2)
        run.stop("enough")
        disk.free.set()
    assert run.outcome == "stopped"
    assert files(tmp_path) == []


@pytest.mark.anyio
@pytest.mark.parametrize("overflow", ["newest", "wait"])
async def test_a_cancellation_while_a_slow_disk_writes(overflow: Any, disk: Disk, tmp_path: Path) -> None:
    """What is being written is finished and told of, however long that takes; what waits is cut off."""
    backup, (bus, seen) = BackupAndRestore(tmp_path, 1, overflow=overflow), watched()
    disk.free.clear()

    async def run_it() -> None:
        async with network().fit(X, Y, callbacks=backup, epochs=10**5, grace=0.1, bus=bus, **HOW) as run:
            await until(lambda: len(backup._places) >= 2 and backup._places[-1].whole)
            run.cancel("now")
            await until(lambda: len(backup._places) == 1)
            disk.free.set()
            await anyio.sleep_forever()

    with nothing_left(), pytest.raises(af.RunCancelled):
        await run_it()
    assert disk.steps == saved(seen) == [1]
    assert files(tmp_path) == [file_name(0, 1)]
    Directory(str(tmp_path)).open()


@pytest.mark.anyio
@pytest.mark.parametrize("resumable", [False, True])
async def test_one_that_hangs_does_not_hold_the_end_of_the_run(resumable: bool, tmp_path: Path) -> None:
    """It has the time that it would have without checkpoints, then the checkpoint that needs its state is none."""
    slow, backup, (bus, seen) = Slow(), BackupAndRestore(tmp_path, 1), watched()
    stops = [Stops(3, resumable=True)] if resumable else []
    run = network().fit(X, Y, callbacks=[slow, backup, *stops], epochs=1, bus=bus, drain_timeout=0.2, **HOW)
    with nothing_left(), anyio.fail_after(20):
        if resumable:
            with pytest.raises(af.CheckpointError, match=r"drain_timeout=\): Slow \(.*test_backup.py:"):
                await run
        else:
            await run
    assert saved(seen) == []
    assert len(only(seen, af.CheckpointFailed)) >= 1
    assert seen[-1].outcome == ("failed" if resumable else "completed")


# --- a resumable stop ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("overflow", ["newest", "wait"])
async def test_the_last_checkpoint_of_a_resumable_stop_finds_a_place(overflow: Any, disk: Disk, tmp_path: Path) -> None:
    """One is being written, one waits, and both places are taken."""
    first = network()
    undisturbed = await first.fit(X, Y, epochs=200, **HOW)
    backup = BackupAndRestore(tmp_path, 1, overflow=overflow, keep=999)
    disk.free.clear()
    more = [Stops(12, resumable=True)] if overflow == "newest" else []  # where training waits it never comes to 12
    async with network().fit(X, Y, callbacks=[backup, *more], epochs=200, **HOW) as run:
        if overflow == "wait":
            await until(lambda: len(backup._places) >= 2 and backup._places[1].whole)
            run.stop("later", resumable=True)
        await until(lambda: any(place.final for place in backup._places))
        disk.free.set()
    last = run.progress.step
    assert list(dict.fromkeys(disk.steps)) == (list(range(1, last + 1)) if overflow == "wait" else [1, 13])
    assert files(tmp_path)[-1] == file_name(0, last)
    again = network()
    again_backup = BackupAndRestore(tmp_path, False)
    history = await again.fit(X, Y, callbacks=again_backup, epochs=200, **HOW)
    same(again, first)
    assert history.history == undisturbed.history


@pytest.mark.anyio
async def test_the_last_checkpoint_of_a_resumable_stop_takes_the_place_of_those_being_collected(
    disk: Disk, tmp_path: Path
) -> None:
    slow, backup, (bus, seen) = Slow(), BackupAndRestore(tmp_path, 1), watched()
    async with network().fit(X, Y, callbacks=[slow, backup], epochs=10**4, bus=bus, **HOW) as run:
        await until(lambda: len(backup._places) == 2)
        run.stop("later", resumable=True)
        await until(lambda: len(backup._places) == 3)
        slow.go.set()
    last = run.progress.step
    assert saved(seen)[-1] == last
    assert files(tmp_path)[-1] == file_name(0, last)
    assert len(saved(seen)) <= 3


@pytest.mark.anyio
@pytest.mark.parametrize("on_error", ["log", "raise", "detach"])
async def test_a_resumable_stop_that_cannot_leave_its_checkpoint_fails(
    on_error: Any, disk: Disk, tmp_path: Path
) -> None:
    disk.error = full()
    backup, (bus, seen) = BackupAndRestore(tmp_path, False), watched()
    backup.on_error = on_error
    with pytest.raises(af.CheckpointError, match="the disk is full"):
        await network().fit(X, Y, callbacks=[backup, Stops(3, resumable=True)], bus=bus, **HOW)
    assert [event.step for event in only(seen, af.CheckpointFailed)] == [4]
    assert seen[-1].outcome == "failed"


@pytest.mark.anyio
async def test_without_save_freq_only_a_resumable_stop_is_saved(tmp_path: Path) -> None:
    bus, seen = watched()
    await network().fit(X, Y, callbacks=BackupAndRestore(tmp_path, False), epochs=3, bus=bus, **HOW)
    assert saved(seen) == []
    callbacks = [BackupAndRestore(tmp_path, False), Stops(7, resumable=True)]
    await network().fit(X, Y, callbacks=callbacks, epochs=3, bus=bus, **HOW)
    assert saved(seen) == [8]


# --- what is told, and when ------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_older_files_go_when_the_newer_one_is_durable_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prune, pruned = Directory.prune, []

    def looks(directory: Directory, keep: int, damaged: Any = ()) -> None:
        there = [file.step for file in directory.listed()]
        prune(directory, keep, damaged)
        pruned.append((there, [file.step for file in directory.listed()]))

    monkeypatch.setattr(Directory, "prune", looks)
    backup = BackupAndRestore(tmp_path, 2, keep=2)
    sizes: list[tuple[int, int]] = []

    class Looks(af.Callback):
        def on_checkpoint_saved(self, event: af.CheckpointSaved) -> None:
            sizes.append((event.size, size_of(event.path)))
            assert 0 <= event.seconds < 60
            assert len(pruned) <= len(sizes)

    await network().fit(X, Y, callbacks=[backup, Settles(backup), Looks()], epochs=2, **HOW)
    assert pruned == [
        ([2], [2]), ([2, 4], [2, 4]), ([2, 4, 6], [4, 6]), ([4, 6, 8], [6, 8]), ([6, 8, 10], [8, 10]),
    ]  # fmt: skip
    assert len(sizes) == 5
    assert all(told == real for told, real in sizes)


@pytest.mark.anyio
async def test_nothing_is_deleted_for_a_file_that_was_not_written(disk: Disk, tmp_path: Path) -> None:
    backup = BackupAndRestore(tmp_path, 1, keep=1)

    class Fills(af.Callback):
        gates = "batch"

        def on_batch_end(self, event: af.BatchEnd) -> None:
            if event.step == 3:
                disk.error = full()

    with pytest.raises(RuntimeError, match="the lights went out"):
        await network().fit(X, Y, callbacks=[backup, Settles(backup), Fills(), Fails(8)], epochs=3, **HOW)
    assert disk.steps[-1] == 8
    assert files(tmp_path) == [file_name(0, 3)]


@pytest.mark.anyio
async def test_a_failed_write_is_told_and_tried_again_at_the_next_occasion(
    disk: Disk, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backup, (bus, seen) = BackupAndRestore(tmp_path, 1), watched()

    class Fills(af.Callback):
        gates = "batch"

        def on_batch_end(self, event: af.BatchEnd) -> None:
            disk.error = full() if 2 <= event.step <= 5 else None

    with caplog.at_level(logging.WARNING, "asyncfit"):
        history = await network().fit(X, Y, callbacks=[backup, Settles(backup), Fills()], epochs=2, bus=bus, **HOW)
    assert history.outcome == "completed"
    assert saved(seen) == [1, 2, 7, 8, 9, 10]
    failed = only(seen, af.CheckpointFailed)
    assert [event.step for event in failed] == [3, 4, 5, 6]
    assert all(isinstance(event.error, af.CheckpointError) for event in failed)
    assert failed[0].path == str(tmp_path / file_name(0, 3))
    one, two = [record.getMessage() for record in caplog.records]  # the same again is not worth another line
    assert one.startswith(f"BackupAndRestore: {failed[0].path} was not written, and training goes on: CheckpointError")
    assert two == f"BackupAndRestore: checkpoints can be written again: {tmp_path / file_name(0, 7)}"


@pytest.mark.anyio
async def test_a_failed_write_is_fatal_if_it_is_to_be(disk: Disk, tmp_path: Path) -> None:
    disk.error = full()
    backup, (bus, seen) = BackupAndRestore(tmp_path, 2), watched()
    backup.on_error = "raise"
    with pytest.raises(af.CheckpointError) as caught:
        await network().fit(X, Y, callbacks=[backup, Settles(backup)], epochs=9, bus=bus, **HOW)
    assert caught.value is disk.error
    assert [event.step for event in only(seen, af.CheckpointFailed)] == [2]
    assert seen[-1].outcome == "failed"


@pytest.mark.anyio
async def test_after_a_failed_write_it_may_give_up(disk: Disk, tmp_path: Path) -> None:
    disk.error = full()
    backup, (bus, seen) = BackupAndRestore(tmp_path, 2), watched()
    backup.on_error = "detach"
    history = await network().fit(X, Y, callbacks=[backup, Settles(backup)], epochs=3, bus=bus, **HOW)
    assert history.outcome == "completed"
    assert disk.steps == [2]
    assert len(only(seen, af.CheckpointFailed)) == 1
    disk.error = None
    await network().fit(X, Y, callbacks=[backup, Settles(backup)], epochs=1, bus=bus, **HOW)
    assert saved(seen) == [2, 4]  # the next run is another matter


class Forgetful(af.Callback):
    """Has a state that cannot be had."""

    def on_epoch_end(self, event: af.EpochEnd) -> None:
        pass

    def state_dict(self) -> Mapping[str, Any]:
        raise KeyError("where did I put it")


@pytest.mark.anyio
async def test_a_callback_whose_state_is_not_to_be_had_fails_the_run_at_once(tmp_path: Path) -> None:
    """That is no matter of the disk, and will be no better next time."""
    backup, (bus, seen) = BackupAndRestore(tmp_path), watched()
    with pytest.raises(KeyError) as caught:
        await network().fit(X, Y, callbacks=[backup, Forgetful()], epochs=10, bus=bus, **HOW)
    assert "in state_dict of Forgetful, which a checkpoint needs" in caught.value.__notes__
    failed = only(seen, af.CheckpointFailed)
    assert failed[0].error is caught.value
    assert len(failed) <= 2, "the one that was waiting is the last"


@pytest.mark.anyio
async def test_who_keeps_the_event_of_a_failure_keeps_no_model(disk: Disk, tmp_path: Path) -> None:
    disk.error = full()
    backup, (bus, seen) = BackupAndRestore(tmp_path), watched()
    await network().fit(X, Y, callbacks=backup, epochs=2, bus=bus, **HOW)
    assert len(only(seen, af.CheckpointFailed)) == 2
    gc.collect()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Checkpoint)]


# --- at construction -------------------------------------------------------------------------------------------------


def test_the_parameters_are_kerass_in_kerass_order() -> None:
    parameters = inspect.signature(BackupAndRestore).parameters.values()
    first = {one.name: one.default for one in parameters if one.kind is not one.KEYWORD_ONLY}
    assert list(first) == ["backup_dir", "save_freq", "double_checkpoint", "delete_checkpoint"]
    assert list(first.values())[1:] == ["epoch", False, True]


REFUSED: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda path: BackupAndRestore(3), af.InvalidInput, "is a path"),  # type: ignore[arg-type]
    (lambda path: BackupAndRestore(b"x"), af.InvalidInput, "not of bytes"),  # type: ignore[arg-type]
    (lambda path: BackupAndRestore(""), af.InvalidInput, "'' is no path"),
    (lambda path: BackupAndRestore("a\0b"), af.InvalidInput, "is no path"),
    (lambda path: BackupAndRestore(path / "file"), af.InvalidInput, "file is no directory"),
    (lambda path: BackupAndRestore(path / "file" / "sub"), af.InvalidInput, "file is no directory"),
    (lambda path: BackupAndRestore(path, "epochs"), af.InvalidInput, "not 'epochs'"),  # type: ignore[arg-type]
    (lambda path: BackupAndRestore(path, True), af.InvalidInput, "not True"),
    (lambda path: BackupAndRestore(path, 0), af.InvalidInput, "a whole number from 1, not 0"),
    (lambda path: BackupAndRestore(path, 1.5), af.InvalidInput, "a whole number from 1"),  # type: ignore[arg-type]
    (lambda path: BackupAndRestore(path, None), af.InvalidInput, "a whole number"),  # type: ignore[arg-type]
    (lambda path: BackupAndRestore(path, double_checkpoint=2), af.InvalidInput, "True or False"),  # type: ignore[arg-type]
    (lambda path: BackupAndRestore(path, delete_checkpoint=None), af.InvalidInput, "True or"),  # type: ignore[arg-type]
    (lambda path: BackupAndRestore(path, every_s=0), af.InvalidInput, "a number of seconds above 0, not 0"),
    (lambda path: BackupAndRestore(path, every_s=float("nan")), af.InvalidInput, "must be finite"),
    (lambda path: BackupAndRestore(path, every_s="1"), af.InvalidInput, "must be a number"),  # type: ignore[arg-type]
    (lambda path: BackupAndRestore(path, keep=0), af.InvalidInput, "a whole number from 1, not 0"),
    (lambda path: BackupAndRestore(path, double_checkpoint=True, keep=1), af.InvalidInput, "keeps two files"),
    (lambda path: BackupAndRestore(path, overflow="newst"), af.InvalidInput, "'newest'"),  # type: ignore[arg-type]
    (lambda path: BackupAndRestore(path, save_frequency=2), TypeError, "did you mean 'save_freq'"),  # type: ignore[call-arg]
    (lambda path: BackupAndRestore(path, name=""), TypeError, "takes text"),
]


@pytest.mark.parametrize(("made", "kind", "words"), REFUSED)
def test_what_cannot_be_meant_is_refused(made: Any, kind: type[Exception], words: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(kind, match=words):
        made(tmp_path)
    assert files(tmp_path) == ["file"]


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    made = BackupAndRestore(tmp_path, np.int64(3), every_s=np.float32(1.5), keep=np.int8(3))  # type: ignore[arg-type]
    assert (made.save_freq, made.every_s, made.keep) == (3, 1.5, 3)

"""`ModelCheckpoint`: the same files at the same times as Keras, written beside training, kept as asked, and whole."""

from __future__ import annotations

import errno
import gc
import gzip
import json
import logging
import os
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

import asyncfit as af
from asyncfit import layers
from asyncfit.callbacks import ModelCheckpoint
from asyncfit.callbacks.writes import File, Writes
from asyncfit.testing import Scripted
from tests.run.helpers import X, Y, nothing_left, until

DATA = Path(__file__).parent.parent / "data"
with gzip.open(DATA / "keras_callbacks.json.gz") as packed:
    CASES = json.load(packed)["ModelCheckpoint"]


def network(seed: int = 1, optimizer: str = "adam") -> af.Sequential:
    model = af.Sequential([layers.Input((2,)), layers.Dense(3), layers.Dense(1)], seed=seed)
    model.compile(optimizer, "mse")
    return model


def watched() -> tuple[af.EventBus, list[Any]]:
    seen: list[Any] = []
    bus = af.EventBus()
    bus.subscribe(af.Event, seen.append, name="seen", overflow="block")
    return bus, seen


def only(events: list[Any], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


class Settles(af.Callback):
    """Holds each event until what was to be written for it is, so that no newer file takes a place in the queue."""

    gates = "batch"
    order = 300

    def __init__(self, checkpoint: ModelCheckpoint) -> None:
        self.checkpoint = checkpoint

    async def on_batch_end(self, event: af.BatchEnd) -> None:
        await until(lambda: not self.checkpoint._writes.busy)

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        await until(lambda: not self.checkpoint._writes.busy)


# --- against Keras ---------------------------------------------------------------------------------------------------


class Told:
    """A Trainable with the logs of a case."""

    learning_rate = 0.1

    def __init__(self, rows: list[dict[str, float]], batches: int) -> None:
        self.rows, self.batches, self.done = rows, batches, 0

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        row = self.rows[self.done // self.batches]
        self.done += 1
        return {name: value for name, value in row.items() if not name.startswith("val_")}

    test_batch = train_batch

    def state(self) -> Mapping[str, Any]:
        return {"done": self.done}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.done = state["done"]


class Tells(af.Callback):
    """Puts the logs of a case in, to the bit: a mean of many may differ in the last."""

    def __init__(self, rows: list[dict[str, float]]) -> None:
        self.rows = rows

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        event.add_logs(**self.rows[event.epoch])


class OfAnything(ModelCheckpoint):
    """Takes the state of any Trainable for its weights."""

    def on_train_begin(self, event: af.TrainBegin) -> None:
        self.save_weights_only, kept = False, self.save_weights_only
        super().on_train_begin(event)
        self.save_weights_only = kept


async def run_case(case: dict[str, Any], folder: Path) -> tuple[list[list[Any]], str | None]:
    """What we save in a case, and with which error it ends."""
    rows, batches, params = case["logs"], case["batches"], dict(case["params"])
    bus, seen = watched()
    error = None
    try:
        checkpoint = OfAnything(**{**params, "filepath": str(folder / params["filepath"])})
        callbacks = [Tells(rows), checkpoint, Settles(checkpoint)]
        x, y = np.zeros((batches, 1)), np.zeros(batches)
        await af.Trainer(Told(rows, batches)).fit(x, y, batch_size=1, epochs=len(rows), callbacks=callbacks, bus=bus)
    except af.InvalidInput as raised:
        error = str(raised)
    saved = only(seen, af.CheckpointSaved)
    by_batch = params["save_freq"] != "epoch"
    steps = [[(e.step - 1) // batches, (e.step - 1) % batches if by_batch else None] for e in saved]
    return [[*at, Path(e.path).name] for at, e in zip(steps, saved, strict=True)], error


def test_each_case_is_saved_as_by_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same epochs and batches, the same names; what Keras raises for is refused, no later than there."""
    assert len(CASES) >= 400
    monkeypatch.setattr(os, "fsync", lambda file: None)  # a thousand files need not survive a power cut
    wrong: list[Any] = []
    refused = {"KeyError": 0, "ValueError": 0}

    async def main() -> None:
        for number, case in enumerate(CASES):
            folder = tmp_path / str(number)
            saves, error = await run_case(case, folder)
            wants, expected = case["saves"], case["error"]
            there = sorted(os.listdir(folder)) if folder.exists() else []
            if there != sorted({name for _, _, name in saves}):
                wrong.append((number, "files", there, saves))
            if expected is None and error is not None:
                # Keras never came to a batch that would have been saved, under a name that no batch can have
                if wants or "at a batch" not in error:
                    wrong.append((number, case["params"], error))
            elif expected is not None:
                refused[expected] += 1
                told = error or ""
                early = expected == "ValueError" or "cannot be filled in" in told or "has no {" in told
                if error is None or saves != ([] if early else wants):
                    wrong.append((number, case["params"], expected, error, wants, saves))
            elif saves != wants:
                wrong.append((number, case["params"], wants, saves))

    anyio.run(main)
    assert not wrong, wrong[:3]
    assert min(refused.values()) > 3, "both kinds of error are among the cases"


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ({"filepath": "m.keras"}, r"the \.keras format is not supported; save to m\.h5"),
        ({"filepath": "m"}, r"must end in \.h5"),
        ({"filepath": "m.weights.h5"}, r"weights alone \(save_weights\); for the whole model say m\.h5"),
        ({"filepath": "m.h5", "save_weights_only": True}, r"must end in \.weights\.h5: m\.weights\.h5"),
        ({"filepath": 3}, "a path"),
        ({"filepath": "{}.h5"}, "names its fields"),
        ({"filepath": "{0}.h5"}, "names its fields"),
        ({"filepath": "{0.x}.h5"}, "cannot be filled in"),
        ({"filepath": "{epoch:{}}.h5"}, "cannot be filled in"),
        ({"filepath": "{epoch!x}.h5"}, "cannot be filled in"),
        ({"filepath": "{epoch.number}.h5"}, "cannot be filled in"),
        ({"filepath": "{val_loss[0]}.h5"}, "cannot be filled in"),
        ({"filepath": "{val_loss.x:{epoch}}.h5"}, "cannot be filled in"),
        ({"filepath": "{epoch.h5"}, "cannot be filled in"),
        ({"filepath": "{epoch:02f!}.h5"}, "cannot be filled in"),
        ({"filepath": "{val_loss:d}.h5"}, "cannot be filled in"),
        ({"filepath": "{batch}.h5"}, r"has no \{batch\} at the end of an epoch; save_freq=n"),
        ({"filepath": "{val_loss}.h5", "save_freq": 3}, r"has no \{val_loss\} at a batch"),
        ({"filepath": "m.h5", "save_freq": "batch"}, '"epoch" or a number of batches'),
        ({"filepath": "m.h5", "save_freq": 0}, "from 1"),
        ({"filepath": "m.h5", "save_freq": 2.5}, "whole number"),
        ({"filepath": "m.h5", "mode": "mini"}, "did you mean 'min'"),
        ({"filepath": "m.h5", "save_best_only": "yes"}, "save_best_only=….* is True or False"),
        ({"filepath": "\ud800.h5"}, "is no path"),
        ({"filepath": "m.h5", "keep_last": 0}, "keep_last=…"),
        ({"filepath": "m.h5", "keep_best": True}, "keep_best=…"),
        ({"filepath": "m.h5", "initial_value_threshold": "low"}, "initial_value_threshold=…"),
        ({"filepath": "m.h5", "keep_best": 1}, "keep_best=….* same file each time"),
        ({"filepath": "m.h5", "keep_best": 2, "save_best_only": True}, "keep_best=….* same file each time"),
        ({"filepath": "a/m.h5", "keep_last": 2}, r"keep_last=….* same file each time; .*: 'a/m-\{epoch\}\.h5'"),
        (
            {"filepath": "m.weights.h5", "keep_best": 1, "save_weights_only": True},
            r"keep_best=….*: 'm-\{epoch\}\.weights\.h5'",
        ),
    ],
)
def test_what_cannot_work_is_refused_at_construction(how: dict[str, Any], part: str) -> None:
    with pytest.raises(af.InvalidInput, match=part):
        ModelCheckpoint(**how)


@pytest.mark.anyio
async def test_a_name_that_the_logs_lack(tmp_path: Path) -> None:
    """Refused at the first epoch's end; what an earlier callback adds is there."""
    with pytest.raises(af.InvalidInput, match=r"needs 'val_f1', which the logs of this EpochEnd lack; they have loss"):
        await network().fit(X, Y, callbacks=ModelCheckpoint(tmp_path / "{val_f1:.1f}.h5"))

    class AddsF1(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            event.add_logs(val_f1=0.25)

    await network().fit(X, Y, callbacks=[ModelCheckpoint(tmp_path / "{epoch}-{val_f1:.1f}.h5"), AddsF1()])
    assert os.listdir(tmp_path) == ["1-0.2.h5"]


@pytest.mark.anyio
async def test_it_keeps_neither_the_run_nor_a_model(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "m.h5", "loss", save_best_only=True)
    async with network().fit(X, Y, epochs=3, callbacks=checkpoint) as run:
        pass
    ref = weakref.ref(run)
    del run
    await until(lambda: gc.collect() >= 0 and ref() is None)  # a thread that is done may hold it for a moment more
    assert checkpoint.best is not None


@pytest.mark.anyio
async def test_directories_are_made_when_the_first_file_is_written(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "{epoch}" / "deep" / "m.h5", save_freq=6)
    await network().fit(X, Y, batch_size=2, epochs=1, callbacks=checkpoint)
    assert not os.listdir(tmp_path)
    await network().fit(X, Y, batch_size=2, epochs=2, callbacks=checkpoint)
    assert os.listdir(tmp_path) == ["2"]
    assert os.listdir(tmp_path / "2" / "deep") == ["m.h5"]


# --- what is in the files --------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_files_hold_the_model_of_their_epoch(tmp_path: Path) -> None:
    """Whole models go on as the run itself did; weights alone predict the same."""
    bus, seen = watched()
    whole = ModelCheckpoint(tmp_path / "{epoch}.h5")
    weights = ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True, name="weights")
    model = network()
    with anyio.fail_after(30), nothing_left():
        history = await model.fit(X, Y, batch_size=2, epochs=4, callbacks=[whole, weights], bus=bus)
    again = await af.load_model(tmp_path / "2.h5")
    other = network(seed=7)
    await other.load_weights(tmp_path / "2.weights.h5")
    np.testing.assert_array_equal(await other.predict(X), await again.predict(X))
    rest = await again.fit(X, Y, batch_size=2, epochs=4, initial_epoch=2)
    assert len(rest.history["loss"]) == 2
    assert history.outcome == "completed"
    facts = only(seen, af.CheckpointSaved)
    assert sorted({(fact.step, Path(fact.path).name) for fact in facts}) == sorted(
        (3 * epoch, f"{epoch}.{kind}") for epoch in (1, 2, 3, 4) for kind in ("h5", "weights.h5")
    )
    for fact in facts:
        assert fact.size == Path(fact.path).stat().st_size  # noqa: ASYNC240
        assert 0 <= fact.seconds < 30
    assert isinstance(seen[-1], af.TrainEnd), "all files were told of before"


@pytest.mark.anyio
async def test_batches_are_counted_over_the_whole_run(tmp_path: Path) -> None:
    """At a batch the file holds the model behind that very batch."""
    bus, seen = watched()
    checkpoint = ModelCheckpoint(tmp_path / "{epoch}-{batch}.h5", save_freq=2)
    await af.Trainer(Scripted([1.0])).fit(X, Y, batch_size=2, epochs=3, callbacks=checkpoint, bus=bus)
    assert sorted(os.listdir(tmp_path)) == ["1-2.h5", "2-1.h5", "2-3.h5", "3-2.h5"]
    for name, step in [("1-2.h5", 2), ("2-1.h5", 4), ("2-3.h5", 6), ("3-2.h5", 8)]:
        trainer = af.Trainer(Scripted([1.0]))
        await trainer.load(tmp_path / name)
        assert trainer.trainable.state()["weights"] == step
    assert [fact.step for fact in only(seen, af.CheckpointSaved)] == [2, 4, 6, 8]


@pytest.mark.anyio
async def test_only_the_hooks_that_are_needed_hold_the_run(tmp_path: Path) -> None:
    def of(callback: af.Callback) -> set[str]:
        return {kind.__name__ for kind in af.callback.subscription_of(callback).kinds}

    assert of(ModelCheckpoint(tmp_path / "m.h5")) == {"TrainBegin", "EpochEnd"}
    assert of(ModelCheckpoint(tmp_path / "m.h5", save_freq=5)) == {"TrainBegin", "BatchEnd"}

    class Own(ModelCheckpoint):
        async def on_batch_end(self, event: af.BatchEnd) -> None:
            await super().on_batch_end(event)

    assert of(Own(tmp_path / "m.h5")) == {"TrainBegin", "EpochEnd", "BatchEnd"}


@pytest.mark.anyio
async def test_weights_alone_are_those_of_layers(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "m.weights.h5", save_weights_only=True)
    with pytest.raises(af.InvalidInput, match="Scripted has a state, of which nobody knows what weights are"):
        await af.Trainer(Scripted([1.0])).fit(X, Y, callbacks=checkpoint)


@pytest.mark.anyio
async def test_an_epoch_cut_short_is_not_saved(tmp_path: Path) -> None:
    class Stops(af.Callback):
        gates = "batch"

        async def on_batch_end(self, event: af.BatchEnd) -> None:
            if event.step == 4:
                event.stop()

    model = af.Trainer(Scripted([1.0]))
    history = await model.fit(
        X, Y, batch_size=2, epochs=3, callbacks=[ModelCheckpoint(tmp_path / "{epoch}.h5"), Stops()]
    )
    assert history.partial is not None
    assert os.listdir(tmp_path) == ["1.h5"]


def test_verbose_tells_what_it_does(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asyncfit")
    script = Scripted([3.0, 2.0, 2.5])
    how: dict[str, Any] = {"monitor": "loss", "save_best_only": True}
    for verbose in (0, 1):
        caplog.clear()
        checkpoint = ModelCheckpoint(tmp_path / "m.h5", verbose=verbose, **how)
        af.Trainer(Scripted([3.0, 2.0, 2.5])).fit(X, Y, epochs=3, callbacks=checkpoint).blocking()
        told = [record.getMessage() for record in caplog.records]
        path = tmp_path / "m.h5"
        assert told == verbose * [
            "ModelCheckpoint: epoch 1: loss went from nothing to 3.00000",
            f"ModelCheckpoint: epoch 1: the model goes to {path}",
            "ModelCheckpoint: epoch 2: loss went from 3.00000 to 2.00000",
            f"ModelCheckpoint: epoch 2: the model goes to {path}",
            "ModelCheckpoint: epoch 3: loss=2.50000 is no better than 2.00000",
        ]
    assert script.epoch == 0


# --- places where nothing can be written -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("folder.h5", "there is a directory of that name"),
        ("file/m.h5", "file is no directory"),
        ("file/later/{epoch}.h5", "file is no directory"),
        ("closed/m.h5", "permission to create files in .*closed is missing"),
        ("closed/later/{epoch}/m.h5", "permission to create files in .*closed is missing"),
        ("closed/{epoch}.h5", "permission to create files in .*closed is missing"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_first_epoch(
    name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = ModelCheckpoint(tmp_path / name)
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "closed").mkdir()
    (tmp_path / "file").write_text("")
    access = os.access
    monkeypatch.setattr(os, "access", lambda at, *how: not str(at).endswith("closed") and access(at, *how))
    with pytest.raises(af.InvalidInput, match=f"no file can be written to .*: .*{why}"):
        ModelCheckpoint(tmp_path / name)
    model = Scripted([1.0])
    with pytest.raises(af.InvalidInput, match=why):
        af.Trainer(model).fit(X, Y, callbacks=early).blocking()
    assert model.weights == 0, "no batch"


def test_a_place_that_is_fine(tmp_path: Path) -> None:
    (tmp_path / "{epoch}").mkdir()
    (tmp_path / "old.h5").write_text("")
    for name in ("old.h5", "{{epoch}}/m.h5", "new/{epoch}.h5", "a{epoch}/new/m.h5"):
        ModelCheckpoint(tmp_path / name)


def test_the_one_file_that_there_is_may_be_said_to_be_kept() -> None:
    ModelCheckpoint("m.h5", keep_last=1)
    ModelCheckpoint("m.h5", save_best_only=True, keep_best=1)


# --- beside training -------------------------------------------------------------------------------------------------


class Slow:
    """Takes the place of a snapshot's save: each write waits here until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[str] = []
        self.steps: list[int] = []
        self._go = threading.Semaphore(0)
        save = af.Snapshot.save

        async def slowly(snapshot: af.Snapshot, path: Any) -> None:
            self.begun.append(Path(path).name)
            self.steps.append(snapshot.step)
            await anyio.to_thread.run_sync(lambda: self._go.acquire(timeout=20))
            await save(snapshot, path)

        monkeypatch.setattr(af.Snapshot, "save", slowly)

    def let_go(self, count: int = 1) -> None:
        self._go.release(count)


@pytest.mark.anyio
async def test_training_goes_on_while_a_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one file for all, the newest model takes the place of the one that waits; the last is always written."""
    slow, model = Slow(monkeypatch), Scripted([1.0])
    bus, seen = watched()
    with anyio.fail_after(20):
        checkpoint = ModelCheckpoint(tmp_path / "m.h5")
        async with af.Trainer(model).fit(X, Y, batch_size=2, epochs=5, callbacks=checkpoint, bus=bus) as run:
            await run._compute_over.wait()
            assert run.outcome is None, "the end waits for the files"
            slow.let_go(5)
    assert slow.steps == [3, 15]
    assert [fact.step for fact in only(seen, af.CheckpointSaved)] == [3, 15]
    assert isinstance(seen[-1], af.TrainEnd)


@pytest.mark.anyio
async def test_files_of_their_own_are_all_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is being written, one waits, and the next decision waits for a place: memory is bounded."""
    slow, model = Slow(monkeypatch), Scripted([1.0])
    with anyio.fail_after(20):
        checkpoint = ModelCheckpoint(tmp_path / "{epoch}.h5")
        async with af.Trainer(model).fit(X, Y, batch_size=2, epochs=6, callbacks=checkpoint, lookahead=1) as run:

            def held() -> bool:
                return any(s.name == "ModelCheckpoint" and s.busy_for is not None for s in run.subscribers)

            await until(lambda: held() and slow.begun)
            await until(lambda: model.weights[0] == 12)  # ahead by one boundary of the one that is held
            assert slow.begun == ["1.h5"]
            assert held()
            slow.let_go(6)
    assert slow.begun == [f"{epoch}.h5" for epoch in range(1, 7)]
    assert sorted(os.listdir(tmp_path)) == sorted(slow.begun)


# --- failures --------------------------------------------------------------------------------------------------------


NUMBERS = {
    "directory": errno.EISDIR,
    "a file for the folder": errno.ENOTDIR,
    "no permission": errno.EACCES,
    "full": errno.ENOSPC,
}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["directory", "a file for the folder", "no permission", "full"])
async def test_a_file_that_cannot_be_written_fails_the_run(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.h5"
    access = os.access

    class Spoils(af.Callback):
        """What was in order when the run began is so no more."""

        def on_epoch_begin(self, event: af.EpochBegin) -> None:
            if kind == "directory":
                path.mkdir(exist_ok=True)
            elif kind == "a file for the folder":
                path.parent.write_text("")
            elif kind == "no permission":
                monkeypatch.setattr(os, "access", lambda at, *how: str(at) != str(tmp_path) and access(at, *how))

    if kind == "full":

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
    elif kind == "a file for the folder":
        path = tmp_path / "file" / "m.h5"
    bus, seen = watched()
    model: Any = network() if kind == "no permission" else af.Trainer(Scripted([1.0]))
    with anyio.fail_after(20), pytest.raises(af.CheckpointError) as caught:
        await model.fit(X, Y, epochs=50, callbacks=[ModelCheckpoint(path), Spoils()], bus=bus)
    assert "in work that ModelCheckpoint started with start_soon" in caught.value.__notes__
    assert caught.value.filename == str(path)
    assert caught.value.errno == NUMBERS[kind]
    assert str(caught.value).count(str(path)) == str(caught.value).count("the file was not written") == 1
    fact = only(seen, af.CheckpointFailed)[0]
    assert (fact.path, fact.step) == (str(path), 1)
    assert isinstance(fact.error, af.CheckpointError)
    assert seen[-1].outcome == "failed"
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]


@pytest.mark.anyio
async def test_with_on_error_log_the_run_goes_on_and_the_next_file_is_written(tmp_path: Path) -> None:
    """And what is not on the disk is nothing that others would have to beat."""
    (tmp_path / "1.h5").mkdir()
    bus, seen = watched()
    checkpoint = ModelCheckpoint(tmp_path / "{epoch}.h5", "loss", save_best_only=True)
    checkpoint.on_error = "log"
    model = Scripted([1.0, 2.0, 3.0, 0.5])
    await af.Trainer(model).fit(X, Y, epochs=4, callbacks=[checkpoint, Settles(checkpoint)], bus=bus)
    assert [Path(fact.path).name for fact in only(seen, af.CheckpointSaved)] == ["2.h5", "4.h5"]
    assert [Path(fact.path).name for fact in only(seen, af.CheckpointFailed)] == ["1.h5"]
    assert [fact.name for fact in only(seen, af.SubscriberFailed)] == ["ModelCheckpoint"]
    assert checkpoint.best == 0.5


# --- which files stay ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("how", "names"),
    [
        ({"keep_last": 2}, [7, 8]),
        ({"keep_best": 2}, [3, 5]),
        ({"keep_best": 3}, [3, 5, 6]),
        ({"keep_last": 1, "keep_best": 1}, [5, 8]),
        ({"keep_last": 9}, [1, 2, 3, 4, 5, 6, 7, 8]),
        ({"keep_best": 1, "mode": "max"}, [7]),
        ({"keep_best": 2, "monitor": "val_none", "mode": "min"}, [7, 8]),
        ({"keep_last": 1, "save_best_only": True}, [5]),
    ],
)
async def test_the_newest_and_the_best_stay(how: dict[str, Any], names: list[int], tmp_path: Path) -> None:
    """Of equal ones the newer; NaN is worse than all; without a figure the newest count as the best."""
    losses = [3.0, 2.0, 1.0, float("nan"), 0.5, 1.5, 4.0, 2.0]
    (tmp_path / "12.h5").write_text("not ours")
    checkpoint = ModelCheckpoint(tmp_path / "{epoch}.h5", **{"monitor": "loss", **how})
    there: list[int] = []

    class Counts(Settles):
        async def on_checkpoint_saved(self, event: af.CheckpointSaved) -> None:
            there.append(len(os.listdir(tmp_path)) - 1)

    await af.Trainer(Scripted(losses)).fit(X, Y, epochs=8, callbacks=[checkpoint, Counts(checkpoint)])
    assert sorted(os.listdir(tmp_path)) == sorted(f"{number}.h5" for number in [*names, 12])
    assert min(there) >= 1, "there was always one"
    assert [File(*file).path for file in json.loads(checkpoint.files)] == [str(tmp_path / f"{n}.h5") for n in names]


@pytest.mark.anyio
async def test_of_equal_ones_the_newer_stays(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "{epoch}.h5", "loss", keep_best=2)
    await af.Trainer(Scripted([1.0, 1.0, 1.0, 1.0, 2.0])).fit(X, Y, epochs=5, callbacks=checkpoint)
    assert sorted(os.listdir(tmp_path)) == ["3.h5", "4.h5"]


@pytest.mark.anyio
async def test_a_file_that_others_took_away_is_counted_no_more(tmp_path: Path) -> None:
    """Else the only one that is left might be deleted for files that are not there."""

    class Takes(Settles):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            await super().on_epoch_end(event)
            if event.epoch == 1:
                (tmp_path / "2.h5").unlink()

    checkpoint = ModelCheckpoint(tmp_path / "{epoch}.h5", "loss", keep_best=1)
    await af.Trainer(Scripted([3.0, 1.0, 2.0])).fit(X, Y, epochs=3, callbacks=[checkpoint, Takes(checkpoint)])
    assert os.listdir(tmp_path) == ["3.h5"]


@pytest.mark.anyio
async def test_a_failed_write_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "2.h5").mkdir()
    checkpoint = ModelCheckpoint(tmp_path / "{epoch}.h5", keep_last=1)
    with pytest.raises(af.CheckpointError):
        await af.Trainer(Scripted([1.0])).fit(X, Y, epochs=2, callbacks=checkpoint)
    assert sorted(os.listdir(tmp_path)) == ["1.h5", "2.h5"]


# --- one run after another -------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_second_run_starts_afresh_and_deletes_nothing_of_the_first(tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(tmp_path / "{loss:.1f}.h5", "loss", save_best_only=True, keep_last=1)
    await af.Trainer(Scripted([2.0, 1.0])).fit(X, Y, epochs=2, callbacks=checkpoint)
    assert os.listdir(tmp_path) == ["1.0.h5"]
    await af.Trainer(Scripted([5.0, 4.0])).fit(X, Y, epochs=2, callbacks=checkpoint)
    assert sorted(os.listdir(tmp_path)) == ["1.0.h5", "4.0.h5"]


@pytest.mark.anyio
@pytest.mark.parametrize("at", range(1, 8))
async def test_a_run_that_is_continued_decides_on_where_it_was(at: int, tmp_path: Path) -> None:
    """Split at any epoch, with the state in between, the same files are there as without a break."""
    losses = [3.0, 3.5, 2.0, 2.0, 4.0, 1.0, 0.5, 0.7]

    async def train(folder: Path, first: int, last: int, state: Any, **how: Any) -> Mapping[str, Any]:
        checkpoint = ModelCheckpoint(folder / "{epoch}-{loss:.1f}.h5", "loss", **how)
        if state is not None:
            checkpoint.load_state_dict(json.loads(json.dumps(state)))
        model = Scripted(losses)
        model.epoch = first
        how = {"epochs": last, "initial_epoch": first, "callbacks": [checkpoint, Settles(checkpoint)]}
        await af.Trainer(model).fit(X, Y, **how)
        return checkpoint.state_dict()

    ways: list[dict[str, Any]] = [{"save_best_only": True}, {"keep_best": 2}, {"keep_last": 2, "save_best_only": True}]
    for number, how in enumerate(ways):
        whole, split = tmp_path / f"whole{number}", tmp_path / f"split{number}"
        end = await train(whole, 0, 8, None, **how)
        state = await train(split, 0, at, None, **how)
        resumed = await train(split, at, 8, state, **how)
        assert sorted(os.listdir(whole)) == sorted(os.listdir(split))
        assert resumed.get("best") == end.get("best")


@pytest.mark.parametrize("state", [{"files": "no json"}, {"files": "[[1]]"}, {"files": 3}, {"bests": 1.0}])
def test_a_damaged_state_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(af.InvalidInput, match=r"damaged|unknown entry"):
        ModelCheckpoint("m.h5").load_state_dict(state)


def test_a_file_that_cannot_be_deleted_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    writes = Writes(1, None, lambda write, durable: None)
    (tmp_path / "old.h5").mkdir()
    (tmp_path / "new.h5").write_text("")
    writes.files = [File(str(tmp_path / "old.h5"), 1, None)]
    writes._prune(str(tmp_path / "new.h5"), 2, None)
    assert "old.h5 is to be kept no longer, but could not be deleted" in caplog.text
    assert [file.step for file in writes.files] == [2]

"""Checkpoints between batches, and runs that go on from them: to the bit, wherever they were taken."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import numpy as np
import pytest

import asyncfit as af
from asyncfit import callbacks, layers
from asyncfit.formats import checkpoint_h5
from asyncfit.formats.checkpoint_h5 import Writer
from asyncfit.saving import Checkpoint, Occasion, Wish

from .helpers import Linear, kinds, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(44, 5)).astype("float32"), RNG.normal(size=(44, 1)).astype("float32")
HOW: dict[str, Any] = {"batch_size": 8, "validation_split": 0.25}
"""33 rows to train on: four batches of eight and one of a single row."""


class Keeps(af.Callback):
    """Writes every checkpoint to a file of its own."""

    gates = "none"

    def __init__(self, folder: Path, wish: Wish) -> None:
        self.folder, self.wish = folder, wish
        self.writer = Writer()
        self.taken: list[tuple[Checkpoint, Path]] = []

    def when(self) -> Wish:
        return self.wish

    def accept(self, occasion: Occasion) -> bool:
        return True

    async def save(self, checkpoint: Checkpoint) -> None:
        path = self.folder / f"{len(self.taken)}.h5"
        self.taken.append((checkpoint, path))
        self.taken.sort(key=lambda one: one[0].position.step)  # trio starts tasks in any order
        await anyio.to_thread.run_sync(checkpoint.write, str(path), self.writer)


class Counts(af.Callback):
    """A user's callback with a memory: it decides by what it has counted, and counts what a queue brings."""

    gates = "epoch"

    def __init__(self) -> None:
        self.batches, self.seen = 0, np.zeros(3)

    def on_batch_end(self, event: af.BatchEnd) -> None:
        self.batches += 1
        self.seen[event.step % 3] += event.logs["loss"]

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        await anyio.lowlevel.checkpoint()
        event.add_logs(seen=float(self.seen.sum()), batches=self.batches)
        if self.batches % 10 == 0:
            event.set_learning_rate(event.learning_rate * 0.9)

    def state_dict(self) -> Mapping[str, Any]:
        return {"batches": self.batches, "seen": self.seen, "more": {"a": [1, None, "x"]}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert state["more"] == {"a": [1, None, "x"]}
        self.batches, self.seen = state["batches"], state["seen"].copy()


class Steps(af.Callback):
    """An inline handler with a memory, which changes the rate."""

    portable = True

    def __init__(self) -> None:
        self.calls = 0

    @af.inline(replayable=True)
    def on_batch_end(self, event: af.BatchEnd) -> None:
        self.calls += 1
        if self.calls % 7 == 0:
            model: Any = event.model
            model.learning_rate *= 0.95

    def state_dict(self) -> Mapping[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = state["calls"]


def network() -> af.Sequential:
    model = af.Sequential([layers.Input((5,)), layers.Dense(8, "relu"), layers.Dropout(0.3), layers.Dense(1)], seed=5)
    model.compile("adam", "mse", metrics=["mae"])
    return model


def all_callbacks() -> list[af.Callback]:
    return [
        callbacks.EarlyStopping(patience=30, restore_best_weights=True),
        callbacks.ReduceLROnPlateau(patience=1, factor=0.5),
        callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.97),
        Counts(),
    ]


class Watches:
    """What a bus brings."""

    def __init__(self) -> None:
        self.bus = af.EventBus()
        self.events: list[af.Event] = []
        self.bus.subscribe(af.Event, self.events.append)

    def after(self, step: int) -> list[tuple[Any, ...]]:
        """Batches and epochs from this step on, with all their figures."""
        found: list[tuple[Any, ...]] = []
        for event in self.events:
            if isinstance(event, af.BatchEnd) and event.step >= step:
                found.append((event.step, event.epoch, event.batch, event.size, dict(event.logs)))
            elif isinstance(event, af.EpochEnd):
                found.append((event.epoch, dict(event.logs), event.complete))
        first = next((n for n, one in enumerate(found) if len(one) == 5), len(found))
        return found[first:]


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], strict=isinstance(value, np.ndarray), err_msg=name)


@pytest.mark.parametrize("lookahead", [0, 2])
@pytest.mark.parametrize("wish", [Wish(every=3), Wish(boundaries=True), Wish(every=5, boundaries=True)], ids=str)
async def test_from_every_checkpoint_to_the_same_end(wish: Wish, lookahead: int, tmp_path: Path) -> None:
    keeps, whole, first = Keeps(tmp_path, wish), Watches(), network()
    how = HOW | {"epochs": 6, "lookahead": lookahead}
    undisturbed = await first.fit(X, Y, bus=whole.bus, callbacks=[*all_callbacks(), keeps], **how)
    assert len(keeps.taken) == (10 if wish.every == 3 else 6)
    for checkpoint, path in keeps.taken:
        rest, again = Watches(), network()
        history = await again.fit(X, Y, bus=rest.bus, callbacks=all_callbacks(), resume=path, **how)
        same(again.state(), first.state())
        assert history.history == undisturbed.history
        assert history.epoch == undisturbed.epoch
        assert rest.after(0) == whole.after(checkpoint.position.step)
        begin = next(event for event in rest.events if event.run_id)
        assert isinstance(begin, af.TrainBegin)
        assert (begin.run_id, begin.attempt) == (undisturbed.run_id, 1)
        at = checkpoint.position
        assert begin.params["resumed"] == {
            "path": str(path), "run_id": undisturbed.run_id, "attempt": 1,
            "epoch": at.epoch, "batch": at.batch, "step": at.step,
        }  # fmt: skip
        ids = [event.id for event in (*whole.events, *rest.events) if event.run_id]
        assert len(set(ids)) == len(ids)


async def test_keras_and_load_model_read_what_a_checkpoint_has_of_the_model(tmp_path: Path) -> None:
    keeps, model = Keeps(tmp_path, Wish(boundaries=True)), network()
    await model.fit(X, Y, callbacks=keeps, epochs=2, **HOW)
    loaded = await af.load_model(keeps.taken[-1][1])
    same(loaded.state(), model.state())


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_from_one_executor_to_the_other(executor: str, tmp_path: Path) -> None:
    def mine() -> list[af.Callback]:
        return [callbacks.ReduceLROnPlateau(patience=1), Counts(), Steps()]

    keeps, first, how = Keeps(tmp_path, Wish(every=4)), network(), HOW | {"epochs": 4}
    undisturbed = await first.fit(X, Y, callbacks=[*mine(), keeps], executor=executor, **how)
    for _, path in keeps.taken[1::3]:
        for other in ("thread", "process"):
            again = network()
            history = await again.fit(X, Y, callbacks=mine(), resume=path, executor=other, **how)
            same(again.state(), first.state())
            assert history.history == undisturbed.history


class Restores(af.Callback):
    """Puts earlier weights back, and sets rates: decisions that are not in a boundary's state yet."""

    def __init__(self) -> None:
        self.calls = 0

    def on_epoch_end(self, event: af.EpochEnd) -> None:
        self.calls += 1
        if self.calls == 1:
            self.first = event.model
        elif self.calls % 2 == 0 and hasattr(self, "first"):
            event.set_weights(self.first)
        event.set_learning_rate(0.01 / self.calls)

    def state_dict(self) -> Mapping[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.calls = state["calls"]


@pytest.mark.parametrize("own", [False, True], ids=["network", "own model"])
async def test_what_was_decided_at_the_boundary_holds(own: bool, tmp_path: Path) -> None:
    def made() -> Any:
        return af.Trainer(Linear()) if own else network()

    keeps, first = Keeps(tmp_path, Wish(boundaries=True)), made()
    how: dict[str, Any] = {"batch_size": 8, "epochs": 3, "shuffle": False}
    x, y = (X[:, :2], Y[:, 0]) if own else (X, Y)
    undisturbed = await first.fit(x, y, callbacks=[Restores(), keeps], **how)
    trained = first.trainable if own else first
    checkpoint, path = keeps.taken[1]
    assert checkpoint.change is not None
    assert checkpoint.change.weights is not None, "the second epoch put weights back"
    again = made()
    history = await again.fit(x, y, callbacks=Restores(), resume=path, **how)
    assert history.history == undisturbed.history
    same((again.trainable if own else again).state(), trained.state())


@pytest.mark.parametrize("at", range(1, 15, 3))
async def test_a_resumable_stop_leaves_a_checkpoint_just_there(at: int, tmp_path: Path) -> None:
    first = network()
    undisturbed = await first.fit(X, Y, callbacks=all_callbacks(), epochs=3, **HOW)

    class Stops(af.Callback):
        gates = "batch"

        def on_batch_end(self, event: af.BatchEnd) -> None:
            if event.step == at:
                event.stop("later", resumable=True)

    keeps, second = Keeps(tmp_path, Wish()), network()
    stopped = await second.fit(X, Y, callbacks=[*all_callbacks(), Stops(), keeps], epochs=3, **HOW)
    assert stopped.outcome == ("stopped" if at < 14 else "completed")
    ((checkpoint, path),) = keeps.taken
    assert checkpoint.final
    assert checkpoint.position.step == at + 1
    again = network()
    history = await again.fit(X, Y, callbacks=all_callbacks(), epochs=3, resume=path, **HOW)
    assert history.history == undisturbed.history
    same(again.state(), first.state())


@pytest.mark.parametrize("resumed", [False, True])
@pytest.mark.parametrize("event", ["TrainBegin", "EpochBegin"])
async def test_a_resumable_stop_before_the_first_batch(event: str, resumed: bool, tmp_path: Path) -> None:
    first = network()
    await first.fit(X, Y, epochs=1, **HOW)
    undisturbed = await first.fit(X, Y, callbacks=all_callbacks(), epochs=3, **HOW)
    resume = None
    if resumed:  # in the middle of an epoch
        keeps, model = Keeps(tmp_path, Wish(every=7)), network()
        await model.fit(X, Y, epochs=1, **HOW)
        await model.fit(X, Y, callbacks=[*all_callbacks(), keeps], epochs=3, **HOW)
        resume = keeps.taken[0][1].rename(tmp_path / "before.h5")

    async def stop(told: Any) -> None:
        told.stop("later", resumable=True)

    bus = af.EventBus()
    bus.subscribe(getattr(af, event), stop, gate=True)
    keeps, second = Keeps(tmp_path, Wish()), network()
    await second.fit(X, Y, epochs=1, **HOW)
    await second.fit(X, Y, callbacks=[*all_callbacks(), keeps], bus=bus, epochs=3, resume=resume, **HOW)
    ((checkpoint, path),) = keeps.taken
    assert checkpoint.final
    assert checkpoint.position.step == (7 if resumed else 0)
    again = network()  # which knows nothing of the fit before
    history = await again.fit(X, Y, callbacks=all_callbacks(), epochs=3, resume=path, **HOW)
    assert history.history == undisturbed.history
    same(again.state(), first.state())


@pytest.mark.parametrize("event", ["EpochBegin", "ValidationBegin", "ValidationEnd", "EpochEnd"])
async def test_a_resumable_stop_at_an_event_of_the_boundary(event: str, tmp_path: Path) -> None:
    first = network()
    undisturbed = await first.fit(X, Y, callbacks=all_callbacks(), epochs=3, **HOW)

    async def stop(told: Any) -> None:
        if told.epoch == 1:
            told.stop("later", resumable=True)

    bus = af.EventBus()
    bus.subscribe(getattr(af, event), stop, gate=True)
    keeps, second = Keeps(tmp_path, Wish()), network()
    await second.fit(X, Y, callbacks=[*all_callbacks(), keeps], bus=bus, epochs=3, **HOW)
    ((checkpoint, path),) = keeps.taken
    assert checkpoint.position.epoch == (1 if event == "EpochBegin" else 2)
    again = network()
    history = await again.fit(X, Y, callbacks=all_callbacks(), epochs=3, resume=path, **HOW)
    assert history.history == undisturbed.history
    same(again.state(), first.state())


async def test_a_stop_from_outside_that_is_to_be_continued(tmp_path: Path) -> None:
    first = network()
    undisturbed = await first.fit(X, Y, epochs=400, **HOW)
    keeps, second = Keeps(tmp_path, Wish()), network()
    async with second.fit(X, Y, callbacks=keeps, epochs=400, **HOW) as run:
        await until(lambda: run.progress.step > 30)
        run.stop("a new version", resumable=True)
    again = network()
    history = await again.fit(X, Y, epochs=400, resume=keeps.taken[-1][1], **HOW)
    assert history.history == undisturbed.history
    same(again.state(), first.state())


async def test_by_time(tmp_path: Path) -> None:
    keeps, model = Keeps(tmp_path, Wish(seconds=0.02)), network()
    async with model.fit(X, Y, callbacks=keeps, epochs=10**6, **HOW) as run:
        await until(lambda: len(keeps.taken) >= 3)
        run.stop()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "batch_size": ({"batch_size": 16}, "data.batch_size was 8 and is 16"),
    "samples": ({"validation_split": 0.5}, "data.samples was 33 and is 22"),
    "seed": ({"seed": 7}, "seed was 5 and is 7"),
    "shuffle": ({"shuffle": False}, "data.shuffle was True and is False"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_another_run_is_refused_by_what_differs(what: str, tmp_path: Path) -> None:
    keeps = Keeps(tmp_path, Wish(boundaries=True))
    await network().fit(X, Y, callbacks=keeps, **HOW)
    change, words = REFUSED[what]
    watches, model = Watches(), network()
    before = {name: np.copy(value) for name, value in model.state().items() if name != "fits"}
    with pytest.raises(af.InvalidInput, match=words):
        await model.fit(X, Y, resume=keeps.taken[0][1], bus=watches.bus, **HOW | change)
    assert kinds([event for event in watches.events if event.run_id]) == []
    same({name: value for name, value in model.state().items() if name != "fits"}, before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (partial(layers.Dense, 9, "relu"), r"model.layers\[0\].units was 8 and is 9"),
        (partial(layers.Dense, 8, "tanh"), r"model.layers\[0\].activation was 'relu' and is 'tanh'"),
    ],
)
async def test_another_model_is_refused(change: Any, words: str, tmp_path: Path) -> None:
    keeps = Keeps(tmp_path, Wish(boundaries=True))
    await network().fit(X, Y, callbacks=keeps, **HOW)
    model = af.Sequential([layers.Input((5,)), change(), layers.Dropout(0.3), layers.Dense(1)], seed=5)
    model.compile("adam", "mse", metrics=["mae"])
    with pytest.raises(af.InvalidInput, match=words):
        await model.fit(X, Y, resume=keeps.taken[0][1], **HOW)
    model.compile("sgd", "mse")
    with pytest.raises(af.InvalidInput, match=r"model\.optimizer"):
        await model.fit(X, Y, resume=keeps.taken[0][1], **HOW)


async def test_a_seed_that_nobody_chose_is_taken_over(tmp_path: Path) -> None:
    def made() -> af.Sequential:
        model = af.Sequential([layers.Input((5,)), layers.Dropout(0.2), layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    keeps, first, again = Keeps(tmp_path, Wish(every=3)), made(), made()
    undisturbed = await first.fit(X, Y, callbacks=keeps, epochs=3, **HOW)
    history = await again.fit(X, Y, resume=keeps.taken[1][1], epochs=3, **HOW)
    assert history.history == undisturbed.history
    same(again.state(), first.state())
    one, other = await first.fit(X, Y, epochs=2, **HOW), await again.fit(X, Y, epochs=2, **HOW)
    assert one.history == other.history, "the next fit as well"


async def test_more_epochs_than_before(tmp_path: Path) -> None:
    keeps, first, again = Keeps(tmp_path, Wish(boundaries=True)), network(), network()
    await first.fit(X, Y, callbacks=keeps, epochs=2, **HOW)
    undisturbed = await (whole := network()).fit(X, Y, epochs=5, **HOW)
    history = await again.fit(X, Y, resume=keeps.taken[-1][1], epochs=5, **HOW)
    assert history.history == undisturbed.history
    same(again.state(), whole.state())
    nothing = await network().fit(X, Y, resume=keeps.taken[-1][1], epochs=2, **HOW)
    assert nothing.outcome == "completed"
    assert nothing.epoch == [0, 1]


async def test_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await network().fit(X, Y, resume=tmp_path / "none.h5")
    with pytest.raises(FileNotFoundError):
        await network().fit(X, Y, resume=tmp_path)
    with pytest.raises(TypeError, match="resume="):
        network().fit(X, Y, resume=3)  # type: ignore[arg-type]
    (tmp_path / "bad.h5").write_bytes(b"no")
    with pytest.raises(af.BadFile):
        await network().fit(X, Y, resume=tmp_path / "bad.h5")


async def test_a_trainer_loads_the_state_out_of_a_checkpoint(tmp_path: Path) -> None:
    keeps, trainer = Keeps(tmp_path, Wish(every=3)), af.Trainer(Linear())
    await trainer.fit(X[:, :2], Y[:, 0], batch_size=8, epochs=1, callbacks=keeps)
    checkpoint, path = keeps.taken[0]
    again = af.Trainer(Linear())
    await again.load(path)
    state = again.trainable.state()
    assert state["batches"] == 3
    np.testing.assert_array_equal(state["w"], checkpoint.state["w"])


@pytest.mark.parametrize("executor", ["thread", "process"])
async def test_who_keeps_the_handle_keeps_nothing_of_the_checkpoint(
    executor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeps, real = Keeps(tmp_path, Wish(every=3)), checkpoint_h5.read
    await network().fit(X, Y, callbacks=[*all_callbacks(), keeps], epochs=2, **HOW)
    read: list[weakref.ref[Any]] = []

    def watched(path: Any) -> Any:
        run, arrays = real(path)
        read.extend(map(weakref.ref, arrays.values()))
        return run, arrays

    monkeypatch.setattr(checkpoint_h5, "read", watched)
    model = network()
    fit = model.fit(
        X, Y, callbacks=all_callbacks(), epochs=3, resume=keeps.taken[1][1], executor=executor, **HOW
    )  # fmt: skip
    async with fit as run:
        pass
    assert run.outcome == "completed"
    gc.collect()
    assert len(read) > 3
    assert not [one for one in read if one() is not None]

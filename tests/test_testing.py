"""`asyncfit.testing`: each lie that a model can tell is found, and scripts and the loopback do what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import numpy as np
import pytest

import asyncfit as af
from asyncfit.formats import checkpoint_h5
from asyncfit.testing import LoopbackExecutor, Scripted, check_trainable

from .run.helpers import Linear, X, Y

BATCHES = [(X[:2], Y[:2]), (X[2:4], Y[2:4]), (X[4:], Y[4:])]


class Momentum(Linear):
    """With a slot that only appears when it is first needed: its state grows while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.v: Any = None

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, Any]:
        before = self.w.copy()
        logs = super().train_batch(x, y)
        self.v = (self.w - before) + (0 if self.v is None else 0.9 * self.v)
        self.w = before + self.v
        return {"loss": np.float32(logs["loss"]), "big": np.int64(3), "one": np.array(0.5)}

    def state(self) -> Mapping[str, Any]:
        return {**super().state(), **({} if self.v is None else {"v": self.v})}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.v = state["v"].copy() if "v" in state else None


class Forgets(Momentum):
    """The slot is no part of its state."""

    def state(self) -> Mapping[str, Any]:
        return Linear.state(self)

    def load_state(self, state: Mapping[str, Any]) -> None:
        Linear.load_state(self, state)


class KeepsSlot(Momentum):
    """Loading an early state leaves the slot where it is."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        Linear.load_state(self, state)
        self.v = state["v"].copy() if "v" in state else self.v


class Aliases(Linear):
    """Trains on the arrays that it was given to load."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.w = state["w"]
        self.batches, self.learning_rate = state["batches"], state["learning_rate"]


class KeepsRate(Linear):
    """Does not put the learning rate back."""

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        self.learning_rate *= 0.5
        return super().train_batch(x, y)

    def state(self) -> Mapping[str, Any]:
        return {"w": self.w, "batches": self.batches}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.w, self.batches = state["w"].copy(), state["batches"]


class LearnsFromTests(Linear):
    def test_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        logs = super().test_batch(x, y)
        self.batches += 1
        return logs


class Rolls(Linear):
    """Draws numbers that nobody can draw again."""

    def __init__(self) -> None:
        super().__init__()
        self._random = np.random.default_rng(0)

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        return super().train_batch(x * self._random.random(), y)


class RollsInTests(Rolls):
    train_batch = Linear.train_batch

    def test_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        return super().test_batch(x * self._random.random(), y)


class Scales(Linear):
    """Works on the user's own rows."""

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        x /= 2.0
        return super().train_batch(x, y)


class Lists(Linear):
    def state(self) -> Mapping[str, Any]:
        return {**super().state(), "losses": [1.0]}


class Silent(Linear):
    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        super().train_batch(x, y)
        return {"error": 1.0}


LIES = [
    (Forgets, "state() lacks something"),
    (KeepsSlot, "state() after load_state(s) is not s; it differs in v"),
    (Aliases, "load_state kept the arrays it was given and trained on them: it must copy; it differs in 'w'"),
    (KeepsRate, "load_state must put the learning rate back"),
    (LearnsFromTests, "test_batch changed the state; it differs in 'batches'"),
    (Rolls, "state() lacks something"),
    (RollsInTests, "test_batch twice on the same state gave"),
    (Scales, "train_batch changed the rows of batch 0"),
    (Lists, "state()['losses'] is a list; a state holds arrays, numbers and text"),
    (Silent, "first pass: train_batch must return at least a 'loss'"),
]


@pytest.mark.parametrize(("model", "message"), LIES)
def test_each_lie_is_found(model: type[Linear], message: str) -> None:
    with pytest.raises(AssertionError) as raised:
        check_trainable(model(), [tuple(part.copy() for part in batch) for batch in BATCHES])
    assert message in str(raised.value)


@pytest.mark.parametrize("model", [Linear(), Momentum(), Scripted([1.0, float("nan")])])
def test_honest_models_pass_and_are_as_before(model: Any) -> None:
    before = {name: np.array(value) for name, value in model.state().items()}
    check_trainable(model, BATCHES)
    after = model.state()
    assert set(after) == set(before)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)


def test_it_needs_a_batch() -> None:
    with pytest.raises(AssertionError, match="at least one batch"):
        check_trainable(Linear(), [])


@pytest.mark.anyio
@pytest.mark.parametrize("lookahead", [0, 1])
async def test_a_state_that_grows_trains_on_with_the_same_bits(lookahead: int) -> None:
    """Also when work ahead is undone, to before the slot was there."""

    class Changes(af.Callback):
        async def on_epoch_begin(self, event: af.EpochBegin) -> None:
            await anyio.lowlevel.checkpoint()
            event.set_learning_rate(0.01 / (1 + event.epoch))

    models = Momentum(), Momentum()
    for model, ahead in zip(models, (0, lookahead), strict=True):
        history = await af.Trainer(model).fit(
            X, Y, batch_size=2, epochs=4, callbacks=Changes(), lookahead=ahead, seed=0
        )
        assert history.history["big"] == [3.0] * 4
    np.testing.assert_array_equal(models[0].w, models[1].w)


# --- scripts ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_script() -> None:
    model = Scripted([3, 2, 1], val_loss=[3, 4, 5], accuracy=[0.25, 0.75], val_accuracy=[0.5])
    history = await af.Trainer(model).fit(X, Y, epochs=4, validation_data=(X, Y))
    del history.history["learning_rate"]
    assert history.history == {
        "loss": [3, 2, 1, 1], "accuracy": [0.25, 0.75, 0.75, 0.75],
        "val_loss": [3, 4, 5, 5], "val_accuracy": [0.5, 0.5, 0.5, 0.5],
    }  # fmt: skip
    assert model.weights[0] == 4


@pytest.mark.anyio
async def test_a_script_goes_on_where_work_was_undone() -> None:
    class Restores(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            await anyio.lowlevel.checkpoint()
            event.set_learning_rate(0.01 * (2 + event.epoch))

    history = await af.Trainer(Scripted([3, 2, 1])).fit(X, Y, epochs=3, callbacks=Restores(), lookahead=1)
    assert history.history["loss"] == [3, 2, 1]


def test_an_empty_script_is_refused() -> None:
    with pytest.raises(ValueError, match=r"val_loss=\[\] is empty"):
        Scripted([1.0], val_loss=[])


# --- the loopback ----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_loopback_gives_the_same_bits_without_a_thread() -> None:
    import threading

    threads = set()

    def look(model: Linear) -> None:
        threads.add(threading.get_ident())

    models = Linear(look), Linear()
    executors: list[Any] = [LoopbackExecutor(), "thread"]
    for model, executor in zip(models, executors, strict=True):
        history = await af.Trainer(model).fit(X, Y, batch_size=2, epochs=3, executor=executor, seed=1)
        assert history.params["executor"] in ("loopback", "thread")
    np.testing.assert_array_equal(models[0].w, models[1].w)
    assert threads == {threading.get_ident()}


# --- Trainer ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_models_without_targets() -> None:
    given: list[Any] = []

    class Means(Linear):
        def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
            given.append((y, sample_weight))
            return super().train_batch(x, x[:, 0])

        def test_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
            return super().test_batch(x, x[:, 0])

    trainer = af.Trainer(Means())
    await trainer.fit(X, batch_size=2, validation_data=(X, None))
    assert given == [(None, None)] * 3
    assert set(await trainer.evaluate(X)) == {"loss"}


@pytest.mark.anyio
async def test_evaluate_save_and_load(tmp_path: Any) -> None:
    trainer, path = af.Trainer(Linear()), tmp_path / "model.h5"
    await trainer.fit(X, Y, batch_size=2, epochs=2)
    loss = ((X @ trainer.trainable.w - Y) ** 2).mean()  # type: ignore[attr-defined]
    assert (await trainer.evaluate(X, Y))["loss"] == pytest.approx(loss)
    await trainer.save(path)
    twin = af.Trainer(Linear())
    await twin.load(path)
    assert twin.trainable.state()["batches"] == trainer.trainable.state()["batches"]
    np.testing.assert_array_equal(twin.trainable.state()["w"], trainer.trainable.state()["w"])
    with pytest.raises(FileNotFoundError):
        await twin.load(tmp_path / "none.h5")
    (tmp_path / "bad.h5").write_bytes(b"no file")
    checkpoint_h5.Writer().write(tmp_path / "other.h5", checkpoint_h5.Saved(model=None, arrays={}, run={}))
    for name in ("bad.h5", "other.h5"):
        with pytest.raises(af.BadFile, match=name):
            await twin.load(tmp_path / name)
    whole = bytearray(path.read_bytes())
    whole[whole.index(trainer.trainable.state()["w"].tobytes())] ^= 1
    path.write_bytes(whole)
    with pytest.raises(af.BadFile, match=r"model\.h5 is damaged"):
        await twin.load(path)


@pytest.mark.anyio
async def test_a_model_in_use(tmp_path: Any) -> None:
    """It can be read, as a whole state, and not be changed."""
    trainer, path = af.Trainer(Linear()), tmp_path / "model.h5"
    await trainer.save(path)
    with anyio.fail_after(20):
        async with trainer.fit(X, Y, batch_size=2, epochs=10**6) as run:
            assert "loss" in await trainer.evaluate(X, Y)
            await trainer.save(tmp_path / "other.h5")
            with pytest.raises(af.ModelBusy, match="load must wait"):
                await trainer.load(path)
            with pytest.raises(af.ModelBusy, match="is training this model"):
                await trainer.fit(X, Y)
            run.stop()
    await trainer.load(path)
    assert trainer.trainable.state()["batches"] == 0


@pytest.mark.anyio
async def test_one_that_cannot_be_cloned_says_what_it_cannot_do(tmp_path: Any) -> None:
    class Single(Linear):
        clone = None  # type: ignore[assignment]

    kept: list[af.Snapshot] = []

    class Keeps(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            kept.append(event.model)
            await event.model.save(tmp_path / "model.h5")

    trainer = af.Trainer(Single())
    async with trainer.fit(X, Y, batch_size=2, epochs=10**6, callbacks=Keeps()) as run:
        async for _ in run.events(af.EpochEnd):
            break
        with pytest.raises(af.ModelBusy, match=r"Single has no clone\(\)"):
            await trainer.evaluate(X, Y)
        run.stop()
    with pytest.raises(af.ModelBusy, match=r"Single has no clone\(\)"):
        kept[0].predict(X)
    assert "loss" in await trainer.evaluate(X, Y)


@pytest.mark.anyio
async def test_models_that_stay_behind_in_a_thread_of_their_own() -> None:
    """All its methods are called from one thread while it trains."""
    import threading

    threads: set[int] = set()

    class Watched(Linear):
        def __getattribute__(self, name: str) -> Any:
            if name in ("train_batch", "test_batch", "load_state"):
                threads.add(threading.get_ident())
            return super().__getattribute__(name)

    trainer = af.Trainer(Watched())
    threads.clear()

    class Changes(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            await anyio.lowlevel.checkpoint()
            event.set_learning_rate(0.01 / (2 + event.epoch))

    await trainer.fit(X, Y, batch_size=2, epochs=3, validation_data=(X, Y), callbacks=Changes(), lookahead=1)
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_a_metric_may_be_missing_in_an_epoch_but_no_loss() -> None:
    model = Scripted([1.0], accuracy=[0.5, None, 0.25], val_accuracy=[None, 0.5])
    logs: list[list[str]] = []
    bus = af.EventBus()
    bus.subscribe(af.EpochEnd, lambda event: logs.append(sorted(event.logs)))
    af.Trainer(model).fit(X, Y, epochs=3, validation_data=(X, Y), bus=bus).blocking()
    assert logs == [
        ["accuracy", "learning_rate", "loss", "val_loss"],
        ["learning_rate", "loss", "val_accuracy", "val_loss"],
        ["accuracy", "learning_rate", "loss", "val_accuracy", "val_loss"],
    ]
    with pytest.raises(ValueError, match="a model always has a loss"):
        Scripted([1.0, None])  # type: ignore[list-item]

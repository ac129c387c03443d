"""What early stopping leaves behind, and the batch with a NaN; what is decided, `test_keras_decisions` knows."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import asyncfit as af
from asyncfit import layers, optimizers
from asyncfit.callbacks import EarlyStopping, ReduceLROnPlateau, TerminateOnNaN
from asyncfit.testing import Scripted
from tests.run.helpers import fit

CURVE = [3.0, 2.0, 1.0, 2.0, 2.0, 2.0, 2.0]


@pytest.mark.anyio
async def test_the_best_weights_come_back_whoever_stops_the_run() -> None:
    for how in ("patience", "the end", "somebody"):
        model = Scripted(CURVE)
        callback = EarlyStopping("loss", patience=2 if how == "patience" else 9, restore_best_weights=True)
        async with fit(model, epochs=7, callbacks=callback, lookahead=1) as run:
            async for event in run.events(af.EpochEnd, gate=True):
                if how == "somebody" and event.epoch == 3:
                    run.stop("enough")
        assert model.weights[0] == 9, how
        assert run.history.epoch == list(range({"patience": 5, "the end": 7, "somebody": 4}[how]))
        if how == "patience":
            assert run.history.reason == "loss has not improved for 2 epochs"
            assert (callback.stopped_epoch, callback.best_epoch, callback.best) == (4, 2, 1.0)


@pytest.mark.anyio
async def test_it_starts_afresh_with_each_run() -> None:
    callback = EarlyStopping("loss", patience=2, restore_best_weights=True)
    for _ in range(2):
        model = Scripted(CURVE)
        history = await fit(model, epochs=7, callbacks=callback)
        assert (len(history.epoch), model.weights[0], callback.best) == (5, 9, 1.0)
    short = Scripted([9.0])
    await fit(short, epochs=1, callbacks=callback)
    assert (short.weights[0], callback.best, callback.stopped_epoch) == (3, 9.0, None)


@pytest.mark.anyio
async def test_after_a_cancellation_the_weights_stay() -> None:
    model = Scripted(CURVE)

    class Cancels(af.Callback):
        order = 200

        def on_epoch_end(self, event: af.EpochEnd) -> None:
            if event.epoch == 5:
                event.cancel("no more")

    stopping = EarlyStopping("loss", patience=9, restore_best_weights=True)
    with pytest.raises(af.RunCancelled, match="no more"):
        await fit(model, epochs=7, callbacks=[stopping, Cancels()])
    assert model.weights[0] == 18


@pytest.mark.anyio
async def test_an_epoch_cut_short_decides_nothing() -> None:
    class Cut(af.Callback):
        def on_batch_end(self, event: af.BatchEnd) -> None:
            if event.step == 4:
                event.stop("cut")

        gates = "batch"

    callback = EarlyStopping("loss", patience=1)
    plateau = ReduceLROnPlateau("loss", patience=1)
    await fit(Scripted([1.0]), epochs=7, callbacks=[callback, plateau, Cut()])
    assert (callback.wait, callback.best_epoch, callback.stopped_epoch, plateau.wait) == (0, 0, None, 0)


@pytest.mark.anyio
async def test_it_sees_what_a_user_adds_in_any_order_of_the_list() -> None:
    class Adds(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            event.add_logs(f1=[0.1, 0.3, 0.2, 0.2, 0.2][event.epoch])

    for turned in (False, True):
        stopping = EarlyStopping("f1", patience=2, mode="max")
        callbacks = [Adds(), stopping]
        history = await fit(epochs=5, callbacks=callbacks[::-1] if turned else callbacks)
        assert history.epoch == [0, 1, 2, 3]
        assert stopping.best == 0.3


@pytest.mark.anyio
@pytest.mark.parametrize("lookahead", [0, 1, 3])
async def test_every_lookahead_gives_the_same_bits(lookahead: int) -> None:
    x = np.random.default_rng(0).standard_normal((64, 4)).astype(np.float32)
    y = (x[:, :1] > 0.3).astype(np.float32)

    async def train(lookahead: int) -> tuple[list[Any], dict[str, list[float]]]:
        model = af.Sequential([layers.Input((4,)), layers.Dense(8, "relu"), layers.Dense(1, "sigmoid")], seed=3)
        model.compile(optimizers.SGD(1.5, momentum=0.9), "binary_crossentropy", metrics=["accuracy"])
        history = await model.fit(
            x, y, epochs=40, batch_size=8, validation_split=0.3, lookahead=lookahead,
            callbacks=[
                EarlyStopping(patience=7, restore_best_weights=True),
                ReduceLROnPlateau(patience=1, factor=0.7, cooldown=1),
            ],
        )  # fmt: skip
        return [weights.tobytes() for weights in model.get_weights()], history.history

    weights, history = await train(lookahead)
    assert len(history["loss"]) < 40
    assert history["learning_rate"][-1] < 1
    assert (weights, history) == await train(0)


def test_verbose_tells(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "asyncfit")
    callback = EarlyStopping("loss", patience=2, restore_best_weights=True, verbose=1)
    fit(Scripted(CURVE), epochs=7, callbacks=callback).blocking()
    assert [record.getMessage() for record in caplog.records] == [
        "EarlyStopping: stops after epoch 5, the best loss is 1, in epoch 3",
        "EarlyStopping: the weights of epoch 3 are back",
    ]


@pytest.mark.parametrize(
    ("how", "error", "match"),
    [
        ({"patience": -1}, af.InvalidInput, r"EarlyStopping\(patience=…\)"),
        ({"patience": 1.5}, af.InvalidInput, r"EarlyStopping\(patience=…\)"),
        ({"start_from_epoch": -1}, af.InvalidInput, "start_from_epoch"),
        ({"baseline": "low"}, af.InvalidInput, "baseline"),
        ({"restore_best_weights": 1}, af.InvalidInput, "restore_best_weights"),
        ({"minDelta": 1}, TypeError, r"EarlyStopping: unknown keyword 'minDelta'; did you mean 'min_delta'\?"),
    ],
)
def test_bad_input_is_refused_at_construction(how: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        EarlyStopping(**how)


class Losses(Scripted):
    """A loss for each batch."""

    def __init__(self, losses: list[float]) -> None:
        super().__init__([0.0])
        self.losses = losses

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        super().train_batch(x, y)
        return {"loss": self.losses[int(self.weights[0]) - 1]}


@pytest.mark.anyio
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
async def test_not_a_number_stops_the_run_at_that_batch(bad: float) -> None:
    model = Losses([1.0, 1.0, 1.0, 1.0, bad, 1.0])
    history = await fit(model, epochs=5, callbacks=TerminateOnNaN(), lookahead=1)
    assert model.weights[0] == 5
    assert (history.outcome, history.reason) == ("stopped", f"the loss is {bad} in batch 1 of epoch 1 (both from 0)")
    with pytest.raises(RuntimeError, match="batch 1 of epoch 1") as raised:
        await fit(Losses(model.losses), callbacks=TerminateOnNaN(True), epochs=5)
    assert any("TerminateOnNaN.on_batch_end" in note for note in raised.value.__notes__)


def test_it_can_be_pickled() -> None:
    copy = pickle.loads(pickle.dumps(TerminateOnNaN(raise_error=True, name="mine")))
    assert (copy.raise_error, copy.name, copy.portable) == (True, "mine", True)

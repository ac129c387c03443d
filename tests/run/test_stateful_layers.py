"""Moving statistics are part of the state: rollbacks, other executors, checkpoints and snapshots bring them along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncfit as af
from asyncfit import callbacks, layers
from asyncfit.saving import Wish
from asyncfit.testing import LoopbackExecutor

from .test_resuming import HOW, Counts, Keeps, X, Y, same


def network() -> af.Sequential:
    model = af.Sequential(
        [
            layers.Input((5,)),
            layers.Dense(8, "relu"),
            layers.BatchNormalization(momentum=0.7),
            layers.Dense(6, trainable=False),
            layers.BatchNormalization(momentum=0.6, scale=False),
            layers.Dense(1),
        ],
        seed=5,
    )
    model.compile("adam", "mse", metrics=["mae"])
    return model


class Decides(af.Callback):
    """Decisions that undo what was computed ahead; some put earlier statistics back."""

    def __init__(self) -> None:
        self.kept: list[af.Snapshot] = []

    def on_epoch_end(self, event: af.EpochEnd) -> None:
        self.kept.append(event.model)
        event.set_learning_rate(0.9 * event.logs["learning_rate"])
        if event.epoch == 3:
            event.set_weights(self.kept[1])


async def trained(**how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    model = network()
    history = await model.fit(X, Y, callbacks=Decides(), epochs=6, validation_data=(X[:9], Y[:9]), **HOW | how)
    return dict(model.state()), history.history


@pytest.mark.anyio
@pytest.mark.in_turn
@pytest.mark.parametrize("how", ["ahead", "far ahead", "loopback", "process"])
async def test_the_same_statistics_whatever_is_undone(how: str) -> None:
    others: dict[str, dict[str, Any]] = {
        "ahead": {"lookahead": 1},
        "far ahead": {"lookahead": 3},
        "loopback": {"executor": LoopbackExecutor()},
        "process": {"executor": "process"},
    }
    state, history = await trained(lookahead=0)
    assert np.all(state["fixed"][:8] != 0), "the first moving mean began with zeros"
    other, same_history = await trained(**others[how])
    same(other, state)
    assert same_history == history


@pytest.mark.anyio
@pytest.mark.in_turn
async def test_a_checkpoint_brings_them_back(tmp_path: Path) -> None:
    keeps, first, how = Keeps(tmp_path, Wish(every=4)), network(), HOW | {"epochs": 4}
    await first.fit(X, Y, callbacks=[Counts(), keeps], **how)
    assert keeps.taken
    for _, path in keeps.taken[:3]:
        again = network()
        await again.fit(X, Y, callbacks=Counts(), resume=path, **how)
        same(again.state(), first.state())


@pytest.mark.anyio
async def test_the_best_epoch_brings_its_statistics(tmp_path: Path) -> None:
    model, kept = network(), dict[int, list[Any]]()

    class Keep(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            kept[event.epoch] = event.model.get_weights()

    best = callbacks.EarlyStopping("loss", mode="max", patience=2, restore_best_weights=True)
    await model.fit(X, Y, callbacks=[Keep(), best], epochs=5, **HOW)
    assert len(kept) == 3
    for ours, then in zip(model.get_weights(), kept[0], strict=True):
        np.testing.assert_array_equal(ours, then)
    await model.save(tmp_path / "m.h5")
    np.testing.assert_array_equal(await (await af.load_model(tmp_path / "m.h5")).predict(X), await model.predict(X))
    await model.save_weights(tmp_path / "m.weights.h5")
    other = network()
    await other.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(await other.predict(X), await model.predict(X))


@pytest.mark.anyio
async def test_predictions_beside_training_have_the_statistics_of_their_weights() -> None:
    model = network()
    found: list[tuple[Any, Any]] = []

    class Asks(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            found.append((event.model.get_weights(), await event.model.predict(X)))

    await model.fit(X, Y, callbacks=Asks(), epochs=4, lookahead=2, **HOW)
    for weights, predicted in found:
        model.set_weights(weights)
        np.testing.assert_array_equal(await model.predict(X), predicted)

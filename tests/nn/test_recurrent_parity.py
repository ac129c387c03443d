"""Recurrent layers, embeddings, masks: what Keras 3.15 computed (`tests/data/make_keras_recurrent.py`), we compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncfit.nn import Learner, Network
from asyncfit.nn.arrays import Array
from asyncfit.nn.optimizers import SGD

with np.load(Path(__file__).parents[1] / "data" / "keras_recurrent.npz") as file:
    ARRAYS = dict(file)
CASES: dict[str, dict[str, Any]] = json.loads(str(ARRAYS.pop("cases")))
del CASES["file"]
NUMBERS = {name: number for number, name in enumerate(CASES)}


def learner_of(name: str) -> Learner:
    """Built from Keras's own config, with the weights that Keras began with."""
    case = CASES[name]
    network = Network.from_config(case["config"], seed=0)
    before, found = ARRAYS[f"{NUMBERS[name]}/before"], []
    for slot in network.slots:
        found.append(before[: slot.size].reshape(slot.shape))
        before = before[slot.size :]
    assert not before.size
    network.set_weights(found)
    return Learner(network, loss=case["loss"], optimizer=SGD(0.2), metrics=case["metrics"])


def data_of(name: str) -> tuple[Array, Array, Array | None]:
    case = CASES[name]
    w = None if case["w"] is None else ARRAYS[f"data/{case['w']}"]
    return ARRAYS[f"data/{case['x']}"], ARRAYS[f"data/{case['y']}"], w


def epoch(learner: Learner, name: str, *, train: bool) -> dict[str, float]:
    """As the loop does it: means over batches weighted by their size, and what the learner tells at the end."""
    x, y, w = data_of(name)
    batch = learner.train_batch if train else learner.test_batch
    sums: dict[str, float] = {}
    for begin in range(0, len(x), 8):
        part = slice(begin, begin + 8)
        for key, value in batch(x[part], y[part], None if w is None else w[part]).items():
            sums[key] = sums.get(key, 0.0) + value * len(x[part])
    told = learner.end_epoch() if train else learner.end_test()
    return {key: total / len(x) for key, total in sums.items()} | told


@pytest.mark.parametrize("name", CASES)
def test_training_gives_what_keras_gives(name: str) -> None:
    case, learner = CASES[name], learner_of(name)
    for i in range(3):
        logs = epoch(learner, name, train=True)
        assert logs.keys() == case["history"].keys()
        for key, value in logs.items():
            assert value == pytest.approx(case["history"][key][i], rel=3e-5, abs=1e-6), key
    after = np.concatenate([w.ravel() for w in learner.network.get_weights()])
    np.testing.assert_allclose(after, ARRAYS[f"{NUMBERS[name]}/after"], rtol=1e-4, atol=1e-5)
    x, _, _ = data_of(name)
    np.testing.assert_allclose(learner.predict(x), ARRAYS[f"{NUMBERS[name]}/predictions"], rtol=1e-4, atol=1e-5)
    for key, value in epoch(learner, name, train=False).items():
        assert value == pytest.approx(case["evaluated"][key], rel=5e-5, abs=1e-6), key

"""The same weights, the same batches: what Keras 3.15 computed (`tests/data/make_keras_reference.py`), we compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncfit.nn import Learner, Network, losses, optimizers
from asyncfit.nn.arrays import Array

with np.load(Path(__file__).parents[1] / "data" / "keras_reference.npz") as file:
    ARRAYS = dict(file)
CASES: list[dict[str, Any]] = json.loads(str(ARRAYS.pop("cases")))
IDS = [
    f"{c['optimizer']}-{c['loss']}-{c['hidden']}{'-weighted' * c['weighted']}-{len(c['shape'])}d{i}"
    for i, c in enumerate(CASES)
]


def several(number: int, what: str) -> list[Array]:
    found: list[Array] = []
    while (array := ARRAYS.get(f"{number}/{what}/{len(found)}")) is not None:
        found.append(array)
    return found


def learner_of(number: int) -> Learner:
    """Built from Keras's own configs, with the weights that Keras began with."""
    case = CASES[number]
    network = Network.from_config(case["config"], seed=0)
    network.set_weights(several(number, "before"))
    settings = dict(case["optimizer_settings"])
    return Learner(
        network,
        loss=losses.get({"class_name": case["loss_class"], "config": case["loss_settings"]}),
        optimizer=optimizers.get({"class_name": settings.pop("class"), "config": settings}),
        metrics=case["metrics"],
    )


def data_of(number: int) -> tuple[Array, Array, Array | None]:
    return ARRAYS[f"{number}/x"], ARRAYS[f"{number}/y"], ARRAYS.get(f"{number}/w")


def epoch(learner: Learner, number: int, *, train: bool) -> dict[str, float]:
    x, y, w = data_of(number)
    batch = learner.train_batch if train else learner.test_batch
    sums: dict[str, float] = {}
    for begin in range(0, len(x), 8):
        part = slice(begin, begin + 8)
        for name, value in batch(x[part], y[part], None if w is None else w[part]).items():
            assert type(value) is float
            sums[name] = sums.get(name, 0.0) + value * len(x[part])
    return {name: total / len(x) for name, total in sums.items()}


@pytest.mark.parametrize("number", range(len(CASES)), ids=IDS)
def test_training_gives_what_keras_gives(number: int) -> None:
    case, learner = CASES[number], learner_of(number)
    for i in range(3):
        logs = epoch(learner, number, train=True)
        assert logs.keys() == case["history"].keys()
        for name, value in logs.items():
            assert value == pytest.approx(case["history"][name][i], rel=2e-5, abs=1e-6), name
    for ours, keras in zip(learner.network.get_weights(), several(number, "after"), strict=True):
        np.testing.assert_allclose(ours, keras, rtol=5e-5, atol=5e-6)
    x, _, _ = data_of(number)
    np.testing.assert_allclose(learner.predict(x), ARRAYS[f"{number}/predictions"], rtol=5e-5, atol=5e-6)
    evaluated = epoch(learner, number, train=False)
    for name, value in evaluated.items():
        assert value == pytest.approx(case["evaluated"][name], rel=5e-5, abs=1e-6), name


@pytest.mark.parametrize("number", range(16), ids=IDS[:16])
def test_optimizer_slots_come_in_keras_order(number: int) -> None:
    learner = learner_of(number)
    for _ in range(3):
        epoch(learner, number, train=True)
    iteration, rate, *slots = several(number, "optimizer")
    assert learner.optimizer.iterations == iteration
    assert learner.learning_rate == rate
    ours = learner.optimizer_slots()
    names = [path.split("/", 1)[1].split("_", 1)[1] for path in CASES[number]["slots"][2:]]
    assert [name.split("/")[1].rsplit("_", 1)[-1] for name, _ in ours] == [n.rsplit("_", 1)[-1] for n in names]
    for (_, slot), keras in zip(ours, slots, strict=True):
        np.testing.assert_allclose(slot, keras, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("number", range(16), ids=IDS[:16])
def test_training_goes_on_from_saved_slots(number: int) -> None:
    first = learner_of(number)
    epoch(first, number, train=True)
    second = learner_of(number)
    second.network.set_weights(first.network.get_weights())
    slots = [slot.copy() for _, slot in first.optimizer_slots()]
    second.load_optimizer_slots(slots, iteration=first.optimizer.iterations, learning_rate=first.learning_rate)
    assert epoch(first, number, train=True) == epoch(second, number, train=True)
    assert first.network.params.tobytes() == second.network.params.tobytes()

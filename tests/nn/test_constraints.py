"""Constraints: Keras's weights after training, closed forms, functions of one's own, settings, files."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncfit import modelfile
from asyncfit.errors import InvalidInput
from asyncfit.nn import Learner, Network, constraints
from asyncfit.nn.arrays import Array
from asyncfit.nn.constraints import Constraint, MaxNorm, MinMaxNorm, NonNeg, UnitNorm
from asyncfit.nn.layers import Dense, Input
from asyncfit.nn.optimizers import SGD

DATA = Path(__file__).parents[1] / "data"
with np.load(DATA / "keras_constraints.npz") as file:
    ARRAYS = dict(file)
CASES: dict[str, Any] = json.loads(str(ARRAYS.pop("cases")))
X, Y = (ARRAYS[name] for name in "xy")
RNG = np.random.default_rng(0)


def several(case: str, what: str) -> list[Array]:
    names = (f"{case}/{what}/{i}" for i in range(9))
    return [ARRAYS[name] for name in names if name in ARRAYS]


def epoch(learner: Learner) -> float:
    parts = [slice(begin, begin + 8) for begin in range(0, len(X), 8)]
    return sum(learner.train_batch(X[p], Y[p])["loss"] * len(X[p]) for p in parts) / len(X)


@pytest.mark.parametrize("case", CASES)
def test_training_leaves_what_it_leaves_in_keras(case: str) -> None:
    network = Network.from_config(CASES[case]["config"], seed=0)
    network.set_weights(several(case, "before"))
    learner = Learner(network, loss="mse", optimizer=SGD(0.05, momentum=0.5))
    assert [epoch(learner) for _ in range(3)] == pytest.approx(CASES[case]["losses"], rel=1e-5)
    for ours, keras in zip(network.get_weights(), several(case, "after"), strict=True):
        np.testing.assert_allclose(ours, keras, rtol=5e-5, atol=5e-6)
    copied = pickle.loads(pickle.dumps(learner))
    assert epoch(copied) == epoch(learner)
    assert copied.network.params.tobytes() == network.params.tobytes()
    assert Network.from_config(network.get_config()).get_config() == network.get_config()


def lengths(w: Array, axis: Any) -> Array:
    found: Array = np.sqrt(np.sum(w**2, axis))
    return found


@pytest.mark.parametrize("axis", [0, 1, -1, [0, 1], [0, 1, 2]], ids=str)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_lengths(axis: int | list[int], kind: type) -> None:
    w: Array = RNG.standard_normal((4, 3, 5)).astype(kind)
    along = axis if isinstance(axis, int) else tuple(axis)
    before = lengths(w, along)
    assert UnitNorm(axis)(w).dtype == kind
    np.testing.assert_allclose(lengths(UnitNorm(axis)(w), along), np.ones_like(before), rtol=1e-5)
    np.testing.assert_allclose(lengths(MaxNorm(1.5, axis)(w), along), np.minimum(before, 1.5), rtol=1e-5)
    between = MinMaxNorm(1.2, 1.8, axis=axis)(w)
    np.testing.assert_allclose(lengths(between, along), np.clip(before, 1.2, 1.8), rtol=1e-5)
    halfway = MinMaxNorm(1.2, 1.8, 0.5, axis)(w)
    np.testing.assert_allclose(lengths(halfway, along), (before + np.clip(before, 1.2, 1.8)) / 2, rtol=1e-5)
    np.testing.assert_allclose(
        between / w, np.broadcast_to((between / w).max(axis=along, keepdims=True), w.shape), rtol=1e-5
    )
    np.testing.assert_array_equal(NonNeg()(w), np.where(w > 0, w, 0))


class Rounded(Constraint):
    """To a grid of this fineness."""

    def __init__(self, fineness: float = 0.5) -> None:
        self.fineness = fineness

    def __call__(self, w: Array) -> Array:
        found: Array = np.round(w / self.fineness) * self.fineness
        return found


def halves(w: Array) -> Array:
    found: Array = np.round(w * 2) / 2
    return found


@pytest.mark.parametrize("own", [Rounded(), halves], ids=["class", "function"])
def test_ones_of_your_own(own: Any) -> None:
    network = Network([Input(5), Dense(4, kernel_constraint=own), Dense(2)], seed=1)
    learner = pickle.loads(pickle.dumps(Learner(network, loss="mse", optimizer="adam")))
    first = learner.network.layers[0]
    epoch(learner)
    np.testing.assert_array_equal(first.get_weights()[0] * 2 % 1, 0)
    assert np.any(learner.network.get_weights()[2] * 2 % 1)
    assert network.layers[0].get_config()["kernel_constraint"]["class_name"] in ("Rounded", "OwnConstraint")
    assert copy.deepcopy(first.kernel_constraint) == first.kernel_constraint
    with pytest.raises(InvalidInput, match=r"unknown constraint 'Rounded'|the constraint 'halves' is a function"):
        Network.from_config(network.get_config())
    names: Any = {"Rounded": Rounded, "halves": halves}
    again = Network.from_config(network.get_config(), custom_objects=names).layers[0]
    assert isinstance(again, Dense)
    assert again.kernel_constraint == constraints.get(own)


def test_names_as_in_keras() -> None:
    assert constraints.get(None) is None
    assert constraints.get("max_norm") == MaxNorm(2, 0)
    assert constraints.get("NonNeg") == NonNeg()
    assert constraints.get("unit_norm") == UnitNorm(0)
    assert constraints.get(MinMaxNorm) == MinMaxNorm(0.0, 1.0, 1.0, 0)
    assert constraints.get({"class_name": "MaxNorm", "config": {"max_value": 3, "axis": [0, 1]}}) == MaxNorm(3, (0, 1))
    assert constraints.config(MaxNorm(3, (0, 1))) == {
        "class_name": "MaxNorm",
        "config": {"max_value": 3.0, "axis": [0, 1]},
    }
    for one in (NonNeg(), MaxNorm(3, (0, 1)), UnitNorm(1), MinMaxNorm(0.1, 0.2, 0.3, -1)):
        assert type(one).from_config(one.get_config()) == one
        assert hash(copy.deepcopy(one)) == hash(one)


SLIPS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: MaxNorm(-1), InvalidInput, r"MaxNorm\(max_value=…\) must be finite and at least 0"),
    (lambda: MinMaxNorm(2.0), InvalidInput, r"MinMaxNorm\(max_value=…\) must be finite and at least 2"),
    (lambda: MinMaxNorm(rate=2), InvalidInput, "from 0 to 1"),
    (lambda: UnitNorm("rows"), InvalidInput, r"UnitNorm\(axis=…\) must be a whole number"),  # type: ignore[arg-type]
    (lambda: UnitNorm(0.5), InvalidInput, r"UnitNorm\(axis=…\) must be a whole number"),  # type: ignore[arg-type]
    (lambda: Dense(3, kernel_constraint="maxnrom"), InvalidInput, "did you mean 'max_norm'"),
    (lambda: Dense(3, kernel_constraint=3), InvalidInput, "a constraint is a name"),  # type: ignore[arg-type]
    (
        lambda: Network([Input(3), Dense(3, bias_constraint=MaxNorm(axis=1))]),
        InvalidInput,
        r"weight dense/bias of the shape \(3,\): MaxNorm\(.*names an axis that it does not have",
    ),
    (lambda: UnitNorm([0, -2])(np.ones((3, 3))), InvalidInput, "or one twice"),
    (lambda: Constraint()(X), NotImplementedError, "__call__"),
]


@pytest.mark.parametrize(("call", "kind", "message"), SLIPS)
def test_slips_are_told(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_a_function_that_changes_the_shape_is_told() -> None:
    network = Network([Input(5), Dense(4, kernel_constraint=lambda w: w[0]), Dense(2)], seed=1)
    with pytest.raises(InvalidInput, match=r"made an array of the shape \(4,\) of a weight of \(5, 4\)"):
        epoch(Learner(network, loss="mse"))


def test_keras_file() -> None:
    path = str(DATA / "keras_constrained.h5")
    network = modelfile.restored(modelfile.read(path), path)
    first, second, third = network.layers
    assert isinstance(first, Dense)
    assert isinstance(second, Dense)
    assert isinstance(third, Dense)
    assert (first.kernel_constraint, first.bias_constraint) == (MaxNorm(0.7), NonNeg())
    assert second.kernel_constraint == MinMaxNorm(0.6, 0.8, 0.5, [0])
    assert third.kernel_constraint == UnitNorm()

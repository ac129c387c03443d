"""Each layer, activation and loss against finite differences, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncfit.nn import activations, losses
from asyncfit.nn.arrays import Array
from asyncfit.nn.layers import Activation, Dense, Dropout, Flatten, Input, Layer

from .helpers import check_gradient, learner64

RNG = np.random.default_rng(0)
ACTIVATIONS = sorted({a.name for a in activations.SPELLINGS.values()} - {"glu", "threshold"})


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("where", ["hidden", "last", "layer", "sequence"])
def test_activations(name: str, where: str) -> None:
    x, y = RNG.standard_normal((7, 3)), RNG.random((7, 2))
    layers: list[Layer] = {
        "hidden": [Input(3), Dense(4, activation=name), Dense(2)],
        "last": [Input(3), Dense(4), Dense(2, activation=name)],
        "layer": [Input(3), Dense(4), Activation(name), Activation("tanh"), Dense(2), Activation(name)],
        "sequence": [Input((5, 3)), Dense(4, activation=name), Flatten(), Dense(2)],
    }[where]
    x = RNG.standard_normal((7, 5, 3)) if where == "sequence" else x
    check_gradient(learner64(layers, "mse"), x, y)


LAYERS: dict[str, tuple[tuple[int, ...], Callable[[], list[Layer]]]] = {
    "dense": ((3,), lambda: [Dense(4, activation="tanh")]),
    "dense without bias": ((3,), lambda: [Dense(4, use_bias=False, activation="tanh")]),
    "dense on sequences": ((5, 3), lambda: [Dense(4, activation="tanh"), Dense(2), Flatten()]),
    "dense on grids": ((2, 5, 3), lambda: [Dense(4, activation="tanh"), Dense(2, use_bias=False), Flatten()]),
    "dense on sequences, activated when flat": ((5, 3), lambda: [Dense(4), Flatten(), Activation("tanh")]),
    "flatten first": ((5, 3), lambda: [Flatten(), Dense(4, activation="tanh")]),
    "flatten twice": ((3,), lambda: [Flatten(), Dense(4, activation="tanh"), Flatten()]),
    "activation first": ((3,), lambda: [Activation("tanh"), Dense(4)]),
    "dropout": ((3,), lambda: [Dense(6, activation="tanh"), Dropout(0.5), Dense(4), Dropout(0.2)]),
    "dropout first": ((3,), lambda: [Dropout(0.3), Dense(4)]),
    "dropout on sequences": ((5, 3), lambda: [Dense(4), Dropout(0.4), Flatten()]),
    "dropout then flatten": ((5, 3), lambda: [Dropout(0.3), Flatten(), Dropout(0.3), Dense(4)]),
    "no dropout": ((3,), lambda: [Dense(6, activation="tanh"), Dropout(0.0), Dense(4)]),
    "wide": ((3,), lambda: [Dense(70, activation="tanh"), Dropout(0.3), Dense(66), Dense(65, activation="relu")]),
    "wide and narrow": ((80,), lambda: [Dense(66, activation="elu"), Dense(4, activation="tanh"), Dense(64)]),
    "wide, as layers": ((3,), lambda: [Dense(70), Activation("tanh"), Dense(66, use_bias=False), Activation("silu")]),
    "frozen below": ((3,), lambda: [Dense(6, trainable=False), Dense(4, activation="tanh")]),
    "frozen between": ((3,), lambda: [Dense(6), Dense(5, activation="tanh", trainable=False), Dense(4)]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    shape, layers = LAYERS[name]
    learner = learner64([Input(shape), *layers(), Dense(2)], "mse")
    check_gradient(learner, RNG.standard_normal((6, *shape)), RNG.standard_normal((6, 2)))


LOSSES: dict[str, tuple[Any, int, Callable[[int, int], Array]]] = {
    "mse": ("mse", 3, lambda n, c: RNG.standard_normal((n, c))),
    "mae": ("mae", 3, lambda n, c: RNG.standard_normal((n, c))),
    "bce": ("bce", 1, lambda n, c: RNG.integers(0, 2, n)),
    "bce of shares": ("bce", 3, lambda n, c: RNG.random((n, c))),
    "bce, smoothed": (losses.BinaryCrossentropy(label_smoothing=0.3), 2, lambda n, c: RNG.integers(0, 2, (n, c))),
    "bce from logits": (losses.BinaryCrossentropy(from_logits=True), 2, lambda n, c: RNG.integers(0, 2, (n, c))),
    "cce": ("categorical_crossentropy", 3, lambda n, c: np.eye(c)[RNG.integers(0, c, n)]),
    "cce of any sum": ("categorical_crossentropy", 3, lambda n, c: RNG.random((n, c))),
    "cce, smoothed": (losses.CategoricalCrossentropy(label_smoothing=0.3), 3, lambda n, c: RNG.random((n, c))),
    "cce from logits": (losses.CategoricalCrossentropy(from_logits=True), 3, lambda n, c: RNG.random((n, c))),
    "scce": ("sparse_categorical_crossentropy", 3, lambda n, c: RNG.integers(0, c, n)),
    "scce from logits": (losses.SparseCategoricalCrossentropy(from_logits=True), 3, lambda n, c: RNG.integers(0, c, n)),
}


ENDS = [
    (name, last)
    for name in LOSSES
    for last in ("sigmoid", "softmax", "softplus", "linear")
    if last != "linear" or "ce" not in name or "logits" in name  # a probability below 0 has no logarithm
]


@pytest.mark.parametrize(("name", "last"), ENDS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_losses(name: str, last: str, weighted: bool) -> None:
    loss, units, target = LOSSES[name]
    learner = learner64([Input(3), Dense(4, activation="tanh"), Dense(units, activation=last)], loss)
    if last == "softplus" and "bce" in name and "logits" not in name:
        learner.network.params *= 0.1  # outputs stay below 1, where the clip would cut
    w = RNG.random(6) * 2 if weighted else None
    check_gradient(learner, RNG.standard_normal((6, 3)), target(6, units), w)


@pytest.mark.parametrize("name", ["mse", "mae", "bce of shares", "cce", "scce"])
def test_losses_of_sequences(name: str) -> None:
    loss, units, target = LOSSES[name]
    last = {"b": "sigmoid", "c": "softmax", "s": "softmax"}.get(name[0], "linear")
    learner = learner64([Input((4, 3)), Dense(5, activation="tanh"), Dense(units, activation=last)], loss)
    y = target(24, units)
    check_gradient(learner, RNG.standard_normal((6, 4, 3)), y.reshape(6, 4, *y.shape[1:]), RNG.random(6))
    check_gradient(learner, RNG.standard_normal((6, 4, 3)), y.reshape(6, 4, *y.shape[1:]), RNG.random((6, 4)))

"""Layers without weights, or with few: gradients, closed forms, spellings of other libraries, bad settings."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncfit.errors import InvalidInput
from asyncfit.nn import Learner, Network, predict
from asyncfit.nn.arrays import Array
from asyncfit.nn.layers import (
    ELU,
    Activation,
    Dense,
    Flatten,
    Input,
    Layer,
    LeakyReLU,
    Permute,
    PReLU,
    ReLU,
    RepeatVector,
    Rescaling,
    Reshape,
    Softmax,
)

from .helpers import check_gradient, learner64

RNG = np.random.default_rng(0)


def between(*layers: Layer) -> list[Layer]:
    """Something to learn before and behind."""
    return [Dense(6, bias_initializer="uniform"), *layers, Flatten(), Dense(2)]


LAYERS: dict[str, tuple[tuple[int, ...], Callable[[], list[Layer]]]] = {
    "reshape": ((3,), lambda: between(Reshape((2, 3)), Dense(4, activation="tanh"))),
    "reshape, rest": ((3,), lambda: between(Reshape((3, -1)), Dense(4, activation="tanh"), Reshape((2, 2, -1)))),
    "reshape twice": ((3,), lambda: between(Reshape((2, 3)), Reshape((-1,)), Dense(4, activation="tanh"))),
    "reshape, wide": ((3,), lambda: [Dense(72), Reshape((8, 9)), Activation("tanh"), Reshape((72,)), Dense(2)]),
    "reshape first": ((6,), lambda: [Reshape((2, 3)), *between()]),
    "permute": ((4, 3), lambda: between(Permute((2, 1)), Dense(4, activation="tanh"))),
    "permute grids": ((2, 4, 3), lambda: between(Permute((3, 1, 2)), Dense(4, activation="tanh"))),
    "permute nothing": ((4, 3), lambda: between(Permute((1, 2)), Dense(4, activation="tanh"))),
    "permute first": ((4, 3), lambda: [Permute((2, 1)), *between()]),
    "repeat": ((3,), lambda: between(RepeatVector(3), Dense(4, activation="tanh"))),
    "repeat, wide": ((3,), lambda: [Dense(66), RepeatVector(2), Dense(4, activation="tanh"), Flatten(), Dense(2)]),
    "rescaling": ((3,), lambda: [Rescaling(2.0), *between(Rescaling(0.5, -0.3))]),
    "rescaling each": ((4, 3), lambda: [Rescaling([1.0, 2.0, 3.0], [[0.5]]), *between(Rescaling(np.arange(6.0)))]),
    "relu": ((3,), lambda: between(ReLU())),
    "relu, cut": ((4, 3), lambda: between(ReLU(max_value=0.4))),
    "relu, all": ((3,), lambda: between(ReLU(0.9, 0.1, 0.2))),
    "relu, steep": ((3,), lambda: between(ReLU(negative_slope=1.5))),
    "leaky": ((3,), lambda: between(LeakyReLU())),
    "leaky, steep": ((3,), lambda: between(LeakyReLU(1.2))),
    "elu": ((3,), lambda: between(ELU())),
    "elu, alpha": ((4, 3), lambda: between(ELU(0.4))),
    "softmax": ((3,), lambda: between(Softmax())),
    "softmax, steps": ((4, 3), lambda: between(Softmax(1))),
    "softmax, all": ((4, 3), lambda: between(Softmax([1, -1]))),
    "softmax by number": ((3,), lambda: between(Softmax(1))),
    "prelu": ((3,), lambda: between(PReLU("uniform"))),
    "prelu, wide": ((3,), lambda: [Dense(70), PReLU("uniform"), Dense(66), PReLU("uniform"), Dense(2)]),
    "prelu, shared": ((4, 3), lambda: between(PReLU("uniform", shared_axes=[1]))),
    "prelu, channels": ((2, 4, 3), lambda: between(PReLU("uniform", shared_axes=(1, 2), alpha_regularizer="l2"))),
    "prelu, one": ((2, 4, 3), lambda: between(PReLU("uniform", shared_axes=(1, 2, 3)))),
    "prelu first": ((4, 3), lambda: [PReLU("uniform"), *between()]),
    "prelu, frozen": ((3,), lambda: between(PReLU("uniform", trainable=False))),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name: str) -> None:
    shape, layers = LAYERS[name]
    x, y = RNG.standard_normal((6, *shape)), RNG.standard_normal((6, 2))
    check_gradient(learner64([Input(shape), *layers()], "mse"), x, y, points=60)


@pytest.mark.parametrize("name", LAYERS)
def test_copies_and_configs_predict_the_same(name: str) -> None:
    shape, layers = LAYERS[name]
    x = RNG.standard_normal((6, *shape)).astype(np.float32)
    learner = Learner(Network([Input(shape), *layers()], seed=1), loss="mse")
    learner.train_batch(x, np.zeros((6, 2)))
    again = Network.from_config(learner.network.get_config())
    again.set_weights(learner.network.get_weights())
    expected = learner.predict(x)
    for found in (again, copy.deepcopy(learner).network, pickle.loads(pickle.dumps(learner)).network):
        np.testing.assert_array_equal(predict(found, x), expected)


def outputs(layer: Layer, x: Any) -> Array:
    x = np.asarray(x, np.float32)
    return predict(Network([Input(x.shape[1:]), layer]), x)


def test_what_they_compute() -> None:
    row = [[-2.0, -0.5, 0.0, 0.5, 2.0, 7.0]]
    np.testing.assert_allclose(outputs(ReLU(), row), [[0, 0, 0, 0.5, 2, 7]])
    np.testing.assert_allclose(outputs(ReLU(6.0, 0.5, 1.0), row), [[-1.5, -0.75, -0.5, -0.25, 2, 6]])
    np.testing.assert_allclose(outputs(LeakyReLU(), row), [[-0.6, -0.15, 0, 0.5, 2, 7]], rtol=1e-6)
    np.testing.assert_allclose(outputs(ELU(2.0), row)[0, :2], 2 * np.expm1([-2.0, -0.5]), rtol=1e-6)
    np.testing.assert_allclose(outputs(PReLU("ones"), row), row)
    np.testing.assert_allclose(outputs(Rescaling(1 / 7, offset=-1), row), [np.array(row[0]) / 7 - 1], rtol=1e-6)
    grid = np.arange(6.0).reshape(1, 2, 3)
    np.testing.assert_array_equal(outputs(Permute((2, 1)), grid), grid.transpose(0, 2, 1))
    np.testing.assert_array_equal(outputs(Reshape((3, -1)), grid), grid.reshape(1, 3, 2))
    np.testing.assert_array_equal(outputs(RepeatVector(3), row), [row * 3])
    np.testing.assert_allclose(outputs(Softmax(1), grid).sum(1), np.ones((1, 3)), rtol=1e-6)


def test_whole_images_are_rescaled_block_by_block() -> None:
    images = RNG.integers(0, 256, (3, 200, 120, 3))
    scale = [1 / 255, 1 / 127, 1.0]
    expected = images * np.array(scale) - 1
    np.testing.assert_allclose(outputs(Rescaling(scale, -1.0), images), expected, rtol=1e-5, atol=1e-6)


def test_a_softmax_layer_is_computed_with_the_loss() -> None:
    layer, activation = (
        Learner(Network([Input(3), Dense(4), last], seed=3), loss="categorical_crossentropy")
        for last in (Softmax(), Activation("softmax"))
    )
    x, y = RNG.standard_normal((5, 3)), np.eye(4)[[0, 1, 2, 3, 0]]
    assert layer.train_batch(x, y) == activation.train_batch(x, y)
    assert layer.network.params.tobytes() == activation.network.params.tobytes()


SPELLINGS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("LeakyReLU", {"alpha": 0.1}, {"negative_slope": 0.1}),
    ("LeakyReLU", {"negative_slope": 0.1}, {"negative_slope": 0.1}),
    ("LeakyReLU", {}, {"negative_slope": 0.3}),
    ("ReLU", {"max_value": 6.0}, {"max_value": 6.0, "negative_slope": 0.0, "threshold": 0.0}),
    ("ReLU", {"max_value": None, "negative_slope": None, "threshold": None}, {"negative_slope": 0.0, "threshold": 0.0}),
    ("ELU", {"alpha": 0.5}, {"alpha": 0.5}),
    ("ELU", {}, {"alpha": 1.0}),
    ("Reshape", {"target_shape": [3, -1]}, {"target_shape": (3, -1)}),
    ("PReLU", {"shared_axes": None, "alpha_constraint": None}, {"shared_axes": None}),
]


@pytest.mark.parametrize(("kind", "config", "expected"), SPELLINGS)
def test_other_spellings_are_read(kind: str, config: dict[str, Any], expected: dict[str, Any]) -> None:
    layers = [{"class_name": kind, "config": {"name": "mine", "batch_input_shape": [None, 6], **config}}]
    (layer,) = Network.from_config({"name": "m", "layers": layers}).layers
    assert {name: getattr(layer, name) for name in expected} == expected


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: Reshape((3, -1, -1)), "one may be -1"),
    (lambda: Reshape((3, 0)), "sizes from 1"),
    (lambda: Reshape("3"), "whole numbers"),  # type: ignore[arg-type]
    (lambda: Network([Input(7), Reshape((2, 3))]), r"'reshape' cannot make \(2, 3\) of \(7,\)"),
    (lambda: Network([Input(7), Reshape((2, -1))]), "do not match"),
    (lambda: Permute((0, 1)), "from 1"),
    (lambda: Permute((1, 1)), "once"),
    (lambda: Network([Input(7), Permute((2, 1))]), "orders 2 axes"),
    (lambda: RepeatVector(0), "whole number from 1"),
    (lambda: Network([Input((2, 3)), RepeatVector(2)]), "takes vectors"),
    (lambda: Rescaling(np.nan), "finite"),
    (lambda: Rescaling("1"), "number"),
    (lambda: Network([Input((2, 3)), Rescaling([1.0, 2.0])]), r"scale of shape \(2,\)"),
    (lambda: ReLU(max_value=-1), "at least 0"),
    (lambda: LeakyReLU(-0.1), "at least 0"),
    (lambda: ELU(None), "must be a number"),  # type: ignore[arg-type]
    (lambda: Softmax(0), "from 1 or -1"),
    (lambda: Network([Input(3), Softmax(2)]), "axes go from 1 to 1"),
    (lambda: Network([Input((3, 2)), Softmax([2, -1])]), "axes go from 1 to 2"),
    (lambda: PReLU(shared_axes=[0]), "from 1"),
    (lambda: Network([Input(3), PReLU(shared_axes=[2])]), "axes go from 1 to 1"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_settings_are_told(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()

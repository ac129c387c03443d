"""Layers that normalize: gradients, statistics, what is part of the state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncfit.errors import InvalidInput
from asyncfit.nn import Learner, Network, blocks, channels, predict
from asyncfit.nn.layers import (
    Activation,
    BatchNormalization,
    Conv1D,
    Conv2D,
    Dense,
    Flatten,
    GroupNormalization,
    Input,
    Layer,
    LayerNormalization,
    MaxPooling2D,
    UnitNormalization,
)
from asyncfit.nn.optimizers import SGD

from .helpers import check_gradient, learner64

RNG = np.random.default_rng(0)
UNLIKE: dict[str, Any] = {"gamma_initializer": "uniform", "beta_initializer": "uniform"}


def between(*layers: Layer) -> list[Layer]:
    """Something to learn before and behind."""
    return [Dense(6, bias_initializer="uniform"), *layers, Activation("tanh"), Flatten(), Dense(2)]


def batch(*args: Any, **how: Any) -> BatchNormalization:
    return BatchNormalization(*args, **{**UNLIKE, **how})


def layer(*args: Any, **how: Any) -> LayerNormalization:
    return LayerNormalization(*args, **{**UNLIKE, **how})


def group(*args: Any, **how: Any) -> GroupNormalization:
    return GroupNormalization(*args, **{**UNLIKE, **how})


LAYERS: dict[str, tuple[tuple[int, ...], Callable[[], list[Layer]]]] = {
    "batch": ((3,), lambda: between(batch())),
    "batch, wide": ((3,), lambda: [Dense(70), batch(), Dense(66), batch(), Activation("tanh"), Dense(2)]),
    "batch, wide then relu": ((3,), lambda: [Dense(70, use_bias=False), batch(), Activation("elu"), Dense(2)]),
    "batch first": ((3,), lambda: [batch(), *between()]),
    "batch, one feature": ((1,), lambda: [batch(), Dense(1), batch(), Activation("tanh"), Dense(2)]),
    "batch of images, one channel": ((4, 5, 1), lambda: [batch(), *between(), Dense(2)]),
    "group of images, one channel": ((4, 5, 1), lambda: [Conv2D(1, 2), group(1), Conv2D(3, 2), *between()]),
    "layer, one feature": ((4, 1), lambda: [layer(), *between()]),
    "batch, only scale": ((3,), lambda: between(batch(center=False))),
    "batch, only center": ((3,), lambda: between(batch(scale=False))),
    "batch, neither": ((3,), lambda: between(batch(scale=False, center=False))),
    "batch of sequences": ((5, 3), lambda: between(batch())),
    "batch of images": ((4, 5, 3), lambda: between(batch(gamma_regularizer="l2"))),
    "batch along the first": ((4, 5, 3), lambda: between(batch(axis=1))),
    "batch along the middle": ((4, 5, 3), lambda: between(batch(axis=-2))),
    "batch of images between convolutions": (
        (5, 5, 2),
        lambda: [Conv2D(3, 2), batch(), Activation("tanh"), Conv2D(2, 2), batch(), MaxPooling2D(), Flatten(), Dense(2)],
    ),
    "batch of images behind a convolution": (
        (5, 4, 2),
        lambda: [Conv2D(3, 2), batch(scale=False), Flatten(), Dense(2)],
    ),
    "batch of images, another axis": ((5, 4, 2), lambda: [Conv2D(3, 2), batch(1), Conv2D(2, 2), Flatten(), Dense(2)]),
    "batch of images between convolutions, not trained": (
        (5, 4, 2),
        lambda: [Conv2D(3, 2), batch(trainable=False), Conv2D(2, 2), Flatten(), Dense(2)],
    ),
    "batch of sequences between convolutions": (
        (6, 2),
        lambda: [Conv1D(3, 2), batch(center=False), Activation("tanh"), Conv1D(2, 2), Flatten(), Dense(2)],
    ),
    "batch, not trained": ((3,), lambda: between(batch(trainable=False))),
    "layer": ((3,), lambda: between(layer())),
    "layer, wide": ((3,), lambda: [Dense(70), layer(), Dense(66), layer(), Activation("tanh"), Dense(2)]),
    "layer first": ((5, 3), lambda: [layer(), *between()]),
    "layer, plain": ((5, 3), lambda: between(layer(scale=False, center=False))),
    "layer, only center": ((3,), lambda: between(layer(scale=False))),
    "layer, not trained": ((3,), lambda: between(layer(trainable=False))),
    "layer of sequences": ((5, 3), lambda: between(layer(axis=1, beta_regularizer="l1"))),
    "layer of images": ((4, 5, 3), lambda: between(layer(axis=[1, 2, 3]))),
    "layer of images, some axes": ((4, 5, 3), lambda: between(layer(axis=(3, 1)))),
    "layer by variance": ((4, 3), lambda: between(layer(rms_scaling=True))),
    "layer by variance, not trained": ((3,), lambda: between(layer(rms_scaling=True, trainable=False))),
    "group": ((3,), lambda: between(group(3))),
    "group, wide": ((3,), lambda: [Dense(70), group(5), Dense(66), group(6), Activation("tanh"), Dense(2)]),
    "group first": ((5, 4), lambda: [group(2), *between()]),
    "group of images": ((4, 5, 3), lambda: between(group(2))),
    "group of images, one": ((4, 5, 3), lambda: between(group(1, center=False))),
    "group of images, each": ((4, 5, 3), lambda: between(group(-1, scale=False))),
    "group along the middle": ((5, 4, 3), lambda: between(group(2, axis=2))),
    "group, not trained": ((4, 3), lambda: between(group(2, trainable=False))),
    "unit": ((3,), lambda: between(UnitNormalization())),
    "unit, wide": ((3,), lambda: [Dense(70), UnitNormalization(), Dense(66), UnitNormalization(), Dense(2)]),
    "unit of images": ((4, 5, 3), lambda: between(UnitNormalization([1, 3]))),
    "batch of images, not trained": ((4, 5, 3), lambda: between(batch(axis=1, trainable=False))),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name: str) -> None:
    shape, layers = LAYERS[name]
    x, y = RNG.standard_normal((7, *shape)), RNG.standard_normal((7, 2))
    check_gradient(learner64([Input(shape), *layers()], "mse"), x, y, points=60)


@pytest.mark.parametrize("name", [name for name in LAYERS if "images" in name or "wide" in name or "conv" in name])
@pytest.mark.parametrize("line", [4, 1 << 15])
def test_gradients_in_many_small_blocks(name: str, line: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "LINE", line)
    monkeypatch.setattr(channels, "BLOCK", 24)
    monkeypatch.setattr(channels, "WIDEST", 12)
    monkeypatch.setattr(channels, "WIDE", 12)
    monkeypatch.setattr(blocks, "BLOCK", 24)
    test_gradients(name)


def test_the_statistics_are_those_of_the_batch_and_the_moving_ones_follow() -> None:
    layer = BatchNormalization(momentum=0.9, epsilon=0.01)
    network = Network([Input((4, 3)), layer, Flatten(), Dense(1)], seed=0)
    x = (RNG.standard_normal((50, 4, 3)) * [1, 10, 100] + [0, 5, 1000]).astype(np.float32)
    learner = Learner(network, loss="mse", optimizer=SGD(0.0))
    mean, variance = x.astype(float).mean((0, 1)), x.astype(float).var((0, 1))
    learner.train_batch(x, np.zeros(50))
    np.testing.assert_allclose(layer.arrays["moving_mean"], 0.1 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(layer.arrays["moving_variance"], 0.9 + 0.1 * variance, rtol=1e-4)
    layer.arrays["moving_mean"][:], layer.arrays["moving_variance"][:] = mean, variance
    layer.arrays["gamma"][:], layer.arrays["beta"][:] = [1, 2, 3], [0, 1, 2]
    expected = (x - mean) / np.sqrt(variance + 0.01) * [1, 2, 3] + [0, 1, 2]
    alone = Network([Input((4, 3)), BatchNormalization(momentum=0.9, epsilon=0.01)])
    alone.set_weights(layer.get_weights())
    np.testing.assert_allclose(predict(alone, x), expected, rtol=1e-4, atol=1e-4)
    before = layer.arrays["moving_mean"].copy()
    learner.test_batch(x, np.zeros(50))
    learner.predict(x)
    np.testing.assert_array_equal(layer.arrays["moving_mean"], before)


def test_it_learns_from_features_far_from_zero() -> None:
    x = RNG.standard_normal((256, 4)).astype(np.float32)
    y = x[:, :1] - x[:, 1:2]
    network = Network([Input(4), BatchNormalization(), Dense(1)], seed=1)
    learner = Learner(network, loss="mse", optimizer=SGD(0.1))
    losses = [learner.train_batch(x * [1, 3, 10, 100] + [10, 300, 1000, 0], y)["loss"] for _ in range(200)]
    assert losses[-1] < 0.01 * losses[0]


def test_a_flag_that_was_changed_since_counts_when_the_network_is_built_anew() -> None:
    network = Network([Input(3), layer := BatchNormalization(scale=False, center=False), Dense(1)], seed=1)
    learner = Learner(network, loss="mse", optimizer=SGD(0.0))
    x = RNG.standard_normal((8, 3))
    learner.train_batch(x, np.zeros(8))
    moved = layer.arrays["moving_mean"].copy()
    layer.trainable = False
    learner.train_batch(x[:5], np.zeros(5))  # another size of batch is planned now
    assert not np.array_equal(layer.arrays["moving_mean"], moved)


def test_settings_of_keras_2_are_read() -> None:
    config = {
        "name": "bn", "trainable": True, "dtype": "float32", "axis": [3], "momentum": 0.99, "epsilon": 0.001,
        "center": True, "scale": True, "beta_initializer": {"class_name": "Zeros", "config": {}},
        "gamma_initializer": {"class_name": "Ones", "config": {}}, "beta_regularizer": None, "beta_constraint": None,
    }  # fmt: skip
    assert BatchNormalization.from_config(config).axis == 3


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: BatchNormalization(synchronized=True), "synchronized=True"),
    (lambda: BatchNormalization.from_config({"renorm": True}), "renorm=True is not supported"),
    (lambda: BatchNormalization(axis=[1, 2]), "one axis"),  # type: ignore[arg-type]
    (lambda: BatchNormalization(epsilon=-1), "at least 0"),
    (lambda: Network([Input(3), BatchNormalization(axis=0)]), "axes go from 1 to 1"),
    (lambda: Network([Input(3), BatchNormalization(axis=2)]), "axes go from 1 to 1"),
    (lambda: Network([Input((2, 3)), BatchNormalization(axis=-3)]), "axes go from 1 to 2"),
    (lambda: Network([Input((2, 3)), LayerNormalization(axis=[1, 1])]), "axes go from 1 to 2"),
    (lambda: Network([Input((2, 3)), LayerNormalization(axis=[0, 1])]), "axes go from 1 to 2"),
    (lambda: LayerNormalization(axis="last"), "whole numbers"),  # type: ignore[arg-type]
    (lambda: Network([Input((2, 3)), UnitNormalization(axis=3)]), "axes go from 1 to 2"),
    (lambda: GroupNormalization(0), "whole number from 1"),
    (lambda: Network([Input((2, 6)), GroupNormalization(4)]), "cannot make 4 groups of 6 channels"),
    (lambda: Network([Input((2, 6)), GroupNormalization()]), "cannot make 32 groups of 6 channels"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_settings_are_told(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()

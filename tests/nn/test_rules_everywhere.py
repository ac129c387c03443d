"""Penalties, constraints and activations with options hold in every layer that takes them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from asyncfit.nn import Learner, Network, activations
from asyncfit.nn.arrays import Array
from asyncfit.nn.constraints import NonNeg
from asyncfit.nn.layers import KINDS as ALL
from asyncfit.nn.layers import Dense, Flatten, Input, Layer
from asyncfit.nn.optimizers import SGD
from asyncfit.nn.regularizers import L1L2

from .helpers import check_gradient, learner64

RNG = np.random.default_rng(0)
KINDS: dict[str, Any] = dict(ALL)
SETTINGS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "BatchNormalization": ((3,), {}),
    "Conv1D": ((6, 3), {"filters": 2, "kernel_size": 3}),
    "Conv1DTranspose": ((4, 3), {"filters": 2, "kernel_size": 3, "strides": 2}),
    "Conv2D": ((5, 4, 3), {"filters": 2, "kernel_size": 3}),
    "Conv2DTranspose": ((3, 2, 3), {"filters": 2, "kernel_size": 2, "strides": 2}),
    "Dense": ((3,), {"units": 4}),
    "DepthwiseConv1D": ((6, 3), {"kernel_size": 3}),
    "DepthwiseConv2D": ((5, 4, 3), {"kernel_size": 3}),
    "Embedding": ((4,), {"input_dim": 5, "output_dim": 3}),
    "GRU": ((4, 3), {"units": 2}),
    "GroupNormalization": ((4,), {"groups": 2}),
    "LSTM": ((4, 3), {"units": 2}),
    "LayerNormalization": ((4,), {}),
    "PReLU": ((4,), {}),
    "SeparableConv1D": ((6, 3), {"filters": 2, "kernel_size": 3}),
    "SeparableConv2D": ((5, 4, 3), {"filters": 2, "kernel_size": 3}),
    "SimpleRNN": ((4, 3), {"units": 2}),
}


def takes(cls: Any, ending: str) -> list[str]:
    return [name for name in inspect.signature(cls.__init__).parameters if name.endswith(ending)]


RULED = [name for name, cls in KINDS.items() if takes(cls, "_constraint")]


def made(name: str, ending: str, rule: object) -> list[Layer]:
    """The layer with this rule for each weight, and one number a sample behind it."""
    shape, settings = SETTINGS[name]
    rules = {keyword: rule for keyword in takes(KINDS[name], ending) if keyword != "activity_regularizer"}
    return [Input(shape), KINDS[name](**settings, **rules), Flatten(), Dense(1)]


def data(name: str) -> tuple[Array, Array]:
    shape = SETTINGS[name][0]
    x = RNG.integers(0, 5, (6, *shape)) if name == "Embedding" else RNG.standard_normal((6, *shape))
    return x, RNG.standard_normal((6, 1))


def test_every_layer_with_weights_is_here() -> None:
    assert sorted(RULED) == sorted(SETTINGS)
    for name in RULED:
        weights = {n.removesuffix("_constraint") for n in takes(KINDS[name], "_constraint")}
        penalized = {n.removesuffix("_regularizer") for n in takes(KINDS[name], "_regularizer")}
        assert penalized - {"activity"} == weights


@pytest.mark.parametrize("name", RULED)
def test_penalties(name: str) -> None:
    learner = learner64(made(name, "_regularizer", L1L2(0.1, 0.2)), "mse")
    learner.network.params += 0.3 * RNG.standard_normal(learner.network.params.size)
    x, y = data(name)
    check_gradient(learner, x, y)
    layer = learner.network.layers[0]
    own = [slot for slot in learner.network.slots if slot.layer == layer.name and slot.trainable]
    assert own
    assert all(slot.regularizer == L1L2(0.1, 0.2) for slot in own)
    plain = learner64(made(name, "_regularizer", None), "mse")
    plain.network.set_weights(learner.network.get_weights())
    extra = learner.test_batch(x, y)["loss"] - plain.test_batch(x, y)["loss"]
    weights = [slot.view(learner.network.params) for slot in own]
    assert extra == pytest.approx(sum(0.1 * np.abs(w).sum() + 0.2 * (w**2).sum() for w in weights))
    assert KINDS[name].from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize("name", RULED)
def test_constraints(name: str) -> None:
    network = Network(made(name, "_constraint", "non_neg"), seed=1)
    learner = Learner(network, loss="mse", optimizer=SGD(0.5))
    network.params += 0.5 * RNG.standard_normal(network.params.size).astype(np.float32)
    learner.train_batch(*data(name))
    layer = network.layers[0]
    own = [slot for slot in network.slots if slot.layer == layer.name and slot.trainable]
    values = np.concatenate([slot.view(network.params).ravel() for slot in own])
    assert all(slot.constraint == NonNeg() for slot in own)
    assert (values >= 0).all()
    assert (values == 0).any()
    assert KINDS[name].from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize("name", [name for name, cls in KINDS.items() if takes(cls, "activation") and name in SETTINGS])
def test_activations_with_options_are_kept(name: str) -> None:
    one = activations.LeakyReLU(0.05)
    layer = KINDS[name](**SETTINGS[name][1], **dict.fromkeys(takes(KINDS[name], "activation"), one))
    assert KINDS[name].from_config(layer.get_config()).activation == one
    assert KINDS[name].from_config(layer.get_config()).get_config() == layer.get_config()


OTHERS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "Bidirectional": ((4, 3), {"layer": {"class_name": "GRU", "config": {"units": 2}}}),
    "Dropout": ((4, 3), {"rate": 0.0}),
    "MaxPooling2D": ((4, 4, 3), {}),
    "ReLU": ((4,), {}),
    "Reshape": ((4, 3), {"target_shape": (6, 2)}),
    "UpSampling2D": ((2, 2, 3), {}),
}


@pytest.mark.parametrize("name", [*RULED, *OTHERS])
def test_any_output_can_be_penalized(name: str) -> None:
    """In Keras each layer has it as a property, and files of any layer may tell it."""
    shape, settings = (SETTINGS | OTHERS)[name]
    layer = KINDS[name].from_config({"name": "one", **settings})
    layer.activity_regularizer = "l2"
    again = KINDS[name].from_config(layer.get_config())
    assert again.activity_regularizer == layer.activity_regularizer is not None
    words = name == "Embedding"
    x = RNG.integers(0, 5, (6, *shape)) if words else RNG.standard_normal((6, *shape))

    def learner(one: Layer) -> Learner:
        first: list[Layer] = [] if words else [Dense(shape[-1])]
        return learner64([Input(shape), *first, one, Flatten(), Dense(1)], "mse")

    penalized, plain = learner(again), learner(KINDS[name].from_config({"name": "one", **settings}))
    check_gradient(penalized, x, y := RNG.random((6, 1)))
    plain.network.set_weights(penalized.network.get_weights())
    assert penalized.test_batch(x, y)["loss"] > plain.test_batch(x, y)["loss"]

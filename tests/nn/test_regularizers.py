"""Regularizers: Keras's losses and weights, finite differences, settings, files."""

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
from asyncfit.nn import Learner, Network, regularizers
from asyncfit.nn.arrays import Array
from asyncfit.nn.layers import Activation, ActivityRegularization, Dense, Flatten, Input, Layer
from asyncfit.nn.optimizers import SGD
from asyncfit.nn.regularizers import L1, L1L2, L2, OrthogonalRegularizer, Regularizer

from .helpers import check_gradient, learner64

DATA = Path(__file__).parents[1] / "data"
with np.load(DATA / "keras_regularizers.npz") as file:
    ARRAYS = dict(file)
CASES: dict[str, Any] = json.loads(str(ARRAYS.pop("cases")))
X, Y, W = (ARRAYS[name] for name in "xyw")
RNG = np.random.default_rng(0)


def several(case: str, what: str) -> list[Array]:
    return [
        ARRAYS[f"{case}/{what}/{i}"]
        for i in range(len(CASES[case]["config"]["layers"]) * 2)
        if f"{case}/{what}/{i}" in ARRAYS
    ]


def epoch(learner: Learner, *, train: bool) -> float:
    batch = learner.train_batch if train else learner.test_batch
    parts = [slice(begin, begin + 8) for begin in range(0, len(X), 8)]
    return sum(batch(X[p], Y[p], W[p])["loss"] * len(X[p]) for p in parts) / len(X)


@pytest.mark.parametrize("case", CASES)
def test_training_costs_what_it_costs_in_keras(case: str) -> None:
    told = CASES[case]
    network = Network.from_config(told["config"], seed=0)
    network.set_weights(several(case, "before"))
    learner = Learner(network, loss=told["loss"], optimizer=SGD(0.05))
    assert [epoch(learner, train=True) for _ in range(3)] == pytest.approx(told["losses"], rel=1e-5)
    for ours, keras in zip(network.get_weights(), several(case, "after"), strict=True):
        np.testing.assert_allclose(ours, keras, rtol=5e-5, atol=5e-6)
    assert epoch(learner, train=False) == pytest.approx(told["evaluated"], rel=1e-5)
    copied = pickle.loads(pickle.dumps(learner))
    assert epoch(copied, train=False) == epoch(learner, train=False)
    assert epoch(copied, train=True) == epoch(learner, train=True)
    assert Network.from_config(network.get_config()).get_config() == network.get_config()


class Nearness(Regularizer):
    """(1 − Σ x)²."""

    def __call__(self, x: Array) -> float:
        return float((1 - x.sum()) ** 2)

    def gradient(self, x: Array) -> Array:
        return np.full_like(x, 2 * (x.sum() - 1))


KINDS: dict[str, Regularizer] = {
    "l1": L1(0.3),
    "l2": L2(0.4),
    "l1 and l2": L1L2(0.3, 0.2),
    "rows": OrthogonalRegularizer(0.7),
    "columns": OrthogonalRegularizer(0.7, mode="columns"),
    "own": Nearness(),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["kernel", "bias", "output", "wide output", "last output", "frozen below"])
def test_gradients(kind: str, where: str) -> None:
    one = KINDS[kind]
    if where == "bias" and isinstance(one, OrthogonalRegularizer):
        pytest.skip("takes matrices")
    stacks: dict[str, list[Layer]] = {
        "kernel": [Dense(5, "tanh", kernel_regularizer=one), Dense(2, kernel_regularizer=one)],
        "bias": [Dense(5, "tanh", bias_regularizer=one), Dense(2, bias_initializer="ones", bias_regularizer=one)],
        "output": [Dense(5, "tanh", activity_regularizer=one), Dense(2)],
        "wide output": [Dense(70, "tanh", activity_regularizer=one), Dense(66, activity_regularizer=one), Dense(2)],
        "last output": [Dense(5, "tanh"), Dense(2, "sigmoid", activity_regularizer=one)],
        "frozen below": [Dense(5, "tanh", activity_regularizer=one, kernel_regularizer=one, trainable=False), Dense(2)],
    }  # fmt: skip
    learner = learner64([Input(3), *stacks[where]], "bce" if where == "last output" else "mse")
    learner.network.params += 0.05 * RNG.standard_normal(learner.network.params.size)
    x, y = RNG.standard_normal((6, 3)), RNG.random((6, 2))
    check_gradient(learner, x, y, RNG.random(6))
    plain = learner64([Input(3), *layers_without(learner.network)], learner.loss)
    plain.network.set_weights(learner.network.get_weights())
    extra = learner.train_batch(x, y)["loss"] - plain.train_batch(x, y)["loss"]
    assert extra == pytest.approx(learner.test_batch(x, y)["loss"] - plain.test_batch(x, y)["loss"], rel=1e-6)
    assert extra == pytest.approx(expected_penalty(learner.network, x), rel=1e-6)
    assert extra > 0


def layers_without(network: Network) -> list[Layer]:
    """The same layers without penalties."""
    found: list[Layer] = []
    for layer in network.layers:
        assert isinstance(layer, Dense)
        found.append(Dense(layer.units, layer.activation, trainable=layer.trainable))
    return found


def expected_penalty(network: Network, x: Array) -> float:
    total = 0.0
    for layer in network.layers:
        assert isinstance(layer, Dense)
        kernel, bias = layer.get_weights()
        x = layer.activation(x @ kernel + bias)
        if layer.trainable and layer.kernel_regularizer:
            total += layer.kernel_regularizer(kernel)
        if layer.trainable and layer.bias_regularizer:
            total += layer.bias_regularizer(bias)
        if layer.activity_regularizer:
            total += layer.activity_regularizer(x) / len(x)
    return total


def test_outputs_of_any_shape() -> None:
    both = L1L2(0.2, 0.3)
    stack: list[Layer] = [Input((4, 3)), Dense(5, "tanh", activity_regularizer=both), ActivityRegularization(0.1, 0.2)]
    stack += [Flatten(), ActivityRegularization(0.0, 0.3), Activation("tanh"), Dense(2), ActivityRegularization(l1=0.3)]
    check_gradient(learner64(stack, "mse"), RNG.standard_normal((6, 4, 3)), RNG.standard_normal((6, 2)))


def test_large_weights_go_block_by_block() -> None:
    learner = learner64([Input(300), Dense(250, kernel_regularizer=L1L2(0.01, 0.02)), Dense(1)], "mse")
    x, y = RNG.standard_normal((4, 300)), RNG.standard_normal((4, 1))
    check_gradient(learner, x, y, points=15)
    kernel = learner.network.get_weights()[0]
    plain = learner64([Input(300), Dense(250), Dense(1)], "mse")
    plain.network.set_weights(learner.network.get_weights())
    extra = learner.test_batch(x, y)["loss"] - plain.test_batch(x, y)["loss"]
    assert extra == pytest.approx(0.01 * np.abs(kernel).sum() + 0.02 * (kernel**2).sum())


@pytest.mark.parametrize("one", [*KINDS.values(), L1(), L2(), L1L2(), OrthogonalRegularizer()], ids=repr)
def test_settings_and_copies(one: Regularizer) -> None:
    assert type(one).from_config(one.get_config()) == one
    assert copy.deepcopy(one) == one
    assert hash(copy.deepcopy(one)) == hash(one)
    x = RNG.standard_normal((4, 3))
    slope, step = one.gradient(x), 1e-6
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        assert slope[i] == pytest.approx((one(up) - one(down)) / (2 * step), rel=1e-5, abs=1e-8)


def test_ones_of_your_own_are_read_by_their_names() -> None:
    config = Network([Input(3), Dense(2, kernel_regularizer=Nearness())]).get_config()
    own: Any = {"Nearness": Nearness}
    (layer,) = Network.from_config(config, custom_objects=own).layers
    assert isinstance(layer, Dense)
    assert layer.kernel_regularizer == Nearness()
    with pytest.raises(InvalidInput, match="unknown regularizer 'Nearness'"):
        Network.from_config(config)
    wrong: Any = {"Nearness": Dense}
    with pytest.raises(InvalidInput, match="unknown regularizer 'Nearness'"):
        Network.from_config(config, custom_objects=wrong)


def test_names_as_in_keras() -> None:
    assert regularizers.get(None) is None
    assert regularizers.get("l1") == L1(0.01)
    assert regularizers.get("L2") == L2(0.01)
    assert regularizers.get("l1_l2") == L1L2(0.01, 0.01)  # as Keras's documentation has it
    assert regularizers.get("orthogonal_regularizer") == OrthogonalRegularizer(0.01, "rows")
    assert regularizers.get({"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.5}}) == L1L2(0.0, 0.5)
    assert regularizers.config(L2(0.5)) == {"class_name": "L2", "config": {"l2": 0.5}}
    assert regularizers.config(None) is None
    assert OrthogonalRegularizer(1.0)(np.eye(3)) == 0.0
    assert OrthogonalRegularizer(1.0)(np.ones((1, 3))) == 0.0  # no pairs
    assert OrthogonalRegularizer(0.5)(np.ones((4, 3))) == pytest.approx(0.5)


SLIPS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: L2(-0.1), InvalidInput, r"L2\(l2=…\) must be finite and at least 0"),
    (lambda: L1("much"), InvalidInput, r"L1\(l1=…\) must be a number"),  # type: ignore[arg-type]
    (lambda: L2(l3=1), TypeError, "it takes: l2"),  # type: ignore[call-arg]
    (lambda: OrthogonalRegularizer(mode="row"), InvalidInput, "'rows' or 'columns'"),
    (lambda: Dense(3, kernel_regularizer="l3"), InvalidInput, "unknown regularizer 'l3'; known: l1, l1_l2, l2"),
    (lambda: Dense(3, kernel_regularizer=abs), InvalidInput, "derive from asyncfit.regularizers.Regularizer"),  # type: ignore[arg-type]
    (
        lambda: Network([Input(3), Dense(3, bias_regularizer="orthogonal_regularizer")]),
        InvalidInput,
        r"weight dense/bias: OrthogonalRegularizer takes a matrix, not an array of the shape \(3,\)",
    ),
    (
        lambda: Network([Input((2, 3)), Dense(3, activity_regularizer="orthogonal_regularizer")]),
        InvalidInput,
        r"output of 'dense': OrthogonalRegularizer takes a matrix",
    ),
    (lambda: Regularizer()(X), NotImplementedError, "__call__"),
    (lambda: Regularizer().gradient(X), NotImplementedError, "gradient"),
]


@pytest.mark.parametrize(("call", "kind", "message"), SLIPS)
def test_slips_are_told(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_keras_file() -> None:
    path = str(DATA / "keras_regularized.h5")
    model = modelfile.read(path)
    network = modelfile.restored(model, path)
    settings = modelfile.settings(model, path)
    assert settings is not None
    learner = Learner(network, loss=settings.loss, optimizer=settings.optimizer)
    assert epoch(learner, train=False) == pytest.approx(CASES["file"]["evaluated"], rel=1e-5)
    first, _, third, _ = network.layers
    assert isinstance(first, Dense)
    assert isinstance(third, Dense)
    assert first.kernel_regularizer == L2(0.01)
    assert isinstance(first.bias_regularizer, L1)
    assert third.kernel_regularizer == OrthogonalRegularizer(float(np.float32(0.1)), "columns")

"""Losses and metrics: values against their plain functions, names, keys in logs, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncfit.errors import InvalidInput
from asyncfit.nn import Learner, Network, activations, losses, metrics
from asyncfit.nn.arrays import Array
from asyncfit.nn.layers import Dense, Input

RNG = np.random.default_rng(0)
ONE_HOT = np.eye(3, dtype=np.float32)[[0, 2, 1, 1, 0]]


def learner(units: int, last: str, loss: Any, given: Any = None) -> tuple[Learner, Array]:
    one = Learner(Network([Input(4), Dense(units, activation=last)], seed=1), loss=loss, metrics=given)
    return one, RNG.standard_normal((5, 4)).astype(np.float32)


VALUES: list[tuple[str, Callable[..., Array], Array]] = [
    ("linear", losses.mean_squared_error, RNG.random((5, 3))),
    ("tanh", losses.mean_absolute_error, RNG.random((5, 3))),
    ("sigmoid", losses.binary_crossentropy, RNG.integers(0, 2, (5, 3))),
    ("softmax", losses.binary_crossentropy, ONE_HOT),
    ("softmax", losses.categorical_crossentropy, ONE_HOT),
    ("softplus", losses.categorical_crossentropy, ONE_HOT),
    ("softmax", losses.sparse_categorical_crossentropy, ONE_HOT.argmax(1)),
]


@pytest.mark.parametrize(("last", "function", "y"), VALUES)
def test_the_loss_of_a_batch_is_the_mean_of_the_function(last: str, function: Callable[..., Array], y: Array) -> None:
    one, x = learner(3, last, function)
    each = function(y, one.predict(x))
    assert each.shape == (5,)
    assert one.test_batch(x, y)["loss"] == pytest.approx(each.mean(), rel=1e-5)
    w = RNG.random(5)
    assert one.test_batch(x, y, w)["loss"] == pytest.approx((each * w).mean(), rel=1e-5)


def test_targets_may_lack_the_last_axis_of_one_output() -> None:
    one, x = learner(1, "linear", "mse")
    y = RNG.random(5)
    assert one.test_batch(x, y) == one.test_batch(x, y[:, None])
    assert losses.mean_squared_error(y, y[:, None]).tolist() == [0] * 5


NAMES = {
    losses.MeanSquaredError: ["mse", "MSE", "mean_squared_error", "MeanSquaredError", "meanSquaredError"],
    losses.MeanAbsoluteError: ["mae", "mean_absolute_error", "meanAbsoluteError"],
    losses.BinaryCrossentropy: ["bce", "binary_crossentropy", "binaryCrossentropy", "BinaryCrossentropy"],
    losses.CategoricalCrossentropy: ["categorical_crossentropy", "categoricalCrossentropy"],
    losses.SparseCategoricalCrossentropy: ["sparse_categorical_crossentropy", "sparseCategoricalCrossentropy"],
}


@pytest.mark.parametrize(("cls", "name"), [(cls, name) for cls, names in NAMES.items() for name in names])
def test_losses_are_found_however_they_are_spelled(cls: type[losses.Loss], name: str) -> None:
    assert type(losses.get(name)) is cls


@pytest.mark.parametrize("loss", [losses.BinaryCrossentropy(True, 0.1), losses.CategoricalCrossentropy()])
def test_loss_configs_round_trip(loss: losses.Loss) -> None:
    again = losses.get(losses.config(loss))
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


KEYS: list[tuple[Any, list[str]]] = [
    (None, []),
    ("mse", ["mse"]),
    (["mse"], ["mse"]),
    (["MSE"], ["MSE"]),
    (["acc"], ["acc"]),
    (["Accuracy"], ["Accuracy"]),
    (["mean_absolute_error"], ["mean_absolute_error"]),
    (["MeanSquaredError"], ["MeanSquaredError"]),
    ([metrics.MeanSquaredError()], ["mean_squared_error"]),
    ([losses.mean_squared_error], ["mean_squared_error"]),
    (["mse", "mse"], ["mse", "mse_1"]),
    (["categorical_accuracy"], ["categorical_accuracy"]),
    ([metrics.BinaryAccuracy()], ["binary_accuracy"]),
    ([metrics.CategoricalAccuracy], ["categorical_accuracy"]),
    (["accuracy", metrics.MeanAbsoluteError(name="x")], ["accuracy", "x"]),
]


@pytest.mark.parametrize(("given", "keys"), KEYS)
def test_keys_in_logs_are_those_that_keras_reports(given: Any, keys: list[str]) -> None:
    one, x = learner(3, "softmax", "categorical_crossentropy", given)
    assert list(one.train_batch(x, ONE_HOT)) == ["loss", *keys]
    assert list(one.test_batch(x, ONE_HOT)) == ["loss", *keys]


def test_values_of_metrics() -> None:
    one, x = learner(3, "softmax", "categorical_crossentropy", ["accuracy", "mse", "mae", "binary_accuracy"])
    p, t = one.predict(x), ONE_HOT
    logs = one.test_batch(x, t, RNG.random(5))  # weights do not weigh metrics
    assert logs["accuracy"] == np.mean(p.argmax(1) == t.argmax(1))
    assert logs["mse"] == pytest.approx(np.mean((p - t) ** 2), rel=1e-5)
    assert logs["mae"] == pytest.approx(np.mean(np.abs(p - t)), rel=1e-5)
    assert logs["binary_accuracy"] == np.mean((p > 0.5) == t)


def test_accuracy_is_chosen_by_the_shapes() -> None:
    chosen = [
        metrics.choose(["acc"], output, target)["acc"]
        for output, target in (((8, 1), (8,)), ((8, 1), (8, 1)), ((8, 3), (8,)), ((8, 3), (8, 1)), ((8, 3), (8, 3)))
    ]
    assert [type(m).__name__ for m in chosen] == [
        "BinaryAccuracy",
        "BinaryAccuracy",
        "SparseCategoricalAccuracy",
        "SparseCategoricalAccuracy",
        "CategoricalAccuracy",
    ]


def test_an_output_on_the_threshold_counts_as_0() -> None:
    network = Network([Input(1), Dense(1, activation="sigmoid", kernel_initializer="zeros")])
    one = Learner(network, loss="bce", metrics=["accuracy", metrics.BinaryAccuracy("low", threshold=0.4)])
    logs = one.test_batch(np.ones((4, 1)), np.array([0, 0, 0, 1]))
    assert (logs["accuracy"], logs["low"]) == (0.75, 0.25)


def test_the_class_accuracy_compares_for_equality() -> None:
    network = Network([Input(1), Dense(1, kernel_initializer="ones")])
    one = Learner(network, loss="mse", metrics=[metrics.Accuracy()])
    assert one.test_batch(np.array([[1.0], [2.0], [3.0]]), np.array([1, 2, 4]))["accuracy"] == pytest.approx(2 / 3)


BAD: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: losses.get("mze"), InvalidInput, "unknown loss 'mze'; did you mean 'mse'"),
    (lambda: losses.get([1]), InvalidInput, "a loss is a name"),  # type: ignore[arg-type]
    (lambda: losses.BinaryCrossentropy(label_smoothing=2), InvalidInput, "label_smoothing"),
    (lambda: losses.BinaryCrossentropy(fromLogits=True), TypeError, "did you mean 'from_logits'"),  # type: ignore[call-arg]
    (
        lambda: losses.get({"class_name": "MeanSquaredError", "config": {"reduction": "none"}}),
        InvalidInput,
        "reduction",
    ),
    (lambda: metrics.get_all(["acuracy"]), InvalidInput, "did you mean 'accuracy'"),
    (lambda: metrics.get_all(3), InvalidInput, "metrics is a list"),  # type: ignore[arg-type]
    (lambda: metrics.get_all([3]), InvalidInput, "a metric is a name"),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("call", "kind", "message"), BAD)
def test_slips_are_told(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_metrics_that_do_not_fit_the_targets_are_refused() -> None:
    one, x = learner(3, "softmax", "sparse_categorical_crossentropy", ["categorical_accuracy"])
    with pytest.raises(InvalidInput, match="the metric categorical_accuracy needs y of the output's shape"):
        one.test_batch(x, np.zeros(5, int))


@pytest.mark.parametrize("config", ["accuracy", metrics.MeanSquaredError(), metrics.BinaryAccuracy("b", 0.3)])
def test_metric_configs_round_trip(config: Any) -> None:
    written = metrics.config(config)
    (again,) = metrics.get_all([written])
    if isinstance(config, str):
        assert again == config
    else:
        assert isinstance(again, metrics.Metric)
        assert again.get_config() == config.get_config()


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.where(z > 0, z, 0.2 * z),
    "elu": lambda z: np.where(z > 0, z, np.expm1(z)),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "swish": lambda z: z / (1 + np.exp(-z)),
    "softmax": lambda z: np.exp(z) / np.exp(z).sum(-1, keepdims=True),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_activations_are_their_formula(name: str) -> None:
    z = np.linspace(-9, 9, 61).reshape(1, -1)
    np.testing.assert_allclose(activations.get(name)(z), FUNCTIONS[name](z), rtol=1e-12)
    np.testing.assert_allclose(activations.get(name)(z.astype(np.float32)), FUNCTIONS[name](z), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("name", sorted(activations.SPELLINGS.keys() - {"exponential", "glu", "threshold"}))
def test_activations_take_any_number_without_warnings(name: str) -> None:
    z = np.array([[-1e38, -1e4, -100, -0.0, 0, 100, 1e4, 1e38]], np.float32)
    assert not np.isnan(activations.get(name)(z)).any()


def test_gelu_is_accurate_to_float32() -> None:
    z = np.linspace(-6, 6, 2001)
    exact = activations.gelu(z)
    np.testing.assert_allclose(activations.gelu(z.astype(np.float32)), exact, rtol=1e-6, atol=1e-6)

"""Optimizers: steps against the closed form, settings, configs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncfit.errors import InvalidInput
from asyncfit.nn import optimizers
from asyncfit.nn.arrays import Array
from asyncfit.nn.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from asyncfit.nn.optimizers.base import BLOCK


def steps(optimizer: Optimizer, w: Array, gradients: list[Array]) -> Array:
    g = np.empty_like(w)
    optimizer.start(w.size, w.dtype)
    step = optimizer.bind(w, g)
    for gradient in gradients:
        g[...] = gradient
        step()
    return w


def sgd(w: float, gs: list[float]) -> float:
    return w - 0.1 * sum(gs)


def momentum(w: float, gs: list[float]) -> float:
    v = 0.0
    for g in gs:
        v = 0.9 * v - 0.1 * g
        w += v
    return w


def nesterov(w: float, gs: list[float]) -> float:
    v = 0.0
    for g in gs:
        v = 0.9 * v - 0.1 * g
        w += 0.9 * v - 0.1 * g
    return w


def rmsprop(w: float, gs: list[float]) -> float:
    v = 0.0
    for g in gs:
        v = 0.9 * v + 0.1 * g * g
        w -= 0.1 * g / math.sqrt(v + 1e-7)
    return w


def centered(w: float, gs: list[float]) -> float:
    v = a = m = 0.0
    for g in gs:
        v, a = 0.9 * v + 0.1 * g * g, 0.9 * a + 0.1 * g
        m = 0.5 * m + 0.1 * g / math.sqrt(v - a * a + 1e-7)
        w -= m
    return w


def adam(w: float, gs: list[float], decay: float = 0.0) -> float:
    m = v = 0.0
    for t, g in enumerate(gs, 1):
        w *= 1 - 0.1 * decay
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w -= 0.1 * math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (math.sqrt(v) + 1e-7)
    return w


def amsgrad(w: float, gs: list[float]) -> float:
    m = v = most = 0.0
    for t, g in enumerate(gs, 1):
        m, v = 0.9 * m + 0.1 * g, 0.5 * v + 0.5 * g * g
        most = max(most, v)
        w -= 0.1 * math.sqrt(1 - 0.5**t) / (1 - 0.9**t) * m / (math.sqrt(most) + 1e-7)
    return w


FORMULAS: list[tuple[Callable[[], Optimizer], Callable[[float, list[float]], float]]] = [
    (lambda: SGD(0.1), sgd),
    (lambda: SGD(0.1, momentum=0.9), momentum),
    (lambda: SGD(0.1, momentum=0.9, nesterov=True), nesterov),
    (lambda: RMSprop(0.1), rmsprop),
    (lambda: RMSprop(0.1, momentum=0.5, centered=True), centered),
    (lambda: Adam(0.1), adam),
    (lambda: Adam(0.1, beta_2=0.5, amsgrad=True), amsgrad),
    (lambda: AdamW(0.1, weight_decay=0.5), lambda w, gs: adam(w, gs, 0.5)),
]


@pytest.mark.parametrize(("make", "formula"), FORMULAS)
@pytest.mark.parametrize("size", [1, BLOCK + 3], ids=["one weight", "more than a block"])
def test_steps_follow_the_formula(make: Callable[[], Optimizer], formula: Callable[..., float], size: int) -> None:
    gradients = [0.5, -0.25, 1.0, 0.125]
    w = steps(make(), np.full(size, 2.0, np.float32), [np.full(size, g, np.float32) for g in gradients])
    np.testing.assert_allclose(w, formula(2.0, gradients), rtol=3e-5)
    assert (w == w[0]).all()


@pytest.mark.parametrize("make", [make for make, _ in FORMULAS if not isinstance(make(), AdamW)])
def test_reaches_the_bottom_of_a_bowl(make: Callable[[], Optimizer]) -> None:
    goal, w, g = np.array([1.0, -1.0], np.float32), np.array([-1.0, 5.0], np.float32), np.zeros(2, np.float32)
    optimizer = make()
    optimizer.learning_rate = 0.01
    optimizer.start(2, w.dtype)
    step = optimizer.bind(w, g)
    for _ in range(3000):
        g[...] = w - goal
        step()
    np.testing.assert_allclose(w, goal, atol=0.05)
    assert optimizer.iterations == 3000


def test_the_learning_rate_is_stored_in_float32_and_acts_at_once() -> None:
    optimizer = SGD()
    assert optimizer.learning_rate == float(np.float32(0.01))
    w, g = np.zeros(1, np.float32), np.ones(1, np.float32)
    step = optimizer.bind(w, g)
    optimizer.learning_rate = 0.5
    step()
    assert w[0] == -0.5


def test_defaults_are_those_of_keras() -> None:
    assert [optimizers.get(n).learning_rate for n in ("sgd", "rmsprop", "adam", "adamw")] == [
        float(np.float32(rate)) for rate in (0.01, 0.001, 0.001, 0.001)
    ]
    adamw = AdamW()
    assert (adamw.beta_1, adamw.beta_2, adamw.epsilon, adamw.weight_decay) == (0.9, 0.999, 1e-7, 0.004)
    assert (RMSprop().rho, RMSprop().momentum, RMSprop().epsilon, RMSprop().centered) == (0.9, 0.0, 1e-7, False)


@pytest.mark.parametrize("make", [make for make, _ in FORMULAS])
def test_config_round_trip(make: Callable[[], Optimizer]) -> None:
    optimizer = make()
    again = optimizers.get(optimizers.config(optimizer))
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()


FOREIGN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"class_name": "Adam", "config": {"learningRate": 0.5, "beta1": 0.8, "epsilon": None}}, {"beta_1": 0.8}),
    ({"class_name": "SGD", "config": {"lr": 0.5, "decay": 0.0, "is_legacy_optimizer": False}}, {"momentum": 0.0}),
    ({"class_name": "sgd", "config": {"learning_rate": 0.5, "useNesterov": True}}, {"nesterov": True}),
    (
        {"module": "keras.optimizers", "class_name": "RMSprop", "config": {"learning_rate": 0.5, "name": "rmsprop",
         "clipnorm": None, "use_ema": False, "ema_momentum": 0.99, "weight_decay": None}, "registered_name": None},
        {"rho": 0.9},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("config", "expected"), FOREIGN)
def test_configs_of_keras_2_and_tfjs_are_read(config: dict[str, Any], expected: dict[str, Any]) -> None:
    found = optimizers.get(config).get_config()
    assert found["learning_rate"] == 0.5
    assert expected.items() <= found.items()


BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: SGD(-1), r"SGD\(learning_rate=…\) must be finite and at least 0"),
    (lambda: SGD(float("nan")), "must be finite"),
    (lambda: SGD("fast"), "must be a number"),  # type: ignore[arg-type]
    (lambda: SGD(momentum=1.5), "from 0 to 1"),
    (lambda: Adam(beta_1=1.0), "below 1"),
    (lambda: AdamW(weight_decay=-1), "weight_decay"),
    (lambda: optimizers.get("adm"), "did you mean 'adam'"),
    (lambda: optimizers.get(3), "an optimizer is a name"),  # type: ignore[arg-type]
    (lambda: optimizers.get({"class_name": "Adam", "config": {"use_ema": True}}), "use_ema=True is not supported"),
    (lambda: optimizers.get({"class_name": "SGD", "config": {"clipnorm": 1.0}}), "clipnorm"),
    (lambda: optimizers.get({"class_name": "SGD", "config": {"momentums": 1.0}}), "did you mean 'momentum'"),
    (
        lambda: optimizers.get({"class_name": "SGD", "config": {"learning_rate": {"class_name": "ExponentialDecay"}}}),
        "ExponentialDecay",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_settings_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()


def test_an_unknown_keyword_gets_the_nearest() -> None:
    with pytest.raises(TypeError, match="did you mean 'learning_rate'"):
        SGD(learningRate=0.1)  # type: ignore[call-arg]


def test_a_refused_learning_rate_changes_nothing() -> None:
    optimizer = Adam(0.5)
    with pytest.raises(InvalidInput):
        optimizer.learning_rate = -1
    assert optimizer.learning_rate == 0.5

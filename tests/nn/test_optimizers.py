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
from asyncfit.nn.optimizers import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Ftrl,
    Lion,
    Nadam,
    Optimizer,
    RMSprop,
    Stretch,
)
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


def adamax(w: float, gs: list[float]) -> float:
    m = u = 0.0
    for t, g in enumerate(gs, 1):
        m, u = 0.9 * m + 0.1 * g, max(0.999 * u, abs(g))
        w -= 0.1 / (1 - 0.9**t) * m / (u + 1e-7)
    return w


def nadam(w: float, gs: list[float]) -> float:
    m = v = 0.0
    product = 1.0
    for t, g in enumerate(gs, 1):
        now, ahead = (0.9 * (1 - 0.5 * 0.96**at) for at in (t, t + 1))
        product *= now
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        hat = ahead * m / (1 - product * ahead) + (1 - now) * g / (1 - product)
        w -= 0.1 * hat / (math.sqrt(v / (1 - 0.999**t)) + 1e-7)
    return w


def adagrad(w: float, gs: list[float]) -> float:
    a = 0.25
    for g in gs:
        a += g * g
        w -= 0.1 * g / math.sqrt(a + 1e-7)
    return w


def adadelta(w: float, gs: list[float]) -> float:
    a = d = 0.0
    for g in gs:
        a = 0.9 * a + 0.1 * g * g
        delta = g * math.sqrt(d + 0.01) / math.sqrt(a + 0.01)
        d = 0.9 * d + 0.1 * delta * delta
        w -= 0.5 * delta
    return w


def lion(w: float, gs: list[float]) -> float:
    m = 0.0
    for g in gs:
        w -= 0.1 * math.copysign(1.0, 0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
    return w


def ftrl(w: float, gs: list[float]) -> float:
    n, z = 0.1, 0.0
    for g in gs:
        new = n + g * g
        z += g + 2 * 0.03 * w - (new**0.5 - n**0.5) / 0.1 * w
        w = (min(max(z, -0.01), 0.01) - z) / (new**0.5 / 0.1 + 2 * 0.02 + 0.4 / 0.1)
        n = new
    return w


def clipped(w: float, gs: list[float]) -> float:
    return w - 0.1 * sum(min(max(g, -0.3), 0.3) for g in gs)


def gathered(w: float, gs: list[float]) -> float:
    return momentum(w, [(a + b) / 2 for a, b in zip(gs[::2], gs[1::2], strict=True)])


def decayed(w: float, gs: list[float]) -> float:
    for g in gs:
        w = w * (1 - 0.1 * 0.2) - 0.1 * g
    return w


def overwritten(w: float, gs: list[float]) -> float:
    average = 0.0
    for t, g in enumerate(gs):
        w -= 0.1 * g
        average = 0.75 * average + 0.25 * w if t else w
        w = average if t % 2 else w
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
    (lambda: Adamax(0.1), adamax),
    (lambda: Nadam(0.1), nadam),
    (lambda: Adagrad(0.1, initial_accumulator_value=0.25), adagrad),
    (lambda: Adadelta(0.5, rho=0.9, epsilon=0.01), adadelta),
    (lambda: Lion(0.1), lion),
    (lambda: Ftrl(0.1, -0.5, 0.1, 0.01, 0.02, 0.03, 0.4), ftrl),
    (lambda: SGD(0.1, clipvalue=0.3), clipped),
    (lambda: SGD(0.1, momentum=0.9, gradient_accumulation_steps=2), gathered),
    (lambda: SGD(0.1, weight_decay=0.2), decayed),
    (lambda: SGD(0.1, use_ema=True, ema_momentum=0.75, ema_overwrite_frequency=2), overwritten),
]


@pytest.mark.parametrize(("make", "formula"), FORMULAS)
@pytest.mark.parametrize("size", [1, BLOCK + 3], ids=["one weight", "more than a block"])
def test_steps_follow_the_formula(make: Callable[[], Optimizer], formula: Callable[..., float], size: int) -> None:
    gradients = [0.5, -0.25, 1.0, 0.125]
    w = steps(make(), np.full(size, 2.0, np.float32), [np.full(size, g, np.float32) for g in gradients])
    np.testing.assert_allclose(w, formula(2.0, gradients), rtol=3e-5)
    assert (w == w[0]).all()


# Decays, crawls, or steps every other time.
GOES_ELSEWHERE = (
    adagrad,
    adadelta,
    ftrl,
    clipped,
    gathered,
    decayed,
    overwritten,
)


@pytest.mark.parametrize(
    "make", [make for make, f in FORMULAS if not isinstance(make(), AdamW) and f not in GOES_ELSEWHERE]
)
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
    (lambda: Adam(clipnorm=1.0, clipvalue=0.5), r"one way of clipping gradients, not clipnorm=1.0 and clipvalue=0.5"),
    (lambda: Adam(clipnorm=0.0), r"Adam\(clipnorm=…\) must be above 0"),
    (lambda: SGD(weight_decay=-0.1), r"SGD\(weight_decay=…\) must be finite and at least 0"),
    (lambda: AdamW(weight_decay=None), "Adam has none"),  # type: ignore[arg-type]
    (lambda: SGD(gradient_accumulation_steps=1), "must be a whole number from 2"),
    (lambda: SGD(ema_momentum=1.1), "from 0 to 1"),
    (lambda: SGD(use_ema="yes"), "True or False"),  # type: ignore[arg-type]
    (lambda: SGD(ema_overwrite_frequency=0), "must be a whole number from 1"),
    (lambda: Lion(beta_1=0.0), "above 0 and at most 1"),
    (lambda: Ftrl(learning_rate=0.0), r"Ftrl\(learning_rate=…\) must be above 0"),
    (lambda: Ftrl(learning_rate_power=0.5), "at most 0"),
    (lambda: Ftrl(beta=-1.0), r"Ftrl\(beta=…\) must be finite and at least 0"),
    (lambda: SGD(weight_decay=0.1).exclude_from_weight_decay(["("]), "no regular expression"),
    (lambda: SGD(weight_decay=0.1).exclude_from_weight_decay([""]), "parts of names"),
    (
        lambda: optimizers.get({"class_name": "Adam", "config": {"loss_scale_factor": 2.0}}),
        "loss_scale_factor=2.0 is not supported",
    ),
    (lambda: optimizers.get({"class_name": "SGD", "config": {"momentums": 1.0}}), "did you mean 'momentum'"),
    (
        lambda: optimizers.get({"class_name": "SGD", "config": {"learning_rate": {"class_name": "ExponentialDecays"}}}),
        "did you mean 'ExponentialDecay'",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_settings_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()


def test_an_unknown_keyword_gets_the_nearest() -> None:
    with pytest.raises(TypeError, match="did you mean 'learning_rate'"):
        SGD(learningRate=0.1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="did you mean 'clipnorm'"):
        Adam(clip_norm=0.1)  # type: ignore[call-arg]


def test_a_refused_learning_rate_changes_nothing() -> None:
    optimizer = Adam(0.5)
    with pytest.raises(InvalidInput):
        optimizer.learning_rate = -1
    assert optimizer.learning_rate == 0.5


TWO = (Stretch("dense/kernel", 0, 2), Stretch("dense/bias", 2, 1))


def one_step(optimizer: Optimizer, w: list[float], g: list[float]) -> list[float]:
    weights, grads = np.array(w, np.float32), np.array(g, np.float32)
    optimizer.start(3, weights.dtype)
    optimizer.bind(weights, grads, TWO)()
    return [round(float(v), 5) for v in weights]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"clipnorm": 1.0}, [-0.6, -0.8, -0.5]),  # the norms are 5 and 0.5
        ({"clipnorm": 10.0}, [-3.0, -4.0, -0.5]),
        ({"global_clipnorm": math.sqrt(25.25) / 2}, [-1.5, -2.0, -0.25]),
        ({"global_clipnorm": 6.0}, [-3.0, -4.0, -0.5]),
        ({"clipvalue": 3.5}, [-3.0, -3.5, -0.5]),
    ],
)
def test_clipping_is_by_weight_array_over_all_or_by_number(limits: dict[str, float], expected: list[float]) -> None:
    assert one_step(SGD(1.0, **limits), [0.0, 0.0, 0.0], [3.0, 4.0, 0.5]) == expected  # type: ignore[arg-type]


def test_gradients_without_a_direction_are_seen_as_such() -> None:
    each = one_step(SGD(1.0, clipnorm=1.0), [0.0, 0.0, 0.0], [math.inf, 1.0, 0.5])
    assert (math.isnan(each[0]), *each[1:]) == (True, 0.0, -0.5)
    assert all(math.isnan(v) for v in one_step(SGD(1.0, global_clipnorm=1.0), [0.0] * 3, [math.inf, 1.0, 0.5]))
    assert all(math.isnan(v) for v in one_step(SGD(1.0, global_clipnorm=1.0), [0.0] * 3, [math.nan, 1.0, 0.5]))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["bias"], [0.9, 0.9, 1.0]),
        (["kern", "bias"], [1.0, 1.0, 1.0]),
        (["dense/kernel"], [1.0, 1.0, 0.9]),
        ("dense", [0.9, 0.9, 0.9]),
    ],
)
def test_weights_are_spared_from_decay(names: list[str], expected: list[float]) -> None:
    optimizer = AdamW(0.1, weight_decay=1.0)
    optimizer.exclude_from_weight_decay(names)
    assert one_step(optimizer, [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]) == expected
    with pytest.raises(InvalidInput, match="before the model trains"):
        optimizer.exclude_from_weight_decay(["bias"])


def test_a_stretch_across_blocks_decays_once() -> None:
    size = 2 * BLOCK + 10
    optimizer = SGD(0.1, weight_decay=1.0)
    optimizer.exclude_from_weight_decay(["spared"])
    w, g = np.ones(size, np.float32), np.zeros(size, np.float32)
    optimizer.start(size, w.dtype)
    ends = [BLOCK - 5, BLOCK + 7, size]
    parts = [
        Stretch(f"dense/{name}", begin, end - begin)
        for name, begin, end in zip(("kernel", "spared", "gamma"), [0, *ends], ends, strict=False)
    ]
    optimizer.bind(w, g, parts)()
    expected = np.full(size, 0.9, np.float32)
    expected[ends[0] : ends[1]] = 1.0
    np.testing.assert_allclose(w, expected)


def test_an_average_stands_in_for_the_weights_at_the_end() -> None:
    optimizer = SGD(1.0, use_ema=True, ema_momentum=0.5)
    w = steps(optimizer, np.zeros(1, np.float32), [np.array([-1.0])] * 3)
    assert w[0] == 3.0
    assert optimizer.finish(w)
    assert w[0] == (1.0 * 0.5 + 2.0 * 0.5) * 0.5 + 3.0 * 0.5
    assert not SGD().finish(w)


def test_steps_are_counted_apart_from_batches() -> None:
    optimizer = Adam(0.1, gradient_accumulation_steps=3)
    steps(optimizer, np.zeros(2, np.float32), [np.ones(2, np.float32)] * 7)
    assert (optimizer.batches, optimizer.iterations) == (7, 2)


def test_a_representation_has_what_was_chosen() -> None:
    assert repr(Adam(0.01, clipnorm=1.0)) == "Adam(learning_rate=0.01, clipnorm=1)"
    assert repr(SGD(0.1, nesterov=True, momentum=0.9)) == "SGD(learning_rate=0.1, momentum=0.9, nesterov=True)"

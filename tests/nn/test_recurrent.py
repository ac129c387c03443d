"""LSTM, GRU and SimpleRNN: gradients, settings, masks of dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncfit import machine
from asyncfit.errors import InvalidInput
from asyncfit.nn import Network, blas
from asyncfit.nn.layers import GRU, LSTM, Activation, Dense, Flatten, Input, Layer, Masking, SimpleRNN, over_time
from asyncfit.nn.prediction import quiet
from asyncfit.nn.workspace import Workspace

from .helpers import check_gradient, learner64

RNG = np.random.default_rng(3)
KINDS: dict[str, Callable[..., Layer]] = {
    "lstm": LSTM,
    "gru": GRU,
    "gru, reset before": lambda *a, **k: GRU(*a, reset_after=False, **k),
    "rnn": SimpleRNN,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "backwards": {"go_backwards": True},
    "no bias": {"use_bias": False},
    "relu": {"activation": "relu"},
    "sigmoid": {"activation": "sigmoid"},
    "elu": {"activation": "elu", "recurrent_activation": "softplus"},
    "tanh gates": {"recurrent_activation": "tanh"},
    "linear": {"activation": None},
    "dropout": {"dropout": 0.4},
    "recurrent dropout": {"recurrent_dropout": 0.4},
    "both": {"dropout": 0.3, "recurrent_dropout": 0.3, "go_backwards": True},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
def test_gradients(kind: str, name: str, sequences: bool) -> None:
    settings = dict(SETTINGS[name], return_sequences=sequences, bias_initializer="random_normal")
    if kind == "rnn":
        settings.pop("recurrent_activation", None)
    layers = [Input((5, 3)), Dense(4), KINDS[kind](3, **settings), Flatten(), Dense(2)]
    check_gradient(learner64(layers, "mse"), RNG.standard_normal((6, 5, 3)), RNG.standard_normal((6, 2)), points=80)


def test_gradients_of_many_steps_are_summed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(over_time, "TOGETHER", 150)
    monkeypatch.setattr(over_time, "AT_ONCE", 6 * 12 * 3)
    for kind in KINDS.values():
        layers = [Input((7, 3)), Dense(4), kind(3), Dense(2)]
        check_gradient(learner64(layers, "mse"), RNG.standard_normal((6, 7, 3)), RNG.standard_normal((6, 2)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["plain", "masked", "both dropouts"])
@pytest.mark.parametrize("theirs", [False, True], ids=["another BLAS", "its own BLAS"])
def test_gradients_of_big_steps_are_added_up_at_once(
    kind: str, how: str, theirs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_time, "APART", 0)
    if not theirs:
        monkeypatch.setattr(machine, "function", lambda name: None)
        monkeypatch.setattr(blas, "_gemm", blas._gemm.__wrapped__)
    x = RNG.standard_normal((6, 5, 3))
    if how == "masked":
        x[0], x[1, 2:], x[2, 1], x[:, 4] = 0, 0, 0, 0
    settings: dict[str, Any] = {"dropout": 0.3, "recurrent_dropout": 0.3} if how == "both dropouts" else {}
    front: list[Layer] = [Masking()] if how == "masked" else [Dense(3)]
    layer = KINDS[kind](3, bias_initializer="random_normal", **settings)
    with quiet():
        check_gradient(learner64([Input((5, 3)), *front, layer, Dense(2)], "mse"), x, RNG.standard_normal((6, 2)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_layer_hands_the_gradient_on(kind: str) -> None:
    layers = [Input((4, 3)), Dense(4), KINDS[kind](3, trainable=False), Dense(2)]
    check_gradient(learner64(layers, "mse"), RNG.standard_normal((6, 4, 3)), RNG.standard_normal((6, 2)), points=80)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_other_sizes_do_not_disturb_each_other(kind: str) -> None:
    x, y = RNG.standard_normal((7, 4, 3)), RNG.standard_normal((7, 2))
    learner = learner64([Input((4, 3)), KINDS[kind](3, return_sequences=True), KINDS[kind](3), Dense(2)], "mse")
    first = learner.train_batch(x, y), learner.train_batch(x[:3], y[:3])
    assert (learner.train_batch(x, y), learner.train_batch(x[:3], y[:3])) == first


def test_masks_of_dropout_are_one_for_all_steps_and_those_of_the_batch() -> None:
    layer = SimpleRNN(
        4, None, kernel_initializer="identity", recurrent_initializer="zeros", dropout=0.5, return_sequences=True
    )
    learner = learner64([Input((5, 4)), layer, Activation("linear")], "mse")
    x, y = np.ones((500, 5, 4)), np.zeros((500, 5, 4))
    learner.seek((1, 0), 0, 3)
    plan = learner.network.plan(500, Workspace(np.dtype(np.float64)), grads=learner._grads, dice=learner._dice)
    found = []
    for step in (3, 4, 3):
        learner.seek((1, 0), 0, step)
        found.append(plan.infer(x).copy())
    a, b, again = found
    assert (a == a[:, :1]).all()  # the same at all steps
    assert set(np.unique(a)) == {0.0, 2.0}
    assert abs((a[:, 0] == 0).mean() - 0.5) < 5 * 0.5 / np.sqrt(2000)
    assert (a == again).all()
    assert (a != b).any()
    assert learner.test_batch(x, y)["loss"] == 1.0  # none outside training


def test_masks_of_recurrent_dropout_scale_what_is_kept() -> None:
    layer = SimpleRNN(
        4,
        None,
        kernel_initializer="identity",
        recurrent_initializer="identity",
        recurrent_dropout=0.25,
        input_shape=(3, 4),
    )
    learner = learner64([layer], "mse")
    plan = learner.network.plan(500, Workspace(np.dtype(np.float64)), grads=np.zeros(36), dice=learner._dice)
    learner.seek((1, 0), 0, 3)
    found = plan.infer(np.ones((500, 3, 4)))
    kept = 1 + 4 / 3 + 16 / 9  # with one mask for all steps a state grows at all of them or at none
    np.testing.assert_allclose(np.unique(found.round(9)), [1, kept])
    assert abs((found == 1).mean() - 0.25) < 5 * 0.45 / np.sqrt(2000)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_row_of_layers_cannot_do_is_refused(kind: str) -> None:
    make = KINDS[kind]
    with pytest.raises(InvalidInput, match=r"return_state=True.*several outputs"):
        make(3, return_state=True)
    with pytest.raises(InvalidInput, match="stateful=True"):
        make(3, stateful=True)
    with pytest.raises(InvalidInput, match=r"softmax.*each number alone"):
        make(3, activation="softmax")
    with pytest.raises(InvalidInput, match=r"dropout=….*from 0 to 1"):
        make(3, dropout=1.5)
    with pytest.raises(InvalidInput, match=r"units=….*whole number from 1"):
        make(0)
    with pytest.raises(InvalidInput, match=r"sequences, \(steps, features\) a sample.*\(5,\)"):
        Network([Input(5), make(3)])


def test_the_bias_of_the_forget_gate_begins_with_ones() -> None:
    layer = LSTM(2, input_shape=(3, 1), bias_initializer="zeros")
    Network([layer])
    np.testing.assert_array_equal(layer.arrays["lstm_cell/bias"], [0, 0, 1, 1, 0, 0, 0, 0])


def test_settings_of_older_files_are_read() -> None:
    config = {"units": 3, "implementation": 2, "time_major": False, "stateful": False, "return_state": False}
    assert LSTM.from_config(config).get_config()["units"] == 3
    assert GRU.from_config(config | {"reset_after": False, "recurrent_activation": "sigmoid"}).bias_shape() == (9,)

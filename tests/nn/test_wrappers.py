"""Bidirectional and TimeDistributed: gradients, settings, what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncfit.errors import InvalidInput
from asyncfit.nn import Network
from asyncfit.nn.activations.shares import Sparsemax
from asyncfit.nn.layers import (
    GRU,
    LSTM,
    Activation,
    BatchNormalization,
    Bidirectional,
    Conv1D,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Input,
    Layer,
    Masking,
    SimpleRNN,
    Softmax,
    TimeDistributed,
)
from asyncfit.nn.prediction import predict, quiet

from .helpers import check_gradient, learner64

RNG = np.random.default_rng(4)
INSIDE: dict[str, tuple[tuple[int, ...], Callable[[], Layer]]] = {
    "dense": ((5, 3), lambda: Dense(4, activation="tanh")),
    "no bias": ((5, 3), lambda: Dense(4, use_bias=False)),
    "softmax": ((5, 3), lambda: Dense(4, activation="softmax")),
    "lstm": ((4, 3, 2), lambda: LSTM(3)),
    "both ways": ((4, 3, 2), lambda: Bidirectional(GRU(2, return_sequences=True))),
    "conv": ((3, 5, 2), lambda: Conv1D(3, 2, activation="elu")),
    "flatten": ((4, 3, 2), lambda: Flatten()),
    "activation": ((4, 3), lambda: Activation("elu")),
    "dropout": ((4, 3), lambda: Dropout(0.4)),
    "twice": ((2, 3, 4), lambda: TimeDistributed(Dense(3, activation="tanh"))),
    "frozen": ((5, 3), lambda: Dense(4, trainable=False)),
    "over all rows": ((4, 3), lambda: BatchNormalization()),
    "over all rows, one step": ((1, 3), lambda: BatchNormalization(scale=False)),
    "over all rows, twice": ((2, 3, 4), lambda: TimeDistributed(BatchNormalization())),
    "over all rows, planes": ((3, 4, 4, 2), lambda: BatchNormalization()),
}


@pytest.mark.parametrize("name", INSIDE)
def test_gradients_of_layers_at_each_step(name: str) -> None:
    shape, make = INSIDE[name]
    x, y = RNG.standard_normal((6, *shape)), RNG.standard_normal((6, 2))
    layers = [Input(shape), Dense(shape[-1]), TimeDistributed(make()), Flatten(), Dense(2)]
    check_gradient(learner64(layers, "mse"), x, y, points=80)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Softmax(axis=1),
        lambda: Softmax(axis=(1, 2)),
        lambda: Softmax(axis=-2),
        lambda: Activation(Sparsemax(axis=1)),
    ],
)
def test_an_axis_is_one_of_the_step(make: Callable[[], Layer]) -> None:
    x = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
    network = Network([Input((3, 4, 5)), TimeDistributed(make())])
    alone = Network([Input((4, 5)), make()])
    for step in range(3):
        assert predict(network, x)[:, step] == pytest.approx(predict(alone, x[:, step]), abs=1e-6)
    layers = [Input((3, 4, 5)), TimeDistributed(make()), Flatten(), Dense(2)]
    check_gradient(learner64(layers, "mse"), x.astype(np.float64), RNG.standard_normal((2, 2)))


def test_each_step_gets_what_the_layer_alone_gives() -> None:
    network = Network([Input((4, 3)), TimeDistributed(Dense(5, activation="softmax"))], seed=1)
    alone = Network([Input(3), Dense(5, activation="softmax")], seed=1)
    alone.set_weights(network.get_weights())
    x = RNG.standard_normal((7, 4, 3)).astype(np.float32)
    expected = predict(alone, x.reshape(-1, 3))
    np.testing.assert_allclose(predict(network, x).reshape(-1, 5), expected, rtol=1e-6)


@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("how", ["plain", "frozen", "masked", "dropout"])
@pytest.mark.parametrize("sequences", [False, True], ids=["last", "sequences"])
def test_gradients_both_ways(mode: str, how: str, sequences: bool) -> None:
    settings: dict[str, Any] = {"dropout": 0.4, "recurrent_dropout": 0.3} if how == "dropout" else {}
    layer = LSTM(3, return_sequences=sequences, trainable=how != "frozen", **settings)
    x, y = RNG.standard_normal((6, 5, 3)), RNG.standard_normal((6, 5, 2) if sequences else (6, 2))
    if how == "masked":
        x[0], x[1, 2:], x[2, 1] = 0, 0, 0
    front: list[Layer] = [Masking()] if how == "masked" else [Dense(3)]
    with quiet():
        check_gradient(learner64([Input((5, 3)), *front, Bidirectional(layer, mode), Dense(2)], "mse"), x, y, points=80)


def test_the_two_ways_draw_masks_of_their_own() -> None:
    inner = SimpleRNN(
        50, None, kernel_initializer="identity", recurrent_initializer="zeros", dropout=0.5, return_sequences=True
    )
    learner = learner64([Input((2, 50)), Bidirectional(inner)], "mse")
    learner.seek((1, 0), 0, 0)
    plan = learner.network.plan(9, learner._train_work, grads=learner._grads, dice=learner._dice)
    found = plan.infer(np.ones((9, 2, 50)))
    assert (found[..., :50] != found[..., 50:]).any()


def test_settings_are_read_and_written() -> None:
    for layer in (
        Bidirectional(LSTM(3, "elu", return_sequences=True), "sum", name="b"),
        Bidirectional(GRU(3, name="one"), backward_layer=SimpleRNN(3, go_backwards=True), trainable=False),
        TimeDistributed(TimeDistributed(Dense(3, kernel_regularizer="l2"))),
    ):
        config = json.loads(json.dumps(layer.get_config()))
        assert type(layer).from_config(config).get_config() == config
    both = Bidirectional(LSTM(3))
    assert [one.name for one in both.inner] == ["forward_lstm", "backward_lstm"]
    assert [one.go_backwards for one in both.inner] == [False, True]
    turned = Bidirectional(LSTM(3, go_backwards=True), backward_layer=LSTM(3))
    assert [one.go_backwards for one in turned.inner] == [True, False]


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "two outputs": (lambda: Bidirectional(LSTM(2), None), "merge_mode=None.*two outputs"),  # type: ignore[arg-type]
    "mode": (lambda: Bidirectional(LSTM(2), "max"), "'concat', 'sum'.*not 'max'"),
    "no recurrent layer": (lambda: Bidirectional(Dense(2)), "LSTM, GRU or SimpleRNN"),
    "a class": (lambda: Bidirectional(LSTM), "add the parentheses"),  # type: ignore[arg-type]
    "same direction": (lambda: Bidirectional(LSTM(2), backward_layer=LSTM(2)), "both have go_backwards=False"),
    "sequences": (
        lambda: Bidirectional(LSTM(2), backward_layer=LSTM(2, go_backwards=True, return_sequences=True)),
        "return_sequences",
    ),
    "units": (lambda: Bidirectional(LSTM(2), backward_layer=GRU(3, go_backwards=True)), "same units.*2 and 3"),
    "penalty inside": (lambda: TimeDistributed(Dense(2, activity_regularizer="l2")), "give it to TimeDistributed"),
    "vectors": (lambda: Network([Input(3), TimeDistributed(Dense(2))]), r"takes sequences.*\(3,\)"),
    "another's layer": (lambda: TimeDistributed(Network([Dense(2, input_shape=3)]).layers[0]), "part of a model"),
    "unknown": (
        lambda: TimeDistributed.from_config({"layer": {"class_name": "Densé", "config": {}}}),
        "unknown layer class 'Densé'; did you mean 'Dense'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(InvalidInput, match=message):
        make()


def test_words_at_each_step() -> None:
    learner = learner64([Input((4, 3)), TimeDistributed(Embedding(6, 2, mask_zero=True)), Flatten()], "mse")
    x = RNG.integers(0, 6, (5, 4, 3))
    table = learner.network.params.reshape(6, 2)
    np.testing.assert_array_equal(learner.predict(x), table[x].reshape(5, 24))
    assert learner.train_batch(x, np.zeros((5, 24)))["loss"] > 0

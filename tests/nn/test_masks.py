"""Embedding and Masking, and what masks do on their way to the loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncfit.callbacks import LambdaCallback
from asyncfit.errors import InvalidInput
from asyncfit.nn import Learner, Network
from asyncfit.nn.arrays import Array
from asyncfit.nn.layers import (
    GRU,
    KINDS,
    LSTM,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    GlobalAveragePooling1D,
    Input,
    Layer,
    Masking,
    Reshape,
    SimpleRNN,
)
from asyncfit.nn.prediction import quiet
from asyncfit.sequential import Sequential

from .helpers import check_gradient, learner64

RNG = np.random.default_rng(6)
RECURRENT: dict[str, Callable[..., Layer]] = {
    "lstm": LSTM,
    "gru": GRU,
    "gru, reset before": lambda *a, **k: GRU(*a, reset_after=False, **k),
    "rnn": SimpleRNN,
}

HOW: dict[str, dict[str, Any]] = {
    "plain": {},
    "backwards": {"go_backwards": True},
    "zeros": {"zero_output_for_mask": True},
    "dropout": {"dropout": 0.3, "recurrent_dropout": 0.3},
}


def words(rows: int = 7, steps: int = 5, known: int = 9) -> Array:
    """Word 0 is padding: at the end of most rows, everywhere in one, in between in another, at step 3 in all."""
    found = RNG.integers(1, known, (rows, steps)) * (np.arange(steps) < RNG.integers(1, steps + 1, rows)[:, None])
    found[0], found[1], found[:, 3] = 0, [0, 3, 0, 0, 4], 0
    return found


def gradient(layers: list[Layer], x: Array, y: Array, w: Array | None = None) -> None:
    with quiet():
        check_gradient(learner64([Input(x.shape[1:]), *layers], "mse"), x, y, w, points=90)


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("how", HOW)
def test_gradients_of_masked_sequences(kind: str, how: str) -> None:
    settings = HOW[how]
    make, target = RECURRENT[kind], RNG.standard_normal((7, 5, 2))

    def front() -> list[Layer]:
        return [Embedding(9, 3, mask_zero=True), Dense(3)]

    gradient([*front(), make(3, return_sequences=True, **settings), Dense(2)], words(), target)
    gradient([*front(), make(3, **settings), Dense(2)], words(), target[:, 0])
    gradient([*front(), make(3, return_sequences=True, **settings), Dense(2)], words(), target, RNG.random(7))


@pytest.mark.parametrize("kind", RECURRENT)
def test_what_is_masked_changes_nothing(kind: str) -> None:
    layers = [Input((5, 3)), Masking(-1.0), RECURRENT[kind](4, input_shape=(5, 3))]
    network, other = (
        Network([*layers[:1], *layers[1:]], seed=1) for layers in (layers, [Input((3, 3)), RECURRENT[kind](4)])
    )
    x = RNG.standard_normal((6, 3, 3))
    gaps = np.full((6, 5, 3), -1.0)
    gaps[:, [0, 2, 3]] = x
    other.set_weights(network.get_weights())
    learners = [Learner(one, loss="mse") for one in (network, other)]
    np.testing.assert_allclose(learners[0].predict(gaps), learners[1].predict(x), rtol=1e-6)


def test_embedding_gives_rows_and_sums_their_gradients() -> None:
    for known in (9, 70_000):
        learner = learner64([Input((4,)), Embedding(known, 3), Flatten()], "mse")
        table, x = learner.network.layers[0].arrays["embeddings"], RNG.integers(0, 9, (50, 4))
        x[0, 0] = known - 1
        np.testing.assert_array_equal(learner.predict(x), table[x].reshape(50, 12))
        learner.train_batch(x, np.zeros((50, 12)))
        expected = np.zeros_like(table)
        np.add.at(expected, x, 2 * table[x] / 600)
        np.testing.assert_allclose(learner._grads.reshape(-1, 3), expected, rtol=1e-12, atol=1e-18)
        learner.train_batch(x[:1], np.zeros((1, 12)))  # what other words got before is gone
        assert set(np.flatnonzero(learner._grads.reshape(-1, 3).any(axis=1))) == set(x[0])


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int64, np.float32])
def test_words_come_in_any_type(kind: Any) -> None:
    network = Network([Input(3), Embedding(7, 2), LSTM(2), Dense(1)], seed=1)
    learner = Learner(network, loss="mse")
    x = np.array([[0, 6, 3], [1, 2, 6]])
    np.testing.assert_array_equal(learner.predict(x.astype(kind)), learner.predict(x))


def test_large_numbers_of_words_are_exact() -> None:
    network = Network([Input(1), Embedding((1 << 24) + 2, 1, "zeros")], seed=1)
    network.params[-1] = 5
    learner = Learner(network, loss="mse")
    assert learner.predict(np.array([[(1 << 24) + 1]])).item() == 5


@pytest.mark.parametrize("bad", [-1, 7, 2**40])
def test_words_out_of_range_are_refused_before_anything_changes(bad: int) -> None:
    learner = Learner(Network([Input(2), Embedding(7, 2, name="words"), Flatten(), Dense(1)], seed=1), loss="mse")
    before = learner.network.params.copy()
    x = np.array([[1, 2], [3, bad]])
    for run in (learner.train_batch, learner.test_batch):
        with pytest.raises(InvalidInput, match=r"'words' \(Embedding\) takes whole numbers from 0 to 6, but x"):
            run(x, np.zeros(2))
    with pytest.raises(InvalidInput, match="larger input_dim"):
        learner.predict(x)
    np.testing.assert_array_equal(learner.network.params, before)


def test_an_embedding_behind_other_layers_takes_their_numbers() -> None:
    learner = learner64(
        [Input(3), Dense(3, kernel_initializer="identity"), Embedding(5, 2), Flatten(), Dense(1)], "mse"
    )
    x = np.array([[0.0, 4.0, 2.0]])
    table = learner.network.layers[1].arrays["embeddings"]
    kernel, bias = learner.network.get_weights()[-2:]
    np.testing.assert_allclose(learner.predict(x), table[[0, 4, 2]].reshape(1, 6) @ kernel + bias)
    learner.train_batch(x, np.ones(1))
    assert not learner._grads[:12].any()  # whole numbers have no gradient


def test_a_mask_that_does_not_fit_the_predictions_is_refused() -> None:
    learner = Learner(Network([Input((3, 2, 2)), Masking(), Dense(1)], seed=1), loss="mse")
    assert learner.train_batch(np.ones((4, 3, 2, 2)), np.ones((4, 3, 2, 1)))["loss"] > 0  # one for each prediction
    network = Network([Input(3), Embedding(4, 2, mask_zero=True), Twice()], seed=1)
    with pytest.raises(InvalidInput, match=r"mask has \(3,\) steps.*predictions of the shape \(6, 2\)"):
        Learner(network, loss="mse").train_batch(np.ones((4, 3)), np.ones((4, 6, 2)))


class Twice(Layer):
    """Says that it passes its mask on, and does not."""

    supports_masking = True

    def output_shape_for(self, input_shape: tuple[int, ...]) -> tuple[int, ...]:
        return (2 * input_shape[0], *input_shape[1:])

    def plan(self, at: Any) -> None:
        at.forward.append(lambda: np.concatenate([at.x, at.x], axis=1, out=at.y))


def test_where_all_is_masked_the_loss_is_0() -> None:
    learner = learner64([Input(3), Embedding(4, 2, mask_zero=True), Dense(1)], "mse")
    assert learner.train_batch(np.zeros((2, 3)), np.ones((2, 3, 1)))["loss"] == 0
    assert not learner._grads.any()


@pytest.mark.parametrize("layer", [Dense(2), Dropout(0.4)], ids=["dense", "dropout"])
def test_layers_pass_masks_on(layer: Layer) -> None:
    learner = learner64([Input(4), Embedding(9, 2, mask_zero=True), layer], "mse")
    x = np.array([[1, 2, 0, 0], [3, 0, 0, 0]])
    learner.train_batch(x, np.zeros((2, 4, 2)))
    assert not learner._grads.reshape(-1, 2)[0].any()  # nothing comes back to the word 0


KERAS_PASSES_MASKS = set(
    "Activation ActivityRegularization AlphaDropout BatchNormalization Dense Dropout ELU GaussianDropout "
    "GaussianNoise GroupNormalization LayerNormalization LeakyReLU Normalization PReLU ReLU Rescaling Softmax "
    "SpatialDropout1D SpatialDropout2D "
    "TimeDistributed UnitNormalization".split()
)
"""`supports_masking` in Keras 3.15, less those that find or end a mask themselves."""


def test_other_layers_pass_masks_on_where_those_of_keras_do() -> None:
    own = {"Embedding", "GRU", "GlobalAveragePooling1D", "LSTM", "Masking", "SimpleRNN"}
    ours = {
        name for name, kind in KINDS.items() if name not in own and getattr(kind, "supports_masking", False) is True
    }
    assert ours == KERAS_PASSES_MASKS & KINDS.keys()


def test_settings_are_read_and_written() -> None:
    for layer in (Embedding(5, 3, "zeros", "l2", "non_neg", True), Masking(2.5)):
        config = json.loads(json.dumps(layer.get_config()))
        assert type(layer).from_config(config).get_config() == config
    assert Embedding.from_config({"input_dim": 3, "output_dim": 2, "input_length": 7, "mask_zero": True}).makes_mask


@pytest.mark.parametrize(
    ("layers", "dropping"),
    [
        ([Dense(2), Flatten(), Dense(1)], ["flatten (Flatten)"]),
        ([LSTM(2, return_sequences=True), GRU(2), Dense(1)], []),
        ([Dropout(0.5), GlobalAveragePooling1D()], []),
    ],
)
def test_who_drops_a_mask_is_told(layers: list[Layer], dropping: list[str], caplog: pytest.LogCaptureFixture) -> None:
    model = Sequential([Input(3), Embedding(4, 2, mask_zero=True), *layers])
    model.compile("adam", "mse")
    behind = " does not know of masks: steps that are masked count in it and behind it as others do"
    assert [record.getMessage() for record in caplog.records] == [name + behind for name in dropping]


@pytest.mark.parametrize("front", [[], [Reshape((4,))]], ids=["first", "behind a reshape"])
def test_words_out_of_range_are_refused_before_a_run(front: list[Layer]) -> None:
    model = Sequential([Input((2, 2)), *front, Embedding(5, 2), Flatten(), Dense(1)])
    model.compile("adam", "mse")
    x = np.zeros((6, 2, 2))
    seen: list[Any] = []
    x[4, 1, 1] = 5
    hook = LambdaCallback(on_train_begin=seen.append)
    message = r" has 5(\.0)? in row 4, but the model's Embedding takes whole numbers from 0 to 4"
    with pytest.raises(InvalidInput, match="^x" + message):
        model.fit(x, np.zeros(6), callbacks=[hook]).blocking()
    with pytest.raises(InvalidInput, match="^the validation data's x" + message):
        model.fit(x[:3], np.zeros(3), validation_data=(x, np.zeros(6)), callbacks=[hook]).blocking()
    assert not seen

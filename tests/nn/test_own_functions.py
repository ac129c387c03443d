"""Losses and activations of users' own: functions in NumPy train as ours do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncfit import Sequential, load_model
from asyncfit.errors import BadFile, InvalidInput
from asyncfit.nn import Learner, Network, losses
from asyncfit.nn.arrays import Array
from asyncfit.nn.layers import Activation, Dense, Input

from .helpers import check_gradient, learner64

RNG = np.random.default_rng(0)
X, Y, W = RNG.standard_normal((6, 3)), RNG.standard_normal((6, 2)), RNG.random(6) * 2


def my_loss(y_true: Array, y_pred: Array) -> Any:
    return np.mean(np.square(y_true - y_pred), axis=-1)


def with_gradient(y_true: Array, y_pred: Array) -> Any:
    error = y_pred - y_true
    return np.mean(error * error, axis=-1), 2 * error / y_pred.shape[-1]


def of_the_batch(y_true: Array, y_pred: Array) -> Any:
    return np.mean(np.square(y_true - y_pred))


def my_activation(x: Array) -> Any:
    return np.where(x > 0, x, 0.1 * np.expm1(x))


def my_softmax(z: Array) -> Any:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Pinball(losses.Loss):
    def __init__(self, share: float = 0.5, **how: Any) -> None:
        super().__init__(**how)
        self.share = share

    def call(self, y_true: Array, y_pred: Array) -> Any:
        error = y_true - y_pred
        return np.mean(np.maximum(self.share * error, (self.share - 1) * error), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"share": self.share}


@pytest.mark.parametrize("weights", [None, W], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight"])
@pytest.mark.parametrize("function", [my_loss, with_gradient])
def test_a_function_trains_as_the_loss_that_it_is(function: Any, reduction: str, weights: Any) -> None:
    own, ours = (
        learner64([Input(3), Dense(4, "tanh"), Dense(2)], loss)
        for loss in (losses.LossFunction(function, reduction), losses.MeanSquaredError(reduction))
    )
    assert own.train_batch(X, Y, weights)["loss"] == pytest.approx(ours.train_batch(X, Y, weights)["loss"])
    np.testing.assert_allclose(own._grads, ours._grads)
    assert own.test_batch(X, Y, weights)["loss"] == pytest.approx(ours.test_batch(X, Y, weights)["loss"])


@pytest.mark.parametrize("loss", [my_loss, of_the_batch, Pinball(0.3), losses.LossFunction(my_loss, "sum")])
@pytest.mark.parametrize("weights", [None, W], ids=["plain", "weighted"])
def test_gradients_of_own_losses(loss: Any, weights: Any) -> None:
    check_gradient(learner64([Input(3), Dense(4, "tanh"), Dense(2)], loss), X, Y, weights)
    x, y = RNG.standard_normal((6, 4, 3)), RNG.standard_normal((6, 4, 2))
    check_gradient(learner64([Input((4, 3)), Dense(2)], loss), x, y, weights)


def test_targets_of_any_shape_reach_a_function_as_they_are() -> None:
    shapes = []

    def of_classes(y_true: Array, y_pred: Array) -> Any:
        shapes.append((y_true.shape, y_pred.shape))
        return -np.log(np.take_along_axis(y_pred, y_true.astype(int)[:, None], -1))

    learner = learner64([Input(3), Dense(2, "softmax")], of_classes)
    check_gradient(learner, X, RNG.integers(0, 2, 6))
    assert shapes[0] == ((6,), (6, 2))

    def absolute(y_true: Array, y_pred: Array) -> Any:
        shapes.append((y_true.shape, y_pred.shape))
        return np.abs(y_true - y_pred)

    learner64([Input(3), Dense(1)], absolute).train_batch(X, X[:, 0])
    assert shapes[-1] == ((6, 1), (6, 1))


@pytest.mark.parametrize("where", ["dense", "layer", "last"])
def test_gradients_of_own_activations(where: str) -> None:
    stack = {
        "dense": [Input(3), Dense(4, my_activation), Dense(2)],
        "layer": [Input(3), Activation(my_activation), Dense(4), Activation(my_activation), Dense(2)],
        "last": [Input(3), Dense(4), Dense(2, my_softmax)],
    }[where]
    check_gradient(learner64(stack, "mse"), X, Y)


def test_a_function_that_is_called_as_one_of_ours_is_itself() -> None:
    def sigmoid(x: Array) -> Any:
        return 0.5 + 0.1 * np.tanh(x)

    check_gradient(learner64([Input(3), Dense(1, sigmoid)], "bce"), X, RNG.integers(0, 2, 6))


def test_models_with_functions_are_saved_by_their_names(tmp_path: Path) -> None:
    path = tmp_path / "m.h5"
    for loss in (my_loss, Pinball(0.3), losses.LossFunction(my_loss, "sum")):
        model = Sequential([Input(3), Dense(4, my_activation), Activation(my_activation), Dense(2)], seed=3)
        model.compile("adam", loss)
        model.fit(X, Y, epochs=2, shuffle=False).blocking()
        model.save(path).blocking()
        custom = {"my_loss": my_loss, "my_activation": my_activation, "Pinball": Pinball}
        again = load_model(path, custom_objects=custom).blocking()
        assert again.predict(X).blocking().tobytes() == model.predict(X).blocking().tobytes()
        losses_ = [one.fit(X, Y, epochs=2, shuffle=False).blocking().history["loss"] for one in (again, model)]
        assert losses_[0] == losses_[1]
        with pytest.raises(BadFile, match="my_activation"):
            load_model(path).blocking()


BAD: list[tuple[Any, str]] = [
    (lambda t, y: np.ones(6), "does not depend on y_pred"),
    (lambda t, y: "loss", "a number for each prediction"),
    (lambda t, y: (np.mean(y - t, -1), np.ones(6)), "gradient of the shape"),
    (lambda t, y: np.linalg.det(y @ t.T), "np.det has no gradient here"),
]


@pytest.mark.parametrize(("function", "message"), BAD)
def test_slips_are_told(function: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        learner64([Input(3), Dense(2)], function).train_batch(X, Y)


def test_an_activation_keeps_the_shape() -> None:
    learner = Learner(Network([Input(3), Dense(2, lambda z: z.sum(-1))]), loss="mse")
    with pytest.raises(InvalidInput, match="keeps the shape"):
        learner.train_batch(X, Y)

"""Noise layers: distributions against closed forms, gradients, determinism; nothing outside training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncfit.errors import InvalidInput
from asyncfit.nn import Learner, Network, predict
from asyncfit.nn.arrays import Array
from asyncfit.nn.layers import (
    AlphaDropout,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GaussianDropout,
    GaussianNoise,
    Input,
    Layer,
    SpatialDropout1D,
    SpatialDropout2D,
)
from asyncfit.nn.streams import Dice
from asyncfit.nn.workspace import Place, Workspace

from .helpers import check_gradient, learner64

RNG = np.random.default_rng(0)
KINDS: dict[str, tuple[tuple[int, ...], Callable[[], Layer]]] = {
    "dropout, steps": ((4, 3), lambda: Dropout(0.4, noise_shape=(None, 1, None))),
    "dropout, channels": ((4, 5, 3), lambda: Dropout(0.4, (None, 4, 5, 1))),
    "dropout, one for all rows": ((4, 3), lambda: Dropout(0.4, (1, None, 1))),
    "noise": ((3,), lambda: GaussianNoise(0.5)),
    "noise on images": ((4, 5, 3), lambda: GaussianNoise(0.5, seed=3)),
    "gaussian": ((3,), lambda: GaussianDropout(0.3)),
    "gaussian on sequences": ((4, 3), lambda: GaussianDropout(0.3)),
    "alpha": ((3,), lambda: AlphaDropout(0.3)),
    "alpha, steps": ((4, 3), lambda: AlphaDropout(0.3, noise_shape=[None, 1, None])),
    "spatial 1": ((4, 3), lambda: SpatialDropout1D(0.4)),
    "spatial 2": ((4, 5, 3), lambda: SpatialDropout2D(0.4)),
}


def layers(name: str) -> list[Layer]:
    shape, make = KINDS[name]
    return [Input(shape), Dense(6, bias_initializer="uniform"), make(), Flatten(), Dense(2)]


@pytest.mark.parametrize("name", KINDS)
def test_gradients(name: str) -> None:
    shape, make = KINDS[name]
    stack = layers(name)
    if name == "dropout, channels":
        stack[1:3] = [make(), Dense(6)]
    check_gradient(learner64(stack, "mse"), RNG.standard_normal((6, *shape)), RNG.standard_normal((6, 2)))
    if len(shape) == 3:
        stack = [Input(shape), Conv2D(3, 2, padding="same"), make(), Conv2D(2, 2), Flatten(), Dense(2)]
        check_gradient(learner64(stack, "mse"), RNG.standard_normal((6, *shape)), RNG.standard_normal((6, 2)))


def drawn(layer: Layer, x: Array, *, epoch: int = 0, step: int = 0, seed: int = 7) -> Array:
    """What the layer makes of x in training."""
    work, dice = Workspace(x.dtype), Dice()
    dice.seek((seed, 0), epoch, step)
    at = Place(
        work, dice, index=1, x=x, ones=None, y=np.empty_like(x), dy=None, dx=None,
        weights={}, grads={}, training=True,
    )  # fmt: skip
    layer.output_shape_for(x.shape[1:])
    layer.plan(at)
    for call in at.forward:
        call()
    return at.y


BIG = np.full((400, 20, 50), 2.0, np.float32)


def test_noise_is_normal() -> None:
    noise = drawn(GaussianNoise(0.3), BIG) - 2
    assert noise.mean() == pytest.approx(0, abs=0.003)
    assert noise.std() == pytest.approx(0.3, rel=0.01)
    assert (np.abs(noise) > 0.3).mean() == pytest.approx(0.3173, abs=0.005)
    assert np.abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.1


def test_gaussian_dropout_keeps_the_mean() -> None:
    y = drawn(GaussianDropout(0.2), BIG)
    assert y.mean() == pytest.approx(2, rel=0.005)
    assert y.std() == pytest.approx(2 * (0.2 / 0.8) ** 0.5, rel=0.01)


def test_alpha_dropout_keeps_mean_and_variance_of_normal_values() -> None:
    x = RNG.standard_normal((400, 1000)).astype(np.float32)
    y = drawn(AlphaDropout(0.25), x)
    assert y.mean() == pytest.approx(0, abs=0.01)
    assert y.std() == pytest.approx(1, rel=0.01)
    values, counts = np.unique(y, return_counts=True)
    dropped = counts.max() / y.size
    assert dropped == pytest.approx(0.25, abs=0.005)
    alpha = 1.7580993408473766
    a = (0.75 * (1 + 0.25 * alpha**2)) ** -0.5
    assert values[counts.argmax()] == pytest.approx(a * (-alpha) + a * alpha * 0.25, rel=1e-5)
    kept = y != values[counts.argmax()]
    np.testing.assert_allclose(y[kept], a * x[kept] + a * alpha * 0.25, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(200, 8, 50), (200, 4, 6, 10)])
def test_spatial_dropout_drops_whole_channels(shape: tuple[int, ...]) -> None:
    layer = SpatialDropout1D(0.3) if len(shape) == 3 else SpatialDropout2D(0.3)
    y = drawn(layer, np.ones(shape, np.float32))
    inner = tuple(range(1, len(shape) - 1))
    np.testing.assert_array_equal(y.min(inner), y.max(inner))
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    assert (y == 0).mean() == pytest.approx(0.3, abs=0.03)
    noise = (None, *(1,) * len(inner), None)
    np.testing.assert_array_equal(drawn(Dropout(0.3, noise), np.ones(shape, np.float32)), y)


@pytest.mark.parametrize("name", KINDS)
def test_numbers_are_a_function_of_seed_epoch_step_and_layer(name: str) -> None:
    shape, make = KINDS[name]
    x = RNG.standard_normal((40, *shape)).astype(np.float32)
    first = drawn(make(), x)
    np.testing.assert_array_equal(drawn(make(), x), first)
    for other in (drawn(make(), x, epoch=1), drawn(make(), x, step=1), drawn(make(), x, seed=8)):
        assert not np.array_equal(other, first)
    layer = make()
    assert isinstance(layer, Dropout | GaussianNoise | GaussianDropout | AlphaDropout)
    layer.seed = 99
    assert not np.array_equal(drawn(layer, x), first)


@pytest.mark.parametrize("name", KINDS)
def test_nothing_happens_outside_training(name: str) -> None:
    network = Network(layers(name), seed=1)
    assert network.random
    plain = Network([layer for i, layer in enumerate(layers(name)) if i != 2], seed=1)
    plain.set_weights(network.get_weights())
    x = RNG.standard_normal((6, *KINDS[name][0]))
    np.testing.assert_array_equal(predict(network, x), predict(plain, x))
    one, other = (Learner(net, loss="mse").test_batch(x, np.zeros((6, 2))) for net in (network, plain))
    assert one == other


@pytest.mark.parametrize("name", KINDS)
def test_configs_come_back(name: str) -> None:
    network = Network(layers(name), seed=1)
    again = Network.from_config(network.get_config(), seed=1)
    assert again.get_config() == network.get_config()
    x, y = RNG.standard_normal((6, *KINDS[name][0])), np.zeros((6, 2))
    assert Learner(again, loss="mse").train_batch(x, y) == Learner(network, loss="mse").train_batch(x, y)


def test_no_noise_is_no_work() -> None:
    for layer in (Dropout(0), GaussianNoise(0), GaussianDropout(0), AlphaDropout(0), SpatialDropout1D(0)):
        assert layer.passes(True)
        assert not layer.is_random()


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: Dropout(1.1), "from 0 to 1"),
    (lambda: GaussianNoise(1.5), "from 0 to 1"),
    (lambda: GaussianNoise(-0.5), "at least 0"),
    (lambda: GaussianDropout(1.0), "from 0 and below 1"),
    (lambda: AlphaDropout(1.0), "from 0 and below 1"),
    (
        lambda: Dropout(0.5, noise_shape="all"),  # type: ignore[arg-type]
        "shape with the batch",
    ),
    (lambda: Dropout(0.5, noise_shape=(0, 1)), "each size from 1 or None"),
    (lambda: Network([Input(3), Dropout(0.5, (None, 2))]), "does not fit batches of shape"),
    (lambda: Network([Input(3), AlphaDropout(0.5, (None, 1, 1))]), "does not fit batches of shape"),
    (lambda: Network([Input(3), SpatialDropout1D(0.5)]), r"shape \(steps, channels\)"),
    (lambda: Network([Input((3, 4)), SpatialDropout2D(0.5)]), r"shape \(height, width, channels\)"),
    (lambda: SpatialDropout2D(0.5, data_format="channels_first"), "channels_last"),
    (lambda: drawn(Dropout(0.5, (5, None)), np.ones((4, 2), np.float32)), "say None"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_settings_are_told(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        make()

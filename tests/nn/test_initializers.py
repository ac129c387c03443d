"""Initial values: ranges and variances of the closed forms, and the seed that decides them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from asyncfit.errors import InvalidInput
from asyncfit.nn import Network, initializers
from asyncfit.nn.initializers import Constant, GlorotUniform, HeNormal, Initializer, RandomNormal, TruncatedNormal
from asyncfit.nn.layers import Dense, Input

SHAPE = (300, 200)
VARIANCES = {
    "glorot_uniform": 2 / 500,
    "glorot_normal": 2 / 500,
    "he_uniform": 2 / 300,
    "he_normal": 2 / 300,
    "lecun_uniform": 1 / 300,
    "lecun_normal": 1 / 300,
    "random_uniform": 0.1**2 / 12,
    "random_normal": 0.05**2,
    "truncated_normal": (0.05 * initializers.TRUNCATED_STDDEV) ** 2,
    "variance_scaling": 1 / 300,
}


@pytest.mark.parametrize("name", VARIANCES)
def test_variance_is_that_of_the_formula(name: str) -> None:
    values = initializers.get(name)(SHAPE, seed=1)
    assert values.dtype == np.float32
    assert values.shape == SHAPE
    assert float(values.mean()) == pytest.approx(0, abs=4 * math.sqrt(VARIANCES[name] / values.size))
    assert float(values.var()) == pytest.approx(VARIANCES[name], rel=0.03)


@pytest.mark.parametrize("name", [n for n in VARIANCES if "uniform" in n])
def test_uniform_values_fill_their_range(name: str) -> None:
    limit = math.sqrt(3 * VARIANCES[name])
    values = np.abs(initializers.get(name)(SHAPE, seed=2))
    assert limit * 0.999 < values.max() <= limit * (1 + 1e-6)


@pytest.mark.parametrize("name", ["glorot_normal", "he_normal", "lecun_normal", "truncated_normal"])
def test_normal_values_are_cut_at_two_deviations(name: str) -> None:
    cut = 2 * math.sqrt(VARIANCES[name]) / initializers.TRUNCATED_STDDEV
    values = np.abs(initializers.get(name)(SHAPE, seed=3))
    assert cut * 0.99 < values.max() <= cut * (1 + 1e-6)


def test_constants() -> None:
    assert (initializers.get("zeros")((2, 3)) == 0).all()
    assert (initializers.get("ones")((2, 3)) == 1).all()
    assert (Constant(2.5)((2, 3)) == 2.5).all()


def weights(seed: int | None, **how: Any) -> bytes:
    return Network([Input(4), Dense(3, **how), Dense(2, **how)], seed=seed).params.tobytes()


def test_the_seed_decides_the_weights() -> None:
    assert weights(1) == weights(1)
    assert weights(1) != weights(2)
    assert weights(None) != weights(None)


def test_weights_do_not_depend_on_how_the_model_was_built() -> None:
    late = Network([Dense(3), Dense(2)], seed=1)
    late.build((4,))
    step = Network(seed=1)
    for layer in (Dense(3, input_shape=(4,)), Dense(2)):
        step.add(layer)
    assert late.params.tobytes() == step.params.tobytes() == weights(1)


def test_layers_get_different_values() -> None:
    first, _, second, _ = Network([Input(3), Dense(3), Dense(3)], seed=1).get_weights()
    assert not np.array_equal(first, second)


def test_an_initializer_with_a_seed_of_its_own_repeats_itself() -> None:
    assert weights(1, kernel_initializer=HeNormal(seed=5)) == weights(2, kernel_initializer=HeNormal(seed=5))


@pytest.mark.parametrize(
    "initializer",
    [
        Constant(3.0),
        GlorotUniform(4),
        RandomNormal(1.0, 2.0, 3),
        TruncatedNormal(),
        initializers.VarianceScaling(3.0, "fan_out"),
    ],
)
def test_config_round_trip(initializer: Initializer) -> None:
    again = initializers.get(initializers.config(initializer))
    assert again == initializer
    assert hash(again) == hash(initializer)
    keras_3 = {"module": "keras.initializers", "registered_name": None, **initializers.config(initializer)}
    assert initializers.get(keras_3) == again


@pytest.mark.parametrize("name", ["glorotUniform", "glorot_uniform", "GlorotUniform", "GLOROT_UNIFORM"])
def test_names_are_matched_however_they_are_spelled(name: str) -> None:
    assert initializers.get(name) == GlorotUniform()


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'glorot_normal'"):
        initializers.get("glorot_norml")
    with pytest.raises(InvalidInput, match="fan_sideways"):
        initializers.VarianceScaling(mode="fan_sideways")
    with pytest.raises(InvalidInput, match="least 0"):
        RandomNormal(stddev=-1)
    with pytest.raises(InvalidInput, match="whole number from 0"):
        HeNormal(seed=-1)


@pytest.mark.parametrize("shape", [(4, 12), (12, 4), (5, 5), (2, 3, 4)])
def test_orthogonal_rows_or_columns(shape: tuple[int, ...]) -> None:
    found = initializers.Orthogonal(gain=2.0, seed=1).fill(shape, np.random.default_rng(0)).reshape(-1, shape[-1])
    small = found if found.shape[0] <= found.shape[1] else found.T
    np.testing.assert_allclose(small @ small.T, 4 * np.eye(len(small)), atol=1e-12)


def test_orthogonal_matrices_are_spread_evenly() -> None:
    rng = np.random.default_rng(0)
    corners = [initializers.Orthogonal().fill((2, 2), rng)[0, 0] for _ in range(2000)]
    np.testing.assert_allclose([np.mean(corners), np.var(corners)], [0, 0.5], atol=0.06)  # a cosine of any angle


def test_identity() -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(initializers.Identity(3).fill((2, 3), rng), [[3, 0, 0], [0, 3, 0]])
    with pytest.raises(InvalidInput, match="matrices"):
        initializers.Identity().fill((2, 2, 2), rng)
    with pytest.raises(InvalidInput, match="two axes"):
        initializers.Orthogonal().fill((2,), rng)

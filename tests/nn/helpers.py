"""What several tests of `asyncfit.nn` share."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncfit.nn import Learner, Network
from asyncfit.nn.arrays import Array
from asyncfit.nn.layers import Layer
from asyncfit.nn.optimizers import SGD

__all__ = ["check_gradient", "learner64", "toy"]


def toy(rows: int = 64, features: int = 4, seed: int = 0) -> tuple[Array, Array]:
    """Points, and whether the first coordinates add up to something above 0."""
    x = np.random.default_rng(seed).standard_normal((rows, features)).astype(np.float32)
    return x, (x[:, :2].sum(1) > 0).astype(np.float32)


def learner64(layers: list[Layer], loss: Any, **how: Any) -> Learner:
    """In float64 and with a learning rate of 0: a batch computes gradients and changes nothing."""
    network = Network(layers, seed=5, _dtype=np.float64)
    return Learner(network, loss=loss, optimizer=SGD(0.0), **how)


def check_gradient(learner: Learner, x: Array, y: Array, w: Array | None = None, *, points: int = 40) -> None:
    """The gradient of each weight (of `points` of them, if there are more) against central differences."""

    def loss() -> float:
        learner.seek((7, 0), 0, 3)
        return learner.train_batch(x, y, w)["loss"]

    loss()
    params, found = learner.network.params, learner._grads.copy()
    assert params.dtype == np.float64
    rng = np.random.default_rng(1)
    chosen = rng.permutation(params.size)[:points]
    expected = []
    for i in chosen:
        value, losses = params[i], []
        for step in (1e-6, -1e-6):
            params[i] = value + step
            losses.append(loss())
        params[i] = value
        expected.append((losses[0] - losses[1]) / 2e-6)
    np.testing.assert_allclose(found[chosen], expected, rtol=1e-6, atol=1e-8)

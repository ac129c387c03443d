"""Prediction: a network's outputs, in a workspace of their own, so that it may run in any thread beside training."""

from __future__ import annotations

import numpy as np

from asyncfit.errors import InvalidInput

from .arrays import Array
from .checks import check_samples
from .naming import whole
from .network import Network
from .plan import Plan
from .streams import Dice
from .workspace import Workspace

__all__ = ["predict", "quiet"]


def predict(
    network: Network, x: Array, *, batch_size: int = 32, params: Array | None = None, fixed: Array | None = None
) -> Array:
    """See `Learner.predict`; a network without a loss predicts as well."""
    x = np.asarray(x)
    check_samples(x.dtype)
    if x.ndim < 1:
        raise InvalidInput("x must have one row for each sample, not a single number")
    batch_size = whole("batch_size", batch_size, least=1)
    network.build(x.shape[1:])
    assert network.output_shape is not None
    rows = len(x)
    result = np.empty((rows, *network.output_shape), network.dtype)
    work, dice = Workspace(network.dtype), Dice()
    plans: dict[int, Plan] = {}
    with quiet():
        for begin in range(0, rows, batch_size):
            part = x[begin : begin + batch_size]
            if len(part) not in plans:
                plans[len(part)] = network.plan(len(part), work, params=params, fixed=fixed, dice=dice)
            result[begin : begin + len(part)] = plans[len(part)].infer(part)
    return result


def quiet() -> np.errstate:
    """No warnings where a network diverges: its loss says so. Enter it once around a loop over batches (0.5 µs)."""
    return np.errstate(divide="ignore", over="ignore", invalid="ignore")

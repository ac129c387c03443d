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

__all__ = ["Outputs", "predict", "quiet"]


class Outputs:
    """Room for the outputs of `rows` samples, filled a batch at a time.

    Args:
        network: is built already.
        params, fixed: flat arrays of weights in place of the network's own.

    Attributes:
        all: `(rows, *output_shape)`; what was not put in yet is undefined.
    """

    def __init__(self, network: Network, rows: int, *, params: Array | None = None, fixed: Array | None = None) -> None:
        network.require_built("predict")
        assert network.output_shape is not None
        self.all: Array = np.empty((rows, *network.output_shape), network.dtype)
        self._network, self._params, self._fixed = network, params, fixed
        self._work, self._dice = Workspace(network.dtype), Dice()
        self._plans: dict[int, Plan] = {}
        self._filled = 0

    def alone(self, x: Array) -> Array:
        """The outputs for some samples, in memory of their own: where nobody knows how many will come."""
        self.all, self._filled = np.empty((len(x), *self.all.shape[1:]), self.all.dtype), 0
        return self.put(x)

    def put(self, x: Array) -> Array:
        """The outputs for the next samples, as a view of `all`."""
        rows, begin = len(x), self._filled
        plan = self._plans.get(rows)
        if plan is None:
            plan = self._network.plan(rows, self._work, params=self._params, fixed=self._fixed, dice=self._dice)
            self._plans[rows] = plan
        self._filled = end = begin + rows
        part = self.all[begin:end]
        part[...] = plan.infer(x)
        return part


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
    outputs = Outputs(network, len(x), params=params, fixed=fixed)
    with quiet():
        for begin in range(0, len(x), batch_size):
            outputs.put(x[begin : begin + batch_size])
    return outputs.all


def quiet() -> np.errstate:
    """No warnings where a network diverges: its loss says so. Enter it once around a loop over batches (0.5 µs)."""
    return np.errstate(divide="ignore", over="ignore", invalid="ignore")

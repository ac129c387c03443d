"""SimpleRNN: h' = activation(x · kernel + h · recurrent_kernel + bias)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from asyncfit.nn.activations import sigmoid
from asyncfit.nn.arrays import Call

from .over_time import OverTime, Run
from .recurrent import Recurrent

__all__ = ["SimpleRNN"]


class Steps(OverTime):
    joined = True

    def runs(self) -> Sequence[Run]:
        return [(0, 1, 0, 0.5 if self.layer.activation is sigmoid else 1.0)]

    def forth(self, t: int) -> list[Call]:
        return [
            partial(np.dot, self.w, self.h[t], self.z[t]),
            *self.apply(self.layer.activation, self.z[t], self.state[t + 1]),
        ]

    def slopes(self, part: slice) -> list[Call]:
        behind = self.state[part.start + 1 : part.stop + 1]
        return self.slope(self.layer.activation, self.z[part], behind, self.dz[part])

    def back(self, t: int) -> list[Call]:
        dz = self.dz[t]
        return [partial(np.multiply, dz, self.dh, dz), *self.pull(self.weights["recurrent_kernel"], dz, self.dh)]


class SimpleRNN(Recurrent):
    """h' = activation(x · kernel + h · recurrent_kernel + bias), step by step (Elman 1990).

    Weights: kernel `(features, units)`, recurrent_kernel `(units, units)`, bias `(units,)`.
    """

    gates, cell, arithmetic = 1, "simple_rnn_cell", Steps

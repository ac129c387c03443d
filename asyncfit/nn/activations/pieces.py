"""Functions made of straight (or square) pieces: hard_sigmoid, hard_tanh, the shrinking ones."""

from __future__ import annotations

from functools import partial

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.blocks import against, cut
from asyncfit.nn.naming import number
from asyncfit.nn.workspace import Workspace

from .base import Activation, inside, scalar

__all__ = [
    "HardShrink",
    "HardSiLU",
    "HardSigmoid",
    "HardTanh",
    "SoftShrink",
    "SparsePlus",
    "SparseSigmoid",
    "Threshold",
]


class HardSigmoid(Activation):
    """y = z/6 + 1/2, cut at 0 and 1. (Keras 2's and TF.js's had z/5 + 1/2.)"""

    name = "hard_sigmoid"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return ramp(z, y, 1 / 6)

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            *inside(z, -3, 3, slope, work.like(dy)),
            partial(np.multiply, slope, scalar(1 / 6, z), slope),
            partial(np.multiply, dy, slope, dy),
        ]


class SparseSigmoid(Activation):
    """y = (z + 1) / 2, cut at 0 and 1."""

    name = "sparse_sigmoid"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return ramp(z, y, 0.5)

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            *inside(z, -1, 1, slope, work.like(dy)),
            partial(np.multiply, slope, scalar(0.5, z), slope),
            partial(np.multiply, dy, slope, dy),
        ]


class HardSiLU(Activation):
    """y = z·(z + 3) / 6 from −3 to 3, 0 before, z behind (Howard et al. 2019)."""

    name = "hard_silu"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return [*ramp(z, y, 1 / 6), partial(np.multiply, y, z, y)]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope, part = work.like(dy), work.like(dy)
        return [  # z/3 + 1/2 where |z| is below 3, and 1 above
            partial(np.abs, z, slope),
            partial(np.less, slope, scalar(3, z), slope),
            partial(np.multiply, z, scalar(1 / 3, z), part),
            partial(np.add, part, scalar(0.5, z), part),
            partial(np.multiply, slope, part, slope),
            partial(np.greater_equal, z, scalar(3, z), part),
            partial(np.add, slope, part, slope),
            partial(np.multiply, dy, slope, dy),
        ]


class HardTanh(Activation):
    """y = z, cut at −1 and 1."""

    name = "hard_tanh"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return cut(z, -1, 1, y)

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [*inside(z, -1, 1, slope, work.like(dy)), partial(np.multiply, dy, slope, dy)]


class SparsePlus(Activation):
    """y = 0 up to −1, (z + 1)² / 4 up to 1, z from there on; y' = (z + 1) / 2, cut at 0 and 1."""

    name = "sparse_plus"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        above, one = work.like(z), scalar(1, z)
        return [
            *ramp(z, y, 0.5),
            partial(np.multiply, y, y, y),
            partial(np.subtract, z, one, above),
            *against(np.maximum, above, 0, above),
            partial(np.add, y, above, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [*ramp(z, slope, 0.5), partial(np.multiply, dy, slope, dy)]


def ramp(z: Array, y: Array, slope: float) -> list[Call]:
    """Write slope·z + 1/2, cut at 0 and 1."""
    return [
        partial(np.multiply, z, scalar(slope, z), y),
        partial(np.add, y, scalar(0.5, z), y),
        *cut(y, 0, 1, y),
    ]


class Shrink(Activation):
    """0 where |z| is at most `threshold`."""

    def __init__(self, threshold: float = 0.5) -> None:
        self.threshold = number(f"{self.name}(threshold=…)", threshold, least=0.0)
        self.name = self.full_name()

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [partial(np.not_equal, y, scalar(0, y), slope), partial(np.multiply, dy, slope, dy)]


class SoftShrink(Shrink):
    """y = z, brought nearer to 0 by `threshold`; 0 where |z| is at most that."""

    name = "soft_shrink"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return [
            *cut(z, -self.threshold, self.threshold, y),
            partial(np.subtract, z, y, y),
        ]


class HardShrink(Shrink):
    """y = z; 0 where |z| is at most `threshold`."""

    name = "hard_shrink"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return [
            partial(np.abs, z, y),
            partial(np.greater, y, scalar(self.threshold, z), y),
            partial(np.multiply, y, z, y),
        ]


class Threshold(Activation):
    """y = z above `threshold`, `default_value` elsewhere. No option is usual: `threshold.with_options(0.5, 0.0)`."""

    name = "threshold"

    def __init__(self, threshold: float | None = None, default_value: float | None = None) -> None:
        if (threshold is None) != (default_value is None):
            raise InvalidInput("threshold needs both options, threshold=… and default_value=…")
        self.threshold = None if threshold is None else number("threshold(threshold=…)", threshold)
        self.default_value = None if default_value is None else number("threshold(default_value=…)", default_value)
        self.name = self.full_name()

    def require_options(self) -> tuple[float, float]:
        if self.threshold is None or self.default_value is None:
            raise InvalidInput(
                "threshold needs options: activations.threshold.with_options(threshold=…, default_value=…)"
            )
        return self.threshold, self.default_value

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        below, (threshold, otherwise) = work.like(z, bool), self.require_options()
        return [
            partial(np.copyto, y, z),
            partial(np.less_equal, z, scalar(threshold, z), below),
            partial(np.copyto, y, scalar(otherwise, z), where=below),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope, (threshold, _) = work.like(dy), self.require_options()
        return [partial(np.greater, z, scalar(threshold, z), slope), partial(np.multiply, dy, slope, dy)]

"""Identities above 0 that bend below: ReLU and its relatives."""

from __future__ import annotations

from functools import partial

import numpy as np

from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.blocks import against, cut
from asyncfit.nn.naming import number, positive
from asyncfit.nn.workspace import Workspace

from .base import Activation, inside, scalar

__all__ = ["CELU", "ELU", "SELU", "LeakyReLU", "ReLU", "ReLU6"]


class ReLU(Activation):
    """y = max(z, 0); at 0 the gradient is 0. With options: from `threshold` on z, at most `max_value`; below it
    `negative_slope`·(z − threshold).
    """

    name = "relu"

    def __init__(self, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> None:
        self.negative_slope = number("relu(negative_slope=…)", negative_slope)
        self.max_value = None if max_value is None else number("relu(max_value=…)", max_value, least=0.0)
        self.threshold = number("relu(threshold=…)", threshold)
        self.name = self.full_name()

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        threshold = scalar(self.threshold, z)
        calls = against(np.maximum, z, 0, y)
        if self.threshold:
            calls = [partial(np.greater, z, threshold, y), partial(np.multiply, z, y, y)]
        if self.max_value is not None:
            calls += against(np.minimum, y, self.max_value, y)
        if self.negative_slope:
            below = work.like(z)
            calls += [
                partial(np.subtract, z, threshold, below),
                *against(np.minimum, below, 0, below),
                partial(np.multiply, below, scalar(self.negative_slope, z), below),
                partial(np.add, y, below, y),
            ]
        return calls

    def in_place(self) -> bool:
        return not self.get_config()

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        if not self.get_config():
            # y is not negative, so its bits, as a whole number, are 0 where it is 0: six times as fast as np.sign
            whole = np.dtype(f"u{y.itemsize}")
            slope, bits = work.like(dy, whole), dy.view(whole)
            return [*against(np.minimum, y.view(whole), 1, slope), partial(np.multiply, bits, slope, bits)]
        slope, part = work.like(dy), work.like(dy)
        calls: list[Call] = [partial(np.greater, z, scalar(self.threshold, z), slope)]
        if self.max_value is not None:
            calls += [
                partial(np.less, z, scalar(self.max_value, z), part),
                partial(np.multiply, slope, part, slope),
            ]
        if self.negative_slope:
            calls += [
                partial(np.less, z, scalar(self.threshold, z), part),
                partial(np.multiply, part, scalar(self.negative_slope, z), part),
                partial(np.add, slope, part, slope),
            ]
        return [*calls, partial(np.multiply, dy, slope, dy)]


class ReLU6(Activation):
    """y = min(max(z, 0), 6)."""

    name = "relu6"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return cut(z, 0, 6, y)

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [*inside(y, 0, 6, slope, work.like(dy)), partial(np.multiply, dy, slope, dy)]


class LeakyReLU(Activation):
    """y = z above 0, `negative_slope`·z below (and the slope at 0). Keras 3's function has the slope 0.2."""

    name = "leaky_relu"

    def __init__(self, negative_slope: float = 0.2) -> None:
        self.negative_slope = number("leaky_relu(negative_slope=…)", negative_slope, least=0.0)
        self.name = self.full_name()

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        upper = np.maximum if self.negative_slope < 1.0 else np.minimum
        return [partial(np.multiply, z, scalar(self.negative_slope, z), y), partial(upper, z, y, out=y)]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            partial(np.greater, z, scalar(0, z), slope),
            partial(np.multiply, slope, scalar(1 - self.negative_slope, z), slope),
            partial(np.add, slope, scalar(self.negative_slope, z), slope),
            partial(np.multiply, dy, slope, dy),
        ]


class ELU(Activation):
    """y = z above 0, alpha·(e^z − 1) below (Clevert et al. 2016)."""

    name = "elu"

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = number("elu(alpha=…)", alpha)
        self.name = self.full_name()

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        below = work.like(z)
        scaled = [partial(np.multiply, below, scalar(self.alpha, z), below)] if self.alpha != 1.0 else []
        return [
            *against(np.minimum, z, 0, below),
            partial(np.expm1, below, below),
            *scaled,
            *against(np.maximum, z, 0, y),
            partial(np.add, y, below, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        if self.alpha != 1.0:
            return [*steep(z, y, slope, self.alpha, 1.0, work), partial(np.multiply, dy, slope, dy)]
        return [  # y + 1 below 0, and 1 above
            *against(np.minimum, y, 0, slope),
            partial(np.add, slope, scalar(1, y), slope),
            partial(np.multiply, dy, slope, dy),
        ]


def steep(z: Array, y: Array, slope: Array, below: float, above: float, work: Workspace) -> list[Call]:
    """Write y + `below` where z is at most 0, and `above` elsewhere."""
    part = work.like(y)
    return [
        partial(np.greater, z, scalar(0, z), part),
        partial(np.subtract, scalar(1, y), part, slope),
        partial(np.multiply, part, scalar(above - below, y), part),
        partial(np.multiply, slope, y, slope),
        partial(np.add, slope, part, slope),
        partial(np.add, slope, scalar(below, y), slope),
    ]


class SELU(Activation):
    """y = s·z above 0, s·a·(e^z − 1) below, with a = 1.6733, s = 1.0507 (Klambauer et al. 2017)."""

    name = "selu"
    alpha, scale = 1.6732632423543772, 1.0507009873554805

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        below = work.like(z)
        return [
            *against(np.minimum, z, 0, below),
            partial(np.expm1, below, below),
            partial(np.multiply, below, scalar(self.scale * self.alpha, z), below),
            *against(np.maximum, z, 0, y),
            partial(np.multiply, y, scalar(self.scale, z), y),
            partial(np.add, y, below, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            *steep(z, y, slope, self.scale * self.alpha, self.scale, work),
            partial(np.multiply, dy, slope, dy),
        ]


class CELU(Activation):
    """y = z above 0, alpha·(e^(z / alpha) − 1) below (Barron 2017)."""

    name = "celu"

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = positive("celu(alpha=…)", alpha)
        self.name = self.full_name()

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        below, alpha = work.like(z), scalar(self.alpha, z)
        return [
            *against(np.minimum, z, 0, below),
            partial(np.divide, below, alpha, below),
            partial(np.expm1, below, below),
            partial(np.multiply, below, alpha, below),
            *against(np.maximum, z, 0, y),
            partial(np.add, y, below, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            *against(np.minimum, y, 0, slope),
            partial(np.divide, slope, scalar(self.alpha, y), slope),
            partial(np.add, slope, scalar(1, y), slope),
            partial(np.multiply, dy, slope, dy),
        ]

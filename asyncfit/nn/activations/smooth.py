"""Smooth functions of one exponential or root: tanh, sigmoid, softplus and their relatives."""

from __future__ import annotations

from functools import partial

import numpy as np

from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.blocks import against, cut, minus_size
from asyncfit.nn.naming import positive
from asyncfit.nn.workspace import Workspace

from .base import Activation, scalar

__all__ = [
    "Exponential",
    "LogSigmoid",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Squareplus",
    "Tanh",
    "TanhShrink",
    "sigmoid_calls",
]


class Tanh(Activation):
    """y = tanh z; y' = 1 − y²."""

    name = "tanh"

    def in_place(self) -> bool:
        return True

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return [partial(np.tanh, z, y)]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            partial(np.multiply, y, y, slope),
            partial(np.subtract, scalar(1, y), slope, slope),
            partial(np.multiply, dy, slope, dy),
        ]


def sigmoid_calls(z: Array, y: Array) -> list[Call]:
    """1 / (1 + e^−z), with −z cut where e^−z would leave the type's range."""
    return [
        partial(np.negative, z, y),
        *against(np.minimum, y, 87 if z.dtype == np.float32 else 700, y),
        partial(np.exp, y, y),
        partial(np.add, y, scalar(1, y), y),
        partial(np.reciprocal, y, y),
    ]


class Sigmoid(Activation):
    """y = 1 / (1 + e^−z); y' = y(1 − y)."""

    name = "sigmoid"

    def in_place(self) -> bool:
        return True

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return sigmoid_calls(z, y)

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            partial(np.subtract, scalar(1, y), y, slope),
            partial(np.multiply, slope, y, slope),
            partial(np.multiply, dy, slope, dy),
        ]


class Softplus(Activation):
    """y = log(1 + e^z) = max(z, 0) + log(1 + e^−|z|); y' = sigmoid z = e^(z − y)."""

    name = "softplus"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        rest = work.like(z)
        return [
            *minus_size(z, rest),
            partial(np.exp, rest, rest),
            partial(np.log1p, rest, rest),
            *against(np.maximum, z, 0, y),
            partial(np.add, y, rest, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            partial(np.subtract, z, y, slope),
            partial(np.exp, slope, slope),
            partial(np.multiply, dy, slope, dy),
        ]


class LogSigmoid(Activation):
    """y = log sigmoid z = min(z, 0) − log(1 + e^−|z|); y' = 1 − e^y."""

    name = "log_sigmoid"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        rest = work.like(z)
        return [
            *minus_size(z, rest),
            partial(np.exp, rest, rest),
            partial(np.log1p, rest, rest),
            *against(np.minimum, z, 0, y),
            partial(np.subtract, y, rest, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            partial(np.expm1, y, slope),
            partial(np.negative, slope, slope),
            partial(np.multiply, dy, slope, dy),
        ]


class Exponential(Activation):
    """y = e^z."""

    name = "exponential"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return [partial(np.exp, z, y)]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        return [partial(np.multiply, dy, y, dy)]


class Softsign(Activation):
    """y = z / (1 + |z|); y' = (1 − |y|)²."""

    name = "softsign"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return [
            partial(np.abs, z, y),
            partial(np.add, y, scalar(1, z), y),
            partial(np.divide, z, y, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            partial(np.abs, y, slope),
            partial(np.subtract, scalar(1, y), slope, slope),
            partial(np.multiply, slope, slope, slope),
            partial(np.multiply, dy, slope, dy),
        ]


class TanhShrink(Activation):
    """y = z − tanh z; y' = tanh² z."""

    name = "tanh_shrink"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return [partial(np.tanh, z, y), partial(np.subtract, z, y, y)]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            partial(np.subtract, z, y, slope),
            partial(np.multiply, slope, slope, slope),
            partial(np.multiply, dy, slope, dy),
        ]


class Squareplus(Activation):
    """y = (z + √(z² + b)) / 2; y' = (1 + z / √(z² + b)) / 2 (Barron 2021)."""

    name = "squareplus"

    def __init__(self, b: float = 4) -> None:
        self.b = positive("squareplus(b=…)", b)
        self.name = self.full_name()

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return [
            *self._root(z, y),
            partial(np.add, y, z, y),
            partial(np.multiply, y, scalar(0.5, z), y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope = work.like(dy)
        return [
            *self._root(z, slope),
            partial(np.divide, z, slope, slope),
            partial(np.add, slope, scalar(1, z), slope),
            partial(np.multiply, slope, scalar(0.5, z), slope),
            partial(np.multiply, dy, slope, dy),
        ]

    def _root(self, z: Array, out: Array) -> list[Call]:
        """√(z² + b); from 1e18 on z² would be no number of float32."""
        return [
            *cut(z, -1e18, 1e18, out),
            partial(np.multiply, out, out, out),
            partial(np.add, out, scalar(self.b, z), out),
            partial(np.sqrt, out, out),
        ]

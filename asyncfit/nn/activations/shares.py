"""Shares of one along an axis, and their logarithms: softmax, log_softmax, sparsemax."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from asyncfit.nn.arrays import Array, Call, Shape
from asyncfit.nn.naming import whole
from asyncfit.nn.workspace import Workspace

from .base import Activation, scalar

__all__ = ["LogSoftmax", "Softmax", "Sparsemax"]


class Softmax(Activation):
    """y = e^z / Σ e^z along `axis`, one or several; ∂loss/∂z = y·(dy − Σ dy·y)."""

    name = "softmax"
    elementwise = False

    def __init__(self, axis: int | Sequence[int] = -1) -> None:
        self.axis = axes_of("softmax", axis)
        self.name = self.full_name()

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        each, axis = work.take(kept(z.shape, self.axis)), self.axis
        return [
            partial(np.maximum.reduce, z, axis, out=each, keepdims=True),
            partial(np.subtract, z, each, y),
            partial(np.exp, y, y),
            partial(np.add.reduce, y, axis, out=each, keepdims=True),
            partial(np.divide, y, each, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        scratch, each = work.like(dy), work.take(kept(dy.shape, self.axis))
        return [
            partial(np.multiply, dy, y, scratch),
            partial(np.add.reduce, scratch, self.axis, out=each, keepdims=True),
            partial(np.subtract, dy, each, dy),
            partial(np.multiply, dy, y, dy),
        ]


class LogSoftmax(Activation):
    """y = z − log Σ e^z along `axis`, one or several; ∂loss/∂z = dy − e^y·Σ dy."""

    name = "log_softmax"
    elementwise = False

    def __init__(self, axis: int | Sequence[int] = -1) -> None:
        self.axis = axes_of("log_softmax", axis)
        self.name = self.full_name()

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        each, scratch, axis = work.take(kept(z.shape, self.axis)), work.like(z), self.axis
        return [
            partial(np.maximum.reduce, z, axis, out=each, keepdims=True),
            partial(np.subtract, z, each, y),
            partial(np.exp, y, scratch),
            partial(np.add.reduce, scratch, axis, out=each, keepdims=True),
            partial(np.log, each, each),
            partial(np.subtract, y, each, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        scratch, each = work.like(dy), work.take(kept(dy.shape, self.axis))
        return [
            partial(np.exp, y, scratch),
            partial(np.add.reduce, dy, self.axis, out=each, keepdims=True),
            partial(np.multiply, scratch, each, scratch),
            partial(np.subtract, dy, scratch, dy),
        ]


class Sparsemax(Activation):
    """y = max(z − τ, 0) along `axis`, τ such that Σ y = 1 (Martins & Astudillo 2016): the nearest probabilities to z.

    Keras 3.15.1 means the same, but adds up cumulative sums, so that its y does not add up to 1.
    Where y > 0, ∂loss/∂z = dy − mean of dy there; elsewhere 0.
    """

    name = "sparsemax"
    elementwise = False

    def __init__(self, axis: int = -1) -> None:
        self.axis = whole("sparsemax(axis=…)", axis, least=-32)
        self.name = self.full_name()

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        z, y = np.moveaxis(z, self.axis, -1), np.moveaxis(y, self.axis, -1)
        ordered, sums, counts = (work.take(z.shape) for _ in range(3))
        each, how_many = work.take((*z.shape[:-1], 1)), work.take((*z.shape[:-1], 1))
        rank, one = np.arange(1, z.shape[-1] + 1, dtype=z.dtype), scalar(1, z)
        return [
            partial(np.maximum.reduce, z, -1, out=each, keepdims=True),
            partial(np.subtract, z, each, y),
            partial(np.maximum, y, scalar(-1, z), out=y),  # what is 1 below the largest gets nothing
            partial(np.negative, y, ordered),
            partial(ordered.sort, -1),
            partial(np.negative, ordered, ordered),  # the largest first
            partial(np.cumsum, ordered, -1, None, sums),
            partial(np.multiply, ordered, rank, counts),
            partial(np.add, counts, one, counts),
            partial(np.greater, counts, sums, counts),  # 1 for those above τ
            partial(np.multiply, ordered, counts, ordered),
            partial(np.add.reduce, ordered, -1, out=each, keepdims=True),
            partial(np.subtract, each, one, each),
            partial(np.add.reduce, counts, -1, out=how_many, keepdims=True),
            partial(np.divide, each, how_many, each),
            partial(np.subtract, y, each, y),
            partial(np.maximum, y, scalar(0, z), out=y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        y, dy = np.moveaxis(y, self.axis, -1), np.moveaxis(dy, self.axis, -1)
        above, each, how_many = (work.take(size) for size in (y.shape, (*y.shape[:-1], 1), (*y.shape[:-1], 1)))
        return [
            partial(np.greater, y, scalar(0, y), above),
            partial(np.multiply, dy, above, dy),
            partial(np.add.reduce, dy, -1, out=each, keepdims=True),
            partial(np.add.reduce, above, -1, out=how_many, keepdims=True),
            partial(np.divide, each, how_many, each),
            partial(np.multiply, above, each, above),
            partial(np.subtract, dy, above, dy),
        ]


def axes_of(who: str, axis: object) -> int | tuple[int, ...]:
    if isinstance(axis, Sequence) and not isinstance(axis, str):
        return tuple(whole(f"{who}(axis=…)", one, least=-32) for one in axis)
    return whole(f"{who}(axis=…)", axis, least=-32)


def kept(shape: Shape, axis: int | tuple[int, ...]) -> Shape:
    """The shape with 1 along these axes."""
    along = {one % len(shape) for one in ((axis,) if isinstance(axis, int) else axis)}
    return tuple(1 if i in along else size for i, size in enumerate(shape))

"""Layers that work along some axes of a sample: their arrays as matrices whose rows hold what belongs together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from asyncfit.errors import InvalidInput

from .arrays import Array, Call, Shape
from .workspace import Place

__all__ = ["Rows", "axes_in"]


def axes_in(who: str, axis: int | Sequence[int], input_shape: Shape) -> tuple[int, ...]:
    """Axes of a batch in ascending order, the batch's own being 0 and refused; `who` names the layer."""
    rank = len(input_shape) + 1
    given = (axis,) if isinstance(axis, int) else tuple(axis)
    found = sorted({a % rank for a in given if -rank < a < rank and a})
    if not given or len(found) < len(given) or 0 in found:
        raise InvalidInput(
            f"{who} has axis={axis}, but samples have the shape {input_shape}, so axes go from 1 to {rank - 1}"
        )
    return tuple(found)


class Rows:
    """The arrays of a place as `(rows, numbers)`: along `axes` lie the numbers of a row, in the order of the axes.

    The last axes of what lies in C order are there already; others are copied, and the results back.

    Attributes:
        x, y, dy, dx: the matrices, of any layout; the last two None as in `Place`.
        load, store: calls before and after those of the forward pass; `load_back`, `store_back` of the backward pass.
    """

    def __init__(self, at: Place, axes: tuple[int, ...]) -> None:
        rank = at.x.ndim
        self._at, self._last = at, axes == tuple(range(rank - len(axes), rank))
        self._order = (*(i for i in range(rank) if i not in axes), *axes)
        self._length = math.prod(at.x.shape[axis] for axis in axes)
        self.load: list[Call] = []
        self.store: list[Call] = []
        self.load_back: list[Call] = []
        self.store_back: list[Call] = []
        self.x, self.y = self._matrix(at.x, self.load), self._matrix(at.y, self.store, back=True)
        self.dy = None if at.dy is None else self._matrix(at.dy, self.load_back)
        self.dx = None if at.dx is None else self._matrix(at.dx, self.store_back, back=True)

    def _matrix(self, array: Array, calls: list[Call], *, back: bool = False) -> Array:
        if self._last and array.ndim == 2:
            return array
        turned = array.transpose(self._order)
        if not turned.flags.c_contiguous:
            copy = self._at.take(turned.shape)
            calls.append(partial(np.copyto, turned, copy) if back else partial(np.copyto, copy, turned))
            turned = copy
        return turned.reshape(-1, self._length)

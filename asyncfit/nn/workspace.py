"""The memory of one execution, and the place in it that a layer is planned into.

Layers own no work buffers. Whoever runs a network (training, validation, each prediction) has a `Workspace`; a plan
takes its arrays from there once and binds them to calls, so that a batch allocates nothing. A later plan for fewer
rows takes the same memory again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .arrays import Array, Call, DType, Shape

if TYPE_CHECKING:
    from .streams import Dice

__all__ = ["Place", "Workspace", "is_planes", "joined", "planes"]


class Workspace:
    """Arrays by order of asking: the i-th `take` of each plan gets the i-th block of memory."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype
        self.current: object = None
        """The key of the plan that ran last; another one must first set again what it expects to be constant.

        Not the plan itself: the two would hold each other, and with them weights that somebody wants to be rid of.
        """
        self._blocks: list[Array] = []
        self._next = 0

    def restart(self) -> None:
        """A new plan begins."""
        self._next = 0

    def take(self, shape: Sequence[int], dtype: DType | type | None = None) -> Array:
        """An array in C order whose contents are whatever was there."""
        dtype = np.dtype(self.dtype if dtype is None else dtype)
        size = math.prod(shape)
        index, self._next = self._next, self._next + 1
        if index == len(self._blocks):
            self._blocks.append(np.empty(0, dtype))
        block = self._blocks[index]
        if block.dtype != dtype or block.size < size:  # plans made before keep the smaller block that they bound
            block = self._blocks[index] = np.empty(size, dtype)
        return block[:size].reshape(shape)

    def take_planes(self, rows: int, shape: Shape, dtype: DType | type | None = None) -> Array:
        """An array `(rows, *shape)` that lies as planes, see `planes`."""
        if len(shape) == 2:
            return self.take((shape[1], shape[0], rows), dtype).transpose(2, 1, 0)
        height, width, channels = shape
        return self.take((height, channels, width, rows), dtype).transpose(3, 0, 2, 1)

    def like(self, array: Array, dtype: DType | type | None = None) -> Array:
        """An array of the shape and memory layout of `array`, so that both are run through in step."""
        if array.ndim == 2 and array.strides[0] < array.strides[1]:
            return self.take(array.shape[::-1], dtype).T
        if is_planes(array):
            return self.take_planes(array.shape[0], array.shape[1:], dtype)
        return self.take(array.shape, dtype)


class Place:
    """Where a layer stands in a plan: its arrays, and the lists that it appends its calls to.

    All arrays have the batch first. Two-dimensional ones may lie transposed in memory; write with `out=` or `[...]`.

    Attributes:
        x: input, `(rows, *input_shape)`; it keeps its values until backward has run.
        ones: for a layer with `wants_ones`: `(rows, features + 1)`, that is `x` and a last column of ones; else None.
        y: output, `(rows, *output_shape)`, to be written by the forward calls.
        dy: gradient of the loss by `y`, or None where no gradient is asked for; backward calls may overwrite it.
        dx: to be written by the backward calls, or None when nobody before needs it.
        weights, grads: by weight name; `grads` (to be overwritten) lacks weights that are not trained.
        training: dropout drops, statistics are those of the batch.
        trainable: whether the layer was trainable when the model was built or compiled; a setting changed since does
            not count.
        mask: which steps of `x` count, `(rows, steps)` of bool, or None if all do.
        new_mask: for a layer with `makes_mask`: its own, to be written by the forward calls.
        enter: append calls that set what stays constant: they run before the first batch, and whenever another plan has
            used the memory since.
        index: number of the layer in the network, from 0.
    """

    def __init__(
        self,
        workspace: Workspace,
        dice: Dice,
        *,
        index: int,
        x: Array,
        ones: Array | None,
        y: Array,
        dy: Array | None,
        dx: Array | None,
        weights: dict[str, Array],
        grads: dict[str, Array],
        training: bool,
        trainable: bool = True,
        mask: Array | None = None,
        new_mask: Array | None = None,
    ) -> None:
        self.workspace, self.dice, self.index = workspace, dice, index
        self.x, self.ones, self.y, self.dy, self.dx = x, ones, y, dy, dx
        self.weights, self.grads, self.training = weights, grads, training
        self.trainable = trainable
        self.mask, self.new_mask = mask, new_mask
        self.enter: list[Call] = []
        self.forward: list[Call] = []
        self.backward: list[Call] = []

    def take(self, shape: Shape, dtype: DType | type | None = None) -> Array:
        """Scratch memory in C order."""
        return self.workspace.take(shape, dtype)

    def like(self, array: Array, dtype: DType | type | None = None) -> Array:
        """Scratch memory that lies as `array` does."""
        return self.workspace.like(array, dtype)


def planes(array: Array) -> Array:
    """Images `(rows, height, width, channels)` as `(height, channels, width, rows)`, sequences `(rows, steps,
    channels)` as `(1, channels, steps, rows)`; in the order of memory, if they lie as planes.
    """
    return array.transpose(1, 3, 2, 0) if array.ndim == 4 else array.transpose(2, 1, 0)[None]


def is_planes(array: Array) -> bool:
    """Whether images or sequences lie as planes, and not in C order."""
    return array.ndim in (3, 4) and planes(array).flags.c_contiguous and not array.flags.c_contiguous


def joined(upper: Array, lower: Array) -> Array:
    """Two weights that lie behind each other, `(n, units)` and `(units,)`, as the one matrix `(n + 1, units)`."""
    rows, units = upper.shape
    whole = np.lib.stride_tricks.as_strided(upper, (rows + 1, units), upper.strides)
    assert lower.shape == (units,)
    assert whole[-1].__array_interface__["data"] == lower.__array_interface__["data"], "they do not lie together"
    return whole

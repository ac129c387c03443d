"""Mean and variance of data that comes in parts, along any axes: as exact as if it came in one."""

from __future__ import annotations

import math

import numpy as np

from asyncfit.errors import InvalidInput

from .arrays import Array, Shape

__all__ = ["Moments"]


class Moments:
    """Mean and variance of each index along `kept` axes, over the batch and all other axes, in float64.

    Parts are joined as Chan, Golub and LeVeque do (1979), so nothing is lost where a mean is far from 0.

    Args:
        shape: of a sample, without the batch.
        kept: axes of a batch, from 1, in ascending order; none for a single mean.
    """

    def __init__(self, shape: Shape, kept: tuple[int, ...]) -> None:
        self.shape = shape
        self._over = tuple(axis for axis in range(len(shape) + 1) if axis not in kept)
        sizes = tuple(shape[axis - 1] for axis in kept)
        self.count = 0
        self.mean: Array = np.zeros(sizes)
        self._squares: Array = np.zeros(sizes)

    def add(self, batch: Array) -> None:
        """Count samples in.

        Raises:
            InvalidInput: they are of another shape than those before, or hold no real numbers.
        """
        if batch.shape[1:] != self.shape or not batch.ndim:
            raise InvalidInput(f"adapt got samples of shape {batch.shape[1:]} behind others of shape {self.shape}")
        if batch.dtype.kind not in "fiub":
            raise InvalidInput(f"adapt takes real numbers, not {batch.dtype}")
        number = math.prod(batch.shape[axis] for axis in self._over)
        if not number:
            return
        values = batch.astype(np.float64)
        mean = values.mean(self._over, keepdims=True)
        values -= mean
        np.square(values, values)
        squares, mean = values.sum(self._over), mean.reshape(self.mean.shape)
        apart, share = mean - self.mean, number / (self.count + number)
        self._squares = self._squares + squares + apart**2 * (self.count * share)
        self.mean = self.mean + apart * share
        self.count += number

    @property
    def variance(self) -> Array:
        """Of all values, not corrected for their number."""
        return self._squares / max(self.count, 1)

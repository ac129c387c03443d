"""AveragePooling1D and AveragePooling2D: the mean of each window."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from asyncfit.nn.arrays import Array, DType
from asyncfit.nn.windows import Window
from asyncfit.nn.workspace import Place, planes

from .max_pooling import Pooling, taps_of
from .spatial import Sizes

__all__ = ["AveragePooling1D", "AveragePooling2D"]


class AveragePooling(Pooling):
    """The mean of each window, `pool_size` wide, `strides` apart (default: `pool_size`).

    padding "valid" keeps windows inside; "same" gives ⌈size / strides⌉ outputs, and means are over the elements
    that are there.
    """

    def __init__(
        self,
        pool_size: Sizes,
        strides: Sizes | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(
            pool_size, strides, padding, data_format, name=name, input_shape=input_shape, trainable=trainable
        )

    def plan(self, at: Place) -> None:
        x, y = planes(at.x), planes(at.y)
        assert self.input_shape is not None
        high, wide = self.windows_over(self.input_shape)
        share = shares(high, wide, y.dtype)
        taps = taps_of(high, wide, x, y)
        if taps[0][0].shape != y.shape:
            at.forward.append(partial(y.fill, 0))
        at.forward.append(partial(np.copyto, taps[0][0], taps[0][1]))
        at.forward += [partial(np.add, total, seen, total) for total, seen, _ in taps[1:]]
        at.forward.append(partial(np.multiply, y, share, y))
        if at.dx is None:
            return
        assert at.dy is not None
        dx, dy = planes(at.dx), planes(at.dy)
        at.backward.append(partial(np.multiply, dy, share, dy))
        given = taps_of(high, wide, dx, dy)
        overlap = high.stride < high.taps or wide.stride < wide.taps
        if overlap or x.size > sum(seen.size for _, seen, _ in given):
            at.backward.append(partial(dx.fill, 0))
        for from_, seen, _ in given:
            at.backward.append(partial(np.add, seen, from_, seen) if overlap else partial(np.copyto, seen, from_))


class AveragePooling1D(AveragePooling):
    __doc__ = AveragePooling.__doc__
    rank = 1


class AveragePooling2D(AveragePooling):
    __doc__ = AveragePooling.__doc__
    rank = 2


def shares(high: Window, wide: Window, dtype: DType) -> Array:
    """1 / the number of elements in each window, `(height, 1, width, 1)`."""
    counts = []
    for w in (high, wide):
        count = np.zeros(w.count)
        for tap in range(w.taps):
            count[w.seen(tap)[0]] += 1
        counts.append(count)
    return (1 / (counts[0][:, None, None, None] * counts[1][:, None])).astype(dtype)

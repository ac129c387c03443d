"""GlobalAveragePooling and GlobalMaxPooling: one number for each channel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.workspace import Place, planes

from .spatial import Spatial

__all__ = ["GlobalAveragePooling1D", "GlobalAveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D"]


class GlobalPooling(Spatial):
    """What the four share; with `keepdims` the other axes stay, of length 1."""

    def __init__(
        self,
        data_format: str | None = None,
        keepdims: bool = False,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(data_format, name=name, input_shape=input_shape, trainable=trainable)
        self.keepdims = bool(keepdims)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        self.check_rank(input_shape)
        return (*(1,) * self.rank, input_shape[-1]) if self.keepdims else input_shape[-1:]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"keepdims": self.keepdims}

    def by_channel(self, array: Array) -> Array:
        """The output or its gradient as `(channels, rows)`."""
        return planes(array)[0, :, 0] if self.keepdims else array.T


class GlobalAveragePooling(GlobalPooling):
    """The mean over all pixels, or steps: `(…, channels)` → `(channels,)`. Masked steps do not count."""

    def plan(self, at: Place) -> None:
        x, y = planes(at.x), self.by_channel(at.y)
        total = at.take(y.shape)
        if at.mask is None:
            share = np.array(1 / (x.shape[0] * x.shape[2]), x.dtype)
            at.forward += [partial(np.add.reduce, x, (0, 2), None, total), partial(np.multiply, total, share, y)]
        else:
            weights = at.take(at.mask.shape[::-1])  # (steps, rows)
            counted, shares = at.take(x.shape[1:]), at.take(y.shape[1:])
            at.forward += [
                partial(np.copyto, weights, at.mask.T),
                partial(np.add.reduce, weights, 0, None, shares),
                partial(np.divide, weights, shares, weights),
                partial(np.multiply, x[0], weights, counted),
                partial(np.add.reduce, counted, 1, None, total),
                partial(np.copyto, y, total),
            ]
        if at.dx is None:
            return
        assert at.dy is not None
        dx, dy = planes(at.dx), self.by_channel(at.dy)
        scale = share if at.mask is None else weights
        at.backward.append(partial(np.copyto, total, dy))
        at.backward.append(partial(np.multiply, total[:, None], scale, dx))


class GlobalAveragePooling1D(GlobalAveragePooling):
    __doc__ = GlobalAveragePooling.__doc__
    rank = 1
    ends_mask = True


class GlobalAveragePooling2D(GlobalAveragePooling):
    __doc__ = GlobalAveragePooling.__doc__
    rank = 2


class GlobalMaxPooling(GlobalPooling):
    """The greatest of all pixels, or steps: `(…, channels)` → `(channels,)`. Equal ones share the gradient."""

    def plan(self, at: Place) -> None:
        x, y = planes(at.x), self.by_channel(at.y)
        most = at.take(y.shape)
        at.forward += [partial(np.maximum.reduce, x, (0, 2), None, most), partial(np.copyto, y, most)]
        if at.dx is None:
            return
        assert at.dy is not None
        dx, dy = planes(at.dx), self.by_channel(at.dy)
        count = at.take(y.shape)
        at.backward += [
            partial(np.equal, x, most[:, None], dx),
            partial(np.add.reduce, dx, (0, 2), None, count),
            partial(np.divide, dy, count, count),
            partial(np.multiply, dx, count[:, None], dx),
        ]


class GlobalMaxPooling1D(GlobalMaxPooling):
    __doc__ = GlobalMaxPooling.__doc__
    rank = 1


class GlobalMaxPooling2D(GlobalMaxPooling):
    __doc__ = GlobalMaxPooling.__doc__
    rank = 2

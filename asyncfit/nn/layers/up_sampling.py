"""UpSampling1D and UpSampling2D: each step or pixel several times, or straight lines between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, DType, Shape
from asyncfit.nn.naming import whole
from asyncfit.nn.workspace import Place, planes

from .spatial import Sizes, Spatial, sizes

__all__ = ["UpSampling1D", "UpSampling2D"]


class UpSampling(Spatial):
    """What the two share."""

    size: Shape
    interpolation = "nearest"

    def output_shape_for(self, input_shape: Shape) -> Shape:
        self.check_rank(input_shape)
        return (*(n * size for n, size in zip(input_shape[:-1], self.size, strict=True)), input_shape[-1])

    def plan(self, at: Place) -> None:
        x, y = planes(at.x), planes(at.y)
        dx, dy = (None, None) if at.dx is None or at.dy is None else (planes(at.dx), planes(at.dy))
        high, wide = self.size if self.rank == 2 else (1, *self.size)
        if self.interpolation == "bilinear":
            self._between(at, x, y, dx, dy, high, wide)
            return
        height, channels, width, rows = x.shape
        several = height, high, channels, width, wide, rows
        at.forward.append(partial(np.copyto, y.reshape(several), x[:, None, :, :, None]))
        if dx is not None and dy is not None:
            at.backward.append(partial(np.add.reduce, dy.reshape(several), (1, 4), None, dx))

    def _between(self, at: Place, x: Array, y: Array, dx: Array | None, dy: Array | None, high: int, wide: int) -> None:
        height, channels, width, rows = x.shape
        lines, columns = between(height, high, x.dtype), between(width, wide, x.dtype)
        wider = at.take((height, channels, width * wide, rows))
        flat = wider.reshape(height, -1)
        at.forward += [
            partial(np.matmul, columns, x, wider),
            partial(np.dot, lines, flat, y.reshape(height * high, -1)),
        ]
        if dx is not None and dy is not None:
            at.backward += [
                partial(np.dot, lines.T, dy.reshape(height * high, -1), flat),
                partial(np.matmul, columns.T, wider, dx),
            ]


class UpSampling1D(UpSampling):
    """Each step `size` times: `(steps, channels)` → `(steps · size, channels)`."""

    rank = 1

    def __init__(
        self,
        size: int = 2,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(None, name=name, input_shape=input_shape, trainable=trainable)
        self.size = (whole("UpSampling1D(size=…)", size, least=1),)

    def get_config(self) -> dict[str, Any]:
        found = super().get_config() | {"size": self.size[0]}
        del found["data_format"]
        return found


class UpSampling2D(UpSampling):
    """Each pixel `size` times high and wide: `(height, width, channels)` → `(height · s, width · t, channels)`.

    interpolation "nearest" repeats pixels; "bilinear" draws straight lines between their centres, and is flat outside
    of the outermost centres.
    """

    rank = 2
    off_options: ClassVar[Mapping[str, object]] = {}

    def __init__(
        self,
        size: Sizes = 2,
        data_format: str | None = None,
        interpolation: str = "nearest",
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(data_format, name=name, input_shape=input_shape, trainable=trainable)
        self.size = sizes("UpSampling2D(size=…)", size, 2)
        interpolation = str(interpolation).lower()
        if interpolation not in ("nearest", "bilinear"):
            raise InvalidInput(
                f"UpSampling2D(interpolation=…) must be 'nearest' or 'bilinear', not {interpolation!r}: the others of "
                "Keras are not supported"
            )
        self.interpolation = interpolation

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"size": list(self.size), "interpolation": self.interpolation}


def between(size: int, factor: int, dtype: DType) -> Array:
    """The matrix `(size · factor, size)` of linear interpolation between centres of pixels."""
    centres = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    lower = np.minimum(centres.astype(int), size - 1)
    upper, share = np.minimum(lower + 1, size - 1), centres - lower
    found = np.zeros((size * factor, size))
    every = np.arange(size * factor)
    np.add.at(found, (every, lower), 1 - share)
    np.add.at(found, (every, upper), share)
    return found.astype(dtype)

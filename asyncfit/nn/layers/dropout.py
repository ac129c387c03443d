"""Dropout: while training, inputs are zero with probability `rate`, and the others are scaled up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.channels import most
from asyncfit.nn.streams import DROPOUT
from asyncfit.nn.workspace import Place

from .random import Random, in_a_line
from .spatial import check_data_format

__all__ = ["Dropout", "SpatialDropout1D", "SpatialDropout2D", "noise_in", "noise_of"]

NoiseShape = Sequence[int | None] | None


class Dropout(Random):
    """y = x·m / (1 − rate), m = 0 with probability `rate`, else 1; y = x outside training (Srivastava et al. 2014).

    The mask is a function of the run's seed, the fit, the layer, the epoch and the step. A `seed` of its own selects
    another stream for this layer.

    Args:
        noise_shape: the shape of m, batch included, None where it is that of x: along axes of length 1 all is dropped,
            or nothing. `(None, 1, None)` drops features of sequences.
    """

    def __init__(
        self,
        rate: float,
        noise_shape: NoiseShape = None,
        seed: int | None = None,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__("rate", rate, seed, name=name, input_shape=input_shape, trainable=trainable)
        self.rate = self._strength
        self.noise_shape = noise_of(type(self).__name__, noise_shape)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        noise_in(self, self.noise_shape, (None, *input_shape))
        return input_shape

    def plan(self, at: Place) -> None:
        x, y, dice, place = at.x, at.y, at.dice, self.stream(at)
        shape = noise_in(self, self.noise_shape, x.shape)
        mask = at.like(x) if shape == x.shape else at.take(shape)
        rolled = at.like(mask)
        drawn, rate, kind = in_a_line(rolled), np.array(self.rate, x.dtype), x.dtype.type
        scale = np.array(0.0 if self.rate == 1.0 else 1.0 / (1.0 - self.rate), x.dtype)
        arrays = [x, y] if at.dx is None or at.dy is None else [x, y, at.dy, at.dx]
        tile, tiles, (x, y, *back) = wide(at, mask, arrays)

        def forward() -> None:
            dice.at(DROPOUT, place).random(None, kind, drawn)
            np.greater_equal(rolled, rate, mask)
            np.multiply(mask, scale, mask)
            if tiles is not None:
                np.copyto(tiles, mask)
            np.multiply(x, tile, y)

        at.forward.append(forward)
        if back:
            dy, dx = back
            at.backward.append(lambda: np.multiply(dy, tile, dx))

    def get_config(self) -> dict[str, Any]:
        noise = None if self.noise_shape is None else list(self.noise_shape)
        return super().get_config() | {"rate": self.rate, "noise_shape": noise, "seed": self.seed}


class SpatialDropout(Dropout):
    """What the two below share: channels are dropped whole."""

    axes: ClassVar[int]
    off_options: ClassVar[Mapping[str, object]] = {"activity_regularizer": None, "noise_shape": None}

    def __init__(
        self,
        rate: float,
        seed: int | None = None,
        name: str | None = None,
        *,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        noise = (None, *(1,) * self.axes, None)
        super().__init__(rate, noise, seed, name=name, input_shape=input_shape, trainable=trainable)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        if len(input_shape) != self.axes + 1:
            kind = "(steps, channels)" if self.axes == 1 else "(height, width, channels)"
            raise InvalidInput(
                f"{type(self).__name__} {self.name!r} takes samples of shape {kind}, but they have {input_shape}"
            )
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": "float32", "rate": self.rate, "seed": self.seed}  # all that Keras 3 takes


class SpatialDropout1D(SpatialDropout):
    """Dropout of whole channels of sequences `(steps, channels)`: y = x·m / (1 − rate), one m for all steps."""

    axes = 1


class SpatialDropout2D(SpatialDropout):
    """Dropout of whole channels of images `(height, width, channels)`: y = x·m / (1 − rate), one m for all pixels
    (Tompson et al. 2015).
    """

    axes = 2

    def __init__(
        self,
        rate: float,
        data_format: str | None = None,
        seed: int | None = None,
        name: str | None = None,
        *,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        check_data_format(type(self).__name__, data_format)
        super().__init__(rate, seed, name, input_shape=input_shape, trainable=trainable)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"data_format": "channels_last"}


def noise_of(who: str, given: NoiseShape) -> tuple[int | None, ...] | None:
    """A noise shape as it is kept."""
    if given is None:
        return None
    sizes: Any = given
    if not isinstance(sizes, list | tuple) or not all(
        s is None or (isinstance(s, int | np.integer) and not isinstance(s, bool) and s > 0) for s in sizes
    ):
        raise InvalidInput(
            f"{who}(noise_shape=…) is a shape with the batch, each size from 1 or None, as in (None, 1, None), "
            f"not {given!r}"
        )
    return tuple(None if size is None else int(size) for size in sizes)


def noise_in(layer: Random, noise: tuple[int | None, ...] | None, shape: tuple[int | None, ...]) -> Any:
    """The shape of the noise for inputs of this shape, whose first size may not be known yet."""
    if noise is None:
        return shape
    found = tuple(b if a is None else a for a, b in zip(noise, shape, strict=False))
    if len(noise) != len(shape) or not all(a in (1, b) or b is None for a, b in zip(found, shape, strict=True)):
        raise InvalidInput(
            f"{type(layer).__name__} {layer.name!r} has noise_shape={noise}, which does not fit batches of shape "
            f"{shape}; say None where it is that of the batch"
        )
    return found


def wide(at: Place, mask: Array, arrays: list[Array]) -> tuple[Array, Array | None, list[Array]]:
    """The mask and the arrays as they are multiplied: one factor for each short channel, repeated for several places,
    so that inner loops are long. Also what the mask is copied into before, if it is repeated.
    """
    x = arrays[0]
    rows, channels = x.shape[0], x.shape[-1]
    spatial = x.ndim > 2 and mask.shape == (rows, *(1,) * (x.ndim - 2), channels)
    if not spatial or channels > 512 or not all(a.flags.c_contiguous for a in arrays):
        return mask, None, arrays
    places = math.prod(x.shape[1:-1])
    fold = most(places, 2048 // channels)
    tile = at.take((rows, 1, fold * channels))
    tiles = tile.reshape(rows, *(1,) * (x.ndim - 3), fold, channels)
    return tile, tiles, [a.reshape(rows, places // fold, fold * channels) for a in arrays]

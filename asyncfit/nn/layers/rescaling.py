"""Rescaling: y = x · scale + offset."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.blocks import blocks
from asyncfit.nn.workspace import Place

from .base import Layer

__all__ = ["Rescaling"]

Numbers: TypeAlias = "float | Sequence[Any] | Array"


def numbers(where: str, given: object) -> Array:
    """A number, or nested lists of them, in float64."""
    try:
        found = np.asarray(given)
    except ValueError:
        found = np.asarray(None)
    if found.dtype.kind not in "fiu" or not np.isfinite(found).all():
        raise InvalidInput(f"{where} takes a finite number or an array of them, not {given!r}")
    return found.astype(np.float64)


class Rescaling(Layer):
    """y = x · scale + offset, in training and without; of any shape.

    Args:
        scale: a number, such as 1 / 255 for images, or an array that fits the last axes of a sample, such as one
            number for each channel.
        offset: the same.
    """

    supports_masking = True

    def __init__(
        self,
        scale: Numbers,
        offset: Numbers = 0.0,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        self.scale = numbers("Rescaling(scale=…)", scale)
        self.offset = numbers("Rescaling(offset=…)", offset)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        for what, array in (("scale", self.scale), ("offset", self.offset)):
            fits = array.ndim <= len(input_shape)
            if not fits or any(a not in (1, b) for a, b in zip(array.shape[::-1], input_shape[::-1], strict=False)):
                raise InvalidInput(
                    f"Rescaling {self.name!r} has a {what} of shape {array.shape}, which does not fit samples of "
                    f"shape {input_shape}"
                )
        return input_shape

    def plan(self, at: Place) -> None:
        scale, offset = self.scale.astype(at.x.dtype), self.offset.astype(at.x.dtype)
        for x, y in blocks(at.x, at.y):
            at.forward.append(partial(np.multiply, x, scale, y))
            if self.offset.any():
                at.forward.append(partial(np.add, y, offset, y))
        if at.dx is not None:
            assert at.dy is not None
            at.backward.append(partial(np.multiply, at.dy, scale, at.dx))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"scale": self.scale.tolist(), "offset": self.offset.tolist()}

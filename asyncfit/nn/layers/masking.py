"""Masking: steps of which all features have one value do not count."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncfit.nn.arrays import Shape
from asyncfit.nn.naming import number
from asyncfit.nn.workspace import Place

from .base import Layer

__all__ = ["Masking"]


class Masking(Layer):
    """y = x, with zeros at the steps `(…, features)` of which all features are `mask_value`; layers behind skip those.

    Recurrent layers keep their state over steps left out. If the mask reaches the output, the loss and the metrics
    leave such steps out, too.
    """

    makes_mask = True

    def __init__(
        self,
        mask_value: float = 0.0,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        self.mask_value = number("Masking(mask_value=…)", mask_value)

    def mask_shape_for(self, input_shape: Shape) -> Shape:
        return input_shape[:-1]

    def plan(self, at: Place) -> None:
        mask, other = at.new_mask, at.like(at.x, bool)
        assert mask is not None
        value, there = np.array(self.mask_value, at.x.dtype), mask[..., None]
        at.forward += [
            partial(np.not_equal, at.x, value, other),
            partial(np.logical_or.reduce, other, -1, None, mask),
            partial(at.y.fill, 0),
            partial(np.copyto, at.y, at.x, where=there),
        ]
        if at.dx is not None:
            assert at.dy is not None
            at.backward.append(partial(np.multiply, at.dy, there, at.dx))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"mask_value": self.mask_value}

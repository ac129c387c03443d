"""Flatten: all axes of a sample become one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from asyncfit.nn.arrays import Shape

from .base import Layer

__all__ = ["Flatten"]


class Flatten(Layer):
    """`(a, b, c)` → `(a·b·c,)`, the last axis fastest. It costs nothing: the output is another view of the input."""

    off_options: ClassVar[Mapping[str, object]] = {"data_format": "channels_last"}

    def output_shape_for(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def passes(self, training: bool) -> bool:
        return True

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"data_format": "channels_last"}

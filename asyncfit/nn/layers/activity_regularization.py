"""ActivityRegularization: a penalty on what comes through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncfit.nn.arrays import Shape
from asyncfit.nn.regularizers import L1L2

from .base import Layer

__all__ = ["ActivityRegularization"]


class ActivityRegularization(Layer):
    """y = x, of any shape; l1·Σ|y| + l2·Σy², divided by the number of rows, counts in the loss.

    On other layers: `activity_regularizer=`.
    """

    supports_masking = True

    def __init__(
        self,
        l1: float = 0.0,
        l2: float = 0.0,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        penalty = L1L2(l1, l2)
        super().__init__(name=name, input_shape=input_shape, trainable=trainable, activity_regularizer=penalty)
        self.l1, self.l2 = penalty.l1, penalty.l2

    def output_shape_for(self, input_shape: Shape) -> Shape:
        return input_shape

    def passes(self, training: bool) -> bool:
        return True

    def get_config(self) -> dict[str, Any]:
        found = super().get_config() | {"l1": self.l1, "l2": self.l2}
        del found["activity_regularizer"]  # it is made of the two
        return found

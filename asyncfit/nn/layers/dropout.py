"""Dropout: while training, each input is zero with probability `rate`, and the others are scaled up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.naming import number, whole
from asyncfit.nn.streams import DROPOUT
from asyncfit.nn.workspace import Place

from .base import Layer

__all__ = ["Dropout"]


class Dropout(Layer):
    """y = x·m / (1 − rate), m = 0 with probability `rate`, else 1; y = x outside training (Srivastava et al. 2014).

    The mask is a function of the run's seed, the fit, the layer, the epoch and the step. A `seed` of its own selects
    another stream for this layer.
    """

    supports_masking = True

    off_options: ClassVar[Mapping[str, object]] = {"noise_shape": None, "activity_regularizer": None}

    def __init__(
        self,
        rate: float,
        *,
        seed: int | None = None,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        self.rate = number("Dropout(rate=…)", rate, least=0.0)
        if self.rate > 1.0:
            raise InvalidInput(f"Dropout(rate=…) is the share of inputs to drop, from 0 to 1, not {rate!r}")
        self.seed = None if seed is None else whole("Dropout(seed=…)", seed, least=0)

    def is_random(self) -> bool:
        return self.rate > 0.0

    def passes(self, training: bool) -> bool:
        return not training or self.rate == 0.0

    def plan(self, at: Place) -> None:
        x, y, dice = at.x, at.y, at.dice
        mask, drawn = at.like(x), at.take((x.size,))
        rolled = drawn.reshape(x.T.shape).T if x.ndim == 2 and not x.flags.c_contiguous else drawn.reshape(x.shape)
        rate, kind = np.array(self.rate, x.dtype), x.dtype.type
        scale = np.array(0.0 if self.rate == 1.0 else 1.0 / (1.0 - self.rate), x.dtype)
        place = at.index if self.seed is None else at.index ^ (self.seed * 0x9E3779B1 + 1 & 0xFFFFFFFF)

        def forward() -> None:
            dice.at(DROPOUT, place).random(None, kind, drawn)
            np.greater_equal(rolled, rate, mask)
            np.multiply(mask, scale, mask)
            np.multiply(x, mask, y)

        at.forward.append(forward)
        if at.dx is not None:
            dy, dx = at.dy, at.dx
            assert dy is not None
            at.backward.append(lambda: np.multiply(dy, mask, dx))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rate": self.rate, "noise_shape": None, "seed": self.seed}

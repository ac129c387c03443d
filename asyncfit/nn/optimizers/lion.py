"""Lion: steps of one size, in the direction of the sign."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Unpack

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.blas import add_scaled, blend
from asyncfit.nn.naming import number
from asyncfit.nn.schedules import LearningRateSchedule

from .base import Optimizer
from .options import Options

__all__ = ["Lion"]


class Lion(Optimizer):
    """w ← w − η sign(β₁m + (1 − β₁)g); m ← β₂m + (1 − β₂)g.

    Chen et al. 2023. The keywords that all optimizers share are described at `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = number("Lion(beta_1=…)", beta_1, least=0.0)
        if not 0.0 < self.beta_1 <= 1.0:
            raise InvalidInput(f"Lion(beta_1=…) must be above 0 and at most 1, not {beta_1!r}")
        self.beta_2 = number("Lion(beta_2=…)", beta_2, least=0.0, below=1.0)

    @property
    def slot_groups(self) -> tuple[tuple[str, ...], ...]:
        return (("momentum",),)

    def calls(self, w: Array, g: Array, slots: Mapping[str, Array], take: Callable[[], Array]) -> list[Call]:
        m, s, other = slots["momentum"], take(), take()
        keep, share = np.array(self.beta_1, w.dtype), np.array(1 - self.beta_1, w.dtype)
        return [
            partial(np.multiply, m, keep, s),
            *add_scaled(s, share, g, other),
            partial(np.sign, s, s),
            *add_scaled(w, self._descent, s, s),
            *blend(m, self.beta_2, g, 1 - self.beta_2, s),
        ]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"beta_1": self.beta_1, "beta_2": self.beta_2}

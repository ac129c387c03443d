"""Adamax: Adam with the largest gradient in the place of the mean square."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Unpack

import numpy as np

from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.blas import add_scaled, blend
from asyncfit.nn.naming import number
from asyncfit.nn.schedules import LearningRateSchedule

from .base import Optimizer
from .options import Options

__all__ = ["Adamax"]


class Adamax(Optimizer):
    """m ← β₁m + (1 − β₁)g; u ← max(β₂u, |g|); w ← w − η/(1 − β₁ᵗ) · m/(u + ε).

    Kingma & Ba 2014, section 7. The keywords that all optimizers share are described at `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta_1 = number("Adamax(beta_1=…)", beta_1, least=0.0, below=1.0)
        self.beta_2 = number("Adamax(beta_2=…)", beta_2, least=0.0, below=1.0)
        self.epsilon = number("Adamax(epsilon=…)", epsilon, least=0.0)
        self._step: Array = np.zeros((), np.float32)  # −η/(1 − β₁ᵗ)

    @property
    def slot_groups(self) -> tuple[tuple[str, ...], ...]:
        return (("momentum", "norm"),)

    def before(self) -> None:
        single = np.float32
        self._step[()] = -(self._rate / (single(1) - single(self.beta_1) ** single(self.iterations + 1)))

    def calls(self, w: Array, g: Array, slots: Mapping[str, Array], take: Callable[[], Array]) -> list[Call]:
        m, u, s = slots["momentum"], slots["norm"], take()
        keep, epsilon = np.array(self.beta_2, w.dtype), np.array(self.epsilon, w.dtype)
        return [
            *blend(m, self.beta_1, g, 1 - self.beta_1, s),
            partial(np.multiply, u, keep, u),
            partial(np.abs, g, s),
            partial(np.maximum, u, s, out=u),
            partial(np.add, u, epsilon, s),
            partial(np.divide, m, s, s),
            *add_scaled(w, self._step, s, s),
        ]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}

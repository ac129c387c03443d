"""Nadam: Adam with Nesterov's momentum."""

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

__all__ = ["Nadam"]


class Nadam(Optimizer):
    """Adam whose step looks ahead: m̂ = μₜ₊₁m/(1 − Πμ…μₜ₊₁) + (1 − μₜ)g/(1 − Πμ…μₜ), μₜ = β₁(1 − 0.96ᵗ/2).

    m ← β₁m + (1 − β₁)g; v ← β₂v + (1 − β₂)g²; w ← w − η m̂/(√(v/(1 − β₂ᵗ)) + ε). Dozat 2015. The product of the μ so far
    is state: `u_product`. The keywords that all optimizers share are described at `Optimizer`.
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
        self.beta_1 = number("Nadam(beta_1=…)", beta_1, least=0.0, below=1.0)
        self.beta_2 = number("Nadam(beta_2=…)", beta_2, least=0.0, below=1.0)
        self.epsilon = number("Nadam(epsilon=…)", epsilon, least=0.0)
        self._ahead, self._now, self._correction = (np.zeros((), np.float32) for _ in range(3))

    @property
    def slot_groups(self) -> tuple[tuple[str, ...], ...]:
        return (("momentum", "velocity"),)

    def start(self, size: int, dtype: np.dtype[Any]) -> None:
        super().start(size, dtype)
        self.scalars = {"u_product": np.ones((), np.float32)}

    def before(self) -> None:
        single, t = np.float32, np.float32(self.iterations + 1)
        mu, following = (
            single(self.beta_1) * (single(1) - single(0.5) * single(0.96) ** at) for at in (t, t + single(1))
        )
        product = self.scalars["u_product"]
        product *= mu
        self._ahead[()] = -self._rate * (following / (single(1) - product * following))
        self._now[()] = -self._rate * ((single(1) - mu) / (single(1) - product))
        self._correction[()] = single(1) / (single(1) - single(self.beta_2) ** t)

    def calls(self, w: Array, g: Array, slots: Mapping[str, Array], take: Callable[[], Array]) -> list[Call]:
        m, v, s, step = slots["momentum"], slots["velocity"], take(), take()
        epsilon = np.array(self.epsilon, w.dtype)
        return [
            *blend(m, self.beta_1, g, 1 - self.beta_1, s),
            partial(np.multiply, g, g, s),
            *blend(v, self.beta_2, s, 1 - self.beta_2, s),
            partial(np.multiply, v, self._correction, s),
            partial(np.sqrt, s, s),
            partial(np.add, s, epsilon, s),
            partial(np.multiply, m, self._ahead, step),
            *add_scaled(step, self._now, g, take()),
            partial(np.divide, step, s, s),
            partial(np.add, w, s, w),
        ]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}

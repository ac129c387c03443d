"""Adadelta: steps in the size of the steps before them."""

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

__all__ = ["Adadelta"]


class Adadelta(Optimizer):
    """a ← ρa + (1 − ρ)g²; δ = g √(d + ε)/√(a + ε); d ← ρd + (1 − ρ)δ²; w ← w − ηδ.

    Zeiler 2012, where η is 1; Keras's default, which this is, is 0.001. The keywords that all optimizers share are
    described at `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-7,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.rho = number("Adadelta(rho=…)", rho, least=0.0, below=1.0)
        self.epsilon = number("Adadelta(epsilon=…)", epsilon, least=0.0)

    @property
    def slot_groups(self) -> tuple[tuple[str, ...], ...]:
        return (("accumulated_grad", "accumulated_delta_var"),)

    def calls(self, w: Array, g: Array, slots: Mapping[str, Array], take: Callable[[], Array]) -> list[Call]:
        a, d, s, root = slots["accumulated_grad"], slots["accumulated_delta_var"], take(), take()
        epsilon = np.array(self.epsilon, w.dtype)
        return [
            partial(np.multiply, g, g, s),
            *blend(a, self.rho, s, 1 - self.rho, s),
            partial(np.add, a, epsilon, root),
            partial(np.sqrt, root, root),
            partial(np.add, d, epsilon, s),
            partial(np.sqrt, s, s),
            partial(np.multiply, s, g, s),
            partial(np.divide, s, root, s),
            *add_scaled(w, self._descent, s, root),
            partial(np.multiply, s, s, s),
            *blend(d, self.rho, s, 1 - self.rho, s),
        ]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"rho": self.rho, "epsilon": self.epsilon}

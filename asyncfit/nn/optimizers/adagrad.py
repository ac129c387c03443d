"""Adagrad: gradients divided by the root of the sum of all their squares so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Unpack

import numpy as np

from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.blas import add_scaled
from asyncfit.nn.naming import number
from asyncfit.nn.schedules import LearningRateSchedule

from .base import Optimizer
from .options import Options

__all__ = ["Adagrad"]


class Adagrad(Optimizer):
    """a ← a + g², from `initial_accumulator_value`; w ← w − ηg/√(a + ε).

    Duchi et al. 2011. The keywords that all optimizers share are described at `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.initial_accumulator_value = number(
            "Adagrad(initial_accumulator_value=…)", initial_accumulator_value, least=0.0
        )
        self.epsilon = number("Adagrad(epsilon=…)", epsilon, least=0.0)

    @property
    def slot_groups(self) -> tuple[tuple[str, ...], ...]:
        return (("accumulator",),)

    def initial(self, slot: str) -> float:
        return self.initial_accumulator_value if slot == "accumulator" else super().initial(slot)

    def calls(self, w: Array, g: Array, slots: Mapping[str, Array], take: Callable[[], Array]) -> list[Call]:
        a, s, epsilon = slots["accumulator"], take(), np.array(self.epsilon, w.dtype)
        return [
            partial(np.multiply, g, g, s),
            partial(np.add, a, s, a),
            partial(np.add, a, epsilon, s),
            partial(np.sqrt, s, s),
            partial(np.divide, g, s, s),
            *add_scaled(w, self._descent, s, s),
        ]

    def get_config(self) -> dict[str, Any]:
        own = {"initial_accumulator_value": self.initial_accumulator_value, "epsilon": self.epsilon}
        return super().get_config() | own

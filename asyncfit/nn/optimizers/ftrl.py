"""Ftrl: follow the regularized leader, for large and sparse linear models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Unpack

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.naming import number, positive
from asyncfit.nn.schedules import LearningRateSchedule

from .base import Optimizer
from .options import Options

__all__ = ["Ftrl"]


class Ftrl(Optimizer):
    """n' = n + g²; z ← z + g + 2λ₃w − (n'⁻ᵖ − n⁻ᵖ)w/η; w ← (clip(z, ±λ₁) − z)/(n'⁻ᵖ/η + 2λ₂ + β/η); n ← n'.

    McMahan et al. 2013, as Keras computes it: p is `learning_rate_power`, n begins at `initial_accumulator_value`, λ₁,
    λ₂ and λ₃ are the strengths of L1, L2 and L2 shrinkage. Weights that the L1 term outweighs are exactly 0. The
    keywords that all optimizers share are described at `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float = 0.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.learning_rate_power = number("Ftrl(learning_rate_power=…)", learning_rate_power)
        if self.learning_rate_power > 0:
            raise InvalidInput(f"Ftrl(learning_rate_power=…) must be at most 0, not {learning_rate_power!r}")
        named = {
            "initial_accumulator_value": initial_accumulator_value,
            "l1_regularization_strength": l1_regularization_strength,
            "l2_regularization_strength": l2_regularization_strength,
            "l2_shrinkage_regularization_strength": l2_shrinkage_regularization_strength,
            "beta": beta,
        }
        found = [number(f"Ftrl({name}=…)", value, least=0.0) for name, value in named.items()]
        self.initial_accumulator_value, self.l1_regularization_strength, self.l2_regularization_strength = found[:3]
        self.l2_shrinkage_regularization_strength, self.beta = found[3:]
        self._inverse, self._added = np.zeros((), np.float32), np.zeros((), np.float32)  # 1/η; 2λ₂ + β/η

    def checked_rate(self, value: object) -> float:
        return positive("Ftrl(learning_rate=…)", value)  # it divides by it

    @property
    def slot_groups(self) -> tuple[tuple[str, ...], ...]:
        return (("accumulator", "linear"),)

    def initial(self, slot: str) -> float:
        return self.initial_accumulator_value if slot == "accumulator" else super().initial(slot)

    def before(self) -> None:
        single = np.float32
        self._inverse[()] = single(1) / self._rate
        self._added[()] = single(2 * self.l2_regularization_strength) + single(self.beta) / self._rate

    def calls(self, w: Array, g: Array, slots: Mapping[str, Array], take: Callable[[], Array]) -> list[Call]:
        n, z = slots["accumulator"], slots["linear"]
        s, new, old = take(), take(), take()
        shrinkage = np.array(2 * self.l2_shrinkage_regularization_strength, w.dtype)
        bound = np.array(self.l1_regularization_strength, w.dtype)
        return [
            *self._power(n, old),
            partial(np.multiply, g, g, s),
            partial(np.add, n, s, n),
            *self._power(n, new),
            partial(np.subtract, new, old, old),
            partial(np.multiply, old, self._inverse, old),
            partial(np.multiply, old, w, old),
            partial(np.subtract, g, old, old),
            *([partial(np.multiply, w, shrinkage, s), partial(np.add, old, s, old)] if shrinkage else []),
            partial(np.add, z, old, z),
            partial(np.multiply, new, self._inverse, new),
            partial(np.add, new, self._added, new),
            partial(np.clip, z, -bound, bound, s),
            partial(np.subtract, s, z, s),
            partial(np.divide, s, new, w),
        ]

    def _power(self, n: Array, out: Array) -> list[Call]:
        if self.learning_rate_power == -0.5:
            return [partial(np.sqrt, n, out)]
        return [partial(np.power, n, np.array(-self.learning_rate_power, n.dtype), out)]

    def get_config(self) -> dict[str, Any]:
        names = [
            "learning_rate_power",
            "initial_accumulator_value",
            *(f"{which}_regularization_strength" for which in ("l1", "l2", "l2_shrinkage")),
            "beta",
        ]
        return super().get_config() | {name: getattr(self, name) for name in names}

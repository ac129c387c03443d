"""RMSprop: gradients divided by the root of their running mean square."""

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

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """v ← ρv + (1 − ρ)g²; s = ηg/√(v + ε); w ← w − s, or with momentum β: m ← βm + s, w ← w − m.

    Centered: the mean gradient's square, a ← ρa + (1 − ρ)g, is taken off v below the root (Hinton 2012, Graves 2013).
    The keywords that all optimizers share are described at `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.rho = number("RMSprop(rho=…)", rho, least=0.0, below=1.0)
        self.momentum = number("RMSprop(momentum=…)", momentum, least=0.0)
        self.epsilon = number("RMSprop(epsilon=…)", epsilon, least=0.0)
        self.centered = bool(centered)

    @property
    def slot_groups(self) -> tuple[tuple[str, ...], ...]:
        groups = [("velocity",), ("momentum",) * (self.momentum > 0), ("average_gradient",) * self.centered]
        return tuple(group for group in groups if group)

    def calls(self, w: Array, g: Array, slots: Mapping[str, Array], take: Callable[[], Array]) -> list[Call]:
        v, s, root = slots["velocity"], take(), take()
        epsilon = np.array(self.epsilon, w.dtype)
        calls: list[Call] = [partial(np.multiply, g, g, s), *blend(v, self.rho, s, 1 - self.rho, s)]
        if self.centered:
            mean = slots["average_gradient"]
            calls += [
                *blend(mean, self.rho, g, 1 - self.rho, s),
                partial(np.multiply, mean, mean, root),
                partial(np.subtract, v, root, root),
                partial(np.add, root, epsilon, root),
            ]
        else:
            calls += [partial(np.add, v, epsilon, root)]
        calls += [partial(np.sqrt, root, root), partial(np.divide, g, root, s)]
        if not self.momentum:
            return [*calls, *add_scaled(w, self._descent, s, s)]
        m, beta = slots["momentum"], np.array(self.momentum, w.dtype)
        return [
            *calls,
            partial(np.multiply, m, beta, m),
            *add_scaled(m, self._rate, s, s),
            partial(np.subtract, w, m, w),
        ]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
        }

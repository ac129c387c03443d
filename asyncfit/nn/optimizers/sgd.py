"""Stochastic gradient descent, with momentum or Nesterov's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Unpack

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.blas import add_scaled
from asyncfit.nn.naming import number
from asyncfit.nn.schedules import LearningRateSchedule

from .base import Optimizer
from .options import Options

__all__ = ["SGD"]


class SGD(Optimizer):
    """w ← w − ηg; with momentum β: v ← βv − ηg, w ← w + v (Nesterov: w ← w + βv − ηg).

    The keywords that all optimizers share are described at `Optimizer`.
    """

    default_learning_rate = 0.01

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        self.momentum = number("SGD(momentum=…)", momentum, least=0.0)
        if self.momentum > 1.0:
            raise InvalidInput(f"SGD(momentum=…) must be from 0 to 1, not {momentum!r}")
        self.nesterov = bool(nesterov)

    @property
    def slot_groups(self) -> tuple[tuple[str, ...], ...]:
        return (("momentum",),) if self.momentum else ()

    def calls(self, w: Array, g: Array, slots: Mapping[str, Array], take: Callable[[], Array]) -> list[Call]:
        s = take()
        if not self.momentum:
            return add_scaled(w, self._descent, g, s)
        v, beta = slots["momentum"], np.array(self.momentum, w.dtype)
        calls: list[Call] = [partial(np.multiply, v, beta, v), *add_scaled(v, self._descent, g, s)]
        if not self.nesterov:
            return [*calls, partial(np.add, w, v, w)]
        return [*calls, *add_scaled(w, beta, v, s), *add_scaled(w, self._descent, g, s)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"momentum": self.momentum, "nesterov": self.nesterov}

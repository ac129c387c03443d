"""Adam, and AdamW with its decoupled weight decay."""

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
from .options import Options, OptionsBesideDecay

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """m ← m + (1 − β₁)(g − m); v ← v + (1 − β₂)(g² − v); w ← w − αm/(√v + ε), α = η√(1 − β₂ᵗ)/(1 − β₁ᵗ).

    Kingma & Ba 2014, in the form (ε outside the correction) that Keras computes. With `amsgrad` the largest v so far
    stands in the denominator (Reddi et al. 2018).
    The keywords that all optimizers share are described at `Optimizer`.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(learning_rate, **options)
        name = type(self).__name__
        self.beta_1 = number(f"{name}(beta_1=…)", beta_1, least=0.0, below=1.0)
        self.beta_2 = number(f"{name}(beta_2=…)", beta_2, least=0.0, below=1.0)
        self.epsilon = number(f"{name}(epsilon=…)", epsilon, least=0.0)
        self.amsgrad = bool(amsgrad)
        self._step: Array = np.zeros((), np.float32)  # −α

    @property
    def slot_groups(self) -> tuple[tuple[str, ...], ...]:
        return (("momentum", "velocity"), ("velocity_hat",)) if self.amsgrad else (("momentum", "velocity"),)

    def before(self) -> None:
        single, t = np.float32, np.float32(self.iterations + 1)
        first, second = single(1) - single(self.beta_1) ** t, single(1) - single(self.beta_2) ** t
        self._step[()] = -(self._rate * np.sqrt(second) / first)

    def calls(self, w: Array, g: Array, slots: Mapping[str, Array], take: Callable[[], Array]) -> list[Call]:
        m, v, s = slots["momentum"], slots["velocity"], take()
        epsilon = np.array(self.epsilon, w.dtype)
        most = slots.get("velocity_hat", v)
        return [  # (the square root takes a third of it: NumPy's has no fast loop yet)
            *blend(m, self.beta_1, g, 1 - self.beta_1, s),
            partial(np.multiply, g, g, s),
            *blend(v, self.beta_2, s, 1 - self.beta_2, s),
            *([partial(np.maximum, most, v, out=most)] if self.amsgrad else []),
            partial(np.sqrt, most, s),
            partial(np.add, s, epsilon, s),
            partial(np.divide, m, s, s),
            *add_scaled(w, self._step, s, s),
        ]

    def get_config(self) -> dict[str, Any]:
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon, "amsgrad": self.amsgrad}
        return super().get_config() | own


class AdamW(Adam):
    """Adam, after w ← w − ηλw (Loshchilov & Hutter 2017); as in Keras on all weights, biases included.

    `exclude_from_weight_decay(["bias"])` spares some.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Unpack[OptionsBesideDecay],
    ) -> None:
        if weight_decay is None:
            raise InvalidInput("AdamW(weight_decay=…) must be a number, not None; Adam has none")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **options)

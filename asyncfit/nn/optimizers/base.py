"""What an optimizer is: settings, a learning rate, and a step over flat arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from asyncfit.errors import InvalidInput, ModelBusy
from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.naming import CheckedKeywords, fold, number, plain_config

__all__ = ["Optimizer"]

BLOCK = 1 << 15
"""Elements that a step handles at a time: weights, gradients, slots and scratch of one block stay in the cache."""

IGNORED = ("name", "jit_compile", "is_legacy_optimizer", "ema_momentum", "ema_overwrite_frequency")
OFF: dict[str, object] = {
    "amsgrad": False,
    "clipnorm": None,
    "clipvalue": None,
    "decay": 0.0,
    "global_clipnorm": None,
    "gradient_accumulation_steps": None,
    "loss_scale_factor": None,
    "use_ema": False,
    "weight_decay": None,
}
OTHER_SPELLINGS = {"lr": "learning_rate", "usenesterov": "nesterov"}


class Optimizer(CheckedKeywords):
    """Base of all optimizers: one step over all weights at once, whatever the number of layers.

    Attributes:
        iterations: steps done.
        slots: the state by name (momentum, …), flat arrays beside `params`; empty until a model starts it.
        slot_groups: their order in files: group after group, and within a group weight by weight (formats.md 7.6).
        busy: why the learning rate cannot be set by hand now; None if it can.
    """

    default_learning_rate: ClassVar[float] = 0.001

    def __init__(self, learning_rate: float | None = None) -> None:
        self._rate: Array = np.zeros((), np.float32)
        self._descent: Array = np.zeros((), np.float32)  # −η: what gradients are scaled with where they are added
        self.busy: str | None = None
        self.learning_rate = self.default_learning_rate if learning_rate is None else learning_rate
        self.iterations = 0
        self.slots: dict[str, Array] = {}
        self.owner: object = None

    @property
    def learning_rate(self) -> float:
        """The step size, rounded to float32, as Keras stores it. Set it between batches."""
        return float(self._rate)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if self.busy is not None:
            raise ModelBusy(self.busy)
        self.set_rate(value)

    def set_rate(self, value: float) -> None:
        """As setting `learning_rate`, for whoever trains with it."""
        self._rate[()] = number(f"{type(self).__name__}(learning_rate=…)", value, least=0.0)
        self._descent[()] = -self._rate

    @property
    def slot_groups(self) -> tuple[tuple[str, ...], ...]:
        return ()

    def start(self, size: int, dtype: np.dtype[Any]) -> None:
        """Begin anew, for `size` weights: no steps done, all slots zero."""
        self.iterations = 0
        self.slots = {name: np.zeros(size, dtype) for group in self.slot_groups for name in group}

    def calls(self, w: Array, g: Array, slots: Mapping[str, Array], take: Callable[[], Array]) -> list[Call]:
        """The arithmetic of one step on a stretch of the flat arrays; `take` gives scratch of the same length."""
        raise NotImplementedError

    def before(self) -> None:
        """Numbers that change with each step; called with `iterations` as it was before the step."""

    def bind(self, params: Array, grads: Array) -> Callable[[], None]:
        """A call that does one step: `params` change, `grads` stay."""
        steps: list[Call] = []
        scratch: list[Array] = []
        for begin in range(0, params.size, BLOCK):
            part = slice(begin, begin + BLOCK)
            size, used = params[part].size, 0

            def take(size: int = size) -> Array:
                nonlocal used
                if used == len(scratch):
                    scratch.append(np.empty(min(BLOCK, params.size), params.dtype))
                used += 1
                return scratch[used - 1][:size]

            steps += self.calls(params[part], grads[part], {k: v[part] for k, v in self.slots.items()}, take)
        before = self.before

        def step() -> None:
            before()
            for call in steps:
                call()
            self.iterations += 1

        return step

    def get_config(self) -> dict[str, Any]:
        return {"name": fold(type(self).__name__), "learning_rate": self.learning_rate}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """From a config of Keras 3, Keras 2 or TF.js (`learningRate`, `beta1`)."""
        own = {fold(key): key for key in cls().get_config()}
        settings = {OTHER_SPELLINGS.get(fold(k), own.get(fold(k), k)): v for k, v in config.items()}
        if isinstance(rate := settings.get("learning_rate"), Mapping):
            schedule = rate.get("class_name")
            raise InvalidInput(f"{cls.__name__}: the learning rate schedule {schedule!r} is not supported")
        settings = {k: v for k, v in settings.items() if k != "epsilon" or v is not None}
        off = {k: v for k, v in OFF.items() if k not in own.values()}
        made = cls(**plain_config(cls, settings, ignored=IGNORED, off=off))
        assert isinstance(made, cls)
        return made

    def __repr__(self) -> str:
        settings = {k: v for k, v in self.get_config().items() if k != "name"}
        return f"{type(self).__name__}({', '.join(f'{k}={v:g}' for k, v in settings.items())})"

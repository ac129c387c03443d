"""What an optimizer is: settings, a learning rate, and a step over flat arrays."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self, Unpack

import numpy as np

from asyncfit.errors import InvalidInput, ModelBusy
from asyncfit.nn import schedules
from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.naming import CheckedKeywords, fold, number, plain_config
from asyncfit.nn.schedules import LearningRateSchedule

from .gradients import Stretch, accumulation, clipping
from .moving import MovingAverage
from .options import Options, checked

__all__ = ["Optimizer"]

BLOCK = 1 << 15
"""Elements that a step handles at a time: weights, gradients, slots and scratch of one block stay in the cache."""

IGNORED = ("name", "jit_compile", "is_legacy_optimizer")
OFF: dict[str, object] = {"amsgrad": False, "decay": 0.0, "loss_scale_factor": None}
OTHER_SPELLINGS = {"lr": "learning_rate", "usenesterov": "nesterov"}


class Optimizer(CheckedKeywords):
    """Base of all optimizers: one step over all weights at once, whatever the number of layers.

    Args:
        learning_rate: the step size; or a schedule, which says it for each step.
        weight_decay: w ← w − ηλw before each step, with this λ. None: no decay.
        clipnorm: the gradient of each weight array is scaled down to this L2 norm if its norm is larger.
        clipvalue: each number of the gradients is cut to ±this.
        global_clipnorm: all gradients together are scaled down to this L2 norm. At most one of the three.
        use_ema: keep an average of the weights, a ← μa + (1 − μ)w after each batch (the first w at the beginning); at
            the end of a fit the weights become their averages.
        ema_momentum: μ.
        ema_overwrite_frequency: the weights become their averages every so many steps, too. None: only at the end.
        gradient_accumulation_steps: a step is made with the mean gradient of so many batches. None: of each.

    Attributes:
        batches: how many batches' gradients it has got.
        slots: the state by name (momentum, …), flat arrays beside `params`; empty until a model starts it.
        scalars: the state that is one number for all weights, by name: arrays of the shape ().
        slot_groups: the order of an optimizer's own slots in files: group after group, and within a group weight by
            weight (formats.md 7.6).
        schedule: what the learning rate follows; None if it is a number.
        busy: why the learning rate cannot be set by hand now; None if it can.
    """

    default_learning_rate: ClassVar[float] = 0.001

    def __init__(self, learning_rate: float | LearningRateSchedule | None = None, **options: Unpack[Options]) -> None:
        self._rate: Array = np.zeros((), np.float32)
        self._descent: Array = np.zeros((), np.float32)  # −η: what gradients are scaled with where they are added
        self._keep: Array = np.ones((), np.float32)  # 1 − ηλ: what weight decay leaves
        self.busy: str | None = None
        self.schedule = schedules.get(learning_rate)
        self.batches = 0
        found = checked(type(self).__name__, options)
        self.weight_decay = found["weight_decay"]
        self.clipnorm, self.clipvalue = found["clipnorm"], found["clipvalue"]
        self.global_clipnorm = found["global_clipnorm"]
        self.use_ema, self.ema_momentum = found["use_ema"], found["ema_momentum"]
        self.ema_overwrite_frequency = found["ema_overwrite_frequency"]
        self.gradient_accumulation_steps = found["gradient_accumulation_steps"]
        if self.schedule is None:
            self.set_rate(self.default_learning_rate if learning_rate is None else learning_rate)  # type: ignore[arg-type]
        else:
            self._follow()
        self.slots: dict[str, Array] = {}
        self.scalars: dict[str, Array] = {}
        self.owner: object = None
        self._spared: re.Pattern[str] | None = None
        self._started = False

    @property
    def learning_rate(self) -> float:
        """The step size, rounded to float32, as Keras stores it. Set it between batches.

        With a schedule it is that of the coming step, and cannot be set.
        """
        return float(self._rate) if self.schedule is None else float(np.float32(self._scheduled(self.schedule)))

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if self.busy is not None:
            raise ModelBusy(self.busy)
        self.set_rate(value)

    def set_rate(self, value: float) -> None:
        """As setting `learning_rate`, for whoever trains with it.

        Raises:
            InvalidInput: the value is no rate, or a schedule says what it is.
        """
        if self.schedule is not None:
            raise InvalidInput(self.why_scheduled)
        self._rate[()] = self.checked_rate(value)
        self._descent[()] = -self._rate

    def checked_rate(self, value: object) -> float:
        """`value`, if it can be a learning rate. Raises InvalidInput if it cannot."""
        return number(f"{type(self).__name__}(learning_rate=…)", value, least=0.0)

    @property
    def why_scheduled(self) -> str:
        """Why the learning rate cannot be set, if there is a schedule."""
        return (
            f"the learning rate follows {self.schedule!r}, which the optimizer was given; give it a number instead, as "
            f"in {type(self).__name__}(0.01), where the rate is to be set from outside"
        )

    def _scheduled(self, schedule: LearningRateSchedule) -> float:
        step = self.batches  # as Keras does it, also where gradients are accumulated
        value = schedule(step)
        try:
            return self.checked_rate(float(value))
        except (InvalidInput, TypeError, ValueError) as error:
            raise InvalidInput(f"{schedule!r} gives no learning rate for step {step}, but {value!r}: {error}") from None

    def _follow(self) -> None:
        """Take the coming step's rate from the schedule."""
        assert self.schedule is not None
        self._rate[()] = self._scheduled(self.schedule)
        self._descent[()] = -self._rate

    @property
    def iterations(self) -> int:
        """Steps done; fewer than `batches` where gradients are accumulated."""
        return self.batches // (self.gradient_accumulation_steps or 1)

    @property
    def slot_groups(self) -> tuple[tuple[str, ...], ...]:
        return ()

    @property
    def all_slot_groups(self) -> tuple[tuple[str, ...], ...]:
        """With what the options keep, which stands before an optimizer's own."""
        kept = {"average": self.use_ema, "gradient_accumulator": self.gradient_accumulation_steps}
        return (*((name,) for name, on in kept.items() if on), *self.slot_groups)

    def exclude_from_weight_decay(self, var_names: Sequence[str]) -> None:
        """Spare weights from `weight_decay`: all whose name contains one of these, as in `["bias", "gamma"]`.

        A name with a slash is looked for in the weight's path, as in `"dense_1/kernel"`; each may be a regular
        expression. As in Keras it is no part of the settings in a file: say it again after loading.

        Raises:
            InvalidInput: the names are no text, or the optimizer is already at work in a model.
        """
        names = [var_names] if isinstance(var_names, str) else list(var_names)
        if not all(isinstance(name, str) and name for name in names):  # type: ignore[redundant-expr]
            raise InvalidInput(f"exclude_from_weight_decay takes parts of names, as in ['bias'], not {var_names!r}")
        if self._started:
            raise InvalidInput("exclude_from_weight_decay must be called before the model trains or is built")
        try:
            self._spared = re.compile("|".join(names)) if names else None
        except re.error as error:
            raise InvalidInput(f"exclude_from_weight_decay: {var_names!r} is no regular expression: {error}") from None

    def start(self, size: int, dtype: np.dtype[Any]) -> None:
        """Begin anew, for `size` weights: no steps done, all slots as `initial` has them."""
        self.batches, self._started = 0, True
        names = [name for group in self.all_slot_groups for name in group]
        self.slots = {name: np.full(size, self.initial(name), dtype) for name in names}

    def initial(self, slot: str) -> float:
        """What a slot begins with."""
        return 0.0

    def calls(self, w: Array, g: Array, slots: Mapping[str, Array], take: Callable[[], Array]) -> list[Call]:
        """The arithmetic of one step on a stretch of the flat arrays; `take` gives scratch of the same length."""
        raise NotImplementedError

    def before(self) -> None:
        """Numbers that change with each step; called with `iterations` as it was before the step."""

    def bind(self, params: Array, grads: Array, parts: Sequence[Stretch] = ()) -> Callable[[], None]:
        """A call that does one step: `params` change; `grads` do where they are clipped or accumulated.

        Args:
            parts: where each weight array lies; without them all is one.
        """
        parts = parts or (Stretch("weights", 0, params.size),)
        decay = [part for part in parts if self._decays(part)]
        steps: list[Call] = []
        scratch: list[Array] = []
        for begin in range(0, params.size, BLOCK):
            block = slice(begin, begin + BLOCK)
            size, used = params[block].size, 0

            def take(size: int = size) -> Array:
                nonlocal used
                if used == len(scratch):
                    scratch.append(np.empty(min(BLOCK, params.size), params.dtype))
                used += 1
                return scratch[used - 1][:size]

            steps += [self._decaying(params[piece]) for piece in _within(decay, begin, begin + size)]
            steps += self.calls(params[block], grads[block], {k: v[block] for k, v in self.slots.items()}, take)
        before = self.before if not decay else self._before_decay
        clip = clipping(self, grads, parts)
        follow = [] if self.schedule is None else [self._follow]
        steps = [*follow, before, *([clip] if clip is not None else []), *steps]

        def step() -> None:
            for call in steps:
                call()

        whole: Callable[[], object] = step
        if self.gradient_accumulation_steps:
            whole = accumulation(self, grads, self.slots["gradient_accumulator"], step)
        average = MovingAverage(self, params, BLOCK).follow if self.use_ema else None
        if whole is step and average is None:

            def plain() -> None:  # (one call less for each batch)
                for call in steps:
                    call()
                self.batches += 1

            return plain

        def counted() -> None:
            whole()
            if average is not None:
                average()
            self.batches += 1

        return counted

    def finish(self, params: Array) -> bool:
        """What the end of a fit does to the weights: they become their averages. Whether they changed."""
        if not self.use_ema or not self.batches:
            return False
        params[...] = self.slots["average"]
        return True

    def _decays(self, part: Stretch) -> bool:
        if not self.weight_decay:
            return False
        spared = self._spared
        if spared is None:
            return True
        return not (spared.search(part.name) or ("/" in spared.pattern and spared.search(part.path)))

    def _decaying(self, w: Array) -> Call:
        return partial(np.multiply, w, self._keep, w)

    def _before_decay(self) -> None:
        self.before()
        assert self.weight_decay is not None
        self._keep[()] = 1.0 - self.learning_rate * self.weight_decay

    def get_config(self) -> dict[str, Any]:
        return {
            "name": fold(type(self).__name__),
            "learning_rate": self.learning_rate if self.schedule is None else schedules.config(self.schedule),
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "global_clipnorm": self.global_clipnorm,
            "clipvalue": self.clipvalue,
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """From a config of Keras 3, Keras 2 or TF.js (`learningRate`, `beta1`)."""
        own = {fold(key): key for key in cls().get_config()}
        settings = {OTHER_SPELLINGS.get(fold(k), own.get(fold(k), k)): v for k, v in config.items()}
        settings = {k: v for k, v in settings.items() if v is not None or k not in ("epsilon", "ema_momentum")}
        for clip in ("clipnorm", "clipvalue", "global_clipnorm"):  # Keras takes 0 for none
            settings[clip] = settings.get(clip) or None
        off = {k: v for k, v in OFF.items() if k not in own.values()}
        made = cls(**plain_config(cls, settings, ignored=IGNORED, off=off))
        assert isinstance(made, cls)
        return made

    def __repr__(self) -> str:
        usual = type(self)().get_config()
        rate = f"{self.learning_rate:g}" if self.schedule is None else repr(self.schedule)
        shown = [
            f"{k}={v:g}" if isinstance(v, float) and not isinstance(v, bool) else f"{k}={v!r}"
            for k, v in self.get_config().items()
            if k != "learning_rate" and v != usual[k]
        ]
        return f"{type(self).__name__}({', '.join([f'learning_rate={rate}', *shown])})"


def _within(parts: Sequence[Stretch], begin: int, end: int) -> list[slice]:
    """What of `parts` lies in the stretch, neighbours joined."""
    found: list[slice] = []
    for part in parts:
        first, last = max(begin, part.offset), min(end, part.offset + part.size)
        if first >= last:
            continue
        if found and found[-1].stop == first:
            found[-1] = slice(found[-1].start, last)
        else:
            found.append(slice(first, last))
    return found

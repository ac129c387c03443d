"""Learning rates that follow a formula of the step: `Adam(learning_rate=CosineDecay(0.01, 1000))`."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from asyncfit.errors import InvalidInput

from .custom import the_users
from .naming import CheckedKeywords, fold, look_up, number, plain_config, positive

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "config",
    "get",
]

single = np.float32
"""What Keras computes rates in, so that they are the same here."""


class LearningRateSchedule(CheckedKeywords):
    """A learning rate as a function of the step. Make your own by `__call__(step)` and `get_config()`.

    It is asked before each batch, with the number of batches trained on before it (so from 0 on; where gradients are
    accumulated, too), in the thread or process that trains. It must return the same for the same step, or a resumed
    run would not go on as the one before.
    """

    def __call__(self, step: int) -> float:
        raise NotImplementedError(f"{type(self).__name__} needs a __call__(self, step) that returns the rate of a step")

    def get_config(self) -> dict[str, Any]:
        """What it is made with, by keyword: plain numbers, text and lists, for files."""
        raise NotImplementedError(f"{type(self).__name__} needs a get_config() with what it is made with, by keyword")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        made = cls(**plain_config(cls, config))
        assert isinstance(made, cls)
        return made

    def __repr__(self) -> str:
        try:
            shown = {k: v for k, v in self.get_config().items() if k != "name"}
        except NotImplementedError:
            return object.__repr__(self)
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in shown.items())})"


class ExponentialDecay(LearningRateSchedule):
    """r · decay_rate^(step/decay_steps); with `staircase` the exponent is rounded down, so that it falls in steps.

    Args:
        initial_learning_rate: r.
        decay_steps: after so many steps the rate is `decay_rate` times what it was.
        decay_rate: the factor.
        staircase: fall at whole multiples of `decay_steps` only.
        name: for Keras; it does nothing.

    Raises:
        InvalidInput: a value that is none, `decay_steps` that is not above 0.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        kind = type(self).__name__
        self.initial_learning_rate = number(f"{kind}(initial_learning_rate=…)", initial_learning_rate, least=0.0)
        self.decay_steps = _steps(f"{kind}(decay_steps=…)", decay_steps)
        self.decay_rate = number(f"{kind}(decay_rate=…)", decay_rate, least=0.0)
        self.staircase, self.name = bool(staircase), name

    def __call__(self, step: int) -> float:
        return float(single(self.initial_learning_rate) * single(self.decay_rate) ** self._periods(step))

    def _periods(self, step: int) -> np.float32:
        periods = single(step) / single(self.decay_steps)
        return np.floor(periods) if self.staircase else periods

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate,
            "staircase": self.staircase,
            "name": self.name,
        }


class InverseTimeDecay(ExponentialDecay):
    """r / (1 + decay_rate · step/decay_steps); with `staircase` the fraction is rounded down.

    Arguments and errors are those of `ExponentialDecay`.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        super().__init__(initial_learning_rate, decay_steps, decay_rate, staircase, name)

    def __call__(self, step: int) -> float:
        return float(single(self.initial_learning_rate) / (single(1) + single(self.decay_rate) * self._periods(step)))


class PiecewiseConstantDecay(LearningRateSchedule):
    """`values[0]` up to and with step `boundaries[0]`, then `values[1]` up to and with `boundaries[1]`, and so on.

    Args:
        boundaries: steps, ascending. Fractions are cut off.
        values: the rates; one more than boundaries.
        name: for Keras; it does nothing.

    Raises:
        InvalidInput: numbers that are none, do not ascend, or are too many or few.
    """

    def __init__(self, boundaries: Sequence[float], values: Sequence[float], name: str = "PiecewiseConstant") -> None:
        for what, given in (("boundaries", boundaries), ("values", values)):
            if isinstance(given, str | bytes | Mapping) or not hasattr(given, "__len__"):
                raise InvalidInput(f"PiecewiseConstantDecay({what}=…) must be a list of numbers, not {given!r}")
        self.boundaries = [_plain(number("PiecewiseConstantDecay(boundaries=…)", b, least=0.0)) for b in boundaries]
        self.values = [number("PiecewiseConstantDecay(values=…)", value, least=0.0) for value in values]
        self.name = name
        if len(self.values) != len(self.boundaries) + 1:
            raise InvalidInput(
                "PiecewiseConstantDecay needs one value more than boundaries, "
                f"not {len(self.values)} for {len(self.boundaries)}"
            )
        self._ends = [int(boundary) for boundary in self.boundaries]
        if sorted(set(self._ends)) != self._ends:
            raise InvalidInput(f"PiecewiseConstantDecay(boundaries=…) must ascend, not {self.boundaries}")

    def __call__(self, step: int) -> float:
        return float(single(self.values[bisect_left(self._ends, step)]))

    def get_config(self) -> dict[str, Any]:
        return {"boundaries": list(self.boundaries), "values": list(self.values), "name": self.name}


class PolynomialDecay(LearningRateSchedule):
    """(r − end)(1 − step/decay_steps)^power + end, and `end` from `decay_steps` on.

    Args:
        initial_learning_rate: r.
        decay_steps: the step at which `end_learning_rate` is reached.
        end_learning_rate: end.
        power: 1 is a straight line.
        cycle: instead of staying at the end, begin anew from that power of the rate with the next multiple of
            `decay_steps` as the end.
        name: for Keras; it does nothing.

    Raises:
        InvalidInput: a value that is none, `decay_steps` that is not above 0.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        self.initial_learning_rate = number(
            "PolynomialDecay(initial_learning_rate=…)", initial_learning_rate, least=0.0
        )
        self.decay_steps = _steps("PolynomialDecay(decay_steps=…)", decay_steps)
        self.end_learning_rate = number("PolynomialDecay(end_learning_rate=…)", end_learning_rate, least=0.0)
        self.power = number("PolynomialDecay(power=…)", power, least=0.0)
        self.cycle, self.name = bool(cycle), name

    def __call__(self, step: int) -> float:
        at, end, last = single(step), single(self.end_learning_rate), single(self.decay_steps)
        if self.cycle:
            last *= single(1) if step == 0 else np.ceil(at / last)
        else:
            at = min(at, last)
        return float((single(self.initial_learning_rate) - end) * (single(1) - at / last) ** single(self.power) + end)

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "end_learning_rate": self.end_learning_rate,
            "power": self.power,
            "cycle": self.cycle,
            "name": self.name,
        }


class CosineDecay(LearningRateSchedule):
    """Half a cosine from r down to alpha · r over `decay_steps`, then constant (Loshchilov & Hutter 2016).

    Args:
        initial_learning_rate: r; with a warm-up, what that begins at.
        decay_steps: how long it falls; a warm-up comes on top.
        alpha: the last rate, as a fraction of r (with a warm-up: of its target).
        name: for Keras; it does nothing.
        warmup_target: the rate rises to this first, in a straight line over `warmup_steps`. None: no warm-up.
        warmup_steps: how long.

    Raises:
        InvalidInput: a value that is none, `decay_steps` that is not above 0.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: float = 0,
    ) -> None:
        self.initial_learning_rate = number("CosineDecay(initial_learning_rate=…)", initial_learning_rate, least=0.0)
        self.decay_steps = _steps("CosineDecay(decay_steps=…)", decay_steps)
        self.alpha = number("CosineDecay(alpha=…)", alpha, least=0.0)
        self.name = name
        self.warmup_target = (
            None if warmup_target is None else number("CosineDecay(warmup_target=…)", warmup_target, least=0.0)
        )
        self.warmup_steps = _plain(number("CosineDecay(warmup_steps=…)", warmup_steps, least=0.0))

    def __call__(self, step: int) -> float:
        at, top = single(step), single(self.initial_learning_rate)
        if self.warmup_target is not None:
            warm, target = single(self.warmup_steps), single(self.warmup_target)
            if at < warm:
                return float((target - top) * (at / warm) + top)
            at, top = at - warm, target
        last = single(self.decay_steps)
        return float(top * _cosine(min(at, last) / last, single(self.alpha)))

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "alpha": self.alpha,
            "name": self.name,
            "warmup_target": self.warmup_target,
            "warmup_steps": self.warmup_steps,
        }


class CosineDecayRestarts(LearningRateSchedule):
    """Cosines from r down to alpha · r, one after the other (SGDR, Loshchilov & Hutter 2016).

    Args:
        initial_learning_rate: r.
        first_decay_steps: how long the first one is.
        t_mul: each is so many times as long as the one before; at least 1.
        m_mul: each begins at so many times the rate that the one before began at.
        alpha: the lowest rate, as a fraction of r.
        name: for Keras; it does nothing.

    Raises:
        InvalidInput: a value that is none, `first_decay_steps` that is not above 0.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        self.initial_learning_rate = number(
            "CosineDecayRestarts(initial_learning_rate=…)", initial_learning_rate, least=0.0
        )
        self.first_decay_steps = _steps("CosineDecayRestarts(first_decay_steps=…)", first_decay_steps)
        self.t_mul = number("CosineDecayRestarts(t_mul=…)", t_mul, least=1.0)
        self.m_mul = number("CosineDecayRestarts(m_mul=…)", m_mul, least=0.0)
        self.alpha = number("CosineDecayRestarts(alpha=…)", alpha, least=0.0)
        self.name = name

    def __call__(self, step: int) -> float:
        one, times = single(1), single(self.t_mul)
        done = single(step) / single(self.first_decay_steps)
        if times == one:
            restarts = np.floor(done)
            done -= restarts
        else:
            # In float64 and rounded up by a hair: in float32 the steps of restarts fall on this or that side.
            exact = math.log1p(step / self.first_decay_steps * (self.t_mul - 1)) / math.log(self.t_mul)
            restarts = single(math.floor(exact + 1e-9))
            grown = times**restarts
            done = (done - (one - grown) / (one - times)) / grown
        alpha = single(self.alpha)
        return float(single(self.initial_learning_rate) * _cosine(done, alpha, single(self.m_mul) ** restarts))

    def get_config(self) -> dict[str, Any]:
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "first_decay_steps": self.first_decay_steps,
            "t_mul": self.t_mul,
            "m_mul": self.m_mul,
            "alpha": self.alpha,
            "name": self.name,
        }


def _cosine(done: np.float32, alpha: np.float32, height: np.float32 | None = None) -> np.float32:
    """From 1 (or `height`) at 0 to `alpha` at 1."""
    half = single(0.5) if height is None else single(0.5) * height
    return single((single(1) - alpha) * (half * (single(1) + np.cos(single(math.pi) * done))) + alpha)


def _steps(where: str, value: object) -> float:
    return _plain(positive(where, value))


def _plain(value: float) -> float:
    """A whole number as an int, for configs and messages."""
    return int(value) if value == int(value) else value


KINDS: dict[str, type[LearningRateSchedule]] = {
    cls.__name__: cls
    for cls in (
        ExponentialDecay,
        PiecewiseConstantDecay,
        PolynomialDecay,
        InverseTimeDecay,
        CosineDecay,
        CosineDecayRestarts,
    )
}
TABLE = {fold(name): cls for name, cls in KINDS.items()}


def get(given: object) -> LearningRateSchedule | None:
    """The schedule that `given` is or describes (Keras's config); None if it is neither.

    Raises:
        InvalidInput: the config is of a class that is not known, or says what it does not take.
    """
    if isinstance(given, LearningRateSchedule):
        return given
    if isinstance(given, type) and issubclass(given, LearningRateSchedule):
        raise InvalidInput(f"learning_rate= takes a schedule, as in {given.__name__}(…), not its class")
    if callable(given):
        raise InvalidInput(
            "learning_rate= takes a number or a schedule, not a function; make it a subclass of LearningRateSchedule "
            "with __call__(self, step) and get_config(self)"
        )
    if not isinstance(given, Mapping):
        return None
    name = str(given.get("class_name"))
    own: type[LearningRateSchedule] | None = the_users(name, LearningRateSchedule) or the_users(
        str(given.get("registered_name")), LearningRateSchedule
    )
    cls = own or look_up("learning rate schedule", name, TABLE, KINDS)
    try:
        return cls.from_config(given.get("config") or {})
    except TypeError as error:  # what it needs is not there
        raise InvalidInput(f"the learning rate schedule {name}: {error}") from error


def config(schedule: LearningRateSchedule) -> dict[str, Any]:
    """As Keras writes it."""
    name = type(schedule).__name__
    known = KINDS.get(name) is type(schedule)
    return {
        "module": "keras.optimizers.schedules" if known else None,
        "class_name": name,
        "config": schedule.get_config(),
        "registered_name": None if known else name,
    }

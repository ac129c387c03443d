"""Constraints: what a weight is brought back to after each step of the optimizer. Formulas and names are Keras 3's.

`bind` makes one call of it that changes the weight in place; only weights that are trained are constrained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from asyncfit.errors import InvalidInput

from .arrays import Array, Call, Shape
from .custom import anything, the_users
from .naming import CheckedKeywords, fold, look_up, number, plain_config, whole
from .workspace import Workspace

__all__ = [
    "Constraint",
    "ConstraintLike",
    "MaxNorm",
    "MinMaxNorm",
    "NonNeg",
    "OwnConstraint",
    "UnitNorm",
    "config",
    "get",
]

EPSILON = 1e-7
"""Keras's: what norms are raised by before something is divided by them."""


class Constraint(CheckedKeywords):
    """A projection of a weight. One of your own overrides `__call__` and, if it has settings, `get_config`; a plain
    function from an array to one of the same shape will do as well.
    """

    def __call__(self, w: Array) -> Array:
        """The weight as it shall be, of the shape of `w`."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(w)")

    def check(self, where: str, shape: Shape) -> None:
        """Raise InvalidInput if a weight of this shape cannot be constrained; `where` names it."""

    def bind(self, w: Array, work: Workspace) -> Call:
        """A call that changes `w` in place."""

        def project() -> None:
            found = np.asarray(self(w))
            if found.shape != w.shape:
                raise InvalidInput(f"{self!r} made an array of the shape {found.shape} of a weight of {w.shape}")
            w[...] = found

        return project

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Constraint:
        made = cls(**plain_config(cls, config))
        assert isinstance(made, Constraint)
        return made

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((type(self), repr(self.get_config())))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_config().items())})"


ConstraintLike: TypeAlias = str | Constraint | type[Constraint] | Callable[[Array], Array] | Mapping[str, Any] | None


class OwnConstraint(Constraint):
    """A function of the user's own, called with the weight after each step."""

    def __init__(self, function: Callable[[Array], Array]) -> None:
        self.function = function

    def __call__(self, w: Array) -> Array:
        return self.function(w)

    def get_config(self) -> dict[str, Any]:
        return {"function": getattr(self.function, "__name__", repr(self.function))}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OwnConstraint) and self.function == other.function

    def __hash__(self) -> int:
        return hash(self.function)


class NonNeg(Constraint):
    """max(w, 0)."""

    def __call__(self, w: Array) -> Array:
        found: Array = np.maximum(w, 0)
        return found

    def bind(self, w: Array, work: Workspace) -> Call:
        zero = np.array(0, w.dtype)
        return lambda: np.maximum(w, zero, out=w)


class OfNorm(Constraint):
    """w · wanted / (ε + n), where n is the length of the weights of one unit: Euclidean, along `axis`."""

    axis: int | tuple[int, ...]

    def wanted(self, norms: Array, out: Array) -> None:
        """Write the lengths that weights of these lengths shall have; `norms` may be changed."""
        raise NotImplementedError

    def check(self, where: str, shape: Shape) -> None:
        axes = (self.axis,) if isinstance(self.axis, int) else self.axis
        if len({axis % len(shape) for axis in axes if -len(shape) <= axis < len(shape)}) < len(axes):
            raise InvalidInput(
                f"{where} of the shape {shape}: {self!r} names an axis that it does not have, or one twice"
            )

    def __call__(self, w: Array) -> Array:
        w = np.array(w, copy=True)
        w = w if w.dtype == np.float64 else w.astype(np.float32)
        self.check("an array", w.shape)
        self.bind(w, Workspace(w.dtype))()
        return w

    def bind(self, w: Array, work: Workspace) -> Call:
        axes = {axis % w.ndim for axis in ((self.axis,) if isinstance(self.axis, int) else self.axis)}
        every, kept = list(range(w.ndim)), [i for i in range(w.ndim) if i not in axes]
        norms, wanted = (work.take([1 if i in axes else size for i, size in enumerate(w.shape)]) for _ in range(2))
        lengths, epsilon = norms.reshape([w.shape[i] for i in kept]), np.array(EPSILON, w.dtype)

        def project() -> None:
            np.einsum(w, every, w, every, kept, out=lengths)
            np.sqrt(norms, norms)
            self.wanted(norms, wanted)
            np.add(norms, epsilon, norms)
            np.divide(wanted, norms, wanted)
            np.multiply(w, wanted, w)

        return project


class MaxNorm(OfNorm):
    """Lengths of at most `max_value`, along `axis`: 0 for the kernel of a Dense, [0, 1, 2] for that of a Conv2D."""

    def __init__(self, max_value: float = 2, axis: int | Sequence[int] = 0) -> None:
        self.max_value = number("MaxNorm(max_value=…)", max_value, least=0.0)
        self.axis = axes_of("MaxNorm", axis)

    def wanted(self, norms: Array, out: Array) -> None:
        np.minimum(norms, self.max_value, out=out)

    def get_config(self) -> dict[str, Any]:
        return {"max_value": self.max_value, "axis": plain(self.axis)}


class UnitNorm(OfNorm):
    """Lengths of 1 along `axis`."""

    def __init__(self, axis: int | Sequence[int] = 0) -> None:
        self.axis = axes_of("UnitNorm", axis)

    def wanted(self, norms: Array, out: Array) -> None:
        out.fill(1)

    def get_config(self) -> dict[str, Any]:
        return {"axis": plain(self.axis)}


class MinMaxNorm(OfNorm):
    """Lengths from `min_value` to `max_value` along `axis`; each step goes the share `rate` of the way there."""

    def __init__(
        self, min_value: float = 0.0, max_value: float = 1.0, rate: float = 1.0, axis: int | Sequence[int] = 0
    ) -> None:
        self.min_value = number("MinMaxNorm(min_value=…)", min_value, least=0.0)
        self.max_value = number("MinMaxNorm(max_value=…)", max_value, least=self.min_value)
        self.rate = number("MinMaxNorm(rate=…)", rate, least=0.0)
        if self.rate > 1.0:
            raise InvalidInput(f"MinMaxNorm(rate=…) is a share, from 0 to 1, not {rate!r}")
        self.axis = axes_of("MinMaxNorm", axis)

    def wanted(self, norms: Array, out: Array) -> None:
        np.clip(norms, self.min_value, self.max_value, out=out)
        if self.rate != 1.0:  # n + rate·(clipped − n)
            np.subtract(out, norms, out)
            np.multiply(out, np.array(self.rate, out.dtype), out)
            np.add(out, norms, out)

    def get_config(self) -> dict[str, Any]:
        return {
            "min_value": self.min_value,
            "max_value": self.max_value,
            "rate": self.rate,
            "axis": plain(self.axis),
        }


def axes_of(who: str, axis: object) -> int | tuple[int, ...]:
    if isinstance(axis, Sequence) and not isinstance(axis, str):
        return tuple(whole(f"{who}(axis=…)", one, least=-32) for one in axis)
    return whole(f"{who}(axis=…)", axis, least=-32)


def plain(axis: int | tuple[int, ...]) -> int | list[int]:
    return axis if isinstance(axis, int) else list(axis)


SPELLINGS: dict[str, type[Constraint]] = {
    "max_norm": MaxNorm,
    "min_max_norm": MinMaxNorm,
    "non_neg": NonNeg,
    "unit_norm": UnitNorm,
}
TABLE = {fold(name): cls for name, cls in SPELLINGS.items()}


def get(given: ConstraintLike) -> Constraint | None:
    """The constraint for a name, a config `{"class_name", "config"}`, a constraint, a function, or None.

    Raises:
        InvalidInput: the name is unknown; the message has the nearest known one.
    """
    if given is None or isinstance(given, Constraint):
        return given
    if isinstance(given, str):
        return (the_users(given, Constraint) or look_up("constraint", given, TABLE, SPELLINGS))()
    if isinstance(given, Mapping):
        name, settings = str(given.get("class_name")), given.get("config") or {}
        if name in ("OwnConstraint", "function"):  # as we and Keras write a function, by its name alone
            function = settings.get("function") if isinstance(settings, Mapping) else settings
            if callable(found := anything(str(function))):
                return get(found)
            raise InvalidInput(f"the constraint {function!r} is a function of the user's own, and not at hand")
        cls = the_users(name, Constraint) or look_up("constraint", name, TABLE, SPELLINGS)
        made: Constraint = cls.from_config(settings)
        return made
    if isinstance(given, type):
        if issubclass(given, Constraint):
            return given()
    elif callable(given):
        return OwnConstraint(given)
    raise InvalidInput(f"a constraint is a name, one of asyncfit.constraints or a function of a weight, not {given!r}")


def config(constraint: Constraint | None) -> dict[str, Any] | None:
    """`{"class_name", "config"}`, as Keras 2, Keras 3 and TF.js read it; None for none."""
    if constraint is None:
        return None
    return {"class_name": type(constraint).__name__, "config": constraint.get_config()}

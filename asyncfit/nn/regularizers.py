"""Regularizers: penalties that count in the loss, and their gradients. Formulas, names and defaults are Keras 3's.

A penalty belongs to a weight (`kernel_regularizer=`) or to a layer's output (`activity_regularizer=`). `bind` makes one
call of it that gives its value and adds its gradient to the one of the loss, in blocks that stay in the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np

from asyncfit.errors import InvalidInput

from .arrays import Array, Shape
from .custom import the_users
from .naming import CheckedKeywords, fold, look_up, number, plain_config
from .workspace import Workspace

__all__ = [
    "L1",
    "L1L2",
    "L2",
    "OrthogonalRegularizer",
    "Regularizer",
    "RegularizerLike",
    "config",
    "get",
]

BLOCK = 1 << 15
"""Elements that are handled at a time."""


class Regularizer(CheckedKeywords):
    """A penalty on an array. One of your own overrides `__call__`, `gradient` and, if it has settings, `get_config`::

    class Nearness(Regularizer):
        '''(1 − Σ x)².'''

        def __call__(self, x):
            return float((1 - x.sum()) ** 2)

        def gradient(self, x):
            return np.full_like(x, 2 * (x.sum() - 1))
    """

    def __call__(self, x: Array) -> float:
        """The penalty."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(x)")

    def gradient(self, x: Array) -> Array:
        """Its gradient by `x`, of the shape of `x`."""
        raise NotImplementedError(f"{type(self).__name__} has no gradient(x)")

    def check(self, where: str, shape: Shape) -> None:
        """Raise InvalidInput if an array of this shape cannot be penalized; `where` names it."""

    def bind(self, x: Array, slope: Array | None, scale: float, work: Workspace) -> Callable[[], float]:
        """A call that returns `scale` times the penalty on `x` and, unless it is None, adds the gradient to `slope`."""

        def pay() -> float:
            if slope is not None:
                np.add(slope, scale * np.asarray(self.gradient(x)), slope)
            return scale * float(self(x))

        return pay

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Regularizer:
        made = cls(**plain_config(cls, config))
        assert isinstance(made, Regularizer)
        return made

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((type(self), repr(self.get_config())))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_config().items())})"


RegularizerLike: TypeAlias = str | Regularizer | type[Regularizer] | Mapping[str, Any] | None


class L1L2(Regularizer):
    """l1·Σ|x| + l2·Σx². By its name alone, `"l1_l2"`, both are 0.01."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1, self.l2 = strength(self, "l1", l1), strength(self, "l2", l2)

    def __call__(self, x: Array) -> float:
        x = np.asarray(x)
        return self.l1 * float(np.abs(x).sum()) + self.l2 * float(np.square(x).sum())

    def gradient(self, x: Array) -> Array:
        found: Array = self.l1 * np.sign(x) + 2 * self.l2 * x
        return found

    def bind(self, x: Array, slope: Array | None, scale: float, work: Workspace) -> Callable[[], float]:
        l1, l2 = scale * self.l1, scale * self.l2
        ones, twos = np.array(l1, x.dtype), np.array(2 * l2, x.dtype)
        both = list(blocks(x, slope))
        most = max((part.size for part, _ in both), default=0)
        scratch, copied = work.take((most,)), work.take((most,))
        parts = []
        for part, down in both:
            lies_flat = part.flags.c_contiguous
            flat = part.reshape(-1) if lies_flat else copied[: part.size]
            parts.append((part, flat, lies_flat, scratch[: part.size], down))

        def pay() -> float:
            absolute = squares = 0.0
            for part, flat, lies_flat, each, down in parts:
                if not lies_flat:
                    np.copyto(flat.reshape(part.shape), part)
                if l1:
                    np.sign(flat, each)
                    absolute += float(np.dot(flat, each))
                    if down is not None:
                        np.multiply(each, ones, each)
                        np.add(down, each.reshape(down.shape), down)
                if l2:
                    squares += float(np.dot(flat, flat))
                    if down is not None:
                        np.multiply(flat, twos, each)
                        np.add(down, each.reshape(down.shape), down)
            return l1 * absolute + l2 * squares

        return pay

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1, "l2": self.l2}


class L1(L1L2):
    """l1·Σ|x|."""

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(l1=l1)

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1}


class L2(L1L2):
    """l2·Σx²."""

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(l2=l2)

    def get_config(self) -> dict[str, Any]:
        return {"l2": self.l2}


class OrthogonalRegularizer(Regularizer):
    """`factor` times the mean of |cosine| over all pairs of rows of a matrix (or columns): 0 if they are orthogonal.

    Args:
        mode: "rows" or "columns".
    """

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        self.factor = strength(self, "factor", factor)
        if mode not in ("rows", "columns"):
            raise InvalidInput(f"OrthogonalRegularizer(mode=…) is 'rows' or 'columns', not {mode!r}")
        self.mode = mode

    def check(self, where: str, shape: Shape) -> None:
        if len(shape) != 2:
            raise InvalidInput(f"{where}: OrthogonalRegularizer takes a matrix, not an array of the shape {shape}")

    def __call__(self, x: Array) -> float:
        x = np.asarray(x)
        self.check("OrthogonalRegularizer(x)", x.shape)
        return self.bind(x, None, 1.0, Workspace(x.dtype))()

    def gradient(self, x: Array) -> Array:
        slope = np.zeros_like(x)
        self.bind(x, slope, 1.0, Workspace(x.dtype))()
        return slope

    def bind(self, x: Array, slope: Array | None, scale: float, work: Workspace) -> Callable[[], float]:
        if self.mode == "columns":
            x, slope = x.T, None if slope is None else slope.T
        count = len(x)
        share = scale * self.factor / max(1, count * (count - 1))  # of each |cosine|; each pair stands there twice
        unit, down = work.take(x.shape), work.take(x.shape)
        cosines, signs = work.take((count, count)), work.take((count, count))
        size, along, part = work.take((count, 1)), work.take((count, 1)), work.take(x.shape)
        diagonal, flat, flat_signs = np.einsum("ii->i", cosines), cosines.reshape(-1), signs.reshape(-1)
        twice, least = np.array(2 * share, x.dtype), np.array(1e-7, x.dtype)  # Keras's epsilon

        def pay() -> float:
            np.multiply(x, x, unit)
            np.add.reduce(unit, 1, None, size, keepdims=True)
            np.sqrt(size, size)
            np.maximum(size, least, out=size)
            np.divide(x, size, unit)
            np.matmul(unit, unit.T, cosines)
            diagonal.fill(0)
            np.sign(cosines, signs)
            if slope is not None:
                np.matmul(signs, unit, down)
                np.multiply(down, twice, down)  # the gradient by the unit vectors; what points along them has no effect
                np.multiply(down, unit, part)
                np.add.reduce(part, 1, None, along, keepdims=True)
                np.multiply(unit, along, part)
                np.subtract(down, part, down)
                np.divide(down, size, down)
                np.add(slope, down, slope)
            return share * float(np.dot(flat, flat_signs))

        return pay

    def get_config(self) -> dict[str, Any]:
        return {"factor": self.factor, "mode": self.mode}


def strength(of: Regularizer, name: str, value: float) -> float:
    return number(f"{type(of).__name__}({name}=…)", value, least=0.0)


def blocks(x: Array, slope: Array | None) -> Iterator[tuple[Array, Array | None]]:
    """Both in parts of at most about BLOCK elements, in the order of memory."""
    if x.ndim == 2 and x.strides[0] < x.strides[1]:
        x, slope = x.T, None if slope is None else slope.T
    if x.flags.c_contiguous and (slope is None or slope.flags.c_contiguous):
        x, slope = x.reshape(-1), None if slope is None else slope.reshape(-1)
    rows = max(1, BLOCK // max(1, math.prod(x.shape[1:])))
    for begin in range(0, len(x), rows):
        yield x[begin : begin + rows], None if slope is None else slope[begin : begin + rows]


SPELLINGS: dict[str, type[Regularizer]] = {
    "l1": L1,
    "l2": L2,
    "l1_l2": L1L2,
    "orthogonal_regularizer": OrthogonalRegularizer,
}
TABLE = {fold(name): cls for name, cls in SPELLINGS.items()}


def get(given: RegularizerLike) -> Regularizer | None:
    """The regularizer for a name, a config `{"class_name", "config"}`, a regularizer, or None.

    Raises:
        InvalidInput: the name is unknown (the message has the nearest known one), or a function.
    """
    if given is None or isinstance(given, Regularizer):
        return given
    if isinstance(given, str):
        cls = the_users(given, Regularizer) or look_up("regularizer", given, TABLE, SPELLINGS)
        return L1L2(0.01, 0.01) if cls is L1L2 else cls()
    if isinstance(given, Mapping):
        name = str(given.get("class_name"))
        cls = the_users(name, Regularizer) or look_up("regularizer", name, TABLE, SPELLINGS)
        return cls.from_config(given.get("config") or {})
    if isinstance(given, type):
        return get(given())
    raise InvalidInput(
        f"a regularizer is a name or one of asyncfit.regularizers, not {given!r}; for a penalty of your own derive "
        "from asyncfit.regularizers.Regularizer and write __call__(x) and gradient(x)"
    )


def config(regularizer: Regularizer | None) -> dict[str, Any] | None:
    """`{"class_name", "config"}`, as Keras 2 and Keras 3 read it; None for none."""
    if regularizer is None:
        return None
    return {"class_name": type(regularizer).__name__, "config": regularizer.get_config()}

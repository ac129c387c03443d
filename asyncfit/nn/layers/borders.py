"""ZeroPadding and Cropping: zeros around images and sequences, or a border less."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Call, Shape
from asyncfit.nn.workspace import Place, planes

from .spatial import Spatial

__all__ = ["Cropping1D", "Cropping2D", "ZeroPadding1D", "ZeroPadding2D"]

Border = int | Sequence[int] | Sequence[Sequence[int]]
Pairs = tuple[tuple[int, int], ...]


class Borders(Spatial):
    """What the four share: how many lines there are before and behind, for each axis."""

    def settle(self, what: str, given: Border) -> Pairs:
        """An int for all sides; for 1D (before, behind); for 2D (high, wide) or ((top, bottom), (left, right))."""
        if isinstance(given, int | np.integer) and not isinstance(given, bool) and given >= 0:
            return ((int(given), int(given)),) * self.rank
        try:
            sides: Any = given if self.rank == 2 else (given,)
            pairs = tuple((side, side) if isinstance(side, int) else tuple(side) for side in sides)
        except TypeError:
            pairs = ()
        if len(pairs) != self.rank or any(
            len(pair) != 2 or not all(isinstance(n, int | np.integer) and n >= 0 for n in pair) for pair in pairs
        ):
            forms = "(before, behind)" if self.rank == 1 else "(high, wide) or ((top, bottom), (left, right))"
            kind = type(self).__name__
            raise InvalidInput(f"{kind}({what}=…) must be a whole number from 0, or {forms}, not {given!r}")
        return tuple((int(a), int(b)) for a, b in pairs)

    def get_config(self) -> dict[str, Any]:
        found = super().get_config()
        if self.rank == 1:
            del found["data_format"]  # Keras 2 does not know it there
        return found

    def in_config(self, pairs: Pairs) -> list[Any]:
        return [list(pair) for pair in pairs] if self.rank == 2 else list(pairs[0])

    def inner(self, array: Array, pairs: Pairs) -> Array:
        """What lies within the borders of an array `(height, channels, width, rows)`."""
        (top, bottom), (left, right) = pairs if self.rank == 2 else ((0, 0), pairs[0])
        return array[top : array.shape[0] - bottom, :, left : array.shape[2] - right]

    def clear(self, array: Array, pairs: Pairs) -> list[Call]:
        """Calls that fill the borders with zeros: four bars."""
        (top, bottom), (left, right) = pairs if self.rank == 2 else ((0, 0), pairs[0])
        low, end = array.shape[0] - bottom, array.shape[2] - right
        bars = array[:top], array[low:], array[top:low, :, :left], array[top:low, :, end:]
        return [partial(bar.fill, 0) for bar in bars if bar.size]


class ZeroPadding(Borders):
    """Zeros around: `padding` lines of them at each side."""

    def __init__(
        self,
        padding: Border = 1,
        data_format: str | None = None,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(data_format, name=name, input_shape=input_shape, trainable=trainable)
        self.padding = self.settle("padding", padding)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        self.check_rank(input_shape)
        grown = [size + sum(pair) for size, pair in zip(input_shape[:-1], self.padding, strict=True)]
        return (*grown, input_shape[-1])

    def plan(self, at: Place) -> None:
        y = planes(at.y)
        inner = self.inner(y, self.padding)
        at.forward += [*self.clear(y, self.padding), partial(np.copyto, inner, planes(at.x))]
        if at.dx is not None:
            assert at.dy is not None
            at.backward.append(partial(np.copyto, planes(at.dx), self.inner(planes(at.dy), self.padding)))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"padding": self.in_config(self.padding)}


class ZeroPadding1D(ZeroPadding):
    """Zeros around sequences: `padding` steps before and behind, or `(before, behind)`."""

    rank = 1


class ZeroPadding2D(ZeroPadding):
    """Zeros around images: `padding` lines at each side, `(high, wide)` or `((top, bottom), (left, right))`."""

    rank = 2


class Cropping(Borders):
    """A border less: `cropping` lines at each side go."""

    def __init__(
        self,
        cropping: Border,
        data_format: str | None,
        *,
        name: str | None,
        input_shape: int | Sequence[int] | None,
        trainable: bool,
    ) -> None:
        super().__init__(data_format, name=name, input_shape=input_shape, trainable=trainable)
        self.cropping = self.settle("cropping", cropping)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        self.check_rank(input_shape)
        left = [size - sum(pair) for size, pair in zip(input_shape[:-1], self.cropping, strict=True)]
        if min(left) < 1:
            raise InvalidInput(
                f"{self.who}: cropping={self.in_config(self.cropping)} leaves nothing of samples of shape {input_shape}"
            )
        return (*left, input_shape[-1])

    def plan(self, at: Place) -> None:
        at.forward.append(partial(np.copyto, planes(at.y), self.inner(planes(at.x), self.cropping)))
        if at.dx is not None:
            assert at.dy is not None
            dx = planes(at.dx)
            inner = self.inner(dx, self.cropping)
            at.backward += [*self.clear(dx, self.cropping), partial(np.copyto, inner, planes(at.dy))]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"cropping": self.in_config(self.cropping)}


class Cropping1D(Cropping):
    """Sequences without their first and last `cropping` steps, or `(before, behind)`."""

    rank = 1

    def __init__(
        self,
        cropping: Border = (1, 1),
        data_format: str | None = None,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(cropping, data_format, name=name, input_shape=input_shape, trainable=trainable)


class Cropping2D(Cropping):
    """Images without `cropping` lines at each side, `(high, wide)` or `((top, bottom), (left, right))`."""

    rank = 2

    def __init__(
        self,
        cropping: Border = ((0, 0), (0, 0)),
        data_format: str | None = None,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(cropping, data_format, name=name, input_shape=input_shape, trainable=trainable)

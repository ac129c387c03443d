"""Reshape, Permute, RepeatVector: the same numbers in another arrangement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Shape
from asyncfit.nn.naming import whole
from asyncfit.nn.workspace import Place

from .base import Layer

__all__ = ["Permute", "RepeatVector", "Reshape"]


def wholes(where: str, given: object) -> tuple[int, ...]:
    """A list of whole numbers as a tuple; an int is a list of one."""
    sizes = (given,) if isinstance(given, int | np.integer) else given
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise InvalidInput(f"{where} takes whole numbers, as in (3, 4), not {given!r}")
    if any(isinstance(size, bool) or not isinstance(size, int | np.integer) for size in sizes):
        raise InvalidInput(f"{where} takes whole numbers, as in (3, 4), not {given!r}")
    return tuple(int(size) for size in sizes)


class Reshape(Layer):
    """A sample's numbers in another shape, the last axis fastest: `(…)` → `target_shape`. It costs nothing.

    Args:
        target_shape: without the batch; one entry may be -1, whatever is left over.
    """

    def __init__(
        self,
        target_shape: int | Sequence[int],
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        self.target_shape = wholes("Reshape(target_shape=…)", target_shape)
        known = [size for size in self.target_shape if size != -1]
        if not self.target_shape or min(known, default=1) < 1 or len(known) < len(self.target_shape) - 1:
            raise InvalidInput(
                "Reshape(target_shape=…) takes sizes from 1 without the batch, of which one may be -1, "
                f"not {target_shape!r}"
            )

    def output_shape_for(self, input_shape: Shape) -> Shape:
        size, known = math.prod(input_shape), math.prod(s for s in self.target_shape if s != -1)
        shape = tuple(size // known if s == -1 else s for s in self.target_shape)
        if math.prod(shape) != size:
            raise InvalidInput(
                f"Reshape {self.name!r} cannot make {self.target_shape} of {input_shape}: "
                f"{known} and {size} numbers do not match"
            )
        return shape

    def passes(self, training: bool) -> bool:
        return True

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"target_shape": list(self.target_shape)}


class Permute(Layer):
    """The axes of a sample in another order: `dims` (2, 1) makes `(a, b)` into `(b, a)`. Axes count from 1."""

    def __init__(
        self,
        dims: Sequence[int],
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        self.dims = wholes("Permute(dims=…)", dims)
        if not self.dims or sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise InvalidInput(f"Permute(dims=…) names each axis of a sample once, from 1, as in (2, 1), not {dims!r}")

    def output_shape_for(self, input_shape: Shape) -> Shape:
        if len(input_shape) != len(self.dims):
            raise InvalidInput(
                f"Permute {self.name!r} orders {len(self.dims)} axes, but each sample has the shape {input_shape}"
            )
        return tuple(input_shape[dim - 1] for dim in self.dims)

    def passes(self, training: bool) -> bool:
        return list(self.dims) == sorted(self.dims)

    def plan(self, at: Place) -> None:
        axes = (0, *self.dims)
        at.forward.append(partial(np.copyto, at.y, at.x.transpose(axes)))
        if at.dx is not None:
            assert at.dy is not None
            at.backward.append(partial(np.copyto, at.dx.transpose(axes), at.dy))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"dims": list(self.dims)}


class RepeatVector(Layer):
    """Each vector `n` times, as a sequence: `(features,)` → `(n, features)`."""

    def __init__(
        self,
        n: int,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        self.n = whole("RepeatVector(n=…)", n, least=1)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise InvalidInput(f"RepeatVector {self.name!r} takes vectors, but each sample has the shape {input_shape}")
        return (self.n, *input_shape)

    def plan(self, at: Place) -> None:
        at.forward.append(partial(np.copyto, at.y, at.x[:, None]))
        if at.dx is not None:
            assert at.dy is not None
            at.backward.append(partial(np.add.reduce, at.dy, 1, None, at.dx))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"n": self.n}

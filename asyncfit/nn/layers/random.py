"""What layers with random numbers share: which stream is theirs, and where the numbers go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array
from asyncfit.nn.blocks import in_memory_order
from asyncfit.nn.naming import number, whole
from asyncfit.nn.workspace import Place

from .base import Layer

__all__ = ["Random", "in_a_line"]


class Random(Layer):
    """A layer that changes its input in training only. Its random numbers are a function of the run's seed, the fit,
    the layer, the epoch and the step; a `seed` of its own selects another stream for this layer.
    """

    supports_masking = True
    order = "any"

    def __init__(
        self,
        strength: str,
        value: float,
        seed: int | None,
        *,
        whole_range: bool = True,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        where = f"{type(self).__name__}({strength}=…)"
        self._strength = number(where, value, least=0.0)
        if self._strength > 1.0 or (self._strength == 1.0 and not whole_range):
            raise InvalidInput(f"{where} is a number from 0 {'to' if whole_range else 'and below'} 1, not {value!r}")
        self.seed = None if seed is None else whole(f"{type(self).__name__}(seed=…)", seed, least=0)

    def is_random(self) -> bool:
        return self._strength > 0.0

    def passes(self, training: bool) -> bool:
        return not training or self._strength == 0.0

    def stream(self, at: Place) -> int:
        """The layer's number in its purpose's streams."""
        return at.index if self.seed is None else at.index ^ (self.seed * 0x9E3779B1 + 1 & 0xFFFFFFFF)


def in_a_line(array: Array) -> Array:
    """All elements in the order of memory, for a generator to write."""
    line = in_memory_order(array).reshape(-1)
    assert np.shares_memory(line, array)
    return line

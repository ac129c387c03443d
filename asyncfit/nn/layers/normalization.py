"""Normalization: features get mean 0 and variance 1, by statistics of the data that were taken beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.activations import scalar
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.blocks import blocks
from asyncfit.nn.initializers import Initializer
from asyncfit.nn.moments import Moments
from asyncfit.nn.workspace import Place

from .base import Layer, Weight
from .rescaling import Numbers, numbers
from .reshape import wholes

__all__ = ["Normalization"]


class Given(Initializer):
    """Numbers that are known."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def fill(self, shape: Shape, rng: np.random.Generator) -> Array:
        return self.values.reshape(shape)


class Normalization(Layer):
    """y = (x - mean) / max(√variance, 1e-7), or with `invert` y = x · max(√variance, 1e-7) + mean.

    Mean and variance are given, or taken from data by `adapt`; until then they are 0 and 1. They are no settings to be
    trained: with `adapt` they are weights that no gradient changes (mean, variance, and Keras's count, which is 0).

    Args:
        axis: the axis or axes, from 1 or -1, along which each index has a mean and variance of its own; None: one mean
            and variance for all.
        mean, variance: both or none; they broadcast against the lengths of those axes.
        invert: from normalized values to those of the data.
    """

    supports_masking = True

    def __init__(
        self,
        axis: int | Sequence[int] | None = -1,
        mean: Numbers | None = None,
        variance: Numbers | None = None,
        invert: bool = False,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        self.axis = () if axis is None else wholes("Normalization(axis=…)", axis)
        if 0 in self.axis:
            raise InvalidInput("Normalization(axis=…) names axes of a sample, from 1 or -1; 0 is that of the batch")
        if (mean is None) != (variance is None):
            raise InvalidInput("Normalization takes mean and variance, or neither of them")
        self.invert = bool(invert)
        self.mean = None if mean is None else numbers("Normalization(mean=…)", mean)
        self.variance = None if variance is None else numbers("Normalization(variance=…)", variance)
        if self.mean is not None and self.variance is not None:
            if self.mean.shape != self.variance.shape or self.mean.ndim > len(self.axis):
                raise InvalidInput(
                    f"Normalization: mean has the shape {self.mean.shape} and variance {self.variance.shape}; they "
                    f"have the same, with at most one axis for each of axis={self.axis}"
                )
            if (self.variance < 0).any():
                raise InvalidInput("Normalization(variance=…) is not negative")
        self._found: Moments | None = None

    # Statistics

    def moments(self, input_shape: Shape) -> Moments:
        """To count samples of this shape in, and hand to `take`.

        Raises:
            InvalidInput: mean and variance were given, or the layer is for samples of another shape.
        """
        if self.mean is not None:
            raise InvalidInput(f"adapt: {self.name!r} was given its mean and variance")
        kept = self._kept(input_shape)
        if self.input_shape is not None:
            mine, given = (tuple(s[axis - 1] for axis in kept) for s in (self.input_shape, input_shape))
            if len(self.input_shape) != len(input_shape) or mine != given:
                raise InvalidInput(
                    f"adapt: {self.name!r} is built for samples of shape {self.input_shape}, not {input_shape}"
                )
        return Moments(input_shape, kept)

    def take(self, found: Moments) -> None:
        """Normalize by these from now on; they are the layer's weights, or become so when the model is built."""
        if not found.count:
            raise InvalidInput("adapt: there are no samples in the data")
        if self.arrays:
            self.arrays["mean"][...], self.arrays["variance"][...] = found.mean, found.variance
        self._found = found

    def _kept(self, input_shape: Shape) -> tuple[int, ...]:
        rank = len(input_shape) + 1
        found = sorted({axis % rank for axis in self.axis if -rank < axis < rank})
        if len(found) < len(self.axis) or 0 in found:
            raise InvalidInput(
                f"Normalization {self.name!r} has axis={self.axis}, but samples have the shape {input_shape}, "
                f"so axes go from 1 to {rank - 1}"
            )
        return tuple(found)

    def _broadcast(self, input_shape: Shape) -> Shape:
        """The shape of mean and variance against a sample."""
        kept = self._kept(input_shape)
        return tuple(size if axis in kept else 1 for axis, size in enumerate(input_shape, 1))

    # Arithmetic

    def weight_specs(self, input_shape: Shape) -> Sequence[Weight]:
        sizes = tuple(input_shape[axis - 1] for axis in self._kept(input_shape))
        if self.mean is not None:
            self._spread(self.mean, input_shape)
            return []
        mean, variance = np.zeros(sizes), np.ones(sizes)
        if self._found is not None:
            if self._found.mean.shape != sizes:
                raise InvalidInput(
                    f"Normalization {self.name!r} was adapted to samples of shape {self._found.shape}, but gets "
                    f"samples of shape {input_shape}"
                )
            mean, variance = self._found.mean, self._found.variance
        return [
            Weight("mean", sizes, Given(mean), trainable=False),
            Weight("variance", sizes, Given(variance), trainable=False),
            Weight("count", (), Given(np.zeros(())), trainable=False),
        ]

    def _spread(self, values: Array, input_shape: Shape) -> Array:
        """Given values against a sample; Keras lines them up with the last of the kept axes."""
        kept = self._kept(input_shape)
        shape = [1] * len(input_shape)
        for axis, size in zip(kept[::-1], values.shape[::-1], strict=False):
            shape[axis - 1] = size
        try:
            return np.broadcast_to(values.reshape(shape), self._broadcast(input_shape))
        except ValueError:
            raise InvalidInput(
                f"Normalization {self.name!r} has a mean of shape {values.shape}, which does not fit axis={self.axis} "
                f"of samples of shape {input_shape}"
            ) from None

    def plan(self, at: Place) -> None:
        shape = at.x.shape[1:]
        if self.mean is not None and self.variance is not None:
            mean, variance = (self._spread(v, shape).astype(at.x.dtype) for v in (self.mean, self.variance))
        else:
            mean, variance = (at.weights[name].reshape(self._broadcast(shape)) for name in ("mean", "variance"))
        whole = at.x.ndim > 2 and mean.size > 1  # one long inner loop for each sample
        size = shape if whole else mean.shape
        shift, factor = at.take((1, *size)), at.take((1, *size))
        at.forward += [
            partial(np.copyto, shift, mean),
            partial(np.copyto, factor, variance),
            partial(np.sqrt, factor, factor),
            partial(np.maximum, factor, scalar(1e-7, at.x), out=factor),
        ]
        for x, y in blocks(at.x, at.y):
            if self.invert:
                at.forward += [partial(np.multiply, x, factor, y), partial(np.add, y, shift, y)]
            else:
                at.forward += [partial(np.subtract, x, shift, y), partial(np.divide, y, factor, y)]
        if at.dx is not None:
            assert at.dy is not None
            at.backward.append(partial(np.multiply if self.invert else np.divide, at.dy, factor, at.dx))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "axis": list(self.axis),
            "invert": self.invert,
            "mean": None if self.mean is None else self.mean.tolist(),
            "variance": None if self.variance is None else self.variance.tolist(),
        }

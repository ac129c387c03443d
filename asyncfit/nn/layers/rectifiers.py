"""ReLU, LeakyReLU, ELU, Softmax: activations with settings, as layers. The plan puts them behind their input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn import activations
from asyncfit.nn.activations import Activation, scalar
from asyncfit.nn.arrays import Array, Call, Shape
from asyncfit.nn.naming import number
from asyncfit.nn.workspace import Workspace

from .base import Layer
from .reshape import wholes

__all__ = ["ELU", "LeakyReLU", "ReLU", "Softmax"]


class Rectifier(Activation):
    """z between threshold and the largest value, which cuts it; negative_slope·(z − threshold) below threshold."""

    name = "rectifier"

    def __init__(self, max_value: float | None, negative_slope: float, threshold: float) -> None:
        self.max_value, self.negative_slope, self.threshold = max_value, negative_slope, threshold

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        zero, threshold = scalar(0, z), scalar(self.threshold, z)
        calls: list[Call] = [partial(np.maximum, z, zero, out=y)]
        if self.threshold:
            calls = [partial(np.greater, z, threshold, y), partial(np.multiply, z, y, y)]
        if self.max_value is not None:
            calls.append(partial(np.minimum, y, scalar(self.max_value, z), out=y))
        if self.negative_slope:
            below = work.like(z)
            calls += [
                partial(np.subtract, z, threshold, below),
                partial(np.minimum, below, zero, out=below),
                partial(np.multiply, below, scalar(self.negative_slope, z), below),
                partial(np.add, y, below, y),
            ]
        return calls

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope, threshold = work.like(dy), scalar(self.threshold, z)
        calls: list[Call] = [partial(np.greater, z, threshold, slope)]
        if self.max_value is not None:
            below = work.like(dy)
            calls += [
                partial(np.less, z, scalar(self.max_value, z), below),
                partial(np.multiply, slope, below, slope),
            ]
        if self.negative_slope:
            leak = work.like(dy)
            calls += [
                partial(np.less, z, threshold, leak),
                partial(np.multiply, leak, scalar(self.negative_slope, z), leak),
                partial(np.add, slope, leak, slope),
            ]
        return [*calls, partial(np.multiply, dy, slope, dy)]


class Exponential(Activation):
    """y = z above 0, alpha·(e^z − 1) below."""

    name = "elu_with_alpha"

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        below, zero = work.like(z), scalar(0, z)
        return [
            partial(np.minimum, z, zero, out=below),
            partial(np.expm1, below, below),
            partial(np.multiply, below, scalar(self.alpha, z), below),
            partial(np.maximum, z, zero, out=y),
            partial(np.add, y, below, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        slope, above, one = work.like(dy), work.like(dy, np.bool_), scalar(1, z)  # y + alpha below 0
        return [
            partial(np.add, y, scalar(self.alpha, z), slope),
            partial(np.greater, z, scalar(0, z), above),
            partial(np.copyto, slope, one, where=above),
            partial(np.multiply, dy, slope, dy),
        ]


class SoftmaxAlong(Activation):
    """y = e^z / Σ e^z along any axes but the batch."""

    name = "softmax_along"

    def __init__(self, axes: tuple[int, ...]) -> None:
        self.axes = axes

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        each = self._each(z, work)
        return [
            partial(np.maximum.reduce, z, self.axes, out=each, keepdims=True),
            partial(np.subtract, z, each, y),
            partial(np.exp, y, y),
            partial(np.add.reduce, y, self.axes, out=each, keepdims=True),
            partial(np.divide, y, each, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        scratch, each = work.like(dy), self._each(dy, work)
        return [
            partial(np.multiply, dy, y, scratch),
            partial(np.add.reduce, scratch, self.axes, out=each, keepdims=True),
            partial(np.subtract, dy, each, dy),
            partial(np.multiply, dy, y, dy),
        ]

    def _each(self, like: Array, work: Workspace) -> Array:
        axes = {axis % like.ndim for axis in self.axes}
        return work.take([1 if i in axes else size for i, size in enumerate(like.shape)])


class ReLU(Layer):
    """y = max_value from there on; x from threshold on; negative_slope·(x − threshold) below."""

    supports_masking = True

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        self.max_value = None if max_value is None else number("ReLU(max_value=…)", max_value, least=0.0)
        self.negative_slope = number("ReLU(negative_slope=…)", negative_slope, least=0.0)
        self.threshold = number("ReLU(threshold=…)", threshold, least=0.0)
        plain = self.max_value is None and not self.threshold
        if plain and not self.negative_slope:
            self.activation = activations.relu
        else:
            self.activation = Rectifier(self.max_value, self.negative_slope, self.threshold)

    def passes(self, training: bool) -> bool:
        return True

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "max_value": self.max_value,
            "negative_slope": self.negative_slope,
            "threshold": self.threshold,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """TF.js leaves out what was not given, or writes null."""
        return super().from_config({key: value for key, value in config.items() if value is not None})


class LeakyReLU(Layer):
    """y = x above 0, negative_slope·x below. As a layer the default is 0.3, as a function 0.2.

    Files call the slope `alpha`, which Keras 2, Keras 3 and TF.js all read.
    """

    supports_masking = True

    def __init__(
        self,
        negative_slope: float = 0.3,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        slope = self.negative_slope = number("LeakyReLU(negative_slope=…)", negative_slope, least=0.0)
        self.activation = activations.LeakyReLU(slope) if slope < 1.0 else Rectifier(None, slope, 0.0)

    def passes(self, training: bool) -> bool:
        return True

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"alpha": self.negative_slope}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        config = dict(config)
        if "alpha" in config:
            config["negative_slope"] = config.pop("alpha")
        return super().from_config(config)


class ELU(Layer):
    """y = x above 0, alpha·(e^x − 1) below."""

    supports_masking = True

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        self.alpha = number("ELU(alpha=…)", alpha)
        self.activation = activations.elu if self.alpha == 1.0 else Exponential(self.alpha)

    def passes(self, training: bool) -> bool:
        return True

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"alpha": self.alpha}


class Softmax(Layer):
    """y = e^x / Σ e^x along `axis`, one or several, not the batch's (0). Losses take it as they do the activation."""

    supports_masking = True

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        self.axis: int | list[int] = axis if isinstance(axis, int) else list(wholes("Softmax(axis=…)", axis))
        axes = wholes("Softmax(axis=…)", axis)
        if not axes or 0 in axes or len(set(axes)) < len(axes):
            raise InvalidInput(f"Softmax(axis=…) names axes of a sample, from 1 or -1, each once, not {axis!r}")
        self.activation = activations.softmax if axes == (-1,) else SoftmaxAlong(axes)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        rank = len(input_shape) + 1
        if isinstance(self.activation, SoftmaxAlong):
            axes = [axis % rank for axis in self.activation.axes if -rank < axis < rank]
            if len(set(axes)) < len(self.activation.axes):
                raise InvalidInput(
                    f"Softmax {self.name!r} has the axis {self.axis}, but samples have the shape {input_shape}, "
                    f"so axes go from 1 to {rank - 1}"
                )
        return input_shape

    def passes(self, training: bool) -> bool:
        return True

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axis": self.axis}

"""ReLU, LeakyReLU, ELU, Softmax: activations with settings, as layers. The plan puts them behind their input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from asyncfit.errors import InvalidInput
from asyncfit.nn import activations
from asyncfit.nn.arrays import Shape
from asyncfit.nn.naming import number

from .base import Layer
from .reshape import wholes

__all__ = ["ELU", "LeakyReLU", "ReLU", "Softmax"]


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
        self.activation = activations.ReLU(self.negative_slope, self.max_value, self.threshold)

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
        self.negative_slope = number("LeakyReLU(negative_slope=…)", negative_slope, least=0.0)
        self.activation = activations.LeakyReLU(self.negative_slope)

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
        self.activation = activations.ELU(self.alpha)

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
        self.activation = activations.softmax if axes == (-1,) else activations.Softmax(axes)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        rank = len(input_shape) + 1
        if self.activation is not activations.softmax:
            given = wholes("Softmax(axis=…)", self.axis)
            if len({axis % rank for axis in given if -rank < axis < rank}) < len(given):
                raise InvalidInput(
                    f"Softmax {self.name!r} has the axis {self.axis}, but samples have the shape {input_shape}, "
                    f"so axes go from 1 to {rank - 1}"
                )
        return input_shape

    def passes(self, training: bool) -> bool:
        return True

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"axis": self.axis}

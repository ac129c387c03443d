"""Conv1D and Conv2D: y = activation(correlation of x with a kernel + bias)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn import activations, constraints, initializers, regularizers
from asyncfit.nn.activations import ActivationLike
from asyncfit.nn.arrays import Array, Call, Shape
from asyncfit.nn.constraints import ConstraintLike
from asyncfit.nn.correlation import Correlation
from asyncfit.nn.initializers import InitializerLike
from asyncfit.nn.naming import whole
from asyncfit.nn.pooled import PooledCorrelation
from asyncfit.nn.regularizers import RegularizerLike
from asyncfit.nn.windows import Window
from asyncfit.nn.workspace import Place, planes

from .base import Layer, Weight
from .max_pooling import MaxPooling
from .spatial import Sizes, Spatial, one_padding, sizes

__all__ = ["Conv1D", "Conv2D"]

MONOTONIC = ("linear", "relu")
"""What may as well be computed after the greatest element of a pool was chosen."""


class Convolution(Spatial):
    """What Conv1D and Conv2D share."""

    paddings: tuple[str, ...] = ("valid", "same")
    off_options = dict.fromkeys(("lora_alpha", "lora_rank", "quantization_config"))

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        groups: int = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        kernel_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        kernel_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        kernel_constraint: ConstraintLike = None,
        bias_constraint: ConstraintLike = None,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(
            data_format,
            name=name,
            input_shape=input_shape,
            trainable=trainable,
            activity_regularizer=activity_regularizer,
        )
        kind = type(self).__name__
        self.filters = whole(f"{kind}(filters=…)", filters, least=1)
        self.kernel_size = sizes(f"{kind}(kernel_size=…)", kernel_size, self.rank)
        self.strides = sizes(f"{kind}(strides=…)", strides, self.rank)
        self.padding = one_padding(f"{kind}(padding=…)", padding, self.paddings)
        self.dilation_rate = sizes(f"{kind}(dilation_rate=…)", dilation_rate, self.rank)
        self.groups = whole(f"{kind}(groups=…)", groups, least=1)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise InvalidInput(f"{kind}: strides={strides!r} and dilation_rate={dilation_rate!r} do not go together")
        if self.filters % self.groups:
            raise InvalidInput(f"{kind}: filters={filters} must be a multiple of groups={groups}")
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def weight_specs(self, input_shape: Shape) -> Sequence[Weight]:
        kernel = self.weight("kernel", (*self.kernel_size, input_shape[-1] // self.groups, self.filters))
        return [kernel, self.weight("bias", (self.filters,))] if self.use_bias else [kernel]

    def windows_over(self, input_shape: Shape) -> tuple[Window, Window]:
        """The windows over height and width."""
        self.check_rank(input_shape)
        if input_shape[-1] % self.groups:
            raise InvalidInput(
                f"{self.who}: the channels of samples of shape {input_shape} cannot be divided into "
                f"groups={self.groups}"
            )
        return self.windows(input_shape, self.kernel_size, self.strides, self.dilation_rate, self.padding)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        counts = [w.count for w in self.windows_over(input_shape)]
        return (*counts[-self.rank :], self.filters)

    def plan(self, at: Place) -> None:
        assert self.input_shape is not None
        high, wide = self.windows_over(self.input_shape)
        correlation = Correlation(at, high, wide, self.input_shape[-1], self.filters, self.groups)
        kernel, y = as_2d(at.weights["kernel"]), planes(at.y)
        lines = y.reshape(1, *y.shape[:2], -1)
        at.forward += correlation.gather(planes(at.x))
        at.forward.append(correlation.product(kernel, lines))
        if self.use_bias:
            at.forward.append(partial(np.add, lines, at.weights["bias"][:, None], lines))
        if at.dy is None:
            return
        dy = planes(at.dy).reshape(lines.shape)
        if at.grads:
            at.backward += correlation.kernel_gradient(dy, as_2d(at.grads["kernel"]))
            if self.use_bias:
                at.backward += bias_gradient(at, dy[0], at.grads["bias"])
        if at.dx is not None:
            at.backward += correlation.spread(kernel, dy, planes(at.dx))

    # With the pooling behind it

    def absorbs(self, following: Layer) -> bool:
        return (
            isinstance(following, MaxPooling)
            and following.rank == self.rank
            and following.strides == following.pool_size
            and following.padding == "valid"
            and self.activation.name in MONOTONIC
            and self.activity_regularizer is None
        )

    def plan_with(self, at: Place, following: Layer) -> None:
        """The maximum comes before bias and relu, which changes no value but leaves them a part of the elements."""
        assert isinstance(following, MaxPooling)
        assert self.input_shape is not None
        assert following.input_shape is not None
        pools = following.windows_over(following.input_shape)
        pooled = PooledCorrelation(
            at, self.windows_over(self.input_shape), pools, self.input_shape[-1], self.filters, self.groups
        )
        bias = at.weights["bias"] if self.use_bias else None
        pooled.forward(as_2d(at.weights["kernel"]), bias)
        if at.dy is None:
            return
        dy = planes(at.dy)
        if at.grads and self.use_bias:
            at.backward += bias_gradient(at, dy.reshape(*dy.shape[:2], -1), at.grads["bias"])
        pooled.backward(as_2d(at.weights["kernel"]), as_2d(at.grads["kernel"]) if at.grads else None)

    def get_config(self) -> dict[str, Any]:
        return {
            "activity_regularizer": None,
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": list(self.kernel_size),
            "strides": list(self.strides),
            "padding": self.padding,
            "dilation_rate": list(self.dilation_rate),
            "groups": self.groups,
            "activation": activations.config(self.activation),
            "use_bias": self.use_bias,
            **self.weight_config("kernel", "bias"),
        }


class Conv1D(Convolution):
    """y[o, f] = activation(Σ x[o·stride + i·dilation, c] · kernel[i, c, f] + bias[f]) over steps `(steps, channels)`.

    Weights: kernel `(kernel_size, channels / groups, filters)`, bias `(filters,)`. padding: "valid", "same" (⌈steps /
    strides⌉ outputs), or "causal" (as many; no output depends on later steps). Settings and defaults are Keras's.
    """

    rank = 1
    paddings = ("valid", "same", "causal")


class Conv2D(Convolution):
    """y[o, p, f] = activation(Σ x[o·s + i·d, p·s + j·d, c] · kernel[i, j, c, f] + bias[f]), x `(height, width, c)`.

    Weights: kernel `(*kernel_size, channels / groups, filters)`, bias `(filters,)`. padding: "valid", or "same" (⌈size
    / strides⌉ outputs, the odd line of padding at the end). Settings and defaults are Keras's.

    With max pooling behind it (windows side by side, no padding) the two are computed together, line by line.
    """

    rank = 2


def as_2d(kernel: Array) -> Array:
    """A kernel `(taps high, taps wide, channels, filters)`; a sequence's is one tap high."""
    return kernel if kernel.ndim == 4 else kernel[None]


def bias_gradient(at: Place, dy: Array, gradient: Array) -> list[Call]:
    """Calls that sum `dy`, `(height, channels, columns)`, for each channel."""
    each = at.take(dy.shape[:2])
    return [partial(np.add.reduce, dy, -1, None, each), partial(np.add.reduce, each, 0, None, gradient)]

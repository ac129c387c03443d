"""DepthwiseConv and SeparableConv: each channel has kernels of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn import activations, constraints, initializers, regularizers
from asyncfit.nn.activations import ActivationLike
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.constraints import ConstraintLike
from asyncfit.nn.correlation import Correlation
from asyncfit.nn.initializers import InitializerLike
from asyncfit.nn.naming import whole
from asyncfit.nn.regularizers import RegularizerLike
from asyncfit.nn.windows import Window
from asyncfit.nn.workspace import Place, planes

from .base import Weight
from .conv import as_2d, bias_gradient
from .spatial import Sizes, Spatial, one_padding, sizes

__all__ = ["DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"]


class ByChannel(Spatial):
    """What they share: windows, and kernels `(*kernel_size, channels, depth_multiplier)`, a group for each channel."""

    off_options: ClassVar[Mapping[str, object]] = {"groups": 1}  # Keras 2 writes it
    kernel_size: Shape
    strides: Shape
    padding: str
    dilation_rate: Shape
    depth_multiplier: int
    use_bias: bool

    def settle(
        self, kernel_size: Sizes, strides: Sizes, padding: str, dilation_rate: Sizes, depth_multiplier: int
    ) -> None:
        kind = type(self).__name__
        self.kernel_size = sizes(f"{kind}(kernel_size=…)", kernel_size, self.rank)
        self.strides = sizes(f"{kind}(strides=…)", strides, self.rank)
        self.padding = one_padding(f"{kind}(padding=…)", padding, self.paddings)
        self.dilation_rate = sizes(f"{kind}(dilation_rate=…)", dilation_rate, self.rank)
        self.depth_multiplier = whole(f"{kind}(depth_multiplier=…)", depth_multiplier, least=1)
        if max(self.strides) > 1 and max(self.dilation_rate) > 1:
            raise InvalidInput(f"{kind}: strides={strides!r} and dilation_rate={dilation_rate!r} do not go together")

    @property
    def paddings(self) -> tuple[str, ...]:
        return ("valid", "same")

    def windows_over(self, input_shape: Shape) -> tuple[Window, Window]:
        """The windows over height and width."""
        self.check_rank(input_shape)
        return self.windows(input_shape, self.kernel_size, self.strides, self.dilation_rate, self.padding)

    def correlation(self, at: Place) -> Correlation:
        assert self.input_shape is not None
        channels = self.input_shape[-1]
        high, wide = self.windows_over(self.input_shape)
        return Correlation(at, high, wide, channels, channels * self.depth_multiplier, channels)

    def get_config(self) -> dict[str, Any]:
        return {
            "activity_regularizer": None,
            **super().get_config(),
            "kernel_size": list(self.kernel_size),
            "strides": list(self.strides),
            "padding": self.padding,
            "dilation_rate": list(self.dilation_rate),
            "depth_multiplier": self.depth_multiplier,
            "activation": activations.config(self.activation),
            "use_bias": self.use_bias,
        }


def as_groups(kernel: Array) -> Array:
    """A kernel `(taps high, taps wide, channels, multiplier)` as `(taps high, taps wide, 1, channels·multiplier)`."""
    kernel = as_2d(kernel)
    return kernel.reshape(*kernel.shape[:2], 1, -1)


class DepthwiseConv(ByChannel):
    """y[…, c·m + k] = activation(Σ x[…, c] · kernel[…, c, k] + bias): `depth_multiplier` m kernels for each channel c.

    Weights: kernel `(*kernel_size, channels, depth_multiplier)`, bias `(channels · depth_multiplier,)`. Windows are
    those of Conv1D and Conv2D. Settings and defaults are Keras's.
    """

    def __init__(
        self,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        depth_multiplier: int = 1,
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        depthwise_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        depthwise_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        depthwise_constraint: ConstraintLike = None,
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
        self.settle(kernel_size, strides, padding, dilation_rate, depth_multiplier)
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.depthwise_constraint = constraints.get(depthwise_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def weight_specs(self, input_shape: Shape) -> Sequence[Weight]:
        channels = input_shape[-1]
        kernel = self.weight("kernel", (*self.kernel_size, channels, self.depth_multiplier), of="depthwise")
        return [kernel, self.weight("bias", (channels * self.depth_multiplier,))] if self.use_bias else [kernel]

    def output_shape_for(self, input_shape: Shape) -> Shape:
        counts = [w.count for w in self.windows_over(input_shape)]
        return (*counts[-self.rank :], input_shape[-1] * self.depth_multiplier)

    def plan(self, at: Place) -> None:
        correlation = self.correlation(at)
        kernel, y = as_groups(at.weights["kernel"]), planes(at.y)
        lines = y.reshape(1, *y.shape[:2], -1)
        at.forward += correlation.gather(planes(at.x))
        at.forward.append(correlation.product(kernel, lines))
        if self.use_bias:
            at.forward.append(partial(np.add, lines, at.weights["bias"][:, None], lines))
        if at.dy is None:
            return
        dy = planes(at.dy).reshape(lines.shape)
        if at.grads:
            at.backward += correlation.kernel_gradient(dy, as_groups(at.grads["kernel"]))
            if self.use_bias:
                at.backward += bias_gradient(at, dy[0], at.grads["bias"])
        if at.dx is not None:
            at.backward += correlation.spread(kernel, dy, planes(at.dx))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | self.weight_config("depthwise", "bias")


class DepthwiseConv1D(DepthwiseConv):
    __doc__ = DepthwiseConv.__doc__
    rank = 1


class DepthwiseConv2D(DepthwiseConv):
    __doc__ = DepthwiseConv.__doc__
    rank = 2


class SeparableConv(ByChannel):
    """A depthwise convolution, then one with a kernel of size 1 over all that it gives, bias and activation.

    Weights: depthwise_kernel `(*kernel_size, channels, depth_multiplier)`, pointwise_kernel `(1, …, channels ·
    depth_multiplier, filters)`, bias `(filters,)`. Windows are those of Conv1D and Conv2D. Settings are Keras's.
    """

    ignored_options = (
        *Spatial.ignored_options,
        *("kernel_initializer", "kernel_regularizer", "kernel_constraint"),  # Keras 2 writes them, and has no kernel
    )

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
        depth_multiplier: int = 1,
        activation: ActivationLike = None,
        use_bias: bool = True,
        depthwise_initializer: InitializerLike = "glorot_uniform",
        pointwise_initializer: InitializerLike = "glorot_uniform",
        bias_initializer: InitializerLike = "zeros",
        depthwise_regularizer: RegularizerLike = None,
        pointwise_regularizer: RegularizerLike = None,
        bias_regularizer: RegularizerLike = None,
        activity_regularizer: RegularizerLike = None,
        depthwise_constraint: ConstraintLike = None,
        pointwise_constraint: ConstraintLike = None,
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
        self.filters = whole(f"{type(self).__name__}(filters=…)", filters, least=1)
        self.settle(kernel_size, strides, padding, dilation_rate, depth_multiplier)
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.pointwise_initializer = initializers.get(pointwise_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.depthwise_regularizer = regularizers.get(depthwise_regularizer)
        self.pointwise_regularizer = regularizers.get(pointwise_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.depthwise_constraint = constraints.get(depthwise_constraint)
        self.pointwise_constraint = constraints.get(pointwise_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    @property
    def paddings(self) -> tuple[str, ...]:
        return ("valid", "same", "causal") if self.rank == 1 else ("valid", "same")

    def weight_specs(self, input_shape: Shape) -> Sequence[Weight]:
        channels, ones = input_shape[-1], (1,) * self.rank
        many = channels * self.depth_multiplier
        kernels = [
            self.weight("depthwise_kernel", (*self.kernel_size, channels, self.depth_multiplier), of="depthwise"),
            self.weight("pointwise_kernel", (*ones, many, self.filters), of="pointwise"),
        ]
        return [*kernels, self.weight("bias", (self.filters,))] if self.use_bias else kernels

    def output_shape_for(self, input_shape: Shape) -> Shape:
        counts = [w.count for w in self.windows_over(input_shape)]
        return (*counts[-self.rank :], self.filters)

    def plan(self, at: Place) -> None:
        correlation = self.correlation(at)
        kernel, y = as_groups(at.weights["depthwise_kernel"]), planes(at.y)
        lines = y.reshape(y.shape[0], self.filters, -1)
        between = at.take((1, lines.shape[0], correlation.filters, lines.shape[-1]))
        mixing = at.weights["pointwise_kernel"].reshape(-1, self.filters)
        at.forward += correlation.gather(planes(at.x))
        at.forward += [correlation.product(kernel, between), partial(np.matmul, mixing.T, between[0], lines)]
        if self.use_bias:
            at.forward.append(partial(np.add, lines, at.weights["bias"][:, None], lines))
        if at.dy is None:
            return
        dy = planes(at.dy).reshape(lines.shape)
        d_between = at.take(between.shape)
        if at.grads:
            each = at.take((len(lines), *mixing.shape))
            at.backward += [
                partial(np.matmul, between[0], dy.swapaxes(1, 2), each),
                partial(np.add.reduce, each, 0, None, at.grads["pointwise_kernel"].reshape(mixing.shape)),
            ]
            if self.use_bias:
                at.backward += bias_gradient(at, dy, at.grads["bias"])
        at.backward.append(partial(np.matmul, mixing, dy, d_between[0]))
        if at.grads:
            at.backward += correlation.kernel_gradient(d_between, as_groups(at.grads["depthwise_kernel"]))
        if at.dx is not None:
            at.backward += correlation.spread(kernel, d_between, planes(at.dx))

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "filters": self.filters,
            **self.weight_config("depthwise", "pointwise", "bias"),
        }


class SeparableConv1D(SeparableConv):
    __doc__ = SeparableConv.__doc__
    rank = 1


class SeparableConv2D(SeparableConv):
    __doc__ = SeparableConv.__doc__
    rank = 2

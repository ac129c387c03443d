"""Conv1DTranspose and Conv2DTranspose: from something that has the shape of a convolution's output to its input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn import activations, constraints, initializers, regularizers
from asyncfit.nn.activations import ActivationLike
from asyncfit.nn.arrays import Shape
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

__all__ = ["Conv1DTranspose", "Conv2DTranspose"]


class ConvTranspose(Spatial):
    """Each input element adds its multiple of the kernel to a window of the output; then bias and activation.

    Weights: kernel `(*kernel_size, filters, channels)`, bias `(filters,)`. Windows are `strides` apart. With padding
    "same" the output is `strides` times as large as the input; with "valid" it is all that windows reach, (size − 1) ·
    stride + max(kernel, stride). `output_padding` sets another size: what "valid" windows reach, or "same" ones keep of
    an odd kernel, and that many lines more. Settings and defaults are Keras's.
    """

    off_options: ClassVar[Mapping[str, object]] = {"groups": 1}  # Keras 2 writes it

    def __init__(
        self,
        filters: int,
        kernel_size: Sizes,
        strides: Sizes = 1,
        padding: str = "valid",
        output_padding: Sizes | None = None,
        data_format: str | None = None,
        dilation_rate: Sizes = 1,
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
        self.padding = one_padding(f"{kind}(padding=…)", padding)
        self.output_padding = (
            None if output_padding is None else sizes(f"{kind}(output_padding=…)", output_padding, self.rank, least=0)
        )
        self.dilation_rate = sizes(f"{kind}(dilation_rate=…)", dilation_rate, self.rank)
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def weight_specs(self, input_shape: Shape) -> Sequence[Weight]:
        kernel = self.weight("kernel", (*self.kernel_size, self.filters, input_shape[-1]))
        return [kernel, self.weight("bias", (self.filters,))] if self.use_bias else [kernel]

    def windows_over(self, input_shape: Shape) -> list[Window]:
        """The windows over the output's axes, one for each input element."""
        self.check_rank(input_shape)
        more = self.output_padding or (None,) * self.rank
        found = [
            window_onto(size, taps, stride, dilation, self.padding, extra)
            for size, taps, stride, dilation, extra in zip(
                input_shape[:-1], self.kernel_size, self.strides, self.dilation_rate, more, strict=True
            )
        ]
        if min(w.size for w in found) < 1:
            raise InvalidInput(
                f"{self.who} got samples of shape {input_shape}, of which output_padding={self.output_padding} leaves "
                "nothing; choose more"
            )
        return found

    def output_shape_for(self, input_shape: Shape) -> Shape:
        return (*(w.size for w in self.windows_over(input_shape)), self.filters)

    def plan(self, at: Place) -> None:
        assert self.input_shape is not None
        found = self.windows_over(self.input_shape)
        high, wide = (found[0], found[1]) if self.rank == 2 else (Window(1, 1, 1, 1, 0, 1), found[0])
        correlation = Correlation(at, high, wide, self.filters, self.input_shape[-1])
        kernel, x, y = as_2d(at.weights["kernel"]), planes(at.x), planes(at.y)
        lines = x.reshape(1, *x.shape[:2], -1)
        at.forward += correlation.spread(kernel, lines, y)
        if self.use_bias:
            at.forward.append(partial(np.add, y, at.weights["bias"][:, None, None], y))
        if at.dy is None:
            return
        dy = planes(at.dy)
        if at.grads and self.use_bias:
            at.backward += bias_gradient(at, dy.reshape(*dy.shape[:2], -1), at.grads["bias"])
        if at.grads or at.dx is not None:
            at.backward += correlation.gather(dy)
        if at.grads:
            at.backward += correlation.kernel_gradient(lines, as_2d(at.grads["kernel"]))
        if at.dx is not None:
            dx = planes(at.dx)
            at.backward.append(correlation.product(kernel, dx.reshape(lines.shape)))

    def get_config(self) -> dict[str, Any]:
        return {
            "activity_regularizer": None,
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": list(self.kernel_size),
            "strides": list(self.strides),
            "padding": self.padding,
            "output_padding": None if self.output_padding is None else list(self.output_padding),
            "dilation_rate": list(self.dilation_rate),
            "activation": activations.config(self.activation),
            "use_bias": self.use_bias,
            **self.weight_config("kernel", "bias"),
        }


class Conv1DTranspose(ConvTranspose):
    __doc__ = ConvTranspose.__doc__
    rank = 1


class Conv2DTranspose(ConvTranspose):
    __doc__ = ConvTranspose.__doc__
    rank = 2


def window_onto(size: int, taps: int, stride: int, dilation: int, padding: str, extra: int | None) -> Window:
    """The windows of `size` input elements over the output, as Keras places them with every backend."""
    extent = (taps - 1) * dilation + 1
    if padding == "valid":
        extra = max(extent, stride) - extent if extra is None else extra
        return Window((size - 1) * stride + extent + extra, taps, stride, dilation, 0, size)
    padded = stride + extent - 2 if extra is None else extent + extent % 2 - 2 + extra
    before = extent - 1 - min((padded + 1) // 2, extent - 1)
    grown = size * stride if extra is None else (size - 1) * stride + extent % 2 + extra
    return Window(grown, taps, stride, dilation, before, size)

"""Dense: y = activation(x · kernel + bias)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn import activations, constraints, initializers, regularizers
from asyncfit.nn.activations import ActivationLike
from asyncfit.nn.arrays import Array, Call, Shape
from asyncfit.nn.constraints import ConstraintLike
from asyncfit.nn.initializers import InitializerLike
from asyncfit.nn.naming import whole
from asyncfit.nn.regularizers import RegularizerLike
from asyncfit.nn.workspace import Place, joined

from .base import Layer, Weight

__all__ = ["Dense"]


class Dense(Layer):
    """y = activation(x · kernel + bias), along the last axis: `(…, features)` → `(…, units)`.

    Weights: kernel `(features, units)`, bias `(units,)`. They lie behind each other in the flat array, so that for
    vectors one product with a column of ones behind x gives x · kernel + bias, and one gives both gradients.
    """

    supports_masking = True

    off_options: ClassVar[Mapping[str, object]] = dict.fromkeys(("lora_alpha", "lora_rank", "quantization_config"))

    def __init__(
        self,
        units: int,
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
            name=name, input_shape=input_shape, trainable=trainable, activity_regularizer=activity_regularizer
        )
        self.units = whole("Dense(units=…)", units, least=1)
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)

    def weight_specs(self, input_shape: Shape) -> Sequence[Weight]:
        if not input_shape:
            raise InvalidInput(
                f"{self.name!r} ({type(self).__name__}) takes rows of at least one number, but each sample is a single "
                "number; give x the shape (samples, 1): x.reshape(-1, 1)"
            )
        kernel = self.weight("kernel", (input_shape[-1], self.units))
        return [kernel, self.weight("bias", (self.units,))] if self.use_bias else [kernel]

    def output_shape_for(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def wants_ones(self, input_shape: Shape) -> bool:
        return self.use_bias and len(input_shape) == 1

    def plan(self, at: Place) -> None:
        kernel = at.weights["kernel"]
        x, y = matrix(at.x), matrix(at.y)
        if at.ones is not None:
            at.forward += product(at, at.ones, joined(kernel, at.weights["bias"]), y)
        else:
            at.forward += product(at, x, kernel, y)
            if self.use_bias:
                at.forward.append(partial(np.add, y, at.weights["bias"], y))
        if at.dy is None:
            return
        dy = matrix(at.dy)
        if at.grads:
            kernel_grad = at.grads["kernel"]
            if at.ones is not None:
                at.backward += product(at, at.ones.T, dy, joined(kernel_grad, at.grads["bias"]))
            else:
                at.backward += product(at, x.T, dy, kernel_grad)
                if self.use_bias:
                    at.backward.append(partial(np.add.reduce, dy, 0, None, at.grads["bias"]))
        if at.dx is not None:
            at.backward += product(at, dy, kernel.T, matrix(at.dx))

    def get_config(self) -> dict[str, Any]:
        return {
            "activity_regularizer": None,
            **super().get_config(),
            "units": self.units,
            "activation": activations.config(self.activation),
            "use_bias": self.use_bias,
            **self.weight_config("kernel", "bias"),
        }


def matrix(array: Array) -> Array:
    """All but the last axis as rows, without a copy."""
    flat = array if array.ndim == 2 else array.reshape(-1, array.shape[-1])
    assert np.shares_memory(flat, array)
    return flat


def product(at: Place, a: Array, b: Array, out: Array) -> list[Call]:
    """`out = a · b`. np.dot costs 0.4 µs less than np.matmul, but wants `out` in C order: so as it is, transposed, or
    by way of scratch memory.
    """
    if out.flags.c_contiguous:
        return [partial(np.dot, a, b, out)]
    if out.T.flags.c_contiguous:
        return [partial(np.dot, b.T, a.T, out.T)]
    scratch = at.take(out.shape)
    return [partial(np.dot, a, b, scratch), partial(np.copyto, out, scratch)]

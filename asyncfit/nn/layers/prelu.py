"""PReLU: a rectifier whose slopes below 0 are learned."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn import constraints, initializers, regularizers
from asyncfit.nn.activations import scalar
from asyncfit.nn.arrays import Shape
from asyncfit.nn.blocks import blocks
from asyncfit.nn.constraints import ConstraintLike
from asyncfit.nn.initializers import InitializerLike
from asyncfit.nn.regularizers import RegularizerLike
from asyncfit.nn.workspace import Place

from .base import Layer, Weight
from .reshape import wholes

__all__ = ["PReLU"]


class PReLU(Layer):
    """y = max(x, 0) + alpha · min(x, 0) (He et al. 2015); at 0 the gradient is 0.

    Weights: alpha, of the shape of a sample, with the length 1 along shared axes.

    Args:
        shared_axes: axes of a sample, from 1, along which one slope serves all: `[1, 2]` for images gives one to each
            channel.
    """

    supports_masking = True

    def __init__(
        self,
        alpha_initializer: InitializerLike = "zeros",
        alpha_regularizer: RegularizerLike = None,
        alpha_constraint: ConstraintLike = None,
        shared_axes: int | Sequence[int] | None = None,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.alpha_regularizer = regularizers.get(alpha_regularizer)
        self.alpha_constraint = constraints.get(alpha_constraint)
        self.shared_axes = None if shared_axes is None else wholes("PReLU(shared_axes=…)", shared_axes)
        if 0 in (self.shared_axes or ()):
            raise InvalidInput(f"PReLU(shared_axes=…) names axes of a sample, from 1, not {shared_axes!r}")

    def weight_specs(self, input_shape: Shape) -> Sequence[Weight]:
        shape, rank = list(input_shape), len(input_shape)
        for axis in self.shared_axes or ():
            if not -rank <= axis <= rank:
                raise InvalidInput(
                    f"PReLU {self.name!r} shares the axis {axis}, but samples have the shape {input_shape}, "
                    f"so axes go from 1 to {rank}"
                )
            shape[axis - 1 if axis > 0 else axis] = 1
        return [self.weight("alpha", tuple(shape))]

    def plan(self, at: Place) -> None:
        alpha, zero = at.weights["alpha"][None], scalar(0, at.x)
        low, scratch = at.like(at.x), at.like(at.x)
        for x, y, below, above in blocks(at.x, at.y, low, scratch):
            at.forward += [
                partial(np.minimum, x, zero, out=below),
                partial(np.multiply, below, alpha, y),
                partial(np.maximum, x, zero, out=above),
                partial(np.add, y, above, y),
            ]
        if at.dy is None:
            return
        if "alpha" in at.grads:
            grad = at.grads["alpha"]
            axes = tuple(i for i, (a, b) in enumerate(zip(grad.shape, at.x.shape[1:], strict=True)) if a != b)
            ones, whole = np.ones(len(at.x), at.x.dtype), grad if not axes else at.take(at.x.shape[1:])
            at.backward += [
                partial(np.multiply, low, at.dy, scratch),
                partial(np.dot, ones, scratch.reshape(len(at.x), -1), whole.reshape(-1)),
            ]
            if axes:
                at.backward.append(partial(np.add.reduce, whole, axes, out=grad, keepdims=True))
        if at.dx is not None:
            share, part = (at.like(at.x) for _ in range(2))
            for x, dy, dx, above, below in blocks(at.x, at.dy, at.dx, share, part):
                at.backward += [  # 1 above 0, alpha below, and 0 at 0
                    partial(np.less, x, zero, below),
                    partial(np.multiply, below, alpha, below),
                    partial(np.greater, x, zero, above),
                    partial(np.add, above, below, above),
                    partial(np.multiply, dy, above, dx),
                ]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **self.weight_config("alpha"),
            "shared_axes": None if self.shared_axes is None else list(self.shared_axes),
        }

"""BatchNormalization: each channel gets mean 0 and variance 1 over the batch, then a scale and an offset of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn import constraints, initializers, regularizers
from asyncfit.nn.activations import scalar
from asyncfit.nn.arrays import Array, Call, Shape
from asyncfit.nn.channels import Channels
from asyncfit.nn.constraints import ConstraintLike
from asyncfit.nn.initializers import InitializerLike
from asyncfit.nn.naming import number
from asyncfit.nn.regularizers import RegularizerLike
from asyncfit.nn.workspace import Place, is_planes

from .base import Layer, Weight
from .reshape import wholes

__all__ = ["BatchNormalization", "axis_in"]


class BatchNormalization(Layer):
    """y = gamma·(x - mean) / √(variance + epsilon) + beta (Ioffe, Szegedy 2015), of any shape.

    In training mean and variance are those of the batch, one pair for each index along `axis`, and the moving ones come
    nearer to them: moving = momentum·moving + (1 - momentum)·batch's. Elsewhere, and in training too while the layer
    is not `trainable`, the moving ones are used, and stay as they are. Steps that are masked count in no statistics.

    Weights: gamma (with `scale`), beta (with `center`), moving_mean, moving_variance; the last two no gradient
    changes, but they are part of the model's state as all weights.

    Args:
        axis: the axis of the channels, from 1, or -1; 0 would be the batch.
        momentum: from 0 to 1.
    """

    supports_masking = True
    rows_apart = False
    off_options: ClassVar[Mapping[str, object]] = {
        "activity_regularizer": None,
        "renorm": False,
        "renorm_clipping": None,
        "renorm_momentum": 0.99,
        "synchronized": False,
    }

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: InitializerLike = "zeros",
        gamma_initializer: InitializerLike = "ones",
        moving_mean_initializer: InitializerLike = "zeros",
        moving_variance_initializer: InitializerLike = "ones",
        beta_regularizer: RegularizerLike = None,
        gamma_regularizer: RegularizerLike = None,
        beta_constraint: ConstraintLike = None,
        gamma_constraint: ConstraintLike = None,
        *,
        synchronized: bool = False,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        axes = wholes("BatchNormalization(axis=…)", axis)  # Keras 2 writes a list of one
        if len(axes) != 1:
            raise InvalidInput(f"BatchNormalization(axis=…) is one axis, not {axis!r}")
        if synchronized:
            raise InvalidInput("BatchNormalization(synchronized=True) is not supported: a batch is never divided here")
        (self.axis,) = axes
        self.momentum = number("BatchNormalization(momentum=…)", momentum)
        self.epsilon = number("BatchNormalization(epsilon=…)", epsilon, least=0.0)
        self.center, self.scale = bool(center), bool(scale)
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)

    def weight_specs(self, input_shape: Shape) -> Sequence[Weight]:
        shape = (input_shape[axis_in(self, self.axis, input_shape) - 1],)
        found = [self.weight("gamma", shape)] if self.scale else []
        found += [self.weight("beta", shape)] if self.center else []
        return [
            *found,
            Weight("moving_mean", shape, self.moving_mean_initializer, trainable=False),
            Weight("moving_variance", shape, self.moving_variance_initializer, trainable=False),
        ]

    def plan(self, at: Place) -> None:
        rank, axis = at.x.ndim, axis_in(self, self.axis, at.x.shape[1:])
        size = at.x.shape[axis]
        lines = 1
        if rank == 2 and not at.x.flags.c_contiguous:  # feature by feature
            order: Shape = (1, 0)
            shape, row = (size, len(at.x), 1), (size, 1)
        elif is_planes(at.x) and axis == rank - 1 and at.mask is None:
            lines, order = (1, (2, 1, 0)) if rank == 3 else (at.x.shape[1], (1, 3, 2, 0))
            shape, row = (lines * size, at.x.size // (lines * size), 1), (size, 1)
        else:
            order = (*(i for i in range(rank) if i != axis), axis)
            shape, row = (1, at.x.size // size, size), (1, size)
        weights = at.weights
        channels = Channels(
            at, order, shape, groups=shape[2], epsilon=self.epsilon,
            gamma=weights["gamma"].reshape(row) if self.scale else None,
            beta=weights["beta"].reshape(row) if self.center else None,
            weights=self._places(at, order) if at.training and at.trainable else None, lines=lines,
        )  # fmt: skip
        mean, variance = weights["moving_mean"].reshape(row), weights["moving_variance"].reshape(row)
        if at.training and at.trainable:
            at.forward += channels.statistics()
            at.forward += self._near(at, mean, channels.mean[: len(mean)])
            at.forward += self._near(at, variance, channels.variance[: len(variance)])
        else:
            for found, moving in ((channels.mean, mean), (channels.variance, variance)):
                at.forward.append(partial(np.copyto, found.reshape(lines, *moving.shape), moving))
        at.forward += channels.scale() + channels.write(center=not (at.training and at.trainable))
        if at.dy is None:
            return
        if at.training and at.trainable:
            gamma, beta = (at.grads.get(name) for name in ("gamma", "beta"))
            at.backward += channels.gradients(
                None if gamma is None else gamma.reshape(row), None if beta is None else beta.reshape(row)
            )
        else:
            at.backward += channels.plain_gradient()

    def _near(self, at: Place, moving: Array, found: Array) -> list[Call]:
        share = at.take(found.shape)
        return [
            partial(np.multiply, moving, scalar(self.momentum, moving), moving),
            partial(np.multiply, found, scalar(1.0 - self.momentum, moving), share),
            partial(np.add, moving, share, moving),
        ]

    def _places(self, at: Place, order: Shape) -> Array | None:
        """Which places count, as a column: the mask says it of each step."""
        if at.mask is None:
            return None
        if order[-1] != at.x.ndim - 1 or at.x.ndim != at.mask.ndim + 1:
            raise InvalidInput(
                f"BatchNormalization {self.name!r} takes a mask for sequences of vectors, with axis=-1, "
                f"but samples have the shape {at.x.shape[1:]}"
            )
        return at.mask.reshape(-1, 1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "axis": self.axis,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            **self.weight_config("beta", "gamma"),
            "moving_mean_initializer": initializers.config(self.moving_mean_initializer),
            "moving_variance_initializer": initializers.config(self.moving_variance_initializer),
        }


def axis_in(layer: Layer, axis: int, input_shape: Shape) -> int:
    """`axis` counted from 1, or an error."""
    rank = len(input_shape) + 1
    if not -rank < axis < rank or axis == 0:
        raise InvalidInput(
            f"{type(layer).__name__} {layer.name!r} has axis={axis}, but samples have the shape {input_shape}, "
            f"so axes go from 1 to {rank - 1}"
        )
    return axis % rank

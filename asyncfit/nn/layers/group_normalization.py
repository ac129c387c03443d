"""GroupNormalization: groups of a sample's channels get mean 0 and variance 1, over all places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncfit.errors import InvalidInput
from asyncfit.nn import constraints, initializers, regularizers
from asyncfit.nn.arrays import Shape
from asyncfit.nn.channels import Channels
from asyncfit.nn.constraints import ConstraintLike
from asyncfit.nn.initializers import InitializerLike
from asyncfit.nn.naming import number, whole
from asyncfit.nn.regularizers import RegularizerLike
from asyncfit.nn.workspace import Place

from .base import Layer, Weight
from .batch_normalization import axis_in

__all__ = ["GroupNormalization"]


class GroupNormalization(Layer):
    """y = gamma·(x - mean) / √(variance + epsilon) + beta (Wu, He 2018), in training and without.

    Mean and variance are those of a group of channels of one sample, over all its places.

    Weights: gamma (with `scale`), beta (with `center`), one for each channel.

    Args:
        groups: divides the number of channels; -1 makes each channel its own group (instance normalization).
        axis: the axis of the channels, from 1, or -1.
    """

    supports_masking = True

    def __init__(
        self,
        groups: int = 32,
        axis: int = -1,
        epsilon: float = 0.001,
        center: bool = True,
        scale: bool = True,
        beta_initializer: InitializerLike = "zeros",
        gamma_initializer: InitializerLike = "ones",
        beta_regularizer: RegularizerLike = None,
        gamma_regularizer: RegularizerLike = None,
        beta_constraint: ConstraintLike = None,
        gamma_constraint: ConstraintLike = None,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        self.groups = -1 if groups == -1 else whole("GroupNormalization(groups=…), unless it is -1,", groups, least=1)
        self.axis = whole("GroupNormalization(axis=…)", axis, least=-99)
        self.epsilon = number("GroupNormalization(epsilon=…)", epsilon, least=0.0)
        self.center, self.scale = bool(center), bool(scale)
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)

    def weight_specs(self, input_shape: Shape) -> Sequence[Weight]:
        channels = input_shape[axis_in(self, self.axis, input_shape) - 1]
        if self.groups != -1 and channels % self.groups:
            raise InvalidInput(
                f"GroupNormalization {self.name!r} cannot make {self.groups} groups of {channels} channels; "
                "groups divides their number, or is -1"
            )
        found = [self.weight("gamma", (channels,))] if self.scale else []
        return [*found, self.weight("beta", (channels,))] if self.center else found

    def plan(self, at: Place) -> None:
        rank, axis = at.x.ndim, axis_in(self, self.axis, at.x.shape[1:])
        rows, size = at.x.shape[0], at.x.shape[axis]
        order = (*(i for i in range(rank) if i != axis), axis)
        channels = Channels(
            at, order, (rows, at.x.size // (rows * size), size), groups=size if self.groups == -1 else self.groups,
            epsilon=self.epsilon, gamma=at.weights["gamma"][None] if self.scale else None,
            beta=at.weights["beta"][None] if self.center else None,
        )  # fmt: skip
        at.forward += [*channels.statistics(), *channels.scale(), *channels.write(center=False)]
        if at.dy is not None:
            gamma, beta = (at.grads.get(name) for name in ("gamma", "beta"))
            at.backward += channels.gradients(
                None if gamma is None else gamma[None], None if beta is None else beta[None]
            )

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "groups": self.groups,
            "axis": self.axis,
            "epsilon": self.epsilon,
            "center": self.center,
            "scale": self.scale,
            **self.weight_config("beta", "gamma"),
        }

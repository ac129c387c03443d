"""Activation: a function of its own as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncfit.errors import InvalidInput
from asyncfit.nn import activations
from asyncfit.nn.activations import GLU, ActivationLike, linear
from asyncfit.nn.arrays import Shape
from asyncfit.nn.regularizers import RegularizerLike
from asyncfit.nn.workspace import Place

from .base import Layer

__all__ = ["Activation"]


class Activation(Layer):
    """y = activation(x), of any shape; of half the features for "glu"."""

    supports_masking = True

    def __init__(
        self,
        activation: ActivationLike,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
        activity_regularizer: RegularizerLike = None,
    ) -> None:
        super().__init__(
            name=name, input_shape=input_shape, trainable=trainable, activity_regularizer=activity_regularizer
        )
        self.activation = activations.get(activation, may_halve=True)
        if isinstance(self.activation, GLU) and self.activation.axis != -1:
            raise InvalidInput(f"Activation('glu') halves the last axis (-1), not {self.activation.axis}")

    @property
    def followed_by(self) -> activations.Activation:
        return linear if self.activation.halves else self.activation

    def output_shape_for(self, input_shape: Shape) -> Shape:
        if isinstance(self.activation, GLU):
            return (*input_shape[:-1], self.activation.half(input_shape[-1]))
        return input_shape

    def passes(self, training: bool) -> bool:
        return not self.activation.halves  # the plan itself puts a layer's activation behind it

    def plan(self, at: Place) -> None:
        assert isinstance(self.activation, GLU)
        at.forward += self.activation.forward(at.x, at.y, at.workspace)
        if at.dy is not None and at.dx is not None:
            at.backward += self.activation.backward_into(at.x, at.y, at.dy, at.dx, at.workspace)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"activation": activations.config(self.activation)}

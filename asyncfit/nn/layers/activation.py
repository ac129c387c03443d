"""Activation: a function of its own as a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asyncfit.nn import activations
from asyncfit.nn.activations import ActivationLike

from .base import Layer

__all__ = ["Activation"]


class Activation(Layer):
    """y = activation(x), of any shape."""

    supports_masking = True

    def __init__(
        self,
        activation: ActivationLike,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(name=name, input_shape=input_shape, trainable=trainable)
        self.activation = activations.get(activation)

    def passes(self, training: bool) -> bool:
        return True  # the plan itself puts a layer's activation behind it

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"activation": self.activation.name}

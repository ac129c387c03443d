"""Input: says the shape of one sample; it computes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Shape

from .base import Layer, shape_of

__all__ = ["Input", "InputLayer"]


class InputLayer(Layer):
    """The shape of one sample, without the batch: `Input((28, 28))`, `Input(30)`.

    A model keeps it as its `input_shape`; it is not among `model.layers`, as in Keras.
    """

    def __init__(self, shape: int | Sequence[int], *, name: str | None = None) -> None:
        super().__init__(name=name, input_shape=shape_of("Input(shape=…)", shape))

    @property
    def shape(self) -> Shape:
        assert self.given_shape is not None
        return self.given_shape

    def passes(self, training: bool) -> bool:
        return True

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "dtype": "float32",
            "batch_input_shape": [None, *self.shape],
            "sparse": False,
            "ragged": False,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        batch_shape = config.get("batch_shape", config.get("batch_input_shape"))
        shape = config.get("shape", config.get("input_shape", batch_shape and batch_shape[1:]))
        if shape is None:
            raise InvalidInput(f"InputLayer: the config has no batch_shape or batch_input_shape: {dict(config)!r}")
        return cls(shape, name=config.get("name"))


Input = InputLayer

"""What wrappers have in common: a layer inside a layer, its weights under its name, its settings in theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from asyncfit.errors import InvalidInput
from asyncfit.names import unknown
from asyncfit.nn.arrays import Array, Shape
from asyncfit.nn.custom import the_users
from asyncfit.nn.naming import plain_config
from asyncfit.nn.workspace import Place

from .base import Layer, Weight

__all__ = ["Wrapper", "entry_of"]


class Wrapper(Layer):
    """Base of layers that hold others. Weights of those are named `<inner layer>/<weight>`."""

    @property
    def inner(self) -> Sequence[Layer]:
        """The layers inside."""
        raise NotImplementedError

    def held(self, layer: object, what: str = "layer") -> Layer:
        """`layer`, if it can be inside."""
        where = f"{type(self).__name__}({what}=…)"
        if not isinstance(layer, Layer):
            slip = "; add the parentheses and settings" if isinstance(layer, type) else ""
            raise InvalidInput(f"{where} takes a layer from asyncfit.layers, not {layer!r}{slip}")
        if layer.arrays:
            raise InvalidInput(f"{where}: the layer {layer.name!r} is part of a model already; make a new one")
        if layer.activity_regularizer is not None:
            raise InvalidInput(
                f"{where}: an activity_regularizer of the layer inside is not supported; give it to "
                f"{type(self).__name__} instead"
            )
        return layer

    def weight_specs(self, input_shape: Shape) -> Sequence[Weight]:
        shape = self.inner_shape(input_shape)
        return [
            replace(spec, name=f"{layer.name}/{spec.name}", trainable=spec.trainable and layer.trainable)
            for layer in self.inner
            for spec in layer.weight_specs(shape)
        ]

    def inner_shape(self, input_shape: Shape) -> Shape:
        """The shape of the input of the layers inside, without the batch."""
        return input_shape

    def is_random(self) -> bool:
        return any(layer.is_random() for layer in self.inner)

    def place(
        self, at: Place, layer: Layer, *, x: Array, y: Array, dy: Array | None, dx: Array | None,
        mask: Array | None = None, new_mask: Array | None = None, index: int | None = None,
    ) -> Place:  # fmt: skip
        """Where `layer` stands within the wrapper at `at`; it is planned there already."""
        assert self.input_shape is not None
        layer.input_shape = self.inner_shape(self.input_shape)
        layer.output_shape = layer.output_shape_for(layer.input_shape)
        prefix = f"{layer.name}/"
        weights, grads = (
            {name.removeprefix(prefix): array for name, array in found.items() if name.startswith(prefix)}
            for found in (at.weights, at.grads)
        )
        inside = Place(
            at.workspace, at.dice, index=at.index if index is None else index, x=x, ones=None, y=y, dy=dy, dx=dx,
            weights=weights, grads=grads, training=at.training,
            trainable=at.trainable and layer.trainable, mask=mask, new_mask=new_mask,
        )  # fmt: skip
        layer.plan(inside)
        at.enter += inside.enter
        return inside

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        found = plain_config(cls, config, ignored=cls.ignored_options, off=cls.off_options)
        for key in ("layer", "backward_layer"):
            if isinstance(found.get(key), Mapping):
                found[key] = layer_of(found[key])
        made = cls(**found)
        assert isinstance(made, cls)
        return made


def layer_of(entry: Mapping[str, Any]) -> Layer:
    from . import KINDS

    kind = str(entry.get("class_name"))
    cls = the_users(kind, Layer) or KINDS.get(kind)
    if cls is None:
        raise InvalidInput(unknown("layer class", kind, KINDS))
    found = cls.from_config(entry.get("config") or {})
    assert isinstance(found, Layer)
    return found


def entry_of(layer: Layer) -> dict[str, Any]:
    """What a config holds of a layer."""
    return {"class_name": type(layer).__name__, "config": layer.get_config()}

"""Bidirectional: a recurrent layer over the sequence, and one over it from its end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Call, Shape
from asyncfit.nn.regularizers import RegularizerLike
from asyncfit.nn.workspace import Place

from .base import Layer
from .recurrent import Recurrent
from .wrapper import Wrapper, entry_of

__all__ = ["Bidirectional"]

MODES = ("concat", "sum", "mul", "ave")
BACK = 1 << 16
"""Sets the random numbers of the layer that goes backwards apart from those of the other."""


class Bidirectional(Wrapper):
    """Two recurrent layers, one of which goes backwards; their outputs (of the same step) are put together.

    Args:
        layer: LSTM, GRU or SimpleRNN; copies of it are used, named `forward_…` and `backward_…`.
        merge_mode: "concat" (one behind the other), "sum", "mul" or "ave".
        backward_layer: another one for the way back; it has `go_backwards=True` and the same `return_sequences`.

    With `return_sequences` the outputs of steps that the mask leaves out are zeros, as in Keras.
    """

    ends_mask = True

    def __init__(
        self,
        layer: Layer,
        merge_mode: str = "concat",
        *,
        backward_layer: Layer | None = None,
        activity_regularizer: RegularizerLike = None,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(
            name=name, input_shape=input_shape, trainable=trainable, activity_regularizer=activity_regularizer
        )
        if merge_mode is None:
            raise InvalidInput(
                "Bidirectional(merge_mode=None) gives two outputs, which a model of layers in a row cannot pass on; "
                f"use one of {', '.join(map(repr, MODES))}"
            )
        if merge_mode not in MODES:
            raise InvalidInput(
                f"Bidirectional(merge_mode=…) is one of {', '.join(map(repr, MODES))}, not {merge_mode!r}"
            )
        self.merge_mode = merge_mode
        given = self.recurrent(layer, "layer")
        back = self.recurrent(layer if backward_layer is None else backward_layer, "backward_layer")
        self.forward_layer = copied(given, "forward_", given.go_backwards)
        self.backward_layer = copied(back, "backward_", backward_layer is None or back.go_backwards)
        if self.forward_layer.go_backwards == self.backward_layer.go_backwards:
            raise InvalidInput(
                "Bidirectional: one of the two layers goes backwards, but both have "
                f"go_backwards={self.forward_layer.go_backwards}"
            )
        if given.return_sequences != back.return_sequences:
            raise InvalidInput(
                f"Bidirectional: the layers must agree in return_sequences, which is {given.return_sequences} for "
                f"layer and {back.return_sequences} for backward_layer"
            )
        if given.units != back.units:
            raise InvalidInput(
                f"Bidirectional: the layers must have the same units (Keras, too, takes no others), but they have "
                f"{given.units} and {back.units}"
            )
        self.return_sequences = self.supports_masking = given.return_sequences

    def recurrent(self, layer: object, what: str) -> Recurrent:
        found = self.held(layer, what)
        if not isinstance(found, Recurrent):
            raise InvalidInput(f"Bidirectional({what}=…) takes LSTM, GRU or SimpleRNN, not {found!r}")
        return found

    @property
    def inner(self) -> Sequence[Recurrent]:
        return self.forward_layer, self.backward_layer

    def output_shape_for(self, input_shape: Shape) -> Shape:
        one = self.forward_layer.output_shape_for(input_shape)
        return (*one[:-1], 2 * one[-1]) if self.merge_mode == "concat" else one

    def plan(self, at: Place) -> None:
        units = self.forward_layer.units
        apart = self.merge_mode != "concat"
        ys = [at.take(at.y.shape) for _ in range(2)] if apart else [at.y[..., :units], at.y[..., units:]]
        dys: list[Array | None] = [None, None]
        if at.dy is not None:
            dys = [at.take(at.dy.shape) for _ in range(2)] if apart else [at.dy[..., :units], at.dy[..., units:]]
        dxs = [at.dx, None if at.dx is None else at.take(at.dx.shape)]
        for k, (layer, y, dy, dx) in enumerate(zip(self.inner, ys, dys, dxs, strict=True)):
            inside = self.place(
                at, layer, x=at.x, y=self._turned(k, y), dy=None if dy is None else self._turned(k, dy), dx=dx,
                mask=at.mask, index=at.index + BACK * k,
            )  # fmt: skip
            at.forward += inside.forward
            at.backward += inside.backward
        if apart:
            at.forward += self._merge(ys[0], ys[1], at.y)
            at.backward[:0] = self._split(ys, dys, at.dy)
        if dxs[1] is not None:
            at.backward.append(partial(np.add, dxs[0], dxs[1], dxs[0]))

    def _turned(self, k: int, y: Array) -> Array:
        """Steps as the layer gives them: the second of the two in reverse."""
        return y[:, ::-1] if self.return_sequences and k else y

    def _merge(self, one: Array, other: Array, y: Array) -> list[Call]:
        if self.merge_mode == "mul":
            return [partial(np.multiply, one, other, y)]
        calls: list[Call] = [partial(np.add, one, other, y)]
        return [*calls, partial(np.multiply, y, np.array(0.5, y.dtype), y)] if self.merge_mode == "ave" else calls

    def _split(self, ys: Sequence[Array], dys: Sequence[Array | None], dy: Array | None) -> list[Call]:
        one, other = dys
        if dy is None or one is None or other is None:
            return []
        if self.merge_mode == "mul":
            return [partial(np.multiply, dy, ys[1], one), partial(np.multiply, dy, ys[0], other)]
        share = np.array(0.5 if self.merge_mode == "ave" else 1, dy.dtype)
        return [partial(np.multiply, dy, share, one), partial(np.copyto, other, one)]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "layer": entry_of(self.forward_layer),
            "merge_mode": self.merge_mode,
            "backward_layer": entry_of(self.backward_layer),
        }


def copied(layer: Recurrent, prefix: str, backwards: bool) -> Recurrent:
    """The same settings under another name; steps that are masked give zeros in a sequence."""
    config = layer.get_config() | {
        "name": prefix + layer.name.removeprefix(prefix),
        "go_backwards": backwards,
        "zero_output_for_mask": layer.return_sequences,
    }
    return type(layer).from_config(config)

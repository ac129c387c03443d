"""From layers to a list of calls: one batch of one size through the network, forward and back.

A plan is made once for a number of rows. It takes every array from the workspace, hands each layer its `Place`, and
keeps what the layers append; running a batch is then calling a few dozen bound functions in turn. Arrays are laid out
from the last layer to the first, because the consumer of a value decides how it lies:

- short vectors between layers lie feature by feature ("columns": `(features, rows)` in memory), so that a row of ones
  behind the features, which makes the bias part of a matrix product, leaves everything else contiguous;
- wide ones, and short input of the network, lie row by row with the ones as a last column ("padded"): matrix products
  are 15 % faster that way round, and the gap costs little where rows are long;
- whatever has more axes, and wide input of the network, lies in C order ("rows"), and its bias is added separately, so
  a batch may be computed on where it lies (`given`);
- but between layers that ask for it (`Layer.order`), convolutions and pooling, images lie as "planes": `(height,
  channels, width, rows)` in memory, and sequences as `(channels, steps, rows)`. Neighbouring pixels of all samples are
  one long run then, and the patches of a convolution are views of a few copies of such runs.

Where two layers want another order the plan puts a copy between them. A layer may be planned together with the one
behind it (`Layer.absorbs`): a convolution does so with the pooling that follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from .activations import Activation, linear
from .arrays import Array, Call, DType, Shape
from .blocks import in_memory_order
from .layers.base import Layer
from .penalties import Penalty
from .streams import Dice
from .workspace import Place, Workspace, is_planes

__all__ = ["Plan", "WeightsOf"]

WIDE = 64
"""Vectors of at least that many features lie row by row."""

WeightsOf = Callable[[Layer], dict[str, Array]]


class Section(NamedTuple):
    """The calls of a layer, or of several that are planned as one, by their numbers; without those of the head."""

    first: int
    last: int
    forward: list[Call]
    backward: list[Call]


class Plan:
    """The calls for `rows` samples.

    The last activation stands apart (`head_forward`, `head_backward`), because a loss that knows it can do both
    better. A whole forward pass is `enter` (once the workspace was used for another plan), values into `x`,
    `forward`, `head_forward`; then `y` holds the output. With the gradient in `dy`: `head_backward`, `backward`.

    Attributes:
        x: the input to write, `(rows, *input_shape)`; `given` itself, if that is the input.
        mask: which of the output's steps count, as a layer that masks has found; None if all do.
        z, y, dy: the output before and after the last activation, and its gradient (None without training).
        activation: that last activation.
        key: by which the workspace knows it.
        sections: `forward` and `backward`, layer by layer.
        whole_head: whether a loss must leave the last activation as it is, because its output is penalized.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        rows: int,
        workspace: Workspace,
        dice: Dice,
        weights_of: WeightsOf,
        grads_of: WeightsOf | None = None,
        penalties: list[Penalty] | None = None,
        frozen: Collection[str] = (),
        given: Array | None = None,
    ) -> None:
        workspace.restart()
        self.rows, self.workspace, self.dice = rows, workspace, dice
        self.key = object()
        self.forward: list[Call] = []
        self.backward: list[Call] = []
        self.head_forward: list[Call] = []
        self.head_backward: list[Call] = []
        self.activation: Activation = linear
        self.whole_head = False
        self._enter: list[Call] = []
        training = grads_of is not None
        grads = [grads_of(layer) if grads_of else {} for layer in layers]
        wanted = [any(grads[:i]) for i in range(len(layers) + 1)]  # does anybody before boundary i learn?
        orders = [order_of(layers, i, training) for i in range(len(layers))]
        spans = spans_of(layers)
        masks = self._masks(layers)
        self.mask = masks[-1]

        output = layers[-1].output_shape
        assert output is not None
        last_order = own_order(output)
        self.y = y = self._take(output, last_order)
        self.dy = dy = self._take(output, last_order) if wanted[-1] else None
        self.z = y
        parts: list[tuple[list[Call], list[Call]]] = []
        for i, end in reversed(spans):
            layer = layers[i]
            assert layer.input_shape is not None
            passes = layer.passes(training)
            z, shape = y, y.shape[1:]
            before: list[Call] = []
            after: list[Call] = []
            if layer.followed_by is not linear:
                if not (layer.followed_by.in_place() and not passes and end < len(layers) - 1 and in_one_piece(y)):
                    z = self._take(shape, "planes" if is_planes(y) else orders[i] if passes else own_order(shape))
                before = layer.followed_by.forward(z, y, workspace)
                after = [] if dy is None else layer.followed_by.backward(z, y, dy, workspace)
            if penalties is not None and layer.activity_regularizer is not None:
                penalty = Penalty(layer.activity_regularizer, y, dy, 1 / rows, workspace)
                penalties.append(penalty)
                if dy is None:
                    before.append(penalty)
                else:
                    after.insert(0, penalty)  # dy is whole then, and y still there: value and gradient in one
                self.whole_head = self.whole_head or end == len(layers) - 1
            if end == len(layers) - 1:
                self.z, self.activation, self.head_forward, self.head_backward = z, layer.followed_by, before, after
                before, after = [], []
            if passes and is_planes(z) and layer.input_shape == shape:
                parts.append((before, after))
                y, dy = z, dy if wanted[i] else None
                continue
            if passes and i and layers[i - 1].order == "planes" and not is_planes(z) and len(layer.input_shape) > 1:
                made = self._take(layer.input_shape, "planes")
                before.insert(0, partial(np.copyto, same_memory(z, layer.input_shape), made))
                d_made = self._take(layer.input_shape, "planes") if wanted[i] else None
                if d_made is not None:
                    assert dy is not None
                    after.append(partial(np.copyto, d_made, same_memory(dy, layer.input_shape)))
                parts.append((before, after))
                y, dy = made, d_made
                continue
            if passes and not is_planes(z) and (x := reshaped(z, layer.input_shape)) is not None:
                dx = None if dy is None or not wanted[i] else reshaped(dy, layer.input_shape)
                if dy is not None and wanted[i] and (dx is None or (dx.ndim > 2 and not dx.flags.c_contiguous)):
                    dx = self._take(layer.input_shape, "rows")  # the consumer's order of a vector does not fit here
                    after.append(partial(np.copyto, dx.reshape(dy.shape), dy))
                parts.append((before, after))
                y, dy = x, dx
                continue
            order = orders[i]
            if not passes:
                planes = is_planes(z) if layer.order == "any" else layer.order == "planes" and len(shape) in (2, 3)
                if planes != is_planes(z):  # the layer writes an array of its own, from which z is copied
                    own = self._take(shape, "planes" if planes else own_order(shape))
                    before.insert(0, partial(np.copyto, z, own))
                    z = own
                    if dy is not None:
                        own = self._take(shape, "planes" if planes else own_order(shape))
                        after.append(partial(np.copyto, own, dy))
                        dy = own
                if layer.order == "planes" or (layer.order == "any" and planes):
                    order = "planes"
            whole = layer.takes_integers and all(straight(before, training) for before in layers[:i])
            first = given is not None and not passes and all(straight(before, training) for before in layers[:i])
            if first and order == "rows" and not whole:
                assert given is not None
                x, ones = given.reshape(rows, *layer.input_shape), None
            else:
                x, ones = self._input(layer, order, np.dtype(np.intp) if whole else None)
            dx = self._take(layer.input_shape, order) if wanted[i] else None
            if passes:
                back: list[Call] = []
                if dx is not None:
                    assert dy is not None
                    back = [partial(np.copyto, same_memory(dx, shape), dy)]
                parts.append(([partial(np.copyto, z, same_memory(x, shape)), *before], [*after, *back]))
            else:
                place = Place(
                    workspace, dice, index=i, x=x, ones=ones, y=z, dy=dy, dx=dx,
                    weights=weights_of(layer), grads=grads[i], training=training, trainable=layer.name not in frozen,
                    mask=masks[i], new_mask=masks[i + 1] if layer.makes_mask else None,
                )  # fmt: skip
                if end == i:
                    layer.plan(place)
                else:
                    layer.plan_with(place, layers[end])
                self._enter += place.enter
                parts.append(([*place.forward, *before], [*after, *place.backward]))
            y, dy = x, dx
        self.x = y if given is None or not np.shares_memory(y, given) else given
        self.sections = [
            Section(first, last, forward, backward)
            for (first, last), (forward, backward) in zip(spans, reversed(parts), strict=True)
        ]
        for _, backward in parts:
            self.backward += backward
        for forward, _ in reversed(parts):
            self.forward += forward

    def enter(self) -> None:
        """Set what is constant again: another plan of the same workspace has run since."""
        for call in self._enter:
            call()
        self.workspace.current = self.key

    def infer(self, x: Array) -> Array:
        """The output for `rows` samples; it is overwritten by the next call."""
        if self.workspace.current is not self.key:
            self.enter()
        self.x[...] = x
        for call in self.forward:
            call()
        for call in self.head_forward:
            call()
        return self.y

    def _take(self, shape: Shape, order: str) -> Array:
        if order == "columns":
            return self.workspace.take((shape[0], self.rows)).T
        if order == "planes":
            return self.workspace.take_planes(self.rows, shape)
        return self.workspace.take((self.rows, *shape))

    def _masks(self, layers: Sequence[Layer]) -> list[Array | None]:
        """The mask at each boundary between layers; one that passes through a layer is the same array on both sides."""
        masks: list[Array | None] = [None]
        for layer in layers:
            mask = masks[-1] if layer.supports_masking else None
            if layer.makes_mask:
                assert layer.input_shape is not None
                mask = self.workspace.take((self.rows, *layer.mask_shape_for(layer.input_shape)), bool)
            masks.append(mask)
        return masks

    def _input(self, layer: Layer, order: str, dtype: DType | None) -> tuple[Array, Array | None]:
        """The input array of a layer and, if it wants it and the order allows it, the same with ones behind."""
        shape = layer.input_shape
        assert shape is not None
        if dtype is not None:
            return self.workspace.take((self.rows, *shape), dtype), None
        if order in ("rows", "planes") or not layer.wants_ones(shape):
            return self._take(shape, order), None
        (features,) = shape
        ones = self._take((features + 1,), order)
        self._enter.append(partial(ones[:, features].fill, 1))
        return ones[:, :features], ones


def order_of(layers: Sequence[Layer], i: int, training: bool) -> str:
    """How the input of layer i lies: "columns", "padded" or "rows", see the head of this file."""
    j = i - 1
    while j >= 0 and straight(layers[j], training):
        j -= 1
    if j < 0:
        shape = layers[i].input_shape
        assert shape is not None
        return "padded" if len(shape) == 1 and shape[0] < WIDE else "rows"
    made, used = layers[j].output_shape, layers[i].input_shape
    assert made is not None
    assert used is not None
    if layers[j].order == "planes" and len(made) > 1 == len(used):
        return "columns"
    return own_order(used) if len(made) == len(used) else "rows"


def straight(layer: Layer, training: bool) -> bool:
    """Whether a layer's output is its input, reshaped at most."""
    return layer.passes(training) and layer.followed_by is linear


def spans_of(layers: Sequence[Layer]) -> list[tuple[int, int]]:
    """First and last number of the layers that are planned as one."""
    spans: list[tuple[int, int]] = []
    for i, layer in enumerate(layers):
        if spans and spans[-1][0] == i - 1 == spans[-1][1] and layers[i - 1].absorbs(layer):
            spans[-1] = i - 1, i
        else:
            spans.append((i, i))
    return spans


def in_one_piece(array: Array) -> bool:
    """Whether its elements lie without gaps, whatever the order of its axes."""
    return bool(in_memory_order(array).flags.c_contiguous)


def own_order(shape: Shape) -> str:
    """How values of this shape lie, where nothing else decides."""
    return "rows" if len(shape) > 1 else "columns" if shape[0] < WIDE else "padded"


def same_memory(array: Array, shape: Shape) -> Array:
    """The same memory with another shape of a sample, where that needs no copy for sure."""
    found = array.reshape(array.shape[0], *shape)
    assert np.shares_memory(found, array)
    return found


def reshaped(array: Array, shape: Shape) -> Array | None:
    """The same memory with another shape of a sample, or None if that needs a copy, or would not lie in C order."""
    found = array.reshape(array.shape[0], *shape)
    if not np.shares_memory(found, array) and math.prod(found.shape):
        return None
    return found if found.ndim < 3 or found.flags.c_contiguous else None

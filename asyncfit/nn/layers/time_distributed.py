"""TimeDistributed: a layer for one step, at each step of a sequence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.activations import Activation
from asyncfit.nn.arrays import Array, Call, Shape
from asyncfit.nn.regularizers import RegularizerLike
from asyncfit.nn.workspace import Place

from .base import Layer
from .wrapper import Wrapper, entry_of

__all__ = ["TimeDistributed"]

STEP = 1 << 17
"""Sets the random numbers of a layer at one step apart from those at the others, and from `bidirectional.BACK`."""


class TimeDistributed(Wrapper):
    """`layer` at each step: `(steps, …)` → `(steps, …)`.

    All steps of all samples are computed at once, as rows. A layer whose rows influence each other, BatchNormalization
    say, is computed step after step as in Keras: each step has statistics of its own, and the moving ones come nearer
    to them once a step. Of a mask `(rows, steps)` such a layer gets the part for the step.

    Args:
        layer: any layer, also one of your own.
    """

    supports_masking = True

    def __init__(
        self,
        layer: Layer,
        *,
        activity_regularizer: RegularizerLike = None,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(
            name=name, input_shape=input_shape, trainable=trainable, activity_regularizer=activity_regularizer
        )
        self.layer = self.held(layer)
        self.rows_apart = layer.rows_apart
        self.takes_integers, self.words = layer.takes_integers, layer.words

    @property
    def inner(self) -> Sequence[Layer]:
        return (self.layer,)

    @property
    def followed_by(self) -> Activation:
        """An axis that it counts from the front is one further behind here: that of the steps comes first."""
        found = self.layer.followed_by
        given: int | tuple[int, ...] = getattr(found, "axis", -1)
        axes = tuple(axis + (axis > 0) for axis in ((given,) if isinstance(given, int) else given))
        if axes in (given, (given,)):
            return found
        moved = copy(found)
        vars(moved)["axis"] = axes[0] if isinstance(given, int) else axes
        return moved

    def inner_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) < 2:
            raise InvalidInput(
                f"{self.name!r} (TimeDistributed) takes sequences, (steps, …) a sample with at least one axis behind, "
                f"but each sample has the shape {input_shape}"
            )
        return input_shape[1:]

    def output_shape_for(self, input_shape: Shape) -> Shape:
        return (input_shape[0], *self.layer.output_shape_for(self.inner_shape(input_shape)))

    def passes(self, training: bool) -> bool:
        return self.layer.passes(training)

    def plan(self, at: Place) -> None:
        if self.layer.rows_apart:
            self._plan_rows(at)
        else:
            self._plan_steps(at)

    def _plan_rows(self, at: Place) -> None:
        mask = at.mask if at.mask is not None and at.mask.ndim > 2 else None  # then the inner steps have one, too
        new_mask = None
        if self.layer.makes_mask:  # nobody asks for it, as in Keras
            new_mask = at.take((folded(at.x).shape[0], *self.layer.mask_shape_for(at.x.shape[2:])), bool)
        y, dx = folded(at.y), None if at.dx is None else folded(at.dx)
        x, dy = folded(at.x), None if at.dy is None else folded(at.dy)
        mine = [self._own(at, array) for array in (x, y, dy, dx)]  # copies, where the layer wants another order
        own_x, own_y, own_dy, own_dx = mine
        assert own_x is not None
        assert own_y is not None
        inside = self.place(
            at, self.layer, x=own_x, y=own_y, dy=own_dy, dx=own_dx, mask=None if mask is None else folded(mask),
            new_mask=new_mask,
        )  # fmt: skip
        at.forward += [*copies(x, own_x), *inside.forward, *copies(own_y, y)]
        at.backward += [*copies(dy, own_dy), *inside.backward, *copies(own_dx, dx)]

    def _plan_steps(self, at: Place) -> None:
        """Step after step, each with arrays of its own; what they give to the gradients is added up."""
        steps = at.x.shape[1]
        sums = {name: at.like(grad) for name, grad in at.grads.items()} if at.dy is not None and steps > 1 else {}
        for i in range(steps):
            x, y, dy, dx = (None if array is None else self._one(at, array) for array in (at.x, at.y, at.dy, at.dx))
            assert x is not None
            assert y is not None
            mask = None if at.mask is None else at.take((len(x), *at.mask.shape[2:]), bool)
            new_mask = (
                at.take((len(x), *self.layer.mask_shape_for(x.shape[1:])), bool) if self.layer.makes_mask else None
            )
            inside = self.place(
                at, self.layer, x=x, y=y, dy=dy, dx=dx, mask=mask, new_mask=new_mask, index=at.index + STEP * i
            )
            at.forward += [*copies(at.x[:, i], x), *copies(None if at.mask is None else at.mask[:, i], mask)]
            at.forward += [*inside.forward, *copies(y, at.y[:, i])]
            if at.dy is None:
                continue
            at.backward += [*copies(at.dy[:, i], dy), *inside.backward]
            at.backward += copies(dx, None if at.dx is None else at.dx[:, i])
            for name, total in sums.items():  # a layer overwrites its gradients
                grad = at.grads[name]
                added = partial(np.add, total, grad, grad if i == steps - 1 else total)
                at.backward.append(added if i else partial(np.copyto, total, grad))

    def _one(self, at: Place, array: Array) -> Array:
        """Memory for one step, in the order that the layer wants."""
        shape = array.shape[2:]
        if self.layer.order == "planes" and len(shape) in (2, 3):
            return at.workspace.take_planes(array.shape[0], shape)
        return at.workspace.take((array.shape[0], *shape), array.dtype)

    def _own(self, at: Place, array: Array | None) -> Array | None:
        if array is None or self.layer.order != "planes" or array.ndim not in (3, 4):
            return array
        return at.workspace.take_planes(array.shape[0], array.shape[1:])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"layer": entry_of(self.layer)}


def folded(array: Array) -> Array:
    """Steps as rows, without a copy."""
    found = array.reshape(math.prod(array.shape[:2]), *array.shape[2:])
    assert np.shares_memory(found, array)
    return found


def copies(source: Array | None, target: Array | None) -> list[Call]:
    return [] if source is target or source is None or target is None else [partial(np.copyto, target, source)]

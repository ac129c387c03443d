"""What metrics accumulate over an epoch: views of one flat array of float64, which is part of a model's state."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Shape

__all__ = ["Totals", "laid_out"]


class Totals:
    """The accumulators of one metric, each an attribute; what is assigned is copied into the state."""

    __slots__ = ("_views",)
    _views: dict[str, Array]

    def __init__(self, views: dict[str, Array]) -> None:
        object.__setattr__(self, "_views", views)

    def __getattr__(self, name: str) -> Array:
        try:
            return self._views[name]
        except KeyError:
            raise AttributeError(f"accumulators() names {', '.join(self._views)}, and no {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        view = getattr(self, name)
        if value is not view:
            view[...] = value


def laid_out(shapes: Mapping[str, Mapping[str, Shape]]) -> tuple[Array, dict[str, Totals]]:
    """The flat array, at zero, and the accumulators of each metric, by its key in logs."""
    sizes = {key: {name: _shape(key, name, of) for name, of in one.items()} for key, one in shapes.items()}
    flat = np.zeros(sum(math.prod(shape) for one in sizes.values() for shape in one.values()))
    found: dict[str, Totals] = {}
    at = 0
    for key, one in sizes.items():
        views: dict[str, Array] = {}
        for name, shape in one.items():
            views[name] = flat[at : at + math.prod(shape)].reshape(shape)
            at += math.prod(shape)
        found[key] = Totals(views)
    return flat, found


def _shape(key: str, name: object, given: object) -> Shape:
    sizes: Any = (given,) if isinstance(given, int) else given
    known = isinstance(sizes, tuple | list) and all(isinstance(n, int | np.integer) and n >= 0 for n in sizes)
    if not known or not (isinstance(name, str) and name.isidentifier()):
        raise InvalidInput(
            f"accumulators() of the metric {key!r} gives names to shapes, such as {{'found': ()}}, "
            f"not {name!r}: {given!r}"
        )
    return tuple(int(n) for n in sizes)

"""Rules of what moves numbers: shapes, axes, choosing, joining and repeating."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from asyncfit.nn.arrays import Array

from .tape import FUNCTIONS, Unknown, Value, made, plain, unbroadcast

__all__: list[str] = []


def reshaping(function: Callable[..., Any]) -> Callable[..., Any]:
    """Of what keeps numbers and their order."""

    def rule(a: Any, *args: Any, **how: Any) -> Any:
        shape = a.shape
        return made(function(a.array, *args, **how), (a, lambda g: g.reshape(shape)))

    return rule


def transpose(a: Any, axes: Any = None) -> Any:
    out = np.transpose(plain(a), axes)
    back = None if axes is None else np.argsort([axis % a.ndim for axis in axes])
    return made(out, (a, lambda g: np.transpose(g, back)))


def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    return made(np.swapaxes(plain(a), axis1, axis2), (a, lambda g: np.swapaxes(g, axis1, axis2)))


def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    return made(np.moveaxis(plain(a), source, destination), (a, lambda g: np.moveaxis(g, destination, source)))


def flip(m: Any, axis: Any = None) -> Any:
    return made(np.flip(plain(m), axis), (m, lambda g: np.flip(g, axis)))


def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    back = tuple(-one for one in shift) if isinstance(shift, tuple) else -shift
    return made(np.roll(plain(a), shift, axis), (a, lambda g: np.roll(g, back, axis)))


def broadcast_to(array: Any, shape: Any, **how: Any) -> Any:
    mine = array.shape
    return made(np.broadcast_to(plain(array), shape), (array, lambda g: unbroadcast(g, mine)))


def where(condition: Any, *both: Any) -> Any:
    condition = np.asarray(plain(condition)).astype(bool)
    if len(both) != 2:
        raise Unknown("np.where with one argument gives places; it has a gradient with three")
    a, b = both
    out = np.where(condition, plain(a), plain(b))
    pulls: list[Any] = []
    for one, chosen in ((a, condition), (b, ~condition)):
        if isinstance(one, Value):
            pulls.append((one, _chosen(chosen, one)))
    return made(out, *pulls)


def _chosen(chosen: Array, one: Value) -> Callable[[Array], Array]:
    return lambda g: unbroadcast(np.where(chosen, g, 0), one.shape).astype(one.dtype)


def clip(a: Any, a_min: Any = None, a_max: Any = None, **how: Any) -> Any:
    low, high = how.pop("min", a_min), how.pop("max", a_max)
    low, high = (None if one is np._NoValue else one for one in (low, high))
    if how:
        raise Unknown(f"np.clip with {', '.join(f'{key}=' for key in how)} has no gradient here")
    if isinstance(low, Value) or isinstance(high, Value):
        found = a if low is None else np.maximum(a, low)
        return found if high is None else np.minimum(found, high)
    x = plain(a)
    out = np.clip(x, low, high)
    return made(out, (a, lambda g: unbroadcast(np.where(x == out, g, 0), x.shape).astype(x.dtype)))


def concatenate(arrays: Any, axis: Any = 0, **how: Any) -> Any:
    if how:
        raise Unknown(f"np.concatenate with {', '.join(f'{key}=' for key in how)} has no gradient here")
    if axis is None:
        return concatenate([np.reshape(one, -1) for one in arrays])
    parts = [np.asarray(plain(one)) for one in arrays]
    ends = np.cumsum([part.shape[axis] for part in parts])
    pulls = [
        (one, _slice(int(end) - part.shape[axis], int(end), axis))
        for one, part, end in zip(arrays, parts, ends, strict=True)
        if isinstance(one, Value)
    ]
    return made(np.concatenate(parts, axis), *pulls)


def _slice(begin: int, end: int, axis: int) -> Callable[[Array], Array]:
    return lambda g: np.take(g, np.arange(begin, end), axis)


def stack(arrays: Any, axis: int = 0, **how: Any) -> Any:
    return concatenate([np.expand_dims(one, axis) for one in arrays], axis, **how)


def hstack(arrays: Any, **how: Any) -> Any:
    arrays = [np.reshape(one, -1) if np.ndim(plain(one)) == 0 else one for one in arrays]
    return concatenate(arrays, 0 if np.ndim(plain(arrays[0])) == 1 else 1, **how)


def vstack(arrays: Any, **how: Any) -> Any:
    return concatenate([one if np.ndim(plain(one)) > 1 else np.reshape(one, (1, -1)) for one in arrays], 0, **how)


def split(a: Any, parts: Any, axis: int = 0) -> Any:
    places = np.split(np.arange(a.shape[axis]), parts)
    return [take(a, one, axis) for one in places]


def take(a: Any, indices: Any, axis: Any = None, **how: Any) -> Any:
    if how or isinstance(indices, Value):
        raise Unknown("np.take has a gradient here with plain indices and an axis alone")
    if axis is None:
        return a.reshape(-1)[np.asarray(indices)]
    return a[(slice(None),) * (axis % a.ndim) + (np.asarray(indices),)]


def take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Any:
    if axis is None:
        return take_along_axis(arr.reshape(-1), indices, 0)
    x, places = plain(arr), np.asarray(plain(indices))

    def pull(g: Array) -> Array:
        found = np.zeros_like(x)
        if places.shape[axis] == 1:  # none can be chosen twice
            np.put_along_axis(found, places, g, axis)
            return np.asarray(found)
        where_ = list(np.ogrid[tuple(slice(size) for size in places.shape)])
        where_[axis % x.ndim] = places
        np.add.at(found, tuple(where_), g)
        return np.asarray(found)

    return made(np.take_along_axis(x, places, axis), (arr, pull))


def repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    if axis is None:
        return repeat(a.reshape(-1), repeats, 0)
    return take(a, np.repeat(np.arange(a.shape[axis]), repeats), axis)


def tile(a: Any, reps: Any) -> Any:
    return _by_places(a, np.tile(_places(a), reps))


def pad(array: Any, pad_width: Any, mode: Any = "constant", **how: Any) -> Any:
    x = plain(array)
    if mode != "constant":
        return _by_places(array, np.pad(_places(array), pad_width, mode, **how))
    out = np.pad(x, pad_width, **how)
    inner = np.pad(np.ones(x.shape, bool), pad_width)
    return made(out, (array, lambda g: g[inner].reshape(x.shape)))


def _places(a: Any) -> Array:
    return np.arange(a.size).reshape(a.shape)


def _by_places(a: Any, places: Array) -> Any:
    return a.reshape(-1)[places]


def diff(a: Any, n: int = 1, axis: int = -1, **how: Any) -> Any:
    if how:
        raise Unknown("np.diff has a gradient here without prepend and append")
    for _ in range(n):
        ahead = (slice(None),) * (axis % a.ndim)
        a = a[(*ahead, slice(1, None))] - a[(*ahead, slice(None, -1))]
    return a


def sort(a: Any, axis: Any = -1, **how: Any) -> Any:
    if axis is None:
        return sort(a.reshape(-1), 0)
    return take_along_axis(a, np.argsort(plain(a), axis), axis)


def trace(a: Any, *args: Any, **how: Any) -> Any:
    if a.ndim != 2 or args or how:
        raise Unknown("np.trace has a gradient here for one matrix")
    return np.sum(diagonal(a))


def diagonal(a: Any) -> Any:
    count = min(a.shape)
    return a[np.arange(count), np.arange(count)]


def outer(a: Any, b: Any) -> Any:
    return np.reshape(a, (-1, 1)) * np.reshape(b, (1, -1))


def nan_to_num(x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    return where(np.isfinite(plain(x)), x, np.nan_to_num(plain(x), nan=nan, posinf=posinf, neginf=neginf))


FUNCTIONS.update(
    {
        np.reshape: reshaping(np.reshape), np.ravel: reshaping(np.ravel), np.squeeze: reshaping(np.squeeze),
        np.expand_dims: reshaping(np.expand_dims), np.atleast_1d: reshaping(np.atleast_1d),
        np.atleast_2d: reshaping(np.atleast_2d), np.copy: lambda a, **how: a, np.transpose: transpose,
        np.swapaxes: swapaxes, np.moveaxis: moveaxis, np.flip: flip, np.roll: roll, np.broadcast_to: broadcast_to,
        np.where: where, np.clip: clip, np.concatenate: concatenate, np.stack: stack, np.hstack: hstack,
        np.vstack: vstack, np.split: split, np.take: take, np.take_along_axis: take_along_axis, np.repeat: repeat,
        np.tile: tile, np.pad: pad, np.diff: diff, np.sort: sort, np.trace: trace, np.diagonal: diagonal,
        np.outer: outer, np.nan_to_num: nan_to_num,
    }
)  # fmt: skip

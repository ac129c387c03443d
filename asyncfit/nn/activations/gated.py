"""z times a smooth gate of z: SiLU, GELU, Mish; and GLU, whose gate is its other half."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.blocks import against, alike, blocks
from asyncfit.nn.naming import whole
from asyncfit.nn.special import erf_calls
from asyncfit.nn.workspace import Workspace

from .base import Activation, scalar
from .smooth import sigmoid_calls

__all__ = ["GELU", "GLU", "Mish", "SiLU"]


class SiLU(Activation):
    """y = z·s, s = sigmoid z; y' = s + y(1 − s)."""

    name = "silu"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return [*sigmoid_calls(z, y), partial(np.multiply, y, z, y)]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        s, slope = work.like(dy), work.like(dy)
        return [
            *sigmoid_calls(z, s),
            partial(np.subtract, scalar(1, y), s, slope),
            partial(np.multiply, slope, y, slope),
            partial(np.add, slope, s, slope),
            partial(np.multiply, dy, slope, dy),
        ]


def normal_cdf_calls(z: Array, out: Array, scratch: Sequence[Array]) -> list[Call]:
    """Φ(z) = (1 + erf(z/√2)) / 2."""
    return [
        partial(np.multiply, z, scalar(math.sqrt(0.5), z), out),
        *erf_calls(out, *scratch),
        partial(np.add, out, scalar(1, z), out),
        partial(np.multiply, out, scalar(0.5, z), out),
    ]


ROOT, CUBIC = math.sqrt(2 / math.pi), 0.044715


def square_calls(z: Array, out: Array) -> list[Call]:
    """z², cut at 100: tanh u is ±1 to the last bit from there on."""
    return [
        partial(np.abs, z, out),
        *against(np.minimum, out, 10, out),
        partial(np.multiply, out, out, out),
    ]


def tanh_calls(z: Array, out: Array) -> list[Call]:
    """(1 + tanh u) / 2, u = √(2/π)·(z + 0.044715 z³)."""
    return [
        *square_calls(z, out),
        partial(np.multiply, out, scalar(ROOT * CUBIC, z), out),
        partial(np.add, out, scalar(ROOT, z), out),
        partial(np.multiply, out, z, out),
        partial(np.tanh, out, out),
        partial(np.add, out, scalar(1, z), out),
        partial(np.multiply, out, scalar(0.5, z), out),
    ]


def tanh_slope_calls(z: Array, out: Array, share: Array, part: Array) -> list[Call]:
    """p + z·2p(1 − p)·u', where p is (1 + tanh u) / 2 and u' = √(2/π)·(1 + 3·0.044715 z²)."""
    return [
        *tanh_calls(z, share),
        *square_calls(z, out),
        partial(np.multiply, out, scalar(6 * ROOT * CUBIC, z), out),
        partial(np.add, out, scalar(2 * ROOT, z), out),
        partial(np.subtract, scalar(1, z), share, part),
        partial(np.multiply, part, share, part),
        partial(np.multiply, part, z, part),
        partial(np.multiply, out, part, out),
        partial(np.add, out, share, out),
    ]


class GELU(Activation):
    """y = z·Φ(z), Φ(z) = (1 + erf(z/√2)) / 2; y' = Φ(z) + z·φ(z) (Hendrycks & Gimpel 2016).

    With `approximate`: y = z·(1 + tanh u) / 2, u = √(2/π)·(z + 0.044715 z³).
    """

    name = "gelu"

    def __init__(self, approximate: bool = False) -> None:
        self.approximate = bool(approximate)
        self.name = self.full_name()

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        z, y = alike(z, y)
        scratch = pieces_of(z, 4, work)
        found: list[Call] = []
        for each, out in blocks(z, y):  # passes are many: three times as fast where they stay in the cache
            share, *others = (one[: len(each)] for one in scratch)
            found += tanh_calls(each, share) if self.approximate else normal_cdf_calls(each, share, others)
            found.append(partial(np.multiply, share, each, out))
        return found

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        z, dy = alike(z, dy)
        scratch = pieces_of(z, 5, work)
        found: list[Call] = []
        for each, gradient in blocks(z, dy):
            slope, part, *others = (one[: len(each)] for one in scratch)
            if self.approximate:
                found += tanh_slope_calls(each, slope, part, others[0])
            else:
                found += [
                    partial(np.multiply, each, each, slope),
                    partial(np.multiply, slope, scalar(-0.5, z), slope),
                    partial(np.exp, slope, slope),
                    partial(np.multiply, slope, scalar(1 / math.sqrt(2 * math.pi), z), slope),
                    partial(np.multiply, slope, each, slope),
                    *normal_cdf_calls(each, part, others),
                    partial(np.add, slope, part, slope),
                ]
            found.append(partial(np.multiply, gradient, slope, gradient))
        return found


def pieces_of(z: Array, count: int, work: Workspace) -> list[Array]:
    """Scratch memory, so many times, for the largest of the blocks of `z`."""
    (first,) = next(iter(blocks(z)))
    return [work.take(first.shape) for _ in range(count)]


class Mish(Activation):
    """y = z·tanh(softplus z) (Misra 2019). With u = e^z and n = u² + 2u: y = z·n / (n + 2)."""

    name = "mish"

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        u, n = work.like(z), work.like(z)
        return [
            *self._parts(z, u, n),
            partial(np.add, n, scalar(2, z), u),
            partial(np.divide, n, u, u),
            partial(np.multiply, u, z, y),
        ]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        u, n, slope, two = work.like(dy), work.like(dy), work.like(dy), scalar(2, z)
        return [  # (n + z·4u(u + 1) / (n + 2)) / (n + 2)
            *self._parts(z, u, n),
            partial(np.multiply, u, u, slope),
            partial(np.add, slope, u, slope),
            partial(np.multiply, slope, scalar(4, z), slope),
            partial(np.add, n, two, u),
            partial(np.divide, slope, u, slope),
            partial(np.multiply, slope, z, slope),
            partial(np.add, slope, n, slope),
            partial(np.divide, slope, u, slope),
            partial(np.multiply, dy, slope, dy),
        ]

    def _parts(self, z: Array, u: Array, n: Array) -> list[Call]:
        return [  # from 20 on n / (n + 2) is 1 in both types
            *against(np.minimum, z, 20, u),
            partial(np.exp, u, u),
            partial(np.add, u, scalar(2, z), n),
            partial(np.multiply, n, u, n),
        ]


class GLU(Activation):
    """y = a·sigmoid b, a and b the halves of z along `axis` (Dauphin et al. 2017): half as long as z.

    As a layer: `Activation("glu")`, along the last axis.
    """

    name = "glu"
    halves = True

    def __init__(self, axis: int = -1) -> None:
        self.axis = whole("glu(axis=…)", axis, least=-32)
        self.name = self.full_name()

    def __call__(self, x: Array, *options: Any, **named: Any) -> Array:
        if options or named:
            return self.with_options(*options, **named)(x)
        x = np.asarray(x)
        x = np.moveaxis(x if x.dtype == np.float64 else x.astype(np.float32), self.axis, -1)
        y = np.empty((*x.shape[:-1], self.half(x.shape[-1])), x.dtype)
        for call in self.forward(x, y, Workspace(x.dtype)):
            call()
        return np.moveaxis(y, -1, self.axis)

    def half(self, size: int) -> int:
        if size % 2:
            raise InvalidInput(f"glu takes an even number of features, half of them as gates, not {size}")
        return size // 2

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        """Along the last axis."""
        half = z.shape[-1] // 2
        return [*sigmoid_calls(z[..., half:], y), partial(np.multiply, y, z[..., :half], y)]

    def backward_into(self, z: Array, y: Array, dy: Array, dz: Array, work: Workspace) -> list[Call]:
        """Calls that write ∂loss/∂z: dy·s for a, dy·y·(1 − s) for b, with s = sigmoid b."""
        half = z.shape[-1] // 2
        da, db = dz[..., :half], dz[..., half:]
        return [
            *sigmoid_calls(z[..., half:], da),
            partial(np.subtract, scalar(1, z), da, db),
            partial(np.multiply, db, y, db),
            partial(np.multiply, db, dy, db),
            partial(np.multiply, da, dy, da),
        ]

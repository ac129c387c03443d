"""The arithmetic of batch and group normalization: each channel is shifted and scaled, by numbers of its own.

The values are seen as `(regions, places, channels)` in C order. Statistics belong to a region and a group of its
channels: batch normalization is one region whose groups are single channels, group normalization has a region for each
sample. What lies channel by channel (short vectors, sequences as planes) has a region of one channel for each; images
as planes have one for each line and channel, and the lines share statistics and weights.

What costs time are passes over memory and short inner loops. So several places are taken as one long row, at most
`WIDEST`, against which the vectors are tiled; sums are products with ones; and the passes go over blocks that stay in
the cache. On 64 images of 28 x 28 x 16 a product takes 100 µs in place of 340, a sum 30 in place of 1,260.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from .activations import scalar
from .arrays import Array, Call, Shape
from .workspace import Place

__all__ = ["Channels"]

WIDEST, WIDE = 8192, 1024
"""Numbers in a long row: of one region, and where each of many regions has vectors of its own."""
LINE = 1 << 15
"""Images as planes have their vectors spelled out against a whole line of all channels, if it is not longer."""
BLOCK = 1 << 16
"""Elements that go through the cache at a time: two or three arrays of them lie in 1 MiB."""


class Channels:
    """One layer's place, its arrays as `(regions, places, channels)`, and how to pass over them.

    Args:
        order: the axes of `at.x` in the order regions, places, channels.
        shape: `(regions, places, channels)`.
        groups: how many groups the channels of a region form.
        epsilon: what is added to a variance.
        gamma, beta: scale and offset, `(1, channels)` or `(regions // lines, 1)`, or None.
        weights: of each place, 0 or 1, or None: which places count in statistics.
        lines: how often the regions repeat: region i is the channel i % (regions // lines), and its gamma the same.

    Attributes:
        mean, variance: `(regions, channels)`, what `statistics` has found.
    """

    def __init__(
        self,
        at: Place,
        order: Shape,
        shape: tuple[int, int, int],
        *,
        groups: int,
        epsilon: float,
        gamma: Array | None,
        beta: Array | None,
        weights: Array | None = None,
        lines: int = 1,
    ) -> None:
        self.lines = lines
        self.at, self.shape, self.groups = at, shape, groups
        self.order, self.gamma, self.beta = order, self._repeated(gamma), self._repeated(beta)
        regions, places, channels = shape
        arrays = [a.transpose(order) for a in (at.x, at.y, at.dy, at.dx) if a is not None]
        flat = all(a.flags.c_contiguous for a in arrays)
        rows = arrays[0].ndim == 2 and regions == 1 and all(a.strides[1] == a.itemsize for a in arrays)
        self.as_is = flat or (rows and channels > 1)
        limit = (WIDEST if regions == 1 else WIDE) // channels
        self.fold = places if channels == 1 else 1 if rows and not flat else most(places, limit)
        self.width, self.long = self.fold * channels, places // self.fold
        self.across = regions // lines  # channels of a line, where lines are taken as they are
        self.spelled = lines > 1 and self.across * places <= LINE
        self.view = (lines, self.across, places) if self.spelled else (regions, self.long, self.width)
        self.x = self._in(at.x, at.forward)
        self.epsilon = scalar(epsilon, at.x)
        self.number = scalar(places * (channels // groups) * lines, at.x)
        self.mean, self.variance, self.inverse, self.factor = (self._vector() for _ in range(4))
        self.centered = self._array()
        self.weights = None if weights is None else self._tiled(np.broadcast_to(weights, shape[1:]))
        if weights is not None:
            self._count(weights)
        width = max(1, BLOCK // (self.view[2] if regions == 1 else self.view[1] * self.view[2]))
        self.cuts = [slice(i, i + width) for i in range(0, self.view[1] if regions == 1 else self.view[0], width)]
        cut = self.centered[self._cut(self.cuts[0])]
        self.scratch = at.take(cut.shape)
        self.tiled_factor = self._tile(self.factor)
        self.tiled_beta = None if self.beta is None else self._tile(np.broadcast_to(self.beta, self.mean.shape))

    # Values

    def statistics(self) -> list[Call]:
        """Mean and variance of each group, and the input less the mean."""
        calls = self._sums(self.x, self.mean, weigh=True) + self._share(self.mean)
        tiled = self._tile(self.mean)
        calls += self._fill(tiled, self.mean)

        def parts() -> Iterator[tuple[list[Call], Array]]:
            for cut in self.cuts:
                c = self.centered[self._cut(cut)]
                s = self.scratch[: len(c)] if self.shape[0] > 1 else self.scratch[:, : c.shape[1]]
                made: list[Call] = [
                    partial(np.subtract, self.x[self._cut(cut)], self._of(tiled, cut), c),
                    partial(np.multiply, c, c, s),
                ]
                if self.weights is not None:
                    made.append(partial(np.multiply, s, self.weights[self._cut(cut)], s))
                yield made, s

        return calls + self._summed(parts(), self.variance) + self._share(self.variance)

    def scale(self) -> list[Call]:
        """The factor of each channel, gamma / √(variance + epsilon)."""
        calls: list[Call] = [
            partial(np.add, self.variance, self.epsilon, self.inverse),
            partial(np.sqrt, self.inverse, self.inverse),
            partial(np.reciprocal, self.inverse, self.inverse),
            partial(np.copyto, self.factor, self.inverse)
            if self.gamma is None
            else partial(np.multiply, self.inverse, self.gamma, self.factor),
        ]
        return calls

    def write(self, *, center: bool) -> list[Call]:
        """y = (x - mean) · factor + beta; with `center` x has the mean still in it."""
        store: list[Call] = []
        y = self._out(self.at.y, store)
        calls = self._fill(self.tiled_factor, self.factor)
        if self.tiled_beta is not None:
            assert self.beta is not None
            calls += self._fill(self.tiled_beta, np.broadcast_to(self.beta, self.mean.shape))
        tiled = self._tile(self.mean) if center else None
        if tiled is not None:
            calls += self._fill(tiled, self.mean)
        for cut in self.cuts:
            into, begin = y[self._cut(cut)], (self.x if center else self.centered)[self._cut(cut)]
            if tiled is not None:
                calls.append(partial(np.subtract, begin, self._of(tiled, cut), into))
                begin = into
            calls.append(partial(np.multiply, begin, self._of(self.tiled_factor, cut), into))
            if self.tiled_beta is not None:
                calls.append(partial(np.add, into, self._of(self.tiled_beta, cut), into))
        return calls + store

    # Gradients

    def gradients(self, gamma: Array | None, beta: Array | None) -> list[Call]:
        """The gradients of gamma and beta (into arrays like those, unless None) and of x, through the statistics too.

        With t = Σ dy, u = Σ dy·(x - mean) over places, r = 1 / √(variance + epsilon) and means over a group of n:
        dx = gamma·r·dy - r·(Σ gamma·t)/n - (x - mean)·r³·(Σ gamma·u)/n.
        """
        at = self.at
        calls: list[Call] = []
        assert at.dy is not None
        dy = self._in(at.dy, calls)
        plain, crossed, pull, push = (self._vector() for _ in range(4))

        def parts() -> Iterator[tuple[list[Call], Array]]:
            for cut in self.cuts:
                c = self.centered[self._cut(cut)]
                s = self.scratch[: len(c)] if self.shape[0] > 1 else self.scratch[:, : c.shape[1]]
                yield [partial(np.multiply, c, dy[self._cut(cut)], s)], s

        calls += self._sums(dy, plain) + self._summed(parts(), crossed)
        calls.append(partial(np.multiply, crossed, self.inverse, crossed))
        calls += self._down(crossed, gamma) + self._down(plain, beta)
        if at.dx is None:
            return calls
        if self.gamma is not None:
            calls += [
                partial(np.multiply, plain, self.gamma, plain),
                partial(np.multiply, crossed, self.gamma, crossed),
            ]
        calls += [*self._share(plain), *self._share(crossed)]
        calls += [
            partial(np.multiply, plain, self.inverse, plain),
            partial(np.negative, plain, pull),
            partial(np.multiply, self.inverse, self.inverse, push),
            partial(np.multiply, push, crossed, push),
            partial(np.negative, push, push),
        ]
        store: list[Call] = []
        dx = self._out(at.dx, store)
        pulls, pushes = self._tile(pull), self._tile(push)
        calls += self._fill(pulls, pull) + self._fill(pushes, push)
        for cut in self.cuts:
            part = self._cut(cut)
            c, into = self.centered[part], dx[part]
            s = self.scratch[: len(c)] if self.shape[0] > 1 else self.scratch[:, : c.shape[1]]
            calls += [
                partial(np.multiply, dy[part], self._of(self.tiled_factor, cut), into),
                partial(np.multiply, c, self._of(pushes, cut), s),
            ]
            if self.weights is None:
                calls += [partial(np.add, into, s, into), partial(np.add, into, self._of(pulls, cut), into)]
            else:
                calls += [
                    partial(np.add, s, self._of(pulls, cut), s),
                    partial(np.multiply, s, self.weights[part], s),
                    partial(np.add, into, s, into),
                ]
        return calls + store

    def plain_gradient(self) -> list[Call]:
        """The gradient of x where the statistics are given: dy · factor."""
        at = self.at
        if at.dx is None:
            return []
        assert at.dy is not None
        load: list[Call] = []
        store: list[Call] = []
        dy, dx = self._in(at.dy, load), self._out(at.dx, store)
        pairs = [(self._cut(cut), self._of(self.tiled_factor, cut)) for cut in self.cuts]
        return [*load, *(partial(np.multiply, dy[cut], factor, dx[cut]) for cut, factor in pairs), *store]

    # Arrays

    def _in(self, array: Array, calls: list[Call]) -> Array:
        """An array as `(regions, long, width)`; one that lies otherwise is copied when it is needed."""
        found = array.transpose(self.order)
        if not self.as_is and not found.flags.c_contiguous:
            copy = self.at.take(found.shape)
            calls.append(partial(np.copyto, copy, found))
            found = copy
        return found.reshape(self.view)

    def _out(self, array: Array, calls: list[Call]) -> Array:
        """The same for one that is written; `calls` then bring the values there."""
        found = array.transpose(self.order)
        if not self.as_is and not found.flags.c_contiguous:
            copy = self.at.take(found.shape)
            calls.append(partial(np.copyto, found, copy))
            found = copy
        return found.reshape(self.view)

    def _repeated(self, weight: Array | None) -> Array | None:
        """A weight of each channel for each line."""
        if weight is None or self.lines == 1:
            return weight
        found = self.at.take((self.shape[0], 1))
        self.at.forward.append(partial(np.copyto, found.reshape(self.lines, -1), weight.reshape(1, -1)))
        return found

    def _array(self) -> Array:
        return self.at.take(self.view)

    def _vector(self) -> Array:
        return self.at.take((self.shape[0], self.shape[2]))

    def _cut(self, cut: slice) -> tuple[slice, ...]:
        return (cut,) if self.shape[0] > 1 else (slice(None), cut)

    def _tile(self, vector: Array) -> Array:
        """Room for a vector against each of the long rows, `(regions, 1, width)`, or the vector itself if it fits."""
        if self.spelled:
            return self.at.take((1, *self.view[1:]))
        if (self.fold == 1 or self.shape[2] == 1) and vector.flags.c_contiguous:
            return vector[:, None]
        return self.at.take((self.shape[0], 1, self.width))

    def _fill(self, tiled: Array, vector: Array) -> list[Call]:
        if self.spelled:
            return [partial(np.copyto, tiled[0], vector[: self.across])]
        if np.shares_memory(tiled, vector):
            return []
        return [partial(np.copyto, tiled.reshape(self.shape[0], self.fold, -1), vector[:, None])]

    def _of(self, tiled: Array, cut: slice) -> Array:
        """The part of a tiled vector that goes with a block."""
        return tiled if self.shape[0] == 1 or self.spelled else tiled[cut]

    def _tiled(self, weights: Array) -> Array:
        found = self.at.take(self.shape[1:])
        self.at.forward.append(partial(np.copyto, found, weights))
        return found.reshape(1, self.long, self.width)

    def _count(self, weights: Array) -> None:
        """The number of places that count, with Keras's epsilon, in place of all."""
        number = self.number = self.at.take(())
        tiny = scalar(1e-7, number)
        self.at.forward += [
            partial(np.add.reduce, weights, None, out=number, dtype=number.dtype),
            partial(np.add, number, tiny, number),
        ]

    # Sums

    def _sums(self, array: Array, into: Array, *, weigh: bool = False) -> list[Call]:
        """Sums over places, `(regions, channels)`."""
        if weigh and self.weights is not None:
            weighed = self._array()
            return [partial(np.multiply, array, self.weights, weighed), *self._sums(weighed, into)]
        if self.shape[2] == 1:
            return [partial(np.dot, array.reshape(-1, self.width), np.ones(self.width, array.dtype), into[:, 0])]
        if self.long == 1:
            return self._folded(array[:, 0], into)
        rows, ones = self.at.take((self.shape[0], self.width)), np.ones(self.long, array.dtype)
        if self.shape[0] == 1:
            return [partial(np.dot, ones, array[0], rows[0]), *self._folded(rows, into)]
        return [partial(np.matmul, ones, array, rows), *self._folded(rows, into)]

    def _summed(self, parts: Iterator[tuple[list[Call], Array]], into: Array) -> list[Call]:
        """The same where blocks are made one after the other."""
        calls: list[Call] = []
        if self.shape[2] == 1:
            alone = np.ones(self.width, into.dtype)
            for cut, (made, block) in zip(self.cuts, parts, strict=True):
                part = into if self.shape[0] == 1 else into.reshape(self.view[0], -1)[cut]
                calls += [*made, partial(np.dot, block.reshape(-1, self.width), alone, part.reshape(-1))]
            return calls
        rows = self.at.take((len(self.cuts) if self.shape[0] == 1 else self.shape[0], self.width))
        ones = np.ones(self.long, rows.dtype)
        for i, (cut, (made, block)) in enumerate(zip(self.cuts, parts, strict=True)):
            calls += made
            if self.shape[0] == 1:
                calls.append(partial(np.dot, ones[: block.shape[1]], block[0], rows[i]))
            else:
                calls.append(partial(np.matmul, ones, block, rows[cut]))
        if self.shape[0] == 1:
            rows = rows.reshape(1, -1)
        return calls + self._folded(rows, into)

    def _folded(self, rows: Array, into: Array) -> list[Call]:
        """Sums of long rows, `(regions, n · channels)`, become those of channels."""
        regions, _, channels = self.shape
        short = rows.reshape(regions, -1, channels)
        if short.shape[1] == 1:
            return [partial(np.copyto, into, short[:, 0])]
        ones = np.ones(short.shape[1], rows.dtype)
        if regions == 1:
            return [partial(np.dot, ones, short[0], into[0])]
        return [partial(np.matmul, ones, short, into)]

    def _share(self, sums: Array) -> list[Call]:
        """Sums of channels become means of their groups, and of all lines."""
        if self.lines > 1:
            lines = sums.reshape(self.lines, -1)
            line = self.at.take((1, lines.shape[1]))
            return [
                partial(np.add.reduce, lines, 0, None, line, True),
                partial(np.divide, line, self.number, lines),
            ]
        if self.groups == sums.shape[1]:
            return [partial(np.divide, sums, self.number, sums)]
        grouped = sums.reshape(len(sums), self.groups, -1)
        whole = self.at.take((len(sums), self.groups, 1))
        return [
            partial(np.add.reduce, grouped, 2, None, whole, True),
            partial(np.divide, whole, self.number, grouped),
        ]

    def _down(self, found: Array, grad: Array | None) -> list[Call]:
        """A gradient of each region and channel becomes that of the weight."""
        if grad is None:
            return []
        if self.lines > 1:
            return [partial(np.add.reduce, found.reshape(self.lines, -1), 0, None, grad.reshape(-1))]
        if grad.shape == found.shape:
            return [partial(np.copyto, grad, found)]
        return [partial(np.add.reduce, found, 0, None, grad, True)]


def most(number: int, limit: int) -> int:
    """The greatest divisor of `number` that is at most `limit`, at least 1."""
    return next((n for n in range(min(number, limit), 1, -1) if number % n == 0), 1)

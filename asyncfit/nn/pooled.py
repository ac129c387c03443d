"""A convolution and the max pooling behind it, computed together in tiles that stay in the cache.

The maximum comes first and the bias after it: adding one number to all elements of a pool changes none of the choices.
Each tile is some lines of pools: their products are made, the greatest elements taken, and for training it is kept
which they were; the products themselves are gone with the next tile. On the way back a tile's gradient is put together
from these choices, used for the kernel's gradient, and kept only if the image's gradient is wanted.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

from .arrays import Array
from .correlation import Correlation
from .windows import Window
from .workspace import Place, planes

__all__ = ["PooledCorrelation"]

TILE = 1 << 16
"""About how many products are made at a time (a quarter of a MiB)."""


class PooledCorrelation:
    """`windows` are those of the convolution over the image, `pools` those of the pooling over its output.

    Products for one line are made pool by pool, or first those for the first element of each pool, then for the second
    …, whatever costs less: the first way copies fewer runs of the image, the second compares longer runs of products.
    """

    def __init__(
        self,
        at: Place,
        windows: tuple[Window, Window],
        pools: tuple[Window, Window],
        channels: int,
        filters: int,
        groups: int,
    ) -> None:
        self.at, self.filters, self.rows = at, filters, at.x.shape[0]
        self.high, self.wide = (pool.taps for pool in pools)
        self.lines, self.columns = (pool.count for pool in pools)
        used = [replace(w, count=pool.count * pool.taps) for w, pool in zip(windows, pools, strict=True)]
        self.phases = self.wide if used[1].taps * channels < filters else 1
        self.correlation = Correlation(at, used[0], used[1], channels, filters, groups, phases=self.phases)
        self.y = planes(at.y)
        each = self.high * self.wide * filters * self.rows  # products for one pool of each image
        lines = max(1, TILE // (each * self.columns))
        step = self.columns if lines > 1 else max(1, TILE // each)
        self.tiles = [
            (slice(i, min(i + lines, self.lines)), slice(j, min(j + step, self.columns)))
            for i in range(0, self.lines, lines)
            for j in range(0, self.columns, step)
        ]
        self.chosen: tuple[Array, Array] | None = None
        if at.dy is not None:
            # whether the next element is greater than all before it: within a line of the pool, and of its lines
            shape = (filters, self.columns, self.rows)
            self.chosen = (
                at.take((self.wide - 1, self.lines, self.high, *shape), bool),
                at.take((self.high - 1, self.lines, *shape), bool),
            )

    def _room(self) -> Array:
        """Memory for the products of any tile."""
        most = max((t[0].stop - t[0].start) * (t[1].stop - t[1].start) for t in self.tiles)
        return self.at.take((most * self.high * self.wide * self.filters * self.rows,))

    def _shape(self, lines: int, columns: int) -> tuple[int, ...]:
        """Of the products of some lines and columns of pools, as the correlation has them."""
        return self.phases, lines * self.high, self.filters, columns * self.wide // self.phases * self.rows

    def _part(self, tile: tuple[slice, slice]) -> tuple[slice, slice]:
        """The lines and columns of a tile, as the correlation counts them."""
        lines, columns = tile
        each = self.wide // self.phases * self.rows
        return slice(lines.start * self.high, lines.stop * self.high), slice(columns.start * each, columns.stop * each)

    def _by_elements(self, products: Array) -> Array:
        """`(elements of a line of a pool, lines of pools, lines of a pool, filters, columns, rows)`."""
        inner = (self.high, self.filters)
        if self.phases == self.wide:
            found = products.reshape(self.wide, -1, *inner, products.shape[-1] // self.rows, self.rows)
        else:
            found = products[0].reshape(-1, *inner, products.shape[-1] // self.rows // self.wide, self.wide, self.rows)
            found = found.transpose(4, 0, 1, 2, 3, 5)
        assert np.shares_memory(found, products)
        return found

    def forward(self, kernel: Array, bias: Array | None) -> None:
        at, calls = self.at, self.at.forward
        calls += self.correlation.gather(planes(at.x))
        room = self._room()
        for tile in self.tiles:
            lines, columns = tile
            shape = self._shape(lines.stop - lines.start, columns.stop - columns.start)
            products = room[: math.prod(shape)].reshape(shape)
            calls.append(self.correlation.product(kernel, products, *self._part(tile)))
            elements = self._by_elements(products)
            best = elements[0]
            for number in range(1, self.wide):
                if self.chosen:
                    later = self.chosen[0][number - 1, lines, :, :, columns]
                    calls.append(partial(np.less, best, elements[number], later))
                calls.append(partial(np.maximum, best, elements[number], out=best))
            y = self.y[lines, :, columns]
            so_far = best[:, 0]
            if self.high == 1:
                calls.append(partial(np.copyto, y, so_far))
            for line in range(1, self.high):
                if self.chosen:
                    calls.append(partial(np.less, so_far, best[:, line], self.chosen[1][line - 1, lines, :, columns]))
                calls.append(partial(np.maximum, so_far, best[:, line], out=y))
                so_far = y
            if bias is not None:
                calls.append(partial(np.add, y, bias[:, None, None], y))

    def backward(self, kernel: Array, gradient: Array | None) -> None:
        at, calls = self.at, self.at.backward
        assert at.dy is not None
        assert self.chosen is not None
        if gradient is None and at.dx is None:
            return
        dy = planes(at.dy)
        whole = None if at.dx is None else at.take(self._shape(self.lines, self.columns))
        room = self._room() if whole is None else None
        for number, tile in enumerate(self.tiles):
            lines, columns = tile
            if whole is not None:
                products = whole
                elements = self._by_elements(whole)[:, lines, :, :, columns]
            else:
                assert room is not None
                shape = self._shape(lines.stop - lines.start, columns.stop - columns.start)
                products = room[: math.prod(shape)].reshape(shape)
                elements = self._by_elements(products)
            first = elements[0]
            rest = dy[lines, :, columns]
            for line in reversed(range(1, self.high)):
                later = self.chosen[1][line - 1, lines, :, columns]
                calls.append(partial(np.multiply, rest, later, first[:, line]))
                calls.append(partial(np.subtract, rest, first[:, line], first[:, 0]))
                rest = first[:, 0]
            if self.high == 1:
                calls.append(partial(np.copyto, first[:, 0], rest))
            for element in reversed(range(1, self.wide)):
                later = self.chosen[0][element - 1, lines, :, :, columns]
                calls.append(partial(np.multiply, first, later, elements[element]))
                calls.append(partial(np.subtract, first, elements[element], first))
            if gradient is not None and whole is None:
                calls += self.correlation.kernel_gradient(products, gradient, *self._part(tile), more=number > 0)
        if whole is not None:
            if gradient is not None:
                calls += self.correlation.kernel_gradient(whole, gradient)
            assert at.dx is not None
            calls += self.correlation.spread(kernel, whole, planes(at.dx))

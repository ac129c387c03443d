"""A convolution and the max pooling behind it, computed together in tiles that stay in the cache.

The maximum comes first and the bias after it: adding one number to all elements of a pool changes none of the choices.
Each tile is some lines of pools: their products are made, the greatest elements taken, and for training it is kept
which they were; the products themselves are gone with the next tile. On the way back a tile's gradient is put together
from these choices, used for the kernel's gradient, and kept only if the image's gradient is wanted.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from .arrays import Array
from .correlation import Correlation
from .windows import Window
from .workspace import Place, planes

__all__ = ["PooledCorrelation"]

TILE = 1 << 17
"""About how many products are made at a time (half a MiB)."""


class PooledCorrelation:
    """`windows` are those of the convolution over the image, `pools` those of the pooling over its output."""

    def __init__(
        self,
        at: Place,
        windows: tuple[Window, Window],
        pools: tuple[Window, Window],
        channels: int,
        filters: int,
        groups: int,
    ) -> None:
        self.at = at
        self.high, self.wide = (pool.taps for pool in pools)
        used = [replace(w, count=pool.count * pool.taps) for w, pool in zip(windows, pools, strict=True)]
        self.correlation = Correlation(at, used[0], used[1], channels, filters, groups, phases=self.wide)
        self.y = planes(at.y).reshape(pools[0].count, filters, -1)
        self.filters, self.columns = filters, self.y.shape[-1]
        each = self.high * self.wide * filters  # products for one pool
        lines = max(1, TILE // (each * self.columns))
        step = self.columns if lines > 1 else max(64, -(-TILE // each) // 64 * 64)
        self.tiles = [
            (slice(i, min(i + lines, pools[0].count)), slice(j, min(j + step, self.columns)))
            for i in range(0, pools[0].count, lines)
            for j in range(0, self.columns, step)
        ]
        self.chosen: tuple[Array, Array] | None = None
        if at.dy is not None:
            # whether the next element is greater than all before it: within a line of the pool, and of its lines
            shape = (pools[0].count, self.high, filters, self.columns)
            self.chosen = at.take((self.wide - 1, *shape), bool), at.take((self.high - 1, shape[0], *shape[2:]), bool)

    def _products(self, tile: tuple[slice, slice], memory: Array) -> tuple[Array, slice]:
        """A place for a tile's products, `(phases, lines, filters, columns)`, and the lines of the convolution."""
        lines, part = tile
        begin, end = lines.start * self.high, lines.stop * self.high
        shape = (self.wide, end - begin, self.filters, part.stop - part.start)
        return memory[: int(np.prod(shape))].reshape(shape), slice(begin, end)

    def _room(self) -> Array:
        most = max((t[0].stop - t[0].start) * (t[1].stop - t[1].start) for t in self.tiles)
        return self.at.take((most * self.high * self.wide * self.filters,))

    def forward(self, kernel: Array, bias: Array | None) -> None:
        at, calls = self.at, self.at.forward
        calls += self.correlation.gather(planes(at.x))
        room = self._room()
        for tile in self.tiles:
            lines, part = tile
            products, of_image = self._products(tile, room)
            calls.append(self.correlation.product(kernel, products, of_image, part))
            best = products[0]
            for phase in range(1, self.wide):
                if self.chosen:
                    later = self.chosen[0][phase - 1, lines, :, :, part].reshape(best.shape)
                    calls.append(partial(np.less, best, products[phase], later))
                calls.append(partial(np.maximum, best, products[phase], out=best))
            pools = best.reshape(-1, self.high, *best.shape[1:])
            y = self.y[lines, :, part]
            if self.high == 1:
                calls.append(partial(np.copyto, y, pools[:, 0]))
            so_far = pools[:, 0]
            for line in range(1, self.high):
                if self.chosen:
                    later = self.chosen[1][line - 1, lines, :, part]
                    calls.append(partial(np.less, so_far, pools[:, line], later))
                calls.append(partial(np.maximum, so_far, pools[:, line], out=y))
                so_far = y
            if bias is not None:
                calls.append(partial(np.add, y, bias[:, None], y))

    def backward(self, kernel: Array, gradient: Array | None) -> None:
        at, calls = self.at, self.at.backward
        assert at.dy is not None
        assert self.chosen is not None
        if gradient is None and at.dx is None:
            return
        dy = planes(at.dy).reshape(self.y.shape)
        count = self.y.shape[0]
        whole = None
        if at.dx is not None:
            whole = at.take((self.wide, count * self.high, self.filters, self.columns))
        room = self._room() if whole is None else None
        for number, tile in enumerate(self.tiles):
            lines, part = tile
            if whole is None:
                assert room is not None
                products, of_image = self._products(tile, room)
            else:
                of_image = slice(lines.start * self.high, lines.stop * self.high)
                products = whole[:, of_image, :, part]
            first = products[0]
            pools = first.reshape(-1, self.high, *first.shape[1:])
            assert np.shares_memory(pools, first)
            rest = dy[lines, :, part]
            for line in reversed(range(1, self.high)):
                later = self.chosen[1][line - 1, lines, :, part]
                calls.append(partial(np.multiply, rest, later, pools[:, line]))
                calls.append(partial(np.subtract, rest, pools[:, line], pools[:, 0]))
                rest = pools[:, 0]
            if self.high == 1:
                calls.append(partial(np.copyto, pools[:, 0], rest))
            for phase in reversed(range(1, self.wide)):
                later = self.chosen[0][phase - 1, lines, :, :, part].reshape(first.shape)
                calls.append(partial(np.multiply, first, later, products[phase]))
                calls.append(partial(np.subtract, first, products[phase], first))
            if gradient is not None and whole is None:
                calls += self.correlation.kernel_gradient(products, gradient, of_image, part, more=number > 0)
        if whole is not None:
            if gradient is not None:
                calls += self.correlation.kernel_gradient(whole, gradient)
            assert at.dx is not None
            calls += self.correlation.spread(kernel, whole, planes(at.dx))

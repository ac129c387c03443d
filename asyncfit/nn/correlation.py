"""The arithmetic of convolutions: products of a kernel with all patches of images that lie as planes.

An image batch lies as `(height, channels, width, rows)`. For each tap j of the kernel's width the elements under it are
one contiguous run for each line and channel. Copied side by side they make the *lines* `(height, width taps, channels,
windows·rows)`: `kernel width` copies of the image, and the patches of the windows of one output line are `kernel
height` neighbouring lines, a view. So each output line is one matrix product `(filters, K) · (K, windows·rows)`, K =
kernel height · kernel width · channels, and its result lies as planes again. Nothing is copied `kernel height` times,
as im2col does, and nothing at all for a kernel of width 1.

The gradient by the image is the same product with the kernel upside down: an input line gets something from `kernel
height` neighbouring output lines, a view as well; then the taps of the width are added up.

`phases` > 1 splits the windows of a line by their number modulo `phases` (which divides it), for pooling: then all
first, all second … elements of the pools lie together. Output is `(phases, output height, filters, windows / phases ·
rows)`.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from .arrays import Array, Call
from .windows import Window
from .workspace import Place

__all__ = ["Correlation"]

BLOCK = 1 << 17
"""About how many elements of intermediate gradients are kept (half a MiB)."""


class Correlation:
    """Kernels `(taps high, taps wide, channels / groups, filters)` over images; `high` and `wide` are the windows.

    A plan makes one, and takes the calls in the order of the methods: `gather` before `product` and `kernel_gradient`.

    Attributes:
        patches: `(phases, groups, output height, K, windows·rows)`, once gathered; they overlap, so they are read-only.
    """

    def __init__(
        self, at: Place, high: Window, wide: Window, channels: int, filters: int, groups: int = 1, *, phases: int = 1
    ) -> None:
        self.at, self.high, self.wide = at, high, wide
        self.channels, self.filters, self.groups, self.phases = channels, filters, groups, phases
        self.rows = at.x.shape[0]
        self.each, self.each_filters = channels // groups, filters // groups
        self.columns = wide.count // phases * self.rows
        self.depth = high.taps * wide.taps * self.each
        self.patches: Array = np.empty(0)
        self._scratch: Array | None = None

    # Patches

    def gather(self, image: Array) -> list[Call]:
        """Calls that make `patches` of `image`, `(height, channels, width, rows)`."""
        high, wide, groups, each = self.high, self.wide, self.groups, self.each
        if self.plain and groups == self.phases == 1:
            lines = image.reshape(1, 1, high.size, 1, each, self.columns)
            self.patches = self._stacked(lines, high.stride, high.taps)
            return []
        grouped = image.reshape(high.size, groups, each, wide.size, self.rows)
        taps = [0] if high.dilation == 1 else range(high.taps)
        height = high.reach if high.dilation == 1 else high.count
        shape = (self.phases, groups, height, len(taps), wide.taps, each, self.columns // self.rows, self.rows)
        lines = self.at.take(shape)
        if not (high.inside and wide.inside):
            self.at.enter.append(partial(lines.fill, 0))
        whole = Window(high.size, 1, 1, 1, high.before, high.reach)  # each line, whatever tap sees it
        calls: list[Call] = []
        for phase in range(self.phases):
            for i in taps:
                to_lines, lines_seen = (whole if high.dilation == 1 else high).seen(i)
                for j in range(wide.taps):
                    to, seen = wide.seen(j, phase, self.phases)
                    source = grouped[lines_seen, :, :, seen].transpose(1, 0, 2, 3, 4)
                    target = lines[phase, :, to_lines, i if high.dilation > 1 else 0, j, :, to]
                    if target.size:
                        calls.append(partial(np.copyto, target, source))
        if high.dilation > 1:
            self.patches = lines.reshape(self.phases, groups, height, self.depth, self.columns)
        else:
            flat = lines.reshape(self.phases, groups, height, wide.taps, each, self.columns)
            self.patches = self._stacked(flat, high.stride, high.taps)
        return calls

    @property
    def plain(self) -> bool:
        """Whether lines of the image are lines of patches as they are."""
        wide = self.wide
        narrow = wide.taps == wide.stride == self.high.dilation == 1 and wide.count == wide.size
        return narrow and self.high.inside and wide.inside

    def _stacked(self, lines: Array, stride: int, taps: int) -> Array:
        """A view of each `taps` neighbouring lines, `stride` apart, as one matrix."""
        phases, groups, _, *inner, columns = lines.shape
        s = lines.strides
        return np.lib.stride_tricks.as_strided(
            lines,
            (phases, groups, self.high.count, taps * math.prod(inner), columns),
            (s[0], s[1], s[2] * stride, s[-2], s[-1]),
            writeable=False,
        )

    # Products

    def grouped(self, output: Array) -> Array:
        """Output or its gradient, `(phases, lines, filters, columns)`, with the groups before the lines."""
        phases, lines, _, columns = output.shape
        return output.reshape(phases, lines, self.groups, self.each_filters, columns).transpose(0, 2, 1, 3, 4)

    def product(self, kernel: Array, output: Array, lines: slice = slice(None), part: slice = slice(None)) -> Call:
        """A call that writes the products for these lines, and of them these columns, into `output`."""
        matrix = kernel.reshape(self.depth, self.groups, self.each_filters).transpose(1, 2, 0)[:, None]
        return partial(np.matmul, matrix, self.patches[:, :, lines, :, part], self.grouped(output))

    def kernel_gradient(
        self, d_output: Array, gradient: Array, lines: slice = slice(None), part: slice = slice(None), *,
        more: bool = False,
    ) -> list[Call]:  # fmt: skip
        """Calls that write the kernel's gradient, or with `more` add to it what these lines and columns say."""
        calls: list[Call] = []
        out = gradient.reshape(self.depth, self.groups, self.each_filters).transpose(1, 0, 2)
        patches, d_grouped = self.patches[:, :, lines, :, part], self.grouped(d_output).swapaxes(-1, -2)
        count = patches.shape[2]
        block = min(count, max(1, BLOCK // (self.phases * gradient.size)))
        shape = (self.phases, self.groups, block, self.depth, self.each_filters)
        if self._scratch is None or self._scratch.size < math.prod(shape):
            self._scratch = self.at.take((math.prod(shape),))
        scratch = self._scratch[: math.prod(shape)].reshape(shape)
        total = self.at.take(out.shape) if more or block < count else out
        for begin in range(0, count, block):
            some = slice(begin, min(begin + block, count))
            products = scratch[:, :, : some.stop - some.start]
            calls += [
                partial(np.matmul, patches[:, :, some], d_grouped[:, :, some], products),
                partial(np.add.reduce, products, (0, 2), None, total if more or begin else out),
            ]
            if more or begin:
                calls.append(partial(np.add, out, total, out))
        return calls

    # Gradient by the image

    def spread(self, kernel: Array, d_output: Array, d_image: Array) -> list[Call]:
        """Calls that write the gradient by the image, `(height, channels, width, rows)`."""
        high, wide, groups, each = self.high, self.wide, self.groups, self.each
        direct = self.plain and groups == self.phases == 1 and high.reach == high.size
        inner = wide.taps * each
        shape = (self.phases, groups, high.reach, inner, self.columns)
        lines = d_image.reshape(shape) if direct else self.at.take(shape)
        if high.stride == high.dilation == groups == 1:
            calls = self._upside_down(kernel, d_output, lines)
        else:
            calls = self._by_taps(kernel, d_output, lines)
        return calls if direct else calls + self._added(lines, d_image)

    def _upside_down(self, kernel: Array, d_output: Array, lines: Array) -> list[Call]:
        """An input line as one product of the kernel, last line first, with the output lines that it had a part in."""
        taps, filters, count = self.high.taps, self.filters, self.high.count
        flipped = self.at.take((self.wide.taps, self.each, taps, filters))
        calls: list[Call] = [partial(np.copyto, flipped, kernel[::-1].transpose(1, 2, 0, 3))]
        matrix = flipped.reshape(-1, taps * filters)
        above = np.lib.stride_tricks.as_strided  # lines that lie behind each other as one matrix
        line = 0
        while line < self.high.reach:
            first, last = max(0, line - taps + 1), min(count - 1, line)  # of the output lines
            inside = first == line - taps + 1 and last == line
            many = count - line if inside else 1
            begin = taps - 1 - (line - first)
            part = matrix[:, begin * filters : (begin + last - first + 1) * filters]
            seen = above(
                d_output[:, first:],
                (self.phases, many, part.shape[1], self.columns),
                (d_output.strides[0], d_output.strides[1], d_output.strides[2], d_output.strides[3]),
                writeable=False,
            )
            calls.append(partial(np.matmul, part, seen, lines[:, 0, line : line + many]))
            line += many
        return calls

    def _by_taps(self, kernel: Array, d_output: Array, lines: Array) -> list[Call]:
        """Tap by tap of the height, added up: for strides, dilation and groups."""
        high = self.high
        d_grouped = self.grouped(d_output)
        matrices = kernel.reshape(high.taps, -1, self.groups, self.each_filters).transpose(0, 2, 1, 3)[:, :, None]
        if high.taps == high.stride == 1:
            return [partial(np.matmul, matrices[0], d_grouped, lines)]
        scratch = self.at.take((self.phases, self.groups, high.count, *lines.shape[-2:]))
        calls: list[Call] = [partial(lines.fill, 0)]
        for i in range(high.taps):
            begin = i * high.dilation
            target = lines[:, :, begin : begin + (high.count - 1) * high.stride + 1 : high.stride]
            calls += [partial(np.matmul, matrices[i], d_grouped, scratch), partial(np.add, target, scratch, target)]
        return calls

    def _added(self, lines: Array, d_image: Array) -> list[Call]:
        """Add up the taps of the width; `lines` are `(phases, groups, padded height, taps·channels, columns)`."""
        high, wide, groups, each = self.high, self.wide, self.groups, self.each
        parts = lines.reshape(self.phases, groups, high.reach, wide.taps, each, -1, self.rows)
        image = d_image.reshape(high.size, groups, each, wide.size, self.rows)
        from_lines, to_lines = Window(high.size, 1, 1, 1, high.before, high.reach).seen(0)
        calls: list[Call] = []
        written = np.zeros(wide.size, bool)
        for j in range(wide.taps):
            for phase in range(self.phases):
                to, seen = wide.seen(j, phase, self.phases)
                if to.stop <= to.start:
                    continue
                source = parts[phase, :, from_lines, j, :, to]
                target = image[to_lines, :, :, seen].transpose(1, 0, 2, 3, 4)
                if not written[seen].any():
                    calls.append(partial(np.copyto, target, source))
                else:
                    calls += self._zeroed(image, to_lines, ~written, seen)
                    calls.append(partial(np.add, target, source, target))
                written[seen] = True
        calls += self._zeroed(image, to_lines, ~written, slice(None))
        for missing in (slice(0, to_lines.start), slice(to_lines.stop, None)):
            if image[missing].size:
                calls.append(partial(image[missing].fill, 0))
        return calls

    def _zeroed(self, image: Array, lines: slice, missing: Array, within: slice) -> list[Call]:
        """Zeros in those columns `within` that nothing was written to yet."""
        return [partial(image[lines, :, :, i].fill, 0) for i in np.arange(missing.size)[within] if missing[i]]

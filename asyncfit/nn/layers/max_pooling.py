"""MaxPooling1D and MaxPooling2D: the greatest element of each window."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from asyncfit.nn.arrays import Array, Call, Shape
from asyncfit.nn.windows import Window
from asyncfit.nn.workspace import Place, planes

from .spatial import Sizes, Spatial, one_padding, sizes

__all__ = ["MaxPooling1D", "MaxPooling2D", "Pooling"]


class Pooling(Spatial):
    """What pooling layers share: windows of `pool_size` that move by `strides` (None: by their own size)."""

    def __init__(
        self,
        pool_size: Sizes = 2,
        strides: Sizes | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        *,
        name: str | None = None,
        input_shape: int | Sequence[int] | None = None,
        trainable: bool = True,
    ) -> None:
        super().__init__(data_format, name=name, input_shape=input_shape, trainable=trainable)
        kind = type(self).__name__
        self.pool_size = sizes(f"{kind}(pool_size=…)", pool_size, self.rank)
        self.strides = self.pool_size if strides is None else sizes(f"{kind}(strides=…)", strides, self.rank)
        self.padding = one_padding(f"{kind}(padding=…)", padding)

    def windows_over(self, input_shape: Shape) -> tuple[Window, Window]:
        """The windows over height and width."""
        self.check_rank(input_shape)
        return self.windows(input_shape, self.pool_size, self.strides, (1,) * self.rank, self.padding)

    def output_shape_for(self, input_shape: Shape) -> Shape:
        counts = [w.count for w in self.windows_over(input_shape)]
        return (*counts[-self.rank :], input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "pool_size": list(self.pool_size),
            "strides": list(self.strides),
            "padding": self.padding,
        }


class MaxPooling(Pooling):
    """The greatest element of each window, `pool_size` wide, `strides` apart (default: `pool_size`).

    padding "valid" keeps windows inside; "same" gives ⌈size / strides⌉ outputs, and what is outside counts as −∞. Of
    equal elements the first one gets the gradient, as in TensorFlow and PyTorch.
    """

    def plan(self, at: Place) -> None:
        x, y = planes(at.x), planes(at.y)
        assert self.input_shape is not None
        high, wide = self.windows_over(self.input_shape)
        taps = taps_of(high, wide, x, y)
        dy, dx = (None, None) if at.dy is None or at.dx is None else (planes(at.dy), planes(at.dx))
        kept = at.take((len(taps) - 1, *y.shape), bool) if dx is not None else None
        whole = taps[0][0].shape == y.shape  # the first tap sees an element everywhere
        if whole:
            at.forward.append(partial(np.copyto, y, taps[0][1]))
        else:
            at.forward.append(partial(y.fill, -np.inf))
            at.forward.append(partial(np.copyto, taps[0][0], taps[0][1]))
        for number, (so_far, seen, part) in enumerate(taps[1:]):
            if kept is not None:
                at.forward.append(partial(np.greater_equal, so_far, seen, kept[number][part]))
            at.forward.append(partial(np.maximum, so_far, seen, out=so_far))
        if dx is None:
            return
        assert dy is not None
        assert kept is not None
        scratch, overlap = at.take(y.shape), high.stride < high.taps or wide.stride < wide.taps
        if overlap or x.size > sum(tap[1].size for tap in taps):
            at.backward.append(partial(dx.fill, 0))
        gradients = [tap[1] for tap in taps_of(high, wide, dx, y)]
        for number in reversed(range(1, len(taps))):
            part = taps[number][2]
            still, rest, given = dy[part], scratch[part], gradients[number]
            at.backward.append(partial(np.multiply, still, kept[number - 1][part], rest))
            if overlap:
                at.backward += [partial(np.subtract, still, rest, still), partial(np.add, given, still, given)]
            else:
                at.backward.append(partial(np.subtract, still, rest, given))
            at.backward.append(partial(np.copyto, still, rest))
        last: Call = partial(np.copyto, gradients[0], dy[taps[0][2]])
        at.backward.append(partial(np.add, gradients[0], dy[taps[0][2]], gradients[0]) if overlap else last)


class MaxPooling1D(MaxPooling):
    __doc__ = MaxPooling.__doc__
    rank = 1


class MaxPooling2D(MaxPooling):
    __doc__ = MaxPooling.__doc__
    rank = 2


Part = tuple[slice, slice, slice]


def taps_of(high: Window, wide: Window, image: Array, output: Array) -> list[tuple[Array, Array, Part]]:
    """For each tap: the outputs that see an element there, those elements, and the slices of the outputs."""
    found = []
    for i in range(high.taps):
        for j in range(wide.taps):
            (to_lines, lines), (to, seen) = high.seen(i), wide.seen(j)
            part = (to_lines, slice(None), to)
            found.append((output[part], image[lines, :, seen], part))
    return found

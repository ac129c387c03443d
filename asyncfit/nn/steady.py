"""Big batches that come in the same buffer each time are computed on where they lie, without a copy.

A source fills a few buffers in turn. Copying 400 KB from there into a plan costs 15 µs, and ten times as much where
the other core has just read the old values. So when the very same array object comes again, a plan is made for it
that has it bound as its input. The arithmetic is the same, so are the bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .arrays import Array, DType

__all__ = ["Steady", "large"]

Run = Callable[[Array, Array, Array | None], dict[str, float]]

WORTH, MOST_BYTES = 1 << 16, 1 << 24
"""Arrays from so many bytes; and up to so many, because they stay alive with the model."""
BUFFERS = 4
"""A source has that many at most; in other cases nothing would be gained."""


class Steady:
    """A run that does without the copy where it can.

    Args:
        make: makes a run: on an input of its own (None), or bound to this array; None where a plan cannot do that.
        dtype: of the plan's input.
    """

    def __init__(self, make: Callable[[Array | None], Run | None], dtype: DType) -> None:
        any_array = make(None)
        assert any_array is not None
        self._any_array: Run = any_array
        self._make: Callable[[Array], Run | None] | None = make
        self._dtype = dtype
        self._seen: list[Array] = []
        self._bound: list[tuple[Array, Run]] = []

    def __call__(self, x: Array, y: Array, w: Array | None) -> dict[str, float]:
        for array, run in self._bound:
            if array is x:
                return run(x, y, w)
        found = self._run_for(x) if self._make is not None and self._suits(x) else None
        return (found or self._any_array)(x, y, w)

    def _suits(self, x: Array) -> bool:
        """A read-only array is a view of somebody's data, and there will be as many as there are batches."""
        flags = x.flags
        sized = WORTH <= x.nbytes <= MOST_BYTES
        return sized and x.dtype == self._dtype and flags.c_contiguous and flags.aligned and flags.writeable

    def _run_for(self, x: Array) -> Run | None:
        if not any(x is one for one in self._seen):
            self._seen = [x, *self._seen[: BUFFERS - 1]]
            return None
        assert self._make is not None
        run = self._make(x)
        if run is None:
            self._make, self._seen = None, []
            return None
        self._bound = [(x, run), *self._bound[: BUFFERS - 1]]
        self._seen = [one for one in self._seen if one is not x]
        return run


def large(rows: int, shape: tuple[int, ...], dtype: DType) -> bool:
    """Whether a batch of this shape may be worth it."""
    return bool(rows * int(np.prod(shape, dtype=np.int64)) * dtype.itemsize >= WORTH)

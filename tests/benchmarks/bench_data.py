"""What a batch costs to hand out, against one np.take for each batch and array: python tests/benchmarks/bench_data.py

Prints microseconds a batch and the ratio to the loop written by hand, both measured in this process, in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from asyncfit.data import ArrayData, arrays

Array = np.ndarray[Any, np.dtype[Any]]
SIZES = [(2_048, 16, 32), (20_000, 784, 128), (200_000, 16, 32)]
WINDOWS_KIB = [16, 64, 128, 256, 512, 1024, 4096]


def by_hand(x: Array, y: Array, batch: int) -> Callable[[], None]:
    rng = np.random.default_rng(0)
    into_x, into_y = np.empty((batch, *x.shape[1:]), x.dtype), np.empty((batch, *y.shape[1:]), y.dtype)

    def epoch() -> None:
        order = rng.permutation(len(x))
        for i in range(0, len(x), batch):
            rows = order[i : i + batch]
            np.take(x, rows, axis=0, out=into_x, mode="clip")
            np.take(y, rows, axis=0, out=into_y, mode="clip")

    return epoch


def by_source(x: Array, y: Array, batch: int, *, shuffle: bool = True) -> Callable[[], None]:
    data, epochs = ArrayData(x, y, batch_size=batch, shuffle=shuffle, key=(1, 0)), iter(range(10**9))

    def epoch() -> None:
        for _ in data.batches(next(epochs)):  # each one with a new order
            pass

    return epoch


def seconds(*loops: Callable[[], None], repeats: int) -> list[float]:
    """The median of each, taken in turn so that all see the same machine."""
    times: list[list[float]] = [[] for _ in loops]
    for _ in range(repeats):
        for loop, into in zip(loops, times, strict=True):
            start = time.perf_counter()
            loop()
            into.append(time.perf_counter() - start)
    return [sorted(t)[len(t) // 2] for t in times]


def main() -> None:
    usual = arrays.WINDOW_BYTES
    for rows, width, batch in SIZES:
        rows -= rows % batch  # the loop by hand has room for whole batches only
        x = np.random.default_rng(1).random((rows, width), dtype=np.float32)
        y = x[:, :1].copy()
        repeats = max(9, 2_000_000 // (rows * width))
        print(f"{rows} x {width}, batch {batch}")
        for kib in WINDOWS_KIB:
            arrays.WINDOW_BYTES = kib * 1024
            hand, ours = seconds(by_hand(x, y, batch), by_source(x, y, batch), repeats=repeats)
            per = 1e6 * batch / rows
            print(f"  window {kib:5} KiB: {ours * per:6.2f} us, by hand {hand * per:6.2f} us: {ours / hand:.2f}")
        arrays.WINDOW_BYTES = usual
        (direct,) = seconds(by_source(x, y, batch, shuffle=False), repeats=repeats)
        print(f"  unshuffled: {1e6 * direct * batch / rows:.2f} us")


if __name__ == "__main__":
    main()

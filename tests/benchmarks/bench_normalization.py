"""Layers that normalize, alone: forward and backward calls of a plan, against copies of the same array.

::

    python tests/benchmarks/bench_normalization.py

The bound is what the memory allows: batch normalization reads x twice, keeps x - mean and reads it three times, reads
the gradient three times, and writes y and dx: eleven passes; a copy is two. On two AMD EPYC cores (one used, 1 MiB of
second-level cache each), forward + backward in µs:

    64 images of 28 x 28 x 16, a copy 70, so the bound is 385: batch normalization 520 + 640 in C order, 510 + 640 as
    planes between convolutions, groups of channels 790 + 910. PyTorch 2 on one thread: both passes 2,960, with the
    channels last 1,620; groups 2,030.
    1024 rows of 64: layer normalization 85 + 110; PyTorch 194.
    128 rows of 256: batch normalization 30 + 33, layer normalization 35 + 46; PyTorch 129 and 106.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from asyncfit.nn.arrays import Array, Call, Shape
from asyncfit.nn.layers import BatchNormalization, GroupNormalization, Layer, LayerNormalization
from asyncfit.nn.streams import Dice
from asyncfit.nn.workspace import Place, Workspace

CASES: list[tuple[str, Layer, int, Shape, str]] = [
    ("batch", BatchNormalization(), 64, (28, 28, 16), "rows"),
    ("batch, planes", BatchNormalization(), 64, (28, 28, 16), "planes"),
    ("batch, planes", BatchNormalization(), 64, (13, 13, 32), "planes"),
    ("batch", BatchNormalization(), 32, (32,), "columns"),
    ("batch", BatchNormalization(), 128, (256,), "rows"),
    ("layer", LayerNormalization(), 1024, (64,), "rows"),
    ("layer", LayerNormalization(), 128, (256,), "rows"),
    ("groups", GroupNormalization(4), 64, (28, 28, 16), "rows"),
]


def planned(layer: Layer, rows: int, shape: Shape, order: str) -> Place:
    work, rng = Workspace(np.dtype(np.float32)), np.random.default_rng(0)

    def array() -> Array:
        if order == "planes":
            made = work.take_planes(rows, shape)
        else:
            made = work.take((shape[0], rows)).T if order == "columns" else work.take((rows, *shape))
        made[...] = rng.standard_normal(made.shape)
        return made

    specs = layer.weight_specs(shape)
    weights = {spec.name: spec.initializer.fill(spec.shape, rng).astype(np.float32) for spec in specs}
    at = Place(
        work, Dice(), index=0, x=array(), ones=None, y=array(), dy=array(), dx=array(), weights=weights,
        grads={spec.name: np.empty_like(weights[spec.name]) for spec in specs if spec.trainable}, training=True,
    )  # fmt: skip
    layer.plan(at)
    return at


def microseconds(work: Callable[[], object]) -> float:
    work()
    number = max(1, int(0.05 / max(timeit.timeit(work, number=1), 1e-6)))
    return min(timeit.repeat(work, number=number, repeat=7)) / number * 1e6


def run(calls: list[Call]) -> None:
    for call in calls:
        call()


def main() -> None:
    print(f"{'':14} {'rows':>5} {'shape':>14} {'forward':>8} {'backward':>8} {'copy':>6}   copies in all")
    for name, layer, rows, shape, order in CASES:
        at = planned(layer, rows, shape, order)
        run(at.forward)
        forth, back = (microseconds(lambda calls=calls: run(calls)) for calls in (at.forward, at.backward))  # type: ignore[misc]
        x, y = np.ones((rows, *shape), np.float32), np.ones((rows, *shape), np.float32)
        copy = microseconds(lambda x=x, y=y: np.copyto(y, x))  # type: ignore[misc]
        print(f"{name:14} {rows:5} {shape!s:>14} {forth:8.0f} {back:8.0f} {copy:6.1f} {(forth + back) / copy:10.1f}")


if __name__ == "__main__":
    main()

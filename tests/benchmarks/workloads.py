"""The six networks that speed is measured on, with data of the right shapes.

A workload is plain data, so that each contender builds it with its own library: layers as `(kind, settings)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["WORKLOADS", "Workload"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Workload:
    """One network and how it is trained.

    Attributes:
        shape: of a sample.
        layers: `("dense", units, activation)`, `("conv", filters, size, activation)`, `("pool", size)`,
            `("flatten",)`, `("lstm", units)`, `("gru", units)`, `("embedding", words, dimensions)`.
        loss: "binary_crossentropy" or "sparse_categorical_crossentropy".
        steps: batches of the data set.
        round: batches of one measurement, about half a second's work.
    """

    title: str
    shape: tuple[int, ...]
    layers: tuple[tuple[Any, ...], ...]
    loss: str
    optimizer: str
    batch: int
    steps: int
    round: int

    @property
    def words(self) -> int:
        """How many different words there are, if samples are sequences of those."""
        return int(self.layers[0][1]) if self.layers[0][0] == "embedding" else 0

    def data(self) -> tuple[Array, Array]:
        rng = np.random.default_rng(0)
        rows = self.batch * self.steps
        if self.words:
            x: Array = rng.integers(0, self.words, (rows, *self.shape)).astype(np.int32)
        else:
            x = rng.standard_normal((rows, *self.shape)).astype(np.float32)
        if self.loss == "binary_crossentropy":
            return x, (x.reshape(rows, -1)[:, :1] > np.median(x)).astype(np.float32)
        return x, rng.integers(0, 10, rows).astype(np.int32)


CATEGORIES = "sparse_categorical_crossentropy"
WORKLOADS = {
    "W1": Workload(
        "16-32-1, SGD, batch 32", (16,), (("dense", 32, "relu"), ("dense", 1, "sigmoid")),
        "binary_crossentropy", "sgd", 32, 64, 6400,
    ),
    "W2": Workload(
        "784-256-128-10, Adam, batch 128", (784,),
        (("dense", 256, "relu"), ("dense", 128, "relu"), ("dense", 10, "softmax")), CATEGORIES, "adam", 128, 32, 384,
    ),
    "W3": Workload(
        "1024-2048-2048-10, Adam, batch 256", (1024,),
        (("dense", 2048, "relu"), ("dense", 2048, "relu"), ("dense", 10, "softmax")), CATEGORIES, "adam", 256, 8, 16,
    ),
    "W4": Workload(
        "28×28×1, conv 16, pool, conv 32, pool, dense 64, Adam, batch 64", (28, 28, 1),
        (("conv", 16, 3, "relu"), ("pool", 2), ("conv", 32, 3, "relu"), ("pool", 2), ("flatten",),
         ("dense", 64, "relu"), ("dense", 10, "softmax")),
        CATEGORIES, "adam", 64, 16, 96,
    ),
    "W5": Workload(
        "LSTM(64) on 32×16, Adam, batch 64", (32, 16), (("lstm", 64), ("dense", 10, "softmax")),
        CATEGORIES, "adam", 64, 16, 192,
    ),
    "W6": Workload(
        "embedding 20,000×64, GRU(64) on 64 words, Adam, batch 64", (64,),
        (("embedding", 20_000, 64), ("gru", 64), ("dense", 1, "sigmoid")), "binary_crossentropy", "adam", 64, 16, 64,
    ),
}  # fmt: skip

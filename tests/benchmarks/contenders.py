"""One contender in a process of its own: `python -m tests.benchmarks.contenders NAME WORKLOAD`.

Each trains as its documentation shows: a whole `fit` on arrays where it has one, shuffled, else the usual loop. It
says "ready", then trains as many batches as it reads from its input and answers with the seconds that it took. A
contender whose library is not there ends with the code 3.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .workloads import WORKLOADS, Workload

__all__ = ["CONTENDERS", "MISSING"]

MISSING = 3
Train = Callable[[int], None]
"""Trains so many batches, a multiple of the workload's `steps`."""


def asyncfit(work: Workload) -> Train:
    import anyio

    import asyncfit as af
    from asyncfit import layers

    made: dict[str, Callable[..., Any]] = {
        "dense": lambda units, activation: layers.Dense(units, activation),
        "conv": lambda filters, size, activation: layers.Conv2D(filters, size, activation=activation),
        "pool": lambda size: layers.MaxPooling2D(size),
        "flatten": lambda: layers.Flatten(),
        "lstm": lambda units: layers.LSTM(units),
        "gru": lambda units: layers.GRU(units),
        "embedding": lambda words, size: layers.Embedding(words, size),
    }
    try:
        model = af.Sequential([layers.Input(work.shape), *(made[kind](*rest) for kind, *rest in work.layers)], seed=0)
    except AttributeError as error:
        raise ImportError(str(error)) from None
    model.compile(optimizer=work.optimizer, loss=work.loss)
    x, y = work.data()

    def train(batches: int) -> None:
        async def main() -> None:
            await model.fit(x, y, batch_size=work.batch, epochs=batches // work.steps)

        anyio.run(main)

    return train


def by_hand(work: Workload) -> Train:
    """Plain NumPy loops with preallocated buffers, for the networks that there is one of."""
    from .handwritten import HandwrittenBinary, HandwrittenClassifier

    if work.layers[0][0] == "lstm":
        return lstm_by_hand(work)
    if work.layers[0][0] == "conv":
        return convolution_by_hand(work)
    if any(kind != "dense" for kind, *_ in work.layers):
        raise ImportError("no loop written by hand")
    rng = np.random.default_rng(0)
    x, y = work.data()
    sizes = [work.shape[0], *(units for _, units, _ in work.layers)]
    weights: list[Any] = []
    for n, m in itertools.pairwise(sizes):
        limit = np.sqrt(6 / (n + m))
        weights += [rng.uniform(-limit, limit, (n, m)), np.zeros(m)]
    if work.loss == "binary_crossentropy":
        hand = HandwrittenBinary(weights, work.batch)

        def train(batches: int) -> None:
            for _ in range(batches // work.steps):
                rows = rng.permutation(len(x))
                for start in range(0, len(x), work.batch):
                    hand.gather(x, y, rows[start : start + work.batch])
                    hand.step(hand.x, hand.y)

        return train
    other = HandwrittenClassifier(weights, work.batch)
    return shuffled(work, other.step)


def convolution_by_hand(work: Workload) -> Train:
    from .handwritten_convolution import HandwrittenConvolution

    (_, one, *_), _, (_, two, *_), _, _, (_, units, _), (_, classes, _) = work.layers
    rng, (height, width, channels) = np.random.default_rng(0), work.shape
    features = two * ((((height - 2) // 2) - 2) // 2) * ((((width - 2) // 2) - 2) // 2)
    shapes = (3, 3, channels, one), (one,), (3, 3, one, two), (two,), (features, units), (units,), (units, classes)
    weights = [rng.uniform(-0.1, 0.1, shape) for shape in (*shapes, (classes,))]
    hand = HandwrittenConvolution(weights, work.batch, height, width)
    return shuffled(work, hand.step)


def lstm_by_hand(work: Workload) -> Train:
    from .handwritten_recurrent import HandwrittenLSTM

    (_, units), (_, classes, _) = work.layers
    rng, (steps, features) = np.random.default_rng(0), work.shape
    shapes = (features, 4 * units), (units, 4 * units), (4 * units,), (units, classes), (classes,)
    hand = HandwrittenLSTM([rng.uniform(-0.1, 0.1, shape) for shape in shapes], work.batch, steps)
    return shuffled(work, hand.step)


def shuffled(work: Workload, step: Callable[[Any, Any], object]) -> Train:
    """Epochs of `step` on batches that are gathered in a new order each."""
    rng, (x, y) = np.random.default_rng(0), work.data()
    xb, yb = np.empty((work.batch, *work.shape), np.float32), np.empty(work.batch, y.dtype)

    def train(batches: int) -> None:
        for _ in range(batches // work.steps):
            rows = rng.permutation(len(x))
            for start in range(0, len(x), work.batch):
                np.take(x, rows[start : start + work.batch], 0, xb, "clip")
                np.take(y, rows[start : start + work.batch], 0, yb, "clip")
                step(xb, yb)

    return train


def torch(work: Workload, fused: bool = False) -> Train:
    import torch as t
    from torch import nn

    class Last(nn.Module):  # type: ignore[misc]
        """A recurrent layer of which the last step counts."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Any) -> Any:
            return self.inner(x)[0][:, -1]

    size: Any = work.shape[-1]
    image = work.shape[0]
    found: list[Any] = []
    for kind, *rest in work.layers:
        if kind == "dense":
            units, activation = rest
            found.append(nn.Linear(size, units))
            found += [nn.ReLU()] * (activation == "relu")
            size = units
        elif kind == "conv":
            filters, edge, activation = rest
            found += [nn.Conv2d(size, filters, edge), nn.ReLU()]
            size, image = filters, image - edge + 1
        elif kind == "pool":
            found.append(nn.MaxPool2d(rest[0]))
            image //= rest[0]
        elif kind == "flatten":
            found.append(nn.Flatten())
            size *= image * image
        elif kind in ("lstm", "gru"):
            found.append(Last((nn.LSTM if kind == "lstm" else nn.GRU)(size, rest[0], batch_first=True)))
            size = rest[0]
        elif kind == "embedding":
            found.append(nn.Embedding(*rest))
            size = rest[1]
    net = nn.Sequential(*found)
    x, y = work.data()
    images = len(work.shape) == 3
    xs = t.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if images else x)
    ys = t.from_numpy(y if work.loss == "binary_crossentropy" else y.astype(np.int64))
    if work.optimizer == "sgd":
        optimizer: Any = t.optim.SGD(net.parameters(), 0.01)
    else:
        optimizer = t.optim.Adam(net.parameters(), 0.001, eps=1e-7, fused=fused)
    loss = nn.BCEWithLogitsLoss() if work.loss == "binary_crossentropy" else nn.CrossEntropyLoss()

    def train(batches: int) -> None:
        for _ in range(batches // work.steps):
            rows = t.randperm(len(xs))
            total = t.zeros(())
            for start in range(0, len(xs), work.batch):
                part = rows[start : start + work.batch]
                optimizer.zero_grad()
                value = loss(net(xs[part]), ys[part])
                value.backward()
                optimizer.step()
                total += value.detach()
            float(total)

    return train


def torch_fused(work: Workload) -> Train:
    if work.optimizer != "adam":
        raise ImportError("there is a fused Adam alone")
    return torch(work, fused=True)


def keras(work: Workload, backend: str) -> Train:
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    __import__({"jax": "jax", "tensorflow": "tensorflow"}[backend])
    import keras as k

    made: dict[str, Callable[..., Any]] = {
        "dense": lambda units, activation: k.layers.Dense(units, activation),
        "conv": lambda filters, size, activation: k.layers.Conv2D(filters, size, activation=activation),
        "pool": lambda size: k.layers.MaxPooling2D(size),
        "flatten": lambda: k.layers.Flatten(),
        "lstm": lambda units: k.layers.LSTM(units),
        "gru": lambda units: k.layers.GRU(units),
        "embedding": lambda words, size: k.layers.Embedding(words, size),
    }
    model = k.Sequential([k.layers.Input(work.shape), *(made[kind](*rest) for kind, *rest in work.layers)])
    model.compile(optimizer=work.optimizer, loss=work.loss)
    x, y = work.data()

    def train(batches: int) -> None:
        model.fit(x, y, batch_size=work.batch, epochs=batches // work.steps, verbose=0)

    return train


def scikit_learn(work: Workload) -> Train:
    from sklearn.neural_network import MLPClassifier

    if any(kind != "dense" for kind, *_ in work.layers):
        raise ImportError("dense networks alone")
    x, y = work.data()
    hidden = tuple(units for _, units, _ in work.layers[:-1])

    def train(batches: int) -> None:
        MLPClassifier(
            hidden, solver=work.optimizer, batch_size=work.batch, max_iter=batches // work.steps, momentum=0.0,
            learning_rate_init=0.001, alpha=0.0, tol=0.0, n_iter_no_change=10**6,
        ).fit(x, y.ravel())  # fmt: skip

    return train


CONTENDERS: dict[str, Callable[[Workload], Train]] = {
    "asyncfit": asyncfit,
    "NumPy by hand": by_hand,
    "PyTorch": torch,
    "PyTorch, fused Adam": torch_fused,
    "Keras/JAX": lambda work: keras(work, "jax"),
    "Keras/TensorFlow": lambda work: keras(work, "tensorflow"),
    "scikit-learn": scikit_learn,
}


def main(name: str, workload: str) -> int:
    work = WORKLOADS[workload]
    import warnings

    warnings.simplefilter("ignore")
    try:
        train = CONTENDERS[name](work)
    except ImportError as error:
        print(f"missing: {error}", flush=True)
        return MISSING
    train(work.steps)
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        train(int(line))
        print(time.perf_counter() - began, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""The learner against loops written by hand, interleaved in one process: `python -m tests.benchmarks.bench_engine`.

Prints microseconds for a batch (least and median over the repeats) and their ratio; below 1 the learner is faster.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np

from asyncfit.layers import Dense, Input
from asyncfit.nn import Learner, Network

from .handwritten import HandwrittenBinary, HandwrittenClassifier


def timed(call: Callable[[], object], number: int) -> float:
    begin = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - begin) / number * 1e6


def compare(name: str, ours: Callable[[], object], theirs: Callable[[], object], number: int, repeats: int) -> None:
    for call in (ours, theirs):
        timed(call, max(1, number // 4))
    a, b = [], []
    for _ in range(repeats):
        a.append(timed(ours, number))
        b.append(timed(theirs, number))
    ratios = sorted(x / y for x, y in zip(a, b, strict=True))
    print(
        f"{name:<44} learner {min(a):8.1f} (median {statistics.median(a):8.1f})  by hand {min(b):8.1f} "
        f"({statistics.median(b):8.1f}) µs  ratio {min(a) / min(b):.3f} (median {statistics.median(ratios):.3f})"
    )


def binary(metrics: list[str], repeats: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2048, 16)).astype(np.float32)
    y = (x[:, :1] > 0).astype(np.float32)
    network = Network([Input((16,)), Dense(32, activation="relu"), Dense(1, activation="sigmoid")], seed=0)
    learner = Learner(network, loss="binary_crossentropy", optimizer="sgd", metrics=metrics)
    hand = HandwrittenBinary(network.get_weights(), 32, accuracy=bool(metrics))
    xb, yb = x[:32].copy(), y[:32].copy()
    title = f"16-32-1, batch 32, SGD{', accuracy' * bool(metrics)}"
    compare(title, lambda: learner.train_batch(xb, yb), lambda: hand.step(xb, yb), 1000, repeats)
    if metrics:
        return
    rows = rng.permutation(2048)[:32]
    gathered, labels = np.empty_like(xb), np.empty_like(yb)

    def ours() -> None:
        np.take(x, rows, 0, gathered, "clip")
        np.take(y, rows, 0, labels, "clip")
        learner.train_batch(gathered, labels)

    def theirs() -> None:
        hand.gather(x, y, rows)
        hand.step(hand.x, hand.y)

    compare(f"{title}, gathered", ours, theirs, 1000, repeats)


def classifier(repeats: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((128, 784), dtype=np.float32)
    y = rng.integers(0, 10, 128)
    hidden = [Dense(256, activation="relu"), Dense(128, activation="relu")]
    network = Network([Input((784,)), *hidden, Dense(10, activation="softmax")], seed=0)
    learner = Learner(network, loss="sparse_categorical_crossentropy", optimizer="adam")
    hand = HandwrittenClassifier(network.get_weights(), 128)
    compare("784-256-128-10, batch 128, Adam", lambda: learner.train_batch(x, y), lambda: hand.step(x, y), 20, repeats)


if __name__ == "__main__":
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 41
    binary([], repeats)
    binary(["accuracy"], repeats)
    classifier(repeats)

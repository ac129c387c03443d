"""A speed test of about one second: what this process reaches, each figure the best of several tries."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from asyncfit.nn import Learner, Network
from asyncfit.nn.layers import Dense, Input

__all__ = ["Speed", "measure"]

SIZES = (64, 256, 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What was measured.

    Attributes:
        products: GFLOP/s (10⁹ floating-point operations a second) of a float32 matrix product, by the size of its
            square matrices.
        memory: GB/s (10⁹ bytes a second, read and written) of copying an array larger than the caches.
        call: µs of the smallest NumPy call, the addition of 32 numbers.
        batch: µs of a training batch of 32 samples in a network of 16, 32 and 1 units with Adam.
    """

    products: dict[int, float]
    memory: float
    call: float
    batch: float


def measure(budget: float = 1.0) -> Speed:
    """Measure for about `budget` seconds, in the calling thread."""
    each = budget / (len(SIZES) + 3)
    rng = np.random.default_rng(0)
    products = {}
    for size in SIZES:
        a, b = (rng.random((size, size), np.float32) for _ in range(2))
        out = np.empty_like(a)
        products[size] = 2e-9 * size**3 / best(lambda a=a, b=b, out=out: np.dot(a, b, out), each)  # type: ignore[misc]
    big = np.ones(1 << 23, np.float32)
    other = np.zeros_like(big)
    memory = 2e-9 * big.nbytes / best(lambda: np.copyto(other, big), each)
    few, result = np.ones(32, np.float32), np.empty(32, np.float32)
    call = 1e6 * best(lambda: np.add(few, few, result), each)
    learner = Learner(Network([Input(16), Dense(32, "relu"), Dense(1)], seed=0), loss="mse", optimizer="adam")
    x, y = rng.random((32, 16), np.float32), rng.random((32, 1), np.float32)
    batch = 1e6 * best(lambda: learner.train_batch(x, y), each)
    return Speed(products=products, memory=memory, call=call, batch=batch)


def best(call: Callable[[], object], seconds: float) -> float:
    """Seconds that a call takes, in the fastest of the rounds that fit into `seconds`; each lasts 2 ms, or one call."""
    call()  # what is paid once
    count, took = 1, clocked(call, 1)
    while took < 0.002 and count < 1 << 20:
        count *= 2
        took = clocked(call, count)
    fastest, end = took / count, time.perf_counter() + seconds
    while time.perf_counter() < end:
        fastest = min(fastest, clocked(call, count) / count)
    return fastest


def clocked(call: Callable[[], object], count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - begin

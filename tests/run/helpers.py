"""What the tests of runs share: a model whose every batch can be seen, and what is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
import numpy as np

import asyncfit as af

X, Y = np.arange(12.0).reshape(6, 2), np.arange(6.0)
"""Three batches of two rows."""


class Linear:
    """Linear regression by hand: all that is asked of a model, and a hook to look into each batch."""

    def __init__(self, before: Callable[[Linear], object] = id) -> None:
        self.learning_rate = 0.01
        self.w = np.zeros(2)
        self.batches = 0
        self._before = before

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        self._before(self)
        error = x @ self.w - y
        self.w -= self.learning_rate * (x.T @ error) / len(x)
        self.batches += 1
        return {"loss": float((error**2).mean())}

    def test_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        return {"loss": float(((x @ self.w - y) ** 2).mean())}

    def state(self) -> Mapping[str, Any]:
        return {"w": self.w, "batches": self.batches, "learning_rate": self.learning_rate}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.w = state["w"].copy()
        self.batches, self.learning_rate = state["batches"], state["learning_rate"]

    def clone(self) -> Linear:
        twin = Linear()
        twin.load_state(self.state())
        return twin

    def predict(self, x: Any) -> Any:
        return x @ self.w


class Large:
    """A state of 80 kB, every number of which is the count of batches."""

    def __init__(self) -> None:
        self.learning_rate = 0.1
        self.w = np.zeros(10_000)

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        self.w += 1
        return {"loss": 1.0}

    def test_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        return {"loss": 1.0}

    def state(self) -> Mapping[str, Any]:
        return {"w": self.w, "rate": self.learning_rate}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.w[...] = state["w"]
        self.learning_rate = state["rate"]


class Gate:
    """Compute waits here until it is let through: `Linear(before=gate)`."""

    def __init__(self, at: int = 0) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        self._at = at

    def __call__(self, model: Linear) -> None:
        if model.batches == self._at:
            self.reached.set()
            assert self.open.wait(20)


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that other tasks or threads bring about."""
    with anyio.fail_after(20):
        while not condition():  # noqa: ASYNC110  # threads bring it about, and know no anyio.Event
            await anyio.sleep(0.001)


def kinds(events: list[af.Event]) -> list[str]:
    return [event.type for event in events]


def fit(model: Any = None, **how: Any) -> af.Fit:
    """A fit of three batches an epoch."""
    return af.Trainer(model or Linear()).fit(X, Y, **{"batch_size": 2, "shuffle": False, **how})


def whole(events: list[af.Event]) -> None:
    """The stream of a run that has ended is whole: numbered without gaps, TrainBegin first, one TrainEnd last."""
    assert [event.seq for event in events] == list(range(len(events)))
    names = kinds(events)
    assert names[0] == "TrainBegin"
    assert names[-1] == "TrainEnd"
    assert names.count("TrainEnd") == names.count("TrainBegin") == 1


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _threads() -> set[threading.Thread]:
    pool = ("AnyIO", "trio", "Trio", "asyncio")
    return {t for t in threading.enumerate() if not t.name.startswith(pool)}


@contextmanager
def nothing_left(*, within: float = 0) -> Iterator[None]:
    """No thread, socket or task more than before, or none any more `within` so many seconds.

    A thread of a pool has the pool's name again only a moment after it has given its result.
    """
    gc.collect()
    threads, descriptors, tasks = _threads(), _descriptors(), _tasks()
    yield
    until = time.monotonic() + within
    while _threads() - threads and time.monotonic() < until:
        time.sleep(0.001)
    gc.collect()
    assert not _threads() - threads  # a difference, so that a failure names them
    assert _descriptors() <= descriptors
    assert not _tasks() - tasks


def _tasks() -> set[asyncio.Task[Any]]:
    try:
        return asyncio.all_tasks()
    except RuntimeError:  # no loop, or trio's, which lets no task out of its nursery
        return set()


def here(up: int = 1) -> tuple[str, int]:
    """File and line of the caller."""
    frame = sys._getframe(up)
    return frame.f_code.co_filename, frame.f_lineno

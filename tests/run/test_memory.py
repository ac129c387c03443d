"""What a run keeps copies of its state in."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import Any

import anyio
import numpy as np
import pytest

import asyncfit as af
from asyncfit import executors
from asyncfit.pool import Pool, SharedState
from asyncfit.testing import LoopbackExecutor

from .helpers import fit

pytestmark = pytest.mark.anyio


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


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[Pool]:
    """The pools that runs in this process make."""
    made: list[Pool] = []

    def pool(**how: Any) -> Pool:
        made.append(Pool(**how))
        return made[-1]

    for module in (executors.thread, executors.loopback):
        monkeypatch.setattr(module, "Pool", pool)
    return made


EXECUTORS = pytest.mark.parametrize("executor", ["thread", LoopbackExecutor()], ids=["thread", "loopback"])


@EXECUTORS
async def test_snapshots_are_copied_into_memory_that_goes_round(executor: Any, pools: list[Pool]) -> None:
    seen: list[int] = []

    class Looks(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            state = event.model.state()
            seen.append(state["w"].__array_interface__["data"][0])
            assert (state["w"] == 3 * (event.epoch + 1)).all()
            assert isinstance(event.model._state, SharedState)

    with anyio.fail_after(30):
        await fit(Large(), epochs=50, callbacks=Looks(), lookahead=1, executor=executor)
    assert len(seen) == 50
    assert len(set(seen)) <= 4
    gc.collect()
    assert (pools[0].in_use, pools[0].idle) == (0, 0)


@EXECUTORS
async def test_a_snapshot_is_its_holders_as_long_as_they_like(executor: Any) -> None:
    kept: dict[int, Any] = {}

    class Keeps(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            kept[3 * (event.epoch + 1)] = event.model if event.epoch % 2 else event.model.state()["w"][5:]

    with anyio.fail_after(30):
        await fit(Large(), epochs=20, callbacks=Keeps(), lookahead=3, executor=executor)
    gc.collect()
    for steps, one in kept.items():
        array = one.state()["w"] if isinstance(one, af.Snapshot) else one
        assert (array == steps).all()
        assert not array.flags.writeable
        if isinstance(one, af.Snapshot):
            assert np.array_equal(one.get_weights()[0], array)


@EXECUTORS
async def test_what_nobody_looks_at_is_not_copied(executor: Any, pools: list[Pool]) -> None:
    with anyio.fail_after(30):
        await fit(Large(), epochs=5, callbacks=Watches(), executor=executor)
    assert pools[0]._next & 0xFFFF == 0, "no block was made"


class Watches(af.Callback):
    gates = "none"

    def on_epoch_end(self, event: af.EpochEnd) -> None:
        pass

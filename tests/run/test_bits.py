"""Promises 1 and 6 on whole runs: the same bits, whoever listens, however fast, on whatever loop."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import anyio
import numpy as np
import pytest

import asyncfit as af
from asyncfit import layers
from asyncfit.testing import LoopbackExecutor

rng = np.random.default_rng(5)
X = rng.standard_normal((90, 6)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.float32)


def made() -> af.Sequential:
    model = af.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(8, activation="tanh"),
            layers.Dropout(0.3),
            layers.Dense(1, activation="sigmoid"),
        ],
        seed=11,
    )
    model.compile(optimizer="adam", loss="binary_crossentropy", metrics=["accuracy"])
    return model


class Deciders(af.Callback):
    """Gates that change the rate, put weights back, add logs and stop, each by what it sees."""

    def __init__(self, pace: int) -> None:
        self.pace = pace
        self.kept: list[af.Snapshot] = []

    async def _wait(self) -> None:
        for _ in range(self.pace):
            await anyio.lowlevel.checkpoint()

    async def on_train_begin(self, event: af.TrainBegin) -> None:
        event.set_learning_rate(0.02)

    async def on_validation_end(self, event: af.ValidationEnd) -> None:
        await self._wait()
        event.add_logs(doubled=2 * event.logs["loss"])

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        await self._wait()
        self.kept.append(event.model)
        if event.epoch in (1, 4):
            event.set_learning_rate(0.5 * event.logs["learning_rate"])
        if event.epoch == 3:
            event.set_weights(self.kept[1])
        if event.epoch == 2:
            event.restore_at_end(self.kept[0])
        if event.epoch == 6:
            event.stop("seen enough")


@dataclass(frozen=True)
class Case:
    lookahead: int
    pace: int  # how often each handler suspends
    queued: int  # subscribers on every batch
    batch_gate: bool = False
    loopback: bool = False
    process: bool = False


CASES = [
    Case(0, 0, 0),
    Case(1, 0, 0),
    Case(3, 0, 2),
    Case(1, 40, 2),
    Case(3, 200, 1),
    Case(1, 3, 0, batch_gate=True),
    Case(1, 3, 1, loopback=True),
]


async def trained(case: Case) -> tuple[Any, ...]:
    """All that a run leaves behind, as one value."""
    model, bus = made(), af.EventBus()

    async def listen(event: af.BatchEnd) -> None:
        for _ in range(case.pace):
            await anyio.lowlevel.checkpoint()

    for _ in range(case.queued):
        bus.subscribe(af.BatchEnd, listen, buffer=16)
    if case.batch_gate:
        bus.subscribe(af.BatchEnd, listen, gate=True, every=3)
    losses: list[float] = []
    bus.subscribe(af.BatchEnd, lambda event: losses.append(event.logs["loss"]), overflow="block")
    with anyio.fail_after(60):
        history = await model.fit(
            X, Y, batch_size=16, epochs=10, validation_split=0.2, callbacks=Deciders(case.pace), bus=bus,
            lookahead=case.lookahead,
            executor=LoopbackExecutor() if case.loopback else "process" if case.process else "thread",
        )  # fmt: skip
    state = hashlib.sha256(b"".join(np.asarray(value).tobytes() for value in model.state().values())).hexdigest()
    assert history.outcome == "stopped"
    return state, tuple(losses), repr(history.history), history.epoch


_first: list[tuple[Any, ...]] = []


@pytest.mark.anyio
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_the_same_bits(case: Case) -> None:
    result = await trained(case)
    if not _first:
        _first.append(await trained(Case(0, 0, 0)))
    assert result == _first[0]
    assert len(result[1]) == 7 * 5, "every batch was seen once, also those that were computed twice"


@pytest.mark.anyio
async def test_two_models_train_side_by_side_as_each_would_alone() -> None:
    alone = [made(), made()]
    for seed, model in enumerate(alone):
        await model.fit(X, Y, epochs=4, seed=seed)
    together = [made(), made()]
    async with anyio.create_task_group() as group:
        for seed, model in enumerate(together):
            group.start_soon(_fit, model, seed)
    for one, other in zip(alone, together, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))
    assert not np.array_equal(alone[0].get_weights()[0], alone[1].get_weights()[0])


async def _fit(model: af.Sequential, seed: int) -> None:
    await model.fit(X, Y, epochs=4, seed=seed)

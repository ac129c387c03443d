"""`event.learning_rate` and `event.cancel`, and what those who ask for little cost compute."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import asyncfit as af
from asyncfit.inline_port import Inline

from .helpers import Linear, X, Y, fit, nothing_left

KINDS = af.TrainBegin | af.EpochBegin | af.ValidationBegin | af.ValidationEnd | af.EpochEnd


@pytest.mark.anyio
@pytest.mark.parametrize("lookahead", [0, 1])
async def test_the_rate_as_of_each_event(lookahead: int) -> None:
    """An inline handler halves it within the epoch, a gate adds 1 at its end; an outsider sets it before all."""
    seen: list[tuple[str, float]] = []
    bus = af.EventBus()

    def halve(event: af.EpochBegin) -> None:
        assert event.learning_rate == event.model.learning_rate  # type: ignore[attr-defined]
        event.set_learning_rate(event.learning_rate / 2)

    def add(event: af.EpochEnd) -> None:
        event.set_learning_rate(event.learning_rate + 1)

    async def look(event: Any) -> None:
        seen.append((event.type, event.learning_rate))

    bus.subscribe(af.EpochBegin, halve, inline=True, replayable=True)
    bus.subscribe(af.EpochEnd, add, gate=True, order=1)
    bus.subscribe(KINDS, look, gate=True, order=2)
    await fit(epochs=2, bus=bus, validation_data=(X, Y), lookahead=lookahead)
    half, more = 0.01 / 2, 0.01 / 2 + 1
    assert seen == [
        ("TrainBegin", 0.01), ("EpochBegin", 0.01),
        ("ValidationBegin", half), ("ValidationEnd", half), ("EpochEnd", more), ("EpochBegin", more),
        ("ValidationBegin", more / 2), ("ValidationEnd", more / 2), ("EpochEnd", more / 2 + 1),
    ]  # fmt: skip


@pytest.mark.anyio
async def test_only_whoever_holds_the_event_can_read_the_rate() -> None:
    kept: list[af.EpochEnd] = []
    bus = af.EventBus()
    bus.subscribe(af.EpochEnd, kept.append, gate=True)
    bus.subscribe(af.EpochEnd, kept.append)
    await fit(bus=bus)
    for event in kept:
        with pytest.raises(af.GateReleased, match="learning_rate must be asked for while a gate holds"):
            _ = event.learning_rate
    with pytest.raises(af.DetachedEvent, match="learning_rate"):
        _ = af.EpochEnd(epoch=0, logs={}).learning_rate


@pytest.mark.anyio
@pytest.mark.parametrize("how", [{}, {"gate": True}, {"inline": True}, {"thread": True}])
async def test_a_handler_cancels_the_run(how: Any) -> None:
    def cancel(event: af.BatchEnd) -> None:
        if event.step >= 4:  # one may be dropped
            event.cancel("no more")

    bus, model = af.EventBus(), Linear()
    ends: list[af.TrainEnd] = []
    bus.subscribe(af.BatchEnd, cancel, **how)
    bus.subscribe(af.TrainEnd, ends.append)
    with nothing_left(), anyio.fail_after(20), pytest.raises(af.RunCancelled, match="no more"):
        await fit(model, bus=bus, epochs=10**9)
    assert (ends[0].outcome, ends[0].reason) == ("cancelled", "no more")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("kinds", "asked"),
    [
        (af.EpochBegin | af.EpochEnd, {"TrainBegin", "EpochBegin", "EpochEnd"}),
        (af.BatchEnd, {"TrainBegin", "EpochBegin", "BatchEnd", "EpochEnd"}),
        (af.BatchBegin, {"TrainBegin", "EpochBegin", "BatchBegin", "EpochEnd"}),
    ],
)
async def test_compute_asks_inline_handlers_about_those_batch_events_only_that_they_want(
    kinds: Any, asked: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called: set[str] = set()
    real = Inline.call

    def call(self: Inline, kind: type[af.Event], *rest: Any) -> Any:
        called.add(kind.__name__)
        return real(self, kind, *rest)

    monkeypatch.setattr(Inline, "call", call)
    bus = af.EventBus()
    bus.subscribe(kinds, lambda event: None, inline=True)
    await fit(epochs=2, bus=bus)
    assert called == asked


@pytest.mark.anyio
async def test_a_gate_on_the_beginning_alone_costs_the_epochs_nothing() -> None:
    class Counting(Linear):
        states = 0

        def state(self) -> Any:
            self.states += 1
            return super().state()

    async def states(epochs: int) -> int:
        model, bus = Counting(), af.EventBus()
        bus.subscribe(af.TrainBegin, lambda event: event.set_learning_rate(0.5), gate=True)
        history = await fit(model, epochs=epochs, bus=bus, lookahead=1)
        assert history.history["learning_rate"] == [0.5] * epochs
        return model.states

    assert await states(1) == await states(9)

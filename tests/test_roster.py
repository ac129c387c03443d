"""The reprs of runs, buses and subscriptions: who listens to what, how, how far behind; short, and never an error."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import anyio
import anyio.to_thread
import pytest

import asyncfit as af
from asyncfit.events import BatchEnd, EpochEnd
from asyncfit.roster import Entry, line, roster
from asyncfit.subscriptions import SubscriberStats
from asyncfit.wording import clock, number, rate, seconds

from .run.helpers import fit, here, until


@pytest.mark.anyio
async def test_a_run_shows_who_listens_how_and_how_far_behind() -> None:
    bus, free = af.EventBus(), anyio.Event()
    place: list[tuple[str, int]] = []

    @bus.on(BatchEnd, buffer=2)
    async def stuck(event: BatchEnd) -> None:
        place.append((here()[0], here()[1] + 1))
        await free.wait()

    @bus.on(EpochEnd, gate=True)
    def decide(event: EpochEnd) -> None: ...

    @bus.on(BatchEnd, inline=True, every=2)
    def check(event: BatchEnd) -> None: ...

    class Watch(af.Callback):
        name = "a watcher"

        def on_train_begin(self, event: Any) -> None: ...
        def on_epoch_begin(self, event: Any) -> None: ...
        def on_epoch_end(self, event: Any) -> None: ...
        def on_batch_end(self, event: Any) -> None: ...
        def on_train_end(self, event: Any) -> None: ...

    async with fit(epochs=2, bus=bus, callbacks=Watch()) as run:
        await until(lambda: run.progress.step == 6 and place)
        await until(lambda: all(stats.delivered >= 2 for stats in run.subscribers if stats.name != "stuck"))
        head, watch, stuck_line, decide_line, check_line = repr(run).splitlines()
        assert head == f"<Run {run.id}: epoch 2/2, step 6, 4 subscribers>"
        assert watch.startswith("  a watcher  gate    TrainBegin, EpochBegin, EpochEnd and 2 more  ")
        assert stuck_line.startswith("  stuck      queued  BatchEnd ")
        assert "0 delivered, 2 queued, 3 dropped" in stuck_line
        assert decide_line.split()[:3] == ["decide", "gate", "EpochEnd"]
        assert check_line.split()[:4] == ["check", "inline", "BatchEnd", "every=2"]
        assert check_line.endswith("3 delivered")
        column = watch.index("and 2 more") + len("and 2 more  ")
        assert all(text[column - 2 : column] == "  " and text[column].isdigit() for text in (stuck_line, decide_line))
        assert repr(bus).splitlines()[0] == "<EventBus: 3 subscribers, in 1 run>"
        assert "3 dropped" in repr(bus).splitlines()[1]
        free.set()
    assert repr(run).splitlines()[0] == f"<Run {run.id}: completed at step 6, 4 subscribers>"
    assert "queued  BatchEnd" in repr(run)
    assert "3 delivered, 3 dropped" in repr(run)


def stats(**figures: Any) -> SubscriberStats:
    return SubscriberStats(**{"name": "one", "mode": "queued", **figures})


def entry(**figures: Any) -> Entry:
    return Entry(af.EventBus().subscribe(BatchEnd, print), stats(**figures))


def test_a_handler_that_does_not_return_is_shown_with_its_place() -> None:
    shown = roster("Run", [entry(busy_for=2.123, where="app.py:33 in store", errors=1, max_lag=0.25)])
    assert shown.endswith("0 delivered, 1 error, lag up to 250 ms, busy for 2.1 s at app.py:33 in store")
    assert "busy" not in roster("Run", [entry(busy_for=0.9, where="app.py:33 in store")])


def test_of_many_the_worst_are_shown_and_the_rest_is_counted() -> None:
    entries = [entry(name=f"s{n}") for n in range(1000)]
    entries[500] = entry(name="behind", queued=200)
    entries[700] = entry(name="broken", errors=2)
    entries[900] = entry(name="lossy", dropped=7)
    shown = roster("EventBus: 1,000 subscribers", entries).splitlines()
    assert [text.split()[0] for text in shown[1:5]] == ["broken", "lossy", "behind", "s0"]
    assert len(shown) == 22
    assert shown[-1] == "  … 980 more, which are no worse"


def test_a_repr_is_cheap_with_a_thousand_subscribers() -> None:
    bus = af.EventBus()
    for n in range(1000):
        bus.subscribe(BatchEnd, print, name=f"s{n}")
    repr(bus)
    began = time.perf_counter()
    repr(bus)
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0004, "0 ms"), (0.25, "250 ms"), (0.9999, "1.0 s"), (59.94, "59.9 s"), (60.2, "1:00 min"), (7325, "2:02:05")],
)
def test_durations(value: float, text: str) -> None:
    assert seconds(value) == text


def test_numbers() -> None:
    assert [number(v) for v in (0.0, 0.12345, 12.3456, 123456.0, 2e-7, -0.5)] == (
        "0.0000 0.1235 12.35 1.23e+05 2e-07 -0.5000".split()
    )
    assert [number(v) for v in (float("nan"), float("inf"))] == ["nan", "inf"]
    assert [rate(v) for v in (0.1234, 9.5, 12345.6)] == ["0.12/s", "9.5/s", "12,346/s"]
    assert [clock(v) for v in (-1, 3.4, 75, 3600)] == ["0:00", "0:03", "1:15", "1:00:00"]


def test_names_stay_in_their_line() -> None:
    bus = af.EventBus()
    bus.subscribe(BatchEnd, print, name="two\nlines\x1b[31m" + "x" * 1000)
    assert len(repr(bus).splitlines()) == 2
    assert "\x1b" not in repr(bus)
    assert len(repr(bus)) < 150
    assert line("abc", 2) == "a…"


@pytest.mark.anyio
async def test_so_does_a_run_s_id() -> None:
    async with fit(run_id="two\nlines\x1b[31m" + "x" * 1000) as run:
        assert "\x1b" not in repr(run)
    assert len(repr(run).splitlines()[0]) < 100
    assert repr(run).startswith("<Run two lines ")


def test_what_breaks_in_users_code_breaks_no_repr() -> None:
    class Broken:
        def __call__(self, event: object) -> bool:
            return True

        def __getattr__(self, name: str) -> Any:
            if name == "__qualname__":
                raise ZeroDivisionError
            raise AttributeError(name)

        def __repr__(self) -> str:
            raise ZeroDivisionError

    bus = af.EventBus()
    subscription = bus.subscribe(BatchEnd, print, where=Broken())
    assert repr(subscription) == "<Subscription; its subscribers cannot be shown now (ZeroDivisionError)>"
    assert "print" in repr(bus)


@pytest.mark.anyio
async def test_reprs_and_figures_are_read_in_another_thread_while_it_runs() -> None:
    bus = af.EventBus()
    bus.subscribe(BatchEnd, lambda event: None, snapshots=True, buffer=1000, name="with models")
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    over = threading.Event()
    seen: list[str] = []

    def look() -> None:
        while not over.is_set() or not seen:
            seen.append(repr(run) + repr(bus) + repr(bus.subscriptions))
            assert run.subscribers[0].name == "with models"

    try:
        async with fit(epochs=10**9, bus=bus) as run:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.to_thread.run_sync, look)
                for _ in range(200):
                    bus.subscribe(BatchEnd, lambda event: None).cancel()
                    await anyio.lowlevel.checkpoint()
                await until(lambda: len(seen) > 100)
                over.set()
            run.stop()
    finally:
        over.set()
        sys.setswitchinterval(switch)
    assert not [text for text in seen if "cannot be shown" in text]

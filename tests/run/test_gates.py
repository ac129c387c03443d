"""Gates in real runs: what each event lets its handlers ask for, in which order it counts, and what goes wrong."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest

import asyncfit as af
from asyncfit import delivery

from .helpers import Gate, Linear, X, Y, fit, here, kinds, nothing_left, whole

Handler = Callable[[Any], Any]

EPOCH = [af.TrainBegin, af.EpochBegin, af.ValidationBegin, af.ValidationEnd, af.EpochEnd]


def bus_with(*subscribers: tuple[type[af.Event], Handler, dict[str, Any]]) -> af.EventBus:
    bus = af.EventBus()
    for kind, handler, how in subscribers:
        bus.subscribe(kind, handler, **how)
    return bus


async def train(*subscribers: tuple[Any, Handler, dict[str, Any]], model: Any = None, **how: Any) -> list[af.Event]:
    """A run of three epochs with validation; its events."""
    seen: list[af.Event] = []
    bus = bus_with(*subscribers)
    bus.subscribe(af.Event, seen.append, name="seen", overflow="block")
    options: dict[str, Any] = {"epochs": 3, "validation_data": (X, Y), "bus": bus, "lookahead": 1}
    with anyio.fail_after(20):
        await fit(model, **options | how)
    whole(seen)
    return seen


def only(events: list[af.Event], kind: type[Any]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


GATE: dict[str, Any] = {"gate": True}


# --- control ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("kind", EPOCH)
async def test_stop(kind: Any) -> None:
    async def stop(event: Any) -> None:
        await anyio.lowlevel.checkpoint()
        if getattr(event, "epoch", 1) == 1:
            event.stop("seen enough", resumable=True)

    seen = await train((kind, stop, GATE))
    end = only(seen, af.TrainEnd)[0]
    assert (end.outcome, end.reason, end.resumable) == ("stopped", "seen enough", True)
    assert end.step == {af.TrainBegin: 0, af.EpochBegin: 3}.get(kind, 6)
    assert only(seen, af.StopRequested)[0].who.endswith("stop")


@pytest.mark.anyio
@pytest.mark.parametrize("kind", EPOCH)
async def test_set_learning_rate(kind: Any) -> None:
    model = Linear()

    async def change(event: Any) -> None:
        await anyio.lowlevel.checkpoint()
        if getattr(event, "epoch", 1) == 1:
            event.set_learning_rate(0.004)

    seen = await train((kind, change, GATE), model=model)
    rates = [event.logs["learning_rate"] for event in only(seen, af.EpochEnd)]
    assert rates == {af.TrainBegin: [0.004] * 3, af.EpochBegin: [0.01, 0.004, 0.004]}.get(kind, [0.01, 0.01, 0.004])
    (fact,) = only(seen, af.LearningRateChanged)
    assert (fact.value, fact.previous, fact.step) == (0.004, 0.01, {af.TrainBegin: 0, af.EpochBegin: 3}.get(kind, 6))
    assert model.learning_rate == 0.004


@pytest.mark.anyio
@pytest.mark.parametrize("kind", EPOCH)
async def test_set_weights(kind: Any) -> None:
    """The snapshot of the first epoch's beginning is put back once; rate and step stay."""
    model, kept = Linear(), []

    async def keep(event: af.EpochBegin) -> None:
        kept.append(event.model)

    async def put_back(event: Any) -> None:
        await anyio.lowlevel.checkpoint()
        if getattr(event, "epoch", 1) == 1 and kept:
            event.set_weights(kept[0])

    seen = await train((af.EpochBegin, keep, GATE), (kind, put_back, {"gate": True, "order": 1}), model=model)
    if kind is af.TrainBegin:
        assert not only(seen, af.WeightsRestored)
        return
    (fact,) = only(seen, af.WeightsRestored)
    step = 3 if kind is af.EpochBegin else 6
    assert (fact.step, fact.source_step) == (step, 0)
    twin = Linear()
    await fit(twin, epochs=1 + (kind is af.EpochBegin))
    np.testing.assert_array_equal(model.w, twin.w)
    assert only(seen, af.TrainEnd)[0].step == 9


@pytest.mark.anyio
@pytest.mark.parametrize("kind", EPOCH[1:])
async def test_restore_at_end(kind: Any) -> None:
    model, ends = Linear(), []

    async def ask(event: Any) -> None:
        if event.epoch == 1:
            event.restore_at_end(kept[0])

    async def keep(event: af.EpochBegin) -> None:
        kept.append(event.model)

    async def end(event: af.TrainEnd) -> None:
        ends.append(event.model.state()["w"])

    kept: list[Any] = []
    seen = await train(
        (af.EpochBegin, keep, GATE), (kind, ask, {"gate": True, "order": 1}), (af.TrainEnd, end, GATE), model=model
    )
    np.testing.assert_array_equal(model.w, np.zeros(2))
    np.testing.assert_array_equal(ends[0], np.zeros(2))
    assert kinds(seen)[-2:] == ["WeightsRestored", "TrainEnd"]


@pytest.mark.anyio
async def test_restore_at_end_is_not_done_for_runs_that_fail() -> None:
    model, kept = Linear(), []

    async def handler(event: af.EpochEnd) -> None:
        kept.append(event.model)
        event.restore_at_end(kept[0])
        if event.epoch == 1:
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        await fit(model, epochs=3, bus=bus_with((af.EpochEnd, handler, GATE)))
    assert model.batches == 6


@pytest.mark.anyio
async def test_add_logs() -> None:
    async def validated(event: af.ValidationEnd) -> None:
        event.add_logs(f1=float(np.float32(0.5)))

    async def ended(event: af.EpochEnd) -> None:
        event.add_logs(score=event.epoch, loss=-1.0)

    seen = await train((af.ValidationEnd, validated, GATE), (af.EpochEnd, ended, GATE))
    assert all(event.logs["f1"] == 0.5 for event in only(seen, af.ValidationEnd))
    for event in only(seen, af.EpochEnd):
        assert (event.logs["val_f1"], event.logs["score"], event.logs["loss"]) == (0.5, event.epoch, -1.0)
    assert only(seen, af.TrainEnd)[0].logs["score"] == 2


@pytest.mark.anyio
async def test_the_history_has_what_was_added() -> None:
    async def ended(event: af.EpochEnd) -> None:
        event.add_logs(score=event.epoch)

    history = await fit(epochs=3, bus=bus_with((af.EpochEnd, ended, GATE)))
    assert history.history["score"] == [0.0, 1.0, 2.0]


@pytest.mark.anyio
async def test_what_an_event_does_not_offer_it_does_not_have() -> None:
    lacks: dict[str, set[str]] = {}

    async def look(event: Any) -> None:
        names = ("stop", "set_learning_rate", "set_weights", "restore_at_end", "add_logs")
        lacks[event.type] = {name for name in names if not hasattr(event, name)}

    gates = [(kind, look, GATE) for kind in [*EPOCH, af.BatchBegin, af.BatchEnd, af.TrainEnd]]
    await train(*gates)
    assert lacks == {
        "TrainBegin": {"restore_at_end", "add_logs"},
        "EpochBegin": {"add_logs"},
        "BatchBegin": {"stop", "set_learning_rate", "set_weights", "restore_at_end", "add_logs"},
        "BatchEnd": {"set_learning_rate", "set_weights", "restore_at_end", "add_logs"},
        "ValidationBegin": {"add_logs"},
        "ValidationEnd": set(),
        "EpochEnd": set(),
        "TrainEnd": {"stop", "set_learning_rate", "set_weights", "restore_at_end", "add_logs"},
    }


@pytest.mark.anyio
@pytest.mark.parametrize("value", ["high", "0.5", b"0.5", None, [1.0, 2.0], pytest.param(10**400, id="huge")])
async def test_logs_are_numbers(value: Any) -> None:
    async def handler(event: af.EpochEnd) -> None:
        with pytest.raises(af.InvalidInput, match=r"add_logs\(f1=…\) takes numbers"):
            event.add_logs(f1=value)

    assert "f1" not in only(await train((af.EpochEnd, handler, GATE)), af.EpochEnd)[0].logs


@pytest.mark.anyio
async def test_weights_come_from_a_snapshot_of_this_model() -> None:
    other: list[Any] = []

    async def keep(event: af.EpochEnd) -> None:
        other.append(event.model)

    await fit(bus=bus_with((af.EpochEnd, keep, GATE)))

    async def handler(event: af.EpochEnd) -> None:
        for ask in (event.set_weights, event.restore_at_end):
            with pytest.raises(af.InvalidInput, match="not one of another model"):
                ask(other[0])
            with pytest.raises(TypeError, match="takes a snapshot"):
                ask({"w": np.zeros(2)})  # type: ignore[arg-type]

    await train((af.EpochEnd, handler, GATE))


# --- when the gate is no longer held ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_gate_that_was_released_lets_stop_through_and_nothing_else() -> None:
    kept: list[Any] = []

    async def gate(event: af.EpochEnd) -> None:
        if not kept:
            kept.extend([event, event.model])

    async def later(event: af.EpochEnd) -> None:
        if event.epoch == 1:
            old, model = kept
            asks: list[Callable[[], object]] = [
                lambda: old.set_learning_rate(0.5),
                lambda: old.set_weights(model),
                lambda: old.restore_at_end(model),
                lambda: old.add_logs(f1=1.0),
            ]
            for ask in asks:
                with pytest.raises(af.GateReleased, match="while a gate holds the event"):
                    ask()
            old.stop("late")

    seen = await train((af.EpochEnd, gate, GATE), (af.EpochEnd, later, GATE))
    assert only(seen, af.TrainEnd)[0].reason == "late"
    assert only(seen, af.StopRequested)[0].who.endswith("later")
    assert [event.epoch for event in only(seen, af.EpochEnd)] == [0, 1]
    assert "f1" not in only(seen, af.EpochEnd)[1].logs


@pytest.mark.anyio
@pytest.mark.parametrize("thread", [False, True])
async def test_a_queued_handler_may_stop_late_and_ask_for_nothing_else(thread: bool) -> None:
    def handler(event: Any) -> None:
        with pytest.raises(af.GateReleased):
            event.set_learning_rate(0.5)
        event.stop("queued")

    async def waits(event: af.EpochEnd) -> None:
        handler(event)

    how: dict[str, Any] = {"thread": True} if thread else {}
    seen = await train((af.EpochEnd, handler if thread else waits, how), epochs=10**5)
    end = only(seen, af.TrainEnd)[0]
    assert (end.outcome, end.reason) == ("stopped", "queued")
    assert only(seen, af.StopRequested)[0].who.endswith("handler" if thread else "waits")


@pytest.mark.anyio
async def test_events_of_no_run_carry_no_control() -> None:
    import copy
    import pickle

    seen = await train()
    event = only(seen, af.EpochEnd)[0]
    for detached in (copy.copy(event), pickle.loads(pickle.dumps(event)), af.EpochEnd(epoch=0, logs={})):
        with pytest.raises(af.DetachedEvent, match="belongs to no live run"):
            detached.stop()
        with pytest.raises(af.DetachedEvent):
            _ = detached.model
    event.stop("after the end, it changes nothing")


# --- order -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("turned", [False, True])
async def test_later_order_groups_see_what_earlier_ones_added(turned: bool) -> None:
    saw: list[tuple[str, set[str]]] = []

    def group(name: str) -> Handler:
        async def handler(event: af.EpochEnd) -> None:
            saw.append((name, {key for key in event.logs if key in "abcd"}))
            event.add_logs(**{name: 1.0})

        return handler

    gates: list[tuple[Any, Handler, dict[str, Any]]] = [
        (af.EpochEnd, group("c"), {"gate": True, "order": 200}),
        (af.EpochEnd, group("a"), {"gate": True}),
        (af.EpochEnd, group("b"), {"gate": True, "order": 100}),
        (af.EpochEnd, group("d"), {"gate": True, "order": -1}),
    ]
    seen = await train(*(gates[::-1] if turned else gates), epochs=1)
    assert saw == [("d", set()), ("a", {"d"}), ("b", {"a", "d"}), ("c", {"a", "b", "d"})]
    assert set("abcd") <= set(only(seen, af.EpochEnd)[0].logs)


@pytest.mark.anyio
async def test_gates_of_one_event_run_concurrently() -> None:
    """Each waits for the other, which could not be if they ran in turn."""
    here_is = [anyio.Event(), anyio.Event()]

    def gate(mine: int) -> Handler:
        async def handler(event: af.EpochEnd) -> None:
            here_is[mine].set()
            await here_is[1 - mine].wait()

        return handler

    await train((af.EpochEnd, gate(0), GATE), (af.EpochEnd, gate(1), GATE))


@pytest.mark.anyio
@pytest.mark.parametrize("first_to_finish", [0, 1])
async def test_decisions_count_in_the_order_of_subscription_not_of_completion(first_to_finish: int) -> None:
    done = anyio.Event()

    def gate(mine: int) -> Handler:
        async def handler(event: af.EpochEnd) -> None:
            if mine != first_to_finish:
                await done.wait()
            event.set_learning_rate([0.1, 0.2][mine])
            event.add_logs(who=mine)
            event.stop(f"gate {mine}")
            if mine == first_to_finish:
                done.set()

        return handler

    model = Linear()
    seen = await train((af.EpochEnd, gate(0), GATE), (af.EpochEnd, gate(1), GATE), model=model)
    assert model.learning_rate == 0.2, "the last in the order of subscription"
    assert only(seen, af.EpochEnd)[0].logs["who"] == 1
    assert only(seen, af.TrainEnd)[0].reason == "gate 0", "the first in the order of subscription"
    assert [stop.reason for stop in only(seen, af.StopRequested)] == ["gate 0", "gate 1"]


@pytest.mark.anyio
@pytest.mark.parametrize("first_to_fail", [0, 1])
async def test_of_several_exceptions_the_first_in_the_order_of_subscription_wins(first_to_fail: int) -> None:
    done, later = anyio.Event(), []

    def gate(mine: int) -> Handler:
        async def handler(event: af.EpochEnd) -> None:
            if mine != first_to_fail:
                await done.wait()
            done.set()
            raise ArithmeticError(f"gate {mine}")

        return handler

    async def next_group(event: af.EpochEnd) -> None:
        later.append(event)

    bus = bus_with(
        (af.EpochEnd, gate(0), GATE),
        (af.EpochEnd, gate(1), GATE),
        (af.EpochEnd, next_group, {"gate": True, "order": 1}),
    )
    with pytest.raises(ArithmeticError, match="gate 0") as raised:
        async with fit(bus=bus) as run:
            await anyio.sleep_forever()
    assert [str(error) for error in run.errors] == ["gate 1"]
    assert later == []
    assert run.error is raised.value
    assert run.outcome == "failed"
    (note,) = raised.value.__notes__
    assert "handler, at EpochEnd, epoch 0" in note
    assert f"run {run.id}" in note


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_batch_gates_hold_compute() -> None:
    """At each gated batch the model is exactly there, and a stop acts at once."""
    model = Linear()
    steps: list[int] = []

    async def gate(event: af.BatchEnd) -> None:
        await anyio.lowlevel.checkpoint()
        assert model.batches == event.step + 1
        np.testing.assert_array_equal(event.model.state()["w"], model.w)
        steps.append(event.step)
        if event.step == 4:
            event.stop("there")

    seen = await train((af.BatchEnd, gate, GATE), model=model)
    assert steps == [0, 1, 2, 3, 4]
    assert only(seen, af.TrainEnd)[0].step == model.batches == 5
    assert not only(seen, af.EpochEnd)[-1].complete


@pytest.mark.anyio
@pytest.mark.parametrize(("kind", "batches"), [(af.BatchBegin, [1, 3, 5, 7]), (af.BatchEnd, [1, 3, 5, 7])])
async def test_every_holds_only_those(kind: Any, batches: list[int]) -> None:
    got: list[int] = []

    async def gate(event: Any) -> None:
        got.append(event.step)

    await train((kind, gate, {"gate": True, "every": 2}))
    assert got == batches


@pytest.mark.anyio
async def test_a_gate_with_a_filter_is_asked_about_what_passes() -> None:
    got: list[int] = []

    async def gate(event: af.EpochEnd) -> None:
        got.append(event.epoch)
        event.add_logs(seen=1.0)

    where = {"gate": True, "where": lambda event: event.epoch == 1}
    seen = await train((af.EpochEnd, gate, where))
    assert got == [1]
    assert ["seen" in event.logs for event in only(seen, af.EpochEnd)] == [False, True, False]


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["gate", "queued", "inline"])
async def test_a_filter_that_raises_fails_the_run(how: str) -> None:
    """At a boundary too, in the midst of publishing."""

    def where(event: af.EpochEnd) -> bool:
        return 1 / (1 - event.epoch) > 0

    def handler(event: af.EpochEnd) -> None: ...

    options = {"where": where} | ({} if how == "queued" else {how: True})
    seen: list[af.Event] = []

    def too_late(event: af.EpochBegin) -> None:
        if event.epoch == 2:
            event.set_learning_rate(0.5)

    bus = bus_with((af.EpochEnd, handler, options), (af.EpochBegin, too_late, GATE))
    bus.subscribe(af.Event, seen.append, overflow="block")
    with pytest.raises(ZeroDivisionError), nothing_left():
        await fit(epochs=4, bus=bus)
    whole(seen)
    names = [name for name in kinds(seen) if not name.startswith("Batch")]
    more = {"gate": ["EpochEnd"], "queued": ["EpochEnd", "EpochBegin"], "inline": []}[how]
    assert names == ["TrainBegin", "EpochBegin", "EpochEnd", "EpochBegin", *more, "TrainEnd"]
    assert only(seen, af.TrainEnd)[0].outcome == "failed"


# --- gates that go wrong ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_gate_that_is_cancelled_while_it_is_out_counts_as_returned() -> None:
    inside = anyio.Event()

    async def gate(event: af.EpochEnd) -> None:
        event.add_logs(asked=1.0)
        inside.set()
        await go_on.wait()

    go_on = anyio.Event()
    bus = af.EventBus()
    subscription = bus.subscribe(af.EpochEnd, gate, gate=True)
    with anyio.fail_after(10):
        async with fit(epochs=3, bus=bus) as run:
            await inside.wait()
            subscription.cancel()
            async for _ in run.events(af.EpochEnd):
                break  # the run went on, though the handler has not returned
            assert not go_on.is_set()
            go_on.set()
    assert run.history.history["asked"] == [1.0]


@pytest.mark.anyio
@pytest.mark.parametrize("on_error", ["raise", "log", "detach"])
async def test_a_gate_that_takes_too_long(on_error: str, caplog: pytest.LogCaptureFixture) -> None:
    began: list[int] = []

    async def gate(event: af.EpochEnd) -> None:
        began.append(event.epoch)
        event.add_logs(asked=1.0)
        if event.epoch == 1:
            await anyio.sleep_forever()

    gated = (af.EpochEnd, gate, {"gate": True, "timeout": 0.03, "on_error": on_error})
    if on_error == "raise":
        with pytest.raises(af.SubscriberTimeout, match=r"not done within its timeout of 0.03 s .*test_gates.py"):
            await train(gated)
        return
    seen = await train(gated)
    (fact,) = only(seen, af.SubscriberFailed)
    assert isinstance(fact.error, af.SubscriberTimeout)
    assert began == ([0, 1, 2] if on_error == "log" else [0, 1])
    asked = ["asked" in event.logs for event in only(seen, af.EpochEnd)]
    assert asked == [True, True, on_error == "log"], "what it had asked for counts"


@pytest.mark.anyio
@pytest.mark.parametrize("on_error", ["log", "detach"])
@pytest.mark.parametrize("way", ["gate", "queued", "inline"])
async def test_an_error_that_is_only_logged(on_error: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def handler(event: af.EpochEnd) -> None:
        calls.append(event.epoch)
        raise ArithmeticError(f"epoch {event.epoch}")

    async def in_step(event: af.EpochBegin) -> None:
        """The next epoch begins when the handler has failed."""
        with anyio.fail_after(10):
            while len(calls) < (event.epoch if on_error == "log" else min(event.epoch, 1)):  # noqa: ASYNC110
                await anyio.sleep(0.001)

    how = {"on_error": on_error, "name": "bad", "where": lambda event: event.epoch < 3}
    how |= {} if way == "queued" else {way: True}
    bus = bus_with((af.EpochEnd, handler, how), (af.EpochBegin, in_step, GATE))
    seen: list[af.Event] = []
    bus.subscribe(af.Event, seen.append)
    await fit(epochs=4, bus=bus)
    whole(seen)
    facts = only(seen, af.SubscriberFailed)
    assert calls[:1] == [0]
    if on_error == "log":
        assert calls == [0, 1, 2]
        assert [fact.name for fact in facts] == ["bad"] * 3
    else:
        assert calls == [0]
        assert [fact.name for fact in facts] == ["bad"]
        assert "bad" not in [s.name for s in bus.subscriptions]
    assert [r.name for r in caplog.records if r.levelno == logging.ERROR].count("asyncfit") == len(facts)


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_who_gets_a_model() -> None:
    has: dict[str, bool] = {}

    def look(name: str) -> Handler:
        def handler(event: Any) -> None:
            try:
                _ = event.model
                has[name] = True
            except af.DetachedEvent as error:
                has[name] = "Subscribe with gate=True, or with snapshots=True" not in str(error)

        return handler

    await train(
        (af.EpochEnd, look("gate"), GATE),
        (af.EpochEnd, look("queued"), {}),
        (af.EpochEnd, look("snapshots"), {"snapshots": True}),
        (af.BatchEnd, look("batch"), {"snapshots": True, "every": 2}),
        (af.TrainEnd, look("end"), {}),
        (af.TrainEnd, look("end, snapshots"), {"snapshots": True}),
    )
    assert has == {
        "gate": True, "queued": False, "snapshots": True, "batch": True, "end": False, "end, snapshots": True,
    }  # fmt: skip


@pytest.mark.anyio
async def test_snapshots_are_immutable_and_outlive_the_run() -> None:
    kept: list[af.Snapshot] = []
    weights: list[Any] = []
    model = Linear()

    async def gate(event: af.EpochEnd) -> None:
        kept.append(event.model)
        weights.append(event.model.get_weights()[0])

    await train((af.EpochEnd, gate, GATE), model=model)
    for number, (snapshot, before) in enumerate(zip(kept, weights, strict=True)):
        assert (snapshot.step, snapshot.epoch) == (3 * number + 3, number)
        np.testing.assert_array_equal(snapshot.state()["w"], before)
        np.testing.assert_array_equal(await snapshot.predict(X), X @ before)
        assert (await snapshot.evaluate(X, Y))["loss"] == pytest.approx(((X @ before - Y) ** 2).mean())
        with pytest.raises(ValueError, match="read-only"):
            snapshot.state()["w"][0] = 7.0
        snapshot.get_weights()[0][0] = 7.0
        assert set(snapshot.state()) == {"w", "batches", "learning_rate"}
    np.testing.assert_array_equal(kept[-1].state()["w"], model.w)


@pytest.mark.anyio
async def test_a_snapshot_can_be_saved_in_a_gate(tmp_path: Any) -> None:
    async def gate(event: af.EpochEnd) -> None:
        await event.model.save(tmp_path / f"{event.epoch}.h5")

    model = Linear()
    await train((af.EpochEnd, gate, GATE), model=model)
    twin = af.Trainer(Linear())
    await twin.load(tmp_path / "2.h5")
    np.testing.assert_array_equal(twin.trainable.state()["w"], model.w)


# --- held for long ---------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_gate_that_holds_for_long_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delivery, "HELD", (0.01, 0.02, 0.5))
    line = 0

    async def slow(event: af.EpochEnd) -> None:
        nonlocal line
        with anyio.fail_after(10):
            while len(caplog.records) < 2:
                line = here()[1] + 1
                await anyio.sleep(0.005)

    await train((af.EpochEnd, slow, {"gate": True, "name": "slow one"}), epochs=1, run_id="r")
    for record in caplog.records:
        message = record.getMessage()
        assert message.startswith("slow one holds EpochEnd(epoch 0) of run r for ")  # how long, the machine says
        assert f"test_gates.py:{line} in slow" in message


# --- threads ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_gate_in_a_thread() -> None:
    threads: set[int] = set()

    def decide(event: af.EpochEnd) -> None:
        threads.add(threading.get_ident())
        event.add_logs(score=event.epoch)
        if event.epoch == 1:
            event.stop("in a thread")

    seen = await train((af.EpochEnd, decide, {"gate": True, "thread": True}))
    assert threading.get_ident() not in threads
    assert [event.logs["score"] for event in only(seen, af.EpochEnd)] == [0, 1]
    assert only(seen, af.TrainEnd)[0].reason == "in a thread"


@pytest.mark.anyio
async def test_compute_works_ahead_of_a_gate() -> None:
    """With lookahead 1 the next epoch is done while the gate of this one is out; with 0 it is not begun."""
    for lookahead, ahead in ((0, 3), (1, 6)):
        model = Linear()
        gate = Gate(ahead)
        gate.open.set()
        model._before = gate
        reached: list[int] = []

        async def hold(event: af.EpochEnd, model: Linear = model, ahead: int = ahead, reached: Any = reached) -> None:
            if event.epoch == 0:
                with anyio.fail_after(10):
                    while model.batches < ahead:  # noqa: ASYNC110
                        await anyio.sleep(0.001)
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()
                reached.append(model.batches)

        # the boundary after TrainBegin is lock-step only if TrainBegin is gated, which it is not here
        await fit(model, epochs=4, lookahead=lookahead, bus=bus_with((af.EpochEnd, hold, GATE)))
        assert reached == [ahead]


@pytest.mark.anyio
async def test_a_gate_that_is_abandoned_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A run that is cancelled amid its gates: what they, and those behind them, ask for comes too late."""
    handled: list[str] = []

    class Decides(af.Callback):
        def __init__(self, name: str, order: int) -> None:
            self.name, self.order = name, order

        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            handled.append(self.name or "")
            if self.order == 0:
                run.cancel()
                while run._ledger.outcome is None:
                    await anyio.lowlevel.checkpoint()
            event.restore_at_end(event.model)

    with pytest.raises(af.RunCancelled):
        async with fit(epochs=3, callbacks=[Decides("first", 0), Decides("behind", 100)]) as run:
            pass
    assert handled == ["first", "behind"]
    assert run.errors == []
    assert not caplog.records

"""Promise 1 on the spine alone: whatever the schedule, a run equals the blocking loop."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .driver import BOUNDARY, Driver
from .lockstep import Lockstep, Setup, Trace

EVERY = [*sorted(BOUNDARY), "BatchBegin", "BatchEnd", "TrainEnd"]


@st.composite
def setups(draw: st.DrawFn) -> Setup:
    kinds = frozenset(draw(st.sets(st.sampled_from(EVERY))))
    epochs = draw(st.integers(0, 4))
    return Setup(
        seed=draw(st.integers(0, 2**32)),
        epochs=epochs,
        initial_epoch=draw(st.sampled_from([0, 0, 0, 1, 2])),
        per_epoch=draw(st.integers(1, 4)),
        val_batches=draw(st.sampled_from([0, 1, 2])),
        fail_mod=draw(st.sampled_from([0, 0, 0, 7, 23])),
        kinds=kinds,
        batch_events=draw(st.booleans()) or bool(kinds & {"BatchBegin", "BatchEnd"}),
        busy=draw(st.sampled_from([1, 2, 4, 8])),
        errors=draw(st.sampled_from([False, False, True])),
    )


schedules = st.tuples(st.integers(0, 2**32), st.integers(0, 3), st.sampled_from([1, 2, 5, 100]))


def driver(setup: Setup, schedule: tuple[int, int, int], **more: Any) -> Driver:
    seed, lookahead, max_ahead = schedule
    return Driver(setup, random.Random(seed), lookahead, max_ahead, **more)


def same(one: Trace, other: Trace) -> bool:
    return one.events == other.events and one.final == other.final


def check_brackets(run: Driver) -> None:
    kinds = [event.type for event in run.all_events]
    assert kinds[0] == "TrainBegin"
    assert kinds[-1] == "TrainEnd"
    assert kinds.count("TrainBegin") == kinds.count("TrainEnd") == 1
    if run.ledger.outcome in ("completed", "stopped"):
        assert kinds.count("EpochBegin") == kinds.count("EpochEnd")
        assert kinds.count("ValidationBegin") == kinds.count("ValidationEnd")
        if run.setup.batch_events and not run.switches:
            assert kinds.count("BatchBegin") == kinds.count("BatchEnd")


@given(setups(), schedules)
@settings(max_examples=600, deadline=None)
def test_every_schedule_equals_the_blocking_loop(setup: Setup, schedule: tuple[int, int, int]) -> None:
    run = driver(setup, schedule, pauses=0.05)
    trace = run.run()
    expected = Lockstep(setup).run()
    assert trace.events == expected.events
    assert trace.final == expected.final
    check_brackets(run)


@given(setups(), schedules, st.sampled_from(["stop", "cancel"]), st.integers(0, 60), st.booleans())
@settings(max_examples=600, deadline=None)
def test_a_request_from_outside_acts_at_one_definite_place(
    setup: Setup, schedule: tuple[int, int, int], what: str, after: int, while_open: bool
) -> None:
    run = driver(setup, schedule, outside=what, outside_after=after, outside_open=while_open)
    trace = run.run()
    check_brackets(run)
    mine = Trace([e for e in trace.events if e[:2] != ("StopRequested", "run")], trace.final)
    late = bool(run.ledger.errors)  # a batch raised after the cancel: the model is as that batch left it
    request = next((r for r in run.requests if r.what == what), None)
    undisturbed = Lockstep(setup)
    whole = undisturbed.run()
    if request is None:
        assert same(mine, whole)
        return
    if request.open:  # it arrived during the very event that is out
        places = [p for p, published, _ in undisturbed.positions if p[0] == "during" and published == request.published]
        assert same(mine, Lockstep(setup, (what, places[-1])).run())
        return
    if same(mine, whole) or (late and mine.events == whole.events):  # it came too late to be used
        return
    for place, published, _ in undisturbed.positions:
        # the last event published still counts: what comes right behind it is as if its handlers had asked
        if published >= request.published - 1:
            candidate = Lockstep(setup, (what, place)).run()
            if same(mine, candidate) or (late and mine.events == candidate.events):
                return
    raise AssertionError(f"{what} asked after {request.published} events fits no position")


@given(setups(), schedules)
@settings(max_examples=300, deadline=None)
def test_each_snapshot_is_a_state_of_the_blocking_loop_and_none_is_owed(
    setup: Setup, schedule: tuple[int, int, int]
) -> None:
    run = driver(setup, schedule, snapshots=0.2, pauses=0.02)
    trace = run.run()
    expected = Lockstep(setup)
    assert same(trace, expected.run())
    for request in run.requests:
        if request.answer is not None:
            later = [state for _, published, state in expected.positions if published >= request.published - 1]
            assert request.answer in [*later, expected.trace.final]


@given(setups(), schedules)
@settings(max_examples=300, deadline=None)
def test_gates_that_come_and_go_hold_exactly_what_they_were_asked(setup: Setup, schedule: tuple[int, int, int]) -> None:
    setup.batch_events = True
    run = driver(setup, schedule, switches=0.1)
    trace = run.run()
    expected = Lockstep(setup, asked=lambda key: key in run.asked_keys).run()
    assert trace.events == expected.events
    assert trace.final == expected.final


@pytest.mark.parametrize("lookahead", [0, 1, 3])
def test_nothing_is_left_of_work_that_was_undone(lookahead: int) -> None:
    """Whoever listens sees each step once, in order, although compute trains some of them twice."""
    twice = 0
    for seed in range(60):
        setup = Setup(seed=seed, epochs=4, kinds=frozenset({"EpochEnd"}), busy=2)
        run = Driver(setup, random.Random(seed), lookahead)
        run.run()
        steps = [event.step for event in run.all_events if event.type == "BatchEnd"]  # type: ignore[attr-defined]
        assert steps == list(range(len(steps)))
        twice += run.toy.trained - len(steps)
    assert (twice > 0) == (lookahead > 0)

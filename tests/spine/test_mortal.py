"""A compute that is lost again and again, and replaced: whatever the moment, the run equals the one without a loss."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncfit import events as ev
from asyncfit.executors.journal import Journal
from asyncfit.protocol import (
    Change,
    Confirm,
    EpochDone,
    Pause,
    Position,
    RateSet,
    Reached,
    SetRate,
    Stop,
    TakePoint,
    TakeSnapshot,
    TrainBegun,
    Update,
    WasSnapshot,
)

from .lockstep import Lockstep, Setup, Toy, ToyData, Trace, frozen
from .mortal import Mortal
from .test_ledger import check_brackets, same, schedules, setups

LOSSES = st.sampled_from([0.02, 0.1, 0.3])


def mortal(setup: Setup, schedule: tuple[int, int, int], losses: float, **more: Any) -> Mortal:
    seed, lookahead, max_ahead = schedule
    return Mortal(setup, random.Random(seed), lookahead, max_ahead, losses=losses, **more)


@given(setups(), schedules, LOSSES, st.integers(0, 3))
@settings(max_examples=800, deadline=None)
def test_every_schedule_with_losses_equals_the_blocking_loop(
    setup: Setup, schedule: tuple[int, int, int], losses: float, saves: int
) -> None:
    run = mortal(setup, schedule, losses, saves=saves, pauses=0.03)
    trace = run.run()
    expected = Lockstep(setup).run()
    assert trace.events == expected.events
    assert trace.final == expected.final
    check_brackets(run)
    undisturbed = mortal(setup, (schedule[0], 0, 1), 0.0, saves=saves)
    undisturbed.run()
    assert run.points == undisturbed.points


@given(setups(), schedules, LOSSES, st.sampled_from(["stop", "cancel"]), st.integers(0, 60), st.booleans())
@settings(max_examples=600, deadline=None)
def test_a_request_from_outside_is_not_lost(
    setup: Setup, schedule: tuple[int, int, int], losses: float, what: str, after: int, while_open: bool
) -> None:
    run = mortal(setup, schedule, losses, outside=what, outside_after=after, outside_open=while_open)
    trace = run.run()
    check_brackets(run)
    mine = Trace([e for e in trace.events if e[:2] != ("StopRequested", "run")], trace.final)
    late = bool(run.ledger.errors)
    request = next((r for r in run.requests if r.what == what), None)
    undisturbed = Lockstep(setup)
    whole = undisturbed.run()
    if request is None:
        assert same(mine, whole)
        return
    if request.open:
        places = [p for p, published, _ in undisturbed.positions if p[0] == "during" and published == request.published]
        assert same(mine, Lockstep(setup, (what, places[-1])).run())
        return
    if same(mine, whole) or (late and mine.events == whole.events):
        return
    for place, published, _ in undisturbed.positions:
        if published >= request.published - 1:
            candidate = Lockstep(setup, (what, place)).run()
            if same(mine, candidate) or (late and mine.events == candidate.events):
                return
    raise AssertionError(f"{what} asked after {request.published} events fits no position")


@given(setups(), schedules, LOSSES)
@settings(max_examples=300, deadline=None)
def test_no_snapshot_is_owed(setup: Setup, schedule: tuple[int, int, int], losses: float) -> None:
    run = mortal(setup, schedule, losses, snapshots=0.2, pauses=0.02)
    trace = run.run()
    expected = Lockstep(setup)
    assert same(trace, expected.run())
    for request in run.requests:
        if request.answer is not None:
            later = [state for _, published, state in expected.positions if published >= request.published - 1]
            assert request.answer in [*later, expected.trace.final]


@given(setups(), schedules, LOSSES)
@settings(max_examples=300, deadline=None)
def test_gates_that_come_and_go(setup: Setup, schedule: tuple[int, int, int], losses: float) -> None:
    setup.batch_events = True
    run = mortal(setup, schedule, losses, switches=0.1)
    trace = run.run()
    expected = Lockstep(setup, asked=lambda key: key in run.asked_keys).run()
    assert trace.events == expected.events
    assert trace.final == expected.final


@given(setups(), schedules, LOSSES, st.integers(2, 6), st.integers(0, 3))
@settings(max_examples=500, deadline=None)
def test_inline_handlers_decide_the_same_again(
    setup: Setup, schedule: tuple[int, int, int], losses: float, busy: int, saves: int
) -> None:
    run = mortal(setup, schedule, losses, inline=busy, saves=saves)
    trace = run.run()
    undisturbed = mortal(setup, (schedule[0], 0, 1), 0.0, inline=busy, saves=saves)
    expected = undisturbed.run()
    assert trace.events == expected.events
    assert trace.final == expected.final
    assert run.points == undisturbed.points
    if not setup.kinds:  # nothing is undone
        assert run.told == undisturbed.told


@given(setups(), schedules, st.integers(2, 6))
@settings(max_examples=300, deadline=None)
def test_inline_handlers_beside_gates_fit_every_schedule(
    setup: Setup, schedule: tuple[int, int, int], busy: int
) -> None:
    run, other = (mortal(setup, how, 0.0, inline=busy) for how in (schedule, (schedule[0] + 1, 0, 1)))
    trace, expected = run.run(), other.run()
    assert trace.events == expected.events
    assert trace.final == expected.final


@given(setups(), schedules, LOSSES)
@settings(max_examples=300, deadline=None)
def test_rates_from_outside_are_set_once(setup: Setup, schedule: tuple[int, int, int], losses: float) -> None:
    setup.kinds, setup.batch_events, setup.fail_mod = frozenset(), True, 0
    run = mortal(setup, schedule, losses, rates=0.1)
    run.run()
    toy, rates, step = Toy(), dict[int, list[float]](), 0
    for event in run.all_events:
        if isinstance(event, ev.LearningRateChanged):
            rates.setdefault(step, []).append(event.value)
        elif isinstance(event, ev.BatchEnd):
            assert event.step == step
            for rate in rates.get(step, ()):
                toy.learning_rate = rate
            x = list(ToyData(setup.per_epoch).batches(event.epoch))[event.batch][0]
            assert event.logs["loss"] == toy.train_batch(x, None)["loss"]
            step += 1
    for rate in rates.get(step, ()):
        toy.learning_rate = rate
    assert frozen(toy.state()) == frozen(run.toy.state())


def test_losses_of_all_kinds_are_tried() -> None:
    kinds = set[tuple[str, int]]()
    for seed in range(300):
        gates = {"EpochEnd", "ValidationBegin"} | ({"BatchEnd"} if seed % 2 else set())
        setup = Setup(seed=seed, epochs=3, val_batches=2, kinds=frozenset(gates), fail_mod=seed % 3 and 23)
        run = Mortal(setup, random.Random(seed), seed % 4, 100, losses=0.1, saves=seed % 5)
        begin = run.begin

        def noted(run: Mortal = run, begin: Any = begin) -> None:
            again = run.journal.again()
            kinds.add(("begun", again.mark is not None))
            kinds.add(("held", again.hold is not None))
            kinds.add(("boundaries", min(2, len(again.holds))))
            kinds.add(("undone", again.era > 0))
            kinds.add(("changed", again.mark is not None and again.mark.change is not None))
            kinds.add(("failed", again.failed is not None))
            kinds.add(("inside", again.mark is not None and again.mark.inside))
            begin()

        run.begin = noted  # type: ignore[method-assign]
        run.run()
    whats = "begun", "held", "undone", "changed", "failed", "inside"
    assert kinds >= {(what, yes) for what in whats for yes in (True, False)}
    assert kinds >= {("boundaries", many) for many in (0, 1, 2)}


def test_what_was_answered_is_not_asked_again() -> None:
    def journal() -> Journal:
        book = Journal(Mortal(Setup(seed=1), random.Random(1), 1, 1).first)
        book.report(TrainBegun(0, 0.0, {}, False, 0, 0, 0.5, {"w": 0}, None))
        return book

    rate, state = SetRate(Update("run", 0.25), 1), {"w": 1}
    ended = EpochDone(0, 0.0, 0, 3, {}, None, True, True, 1, 0.5, 0.5, state, None, None)
    book = journal()
    for command in (Pause(True), Pause(True, throttle=True), Pause(False), rate, TakeSnapshot(), TakePoint(), Stop()):
        book.command(command)
    assert book.pending() == [Pause(True, throttle=True), rate, TakeSnapshot(), TakePoint(), Stop()]
    book.report(WasSnapshot(0, 0.0, 1, 0, state))
    book.report(Reached(0, 0.0, Position(0, 2, 2), state, None))
    book.report(RateSet(0, 0.0, 2, rate, 0.25, 0.5))
    assert book.pending() == [Pause(True, throttle=True), Stop()]
    assert book.again().rates == ((2, 0.25),)

    book = journal()
    book.command(rate)
    book.report(ended)
    assert book.pending() == [rate]
    book.command(Confirm(1))
    assert book.pending() == [], "that boundary decided about it"

    book = journal()
    book.command(Stop())
    book.report(ended)
    book.command(Confirm(0, Change(rate=0.125)))
    assert book.pending() == [], "what it was to stop is undone"
    again = book.again()
    assert again.mark is not None
    assert (again.era, again.ahead, again.mark.change) == (1, 0, Change(rate=0.125))

"""Promise 7 on the spine alone: a run that begins at any point of another one is the rest of it."""

from __future__ import annotations

import functools
import random
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncfit.compute import Start
from asyncfit.ledger import Ledger, Point
from asyncfit.protocol import Decision, Interest, Update

from .driver import Driver, interest_of
from .lockstep import FACTS, Gates, Setup, frozen
from .test_ledger import schedules, setups


class Saving(Driver):
    """A run in which checkpoints are taken; `points` has each, with what the gates remembered then."""

    every: int
    points: list[tuple[Point, list[dict[str, Any]], int]]

    def interest(self) -> Interest:
        return interest_of(self.setup, self.kinds)._replace(saves=True, save_every=self.every, save_boundary=True)

    def prepare(self, every: int) -> None:
        self.every, self.points = every, []
        self.loop.compute._listen(self.interest())
        self.ledger._reached = self.reached

    def reached(self, point: Point) -> None:
        self.points.append((point, list(self.gates.memory), len(self.trace.events)))
        assert point.carried.seq == len(self.all_events) or point.final


class Again(Gates):
    """Gates that remember. What they were asked about before is not asked again, but they try to decide it anew."""

    def __init__(self, setup: Setup, memory: list[dict[str, Any]], known: set[str]) -> None:
        super().__init__(setup, list(memory))
        self.known = known

    def __call__(self, kind: str, facts: Any, model: Any) -> tuple[Decision, Any]:
        if kind in self.known:
            self.known.discard(kind)
            weights = None if model is None else Update("gate", {name: value * 0 for name, value in model.items()})
            return Decision(rate=Update("gate", 64.0), weights=weights), None
        return super().__call__(kind, facts, model)


def resumed(run: Saving, point: Point, memory: list[dict[str, Any]], seed: int, lookahead: int) -> Driver:
    at = point.position
    rest = Driver(
        replace(run.setup, initial_epoch=at.epoch), random.Random(seed), lookahead,
        ledger_class=functools.partial(Ledger, carried=point.carried._replace(seq=0)),
    )  # fmt: skip
    rest.gates = Again(run.setup, memory, {"TrainBegin", "EpochBegin"} if at.begun else {"TrainBegin"})
    work = rest.loop.compute.work
    work.start = Start(position=at, state=point.state, change=point.change, stopped=point.carried.stop is not None)
    rest.loop.__init__(work)  # type: ignore[misc]
    rest.check_bounds = lambda: None  # type: ignore[method-assign]
    return rest


def without(events: list[tuple[Any, ...]], begun: bool) -> list[tuple[Any, ...]]:
    """Events but for facts, TrainBegin, and the EpochBegin that is told again."""
    events = [event for event in events if event[0] not in (*FACTS, "TrainBegin")]
    return events[1:] if begun else events


@given(setups(), schedules, st.integers(1, 3), st.integers(0, 3))
@settings(max_examples=600, deadline=None)
def test_a_run_from_any_point_is_the_rest_of_the_run(
    setup: Setup, schedule: tuple[int, int, int], every: int, lookahead: int
) -> None:
    seed, ahead, max_ahead = schedule
    run = Saving(setup, random.Random(seed), ahead, max_ahead)
    run.prepare(every)
    trace = run.run()
    for point, memory, told in run.points:
        if point.final:
            continue  # what follows here is the stop's
        rest = resumed(run, point, memory, seed, lookahead)
        found = rest.run()
        expected = [event for event in trace.events[told:] if event[0] not in FACTS]
        assert without(found.events, point.position.begun) == expected
        assert found.final == trace.final
        assert frozen(point.state) is not None


def test_points_of_all_kinds_are_tried() -> None:
    kinds = set()
    for seed in range(400):
        setup = Setup(seed=seed, epochs=3, per_epoch=3, kinds=frozenset({"EpochEnd", "BatchEnd"}), busy=2)
        run = Saving(setup, random.Random(seed), 2)
        run.prepare(2)
        run.run()
        kinds |= {(point.position.begun, point.change is not None, point.final) for point, _, _ in run.points}
    assert {(True, False, False), (False, False, False), (False, True, False), (True, False, True)} <= kinds

"""The run as a blocking loop would do it: the oracle that the ledger is held against.

Written without the ledger, compute or their reports: one loop that stops at each event, asks the gates, and obeys.
A request from outside can be injected at any *position*: during an event's handlers, or between the end of a boundary
and the first batch after it. Also here: a model whose every number depends on all that was done to it, and gates that
decide by a hash of what they see, so that work which leaks out of an undone epoch shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asyncfit.protocol import Decision, StopAsked, Update

P = 1_000_003


class ToyFailure(Exception):
    pass


class Toy:
    """A Trainable on whole numbers, in which everything mixes with everything."""

    def __init__(self, fail_mod: int = 0) -> None:
        self.w = np.array([1, 2, 3], dtype=np.int64)
        self.slot = np.array([5], dtype=np.int64)
        self.rate = 0.5
        self.fail_mod = fail_mod
        self.trained = 0

    @property
    def learning_rate(self) -> float:
        return self.rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.rate = value

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        self.trained += 1
        self.slot[0] = (self.slot[0] * 31 + int(x)) % P
        self.w[:] = (self.w * 7 + self.slot[0] + int(self.rate * 64)) % P
        if self.fail_mod and int(self.w[0]) % self.fail_mod == 0:
            raise ToyFailure(int(self.w[0]))
        return {"loss": int(self.w.sum() % 1009)}  # an int: anything that float() takes

    def test_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        return {"loss": float((int(self.w.sum()) + int(x)) % 997)}

    def state(self) -> dict[str, Any]:
        return {"w": self.w, "slot": self.slot, "rate": self.rate}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.w[:] = state["w"]
        self.slot[:] = state["slot"]
        self.rate = state["rate"]

    def load_weights_state(self, state: Mapping[str, Any]) -> None:
        self.w[:] = state["w"]


class ToyData:
    """Batches of different sizes, whose rows are one number that depends on epoch and batch."""

    def __init__(self, per_epoch: int) -> None:
        self.per_epoch = per_epoch

    def steps(self, epoch: int) -> int:
        return self.per_epoch

    def batches(self, epoch: int, start: int = 0) -> Any:
        for batch in range(start, self.per_epoch):
            yield epoch * 17 + batch, None, None, 2 + batch % 2


def frozen(state: Mapping[str, Any] | None) -> Any:
    """A state as a value that can be compared."""
    if state is None:
        return None
    return tuple(state["w"].tolist()), tuple(state["slot"].tolist()), state["rate"]


@dataclass
class Setup:
    """What a run is asked to do, and which gates watch it."""

    seed: int
    epochs: int = 3
    initial_epoch: int = 0
    per_epoch: int = 3
    val_batches: int = 0
    fail_mod: int = 0
    kinds: frozenset[str] = frozenset()  # gated
    batch_events: bool = True
    busy: int = 3  # one in so many gates decides something
    errors: bool = False
    ends: int = -1  # the data does, after so many batches


@dataclass
class Gates:
    """The handlers: their decisions depend on a hash of all they see, and on nothing else."""

    setup: Setup
    memory: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, kind: str, facts: Mapping[str, Any], model: Mapping[str, Any] | None) -> tuple[Decision, Any]:
        setup = self.setup
        text = repr((setup.seed, kind, sorted(facts.items()), frozen(model), len(self.memory)))
        h = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        if model is not None:
            self.memory.append(dict(model))
        decision = Decision()
        h, dice = divmod(h, setup.busy)
        if dice or kind == "TrainEnd":
            return decision, None
        h, what = divmod(h, 9)
        h, pick = divmod(h, 7)
        if setup.errors and what == 8 and pick < 3:
            return decision, ToyFailure(f"gate {kind}")
        if what in (0, 7) and pick < 3 and kind != "BatchBegin":
            decision.stops.append(StopAsked("gate", f"{kind}{pick}", pick == 1))
        if kind in ("BatchBegin", "BatchEnd"):
            return decision, None
        source = self.memory[h % len(self.memory)] if self.memory else None
        if what in (1, 2, 7):
            decision.rate = Update("gate", 0.25 * (1 + pick % 3))
        if what in (3, 7) and source is not None:
            decision.weights = Update("gate", source, 0)
        if what == 4 and source is not None and kind != "TrainBegin":
            decision.restore = Update("gate", source, 0)
        if what in (5, 6, 7) and kind in ("ValidationEnd", "EpochEnd"):
            decision.logs["extra"] = float(pick)
        return decision, None


@dataclass
class Trace:
    """What came out: the published events as plain tuples, and the model at the end."""

    events: list[tuple[Any, ...]] = field(default_factory=list)
    final: Any = None
    trained: int = 0

    @property
    def moments(self) -> int:
        """How many events have been published, facts apart."""
        return sum(event[0] not in FACTS for event in self.events)


FACTS = ("StopRequested", "WeightsRestored", "LearningRateChanged")


class _Out(Exception):
    """Leave the loop: the run is over."""


Position = tuple[str, int]


class Lockstep:
    """One blocking run. `inject` = (what, position) with what "stop" or "cancel"."""

    def __init__(
        self,
        setup: Setup,
        inject: tuple[str, Position] | None = None,
        asked: Callable[[tuple[Any, ...]], bool] | None = None,
    ) -> None:
        self.setup, self.inject, self.asked = setup, inject, asked
        self.toy = Toy(setup.fail_mod)
        self.gates = Gates(setup)
        self.trace = Trace()
        self.step = 0
        self.position = 0
        self.used = False
        self.flag = False  # compute's own: no batch from now on
        self.wish: StopAsked | None = None
        self.stopped: StopAsked | None = None
        self.outcome, self.reason, self.resumable = "completed", "", False
        self.logs: dict[str, float] = {}
        self.restore: Any = None
        self.behind: list[tuple[Any, ...]] = []  # facts that come right after the next event
        self.positions: list[tuple[Position, int, Any]] = []  # where, events published by then, state there
        boundary = {"TrainBegin", "EpochBegin", "ValidationBegin", "ValidationEnd", "EpochEnd"}
        self.holds_boundary = bool(setup.kinds & boundary) or asked is not None  # where a gate stops, it was held

    # --- one event ---

    def here(self, where: str) -> bool:
        """Whether the request from outside arrives now."""
        place = (where, self.position)
        self.positions.append((place, self.trace.moments, frozen(self.toy.state())))
        return self.inject is not None and self.inject[1] == place

    def event(self, kind: str, decide: Decision | None, snapshot: Any, quiet: bool = False, **facts: Any) -> Decision:
        """Show an event to its gates, publish it, and say what they want."""
        self.position += 1
        key = (kind, facts.get("epoch"), facts.get("step") if "Batch" in kind else None)
        gated = kind in self.setup.kinds if self.asked is None else self.asked(key)
        decision, error = Decision(), None
        if gated:
            decision, error = self.gates(kind, facts, snapshot)
        arrived = self.here("during")
        cancelled = arrived and self.inject is not None and self.inject[0] == "cancel"
        if cancelled or error is not None:
            decision = Decision()
        if decision.logs:
            facts = facts | {"logs": facts["logs"] | decision.logs}
        if not quiet:
            self.trace.events.append((kind, *sorted(_hashable(facts))))
        self.trace.events += self.behind
        self.behind = []
        if kind == "EpochEnd":
            self.logs = facts["logs"]
        if cancelled:
            self.outcome, self.reason = "cancelled", "outside"
            raise _Out
        if error is not None:
            self.outcome = "failed"
            raise _Out
        if arrived:
            self.wish = StopAsked("run", "outside")
        return decision

    def between(self) -> None:
        """A request may also arrive where no event is under way: behind a boundary, and behind a batch."""
        if self.here("between"):
            assert self.inject is not None
            if self.inject[0] == "cancel":
                self.outcome, self.reason = "cancelled", "outside"
                raise _Out
            self.wish = StopAsked("run", "outside")

    def fact(self, *what: Any) -> None:
        self.trace.events.append(what)

    # --- a boundary ---

    def collect(self, bound: Decision, decision: Decision, *, acts: bool) -> None:
        bound.merge(decision)
        if self.stopped is None and decision.stops:
            self.stopped = decision.stops[0]
        if self.stopped is None and self.wish is not None and acts:
            self.stopped = self.wish

    def apply(self, bound: Decision, snapshot: Any) -> None:
        for stop in bound.stops:
            self.fact("StopRequested", stop.who, stop.reason)
        if bound.weights is not None:
            if bound.weights.value is not snapshot:
                self.fact("WeightsRestored", self.step)
            self.toy.load_weights_state(bound.weights.value)
        if bound.rate is not None and bound.rate.value != self.toy.rate:
            self.fact("LearningRateChanged", self.toy.rate, bound.rate.value)
            self.toy.learning_rate = bound.rate.value
        if bound.restore is not None:
            self.restore = bound.restore

    def run(self) -> Trace:
        setup = self.setup
        try:
            self.train()
        except _Out:
            self.restore = None
        except ToyFailure:
            self.outcome = "failed"
            self.restore = None
        if self.outcome == "completed" and self.stopped is not None:
            self.outcome, self.reason, self.resumable = "stopped", self.stopped.reason, self.stopped.resumable
        if self.restore is not None:
            self.toy.load_weights_state(self.restore.value)
            self.fact("WeightsRestored", self.step)
        gated = "TrainEnd" in setup.kinds
        if gated:
            self.gates("TrainEnd", {"outcome": self.outcome}, None)
        self.fact("TrainEnd", self.outcome, self.reason, self.resumable, self.step, *sorted(self.logs.items()))
        self.trace.final = frozen(self.toy.state())
        self.trace.trained = self.step
        return self.trace

    def train(self) -> None:
        setup = self.setup
        held = self.holds_boundary
        bound = Decision()
        snapshot = _copy(self.toy)
        epoch: int | None = setup.initial_epoch if setup.initial_epoch < setup.epochs else None
        self.collect(bound, self.event("TrainBegin", None, snapshot), acts=held or epoch is None)
        if epoch is None or (held and self.stopped is not None):
            self.apply(bound, snapshot)
            return
        while epoch is not None:
            # the boundary goes on: EpochBegin, with the snapshot and the decisions so far
            self.collect(bound, self.event("EpochBegin", None, snapshot, epoch=epoch), acts=held)
            if held and self.stopped is not None:
                decision = self.event("EpochEnd", None, snapshot, epoch=epoch, logs={}, complete=False)
                self.collect(bound, decision, acts=True)
                self.apply(bound, snapshot)
                return
            self.apply(bound, snapshot)
            bound = Decision()
            self.between()
            epoch, snapshot, bound = self.epoch(epoch)

    def epoch(self, epoch: int) -> tuple[int | None, Any, Decision]:
        setup, toy, held = self.setup, self.toy, self.holds_boundary
        total = rows = 0.0
        complete = True
        for batch, (x, y, w, size) in enumerate(ToyData(setup.per_epoch).batches(epoch)):
            if self.wish is not None or self.stopped is not None:
                complete = False
                break
            if self.step == setup.ends:
                complete = False
                self.stopped = StopAsked("data", "data ended")
                self.behind.append(("StopRequested", "data", "data ended"))
                break
            quiet = not setup.batch_events
            at = {"epoch": epoch, "batch": batch, "step": self.step}
            self.event("BatchBegin", None, None, quiet, **at)
            loss = float(toy.train_batch(x, y, w)["loss"])
            self.step += 1
            total, rows = total + loss * size, rows + size
            model = _copy(toy)
            end = self.event("BatchEnd", None, model, quiet, **at, size=size, logs={"loss": loss})
            for stop in end.stops:
                self.fact("StopRequested", stop.who, stop.reason)
            if end.stops and self.stopped is None:
                self.stopped = end.stops[0]
            self.between()
        rate = toy.rate
        logs: dict[str, float] = {"loss": total / rows} if rows else {}
        bound = Decision()
        snapshot = _copy(toy)
        if not complete:
            self.stopped = self.stopped or self.wish
        if complete and setup.val_batches:
            self.collect(bound, self.event("ValidationBegin", None, snapshot, epoch=epoch), acts=held)
            total = rows = 0.0
            for x, y, w, size in ToyData(setup.val_batches).batches(0):
                total, rows = total + float(toy.test_batch(x, y, w)["loss"]) * size, rows + size
            known = bool(self.wish or self.stopped)
            val = {"loss": total / rows}
            decision = self.event("ValidationEnd", None, snapshot, epoch=epoch, logs=val)
            self.collect(bound, decision, acts=held)
            logs |= {f"val_{name}": value for name, value in (val | decision.logs).items()}
        else:
            known = bool(self.wish or self.stopped)
        if logs or complete:
            logs["learning_rate"] = rate
        after = epoch + 1 if complete and not known and epoch + 1 < setup.epochs else None
        decision = self.event("EpochEnd", None, snapshot, epoch=epoch, logs=logs, complete=complete)
        self.collect(bound, decision, acts=held or after is None)
        if after is None or (held and self.stopped is not None):
            self.apply(bound, snapshot)
            return None, snapshot, Decision()
        return after, snapshot, bound


def _copy(toy: Toy) -> dict[str, Any]:
    return {"w": toy.w.copy(), "slot": toy.slot.copy(), "rate": toy.rate}


def _hashable(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, tuple(sorted(v.items())) if isinstance(v, Mapping) else v) for key, v in facts.items()]

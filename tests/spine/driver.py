"""A run on the bare loopback, its schedule drawn at random: compute, reports, gates and requests interleave anyhow."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from asyncfit import events as ev
from asyncfit.compute import Work
from asyncfit.executors.loopback import Loopback
from asyncfit.ledger import Ledger
from asyncfit.protocol import Command, Confirm, Decision, Ended, Interest, Lost, Restarted, StopAsked, WasSnapshot

from .lockstep import Gates, Setup, Toy, ToyData, Trace, frozen

BOUNDARY = {"TrainBegin", "EpochBegin", "ValidationBegin", "ValidationEnd", "EpochEnd"}
IGNORED = (ev.RunPaused, ev.RunResumed)


def interest_of(setup: Setup, kinds: frozenset[str]) -> Interest:
    batches = setup.batch_events
    copies = random.Random(setup.seed)  # who wants copies of the state sees the same as who does not
    return Interest(
        snapshot_boundary=copies.random() < 0.5,
        snapshot_batch=copies.choice([0, 1, 2]) if batches else 0,
        saves=True,
        save_every=copies.choice([0, 0, 1, 2]),
        save_boundary=copies.random() < 0.3,
        hold_boundary=bool(kinds & BOUNDARY - {"TrainBegin"}),
        hold_begin="TrainBegin" in kinds,
        hold_batch_begin=int("BatchBegin" in kinds),
        hold_batch_end=int("BatchEnd" in kinds),
        batch_begin=int(batches),
        batch_end=int(batches),
        validation_begin=True,
    )


def facts_of(event: ev.Event) -> dict[str, Any]:
    """What a gate sees of an event; the lock-step run hands its gates the same."""
    names = {
        "TrainBegin": (),
        "EpochBegin": ("epoch",),
        "ValidationBegin": ("epoch",),
        "ValidationEnd": ("epoch", "logs"),
        "EpochEnd": ("epoch", "logs", "complete"),
        "BatchBegin": ("epoch", "batch", "step"),
        "BatchEnd": ("epoch", "batch", "step", "size", "logs"),
        "TrainEnd": ("outcome",),
    }[event.type]
    return {name: dict(v) if isinstance(v := getattr(event, name), dict) else v for name in names}


def plain(event: ev.Event) -> tuple[Any, ...]:
    """A published event as the lock-step run writes it down."""
    match event:
        case ev.StopRequested():
            return ("StopRequested", event.who, event.reason)
        case ev.WeightsRestored():
            return ("WeightsRestored", event.step)
        case ev.LearningRateChanged():
            return ("LearningRateChanged", event.previous, event.value)
        case ev.TrainEnd():
            return (
                "TrainEnd", event.outcome, event.reason, event.resumable, event.step, *sorted(event.logs.items())
            )  # fmt: skip
    facts = {key: tuple(sorted(v.items())) if isinstance(v, dict) else v for key, v in facts_of(event).items()}
    return (event.type, *sorted(facts.items()))


@dataclass
class Asked:
    """A request from outside: what was published when it was made, whether a boundary was open, and the answer."""

    what: str
    published: int
    open: bool
    answer: Any = None
    answered: bool = False
    asking: Any = None


@dataclass
class Driver:
    """Runs `setup` with a schedule drawn from `rng`. `plan` says how often to pause, to switch gates, to ask."""

    setup: Setup
    rng: random.Random
    lookahead: int = 0
    max_ahead: int = 100
    pauses: float = 0.0
    switches: float = 0.0
    snapshots: float = 0.0
    outside: str = ""
    outside_after: int = 0
    outside_open: bool = False
    ledger_class: Callable[..., Ledger] = Ledger
    trace: Trace = field(default_factory=Trace)
    all_events: list[ev.Event] = field(default_factory=list)
    requests: list[Asked] = field(default_factory=list)
    asked_keys: set[tuple[Any, ...]] = field(default_factory=set)
    asking: Any = None
    lock_step: bool = False
    _trained_at_stop: int = -1
    _era_at_stop: int = 0

    def __post_init__(self) -> None:
        setup = self.setup
        self.kinds = setup.kinds
        self.toy = Toy(setup.fail_mod)
        self.gates = Gates(setup)
        work = Work(
            trainable=self.toy,
            data=self.data(),
            epochs=setup.epochs,
            initial_epoch=setup.initial_epoch,
            validation=self.validation() if setup.val_batches else None,
            params={},
            lookahead=self.lookahead,
            max_ahead=self.max_ahead,
            interest=interest_of(setup, self.kinds),
        )
        self.loop = Loopback(work)
        self.sent: list[Command] = []
        self.ledger = self.ledger_class(
            publish=self.published,
            ask=self.ask,
            send=self.send,
            gated=lambda kind: kind.__name__ in self.kinds,
            lookahead=self.lookahead,
        )
        self.late: list[ev.Event] = []
        self.paused = False

    def data(self) -> Any:
        return ToyData(self.setup.per_epoch)

    def validation(self) -> Any:
        return ToyData(self.setup.val_batches)

    def send(self, command: Command) -> None:
        if isinstance(command, Confirm) and self.ledger._is_open:
            self.lock_step = command.change is not None
        self.sent.append(command)
        self.loop.send(command)

    def published(self, event: ev.Event) -> None:
        assert event.seq == len(self.all_events), "seq without gaps, in the order of publication"
        self.all_events.append(event)
        if not isinstance(event, IGNORED):
            self.trace.events.append(plain(event))

    def ask(self, event: ev.Event) -> None:
        assert self.asking is None, "at most one event is out"
        facts = facts_of(event)
        self.asked_keys.add((event.type, facts.get("epoch"), facts.get("step") if "Batch" in event.type else None))
        self.asking = event

    def answer(self) -> None:
        event, self.asking = self.asking, None
        model = getattr(event, "_model", None)
        decision, error = self.gates(event.type, facts_of(event), model)
        if self.rng.random() < 0.2 and self.late:  # an answer that comes too late is none
            self.ledger.answered(self.late[-1], Decision(stops=[StopAsked("late", "late")]))
        self.late.append(event)
        self.ledger.answered(event, decision, error)

    def request(self, what: str) -> None:
        is_open = self.asking is not None and self.ledger._is_open
        request = Asked(what, self.trace.moments, is_open, asking=self.asking)
        self.requests.append(request)
        if what == "stop":
            self.ledger.stop(StopAsked("run", "outside"))
        elif what == "cancel":
            if self.ledger.cancel("outside"):
                self.asking = None
        elif what == "snapshot":

            def reply(snapshot: Any) -> None:
                assert not request.answered
                request.answer, request.answered = frozen(snapshot), True

            self.ledger.snapshot(reply)

    def take(self) -> None:
        report = self.loop.reports.popleft()
        assert not isinstance(report, Lost | Restarted)
        self.ledger.report(report)

    def actions(self) -> list[Callable[[], None]]:
        actions: list[Callable[[], None]] = []
        if self.loop.ready:
            actions += [self.loop.step] * 2
        if self.loop.reports:
            actions += [self.take] * 2
        if self.asking is not None:
            actions.append(self.answer)
        return actions

    def maybe_outside(self) -> None:
        rng = self.rng
        if self.outside and not any(r.what == self.outside for r in self.requests) and not self.ledger.ended:
            ripe = self.asking is not None and self.ledger._is_open if self.outside_open else True
            if ripe:
                self.outside_after -= 1
                if self.outside_after < 0:
                    self.request(self.outside)
        if rng.random() < self.snapshots:
            self.request("snapshot")
        if rng.random() < self.pauses:
            self.paused = not self.paused
            self.ledger.pause(self.paused)
        if rng.random() < self.switches:
            every = sorted(BOUNDARY | {"BatchBegin", "BatchEnd"})
            self.kinds = frozenset(rng.sample(every, rng.randrange(len(every))))
            self.ledger.listen(interest_of(self.setup, self.kinds))

    def run(self) -> Trace:
        bias = self.rng.random()
        for _ in range(20_000):
            self.check_bounds()
            self.maybe_outside()
            actions = self.actions()
            if not actions:
                if self.paused:
                    self.paused = False
                    self.ledger.pause(False)
                    continue
                break
            first = self.rng.random() < bias  # some schedules let compute run ahead, others lag behind
            (actions[0] if first else self.rng.choice(actions))()
        assert self.loop.over, "compute has ended"
        assert self.ledger.ended, f"the run hangs: asking {self.asking}, sent {self.sent[-3:]}"
        assert all(request.answered for request in self.requests if request.what == "snapshot"), "a snapshot is owed"
        self.trace.final = frozen(self.toy.state())
        return self.trace

    def check_bounds(self) -> None:
        compute = self.loop.compute
        waiting = [report for report in (*self.loop.reports, *self.ledger._held) if report.era == compute._era]
        copies = [report for report in waiting if getattr(report, "state", None) or getattr(report, "snapshot", None)]
        free = [report for report in copies if not getattr(report, "held", isinstance(report, WasSnapshot | Ended))]
        assert len(free) <= compute.work.unpublished, "copies that no hold bounds gather"
        assert len(compute._holds) <= self.lookahead + 1
        if isinstance(self.asking, ev.TrainBegin):
            assert self.toy.trained == 0, "compute waits at TrainBegin"
        if self.lock_step and compute._holds and self.asking and self.ledger._is_open:
            assert compute._begun == compute._holds[0].begun, "the boundary after a change is lock-step"
        if compute._holds:
            assert compute._begun - compute._holds[0].begun <= max(self.max_ahead, 1)
        if compute._stop:
            trained = self._trained_at_stop
            if trained < 0:
                self._trained_at_stop, self._era_at_stop = compute._begun, compute._era
            elif self._era_at_stop == compute._era:
                assert compute._begun <= trained + 1, "no batch is begun after a stop was read"
        else:
            self._trained_at_stop = -1

"""A driver whose compute is lost at random moments: what it had said and nobody had received is lost with it."""

from __future__ import annotations

import hashlib
import pickle
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from asyncfit.events import Event
from asyncfit.executors.journal import Journal
from asyncfit.executors.loopback import Loopback
from asyncfit.ledger import Point
from asyncfit.protocol import Command, Decision, Ended, StopAsked, Update
from asyncfit.retracing import Moment

from .driver import Driver
from .lockstep import Setup, Toy, frozen


class Word(NamedTuple):
    """What an inline handler tells the run, on its way."""

    era: int
    moment: Moment
    number: int
    what: Any


class Port:
    """Inline handlers with a memory, which decide by a hash of it and of what they see."""

    def __init__(self, busy: int, tell: Callable[[Any], object] = id) -> None:
        self.memory, self.busy, self.tell = 0, busy, tell
        self.trainable: Any = None
        self.replays: list[tuple[str, int, bool]] = []

    def call(self, kind: type[Event], now: float, values: Mapping[str, Any], replay: bool) -> Decision | None:
        self.replays.append((kind.__name__, values.get("step", -1), replay))
        what = {name: value for name, value in values.items() if name != "params"}
        text = repr((self.memory, kind.__name__, what, frozen(self.trainable.state())))
        h = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big")
        h, dice = divmod(h, self.busy)
        self.memory = h % 1009
        if dice:
            return None
        h, what_ = divmod(h, 8)
        if what_ < 3:
            self.tell((kind.__name__, values.get("step", -1), h))
            self.tell((kind.__name__, values.get("step", -1), h + 1))
            return None
        if what_ < 7 or "Begin" in kind.__name__:
            return Decision(rate=Update("inline", float(h % 16) / 16))
        return Decision(stops=[StopAsked("inline", "enough")]) if h % 16 == 0 else None

    def state(self) -> int:
        return self.memory

    def load_state(self, state: int) -> None:
        self.memory = state

    def kept(self) -> dict[str, Any]:
        return {"port": {"memory": self.memory}}

    def load_kept(self, kept: Mapping[str, Any]) -> None:
        self.memory = kept["port"]["memory"]

    def names(self) -> frozenset[str]:
        return frozenset(["port"])

    def parcel(self, names: frozenset[str] | None = None) -> Port:
        return self

    def take(self, told: Any) -> None: ...
    def figures(self) -> Any: ...
    def take_figures(self, figures: Any) -> None: ...


class Mortal(Driver):
    """Loses its compute with probability `losses` before each action."""

    def __init__(
        self,
        setup: Setup,
        rng: random.Random,
        lookahead: int,
        max_ahead: int,
        *,
        losses: float = 0.1,
        saves: int = 0,
        inline: int = 0,
        rates: float = 0.0,
        **more: Any,
    ) -> None:
        super().__init__(setup, rng, lookahead, max_ahead, **more)
        self.losses, self.saves, self.inline, self.rates = losses, saves, inline, rates
        self.lost = 0
        self.received: deque[Any] = deque()
        self.points: list[tuple[Any, ...]] = []
        self.told: list[Any] = []
        work = self.loop.compute.work
        interest = work.interest._replace(saves=bool(saves), save_every=saves, save_boundary=bool(saves))
        if inline:
            batches = setup.batch_events
            interest = interest._replace(inline=True, inline_batch_begin=batches, inline_batch_end=batches)
        self.first = replace(work, interest=interest, mirrored=True, replaceable=True)
        self.journal = Journal(self.first)
        self.ledger._reached = self.reached
        self.begin()

    def begin(self) -> None:
        """Another compute, with nothing but what is handed over to it."""
        journal = self.journal
        self.toy = Toy(self.setup.fail_mod)
        port = Port(self.inline, self.tell) if self.inline else None
        work = replace(
            self.first, trainable=self.toy, inline=port, interest=journal.interest,
            again=pickle.loads(pickle.dumps(journal.again())) if self.lost else None, early=journal.pending(),
        )  # fmt: skip
        if port is not None:
            port.trainable = self.toy
        self.port = port
        self.pipe_told: deque[Any] = deque()
        self.loop = Loopback(work)

    def tell(self, what: Any) -> None:
        stamped = self.loop.compute.stamped(what)
        if stamped is not None:
            self.loop.reports.append(Word(*stamped))  # type: ignore[arg-type]

    def reached(self, point: Point) -> None:
        change = None if point.change is None else (frozen(point.change.weights), point.change.rate)
        told = len(self.trace.events)
        self.points.append((point.position, frozen(point.state), change, told, point.kept, point.final))

    def send(self, command: Command) -> None:
        self.journal.command(command)
        super().send(command)

    def receive(self) -> None:
        report: Any = self.loop.reports.popleft()
        if isinstance(report, Word):
            self.journal.told(report.era, report.moment, report.number)
            self.told.append(report.what)
            return
        if not isinstance(report, Ended):
            self.journal.report(report)
        self.received.append(report)

    def take(self) -> None:
        self.ledger.report(self.received.popleft())

    def lose(self) -> None:
        for _ in range(self.rng.randrange(len(self.loop.reports) + 1)):
            self.receive()
        if any(isinstance(report, Ended) for report in self.received):
            return
        if self.rng.random() < 0.5:
            self.journal.progress(self.loop.compute.progress.step)
        self.lost += 1
        self.loop.reports.clear()
        self.loop.close()
        self.begin()

    def actions(self) -> list[Callable[[], None]]:
        actions: list[Callable[[], None]] = []
        if self.loop.ready:
            actions += [self.loop.step] * 2
        if self.loop.reports:
            actions += [self.receive] * 2
        if self.received:
            actions += [self.take] * 2
        if self.asking is not None:
            actions.append(self.answer)
        return actions

    def maybe_outside(self) -> None:
        super().maybe_outside()
        over = self.ledger.compute_ended or (self.loop.over and not self.loop.reports)
        if not over and self.rng.random() < self.losses:
            self.lose()
        if self.rng.random() < self.rates:
            self.ledger.set_learning_rate(Update("run", self.rng.randrange(16) / 16))

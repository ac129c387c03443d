"""The ledger: a pure, synchronous state machine between compute and the subscribers.

In come reports and commands' outcomes (`report`), the answers of gates (`answered`) and wishes from outside (`stop`,
`cancel`, `pause`, `snapshot`, `set_learning_rate`, `listen`). Out go, through three functions given to it, events to
publish, one event at a time to ask the gates about, and commands to compute. It knows no loop, thread or model; what
keeps a decision acting as of its event lives here and nowhere else.

A *boundary* is everything from the last batch of an epoch to the first of the next. It *opens* with its first held
report, which brings the one snapshot that all its events carry; the decisions of its gates are collected and applied
once, when its last gate has returned: compute either goes on (confirmed) or is put back to the snapshot with the
change applied, and what it had reported meanwhile is thrown away.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from .events import (
    BatchBegin,
    BatchEnd,
    EpochBegin,
    EpochEnd,
    Event,
    FrozenDict,
    LearningRateChanged,
    Outcome,
    RunPaused,
    RunResumed,
    StopRequested,
    TrainBegin,
    TrainEnd,
    ValidationBegin,
    ValidationEnd,
    WeightsRestored,
    maker,
)
from .protocol import (
    BatchBegun,
    BatchDone,
    Change,
    Command,
    Confirm,
    Decision,
    End,
    Ended,
    EpochDone,
    Interest,
    Listen,
    Pause,
    Position,
    Published,
    RateSet,
    Reached,
    SetRate,
    State,
    Stop,
    StopAsked,
    TakePoint,
    TakeSnapshot,
    Told,
    TrainBegun,
    Update,
    ValidationBegun,
    WasSnapshot,
)

__all__ = ["Ledger", "Point", "Reply"]

Reply = Callable[[Any], None]
"""Takes a snapshot, or None if the run ended and the model itself is the answer."""


class Carried(NamedTuple):
    """What the ledger itself knows at such a place, and the next attempt's has to.

    Attributes:
        seq: the number of the next event.
        logs: those of the newest EpochEnd.
        restore, fallback: the weights that the model is to end with, and those if nobody asks for others.
        stop: the stop for good that was decided, so that there is nothing more to do.
    """

    seq: int = 0
    logs: Mapping[str, float] = MappingProxyType({})
    restore: Update | None = None
    fallback: Update | None = None
    stop: StopAsked | None = None


NOTHING = Carried()


class Point(NamedTuple):
    """A place in the stream at which a checkpoint can be taken: behind it nothing is told yet.

    Attributes:
        position: where a run that begins with it goes on.
        time: when compute was there.
        state, change: the model, and what was decided but is not in that state.
        kept: the states of callbacks with inline handlers, by name.
        carried: what the next attempt's ledger begins with.
        final: a resumable stop acts here.
    """

    position: Position
    time: float
    state: State
    change: Change | None
    kept: Mapping[str, Any]
    carried: Carried
    final: bool


_batch_begin, _batch_end = maker(BatchBegin), maker(BatchEnd)
_BATCH = (BatchBegin, BatchEnd)


class Ledger:
    """One run's state machine.

    Args:
        publish: gets each event once, in order, when no gate holds it (any longer).
        ask: gets an event whose gates are to be asked; `answered` is expected for it, at once or later. At most one
            is out at a time.
        send: gets each command for compute.
        reached: gets each place at which a checkpoint can be taken.
        gated: whether somebody gates this kind of event now.
        view: makes the snapshot that events carry from a state, its step and its epoch.
        as_stored: a learning rate as the optimizer would store it, so that setting the present one is no change.
        carried: from an earlier attempt.
        lookahead: how many open boundaries compute may work ahead of.
        control: what stands behind `event.stop()` for those who hold no gate.
    """

    def __init__(
        self,
        *,
        publish: Callable[[Event], None],
        ask: Callable[[Event], None],
        send: Callable[[Command], None],
        reached: Callable[[Point], None] = lambda point: None,
        gated: Callable[[type[Event]], bool],
        view: Callable[[State, int, int], Any] = lambda state, step, epoch: state,
        as_stored: Callable[[float], float] = float,
        lookahead: int = 0,
        run_id: str = "run",
        attempt: int = 0,
        carried: Carried = NOTHING,
        control: Any = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._publish_out, self._ask, self._send, self._gated, self._view = publish, ask, send, gated, view
        self._reached = reached
        self._as_stored, self._lookahead, self._ahead = as_stored, lookahead, lookahead
        self._run_id, self._attempt, self._control, self._clock = run_id, attempt, control, clock

        self._held: deque[Any] = deque()  # reports not yet taken up
        self._head: Any = None  # the report whose events are under way
        self._todo: deque[type[Event]] = deque()  # the kinds of its events still to come
        self._asking: Any = None  # the event whose gates are out
        self._facts: deque[tuple[Callable[..., Event], dict[str, Any]]] = deque()  # facts that wait for their place
        self._pumping = False

        self._is_open = False  # a boundary is
        self._validating = False  # it has come as far as ValidationBegin
        self._open: Any = None  # the snapshot that its events carry
        self._open_state: State | None = None
        self._bound = Decision()  # what its gates have asked for so far
        self._val_added: dict[str, float] = {}

        self._wish: StopAsked | None = None  # a stop from outside that has not acted yet
        self._wish_rate: Update | None = None  # a rate from outside, likewise
        self._rates_asked = 0  # so many were: the number of the newest
        self._stopped = carried.stop  # the stop that acted
        self._restore, self._fallback = carried.restore, carried.fallback
        self._waiting: list[Reply] = []  # for a snapshot
        self._cancelling = False  # publish on, ungated, up to the first held event
        self._deaf = False  # only Ended still counts
        self._end_sent = False
        self._era, self._seq = 0, carried.seq
        self._at_end: Point | None = None  # what a checkpoint behind the newest EpochEnd would hold
        self._rate = 0.0
        self._logs: Mapping[str, float] = FrozenDict(carried.logs)

        self.begun = False  # TrainBegin was published or asked
        self.compute_ended = False
        self.closed = False  # TrainEnd was made: nothing comes after it
        self.ended = False  # TrainEnd was published
        self.outcome: Outcome | None = None
        self.error: BaseException | None = None
        self.errors: list[BaseException] = []  # what went wrong after the outcome was settled
        self.reason = ""
        self.step = 0  # batches completed, as far as published
        self.epoch = 0
        self.unread = 0  # batches that were taken and will not be trained on; known before `Ended` comes
        self.newest: Any = None  # the snapshot of the newest confirmed boundary that was held

    # --- from compute ---

    def report(self, report: Told) -> None:
        if report.__class__ is BatchDone:
            # What most reports are, and all that happens to most of them: published at once, as `_pump` would in its
            # own way at more than twice the cost. Nothing can be waiting when no event is out.
            era, now, epoch, batch, step, size, logs, held, snapshot, inline = report
            plain = not held and snapshot is None and inline is None
            if plain and era == self._era and self._asking is None and not self._deaf and not self._pumping:
                self._seq = 1 + (seq := self._seq)
                self.step = step + 1
                run, attempt = self._run_id, self._attempt
                self._publish_out(
                    _batch_end(run, attempt, seq, now, epoch, batch, step, size, FrozenDict(logs), self._control)
                )
                if self._facts:
                    self._flush()
                return
        if report.__class__ is Ended:
            self._take_end(report)
        elif report.era == self._era and not self._deaf:
            self._held.append(report)
            if self._asking is None and not self._pumping:
                self._pump()

    @property
    def asking(self) -> Event | None:
        """The event whose gates are out."""
        event: Event | None = self._asking
        return event

    def _pump(self) -> None:
        self._pumping = True
        try:
            while self._asking is None:
                if self._todo:
                    self._emit(self._todo.popleft())
                elif self._held:
                    self._take_up(self._held.popleft())
                else:
                    self._head = None  # it may have brought a state
                    break
        finally:
            self._pumping = False

    def _take_up(self, report: Any) -> None:
        """Note what a report says, and which events it makes."""
        self._head = report
        kind = report.__class__
        if kind is BatchDone:
            self.step = report.step + 1
            self._todo.append(BatchEnd)
        elif kind is BatchBegun:
            self._todo.append(BatchBegin)
        elif kind is EpochDone:
            self._rate = report.rate_now
            self._open_boundary(report, report.epoch)
            self._val_added = dict(report.inline_validation.logs) if report.inline_validation else {}
            if not report.complete:
                self._stopped = self._stopped or self._wish
                stop = self._stopped or next(iter(report.inline.stops if report.inline else ()), None)
                if stop is not None and stop.resumable and report.position is not None:
                    self._reach(report, report.position, final=True)
            if report.val_logs is not None:
                self._todo.append(ValidationEnd)
            self._todo.append(EpochEnd)
        elif kind is ValidationBegun:
            self._rate = report.rate_now
            self._open_boundary(report, report.epoch)
            self._validating = True
            self._todo.append(ValidationBegin)
        elif kind is TrainBegun:
            self._rate = report.rate
            self._open_boundary(report, report.next or 0)
            if report.decided is not None:
                self._bound.merge(_again(report.decided, self._bound.rate))
            self._todo.append(TrainBegin)
        elif kind is Reached:
            if not self._cancelling and self._stopped is None:
                kept, carried = report.kept or {}, self._carried()
                self._reached(Point(report.position, report.time, report.state, None, kept, carried, False))
            self._send(Published())
        elif kind is WasSnapshot:
            self._reply(self._view(report.state, report.step, report.epoch))
        elif kind is RateSet:
            self._rate = report.rate
            if report.asked.number == self._rates_asked:  # else another one is on its way already
                self._wish_rate = None
            if report.rate != report.previous:
                who = report.asked.update.who
                self._fact(LearningRateChanged, who=who, value=report.rate, previous=report.previous)
            self._flush()
        elif self._cancelling:  # the outcome is settled
            self.errors.append(report.error)
        else:
            self._finish("failed", report.error)

    def _open_boundary(self, report: Any, epoch: int) -> None:
        self.step, self.epoch, self._validating = report.step, epoch, False
        if not self._is_open:
            self._open = self._open_state = None
            if not report.held:
                self.newest = None
        again = report.snapshot is not None and self._is_open  # inline handlers have changed it since ValidationBegin
        unheld = again or (report.snapshot is not None and not report.held)
        if report.snapshot is not None:
            self._open, self._open_state = self._view(report.snapshot, report.step, epoch), report.snapshot
        if report.held and not self._is_open:
            self._is_open = True
            self._reply(self._open)
            self._bound.rate, self._wish_rate = self._wish_rate, None
        if unheld:
            self._send(Published(again))

    # --- events ---

    def _emit(self, kind: type[Event]) -> None:
        event = self._make(kind)
        report = self._head
        inline = self._inline_of(kind)
        if inline is not None:
            self._note_inline(inline)
        if report.held and not self._cancelling and self._gated(kind):
            self.begun = True
            self._asking = event
            self._ask(event)
        else:
            self._publish(event)
            self._after(kind, None)

    def _make(self, kind: type[Event]) -> Any:
        """The event of the report under way, with the next number."""
        report, control, seq = self._head, self._control, self._seq
        self._seq = seq + 1
        run, attempt, now = self._run_id, self._attempt, report.time
        if kind is BatchEnd:
            logs, step = FrozenDict(report.logs), report.step
            event = _batch_end(run, attempt, seq, now, report.epoch, report.batch, step, report.size, logs, control)
            if report.snapshot is not None:
                event._attach(control, self._view(report.snapshot, step + 1, report.epoch))
            return event
        if kind is BatchBegin:
            return _batch_begin(run, attempt, seq, now, report.epoch, report.batch, report.step, control)
        values: dict[str, Any]
        if kind is TrainBegin:
            values = {"params": FrozenDict(report.params)}
        elif kind is EpochBegin:
            values = {"epoch": report.next}
        elif kind is ValidationBegin:
            values = {"epoch": report.epoch}
        elif kind is ValidationEnd:
            values = {"epoch": report.epoch, "logs": FrozenDict(report.val_logs | self._val_added)}
        else:
            values = {"epoch": report.epoch, "logs": self._epoch_logs(report), "complete": report.complete}
        made: Any = kind
        return made(run_id=run, attempt=attempt, seq=seq, time=now, **values)._attach(control, self._open)

    def _epoch_logs(self, report: EpochDone) -> FrozenDict:
        logs: dict[str, float] = dict(report.logs)
        if report.val_logs is not None:
            logs |= {f"val_{name}": value for name, value in ({**report.val_logs, **self._val_added}).items()}
        if logs or report.complete:
            logs["learning_rate"] = report.rate
        if report.inline is not None:
            logs |= report.inline.logs
        return FrozenDict(logs)

    def _inline_of(self, kind: type[Event]) -> Decision | None:
        if kind is EpochBegin:
            return None
        inline: Decision | None = self._head.inline_validation if kind is ValidationEnd else self._head.inline
        return inline

    def _note_inline(self, asked: Decision) -> None:
        """Inline handlers have acted in compute already: what is left is to tell of it."""
        for stop in asked.stops:
            self._fact_stop(stop)
        if asked.stops:
            self._stopped = self._stopped or asked.stops[0]
        if asked.rate is not None:
            self._fact_rate(asked.rate, asked.previous_rate)
        if asked.weights is not None:
            self._fact_weights(asked.weights)

    def _publish(self, event: Any) -> None:
        self.begun = True
        if event.__class__ is EpochEnd:
            self._logs = event.logs
        self._publish_out(event)
        if self._facts:
            self._flush()

    def answered(self, event: Event, decision: Decision | None = None, error: BaseException | None = None) -> None:
        """The gates of `event` have all returned; an error of theirs ends the run. Late answers are ignored."""
        asked = self._asking
        if asked is None or asked.seq != event.seq:
            return
        self._asking = None
        kind = asked.__class__
        if decision is not None and decision.logs and error is None:
            logs = FrozenDict({**asked.logs, **decision.logs})
            asked = asked._replace(logs=logs)._attach(self._control, getattr(asked, "_model", None))
        self.ended = kind is TrainEnd
        self._publish(asked)
        if self.ended:
            return
        if error is not None:
            self._finish("failed", error)
        else:
            self._after(kind, decision)
        if not self._pumping:
            self._pump()

    def _after(self, kind: type[Event], decision: Decision | None) -> None:
        """The event is published: where does its run go from here?"""
        report = self._head
        if self._cancelling:
            if report.held:
                self._turn_deaf()
            elif kind in (TrainBegin, EpochEnd) and report.next is not None:
                self._todo.append(EpochBegin)
            return
        if kind in _BATCH:
            if decision is not None and decision.stops:
                for stop in decision.stops:
                    self._fact_stop(stop)
                self._stopped = self._stopped or decision.stops[0]
                self._send(Stop())
                self._flush()
            if report.held:
                self._send(Confirm(self._ahead))
            elif kind is BatchEnd and report.snapshot is not None:
                self._send(Published())
            return
        if decision is not None:
            if kind is ValidationEnd:
                self._val_added.update(decision.logs)
            if decision.stops:
                self._stopped = self._stopped or decision.stops[0]
            if report.__class__ is TrainBegun and self._resumed(kind, report):
                decision.rate = decision.weights = None  # they were decided then, and are in the state
            self._bound.merge(decision)
        last = kind in (TrainBegin, EpochEnd) and report.next is None
        if report.held or last:
            self._stopped = self._stopped or self._wish
        stopping = self._stopped is not None and report.held
        if kind is EpochEnd:
            self._epoch_ended(report)
        elif kind is TrainBegin:
            self._train_began(report)
        if kind is TrainBegin or kind is EpochEnd:
            if stopping or last:
                self._end()
            else:
                self._todo.append(EpochBegin)
        elif kind is EpochBegin:
            if stopping:  # an epoch of no batches, of which compute knows nothing
                if self._stopped is not None and self._stopped.resumable and self._at_end is not None:
                    self._reached(self._at_end._replace(final=True))
                    self._at_end = None
                self._head = EpochDone(
                    self._era, self._clock(), report.next, self.step, {}, None, False, True, None,
                    self._rate, self._rate, None, None, None,
                )  # fmt: skip
                self._todo.append(EpochEnd)
            elif report.held:
                self._confirm()

    # --- checkpoints ---

    def _resumed(self, kind: type[Event], report: TrainBegun) -> bool:
        """Whether handlers decided at this event in the run that this one goes on with."""
        return report.resumed is not None and (kind is TrainBegin or report.resumed.begun)

    def _carried(self) -> Carried:
        stop, bound = self._stopped, self._bound
        return Carried(
            self._seq, self._logs, bound.restore or self._restore, bound.fallback or self._fallback,
            None if stop is None or stop.resumable else stop,
        )  # fmt: skip

    def _epoch_ended(self, report: EpochDone) -> None:
        if report.complete:
            final = self._stopped is not None and self._stopped.resumable
            self._reach(report, Position(report.epoch + 1, 0, report.step), final=final)

    def _train_began(self, report: TrainBegun) -> None:
        """A stop at this boundary leaves what it found: what this attempt would have begun with."""
        at, state = report.resumed, self._open_state
        if at is None and report.next is not None:
            at = Position(report.next, 0, report.step)
        if at is None or state is None or not self._is_open:
            return
        self._at_end = Point(at, report.time, state, self._change(), report.kept or {}, self._carried(), True)
        if self._stopped is not None and self._stopped.resumable:
            self._reached(self._at_end)

    def _reach(self, report: EpochDone, position: Position, *, final: bool) -> None:
        """Between the boundary's EpochEnd and what follows it; or where an epoch was cut short, before its EpochEnd."""
        state = self._open_state
        if state is None:
            return
        point = Point(position, report.time, state, self._change(), report.kept or {}, self._carried(), final)
        if report.saves or final:
            self._reached(point)
        if self._is_open:
            self._at_end = point

    # --- decisions ---

    def _change(self) -> Change | None:
        """What the boundary's decisions change in the state, None if they leave it as it is."""
        weights, rate = self._bound.weights, self._bound.rate
        new_weights = weights.value if weights is not None and weights.value is not self._open_state else None
        new_rate = None
        if rate is not None and self._as_stored(rate.value) != self._rate:
            new_rate = rate.value
        return None if new_weights is None and new_rate is None else Change(new_weights, new_rate)

    def rate(self, asked: Update | None = None) -> float:
        """The rate as of the event that is out, if gates that were asked about it before have asked for this one."""
        asked = asked or self._bound.rate
        return self._rate if asked is None else self._as_stored(asked.value)

    def _close_boundary(self, change: Change | None) -> None:
        bound, self._bound = self._bound, Decision()
        self._at_end = None
        self._restore = bound.restore or self._restore
        self._fallback = bound.fallback or self._fallback
        for stop in bound.stops:
            self._fact_stop(stop)
        if change is not None and change.weights is not None and bound.weights is not None:
            self._fact_weights(bound.weights)
        if change is not None and change.rate is not None and bound.rate is not None:
            self._fact_rate(bound.rate, self._rate)
            self._rate = self._as_stored(change.rate)
        self._is_open = False
        self._flush()

    def _confirm(self) -> None:
        change = self._change()
        self.newest = self._open if change is None else None
        self._ahead = self._lookahead
        if change is not None:  # what compute has done since is undone, and nobody has seen it
            self._era += 1
            self._held.clear()
            self._ahead = 0
        self._send(Confirm(self._ahead, change))
        self._close_boundary(change)

    def _end(self) -> None:
        change = self._change()
        self.outcome = "stopped" if self._stopped is not None else "completed"
        self._turn_deaf()
        self._close_boundary(change)
        self._restore = self._restore or self._fallback
        self._end_sent = True
        self._send(End(change, None if self._restore is None else self._restore.value, regular=True))

    def _finish(self, outcome: Outcome, error: BaseException | None) -> None:
        """A failure or a cancellation: nothing that the open boundary decided is done."""
        self.outcome, self.error = outcome, error
        self._restore = None
        self._bound = Decision()
        self._is_open = False
        self._turn_deaf()
        self._end_sent = True
        self._send(End(validating=self._validating))

    def _turn_deaf(self) -> None:
        self._deaf = True
        self._held.clear()
        self._todo.clear()

    def compute_over(self, report: Ended) -> None:
        """Compute has ended: the state is final. `report` itself may come later, and brings `TrainEnd`."""
        if self.compute_ended:
            return
        self.step, self.epoch = report.step, report.epoch
        self.compute_ended = True
        if report.error is None and self._restore is not None:
            self._fact_weights(self._restore)
        self._flush()
        self.newest = None if report.state is None else self._view(report.state, report.step, report.epoch)
        self._reply(self.newest)

    def _take_end(self, report: Ended) -> None:
        self.compute_over(report)
        if report.error is not None and self.error is None:
            self.outcome, self.error = "failed", report.error
        elif report.error is not None and report.error is not self.error:
            self.errors.append(report.error)
        final, self.closed = self.newest, True
        stop = self._stopped if self.outcome == "stopped" else None
        event = TrainEnd(
            run_id=self._run_id, attempt=self._attempt, seq=self._seq, time=report.time,
            outcome=self.outcome or "failed", reason=stop.reason if stop else self.reason,
            resumable=stop.resumable if stop else False, step=report.step, logs=self._logs, error=self.error,
            unread=self.unread,
        )._attach(None, final)  # fmt: skip
        self._seq += 1
        self._deaf = True
        self.reason = event.reason
        if self._gated(TrainEnd):
            self._asking = event
            self._ask(event)
        else:
            self.ended = True
            self._publish(event)

    # --- from outside ---

    def stop(self, ask: StopAsked) -> None:
        """Stop at the open boundary, else where compute can: before its next batch."""
        self._fact_stop(ask)
        self._flush()
        if self._end_sent:
            return
        self._wish = self._wish or ask
        if not self._is_open:
            self._send(Stop())

    def cancel(self, reason: str = "", *, outcome: Outcome = "cancelled", error: BaseException | None = None) -> bool:
        """End now, at the oldest unconfirmed boundary. False if the outcome was settled before."""
        if self._end_sent:
            return False
        self.reason = reason
        asked, self._asking = self._asking, None
        if asked is not None:
            self._publish(asked)
        held = asked is not None or self._is_open
        self._finish(outcome, error)
        if not held:
            self._deaf, self._cancelling = False, True
        return True

    def give_up(self, outcome: Outcome, reason: str, error: BaseException | None) -> None:
        """Compute never began, or will never answer: whoever waits for a snapshot gets None."""
        if self.outcome is None:
            self.outcome, self.reason, self.error = outcome, reason, error
        self.compute_ended = self._end_sent = self._deaf = True
        self._reply(None)

    def forget(self) -> None:
        """The run is over: hold no state any longer."""
        self.newest = self._open = self._open_state = self._head = self._restore = self._at_end = None
        self._bound = Decision()
        self._held.clear()

    def pause(self, on: bool) -> None:
        if not self._end_sent:
            self._send(Pause(on))
            self._fact(RunPaused if on else RunResumed)
            self._flush()

    def set_learning_rate(self, rate: Update) -> None:
        """At the open boundary, as its last decision, else before compute's next batch."""
        if self._end_sent:
            return
        if self._is_open:
            self._bound.rate = rate
        else:
            self._wish_rate = rate
            self._rates_asked += 1
            self._send(SetRate(rate, self._rates_asked))

    def snapshot(self, reply: Reply) -> None:
        """Answer with a whole state that nobody can undo, not older than this call."""
        if self._is_open:
            reply(self._open)
        elif self.compute_ended:
            reply(self.newest)
        else:
            self._waiting.append(reply)
            self._send(TakeSnapshot())

    def take_point(self) -> None:
        """Let compute bring all that a checkpoint needs, soon."""
        if not self._end_sent:
            self._send(TakePoint())

    def listen(self, interest: Interest) -> None:
        self._send(Listen(interest))

    def publish(self, event: Event) -> None:
        """Publish a user's event in the run's stream."""
        self._facts.append((event._replace, {}))
        self._flush()

    def _reply(self, snapshot: Any) -> None:
        waiting, self._waiting = self._waiting, []
        for reply in waiting:
            reply(snapshot)

    # --- facts ---

    def _fact(self, kind: type[Event], **values: Any) -> None:
        self._facts.append((kind, {"time": self._clock(), "step": self.step, **values}))

    def _fact_stop(self, stop: StopAsked) -> None:
        self._fact(StopRequested, who=stop.who, reason=stop.reason, resumable=stop.resumable)

    def _fact_rate(self, rate: Update, previous: float) -> None:
        self._fact(LearningRateChanged, who=rate.who, value=self._as_stored(rate.value), previous=previous)

    def _fact_weights(self, weights: Update) -> None:
        self._fact(WeightsRestored, who=weights.who, source_step=weights.source_step)

    def _flush(self) -> None:
        """Publish the facts that have gathered, unless an event is out: they queue behind it."""
        while self._facts and self._asking is None and self.begun and not self.ended:
            kind, values = self._facts.popleft()
            event = kind(run_id=self._run_id, attempt=self._attempt, seq=self._seq, **values)
            self._seq += 1
            self._publish_out(event._attach(self._control, None))


def _again(change: Change, asked: Update | None) -> Decision:
    """What a checkpoint says was decided; a rate that was asked for since then is the later one."""
    weights = None if change.weights is None else Update("checkpoint", change.weights)
    rate = None if change.rate is None else Update("checkpoint", change.rate)
    return Decision(weights=weights, rate=asked or rate)

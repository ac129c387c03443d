"""What a worker has said and been told, as far as it matters if it is lost.

The run's side writes down each report and each command as it passes. From that it knows the newest state that nobody
can undo, and how another worker goes on: from which mark, in silence up to which moment, and what to ask it again.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..compute import Work
from ..protocol import (
    BatchBegun,
    BatchDone,
    Command,
    Confirm,
    End,
    EpochDone,
    Failed,
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
    TakePoint,
    TakeSnapshot,
    TrainBegun,
    ValidationBegun,
    WasSnapshot,
)
from ..retracing import FOREVER, NEVER, Again, At, Mark, Moment, moment_of

__all__ = ["Journal"]


class Journal:
    """Of one run.

    Args:
        work: what the first worker gets.
        replaceable: there may be another worker; else marks are not kept.
        names: of the callbacks whose inline handlers are called, now.

    Attributes:
        begun: TrainBegin was reported.
        confirmed: the newest state that nobody can undo, its step and epoch. None: the model as it was.
        interest: what compute is to report and hold.
    """

    def __init__(
        self, work: Work, *, replaceable: bool = True, names: Callable[[], frozenset[str] | None] = lambda: None
    ) -> None:
        self._replaceable = replaceable
        self.begun = False
        self.confirmed: tuple[State | None, int, int] = (None, 0, work.initial_epoch)
        self.interest: Interest = work.interest
        self._first, self._lookahead, self._names = work.initial_epoch, work.lookahead, names
        self._era = self._ahead = 0
        self._mark: Mark | None = None
        self._holds: deque[Mark] = deque()  # boundaries, up to the mark
        self._opened: Mark | None = None  # the one behind it, whose validation is under way
        self._behind()
        self._step = 0  # as far as compute is known to have come
        self._replayed = -1
        self._unpublished = 0
        # asked for, and not answered:
        self._paused = {False: False, True: False}
        self._rate: SetRate | None = None
        self._stop = self._snapshot = self._point = False
        self._end: End | None = None
        for command in work.early:
            self.command(command)

    def _behind(self) -> None:
        """Nothing is known of what comes behind the mark."""
        self._until = NEVER
        self._held: Moment | None = None
        self._rates: list[tuple[int, float]] = []
        self._failed: int | None = None
        self._told: tuple[Moment, int] = (NEVER, 0)
        self._opened = None

    @property
    def from_step(self) -> int:
        """Where another worker would begin."""
        return 0 if self._mark is None else self._mark.position.step

    # --- what goes up ------------------------------------------------------------------------------------------------

    def report(self, report: Any) -> None:
        """Compute has said this."""
        if report.era != self._era:  # of work that has been undone
            return
        kind = report.__class__
        self._until = max(self._until, moment_of(report) or NEVER)
        self._unpublished += self._is_free(report)
        asked = getattr(report, "inline", None)
        self._stop = self._stop or bool(asked is not None and asked.stops)
        if (kind is BatchDone or kind is BatchBegun) and report.held:
            self._held = moment_of(report)
        elif kind is TrainBegun:
            self._begin(report)
        elif kind is ValidationBegun:
            if report.held:
                self._held = moment_of(report)
                self._opened = self._boundary(report, None, report.snapshot)
        elif kind is EpochDone:
            self._epoch_done(report)
        elif kind is Reached:
            self._point = False
            at = report.position
            names, asked = self._names(), report.asked
            mark = Mark(
                next=at.epoch, epoch=at.epoch, position=at, state=report.state, kept=report.kept, names=names,
                inside=True, asked=asked,
            )  # fmt: skip
            self._reach(mark)
        elif kind is RateSet:
            self._rates.append((report.step, report.asked.update.value))
            if self._rate is not None and self._rate.number <= report.asked.number:
                self._rate = None
        elif kind is WasSnapshot:
            self._snapshot = False
            self._take(report.state, report.step, report.epoch)
            if self._mark is not None and self._mark.change is not None:  # what came of it
                self._mark = dataclasses.replace(self._mark, state=report.state, change=None)
        elif kind is Failed:
            self._failed, self._until = report.step, FOREVER

    def _is_free(self, report: Any) -> bool:
        """Whether it brings a copy of the state that no hold bounds."""
        if isinstance(report, EpochDone) and self._opened is not None:
            return report.snapshot is not None
        return isinstance(report, Reached) or (getattr(report, "snapshot", None) is not None and not report.held)

    def _begin(self, report: TrainBegun) -> None:
        self.begun = True
        self._ahead = 0 if report.held else self._lookahead
        if report.snapshot is None:
            return
        at = report.resumed
        epoch = self._first if at is None else at.epoch
        mark = Mark(
            next=report.next, epoch=epoch, position=at or Position(report.next or 0, 0, report.step, {}, {}),
            state=report.snapshot, kept=report.kept, names=self._names(), decided=report.decided,
        )  # fmt: skip
        if report.held:
            self._holds.append(mark)
        else:
            self._take(report.snapshot, report.step, epoch)
        self._reach(mark)

    def _epoch_done(self, report: EpochDone) -> None:
        state = report.snapshot
        if state is None and self._opened is not None:
            state = self._opened.state
        if report.saves:
            self._point = False
        if state is None:
            return
        mark = self._boundary(report, report.next, state)
        if self._opened is not None and self._opened.state is not state:
            mark = dataclasses.replace(mark, opened=self._opened.state)
        if report.held:
            self._holds.append(mark)
        else:
            self._take(state, report.step, report.epoch)
        self._reach(mark)

    def _boundary(self, report: EpochDone | ValidationBegun, after: int | None, state: State | None) -> Mark:
        kept = report.kept if isinstance(report, EpochDone) else None
        at = Position(report.epoch if after is None else after, 0, report.step, {}, {})
        return Mark(next=after, epoch=report.epoch, position=at, state=state or {}, kept=kept, names=self._names())

    def _reach(self, mark: Mark) -> None:
        self._mark = mark if self._replaceable else None
        self._behind()

    def _take(self, state: State, step: int, epoch: int) -> None:
        """Nobody can undo this state, if no decision is open."""
        if not self._holds and self._opened is None and self._held is None:
            self.confirmed = state, step, epoch

    def told(self, era: int, moment: Moment, number: int) -> None:
        """An inline handler has told the run something."""
        if era == self._era:
            self._told = max(self._told, (moment, number))

    def progress(self, step: int) -> None:
        """Compute was there."""
        self._step = max(self._step, step)

    # --- what goes down ----------------------------------------------------------------------------------------------

    def command(self, command: Command) -> None:
        """Compute is told this."""
        match command:
            case Confirm():
                self._confirm(command)
            case Published(opened):
                self._unpublished = max(0, self._unpublished - 1)
                if opened:
                    self._forget_opened()
            case Pause(on, throttle):
                self._paused[throttle] = on
            case SetRate():
                self._rate = command
            case TakeSnapshot():
                self._snapshot = True
            case TakePoint():
                self._point = True
            case Stop():
                self._stop = True
            case Listen(interest):
                self.interest = interest
            case End():
                self._end = command

    def _confirm(self, command: Confirm) -> None:
        self._ahead = command.ahead
        if not self._holds:
            self._held = None
            return
        self._rate = None  # that boundary decided about it
        mark = self._holds.popleft()
        if command.change is None:
            self.confirmed = mark.state, mark.position.step, mark.epoch
            return
        self._era += 1
        self._unpublished = 0
        self._stop = False
        self._replayed = max(self._replayed, self._step, self._until[0] if self._failed is None else self._failed)
        self._holds.clear()
        self._reach(dataclasses.replace(mark, change=command.change, names=self._names()))

    def _forget_opened(self) -> None:
        for place, mark in enumerate(self._holds):
            if mark.opened is not None:
                self._holds[place] = dataclasses.replace(mark, opened=None)
                return

    def forget(self) -> None:
        """The run is over: keep no state any longer."""
        self.confirmed, self._mark, self._opened, self._end = (None, 0, 0), None, None, None
        self._holds.clear()

    # --- another worker ----------------------------------------------------------------------------------------------

    def again(self) -> Again:
        """How another worker goes on."""
        mark = self._mark
        oldest = self._holds[0] if self._holds else self._opened
        if self._end is not None and oldest is not None:  # all that is behind it is undone
            state = oldest.opened if self._end.validating and oldest.opened is not None else oldest.state
            mark = dataclasses.replace(oldest, next=None, state=state, opened=None)
            return Again(mark=mark, holds=(mark,), era=self._era)
        step = max(self._step, self._until[0] if self._failed is None else self._failed)
        known = max(self._told[0], (step - 1, At.BATCH_BEGIN), self._until if self._failed is None else NEVER)
        return Again(
            mark=mark, holds=tuple(self._holds), era=self._era, ahead=self._ahead, until=self._until, hold=self._held,
            unpublished=self._unpublished,
            rates=tuple(self._rates), failed=self._failed, known=known, replayed=self._replayed, told=self._told,
        )  # fmt: skip

    def pending(self) -> Sequence[Command]:
        """What was asked for and not answered: to be asked again."""
        commands: list[Command] = [Pause(True, throttle) for throttle, on in self._paused.items() if on]
        if self._rate is not None:
            commands.append(self._rate)
        if self._snapshot:
            commands.append(TakeSnapshot())
        if self._point:
            commands.append(TakePoint())
        if self._stop:
            commands.append(Stop())
        if self._end is not None:
            commands.append(self._end)
        return commands

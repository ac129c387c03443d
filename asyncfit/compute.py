"""The loop over epochs and batches: plain and synchronous.

Whoever runs it (a thread, a process, a test) steps the generator `Compute.run()` and brings `report`. It yields True
when it can do nothing until a command arrives, and, if `stepwise`, False before each batch. The order of events::

    TrainBegin                                      boundary 0, held if gated
    for each epoch:
        EpochBegin                                  (the ledger makes it; its inline handlers run here)
        for each batch:
            -- obey commands; wait while paused, throttled, or too far ahead of an open hold --
            BatchBegin   train_batch   BatchEnd
        -- one boundary, one snapshot, one hold --
        [ValidationBegin  test_batch …  ValidationEnd]
        EpochEnd
    -- wait for End --

It reads commands before each batch, between validation batches, and whenever it waits. Only `End` ends it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from .data.feed import Feed
from .events import BatchBegin, BatchEnd, EpochBegin, EpochEnd, Event, TrainBegin, ValidationBegin, ValidationEnd
from .pool import copy_state
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
    Failed,
    Fed,
    Interest,
    Listen,
    Pause,
    Position,
    Published,
    RateSet,
    Reached,
    Report,
    SetRate,
    State,
    Stop,
    StopAsked,
    TakePoint,
    TakeSnapshot,
    Trainable,
    TrainBegun,
    ValidationBegun,
    WasSnapshot,
)
from .retracing import INLINE, NEVER, Again, At, Mark, Moment, moment_of

__all__ = [
    "ENDLESS",
    "Compute",
    "InlinePort",
    "Progress",
    "Source",
    "Start",
    "Work",
    "begin_test",
    "end_test",
    "every_epoch",
]


ENDLESS = 1 << 62
"""So many epochs are as good as no end."""


class Source(Protocol):
    """Data that can be rewound: the batches of an epoch, always the same ones. A `Feed` is another kind."""

    def steps(self, epoch: int) -> int:
        """How many batches the epoch has."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, Any, Any, int]]:
        """`(x, y, sample_weight or None, rows)` from batch `start` on; valid until the next one is asked for."""


class InlinePort(Protocol):
    """The inline handlers, called in the worker, at the event, on the live model."""

    trainable: Any
    """The live model."""

    def call(self, kind: type[Event], now: float, values: Mapping[str, Any], replay: bool) -> Decision | None:
        """Run the handlers of this kind; what they asked for, or None. What they raise fails the batch."""

    def state(self) -> Any: ...
    def load_state(self, state: Any) -> None: ...
    def kept(self) -> Mapping[str, Any]: ...
    def load_kept(self, kept: Mapping[str, Any]) -> None: ...

    # between processes

    tell: Callable[[Any], object]

    def names(self) -> frozenset[str]: ...
    def parcel(self, names: frozenset[str] | None = None) -> Any: ...
    def take(self, told: Any) -> None: ...
    def figures(self) -> Any: ...
    def take_figures(self, figures: Any) -> None: ...


def every_epoch(epoch: int) -> bool:
    """Validation follows each epoch."""
    return True


@dataclass(kw_only=True)
class Start:
    """Where to begin, if not at the beginning.

    Attributes:
        position: where an earlier run was.
        state: what its model was then.
        change: what was decided there, and is not in the state.
        stopped: a stop for good was decided there, too.
    """

    position: Position
    state: State
    change: Change | None = None
    stopped: bool = False


@dataclass(kw_only=True)
class Work:
    """All that compute needs to know of a run."""

    trainable: Trainable
    data: Source
    epochs: int
    validation: Source | None = None
    validates: Callable[[int], bool] = every_epoch
    initial_epoch: int = 0
    start: Start | None = None
    again: Again | None = None
    """Begin in the place of a worker that was lost."""
    params: Mapping[str, Any]
    lookahead: int = 0
    max_ahead: int = 100_000
    interest: Interest = field(default_factory=Interest)
    key: tuple[int, int] = (0, 0)
    inline: InlinePort | None = None
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    """Entered around all computing, in the thread that does it."""
    stepwise: bool = False
    mirrored: bool = False
    """Whoever asked for the run lives elsewhere and keeps a copy: report the state at each boundary, gated or not, and
    at the end."""
    replaceable: bool = False
    """Another worker may have to go on: report all that it needs for that."""
    copy: Callable[[State], dict[str, Any]] = copy_state
    """How states are copied."""
    copies: int | None = None
    """How many copies of the state there may be at a time: more memory than for these is not kept."""
    unpublished: int = 2
    """Compute waits rather than report one more copy than so many that no hold bounds and that are not published."""
    early: Sequence[Command] = ()
    """What was asked for before there was a worker: obeyed before the first batch."""


class Progress:
    """Where compute is. Written by compute alone; reading it from elsewhere is always safe, if a little behind."""

    __slots__ = ("batch", "counts", "epoch", "step", "sums")

    def __init__(self) -> None:
        self.epoch = self.batch = self.step = 0
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}

    def means(self) -> dict[str, float]:
        """The means over the epoch so far."""
        counts = self.counts
        return {name: total / counts[name] for name, total in list(self.sums.items()) if counts.get(name)}


class _Hold:
    """A report that waits for its decision. `state` is None for a batch: nothing can be put back there.

    `inline` is what replayable inline handlers keep, as it was then, and `calls` counts their calls until then.
    `opened` is these three as they were when the boundary was opened.
    """

    __slots__ = ("at", "begun", "calls", "inline", "next", "opened", "state", "step")

    def __init__(
        self, state: dict[str, Any] | None, step: int, begun: int, next: int | None = None, inline: Any = None
    ) -> None:
        self.at: Position | None = None
        self.state = state
        self.inline = inline
        self.step = step
        self.begun = begun
        self.calls = 0
        self.next = next
        self.opened: tuple[dict[str, Any] | None, Any, int] | None = None


class _GoTo(Exception):
    """Go on at this epoch: a decision has undone the work ahead."""

    def __init__(self, epoch: int | None) -> None:
        self.epoch = epoch


class _Over(Exception):
    """`End` has been obeyed."""


class Compute:
    """One run's compute. `inbox` takes commands from any thread; everything else belongs to the one that runs it."""

    def __init__(self, work: Work, report: Callable[[Report], None]) -> None:
        self.work = work
        self.inbox: deque[Command] = deque(work.early)
        self.progress = Progress()
        self._up = self._report = report
        self._holds: deque[_Hold] = deque()
        self._boundary: _Hold | None = None
        self._batch_held = 0
        self._ahead = 0
        self._begun = 0
        self._unpublished = 0
        self._era = 0
        self._stop = self._paused = self._throttled = self._snapshot_wanted = False
        self._point_wanted = self._boundary_saves = self._inline_begun = False
        self._start = work.start
        self._from = None if work.start is None else work.start.position
        if self._from is not None:
            self.progress.epoch, self.progress.batch, self.progress.step = self._from[:3]
        self._attention = True
        self._rate_wanted: SetRate | None = None
        self._replay_until = -1
        self._inline_epoch: Decision | None = None
        self._quiet: Again | None = None  # as long as it retraces the way of a lost one
        self._withheld: list[Command] = []  # meanwhile
        self._inside = False
        self._known = self._moment = NEVER
        self._calls = 0  # of inline handlers
        self._tells = 0  # so many times inline handlers have told something at this moment
        self._told = NEVER, 0
        if work.again is not None:
            self._report = self._report_news
            self._known, self._told = work.again.known, work.again.told
        self._feeds = work.data, work.validation
        self.hungry = False  # it waits for data, and nothing else keeps it
        self._listen(work.interest)
        trainable: Any = work.trainable
        self._load_weights: Callable[[State], None] = getattr(trainable, "load_weights_state", self._load_all)
        self._begin_epoch: Callable[[], object] | None = getattr(trainable, "begin_epoch", None)
        self._epoch_logs: Callable[[], Mapping[str, Any]] | None = getattr(trainable, "epoch_logs", None)
        self._end_fit: Callable[[], object] | None = getattr(trainable, "end_fit", None)
        self._end_epoch: Callable[[], Mapping[str, Any]] | None = getattr(trainable, "end_epoch", None)
        self._seek: Callable[[tuple[int, int], int, int], None] | None = (
            trainable.seek if getattr(trainable, "random", False) else None
        )

    # --- the loop ---

    def run(self) -> Generator[bool, None, None]:
        work = self.work
        epoch: int | None = work.initial_epoch if work.initial_epoch < work.epochs else None
        first = True
        try:
            while True:
                try:
                    if first:
                        first = False
                        again = work.again
                        epoch = self._begin_again(again) if again and again.mark else self._begin(epoch)
                    while epoch is not None:
                        epoch = yield from self._epoch(epoch)
                    yield from self._wait_for_end()
                except _GoTo as go:
                    epoch = go.epoch
                except _Over:
                    raise
                except BaseException as error:
                    if isinstance(error, GeneratorExit) and _thrown_in(error):
                        raise
                    self._report(Failed(self._era, time.time(), self.progress.step, error))
                    try:
                        yield from self._wait_for_end()
                    except _GoTo as go:
                        epoch = go.epoch
        except _Over:
            return
        finally:
            self._start = work.start = None  # whoever keeps the progress keeps no state

    def _begin(self, epoch: int | None) -> int | None:
        held = self.interest.hold_boundary or self.interest.hold_begin
        start, progress = self._start, self.progress
        if start is not None:
            self._put(start, held)
        asked = self._inline(TrainBegin, params=self.work.params) if self.interest.inline else None
        if start is not None and self.interest.inline:  # what it decides here it decided when all began
            asked = self._stops_alone(start, asked, held)
        if self._stop or (start is not None and start.stopped):
            epoch = None
        self._ahead = 0 if held else self.work.lookahead  # whatever a gate decides here, it decides before all work
        wanted = held or self.interest.snapshot_boundary or self.work.replaceable
        snapshot = self._snapshot() if wanted else None
        if held:
            self._hold(hold := _Hold(snapshot, progress.step, self._begun, epoch, self._inline_state()))
            hold.at = self._from
        now, rate = time.time(), float(self.work.trainable.learning_rate)
        params, step = self.work.params, progress.step
        self._unpublished += snapshot is not None and not held
        decided = start.change if start is not None and held else None
        kept = self._kept() if self.work.replaceable or (held and self.interest.saves) else None
        self._report(TrainBegun(0, now, params, held, epoch, step, rate, snapshot, asked, self._from, decided, kept))
        return epoch

    def _put(self, start: Start, held: bool = False) -> None:
        """Let the model be as it was. What was decided there is done too, unless it is this boundary's to decide."""
        self.work.trainable.load_state(start.state)
        if start.change is not None and not held:
            self._apply(start.change)

    def _stops_alone(self, start: Start, asked: Decision | None, held: bool = False) -> Decision | None:
        """Take back what inline handlers have changed, and what they asked for but a stop."""
        self._put(start, held)
        return Decision(stops=asked.stops) if asked is not None and asked.stops else None

    # --- in the place of one that was lost ---

    def _begin_again(self, again: Again) -> int | None:
        """Be where it was, or on the way there."""
        mark, progress = again.mark, self.progress
        assert mark is not None
        self._era, self._ahead, self._replay_until = again.era, again.ahead, again.replayed
        self._unpublished = again.unpublished
        self._quiet = again if again.until > NEVER else None
        self._listen(self.interest)
        step = mark.position.step
        for held in again.holds:
            at = held.position
            self._load_kept(held)
            self._hold(hold := _Hold(dict(held.state), at.step, at.step - step, held.next, self._inline_state()))
            hold.at = at
            if held.opened is not None:
                hold.opened = dict(held.opened), hold.inline, -1  # what changed it was called before
        self.work.trainable.load_state(mark.state)
        self._load_kept(mark)
        progress.epoch, progress.batch, progress.step = mark.epoch, mark.position.batch, step
        self._start = Start(position=mark.position, state=mark.state, change=mark.change or mark.decided)
        self._from, self._inside, self._inline_epoch = mark.position, mark.inside, mark.asked
        if mark.change is not None:
            self._apply(mark.change)
            self._report_state()
        return mark.next

    def _load_kept(self, mark: Mark) -> None:
        if self.work.inline is not None and mark.kept is not None:
            self.work.inline.load_kept(mark.kept)

    def _report_news(self, report: Report) -> None:
        """Report it, if the lost one has not."""
        quiet = self._quiet
        if quiet is not None:
            moment = moment_of(report)
            if isinstance(report, Failed) and quiet.failed is not None:
                return
            if moment is None or moment >= quiet.until:
                self._go_on_aloud()
            if moment is not None and moment <= quiet.until:
                return
        self._up(report)

    def _go_on_aloud(self) -> None:
        """From here on it is news."""
        self._quiet = None
        self.inbox.extendleft(reversed(self._withheld))
        self._withheld.clear()
        self._listen(self.interest)
        self._attention = True

    def _retraced(self, at: int) -> None:
        """It is at this moment: perhaps that is as far as the lost one had come."""
        if self._quiet is not None and (self.progress.step, at) >= self._quiet.until:
            self._go_on_aloud()

    def _known_by_now(self, at: int) -> bool:
        """Whether the lost one had come to this moment."""
        return self._quiet is not None and (self.progress.step, at) <= self._quiet.until

    def _held(self, at: int, wanted: bool) -> bool:
        """Whether to hold the report of this moment."""
        if self._quiet is None or not self._known_by_now(at):
            return wanted
        return (self.progress.step, at) == self._quiet.hold

    def _retrace_to_batch(self) -> None:
        """What was done between two batches, from outside."""
        quiet, step = self._quiet, self.progress.step
        if quiet is None:
            return
        self._check_failed(quiet.failed is not None and step > quiet.failed)
        for when, rate in quiet.rates:
            if when == step:
                self._set_rate(rate)
        self._retraced(At.BEFORE)

    def _check_failed(self, beyond: bool) -> None:
        if beyond:
            raise RuntimeError("a worker that was lost had failed here, and this one has not")

    def _wait_with(self, command: Command) -> bool:
        """Whether a command is for later: it is not known how far the lost one had come when it obeyed."""
        if isinstance(command, Published):
            return False
        if not isinstance(command, Confirm | End) or not self._holds:
            return True
        if isinstance(command, Confirm):  # a rate that was asked for is this boundary's to decide
            self._withheld = [other for other in self._withheld if not isinstance(other, SetRate)]
        return False

    def stamped(self, told: Any) -> tuple[int, Moment, int, Any] | None:
        """What an inline handler tells the run, and when that is; None if the lost one told it."""
        self._tells += 1
        now = self._moment, self._tells
        return None if now <= self._told else (self._era, *now, told)

    def _epoch(self, epoch: int) -> Generator[bool, None, int | None]:
        complete = yield from self._train(epoch)
        return (yield from self._finish_epoch(epoch, complete))

    def _train(self, epoch: int) -> Generator[bool, None, bool]:
        """The batches of an epoch; whether all of them were done."""
        progress, inbox, report, key = self.progress, self.inbox, self._report, self.work.key
        train_batch, seek, stepwise, clock = self.work.trainable.train_batch, self._seek, self.work.stepwise, time.time
        at, self._from = self._from, None
        if at is None:
            at = Position(epoch, 0, progress.step)
        sums, counts, batch = dict(at.sums), dict(at.counts), at.batch
        progress.epoch, progress.batch, progress.sums, progress.counts = epoch, batch, sums, counts
        self._inline_begun, self._inside = self._inside, False
        data = self.work.data
        if not batch and self._begin_epoch is not None:
            self._begin_epoch()
        steps = data.steps(epoch)
        feed = data if isinstance(data, Feed) else None
        batches: Iterator[tuple[Any, Any, Any, int]] = iter(())
        if feed is None:
            batches = data.batches(epoch, batch)
        else:
            feed.begin()
        try:
            # asked for one by one, after the commands: what a source has been asked for, it may have read
            while batch < steps:
                if stepwise:
                    yield False
                if inbox or self._attention:
                    yield from self._before_batch()
                    if self._stop:
                        return False
                if self.interest.inline and not self._inline_begun:
                    self._inline_begun = True
                    self._inline_epoch = asked = self._inline(EpochBegin, epoch=epoch)
                    if at.inline_begun and self._start is not None:
                        self._inline_epoch = self._stops_alone(self._start, asked)
                    if self._stop:
                        return False
                if feed is not None:
                    fed = yield from self._fed(feed, epoch, batch, steps)
                    if fed is None:
                        return False
                    x, y, sample_weight, size = fed
                else:
                    try:
                        x, y, sample_weight, size = next(batches)
                    except StopIteration:
                        raise RuntimeError(f"the data ended after {batch} of {steps} batches") from None
                step = progress.step
                if self._each_begin:
                    yield from self._announce(epoch, batch, step)
                if seek is not None:
                    seek(key, epoch, step)
                self._begun += 1
                logs = train_batch(x, y, sample_weight)
                if logs.__class__ is not dict or not sums:
                    _check_logs(logs, "train_batch")
                for name, value in logs.items():
                    value = float(value)
                    if name in sums:
                        sums[name] += value * size
                        counts[name] += size
                    else:
                        sums[name], counts[name] = value * size, size
                progress.batch = batch + 1
                progress.step = step + 1
                if self._each_end:
                    every = self.interest.batch_end
                    if self.interest.inline_batch_end or self.interest.hold_batch_end or self._quiet is not None:
                        yield from self._batch_done(epoch, batch, step, size, logs)
                    elif every == 1 or not (step + 1) % every:
                        means = {name: float(value) for name, value in logs.items()}
                        state = None
                        if _nth(self.interest.snapshot_batch, step):
                            state = self._free_copy()
                        report(BatchDone(self._era, clock(), epoch, batch, step, size, means, False, state, None))
                        del state  # else it would be kept until the next one
                batch += 1
                if self._saving:
                    yield from self._save(epoch, batch, steps)
            return True
        finally:
            close = getattr(batches, "close", None)
            if close is not None:
                close()

    def _fed(
        self, feed: Feed, epoch: int, batch: int, steps: int
    ) -> Generator[bool, None, tuple[Any, Any, Any, int] | None]:
        """The next batch; None if a stop came before it, or the data's end."""
        feed.want(epoch, batch)
        while not feed.queue:
            self.hungry = True
            yield True
            self.hungry = False
            yield from self._before_batch()
            if self._stop:
                return None
        handed = feed.queue.popleft()
        if handed.error is not None:
            raise handed.error
        if handed.batch is None:
            if not feed.once:
                feed.ended(batch, steps)
            over = Decision(stops=[StopAsked("data", "data ended")])
            if self._inline_epoch is not None:
                self._inline_epoch.merge(over)
            else:
                self._inline_epoch = over
        return handed.batch

    def _save(self, epoch: int, batch: int, steps: int) -> Generator[bool, None, None]:
        """Report all that a checkpoint needs, if one is due; behind the last batch the boundary is to bring it."""
        every, step = self.interest.save_every, self.progress.step
        if not self._point_wanted and (not every or step % every):
            return
        self._point_wanted, self._saving = False, bool(every)
        if batch == steps:
            self._boundary_saves = True
            return
        if self._known_by_now(At.REACHED):
            return
        state, asked = (yield from self._copied()), self._inline_epoch
        self._report(Reached(self._era, time.time(), self._position(epoch), state, self._kept(), asked))

    def _position(self, epoch: int) -> Position:
        """Between two batches of the epoch."""
        at, begun = self.progress, self._inline_begun or not self.interest.inline
        return Position(epoch, at.batch, at.step, dict(at.sums), dict(at.counts), True, begun)

    def _kept(self) -> Mapping[str, Any] | None:
        return None if self.work.inline is None else self.work.inline.kept()

    def _announce(self, epoch: int, batch: int, step: int) -> Generator[bool, None, None]:
        interest = self.interest
        asked = None
        if interest.inline_batch_begin:
            asked = self._inline(BatchBegin, epoch=epoch, batch=batch, step=step)
        held = self._held(At.BATCH_BEGIN, _nth(interest.hold_batch_begin, step))
        if held or asked or _nth(interest.batch_begin, step):
            if held:
                self._hold(_Hold(None, step, self._begun))
            self._report(BatchBegun(self._era, time.time(), epoch, batch, step, held, asked))
            if held:
                yield from self._until_released()

    def _batch_done(
        self, epoch: int, batch: int, step: int, size: int, logs: Mapping[str, Any]
    ) -> Generator[bool, None, None]:
        interest = self.interest
        asked = None
        logs = {name: float(value) for name, value in logs.items()}
        if interest.inline_batch_end:
            asked = self._inline(BatchEnd, epoch=epoch, batch=batch, step=step, size=size, logs=logs)
        held = self._held(At.BATCH_END, _nth(interest.hold_batch_end, step))
        if held or asked or _nth(interest.batch_end, step):
            snapshot = None
            if self._known_by_now(At.BATCH_END):
                pass
            elif held:
                snapshot = self._snapshot()
            elif _nth(interest.snapshot_batch, step):
                snapshot = self._free_copy()
            if held:
                self._hold(_Hold(None, step + 1, self._begun))
            now = time.time()
            self._report(BatchDone(self._era, now, epoch, batch, step, size, logs, held, snapshot, asked))
            if held:
                yield from self._until_released()

    def _finish_epoch(self, epoch: int, complete: bool) -> Generator[bool, None, int | None]:
        """From the last batch to the next epoch's first: one boundary, with one snapshot."""
        work, progress = self.work, self.progress
        rate = float(work.trainable.learning_rate)
        logs: dict[str, float] = progress.means()
        if complete and self._end_epoch is not None:
            logs = with_more(work.trainable, logs, self._end_epoch(), "end_epoch")
        elif logs and not complete and self._epoch_logs is not None:
            logs = with_more(work.trainable, logs, self._epoch_logs(), "epoch_logs")
        val_logs: dict[str, float] | None = None
        asked_validation: Decision | None = None
        if complete and work.validation is not None and work.validates(epoch):
            asked_begin = self._inline(ValidationBegin, epoch=epoch) if self.interest.inline else None
            held = self._held(At.VALIDATION_BEGIN, self.interest.hold_boundary)
            if held or asked_begin or self.interest.validation_begin:
                snapshot = (yield from self._open_boundary(held)) if held else None
                now, rate_now = time.time(), float(work.trainable.learning_rate)
                self._report(
                    ValidationBegun(self._era, now, epoch, progress.step, held, rate_now, snapshot, asked_begin)
                )
            self._retraced(At.VALIDATION_BEGIN)
            val_logs = yield from self._validate(work.validation, epoch)
            if self.interest.inline:
                asked_validation = self._inline(ValidationEnd, epoch=epoch, logs=val_logs)
        asked, self._inline_epoch = self._inline_epoch, None
        changed = False
        if self.interest.inline:
            shown = logs | {f"val_{name}": value for name, value in (val_logs or {}).items()}
            if asked_validation:
                shown |= {f"val_{name}": value for name, value in asked_validation.logs.items()}
            shown = shown | {"learning_rate": rate} if shown or complete else {}
            mine = self._inline(EpochEnd, epoch=epoch, logs=shown, complete=complete)
            changed = bool(mine or asked_validation)  # since the boundary was opened by its ValidationBegin, if it was
            if asked and mine:
                asked.merge(mine)
            asked = asked or mine
        self._retraced(At.EPOCH_END)
        self._check_failed(self._quiet is not None)
        held = self.interest.hold_boundary or self._boundary is not None
        snapshot = None
        if self._boundary is None or changed:
            snapshot = yield from self._open_boundary(held)
        if self.inbox:
            self._obey_all()
        saves, self._boundary_saves = self.interest.save_boundary or self._boundary_saves, False
        might = saves or (self.interest.saves and (held or self._stop))
        if might and snapshot is None and self._boundary is None:
            snapshot = yield from self._copied()
        after = epoch + 1 if complete and not self._stop and epoch + 1 < work.epochs else None
        if self._boundary is not None:
            self._boundary.next, self._boundary.inline = after, self._inline_state()
            self._boundary.calls = self._calls
            self._boundary = None
        now, rate_now = time.time(), float(work.trainable.learning_rate)
        self._report(
            EpochDone(
                era=self._era, time=now, epoch=epoch, step=progress.step, logs=logs, val_logs=val_logs,
                complete=complete, held=held, next=after, rate=rate, rate_now=rate_now, snapshot=snapshot,
                inline_validation=asked_validation, inline=asked, saves=saves,
                kept=self._kept() if might or work.replaceable else None,
                position=None if complete else self._position(epoch),
            )
        )  # fmt: skip
        return after

    def _validate(self, data: Source, epoch: int) -> Generator[bool, None, dict[str, float]]:
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        trainable = self.work.trainable
        test_batch = trainable.test_batch
        begin_test(trainable)
        feed = data if isinstance(data, Feed) else None
        batches = iter(()) if feed is not None else data.batches(0)
        if feed is not None:
            feed.begin()
        batch = 0
        while True:
            if feed is None:
                tested = next(batches, None)
            else:
                tested = yield from self._fed_to_test(feed, batch)
            if tested is None:
                break
            x, y, sample_weight, size = tested
            if self.work.stepwise:
                yield False
            if self.inbox:
                self._obey_all()
            batch += 1
            logs = test_batch(x, y, sample_weight)
            _check_logs(logs, "test_batch")
            for name, value in logs.items():
                sums[name] = sums.get(name, 0.0) + float(value) * size
                counts[name] = counts.get(name, 0) + size
        return end_test(trainable, {name: total / counts[name] for name, total in sums.items()})

    def _fed_to_test(self, feed: Feed, batch: int) -> Generator[bool, None, tuple[Any, Any, Any, int] | None]:
        """The next batch of a validation; None if there is none."""
        if batch == feed.steps(0):
            return None
        feed.want(0, batch)
        while not feed.queue:
            self.hungry = True
            yield True
            self.hungry = False
            self._obey_all()
            if self._snapshot_wanted:  # perhaps by the source itself, which predicts
                self._snapshot_wanted = False
                self._report_state()
        handed = feed.queue.popleft()
        if handed.error is not None:
            raise handed.error
        if handed.batch is None and not batch:
            raise RuntimeError(f"{feed.name} has ended: there is no batch left to validate on")
        if handed.batch is None and feed.length is not None:
            feed.ended(batch, feed.steps(0), "validation_steps")
        return handed.batch

    # --- holds and snapshots ---

    def _open_boundary(self, held: bool) -> Generator[bool, None, dict[str, Any] | None]:
        if not (held or self.interest.snapshot_boundary or self.work.mirrored):
            return None
        snapshot = self._snapshot() if held and self._boundary is None else (yield from self._copied())
        if held:
            if self._boundary is None:
                self._boundary = _Hold(snapshot, self.progress.step, self._begun)
                self._hold(self._boundary)
            self._boundary.state = snapshot  # an inline handler may have changed it since it was opened
            self._boundary.inline = self._inline_state()
            if self._boundary.opened is None:
                self._boundary.opened = snapshot, self._boundary.inline, self._boundary.calls
        return snapshot

    def _hold(self, hold: _Hold) -> None:
        hold.calls = self._calls
        self._holds.append(hold)
        self._batch_held += hold.state is None
        self._attention = True

    def _forget_opened(self) -> None:
        """The oldest boundary that has been changed since it was opened will not be put back to that."""
        for hold in self._holds:
            if hold.opened is not None and hold.opened[0] is not hold.state:
                hold.opened = None
                return

    def _release(self) -> _Hold:
        hold = self._holds.popleft()
        self._batch_held -= hold.state is None
        return hold

    def _snapshot(self) -> dict[str, Any]:
        return self.work.copy(self.work.trainable.state())

    def _free_copy(self) -> dict[str, Any]:
        """A snapshot that no hold bounds."""
        self._unpublished += 1
        self._attention = True
        return self._snapshot()

    def _copied(self) -> Generator[bool, None, dict[str, Any]]:
        """The same, as soon as few enough such are on their way to those who want them."""
        while self._unpublished >= self.work.unpublished:
            yield True
            self._obey_all()
        return self._free_copy()

    def _report_state(self) -> None:
        progress = self.progress
        self._report(WasSnapshot(self._era, time.time(), progress.step, progress.epoch, self._snapshot()))

    def _inline_state(self) -> Any:
        return None if self.work.inline is None else self.work.inline.state()

    def _load_all(self, state: State) -> None:
        """Put weights in where only whole states are known: all of it but the learning rate."""
        rate = self.work.trainable.learning_rate
        self.work.trainable.load_state(state)
        if self.work.trainable.learning_rate != rate:
            self._set_rate(rate)

    def _set_rate(self, rate: float) -> None:
        self.work.trainable.learning_rate = rate  # type: ignore[misc]  # refused before the run if there is no setter

    def _apply(self, change: Change) -> None:
        if change.weights is not None:
            self._load_weights(change.weights)
        if change.rate is not None:
            self._set_rate(change.rate)

    # --- commands ---

    def _before_batch(self) -> Generator[bool, None, None]:
        """Obey, and wait as long as something asks for it."""
        while True:
            self._retrace_to_batch()
            self._obey_all()
            if self._snapshot_wanted:
                self._snapshot_wanted = False
                self._report_state()
            if self._rate_wanted is not None:
                asked, self._rate_wanted = self._rate_wanted, None
                if not self._holds:
                    previous = float(self.work.trainable.learning_rate)
                    self._set_rate(asked.update.value)
                    rate = float(self.work.trainable.learning_rate)
                    self._report(RateSet(self._era, time.time(), self.progress.step, asked, rate, previous))
            if not self._must_wait():
                break
            yield True
        full = self._unpublished >= self.work.unpublished
        waits = self._paused or self._throttled or self._stop or full
        self._attention = bool(self._holds or waits or self._quiet is not None)

    def _must_wait(self) -> bool:
        if self._quiet is not None:  # the lost one did not have to
            return False
        if (self._paused or self._throttled) and not self._stop:
            return True
        if self._unpublished >= self.work.unpublished and not self._stop:
            step, interest = self.progress.step, self.interest
            if _nth(interest.snapshot_batch, step) and not _nth(interest.hold_batch_end, step):
                return True  # not later: once a batch is trained its BatchEnd must follow
        holds = self._holds
        if not holds:
            return False
        ahead = 0 if self.interest.lockstep else self._ahead
        return len(holds) > ahead or self._begun - holds[0].begun >= self.work.max_ahead

    def _until_released(self) -> Generator[bool, None, None]:
        self._obey_all()
        while self._batch_held:
            yield True
            self._obey_all()

    def _wait_for_end(self) -> Generator[bool, None, None]:
        if self._quiet is not None:
            self._go_on_aloud()
        while True:
            self._obey_all()
            yield True

    def _obey_all(self) -> None:
        inbox = self.inbox
        while inbox:
            command = inbox.popleft()
            if self._quiet is not None and self._wait_with(command):
                self._withheld.append(command)
            else:
                self._obey(command)

    def _obey(self, command: Command) -> None:
        match command:
            case Confirm(ahead, change):
                hold = self._release()
                self._ahead = ahead
                if change is not None:
                    self._era += 1  # first: if what follows fails, that is news of the new era
                    self._go_back(hold)
                    self._apply(change)
                    if self.work.mirrored:
                        self._report_state()
                    raise _GoTo(hold.next)
            case End():
                self._end(command)
            case Stop():
                self._stop = self._attention = True
            case Pause(on, throttle):
                if throttle:
                    self._throttled = on
                else:
                    self._paused = on
                self._attention = True
            case Published(opened):
                self._unpublished = max(0, self._unpublished - 1)
                if opened:
                    self._forget_opened()
            case TakePoint():
                self._point_wanted = self._saving = True
            case TakeSnapshot():
                self._snapshot_wanted = self._attention = True
            case SetRate():
                self._rate_wanted, self._attention = command, True
            case Listen(interest):
                self._listen(interest)
            case Fed(which):
                feed = self._feeds[which]
                assert isinstance(feed, Feed)
                feed.put(command)

    def _listen(self, interest: Interest) -> None:
        self.interest = interest
        quiet = self._quiet is not None
        begin = interest.batch_begin, interest.hold_batch_begin, interest.inline_batch_begin
        end = interest.batch_end, interest.hold_batch_end, interest.inline_batch_end
        self._each_begin, self._each_end = quiet or any(begin), quiet or any(end)
        self._saving = bool(interest.save_every) or self._point_wanted

    def _go_back(self, hold: _Hold) -> None:
        """Everything as it was at the hold, but for a pause and a snapshot that somebody waits for."""
        self._holds.clear()
        self._batch_held = self._unpublished = 0
        self._boundary = self._inline_epoch = self._rate_wanted = None
        self._stop = self._boundary_saves = False
        self._from = hold.at
        self._replay_until = max(self._replay_until, self._known[0])
        self._known, self._told, self._inside = NEVER, (NEVER, 0), False
        if self._quiet is not None:
            self._withheld = [other for other in self._withheld if not isinstance(other, Stop | SetRate)]
            self._go_on_aloud()
        if hold.state is not None and (self._begun != hold.begun or self._calls != hold.calls):
            self._replay_until = max(self._replay_until, self.progress.step)
            self.progress.step = hold.step
            self.work.trainable.load_state(hold.state)
            if self.work.inline is not None:
                self.work.inline.load_state(hold.inline)

    def _end(self, end: End) -> None:
        error: BaseException | None = None
        try:
            if self._holds:
                hold = self._holds[0]
                if end.validating and hold.opened is not None:
                    hold.state, hold.inline, hold.calls = hold.opened
                self._go_back(hold)
            if end.change is not None:
                self._apply(end.change)
            if end.regular and self._end_fit is not None:
                self._end_fit()
            if end.restore is not None:
                self._load_weights(end.restore)
            state = self._snapshot() if self.interest.snapshot_end or self.work.mirrored else None
        except Exception as raised:
            error, state = raised, None
        progress = self.progress
        self._report(Ended(self._era, time.time(), progress.step, progress.epoch, state, error))
        raise _Over

    # --- inline handlers ---

    def _inline(self, kind: type[Event], **values: Any) -> Decision | None:
        """Run the inline handlers of this event and do at once what they ask for."""
        if self.work.inline is None:
            return None
        moment = self.progress.step, INLINE[kind]
        self._moment, self._tells = moment, 0
        self._calls += 1
        replay = self.progress.step + (kind is BatchBegin) <= self._replay_until or moment <= self._known
        asked = self.work.inline.call(kind, time.time(), values, replay)
        if asked is None:
            return None
        if asked.weights is not None:
            self._load_weights(asked.weights.value)
        if asked.rate is not None:
            asked.previous_rate = float(self.work.trainable.learning_rate)
            self._set_rate(float(asked.rate.value))
            if float(self.work.trainable.learning_rate) == asked.previous_rate:  # no change, so nothing to tell
                asked.rate = None
        if asked.stops:
            self._stop = self._attention = True
        return asked


def begin_test(trainable: Any) -> None:
    """Before the first `test_batch`: let what it accumulates begin at zero."""
    begin: Callable[[], object] | None = getattr(trainable, "begin_test", None)
    if begin is not None:
        begin()


def end_test(trainable: Any, means: dict[str, float]) -> dict[str, float]:
    """After the last `test_batch`: the means, and the metrics that are none."""
    end: Callable[[], Mapping[str, Any]] | None = getattr(trainable, "end_test", None)
    return means if end is None else with_more(trainable, means, end(), "end_test")


def with_more(trainable: Any, means: dict[str, float], more: Any, method: str) -> dict[str, float]:
    """The means, and what `method` has returned; a model that tells the order of its metrics gets them in that."""
    _check_logs(more, method, needs_loss=False)
    if not more:
        return means
    logs = means | {name: float(value) for name, value in more.items()}
    order = ["loss", *getattr(trainable, "metric_directions", ())]
    return {name: logs[name] for name in order if name in logs} | logs


def _check_logs(logs: Any, method: str, *, needs_loss: bool = True) -> None:
    """Name what a model of somebody's own returned, if it is no mapping of names to numbers with a loss."""
    if isinstance(logs, Coroutine):
        logs.close()
        raise TypeError(f"{method} is `async def`, but compute runs in a thread and cannot await it; make it `def`")
    if not isinstance(logs, Mapping):
        raise TypeError(f"{method} must return a mapping such as {{'loss': 0.5}}, not {logs!r}")
    if needs_loss and "loss" not in logs:
        raise TypeError(
            f"{method} must return at least a 'loss'; it returned {', '.join(map(repr, logs)) or 'nothing'}"
        )
    for name, value in logs.items():
        try:
            float(value)
        except (TypeError, ValueError):
            raise TypeError(f"{method} returned {name}={value!r}, which is no single number") from None


def _thrown_in(error: BaseException) -> bool:
    """Whether `close()` threw it in at one of our own yields; a batch may raise the same, and that is a failure."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename == __file__


def _nth(every: int, step: int) -> bool:
    return every > 0 and (step + 1) % every == 0

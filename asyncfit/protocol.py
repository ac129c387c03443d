"""What the two sides of a run say to each other, and what a model must offer to be trained.

*Reports* go up from compute to the ledger, *commands* go down. Both are plain tuples, so that they can cross a thread
or a process as they are. Nothing here does anything.

Words used throughout: a report is *held* if compute waits for a decision about it; the holds that are open are
decided oldest first, so a command needs no number. `era` counts rollbacks: a report of an earlier era tells of work
that has been undone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

__all__ = [
    "BatchBegun",
    "BatchDone",
    "Change",
    "Command",
    "Confirm",
    "Decision",
    "End",
    "Ended",
    "EpochDone",
    "Failed",
    "Fed",
    "Interest",
    "Listen",
    "Logs",
    "Lost",
    "Pause",
    "Position",
    "Published",
    "RateSet",
    "Reached",
    "Report",
    "Restarted",
    "SetRate",
    "State",
    "Stop",
    "StopAsked",
    "TakePoint",
    "TakeSnapshot",
    "Told",
    "TrainBegun",
    "Trainable",
    "Update",
    "ValidationBegun",
    "WasSnapshot",
]

State = Mapping[str, Any]
"""All that the next batch depends on: names to arrays, numbers or text."""
Logs = Mapping[str, float]


@runtime_checkable
class Trainable(Protocol):
    """What can be trained: five members. All methods are called from one worker thread.

    Optional members: `end_epoch() -> Mapping` (metrics that are no means, a scheduler's step; after the last batch of
    an epoch that was not cut short), `predict(x)` and `clone()`; with the last two, `event.model` of a run can predict.

    `end_fit()` is called when a run was completed or stopped, before weights are restored that callbacks asked for:
    where averages take the place of weights, say. The state it leaves is that of the run's end, of no checkpoint.

    Metrics that accumulate over an epoch have four more. `begin_epoch()` lets them begin anew, before the first batch
    of an epoch; `epoch_logs() -> Mapping` tells them over the batches done when an epoch is cut short, and changes
    nothing. `begin_test()` and `end_test() -> Mapping` stand around the `test_batch` calls of a validation or
    evaluation; what is counted between them is no part of `state()`. What training counts is: a run that goes on in
    the midst of an epoch goes on counting.
    """

    @property
    def learning_rate(self) -> float:
        """Read between batches, and set there if it has a setter; without one it counts as scheduled."""

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, Any]:
        """One step. Returns the batch's means, at least "loss"; each value is anything that `float()` takes."""

    def test_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, Any]:
        """The same numbers without a step."""

    def state(self) -> State:
        """All that the next batch depends on. May be live arrays: they are copied when, and only when, needed."""

    def load_state(self, state: State) -> None:
        """Put a state back. Copies what it keeps: the same state may be loaded again."""


# --- what is asked of a run ----------------------------------------------------------------------------------------


class StopAsked(NamedTuple):
    """A wish to stop: who, why, and whether it is to be continued."""

    who: str
    reason: str = ""
    resumable: bool = False


class Update(NamedTuple):
    """A value asked for, and by whom. `source_step` is the step of the snapshot that weights come from."""

    who: str
    value: Any
    source_step: int = -1


@dataclass(slots=True)
class Decision:
    """What the handlers of one event, or of one boundary, asked for."""

    stops: list[StopAsked] = field(default_factory=list)
    rate: Update | None = None
    weights: Update | None = None
    restore: Update | None = None
    fallback: Update | None = None
    """What to restore if nobody asks for anything else."""
    view: Any = None
    """The snapshot that later groups of the same event are to see as its model."""
    logs: dict[str, float] = field(default_factory=dict)
    previous_rate: float = 0.0
    """The rate before an inline handler changed it: compute sets it at once, so nobody else can know."""

    def merge(self, later: Decision) -> None:
        """Take in what was asked later: of several values the last one holds."""
        self.stops += later.stops
        if later.rate is not None:
            self.previous_rate = self.previous_rate if self.rate is not None else later.previous_rate
            self.rate = later.rate
        self.weights = later.weights or self.weights
        self.restore = later.restore or self.restore
        self.fallback = later.fallback or self.fallback
        self.view = self.view if later.view is None else later.view
        self.logs.update(later.logs)


class Change(NamedTuple):
    """A decision that changes the state: weights first, then the rate. None leaves a part as it is."""

    weights: State | None = None
    rate: float | None = None


class Position(NamedTuple):
    """Between which two batches a run is, and what the epoch has summed up by then.

    `batch` of `epoch` comes next. `begun` says whether `EpochBegin` was published, so that what its gates decided is
    in the state; `inline_begun` the same of inline handlers.
    """

    epoch: int
    batch: int
    step: int
    sums: Mapping[str, float] = MappingProxyType({})
    counts: Mapping[str, int] = MappingProxyType({})
    begun: bool = False
    inline_begun: bool = False


class Interest(NamedTuple):
    """What compute has to report, and to hold. Batch events: every n-th by `step`, 0 for none."""

    hold_boundary: bool = False
    hold_begin: bool = False
    """Hold TrainBegin, if no other boundary."""
    hold_batch_begin: int = 0
    hold_batch_end: int = 0
    batch_begin: int = 0
    batch_end: int = 0
    validation_begin: bool = False
    snapshot_boundary: bool = False
    snapshot_batch: int = 0
    snapshot_end: bool = False
    inline: bool = False
    """Inline handlers are subscribed: ask the port that the run was started with."""
    inline_batch_begin: bool = False
    inline_batch_end: bool = False
    """Some of them are, for that event of each batch."""
    lockstep: bool = False
    """An inline handler that cannot replay is subscribed: lookahead is 0."""
    saves: bool = False
    """Checkpoints are taken: a stop brings all that one needs."""
    save_every: int = 0
    """Report a `Reached` after each batch whose number, counted from 1, this divides."""
    save_boundary: bool = False


# --- reports -------------------------------------------------------------------------------------------------------


class TrainBegun(NamedTuple):
    era: int
    time: float
    params: Mapping[str, Any]
    held: bool
    next: int | None
    """The first epoch, or None if there is none."""
    step: int
    rate: float
    snapshot: State | None
    inline: Decision | None
    resumed: Position | None = None
    """Where an earlier run was, if this one goes on with it."""
    decided: Change | None = None
    """What was decided there and is not in the state, if this boundary is to decide it."""
    kept: Mapping[str, Any] | None = None
    """The states of callbacks with inline handlers, if another worker may have to begin here."""


class BatchBegun(NamedTuple):
    era: int
    time: float
    epoch: int
    batch: int
    step: int
    held: bool
    inline: Decision | None


class BatchDone(NamedTuple):
    era: int
    time: float
    epoch: int
    batch: int
    step: int
    size: int
    logs: Logs
    held: bool
    snapshot: State | None
    inline: Decision | None


class ValidationBegun(NamedTuple):
    era: int
    time: float
    epoch: int
    step: int
    held: bool
    rate_now: float
    snapshot: State | None
    inline: Decision | None


class EpochDone(NamedTuple):
    """An epoch's batches and its validation are done.

    `step` counts all batches completed. `rate` is the one that the epoch's batches used, `rate_now` the present one:
    an `end_epoch` or an inline handler may have changed it since.
    """

    era: int
    time: float
    epoch: int
    step: int
    logs: Logs
    val_logs: Logs | None
    complete: bool
    held: bool
    next: int | None
    rate: float
    rate_now: float
    snapshot: State | None
    inline_validation: Decision | None
    inline: Decision | None
    saves: bool = False
    """A checkpoint is to be taken here; the state is in `snapshot`, if this boundary has not brought it before."""
    kept: Mapping[str, Any] | None = None
    """The states of callbacks with inline handlers, by name, if a checkpoint or another worker may begin here."""
    position: Position | None = None
    """Where an epoch was cut short."""


class Reached(NamedTuple):
    """All of a checkpoint between two batches that compute has."""

    era: int
    time: float
    position: Position
    state: State
    kept: Mapping[str, Any] | None
    asked: Decision | None = None
    """What inline handlers asked for at the epoch's begin."""


class WasSnapshot(NamedTuple):
    """The answer to `TakeSnapshot`."""

    era: int
    time: float
    step: int
    epoch: int
    state: State


class RateSet(NamedTuple):
    """A `SetRate`, `asked`, has been obeyed; `rate` is what the model made of it."""

    era: int
    time: float
    step: int
    asked: SetRate
    rate: float
    previous: float


class Failed(NamedTuple):
    """A batch raised, or the data did. Compute waits for `End`."""

    era: int
    time: float
    step: int
    error: BaseException


class Ended(NamedTuple):
    """The answer to `End`: the last report of all."""

    era: int
    time: float
    step: int
    epoch: int
    state: State | None
    error: BaseException | None
    """What went wrong on the way back to the hold, if anything did."""


class Lost(NamedTuple):
    """What computed is gone, and this is the error that says so. It has not been asked to; `End` is still answered."""

    error: BaseException


class Restarted(NamedTuple):
    """What computed was lost, as `error` says; another worker goes on from `from_step`, and says nothing twice.

    `left` more can be lost.
    """

    from_step: int
    error: BaseException
    left: int


Told = (
    TrainBegun | BatchBegun | BatchDone | ValidationBegun | EpochDone | Reached | WasSnapshot | RateSet | Failed | Ended
)
"""What compute says: the ledger takes it."""
Report = Told | Lost | Restarted


# --- commands ------------------------------------------------------------------------------------------------------


class Confirm(NamedTuple):
    """The oldest hold is decided. With a change: put its state back, apply the change, forget all later holds."""

    ahead: int
    change: Change | None = None


class End(NamedTuple):
    """Go back to the oldest hold, if there is one, apply the change, restore, answer `Ended`.

    `validating`: the newest event of that hold was its ValidationBegin, so that what inline handlers changed after it
    is undone as well. `regular`: the run was completed or stopped, so the trainable's `end_fit` is called.
    """

    change: Change | None = None
    restore: State | None = None
    validating: bool = False
    regular: bool = False


class Stop(NamedTuple):
    """Before the next batch: cut the epoch short. At its end: no next epoch."""


class Pause(NamedTuple):
    """Train no batch as long as it is on. `throttle` is the same wish of a full queue, independent of a user's."""

    on: bool
    throttle: bool = False


class TakeSnapshot(NamedTuple):
    """Report a copy of the state before the next batch."""


class Published(NamedTuple):
    """One copy of the state less that compute has reported, that no hold bounds, and that is not published yet.

    The ledger says so for each report that is not held and brings a state, but for the answers `WasSnapshot` and
    `Ended`, and for each held `EpochDone` whose state takes the place of that of its `ValidationBegun`. Whoever keeps
    such a report from the ledger has to say it instead. A rollback publishes all.

    `opened`: it is the latter, so that nobody will go back to the state at that ValidationBegin.
    """

    opened: bool = False


class TakePoint(NamedTuple):
    """Report a `Reached` behind the next batch, or let the boundary that comes be one."""


class SetRate(NamedTuple):
    """Set the learning rate before the next batch. Dropped if a hold is open there: its boundary decides."""

    update: Update
    number: int


class Listen(NamedTuple):
    """From now on report and hold this."""

    interest: Interest


class Fed(NamedTuple):
    """A batch of data that compute does not read itself, or what became of it: `error`, or with neither its end.

    `which` is 0 for the data that is trained on, 1 for that of the validation; `turn` is that in which it was wanted.
    """

    which: int
    turn: int
    batch: tuple[Any, Any, Any, int] | None = None
    error: BaseException | None = None


Command = Confirm | End | Stop | Pause | Published | TakeSnapshot | TakePoint | SetRate | Listen | Fed

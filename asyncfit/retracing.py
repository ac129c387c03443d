"""Compute that begins in the place of one that was lost: where it begins, and what it must not say again.

All that compute does it does at a *moment*: so many batches are done, and of what comes between two of them it is at
this. Moments within one epoch only grow, so what was reported last says how far the lost one had come. The new one
begins at an earlier *mark*, whose state is known, and retraces the way to that moment in silence: what the lost one had
reported it does not report again, and what it was told it obeys only where the lost one might have obeyed it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .events import BatchBegin, BatchEnd, EpochBegin, EpochEnd, Event, TrainBegin, ValidationBegin, ValidationEnd
from .protocol import (
    BatchBegun,
    BatchDone,
    Change,
    Decision,
    EpochDone,
    Position,
    RateSet,
    Reached,
    State,
    TrainBegun,
    ValidationBegun,
)

__all__ = ["FOREVER", "INLINE", "NEVER", "Again", "At", "Mark", "Moment", "moment_of"]

Moment = tuple[int, int]
"""Batches done, and an `At`."""

NEVER: Moment = (-1, 0)
FOREVER: Moment = (1 << 62, 0)


class At:
    """What comes between two batches, in order."""

    BATCH_END = 0
    REACHED = 1
    VALIDATION_BEGIN = 2
    VALIDATION_END = 3
    EPOCH_END = 4
    TRAIN_BEGIN = 5
    BEFORE = 6
    EPOCH_BEGIN = 7
    BATCH_BEGIN = 8


INLINE: dict[type[Event], int] = {
    BatchEnd: At.BATCH_END,
    ValidationBegin: At.VALIDATION_BEGIN,
    ValidationEnd: At.VALIDATION_END,
    EpochEnd: At.EPOCH_END,
    TrainBegin: At.TRAIN_BEGIN,
    EpochBegin: At.EPOCH_BEGIN,
    BatchBegin: At.BATCH_BEGIN,
}
"""When inline handlers of these events are called."""


def moment_of(report: object) -> Moment | None:
    """When a report is made; None for those whose time is not compute's to choose."""
    match report:
        case BatchDone(step=step):
            return step + 1, At.BATCH_END
        case BatchBegun(step=step):
            return step, At.BATCH_BEGIN
        case Reached(position=position):
            return position.step, At.REACHED
        case ValidationBegun(step=step):
            return step, At.VALIDATION_BEGIN
        case EpochDone(step=step):
            return step, At.EPOCH_END
        case TrainBegun(step=step):
            return step, At.TRAIN_BEGIN
        case RateSet(step=step):
            return step, At.BEFORE
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place where compute was, with all that it needs to be there again.

    Attributes:
        next: the epoch that comes next, or goes on; None if nothing follows but the end.
        epoch: the newest that was begun.
        position: between which two batches.
        state, change: the model, and what was decided there but is not in that state.
        kept: what callbacks with inline handlers kept, by name.
        names: of the callbacks whose inline handlers are still called.
        inside: amid an epoch, whose EpochBegin handlers have been called; `asked` is what they asked for.
        decided: what a checkpoint says was decided here, though it is this boundary's gates that let it be done.
        opened: the model at the boundary's ValidationBegin, if inline handlers have changed it since.
    """

    next: int | None
    epoch: int
    position: Position
    state: State
    change: Change | None = None
    kept: Mapping[str, Any] | None = None
    names: frozenset[str] | None = None
    inside: bool = False
    asked: Decision | None = None
    decided: Change | None = None
    opened: State | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Where compute begins in place of one that was lost.

    Attributes:
        mark: where; None at the very beginning.
        holds: the boundaries up to there that are not decided yet, oldest first.
        era, ahead: as they were.
        until: the moment of what was reported last; `NEVER` if that is the mark itself, `FOREVER` if it had failed.
        hold: the moment behind the mark whose report waits for its decision, if there is one.
        unpublished: so many copies of the state it had reported that no hold bounds and that are not published yet.
        rates: what the learning rate was set to from outside since the mark, and after how many batches.
        failed: compute had failed after so many batches, and had said so.
        known: the newest moment behind the mark that inline handlers are known to have been called at.
        replayed: batches up to here were done before that and were undone.
        told: the newest moment behind the mark at which an inline handler told the run something, and the how many-eth
            that was there.
    """

    mark: Mark | None = None
    holds: tuple[Mark, ...] = ()
    era: int = 0
    ahead: int = 0
    until: Moment = NEVER
    hold: Moment | None = None
    unpublished: int = 0
    rates: tuple[tuple[int, float], ...] = ()
    failed: int | None = None
    known: Moment = NEVER
    replayed: int = -1
    told: tuple[Moment, int] = (NEVER, 0)

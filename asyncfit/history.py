"""What remains of a run: `History`; and where it is now: `Progress`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .events import EpochEnd, Event, TrainBegin, TrainEnd

__all__ = ["History", "Progress"]


@dataclass(eq=False)
class History:
    """The epochs of a run, as Keras keeps them.

    Attributes:
        epoch: the numbers of the complete epochs.
        history: for each name in their logs the values, in order. A name that appears late has fewer values.
        params: those of `TrainBegin`.
        partial: the logs of an epoch that a stop cut short, with "epoch"; None if there was none.
        outcome, reason: how the run ended; outcome is None while it runs.
        run_id: of the run.
    """

    run_id: str
    epoch: list[int] = field(default_factory=list)
    history: dict[str, list[float]] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    partial: dict[str, float] | None = None
    outcome: str | None = None
    reason: str = ""

    def note(self, event: Event) -> None:
        """Take in an event of the run, as it is published."""
        if isinstance(event, EpochEnd):
            if event.complete:
                self.epoch.append(event.epoch)
                for name, value in event.logs.items():
                    self.history.setdefault(name, []).append(value)
            else:
                self.partial = {"epoch": event.epoch, **event.logs}
        elif isinstance(event, TrainBegin):
            self.params = event.params
        elif isinstance(event, TrainEnd):
            self.outcome, self.reason = event.outcome, event.reason

    def __repr__(self) -> str:
        names = ", ".join(self.history) or "nothing"
        return f"<History of run {self.run_id}: {len(self.epoch)} epochs of {names}; {self.outcome or 'running'}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is.

    Attributes:
        epoch: the epoch that compute is in, from 0; of `epochs`.
        batch: batches done in it; of `steps`.
        step: batches done in the run.
        ahead: batches that compute has done beyond the last published event's.
        rate: batches a second since the run began, 0 before the first.
        eta: seconds that are left at that rate, None if unknown. Validation is not counted.
        logs: the epoch's means so far.
    """

    epoch: int
    epochs: int
    batch: int
    steps: int
    step: int
    ahead: int
    rate: float
    eta: float | None
    logs: Mapping[str, float]

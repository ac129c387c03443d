"""What remains of a run: `History`; and where it is now: `Progress`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .curves import Series, drawn
from .events import EpochEnd, Event, TrainBegin, TrainEnd
from .notebook import history_html

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
    _epochs: dict[str, list[int]] = field(default_factory=dict, repr=False)  # of each name: it may come late, or seldom

    def kept(self) -> dict[str, Any]:
        """What a checkpoint has of it."""
        return {
            "epoch": list(self.epoch),
            "history": {name: list(values) for name, values in self.history.items()},
            "epochs": {name: list(values) for name, values in self._epochs.items()},
        }

    def take_up(self, kept: Mapping[str, Any]) -> None:
        """Go on with what `kept` gave."""
        self.epoch = list(kept["epoch"])
        self.history = {name: list(values) for name, values in kept["history"].items()}
        self._epochs = {name: list(values) for name, values in kept["epochs"].items()}

    def note(self, event: Event) -> None:
        """Take in an event of the run, as it is published."""
        if isinstance(event, EpochEnd):
            if event.complete:
                self.epoch.append(event.epoch)
                for name, value in event.logs.items():
                    self.history.setdefault(name, []).append(value)
                    self._epochs.setdefault(name, []).append(event.epoch)
            else:
                self.partial = {"epoch": event.epoch, **event.logs}
        elif isinstance(event, TrainBegin):
            self.params = event.params
        elif isinstance(event, TrainEnd):
            self.outcome, self.reason = event.outcome, event.reason

    def plot(self, names: str | Iterable[str] | None = None, *, ax: Any = None) -> Any:
        """Draw the curves with matplotlib (extra `plot`): a panel for each metric, training and validation in it.

        Nothing is shown, and pyplot is not touched: a notebook displays what this returns, `figure.savefig(path)`
        writes it. Epochs count from 1 along the axis, as a progress bar counts them. The first call imports matplotlib.

        Args:
            names: which of `history` get a panel, one or several; a metric brings its `val_` curve along. By default
                all but "learning_rate".
            ax: matplotlib's Axes to draw into instead: all the names into this one; by default the first, the loss.

        Returns:
            a matplotlib `Figure`, or `ax` if it was given.

        Raises:
            ImportError: matplotlib is not installed.
            InvalidInput: there is no complete epoch yet, or none of that name.
        """
        series: Series = {name: (self._epochs_of(name), values) for name, values in self.history.items()}
        return drawn(series, names, ax)

    def _epochs_of(self, name: str) -> list[int]:
        """The epochs that the values of a name belong to."""
        known, count = self._epochs.get(name, []), len(self.history[name])
        return known if len(known) == count else self.epoch[len(self.epoch) - count :]  # made or changed by hand

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return history_html(self)

    def __repr__(self) -> str:
        names = ", ".join(self.history) or "nothing"
        return f"<History of run {self.run_id}: {len(self.epoch)} epochs of {names}; {self.outcome or 'running'}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run is.

    Attributes:
        epoch: the epoch that compute is in, from 0; of `epochs`, None if there is no end.
        batch: batches done in it; of `steps`.
        step: batches done in the run.
        ahead: batches that compute has done beyond the last published event's.
        rate: batches a second since the run began, 0 before the first.
        eta: seconds that are left at that rate, None if unknown. Validation is not counted.
        logs: the epoch's means so far.
    """

    epoch: int
    epochs: int | None
    batch: int
    steps: int
    step: int
    ahead: int
    rate: float
    eta: float | None
    logs: Mapping[str, float]

"""What callbacks share that follow one figure of the logs: which it is, which way is better, what is an improvement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from ..errors import InvalidInput
from ..events import TrainBegin
from ..names import nearest, unknown
from ..nn.metrics import SPELLINGS, Direction
from ..nn.naming import number
from .base import StatefulCallback, logger

__all__ = ["Mode", "MonitoringCallback"]

Mode = Literal["auto", "min", "max"]


class MonitoringCallback(StatefulCallback):
    """A callback that follows `event.logs[monitor]`, by Keras 3's rules.

    With `mode="auto"` less of a loss is better, and of a metric what its class says: more of an accuracy, less of an
    error. A name that says nothing, and that no metric of the model has, needs `mode="min"` or `mode="max"`.

    Comparisons are made in float32, as Keras makes them: what differs by less than that can tell is equal.

    Args:
        monitor: a key of the logs, such as "loss", "val_loss" or "val_accuracy".
        mode: "min" if less is better, "max" if more is, or "auto".
        min_delta: how much better counts as better; its sign does not matter.
        name, verbose: as for all.

    Raises:
        InvalidInput: one of them cannot be used; when the run begins, if the direction cannot be told.
    """

    def __init__(
        self, monitor: str, mode: Mode, *, min_delta: float = 0.0, name: str | None = None, verbose: int = 0
    ) -> None:
        owner = type(self).__name__
        if not isinstance(monitor, str) or not monitor:  # type: ignore[redundant-expr]
            raise InvalidInput(f"{owner}(monitor=…) is the name of a figure in the logs, not {monitor!r}")
        if mode not in ("auto", "min", "max"):
            raise InvalidInput(f"{owner}: {unknown('mode', mode, ('auto', 'min', 'max'))}")
        self.monitor = monitor
        self.mode: Mode = mode
        self.min_delta = abs(number(f"{owner}(min_delta=…)", min_delta))
        self.direction: Direction | None = _by_name(monitor) if mode == "auto" else mode
        """Which way is better; None until a run tells."""
        self._missed = False
        super().__init__(name=name, verbose=verbose)

    def on_train_begin(self, event: TrainBegin) -> None:
        """A subclass that has an `on_train_begin` of its own calls this first."""
        super().on_train_begin(event)
        self._missed = False
        if self.mode == "auto":
            self.direction = self._found(event.params.get("metrics"))

    def _found(self, metrics: Mapping[str, Direction | None] | None) -> Direction:
        """The direction of the monitor in a model with these metrics; None if nobody knows what it has."""
        name = self.monitor.removeprefix("val_")
        if metrics is None or name == "loss":
            found = _by_name(self.monitor)
            why = "its name does not tell"
        else:
            found = metrics.get(name)
            why = (
                "its class does not tell" if name in metrics else f"the model has only {', '.join(['loss', *metrics])}"
            )
        if found is None:
            guess = self._meant(key for one in ("loss", *(metrics or ())) for key in (one, f"val_{one}"))
            hint = f"did you mean {guess!r}? Else " if guess else ""
            raise InvalidInput(
                f'{self.label} cannot tell whether less or more of monitor="{self.monitor}" is better ({why}): '
                f'{hint}give mode="min" or mode="max"'
            )
        return found

    def _meant(self, known: Iterable[str]) -> str | None:
        """The figure of the training, or of the validation, that an unknown monitor may be meant for."""
        validation = self.monitor.startswith("val_")
        known = [key for key in known if key.startswith("val_") == validation]
        if self.monitor in known:
            return None
        return next((key for key in known if key.startswith(self.monitor)), None) or nearest(self.monitor, known)

    def monitored(self, logs: Mapping[str, float], otherwise: str) -> float | None:
        """The figure to follow. None if the logs lack it: that is logged, once a run, with what happens `otherwise`."""
        value = logs.get(self.monitor)
        if value is None and not self._missed:
            self._missed = True
            guess = self._meant(logs)
            logger.warning(
                '%s: monitor="%s" is not in the logs, so %s; they have %s%s',
                self.label, self.monitor, otherwise, ", ".join(logs) or "nothing",
                f"; did you mean {guess!r}?" if guess else "",
            )  # fmt: skip
        return value

    def improves(self, value: float, best: float | None) -> bool:
        """Whether `value` is better than `best` by more than `min_delta`; anything is better than None."""
        if best is None:
            return True
        with np.errstate(over="ignore"):
            if self.direction == "max":
                return bool(np.float32(value - self.min_delta) > np.float32(best))
            return bool(np.float32(value + self.min_delta) < np.float32(best))


def _by_name(monitor: str) -> Direction | None:
    """What the name alone tells."""
    name = monitor.removeprefix("val_")
    if name == "loss":
        return "min"
    metric = SPELLINGS.get(name)
    return None if metric is None else metric.direction

"""`ProgressBar`: a live bar where there is a terminal, plain lines where there is none."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Mapping
from typing import IO, Any

from .. import extras
from ..callback import Callback
from ..errors import InvalidInput
from ..events import (
    BatchEnd,
    EpochBegin,
    EpochEnd,
    EvaluateBatchEnd,
    EvaluateBegin,
    EvaluateEnd,
    Event,
    PredictBatchEnd,
    PredictBegin,
    PredictEnd,
    RunPaused,
    RunResumed,
    TrainBegin,
    TrainEnd,
    ValidationBegin,
)
from ..front import keywords_checked
from ..wording import clock, number, rate, seconds
from .base import flag
from .screen import WHAT, Line, Screen, is_terminal, screen_of

__all__ = ["ProgressBar"]

PLAIN_S = 10.0
LONG = 0.5


class ProgressBar(Callback):
    """Shows how a run gets on, an `evaluate` or a `predict`. An observer: nothing waits for it.

    On a terminal (drawn by rich, extra `progress`) there is a bar with the epoch, its batches, their rate, the time
    that is left for the epoch and for the run (without validation that is still to come), and the means so far; after
    each epoch a line with all its figures stays. Several bars share a terminal, each with a line of its own. Elsewhere,
    in a log, a pipe or a notebook, there is a plain line after each epoch, and now and then one within a long epoch; no
    rich is needed. The learning rate is shown where it has changed.

    Args:
        console: a `rich.console.Console` to draw on.
        file: a text stream to write to, instead; by default standard output.
        every_s: seconds between two looks at the same epoch; 0.1 by default on a terminal, 10 elsewhere.
        leave: whether a line for each epoch stays on a terminal; otherwise only the last one's does.
        name: stands before its lines, and is what statistics and messages call it. Without one, bars that write to the
            same place at the same time show the id of their run.

    Raises:
        ImportError: it would draw on a terminal, and rich is not installed.
    """

    gates = "none"
    on_error = "detach"  # a terminal that is gone is no reason for a run to end

    @keywords_checked
    def __init__(
        self,
        *,
        console: Any = None,
        file: IO[str] | None = None,
        every_s: float | None = None,
        leave: bool = True,
        name: str | None = None,
    ) -> None:
        what = "ProgressBar"
        if console is not None and file is not None:
            raise InvalidInput(f"{what} takes console= or file=, not both: a console has a file of its own")
        if console is not None and not (hasattr(console, "print") and hasattr(console, "is_terminal")):
            raise TypeError(f"{what}(console=…) takes a rich.console.Console, not {console!r}; a stream goes to file=")
        stream: object = file
        if stream is not None and not hasattr(stream, "write"):
            raise TypeError(f"{what}(file=…) takes a text stream, such as sys.stderr, not {file!r}")
        interval: object = every_s
        if interval is not None and (
            isinstance(interval, bool) or not isinstance(interval, int | float) or not 0 <= interval < math.inf
        ):
            raise InvalidInput(f"{what}(every_s=…) is a number of seconds of at least 0, not {every_s!r}")
        label: object = name
        if label is not None and not (isinstance(label, str) and label):
            raise TypeError(f"{what}(name=…) takes text, not {name!r}")
        if is_terminal(console, sys.stdout if file is None else file):
            for part in ("rich.console", "rich.live", "rich.text"):  # here, so that no import holds the loop in the run
                extras.load(part, extra="progress", what=WHAT)
        self.name = name
        self._console, self._file, self._every_s, self._leave = console, file, every_s, flag(f"{what}(leave=…)", leave)
        self._screen: Screen | None = None
        self._forget()

    def _forget(self) -> None:
        self._run_id = ""
        self._pass = ""  # "evaluate" or "predict", if it is not a run
        self._epochs: int | None = None
        self._initial = 0
        self._steps = 0
        self._epoch = 0
        self._done = 0
        self._rows = 0
        self._sums: dict[str, float] = {}
        self._began = self._epoch_began = 0.0
        self._paused: float | None = None
        self._note = ""
        self._rate: float | None = None
        self._due = 0.0
        self._waiting: list[Line] = []  # epochs that ended within one look
        self._told = -math.inf
        self._last: Line | None = None

    # --- what happens ------------------------------------------------------------------------------------------------

    def on_train_begin(self, event: TrainBegin) -> None:
        params = event.params
        self._open(event, params)
        self._epochs = params.get("epochs")
        self._initial = self._epoch = params.get("initial_epoch") or 0

    def _open(self, event: Event, params: Mapping[str, Any]) -> None:
        self._close()
        self._forget()
        self._run_id = event.run_id or ""
        self._steps = params.get("steps") or 0
        self._began = self._epoch_began = event.time
        self._screen = screen_of(self, console=self._console, file=self._file)
        self._every = (0.1 if self._screen.lively else PLAIN_S) if self._every_s is None else self._every_s
        self._due = time.monotonic() + (0.0 if self._screen.lively else self._every)

    def on_epoch_begin(self, event: EpochBegin) -> None:
        self._epoch, self._epoch_began = event.epoch, event.time
        self._done = self._rows = 0
        self._sums = {}
        self._note = ""
        if time.monotonic() >= self._due:
            self._look(event.time)

    def on_batch_end(self, event: BatchEnd | EvaluateBatchEnd) -> None:
        size, sums = event.size, self._sums
        for name, value in event.logs.items():
            sums[name] = sums.get(name, 0.0) + value * size
        self._rows += size
        self._done = event.batch + 1
        if time.monotonic() >= self._due:
            self._look(event.time)

    def on_validation_begin(self, event: ValidationBegin) -> None:
        self._note = "validating"
        long = event.time - self._epoch_began > LONG  # then it may be long too, and nothing comes meanwhile
        if long or time.monotonic() >= self._due:
            self._look(event.time, at_once=long)

    def on_run_paused(self, event: RunPaused) -> None:
        if self._paused is None:
            self._paused = event.time
        self._look(event.time, at_once=True)

    def on_run_resumed(self, event: RunResumed) -> None:
        if self._paused is not None:
            self._began += event.time - self._paused
            self._epoch_began += max(0.0, event.time - max(self._paused, self._epoch_began))
            self._paused = None
        self._look(event.time, at_once=True)

    def on_epoch_end(self, event: EpochEnd) -> None:
        logs = dict(event.logs)
        learning_rate = logs.pop("learning_rate", None)
        if learning_rate is not None:
            if self._rate is not None and learning_rate != self._rate:
                logs["learning_rate"] = learning_rate
            self._rate = learning_rate
        took = seconds(event.time - self._epoch_began)
        if not event.complete:
            took = f"cut short after {self._batches()} in {took}"
        self._last = line = Line(self._head(), None, took, _values(logs))
        if self._screen is None or (self._screen.lively and not self._leave):
            return
        self._waiting.append(line)
        now = time.monotonic()
        if not self._screen.lively or now - self._told >= self._every:
            self._tell(now)

    def on_train_end(self, event: TrainEnd) -> None:
        lines: list[Line] = []
        if self._last is not None and self._screen is not None and self._screen.lively and not self._leave:
            lines.append(self._last)
        if event.outcome != "completed":
            why = event.reason or (repr(event.error) if event.error is not None else "")
            said = f"{event.outcome} at step {event.step}{': ' if why else ''}{why}"
            lines.append(Line(self._head(), None, said))
        self._waiting += lines
        try:
            self._tell(time.monotonic())
        finally:
            self._close()

    def on_evaluate_begin(self, event: EvaluateBegin) -> None:
        self._open(event, event.params)
        self._pass = "evaluate"

    def on_evaluate_batch_end(self, event: EvaluateBatchEnd) -> None:
        self.on_batch_end(event)

    def on_evaluate_end(self, event: EvaluateEnd) -> None:
        self._end_of_pass(event, event.logs)

    def on_predict_begin(self, event: PredictBegin) -> None:
        self._open(event, event.params)
        self._pass = "predict"

    def on_predict_batch_end(self, event: PredictBatchEnd) -> None:
        self._done = event.batch + 1
        if time.monotonic() >= self._due:
            self._look(event.time)

    def on_predict_end(self, event: PredictEnd) -> None:
        self._end_of_pass(event, {})

    def _end_of_pass(self, event: EvaluateEnd | PredictEnd, logs: Mapping[str, float]) -> None:
        self._done = event.batches
        said = f"{self._batches()}  {seconds(event.time - self._began)}"
        if event.outcome != "completed":
            why = event.reason or (repr(event.error) if event.error is not None else "")
            said += f"  {event.outcome}{': ' if why else ''}{why}"
        self._waiting.append(Line(self._head(), None, said, _values(logs)))
        try:
            self._tell(time.monotonic())
        finally:
            self._close()

    # --- what is shown -----------------------------------------------------------------------------------------------

    def _look(self, moment: float, *, at_once: bool = False) -> None:
        """Show where the run is, as of that moment."""
        screen = self._screen
        if screen is None:
            return
        now = time.monotonic()
        if self._waiting:
            self._tell(now)
        means = {name: value / self._rows for name, value in self._sums.items()} if self._rows else {}
        spent = moment - self._epoch_began
        pace = self._done / spent if spent > 0 else 0.0
        figures = [self._batches()]
        if self._done and self._paused is None and not self._note:
            figures.append(rate(pace))
        if self._paused is not None or self._note:
            figures.append("paused" if self._paused is not None else self._note)
        elif self._done and self._steps and pace > 0:
            figures.append(f"ETA {clock((self._steps - self._done) / pace)}")
            whole = self._whole()
            if whole and moment > self._began and self._epochs != self._initial + 1:
                figures.append(f"run {clock((moment - self._began) * (1 / whole - 1))}")
        done = min(1.0, self._done / self._steps) if self._steps else None
        line = Line(self._head(), done, "  ".join(f for f in figures if f), _values(means))
        try:
            if screen.lively:
                screen.show(self, line, at_once=at_once)
            elif self._done:
                screen.tell([line])
        except BaseException:
            self._close()
            raise
        self._due = time.monotonic() + self._every

    def _tell(self, now: float) -> None:
        lines, self._waiting = self._waiting, []
        if self._screen is None or not lines:
            return
        try:
            self._screen.tell(lines)
        except BaseException:
            self._close()
            raise
        self._told = now
        if not self._screen.lively:
            self._due = now + self._every

    def _close(self) -> None:
        screen, self._screen = self._screen, None
        if screen is not None:
            screen.leave(self)

    def _whole(self) -> float:
        """The share of the run that is done."""
        if not self._epochs or self._epochs <= self._initial:
            return 0.0
        return (self._epoch - self._initial + self._done / self._steps) / (self._epochs - self._initial)

    def _head(self) -> str:
        whose = self.name or (self._run_id if self._screen is not None and len(self._screen.bars) > 1 else "")
        if self._pass:
            return f"{whose + ': ' if whose else ''}{self._pass}"
        number = f"{self._epoch + 1}" if self._epochs is None else f"{self._epoch + 1:>{len(str(self._epochs))}}"
        return f"{whose + ': ' if whose else ''}epoch {number}{f'/{self._epochs}' if self._epochs is not None else ''}"

    def _batches(self) -> str:
        if not self._steps:
            return f"{self._done} batches"
        return f"{self._done:>{len(str(self._steps))}}/{self._steps}"


def _values(logs: Mapping[str, float]) -> tuple[tuple[str, str], ...]:
    return tuple((name, number(value)) for name, value in _ordered(logs.items()))


def _ordered(items: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    """The validation's behind the training's, the learning rate last."""
    return sorted(items, key=lambda item: (item[0] == "learning_rate", item[0].startswith("val_")))

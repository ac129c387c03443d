"""`CSVLogger`: a line for each epoch. `JSONLinesLogger`: a line for each event."""

from __future__ import annotations

import csv
import io
import itertools
import json
import logging
import os
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from ..errors import InvalidInput
from ..events import EpochEnd, EvaluateEnd, Event, PredictEnd, TrainBegin, TrainEnd
from ..front import keywords_checked
from ..names import snake
from ..subscriptions import event_kinds
from .base import StatefulCallback, flag
from .files import Gathered, add, checked_file, end_line, off_loop, start

__all__ = ["CSVLogger", "JSONLinesLogger"]

MOST = 1 << 18
"""Characters of lines that wait at most."""

_logger = logging.getLogger("asyncfit")


class CSVLogger(StatefulCallback):
    """Writes each epoch's logs to a file, as Keras's `CSVLogger` does, to the byte.

    The columns are `epoch` (from 0) and the names in the first epoch's logs, sorted (`learning_rate` is always one of
    them); if none of these belongs to a validation, each appears again with `val_` in front. A value that is missing
    is `NA`; names that appear later are left out. An epoch that a stop cut short has its row too, without validation.

    A row is in the file when its epoch's event has been dealt with, and rows are whole however the run ends. A resumed
    run goes on in the same file: what the interrupted run wrote after the checkpoint gives way.

    Args:
        filename: of the file. Its directory must exist.
        separator: between values, one character.
        append: keep what is in the file and go on behind it; the header is left out if something is there.
        name: what statistics and messages call it.
    """

    gates = "none"
    keeps: ClassVar[Mapping[str, type]] = {"header": str, "position": int, "epoch": int}
    header: str | None
    position: int
    epoch: int

    @keywords_checked
    def __init__(
        self,
        filename: str | os.PathLike[str],
        separator: str = ",",
        append: bool = False,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.filename = checked_file(f"{self.label}(filename=…)", filename)
        if not isinstance(separator, str) or len(separator) != 1 or separator in '"\r\n':  # type: ignore[redundant-expr]
            raise InvalidInput(f"{self.label}(separator=…) is one character, no quote or line break, not {separator!r}")
        self.separator = separator
        self.append = flag(f"{self.label}(append=…)", append)
        self._header_due = True

    def reset(self) -> None:
        self.header = None  # as it stands in the file; None before the first row
        self.position = 0  # where the row of the last complete epoch ends
        self.epoch = -1  # that epoch's number

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        if self.position < 0 or (self.header is not None and self._columns(self.header)[:1] != ["epoch"]):
            self._loaded = False
            raise InvalidInput(f"{self.label}.load_state_dict: this is no state of a CSVLogger: {dict(state)!r:.200}")

    async def on_train_begin(self, event: TrainBegin) -> None:
        resumed = self._loaded
        super().on_train_begin(event)
        await off_loop(self._start, resumed)

    async def on_epoch_end(self, event: EpochEnd) -> None:
        await off_loop(self._add, event)

    # --- in a thread -------------------------------------------------------------------------------------------------

    def _start(self, resumed: bool) -> None:
        size = start(self.filename, keep=self.append or resumed)
        if resumed and self.position < size and self._ours_behind():
            os.truncate(self.filename, self.position)
            size = self.position
        size = end_line(self.filename, b"\r\n")
        self._header_due = not size
        self.position = size

    def _ours_behind(self) -> bool:
        """Whether all that was written since the state was kept are rows of the epochs that are trained again."""
        with open(self.filename, "rb") as file:
            file.seek(self.position)
            lines = file.read().split(b"\n")[:-1]  # what is behind the last line's end was torn
        if self.header is None and lines and lines[0].startswith(b"epoch"):
            del lines[0]
        epochs = [line.split(self.separator.encode(), 1)[0] for line in lines]
        if not all(epoch.isdigit() for epoch in epochs):
            return False
        return all(one < two for one, two in itertools.pairwise([self.epoch, *map(int, epochs)]))

    def _add(self, event: EpochEnd) -> None:
        if self.header is None:
            names = sorted(event.logs)
            if not any(name.startswith("val_") for name in names):
                names += [f"val_{name}" for name in names]
            columns = ["epoch", *names]
        else:
            columns = self._columns(self.header)
        values = {"epoch": event.epoch} | {name: _cell(event.logs.get(name, "NA")) for name in columns[1:]}
        header = self._line(columns) if self.header is None else self.header
        text = header * self._header_due + self._line([values[name] for name in columns])
        position = add(self.filename, text.encode())
        self.header, self._header_due = header, False
        if event.complete:
            self.position, self.epoch = position, event.epoch

    def _columns(self, header: str) -> list[str]:
        return next(csv.reader([header], delimiter=self.separator), [])

    def _line(self, cells: Iterable[object]) -> str:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=self.separator).writerow(cells)
        return text.getvalue()


def _cell(value: object) -> object:
    """A sequence becomes one cell; all else is written as its `str`."""
    if isinstance(value, str) or not isinstance(value, Iterable) or (isinstance(value, np.ndarray) and not value.ndim):
        return value
    return f'"[{", ".join(str(item) for item in value)}]"'


class JSONLinesLogger(StatefulCallback):
    """Writes every event, as the JSON of its `to_dict()`, into a line of a file. `JSONLinesLogger.read` reads it back.

    Lines are gathered and written in a thread, at the end of each epoch and after a second at the latest. None is left
    out: where the file is slower than the run for long, the run waits for it. A run that is resumed adds to the file;
    its events have the next `attempt`. What `evaluate` and `predict` publish is added, too.

    Args:
        filename: of the file. Its directory must exist.
        kinds: event classes, with their subclasses; all events if left out. A line for each batch costs what
            publishing the batch events costs, and about 10 µs for making it.
        append: keep what is in the file and go on behind it.
        name: what statistics and messages call it.
    """

    gates = "none"
    keeps: ClassVar[Mapping[str, type]] = {"lines": int}
    lines: int

    @keywords_checked
    def __init__(
        self,
        filename: str | os.PathLike[str],
        kinds: type[Event] | Iterable[type[Event]] | None = None,
        append: bool = False,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.filename = checked_file(f"{self.label}(filename=…)", filename)
        several = isinstance(kinds, Iterable) and not isinstance(kinds, str)
        given: Any = (Event,) if kinds is None else kinds if several else (kinds,)
        self.kinds = event_kinds(given, f"{self.label}(kinds=[…])")
        self.append = flag(f"{self.label}(append=…)", append)
        self._lines = Gathered(self._add, MOST)
        for kind in self.kinds:
            if kind not in (TrainBegin, TrainEnd, EvaluateEnd, PredictEnd):
                setattr(self, f"on_{snake(kind.__name__)}", self._note)

    def reset(self) -> None:
        self.lines = 0  # how many it has made
        self._started = False

    async def on_train_begin(self, event: TrainBegin) -> None:
        resumed = self._loaded
        super().on_train_begin(event)
        await off_loop(self._start, self.append or resumed)
        self._lines.begin()
        self._note(event)
        event.start_soon(self._lines.keep_flushing, wait=False)

    async def on_train_end(self, event: TrainEnd) -> None:
        await self._end(event)

    async def on_evaluate_end(self, event: EvaluateEnd) -> None:
        await self._end(event)

    async def on_predict_end(self, event: PredictEnd) -> None:
        await self._end(event)

    async def _end(self, event: Event) -> None:
        self._note(event)
        await self._lines.flush()

    def _note(self, event: Event) -> Awaitable[None] | None:
        """Make the line of an event."""
        due = False
        if isinstance(event, self.kinds):
            line = _to_json(event.to_dict())
            due = self._lines.add(line, len(line))
            self.lines += 1
        if event.run_id is None:  # of the model, before there is a run
            return None
        return self._lines.flush() if due or type(event) is EpochEnd else None

    def _start(self, keep: bool) -> None:
        start(self.filename, keep=keep)
        end_line(self.filename, b"\n")
        self._started = True

    def _add(self, lines: list[str]) -> None:
        if not self._started:  # no run: an evaluate or predict
            self._start(True)
        add(self.filename, ("\n".join(lines) + "\n").encode())

    @staticmethod
    def read(filename: str | os.PathLike[str]) -> Iterator[Event]:
        """The events in a file, in order. The classes of your own events must have been imported.

        A line that is not whole, because the machine or the process went down while it was written, is left out and
        logged as a warning. It reads as it goes: in an async program call it in a thread.

        Raises:
            InvalidInput: the file begins with what is no part of an event either, so it is another kind of file; or a
                line is whole but no event that is known here. It names the line.
        """
        ours = False
        with open(filename, encoding="utf-8", errors="replace", newline="\n") as file:
            for number, line in enumerate(file, 1):
                try:
                    data = json.loads(line)
                except ValueError:
                    if not ours and not line.startswith("{"):
                        raise InvalidInput(
                            f"{filename}:{number} is no event, nor a part of one: {line[:40]!r}. "
                            "This reads files that JSONLinesLogger has written"
                        ) from None
                    _logger.warning("%s:%d is no whole line and is left out", filename, number)
                    continue
                ours = True
                try:
                    yield Event.from_dict(data)
                except (InvalidInput, AttributeError) as error:
                    raise InvalidInput(f"{filename}:{number}: {error}") from None


_to_json = json.JSONEncoder(separators=(",", ":")).encode

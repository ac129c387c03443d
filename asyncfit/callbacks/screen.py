"""Where progress is shown: a terminal, whose lines several bars share, or anything that takes lines.

On a terminal all bars, of whatever runs and threads, are drawn by one display, so that none draws over another; it has
no thread of its own and is taken down with the last bar. Nothing here knows what a run is.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from .. import extras

__all__ = ["Line", "Lines", "Screen", "Terminal", "is_terminal", "screen_of"]

WHAT = "ProgressBar on a terminal"

OFTEN = 0.05
"""A terminal is drawn anew at most this often, in seconds, however many bars ask for it."""

MOST_CELLS = 30
FEWEST_CELLS = 8


@dataclass(frozen=True, slots=True)
class Line:
    """What a bar shows at a time.

    Attributes:
        head: what stands first.
        done: the share that is done, from 0 to 1; None if it cannot be known.
        figures: what stands behind the bar.
        values: names and their values.
    """

    head: str
    done: float | None
    figures: str
    values: tuple[tuple[str, str], ...] = ()

    def plain(self) -> str:
        """All of it but the bar, in one line without control characters."""
        said = [self.head, self.figures, *(f"{name} {value}" for name, value in self.values)]
        return _clean("  ".join(part for part in said if part))


class Screen:
    """Something that several bars show themselves on.

    Attributes:
        bars: who does, by any key, with what each shows now.
    """

    lively = False
    """Whether what is shown can be changed, or only lines be added."""

    def __init__(self, key: object) -> None:
        self.bars: dict[object, Line | None] = {}
        self.key = key

    def show(self, bar: object, line: Line, *, at_once: bool = False) -> None:
        """Let `bar` show `line` from now on, which is seen at the next drawing, or `at_once`."""
        self.bars[bar] = line

    def tell(self, lines: Sequence[Line]) -> None:
        """Add lines that stay."""
        raise NotImplementedError

    def leave(self, bar: object) -> None:
        """`bar` shows nothing any more. May be called twice."""
        with _lock:
            self.bars.pop(bar, None)
            if not self.bars and _screens.get(self.key) is self:
                del _screens[self.key]


class Lines(Screen):
    """A file, a pipe, a log: each line is written once."""

    def __init__(self, key: object, write: Callable[[str], object]) -> None:
        super().__init__(key)
        self._write = write

    def tell(self, lines: Sequence[Line]) -> None:
        self._write("\n".join(line.plain() for line in lines))


class Terminal(Screen):
    """A terminal, drawn by rich."""

    lively = True

    def __init__(self, key: object, console: Any) -> None:
        from rich.live import Live

        super().__init__(key)
        self._console = console
        self._drawn = -1.0
        self._blocks = ("━", "━") if console.encoding.startswith("utf") else ("#", "-")
        own = _beneath(console.file)
        self._live = Live(
            get_renderable=self._picture,
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=_beneath(sys.stdout) is own,  # what is printed meanwhile stands above the bars
            redirect_stderr=_beneath(sys.stderr) is own or _key(sys.stderr) == key,
        )
        self._down: Callable[[], object] = lambda: None

    def show(self, bar: object, line: Line, *, at_once: bool = False) -> None:
        with _lock:
            super().show(bar, line)
            if not self._live.is_started:
                self._live.start()
                self._down = weakref.finalize(self, self._live.stop)  # also when the program ends in mid-run
            now = time.monotonic()
            if at_once or now - self._drawn >= OFTEN:
                self._live.refresh()
                self._drawn = now

    def tell(self, lines: Sequence[Line]) -> None:
        from rich.text import Text

        text = Text("\n").join(self._styled(line) for line in lines)
        with _lock:
            self._console.print(text, soft_wrap=True, highlight=False)

    def leave(self, bar: object) -> None:
        with _lock:
            super().leave(bar)
            if self.bars:
                self._live.refresh()
            else:
                self._down()

    def _styled(self, line: Line) -> Any:
        from rich.text import Text

        text = Text(_clean(line.head), style="bold")
        text = Text.assemble(text, f"  {_clean(line.figures)}" if line.figures else "")
        for name, value in line.values:
            text.append(f"  {_clean(name)} ", style="dim")
            text.append(_clean(value))
        return text

    def _picture(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        shown = [line for line in list(self.bars.values()) if line is not None]
        width = self._console.width
        widest = max((len(line.head) for line in shown), default=0)
        rows = []
        for line in shown:
            behind = self._styled(Line("", line.done, line.figures, line.values))
            row = Text(no_wrap=True, overflow="ellipsis")
            row.append(f"{_clean(line.head):{widest}}", style="bold")
            if line.done is not None:
                cells = max(FEWEST_CELLS, min(MOST_CELLS, width - widest - 2 - behind.cell_len))
                full = round(cells * min(1.0, max(0.0, line.done)))
                row.append("  " + self._blocks[0] * full, style="bar.complete")
                row.append(self._blocks[1] * (cells - full), style="bar.back")
            row.append_text(behind)
            rows.append(row)
        return Group(*rows)


_lock = threading.RLock()
_screens: dict[object, Screen] = {}
"""Those in use: bars that write to the same place share one."""


def screen_of(bar: object, *, console: Any, file: IO[str] | None) -> Screen:
    """The screen for a bar, which must `leave` it: that of `console`, else of `file`, else of standard output."""
    where = _beneath(console.file if console is not None else sys.stdout if file is None else file)
    with _lock:
        key = _key(where)
        screen = _screens.get(key)
        if screen is None:
            if is_terminal(console, where):
                if console is None:
                    console = extras.load("rich.console", extra="progress", what=WHAT).Console(file=where)
                screen = Terminal(key, console)
            elif console is not None:
                screen = Lines(key, lambda text: console.out(text, highlight=False))
            else:
                screen = Lines(key, lambda text: _write(where, text))
            _screens[key] = screen
        screen.bars[bar] = None
        return screen


def is_terminal(console: Any, file: Any) -> bool:
    """Whether lines there can be drawn anew."""
    if console is not None:
        return bool(console.is_terminal) and not console.is_dumb_terminal
    try:
        return bool(file.isatty()) and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    except (AttributeError, ValueError):  # closed
        return False


def _write(file: Any, text: str) -> None:
    try:
        file.write(text + "\n")
    except UnicodeEncodeError:
        file.write(text.encode("ascii", "replace").decode("ascii") + "\n")
    if hasattr(file, "flush"):
        file.flush()


def _beneath(file: Any) -> Any:
    """The stream itself, where a display has put something in its place."""
    return getattr(file, "rich_proxied_file", file)


def _key(file: Any) -> object:
    """The same for all streams that lead to one terminal."""
    try:
        number = file.fileno()
        return ("terminal", os.fstat(number).st_rdev) if os.isatty(number) else id(_beneath(file))
    except (AttributeError, OSError, ValueError):  # no file of the system's
        return id(_beneath(file))


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)

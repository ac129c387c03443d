"""What a notebook shows: a run as a small table that is live, a history as one that is not.

Nothing here is imported before something is displayed, and IPython only if it is there already. The table has no task
of its own: the run's timer looks at it now and then, and a last time when the run has ended.
"""

from __future__ import annotations

import html
import importlib
import os
import sys
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .roster import Entry, figures, guarded, lags, line, worst_first
from .wording import clock, number, rate

if TYPE_CHECKING:
    from .history import History
    from .run import Run

__all__ = ["history_html", "run_html", "show"]

EVERY_S = 0.25
MOST_ROWS = 20
MOST_BEHIND = 5
MOST_LOGS = 40

_shown: weakref.WeakKeyDictionary[Run, str] = weakref.WeakKeyDictionary()
"""The runs that have a table, and its id: displayed again it is the same one, in two places."""


def show(run: Run) -> None:
    """Display the table of a run, and keep it up to date as long as the run lives, where there is a notebook."""
    if "IPython" not in sys.modules:
        print(repr(run))
        return
    display = importlib.import_module("IPython.display")
    known = run in _shown
    name = _shown.setdefault(run, f"asyncfit-{os.urandom(8).hex()}")
    display.display(_bundle(run), raw=True, display_id=name)
    shell = sys.modules["IPython"].get_ipython()
    if known or getattr(shell, "kernel", None) is None:  # a terminal cannot take back what it has shown
        return
    run._look(lambda: display.update_display(_bundle(run), raw=True, display_id=name), EVERY_S)


def _bundle(run: Run) -> dict[str, str]:
    return {"text/plain": repr(run), "text/html": guarded_html(run)}


def guarded_html(run: Run) -> str:
    """The table, or at least the run's `repr`, if something in it cannot be shown."""
    try:
        return run_html(run)
    except Exception:
        return f"<pre>{html.escape(repr(run))}</pre>"


def run_html(run: Run) -> str:
    """A run's state, progress, logs so far, and the subscribers that need a look, as an HTML table."""
    at, over = run.progress, run.outcome is not None
    rows = [("run", _text(f"{line(run.id, 60)}: {_state(run)}"))]
    if at.epochs:
        done = len(run.history.epoch)
        rows.append(("epochs", _bar(done, at.epochs) + _text(f" {done} of {at.epochs}")))
        if not over:
            told = [f" {at.batch} of {at.steps}" if at.steps else f" {at.batch}"]
            told += [rate(at.rate)] if at.rate else []
            told += [f"{clock(at.eta)} left"] if at.eta is not None else []
            rows.append((f"epoch {at.epoch + 1}", _bar(at.batch, at.steps) + _text(", ".join(told))))
            if at.logs:
                rows.append(("so far", _logs(at.logs)))
    last = {name: values[-1] for name, values in run.history.history.items() if values}
    if last:
        rows.append(("last epoch", _logs(last)))
    if run.error is not None:
        rows.append(("error", _text(line(guarded("an error", lambda: repr(run.error)), 500))))
    rows += [("behind", text) for text in _behind(run._delivery.entries())]
    body = "".join(f'<tr><th style="text-align: left">{_text(name)}</th>{_cell(value)}</tr>' for name, value in rows)
    return f'<table class="asyncfit-run">{body}</table>'


def history_html(history: History) -> str:
    """The epochs, counted from 1, with their logs; of many the newest."""
    names = list(history.history)
    head = "".join(f"<th>{_text(name)}</th>" for name in ["epoch", *names])
    values = {name: dict(zip(history._epochs_of(name), history.history[name], strict=False)) for name in names}
    rows = []
    for epoch in history.epoch[-MOST_ROWS:]:
        cells = [number(values[name][epoch]) if epoch in values[name] else "" for name in names]
        rows.append(f"<tr>{_cell(str(epoch + 1))}{''.join(map(_cell, cells))}</tr>")
    more = f", of which the last {MOST_ROWS} are shown" if len(history.epoch) > MOST_ROWS else ""
    reason = f": {history.reason}" if history.reason else ""
    said = f"run {history.run_id}, {len(history.epoch)} epochs{more}; {history.outcome or 'running'}{reason}"
    table = f'<table class="asyncfit-history"><tr>{head}</tr>{"".join(rows)}</table>' if names else ""
    return f"<div>{_text(line(said, 500))}</div>{table}"


def _state(run: Run) -> str:
    if run.outcome is not None:
        return run.outcome + (f": {line(run.reason, 200)}" if run.reason else "")
    return "paused" if run.paused else "running" if run._worker is not None else "starting"


def _behind(entries: Iterable[Entry]) -> list[str]:
    late = worst_first([entry for entry in entries if not entry.gone and lags(entry.stats)])
    texts = [
        _text(f"{line(entry.stats.name, 60)} ({entry.stats.mode}): {', '.join(figures(entry.stats))}")
        for entry in late[:MOST_BEHIND]
    ]
    return texts + ([f"… and {len(late) - MOST_BEHIND:,} more"] if len(late) > MOST_BEHIND else [])


def _logs(logs: Mapping[str, Any]) -> str:
    shown = [f"{_text(line(name, 60))} <b>{_text(number(value))}</b>" for name, value in list(logs.items())[:MOST_LOGS]]
    return " &nbsp; ".join(shown)


def _bar(done: int, of: int) -> str:
    return f'<progress value="{done}" max="{of}"></progress>' if of else ""


def _cell(inside: str) -> str:
    return f'<td style="text-align: left">{inside}</td>'


def _text(text: str) -> str:
    return html.escape(text)

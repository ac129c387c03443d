"""Who listens, as text: the lines that a run and a bus show of their subscribers.

A `repr` is read in the worst moments, in a debugger, in a log, in another thread: what is here never raises, and is
short for a thousand subscribers too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .wording import seconds

if TYPE_CHECKING:
    from .subscriptions import SubscriberStats, Subscription

__all__ = ["Entry", "figures", "guarded", "lags", "line", "roster", "worst_first"]

MOST = 20
"""Of so many subscribers each has its line."""

KINDS = 3
"""So many events are named in a line."""

BUSY = 1.0
"""A handler that has had its event for so many seconds is named with the place where it is."""

BACKLOG = 64
"""With so many events waiting a subscriber is far behind."""

_EDGE = 32
_WIDEST = 56


@dataclass(frozen=True, slots=True)
class Entry:
    """A subscriber in a list.

    Attributes:
        subscription: it.
        stats: its figures in the place that shows the list.
        gone: whether it was cancelled there.
    """

    subscription: Subscription
    stats: SubscriberStats
    gone: bool = False


def roster(head: str, entries: Sequence[Entry]) -> str:
    """`<head>`, with an aligned line for each subscriber below: of many the worst, the rest is counted."""
    shown = list(entries) if len(entries) <= MOST else worst_first(entries)[:MOST]
    rows = [(line(entry.stats.name), entry.stats.mode, wants(entry.subscription), entry) for entry in shown]
    widths = [min(_WIDEST, max((len(str(row[place])) for row in rows), default=0)) for place in range(3)]
    lines = [f"<{head}>"]
    for name, mode, events, entry in rows:
        told = ", ".join([*figures(entry.stats), *(["gone"] if entry.gone else [])])
        lines.append(f"  {name:{widths[0]}}  {mode:{widths[1]}}  {events:{widths[2]}}  {told}")
    if len(entries) > len(shown):
        lines.append(f"  … {len(entries) - len(shown):,} more, which are no worse")
    return "\n".join(lines)


def worst_first(entries: Iterable[Entry]) -> list[Entry]:
    """Those that need a look first: errors, lost events, a backlog, a handler that does not return."""

    def need(entry: Entry) -> tuple[float, ...]:
        stats = entry.stats
        return (not entry.gone, stats.errors, stats.dropped, stats.queued, stats.busy_for or 0.0, stats.max_lag)

    return sorted(entries, key=need, reverse=True)


def lags(stats: SubscriberStats) -> bool:
    """Whether it is far behind, has lost something, or holds on to what it has."""
    return stats.errors > 0 or stats.dropped > 0 or stats.queued > BACKLOG or (stats.busy_for or 0.0) >= BUSY


def wants(subscription: Subscription) -> str:
    """Which events it gets."""
    names = [kind.__name__ for kind in subscription.kinds]
    more = len(names) - KINDS
    shown = ", ".join(names[:KINDS] if more > 1 else names) + (f" and {more} more" if more > 1 else "")
    return line(shown + (f" every={subscription.how.every}" if subscription.how.every != 1 else ""), 3 * _EDGE)


def figures(stats: SubscriberStats) -> list[str]:
    """What there is to say: what was delivered, and whatever else is not 0."""
    told = [f"{stats.delivered:,} delivered"]
    told += [
        f"{count:,} {word}"
        for word, count in (("queued", stats.queued), ("dropped", stats.dropped), ("cancelled", stats.cancelled))
        if count
    ]
    if stats.errors:
        told.append(f"{stats.errors:,} error{'s' if stats.errors > 1 else ''}")
    if stats.max_lag >= 0.001:
        told.append(f"lag up to {seconds(stats.max_lag)}")
    if stats.busy_for is not None and stats.busy_for >= BUSY:
        told.append(f"busy for {seconds(stats.busy_for)}" + (f" at {line(stats.where, 200)}" if stats.where else ""))
    return told


def line(text: object, width: int = _EDGE) -> str:
    """`text` in one line of at most so many characters, whatever it holds."""
    one = "".join(c if c.isprintable() else " " for c in str(text)[: width + 1])
    return one if len(one) <= width else one[: width - 1] + "…"


def guarded(what: str, make: Callable[[], str]) -> str:
    """What `make` says; if it cannot, because the thing changes while it is looked at, at least what it is."""
    try:
        return make()
    except Exception as error:
        return f"<{what}; its subscribers cannot be shown now ({type(error).__name__})>"

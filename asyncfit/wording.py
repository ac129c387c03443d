"""Numbers as people read them, in as few characters as say it."""

from __future__ import annotations

__all__ = ["clock", "number", "rate", "seconds"]


def number(value: float) -> str:
    """A loss, a metric, a learning rate."""
    size = abs(value)
    if size == 0 or 0.001 <= size < 10_000:
        return f"{value:.4f}" if size < 10 else f"{value:.4g}"
    return f"{value:.3g}"


def rate(value: float) -> str:
    """So many a second."""
    return f"{value:,.0f}/s" if value >= 10 else f"{value:.2g}/s"


def seconds(value: float) -> str:
    """A duration that has been measured."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 59.95 else f"{clock(value)}{'' if value >= 3600 else ' min'}"


def clock(value: float) -> str:
    """A duration that has been estimated: minutes and seconds, with hours if there are any."""
    minutes, rest = divmod(round(max(0.0, value)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

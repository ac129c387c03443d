"""The curves of a history, drawn with matplotlib (extra `plot`): what `History.plot` does.

Figures are made without pyplot: no window, no global state, no backend to choose, in whatever thread.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from . import extras
from .errors import InvalidInput
from .names import unknown

__all__ = ["Series", "drawn"]

Series = Mapping[str, tuple[Sequence[int], Sequence[float]]]
"""For each name in the logs: the numbers of its epochs, from 0, and its values."""

RATE = "learning_rate"
TRAIN, VALIDATION, OTHER = "#2a6fbb", "#d9742b", "#5b6770"
WIDTH, HEIGHT = 4.6, 3.2  # of a panel, in inches
ACROSS = 3


def drawn(series: Series, names: str | Iterable[str] | None, ax: Any) -> Any:
    """The figure, or `ax` if the curves were drawn into it."""
    chosen = _chosen(series, names, one=ax is not None)
    if ax is not None:
        if not hasattr(ax, "plot"):
            raise TypeError(f"plot(ax=…) takes matplotlib's Axes, not {ax!r}")
        for place, name in enumerate(chosen):
            _panel(ax, series, name, None if len(chosen) == 1 else f"C{place}")
        _finish(ax, chosen)
        return ax
    across = min(ACROSS, len(chosen))
    down = -(-len(chosen) // across)
    figure = _figure()(figsize=(WIDTH * across, HEIGHT * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for panel, name in zip(panels, chosen, strict=False):
        _panel(panel, series, name, None)
        _finish(panel, [name])
    for panel in panels[len(chosen) :]:
        panel.remove()
    return figure


def _chosen(series: Series, names: str | Iterable[str] | None, *, one: bool) -> list[str]:
    """The names of the panels, checked: of the training's figures, whose validation is drawn with them."""
    if not series:
        raise InvalidInput("this history has no complete epoch, so there is nothing to plot")
    plain = list(dict.fromkeys(name.removeprefix("val_") if _paired(name, series) else name for name in series))
    if names is None:
        found = [name for name in plain if name != RATE] or plain
        return found[:1] if one else found
    chosen: list[Any] = [names] if isinstance(names, str) else list(names)
    for name in chosen:
        if not isinstance(name, str) or name not in series:
            raise InvalidInput(unknown("name in this history", name, series))
    if not chosen:
        raise InvalidInput(f"plot(names=…) names nothing; this history has {', '.join(series)}")
    return list(dict.fromkeys(chosen))


def _paired(name: str, series: Series) -> bool:
    return name.startswith("val_") and name.removeprefix("val_") in series


def _panel(ax: Any, series: Series, name: str, color: str | None) -> None:
    """One name's curve, and its validation's beside it."""
    lone = name == RATE or f"val_{name}" not in series
    own = color or (OTHER if name == RATE else VALIDATION if name.startswith("val_") else TRAIN)
    steps = {"drawstyle": "steps-mid"} if name == RATE else {}
    _curve(ax, series[name], own, _words(name) if color is not None or lone else "training", **steps)
    if not lone:
        label = f"{_words(name)}, validation" if color is not None else "validation"
        _curve(ax, series[f"val_{name}"], color or VALIDATION, label, linestyle="--" if color is not None else "-")


def _curve(ax: Any, points: tuple[Sequence[int], Sequence[float]], color: str, label: str, **how: Any) -> None:
    epochs, values = points
    marker = "o" if len(values) <= 30 else ""
    ax.plot(
        [n + 1 for n in epochs], values, color=color, label=label, marker=marker, markersize=3, linewidth=1.6, **how
    )


def _finish(ax: Any, names: Sequence[str]) -> None:
    ticker = extras.load("matplotlib.ticker", extra="plot", what="History.plot")
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    if len(names) == 1:
        ax.set_ylabel(_words(names[0]))
        if names[0] == RATE and min(ax.lines[-1].get_ydata()) > 0:
            ax.set_yscale("log")
    ax.grid(alpha=0.25, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    if len(ax.lines) > 1:
        ax.legend(frameon=False)


def _words(name: str) -> str:
    return name.replace("_", " ")


@cache
def _figure() -> Any:
    """matplotlib's Figure, which a notebook shows whether or not pyplot was ever imported."""
    base = extras.load("matplotlib.figure", extra="plot", what="History.plot").Figure

    def _repr_png_(self: Any) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=110)
        return file.getvalue()

    return type("Figure", (base,), {"_repr_png_": _repr_png_, "__module__": __name__, "__doc__": base.__doc__})


def __getattr__(name: str) -> Any:
    if name == "Figure":  # where a pickled figure looks for its class
        return _figure()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What a profile tells: where a training batch's time goes, row by row, as numbers and as a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Profile", "ProfileRow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRow:
    """A part of a batch.

    Attributes:
        name: of a layer (of two that are computed as one: "conv2d + max_pooling2d"), or "batch" (the copy of x and y
            into the plan), "loss" (and its gradient; the last activation too, where the loss computes it), "metrics",
            "penalties" (of weights), "optimizer" (and constraints), "other" (what the Python between costs).
        kind: the class: "Dense", "MeanSquaredError", "Adam"; "" where there is none.
        output: the shape of the layer's output without the batch; None for what is no layer.
        forward, backward: µs a batch.
        share: of the whole batch, from 0 to 1.
    """

    name: str
    kind: str = ""
    output: tuple[int, ...] | None = None
    forward: float = 0.0
    backward: float = 0.0
    share: float = 0.0

    @property
    def total(self) -> float:
        """µs a batch, forward and backward."""
        return self.forward + self.backward


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where the time of a training batch goes: means over the faster half of the batches. `print` shows a table.

    Attributes:
        model: the model's name.
        rows: in the order of computation.
        batch: µs of a whole batch as training runs it, without a clock inside.
        batch_size: its rows.
        batches: how many were measured.
    """

    model: str
    rows: tuple[ProfileRow, ...]
    batch: float
    batch_size: int
    batches: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        told = asdict(self)
        told["rows"] = [
            {**row, "output": None if row["output"] is None else list(row["output"]), "total": one.total}
            for row, one in zip(told["rows"], self.rows, strict=True)
        ]
        return told

    def __str__(self) -> str:
        head = ("", "output", "forward", "backward", "total", "share")
        cells = [
            (
                f"{row.name} ({row.kind})" if row.kind else row.name,
                "" if row.output is None else str(row.output).replace(",)", ")"),
                *(f"{time:,.1f}" if time else "" for time in (row.forward, row.backward, row.total)),
                f"{100 * row.share:.1f} %",
            )
            for row in self.rows
        ]
        widths = [max(len(text) for text in column) for column in zip(head, *cells, strict=True)]

        def line(texts: tuple[str, ...]) -> str:
            left = [text.ljust(width) for text, width in zip(texts[:2], widths[:2], strict=True)]
            right = [text.rjust(width) for text, width in zip(texts[2:], widths[2:], strict=True)]
            return "  ".join([*left, *right]).rstrip()

        title = (
            f"{self.model}: {self.batch:,.1f} µs a batch of {self.batch_size} "
            f"({1e6 * self.batch_size / self.batch:,.0f} samples/s), from {self.batches} batches; times in µs"
        )
        return "\n".join([title, line(head), *(line(texts) for texts in cells)])

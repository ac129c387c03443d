"""The table that `model.summary()` prints, as Keras draws it."""

from __future__ import annotations

from collections.abc import Sequence

from .layers.base import Layer

__all__ = ["summary_lines"]

HEADS = ("Layer (type)", "Output Shape", "Param #")


def summary_lines(name: str, layers: Sequence[Layer], trained: int, fixed: int) -> list[str]:
    rows = [(f"{layer.name} ({type(layer).__name__})", shape_text(layer), params_text(layer)) for layer in layers]
    widths = [max(len(text) for text in column) for column in zip(HEADS, *rows, strict=True)]

    def rule(left: str, middle: str, right: str, bar: str) -> str:
        return left + middle.join(bar * (width + 2) for width in widths) + right

    def row(cells: Sequence[str], bar: str) -> str:
        name, shape, params = cells
        texts = name.ljust(widths[0]), shape.ljust(widths[1]), params.rjust(widths[2])
        return f"{bar} {f' {bar} '.join(texts)} {bar}"

    return [
        f'Model: "{name}"',
        rule("┏", "┳", "┓", "━"),
        row(HEADS, "┃"),
        rule("┡", "╇", "┩", "━"),
        *(row(cells, "│") for cells in rows),
        rule("└", "┴", "┘", "─"),
        f" Total params: {trained + fixed:,} ({size_text(trained + fixed)})",
        f" Trainable params: {trained:,} ({size_text(trained)})",
        f" Non-trainable params: {fixed:,} ({size_text(fixed)})",
    ]


def shape_text(layer: Layer) -> str:
    return f"(None, {', '.join(map(str, layer.output_shape))})" if layer.output_shape else "?"


def params_text(layer: Layer) -> str:
    return f"{layer.count_params():,}" if layer.output_shape else "?"


def size_text(params: int) -> str:
    """The bytes of float32 weights, as Keras writes them."""
    size = 4.0 * params
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1024 or unit == "TB":
            break
        size /= 1024
    return f"{size:.2f} {unit}"

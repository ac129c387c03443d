"""Windows that move over one axis of an image or a sequence: how many there are, and which elements each one sees."""

from __future__ import annotations

from dataclasses import dataclass

from asyncfit.errors import InvalidInput

__all__ = ["Window", "window"]


@dataclass(frozen=True, slots=True)
class Window:
    """`count` windows over `size` elements: element `o·stride + tap·dilation − before` is under tap `tap` of `o`.

    Elements that do not exist are padding.
    """

    size: int
    taps: int
    stride: int
    dilation: int
    before: int
    count: int

    def seen(self, tap: int, phase: int = 0, phases: int = 1) -> tuple[slice, slice]:
        """For one tap: which windows see an element there, and which elements those are.

        With `phases`, of the windows `phase`, `phase + phases`, …, counted from 0.
        """
        step = self.stride * phases
        first = phase * self.stride + tap * self.dilation - self.before
        count = (self.count - phase + phases - 1) // phases
        begin = max(0, -(first // step))
        end = max(begin, min(count, (self.size - 1 - first) // step + 1))
        start = first + begin * step
        return slice(begin, end), slice(
            start, start + max(0, (end - begin - 1) * step + 1) if end > begin else start, step
        )

    @property
    def reach(self) -> int:
        """How many elements, padding included, all windows together extend over."""
        return (self.count - 1) * self.stride + (self.taps - 1) * self.dilation + 1

    @property
    def inside(self) -> bool:
        """Whether no window sees padding."""
        return self.before == 0 and self.reach <= self.size


def window(who: str, size: int, taps: int, stride: int, dilation: int, padding: str) -> Window:
    """The windows over `size` elements as Keras and TensorFlow place them.

    "valid": within the elements. "same": ⌈size / stride⌉ of them, padding on both sides and the odd one at the end.
    "causal": as many, all padding before, so that no window sees what comes after its first element of output.

    Raises:
        InvalidInput: no window fits; the message begins with `who`.
    """
    extent = (taps - 1) * dilation + 1
    if padding == "valid":
        if extent > size:
            raise InvalidInput(
                f"{who}: a window over {extent} does not fit into {size}; use padding='same', a smaller window or "
                "bigger inputs"
            )
        return Window(size, taps, stride, dilation, 0, (size - extent) // stride + 1)
    count = -(-size // stride)
    if padding == "causal":
        return Window(size, taps, stride, dilation, extent - 1, count)
    missing = max((count - 1) * stride + extent - size, 0)
    return Window(size, taps, stride, dilation, missing // 2, count)

"""`ListData`: batches that lie in memory one by one, in a list of a user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .arrays import Batch
from .batch import BatchIntake
from .kinds import BatchSource
from .order import EpochRange, epoch_range, permutation

__all__ = ["ListData"]


class ListData:
    """The batches of a list, which can be asked for again.

    Args:
        source: the list.
        intake: makes a batch of each item, anew each time.
        steps: batches an epoch; None: all of them.
        shuffle, key: the order of the batches in a pass is a function of the key.
    """

    def __init__(
        self,
        source: BatchSource,
        intake: BatchIntake,
        *,
        steps: int | None,
        shuffle: bool = False,
        key: tuple[int, int] = (0, 0),
    ) -> None:
        self._source, self.intake = source, intake
        self._steps, self._shuffle, self._key = steps, shuffle, key
        self._length = source.length or 0

    def __reduce__(self) -> tuple[Callable[..., ListData], tuple[Any, ...]]:
        """Elsewhere they are arrays, whatever they are here."""
        rows = [self.intake.rows(item, number) for number, item in enumerate(self._source.value)]
        source = BatchSource(name=self._source.name, value=rows, kind="listed", length=self._length)
        return _rebuilt, (source, self.intake, self._steps, self._shuffle, self._key)

    def check(self) -> None:
        """Look at every value. Raises InvalidInput; call it off the loop."""
        for number, item in enumerate(self._source.value):
            self.intake(item, number)

    @property
    def first(self) -> Batch:
        """A batch, for a look at its shapes."""
        return self.intake(self._source.value[0], 0)

    def range_of(self, epoch: int) -> EpochRange:
        """Which batches of which pass `epoch` has."""
        return epoch_range(epoch, self._length, self._steps)

    def steps(self, epoch: int) -> int:
        """How many batches `epoch` has."""
        return self.range_of(epoch).steps

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch` from its batch `start` (from 0), the same bits each time that one asks."""
        number, first, steps = self.range_of(epoch)
        order: Any = permutation(self._length, self._key, number) if self._shuffle else range(self._length)
        for place in range(first + start, first + steps):
            at = int(order[place])
            yield self.intake(self._source.value[at], at)


def _rebuilt(source: BatchSource, intake: BatchIntake, steps: int | None, shuffle: bool, key: Any) -> ListData:
    return ListData(source, intake, steps=steps, shuffle=shuffle, key=key)

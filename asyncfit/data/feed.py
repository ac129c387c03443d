"""`Feed`: compute's side of data that somebody else reads and hands over batch by batch.

Compute says which batch it wants (`want`) and looks into `queue` whether it has come; meanwhile it obeys commands. A
*turn* is a stretch of batches that follow each other: a new one begins with each epoch, or with work that is done anew.
What comes from an earlier turn is dropped. Data that is read once has one turn.

The other side (`takers.py` reads, `asyncfit/feeding.py` hands over) may be in another process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol

from .arrays import Batch
from .batch import BatchIntake
from .kinds import BatchSource
from .order import EpochRange, epoch_range

__all__ = ["Feed", "ReadingFailed"]


class Handed(Protocol):
    """A batch; or the data's end, if it has neither batch nor error."""

    @property
    def turn(self) -> int: ...
    @property
    def batch(self) -> Batch | None: ...
    @property
    def error(self) -> BaseException | None: ...


class ReadingFailed(Exception):
    """Stands for an error that stays where the data is read."""

    def __init__(self, which: int) -> None:
        super().__init__(which)
        self.which = which


def _nobody(turn: int, epoch: int, batch: int) -> None:
    raise RuntimeError("nobody reads this data")


class Feed:
    """Batches that are handed over.

    Args:
        source, intake: for whoever reads; they stay where the feed was made.
        steps: batches an epoch; None: a pass.
        prefetch: so many batches may be read ahead of what is wanted.
        shuffle, key: for the order of batches that can be indexed.

    Attributes:
        ask: tells whoever reads that this batch is wanted: `ask(turn, epoch, batch)`. Called where compute runs.
        queue: what has come.
        limit: more batches than so many are not needed in all; None: nobody knows.
    """

    def __init__(
        self,
        source: BatchSource,
        intake: BatchIntake,
        *,
        steps: int | None,
        prefetch: int = 0,
        shuffle: bool = False,
        key: tuple[int, int] = (0, 0),
    ) -> None:
        self.source, self.intake = source, intake
        self.name, self.once, self.length = source.name, source.once, source.length
        self.prefetch, self.shuffle, self.key = prefetch, shuffle, key
        self.limit: int | None = None
        self._steps = steps
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.ask: Callable[[int, int, int], None] = _nobody
        self.queue: deque[Handed] = deque()
        self._turn = 0

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("name", "once", "length", "_steps")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin_anew()

    def range_of(self, epoch: int) -> EpochRange:
        """Which batches of which pass `epoch` has."""
        if self.length is None:
            return EpochRange(0, 0, self._steps or 0)
        return epoch_range(epoch, self.length, self._steps)

    def steps(self, epoch: int) -> int:
        """How many batches `epoch` has, if they all come."""
        return self.range_of(epoch).steps

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        raise TypeError("a feed's batches are handed over")

    # --- compute's side ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """What comes next follows nothing."""
        if not self.once:
            self._turn += 1
            self.queue.clear()

    def want(self, epoch: int, batch: int) -> None:
        """The next batch of the turn is wanted, and this is it."""
        self.ask(self._turn, epoch, batch)

    def put(self, handed: Handed) -> None:
        if handed.turn == self._turn:
            self.queue.append(handed)

    def ended(self, batch: int, steps: int, option: str = "steps_per_epoch") -> NoReturn:
        """It has come to its end within an epoch, and was to be iterated again and again."""
        raise RuntimeError(
            f"{self.name} ended after {batch} of {steps} batches, though its len() promises more; let its len() tell "
            f"the truth, or give {option}="
        )

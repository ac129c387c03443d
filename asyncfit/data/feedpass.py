"""`FeedPass`: one pass over what yields batches, for evaluate and predict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from asyncfit.errors import InvalidInput

from .arrays import Batch
from .batch import BatchIntake
from .kinds import BatchSource
from .takers import END, taker
from .values import nothing

__all__ = ["FeedPass"]


class FeedPass:
    """Used once. Read in worker threads by way of `opened`; what is async is fetched on the loop between them.

    Args:
        steps: so many batches at most; None: to the end.

    Attributes:
        intake: makes the batches.
        iterator: what `fetch` reads, to be closed in the end.
    """

    rows: None = None
    samples: None = None
    batch_size: None = None
    fed = True

    def __init__(self, source: BatchSource, steps: int | None, *, own_model: bool, targets: bool) -> None:
        self.source = source
        self.steps = steps if source.length is None else source.steps(steps, "steps")
        self.intake = BatchIntake(source.name, own_model=own_model, targets=targets)
        self._fetched: list[Any] = []
        self.iterator: Any = None

    @property
    def fetches(self) -> bool:
        """Whether `fetch` has to be called whenever `opened` yields None."""
        return self.source.kind == "async"

    def resolved(self) -> FeedPass:
        return self

    def opened(self, tick: Callable[[], None] = nothing) -> Iterator[Batch | None]:
        """The batches; None where the next one has to be fetched first. What reading raises goes through."""
        read = self._fetching() if self.fetches else self._taking()
        number = 0
        try:
            for item in read:
                tick()
                if item is None:
                    yield None
                else:
                    yield self.intake(item[0], number)
                    number += 1
        finally:
            read.close()
        if not number:
            raise InvalidInput(f"{self.source.name} yields no batch")

    def _taking(self) -> Any:
        source = taker(self.source)
        try:
            source.seek(0, 0)
            number = 0
            while self.steps is None or number < self.steps:
                item = source.take()
                if item is END:
                    if self.source.length is not None:
                        raise RuntimeError(f"{self.source.name} ended after {number} of {self.steps} batches")
                    return
                number += 1
                yield (item,)
        except Exception as error:
            try:
                source.close()
            except Exception as other:
                error.add_note(f"when {self.source.name} was closed for that, it raised {other!r}")
            raise
        finally:
            source.close()

    def _fetching(self) -> Any:
        number = 0
        while self.steps is None or number < self.steps:
            yield None
            item = self._fetched.pop()
            if item is END:
                return
            number += 1
            yield (item,)

    async def fetch(self) -> None:
        """Wait for the next item."""
        if self.iterator is None:
            self.iterator = aiter(self.source.value)
        try:
            self._fetched.append(await anext(self.iterator))
        except StopAsyncIteration:
            self._fetched.append(END)

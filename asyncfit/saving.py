"""When checkpoints are taken, and of what: the savers of one run, and what they are given.

A *saver* is a callback with three more members. Compute brings the state at the places that a saver wished for; the
ledger says when such a place is reached in the stream of events. There a marker is put behind all that each callback
has been told, and when all have come to it, their states and the model's are one checkpoint. Then the saver's `save`
runs as work of the run, whose end waits for it.

A callback whose state speaks of files that may be on their way has `async def settled(self)`: the checkpoint is written
when it returns, so that nobody goes on from a checkpoint that knows of files which a crash has prevented.
"""

from __future__ import annotations

import errno
import functools
import math
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import anyio
import numpy as np

from .errors import CheckpointError
from .events import Event
from .ledger import Carried, Point
from .protocol import Change, Interest, Position, State
from .resuming import Arrays, packed_history, plain
from .signals import Signal
from .snapshot import StateReader

if TYPE_CHECKING:
    from .formats.checkpoint_h5 import Writer

__all__ = ["Checkpoint", "Occasion", "Saver", "Savings", "Wish", "kept_copy"]


class Wish(NamedTuple):
    """When a saver wants checkpoints: after each n-th batch of the run, at each epoch's end, and whenever so many
    seconds have passed since it took the last one."""

    every: int = 0
    boundaries: bool = False
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """A checkpoint that can be had.

    Attributes:
        position: where in the run.
        final: a resumable stop acts here: there will be no other.
        throttle: called with True it lets training wait, until it is called with False.
    """

    position: Position
    final: bool
    throttle: Callable[[bool], None]


class Saver(Protocol):
    """What a callback has that saves checkpoints. All but `save` must return at once."""

    def when(self) -> Wish:
        """Asked once, when the run begins."""

    def accept(self, occasion: Occasion) -> bool:
        """Whether it wants this one. If so, `save` comes, unless the run is cancelled meanwhile."""

    async def save(self, checkpoint: Checkpoint) -> None:
        """What it raises fails the run."""


@dataclass(slots=True, eq=False, kw_only=True)
class Checkpoint:
    """All that the next batch depends on.

    Attributes:
        position: where in the run.
        final: it is that of a resumable stop.
        time: when compute was there, in seconds since the epoch.
        attempt: the number of the run's attempt.
        publish: publishes an event in the run, such as CheckpointSaved.
        error: why it is none: what a callback raised instead of its state.
    """

    position: Position
    final: bool
    time: float
    attempt: int
    publish: Callable[[Event], None]
    error: BaseException | None = None
    state: State
    change: Change | None
    carried: Carried
    callbacks: Mapping[str, Mapping[str, Any]]
    run: Mapping[str, Any]
    model: StateReader

    def write(self, path: str, writer: Writer) -> int:
        """Write it to a file, whole or not at all; how many bytes it has. For a worker thread.

        Raises:
            CheckpointError: it could not be written.
            Exception: it is none, or has something in it that no file can hold.
        """
        from .formats.checkpoint_h5 import Saved

        if self.error is not None:
            raise self.error
        change, model = self.change, self.model.file_of(self.state, self.change)
        arrays, at, carried = Arrays(), self.position, self.carried
        history, series = packed_history(self.run["history"])
        run = dict(self.run) | {
            "history": history,
            "state": arrays.packed(self.state, "state", "state()"),
            "change": None,
            "position": at._asdict() | {"sums": dict(at.sums), "counts": dict(at.counts)},
            "seq": carried.seq,
            "logs": dict(carried.logs),
            "stop": None if carried.stop is None else [carried.stop.who, carried.stop.reason],
            "callbacks": {
                name: arrays.packed(kept, f"callbacks/{number}", f"{name}.state_dict()")
                for number, (name, kept) in enumerate(self.callbacks.items())
            },
        }
        for name, update in (("restore", carried.restore), ("fallback", carried.fallback)):
            run[name] = update and [
                update.who,
                arrays.packed(update.value, name, "restore_at_end()"),
                update.source_step,
            ]
        if change is not None:
            weights = change.weights and arrays.packed(change.weights, "change", "set_weights()")
            run["change"] = {"rate": change.rate, "weights": weights}
        return writer.write(path, Saved(model=model, arrays={**arrays.by_name, **series}, run=run))


Collected = Callable[[dict[str, Mapping[str, Any]], BaseException | None], None]
Collect = Callable[[Mapping[str, Any], Collected], Callable[[], list[str]]]


class Savings:
    """The savers of one run.

    Args:
        savers: they.
        collect: gets the states of callbacks, as of now; those with inline handlers are known. It gives back what
            tells who has not answered.
        settling: the `settled` of all callbacks that have one.
        start: starts work of the run.
        publish: publishes an event in the run.
        throttle: lets compute wait, or go on.
        take_point: asks compute for a checkpoint's state, soon.
        describe: what a checkpoint says of the run, of now.
        model: the side of the model.
        attempt: the number of this attempt.
    """

    def __init__(
        self,
        savers: Sequence[Saver],
        *,
        collect: Collect,
        settling: Callable[[], Sequence[Callable[[], Awaitable[None]]]],
        start: Callable[[Callable[..., Awaitable[object]], tuple[Any, ...]], None],
        publish: Callable[[Event], None],
        throttle: Callable[[object, bool], None],
        take_point: Callable[[], None],
        describe: Callable[[Point], dict[str, Any]],
        model: StateReader,
        attempt: int = 0,
    ) -> None:
        self._savers = [(saver, saver.when()) for saver in savers]
        self._collect, self._settling, self._start, self._publish = collect, settling, start, publish
        self._throttle, self._take_point, self._describe, self._model = throttle, take_point, describe, model
        self._since: dict[Saver, float] = {}
        self._asked = -math.inf
        self._attempt = attempt
        self._incomplete: set[anyio.CancelScope] = set()  # of checkpoints whose states are being collected
        self._deadline = math.inf

    def interest(self, interest: Interest) -> Interest:
        """With what compute has to report for them."""
        if not self._savers:
            return interest
        every = math.gcd(*(wish.every for _, wish in self._savers))
        boundaries = any(wish.boundaries for _, wish in self._savers)
        return interest._replace(saves=True, save_every=every, save_boundary=boundaries)

    def hurry(self, deadline: float) -> None:
        """Wait no longer than that for callbacks' states: what is not whole by then comes to nothing."""
        self._deadline = deadline
        for scope in self._incomplete:
            scope.deadline = deadline

    # --- by time -----------------------------------------------------------------------------------------------------

    @property
    def looks(self) -> float | None:
        """How often `look` is to be called, in seconds; None if time does not matter."""
        shortest = min((wish.seconds for _, wish in self._savers if wish.seconds is not None), default=None)
        return None if shortest is None else max(0.01, shortest / 10)

    def look(self) -> None:
        """Ask for a checkpoint if a saver's time has come."""
        now = time.monotonic()
        for saver, wish in self._savers:
            if self._is_time(saver, wish, now) and now - self._asked >= (wish.seconds or 0) / 2:
                self._asked = now
                self._take_point()
                return

    def _is_time(self, saver: Saver, wish: Wish, now: float) -> bool:
        return wish.seconds is not None and now - self._since.setdefault(saver, now) >= wish.seconds

    # --- when a place is reached -------------------------------------------------------------------------------------

    def reached(self, point: Point) -> None:
        """A checkpoint can be taken here."""
        now, at = time.monotonic(), point.position
        wanted: list[Saver] = []
        for saver, wish in self._savers:
            due = point.final or (wish.boundaries and not at.begun) or self._is_time(saver, wish, now)
            if not due and not (wish.every and at.step % wish.every == 0):
                continue
            throttle = functools.partial(self._throttle, saver)
            if saver.accept(Occasion(position=at, final=point.final, throttle=throttle)):
                self._since[saver] = now
                wanted.append(saver)
        if wanted:
            self._take(point, wanted)

    def _take(self, point: Point, wanted: list[Saver]) -> None:
        checkpoint = Checkpoint(
            position=point.position, final=point.final, time=point.time, attempt=self._attempt, publish=self._publish,
            state=point.state, change=point.change, carried=point.carried, callbacks={}, run=self._describe(point),
            model=self._model,
        )  # fmt: skip
        whole = Signal()

        def collected(states: dict[str, Mapping[str, Any]], error: BaseException | None) -> None:
            if checkpoint.error is None:
                checkpoint.callbacks, checkpoint.error = states, error
            whole.set()

        missing = self._collect(point.kept, collected)
        for saver in wanted:
            self._start(self._saved, (saver, checkpoint, whole, missing))

    async def _saved(
        self, saver: Saver, checkpoint: Checkpoint, whole: Signal, missing: Callable[[], list[str]]
    ) -> None:
        with anyio.CancelScope(deadline=self._deadline) as scope:
            self._incomplete.add(scope)
            try:
                await whole.wait()
                for settled in self._settling():
                    await settled()
            finally:
                self._incomplete.discard(scope)
        if not whole.is_set():
            checkpoint.error = CheckpointError(
                errno.ETIMEDOUT,
                "the states of callbacks, which a checkpoint needs, were not to be had in the time that they have at "
                f"the run's end (drain_timeout=): {', '.join(missing())}",
            )
        await saver.save(checkpoint)


def kept_copy(state: Mapping[str, Any], who: str) -> dict[str, Any]:
    """A callback's state, so that nobody changes it any more; what nobody can write to is taken as it is.

    Raises:
        TypeError: it is no mapping.
        InvalidInput: it has something in it that no checkpoint can keep.
    """
    given: Any = state
    if isinstance(given, Coroutine):
        given.close()
        raise TypeError(f"{who}.state_dict is `async def`; a checkpoint takes the state at one moment: make it `def`")
    if not isinstance(given, Mapping):
        raise TypeError(f"{who}.state_dict must return a mapping of names to values, not {given!r:.80}")
    copied: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, np.ndarray) and value.flags.writeable:
            value = value.copy()
        elif isinstance(value, list | dict | tuple):
            value = plain(value, f"{who}.state_dict()[{name!r}]")
        copied[name] = value
    return copied

"""`BackupAndRestore`: a run that is killed goes on where its newest checkpoint is when the same script starts again."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

import anyio
import anyio.lowlevel
import numpy as np

from ..backups import Directory, file_name
from ..errors import CheckpointError, DirectoryBusy, InvalidInput
from ..events import CheckpointFailed, CheckpointSaved, TrainBegin, TrainEnd
from ..formats.paths import is_path
from ..front import keywords_checked
from ..names import unknown
from ..nn.naming import number, whole
from ..protocol import Position
from ..resuming import Found, newest
from ..saving import Checkpoint, Occasion, Wish
from ..subscriptions import OnError
from .base import SAVES, ShippedCallback, flag, logger
from .files import off_loop
from .writes import obstacle

if TYPE_CHECKING:
    from ..formats.checkpoint_h5 import Writer

__all__ = ["BackupAndRestore"]

Overflow = Literal["newest", "wait"]

SLOTS = 2
"""One checkpoint is being written, and one waits for that."""


class BackupAndRestore(ShippedCallback):
    """Saves the whole run again and again, and lets it go on from the newest checkpoint when it is started again.

    Run the same script after a crash, a kill or a resumable stop: `fit` finds the newest whole file in `backup_dir` and
    goes on there, in the middle of an epoch too, and ends with the bits and the history that it would have had. A
    damaged file is told of (`CheckpointFailed`), and the one before is used. A file is a checkpoint of everything, and
    also a model that `af.load_model` and Keras open.

    Training goes on while a file is written; one write runs and one waits. `CheckpointSaved` is published when a file
    is durable; older ones are deleted after that. A file that cannot be written is told of by `CheckpointFailed` and
    logged, and training goes on to the next occasion; with the attribute `backup.on_error = "raise"` the run fails. The
    last checkpoint of a resumable stop is always written, and an error there always fails the run.

    When the run has completed, or was stopped for good, its checkpoints are deleted, and the directory if nothing else
    is in it. They stay after a resumable stop, a cancellation or a failure. While a run lasts it has the directory for
    itself: a second one is refused with `DirectoryBusy`, whichever process it is in.

    Args:
        backup_dir: a directory for this run alone; it is made if it is not there.
        save_freq: "epoch", or a number of batches, counted over the whole run. False: neither.
        double_checkpoint: Keras's way to keep the checkpoint before the newest one too, which `keep` does anyway.
        delete_checkpoint: False keeps the files also when the run has completed, after epochs that of its very end.
        every_s: save also when so many seconds have passed since the last one, in the middle of an epoch too.
        keep: so many of the newest files stay.
        overflow: what happens when checkpoints are wished for faster than they can be written. "newest": the one that
            waits gives way to a newer one. "wait": training waits.
        name: what statistics and messages call it.

    Raises:
        InvalidInput: something cannot be used, the directory included, as far as that shows.
        DirectoryBusy: when the run begins: another one has the directory.
        CheckpointError: when the run begins: nothing can be written there.
        BadFile: when the run begins: there are checkpoints, and none is whole.
    """

    order = SAVES
    on_error: OnError = "log"

    @keywords_checked
    def __init__(
        self,
        backup_dir: str | os.PathLike[str],
        save_freq: int | Literal["epoch", False] = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
        *,
        every_s: float | None = None,
        keep: int = 2,
        overflow: Overflow = "newest",
        name: str | None = None,
    ) -> None:
        self.backup_dir = _checked_directory(backup_dir)
        if save_freq is not False and save_freq != "epoch":
            if isinstance(save_freq, str | bool | np.bool_):
                raise InvalidInput(
                    'BackupAndRestore(save_freq=…) is "epoch", a number of batches, or False for neither, not '
                    f"{save_freq!r}"
                )
            save_freq = whole("BackupAndRestore(save_freq=…)", save_freq, least=1)
        self.save_freq = save_freq
        self.double_checkpoint = flag("BackupAndRestore(double_checkpoint=…)", double_checkpoint)
        self.delete_checkpoint = flag("BackupAndRestore(delete_checkpoint=…)", delete_checkpoint)
        self.every_s = every_s
        if every_s is not None:
            self.every_s = number("BackupAndRestore(every_s=…)", every_s)
            if self.every_s <= 0:
                raise InvalidInput(f"BackupAndRestore(every_s=…) is a number of seconds above 0, not {every_s!r}")
        self.keep = whole("BackupAndRestore(keep=…)", keep, least=1)
        if self.double_checkpoint and self.keep < 2:
            raise InvalidInput(
                "BackupAndRestore(double_checkpoint=True) keeps two files, and keep=1 is one; drop either"
            )
        if overflow not in get_args(Overflow):
            raise InvalidInput(f"BackupAndRestore(overflow=…): {unknown('policy', overflow, get_args(Overflow))}")
        self.overflow = overflow
        super().__init__(name=name)
        self._directory = Directory(self.backup_dir)
        self._forget()

    def _forget(self) -> None:
        self._places: list[_Place] = []
        self._throttle: Callable[[bool], None] = lambda on: None
        self._damaged: set[str] = set()
        self._writer: Writer | None = None
        self._began = self._detached = False
        self._failing: str | None = None
        self._epochs: float = math.inf

    # --- before and after a run --------------------------------------------------------------------------------------

    def find(self, run_id: str) -> Found | None:
        """Lock the directory, and look for the newest whole checkpoint; in a worker thread."""
        from ..formats.checkpoint_h5 import Writer

        directory = self._directory
        directory.open(run_id)  # whatever is raised from here on, `release` follows
        self._forget()
        self._writer = Writer()
        files = [file.path for file in reversed(directory.listed())]
        found = newest(files, directory.attempt or 0)
        if found is None:
            return None
        self._damaged = {path for path, _ in found.damaged}
        directory.begin(str(found.run.get("run_id", run_id)), found.attempt)
        logger.info("%s: the run goes on from %s", self.label, found.path)
        return found

    def release(self) -> None:
        """The run has ended, or never began: let go of the directory."""
        self._directory.close(begun=self._began)
        self._places, self._writer = [], None

    async def on_train_begin(self, event: TrainBegin) -> None:
        self._began = True
        self._epochs = event.params.get("epochs") or math.inf
        if (event.run_id, event.attempt) != (self._directory.run, self._directory.attempt):
            await off_loop(self._directory.begin, event.run_id or "", event.attempt)  # it goes on from somewhere else

    async def on_train_end(self, event: TrainEnd) -> None:
        over = event.outcome == "completed" or (event.outcome == "stopped" and not event.resumable)
        if over and self.delete_checkpoint and event.outcome == "stopped":
            logger.info(
                "%s: the run was stopped for good, so its checkpoints in %s are deleted; a stop with resumable=True "
                "keeps them", self.label, self.backup_dir,
            )  # fmt: skip
        await off_loop(self._close, over and self.delete_checkpoint)

    def _close(self, delete: bool) -> None:
        self._directory.close(delete=delete)

    # --- which checkpoints it takes ----------------------------------------------------------------------------------

    def when(self) -> Wish:
        """At what places it wants checkpoints."""
        every = 0 if self.save_freq is False or self.save_freq == "epoch" else self.save_freq
        return Wish(every=every, boundaries=self.save_freq == "epoch", seconds=self.every_s)

    def accept(self, occasion: Occasion) -> bool:
        """Whether there is a place for this one."""
        if self._detached and not occasion.final:
            return False
        places, position = self._places, occasion.position
        must = occasion.final or (position.epoch >= self._epochs and not self.delete_checkpoint)
        if self.overflow == "newest" and len(places) >= SLOTS:
            # One that is still being collected stays: if each gave way to the next, none would ever be whole.
            if places[-1].waits:
                places.pop().drop()
            elif not must:
                return False
        places.append(_Place(position, occasion.final, must))
        if self.overflow == "wait":
            self._throttle = occasion.throttle
            self._throttle(len(places) >= SLOTS)
        return True

    async def save(self, checkpoint: Checkpoint) -> None:
        """Write it when its turn comes; or not, if a newer one has taken its place."""
        place = next(place for place in self._places if place.is_for(checkpoint))
        place.whole = True
        if place.must:
            for other in [other for other in self._places[: self._places.index(place)] if other.waits]:
                if self.overflow == "newest" or other.step == place.step:
                    self._places.remove(other)
                    other.drop()
        try:
            while not place.dropped and self._places[0] is not place:
                place.moved = anyio.Event()
                await place.moved.wait()
            await anyio.lowlevel.checkpoint()  # the last place where it can be cut off
            if not place.dropped:
                place.writing = True
                # A thread cannot be interrupted, and what it has done is to be told.
                with anyio.CancelScope(shield=True):
                    await self._save(checkpoint)
        finally:
            self._leave(place)

    def _leave(self, place: _Place) -> None:
        if place in self._places:
            self._places.remove(place)
        for other in self._places:
            other.moved.set()
        self._throttle(len(self._places) >= SLOTS)

    # --- writing -----------------------------------------------------------------------------------------------------

    async def _save(self, checkpoint: Checkpoint) -> None:
        step = checkpoint.position.step
        path, size, error = await off_loop(self._write, checkpoint)
        if error is not None:
            checkpoint.publish(CheckpointFailed(path=path, error=error, step=step))
            self._failed(error, path, final=checkpoint.final)
            return
        checkpoint.publish(
            CheckpointSaved(path=path, size=size, seconds=max(0.0, time.time() - checkpoint.time), step=step)
        )
        if self._failing is not None:
            logger.warning("%s: checkpoints can be written again: %s", self.label, path)
            self._failing = None
        await off_loop(self._directory.prune, self.keep, self._damaged)

    def _write(self, checkpoint: Checkpoint) -> tuple[str, int, Exception | None]:
        """Path, bytes, and what went wrong; in a thread."""
        step = checkpoint.position.step
        path = os.path.join(self._directory.path, file_name(checkpoint.attempt, step))
        assert self._writer is not None  # `find` comes before all
        try:
            path = self._directory.place(checkpoint.attempt, step)
            return path, checkpoint.write(path, self._writer), None
        except Exception as error:
            return path, 0, error

    def _failed(self, error: Exception, path: str, *, final: bool) -> None:
        if final or self.on_error == "raise" or not isinstance(error, OSError | DirectoryBusy):
            raise error  # what is no matter of the disk will be no better next time
        text = f"{type(error).__name__}: {error}"
        kind = f"{type(error).__name__} {getattr(error, 'errno', '')}"
        if kind != self._failing:  # else it was said before: a full disk stays full for many batches
            self._failing = kind
            known = isinstance(error, CheckpointError | DirectoryBusy)
            said = "%s: %s was not written, and training goes on: %s"
            logger.error(said, self.label, path, text, exc_info=None if known else error)
        _without_traceback(error)
        self._detached = self.on_error == "detach"


class _Place:
    """A checkpoint that was accepted: first its state is collected, then it waits for its turn, then it is written."""

    def __init__(self, position: Position, final: bool, must: bool) -> None:
        self._position, self.final, self.must = position, final, must
        self.whole = self.writing = self.dropped = False
        self.moved = anyio.Event()

    @property
    def step(self) -> int:
        return self._position.step

    @property
    def waits(self) -> bool:
        """Whether it is whole, and may give way to a newer one."""
        return self.whole and not self.writing and not self.must

    def is_for(self, checkpoint: Checkpoint) -> bool:
        """Whether it was accepted for this one."""
        return not self.whole and self._position is checkpoint.position and self.final == checkpoint.final

    def drop(self) -> None:
        """A newer one takes its place."""
        self.dropped = True
        self.moved.set()


def _checked_directory(given: object) -> str:
    try:
        path = os.fspath(given)  # type: ignore[call-overload]
    except TypeError:
        raise InvalidInput(f"BackupAndRestore(backup_dir=…) is a path (str or os.PathLike), not {given!r}") from None
    if not isinstance(path, str):
        raise InvalidInput(f"BackupAndRestore(backup_dir=…) is a path of text, not of bytes: {path!r}")
    if not is_path(path):
        raise InvalidInput(f"BackupAndRestore(backup_dir=…): {path!r} is no path")
    found = obstacle(os.path.join(path, file_name(0, 0)))
    if found is not None:
        raise InvalidInput(f"BackupAndRestore: no checkpoints can be written to {path!r}: {found.strerror}") from found
    return path


def _without_traceback(error: BaseException) -> None:
    """Whoever keeps the event of a failure keeps its error, and with a traceback all that was about to be written."""
    seen: list[BaseException] = [error]
    for each in seen:
        each.__traceback__ = None
        seen += [other for other in (each.__cause__, each.__context__) if other is not None and other not in seen]

"""`ModelCheckpoint`: files of the model while it trains, decided and named as Keras does it."""

from __future__ import annotations

import os
import string
import types
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from ..callback import Callback
from ..errors import InvalidInput
from ..events import BatchEnd, EpochEnd, TrainBegin
from ..formats.paths import WEIGHTS, check_name
from ..front import keywords_checked
from ..nn.naming import number, whole
from ..reading import Reader
from .base import SAVES, flag
from .monitor import Mode, MonitoringCallback
from .writes import Write, Writes, obstacle

__all__ = ["ModelCheckpoint"]


class ModelCheckpoint(MonitoringCallback):
    """Saves the model, or its weights, after each epoch or each n-th batch: always, or when it is the best so far.

    Training goes on while a file is written. One write runs and one waits; a newer one for the same file takes the
    place of the one that waits, and with other file names the next decision waits for a place. The run's end waits for
    all of them. `CheckpointSaved` is published when a file is durable, and `CheckpointFailed` when it could not be
    written, which then fails the run with a `CheckpointError`; with the attribute `checkpoint.on_error = "log"` it is
    logged, and the run goes on.

    A monitor that the logs lack is logged, and the model saved. An epoch cut short by a stop is not saved.

    Args:
        filepath: with names in braces filled in: `{epoch}` and `{batch}`, which count from 1, and those of the logs,
            as in `"{epoch:02d}-{val_loss:.2f}.h5"`. It ends in `.h5`, or in `.weights.h5` for weights alone. Its
            directory is made when the first file is written.
        monitor: the figure that says which model is the best.
        verbose: 1 logs what it does.
        save_best_only: save only what is better than all before.
        save_weights_only: save the weights alone, with the optimizer's state.
        mode: "min", "max", or "auto".
        save_freq: "epoch", or a number of batches, counted over the whole run. The logs of a batch are those of this
            batch alone.
        initial_value_threshold: what the first one has to be better than.
        keep_last: delete all but so many of the newest files; of those that this run wrote, or the run that it
            continues. A file is deleted only when a newer one is durable.
        keep_best: the same with the best by `monitor`; of equal ones the newer stays. With both, what either keeps.
        name: what statistics and messages call it.

    Raises:
        InvalidInput: the path cannot be used, as far as that can be told before the names are filled in; when the run
            begins, the same again, or if the direction of the monitor cannot be told; while it runs, if the logs lack
            a name in the path.
    """

    order = SAVES
    keeps: ClassVar[Mapping[str, type]] = {"best": float, "files": str}
    best: float | None

    @keywords_checked
    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: Mode = "auto",
        save_freq: int | Literal["epoch"] = "epoch",
        initial_value_threshold: float | None = None,
        *,
        keep_last: int | None = None,
        keep_best: int | None = None,
        name: str | None = None,
    ) -> None:
        self.save_best_only = flag("ModelCheckpoint(save_best_only=…)", save_best_only)
        self.save_weights_only = flag("ModelCheckpoint(save_weights_only=…)", save_weights_only)
        self.filepath = check_name(filepath, weights=self.save_weights_only)
        if save_freq != "epoch":
            if isinstance(save_freq, str):
                raise InvalidInput(f'ModelCheckpoint(save_freq=…) is "epoch" or a number of batches, not {save_freq!r}')
            save_freq = whole("ModelCheckpoint(save_freq=…)", save_freq, least=1)
        self.save_freq = save_freq
        fields = _check_template(self.filepath, by_batch=save_freq != "epoch")
        if initial_value_threshold is not None and not isinstance(initial_value_threshold, float):
            # of floats all are taken, NaN and infinity too, as in Keras
            initial_value_threshold = number("ModelCheckpoint(initial_value_threshold=…)", initial_value_threshold)
        self.initial_value_threshold = initial_value_threshold
        self.keep_last = None if keep_last is None else whole("ModelCheckpoint(keep_last=…)", keep_last, least=1)
        self.keep_best = None if keep_best is None else whole("ModelCheckpoint(keep_best=…)", keep_best, least=1)
        for option, alone in (("keep_last", True), ("keep_best", self.save_best_only)):
            count = getattr(self, option)
            if not fields and count is not None and not (count == 1 and alone):  # the one that there is says the same
                raise InvalidInput(
                    f"ModelCheckpoint({option}=…) chooses among files, and the path {self.filepath!r} is the same "
                    f"file each time; put {{epoch}} into its name: "
                    f"{_with_epoch(self.filepath, weights=self.save_weights_only)!r}"
                )
        _check_place(self.filepath)
        self._writes = Writes(self.keep_last, self.keep_best, self._written)
        self._best_write: Write | None = None
        super().__init__(monitor, mode, name=name, verbose=verbose)
        unused = "on_batch_end"
        if isinstance(save_freq, int):
            self.gates, self.every, unused = "batch", save_freq, "on_epoch_end"
        if getattr(type(self), unused) is getattr(ModelCheckpoint, unused):  # a hook that does nothing is not called
            setattr(self, unused, types.MethodType(getattr(Callback, unused), self))

    def reset(self) -> None:
        """Forget the best, and the files."""
        self.best = self._best_on_disk = self.initial_value_threshold
        self._best_write = None
        self._writes.files = []

    @property
    def files(self) -> str:
        """The files that it may delete, as text."""
        return self._writes.to_text()

    @files.setter
    def files(self, text: str) -> None:
        self._writes.from_text(text)

    def on_train_begin(self, event: TrainBegin) -> None:
        super().on_train_begin(event)
        self._best_on_disk = self.best
        _check_place(self.filepath)
        if self.save_weights_only and not isinstance(event.model._model, Reader):
            raise InvalidInput(
                f"{self.label}(save_weights_only=True) is for models of layers: {event.params.get('trainable')} has "
                "a state, of which nobody knows what weights are; leave it out to save the whole state"
            )
        self._writes.direction = self.direction or "min"

    async def on_batch_end(self, event: BatchEnd) -> None:
        await self._consider(event, {"batch": event.batch + 1})

    async def on_epoch_end(self, event: EpochEnd) -> None:
        if event.complete:
            await self._consider(event, {})

    async def _consider(self, event: EpochEnd | BatchEnd, numbers: Mapping[str, int]) -> None:
        path = self._path(event, numbers)
        at = f"epoch {event.epoch + 1}"
        value = event.logs.get(self.monitor)
        if self.save_best_only or self.keep_best is not None:
            self.monitored(event.logs, "the model is saved" if self.save_best_only else "no file is the best")
        write = Write(event, event.model, path, value)
        if self.save_best_only and value is not None:
            best = "nothing" if self.best is None else f"{self.best:.5f}"
            if not self.improves(value, self.best):
                self.say("%s: %s=%.5f is no better than %s", at, self.monitor, value, best)
                return
            self.say("%s: %s went from %s to %.5f", at, self.monitor, best, value)
            self.best, self._best_write = value, write
        self.say("%s: the model goes to %s", at, path)
        await self._writes.put(write)

    async def settled(self) -> None:
        """A checkpoint of the run is to be written that says of these files that they are there: let them be."""
        await self._writes.settled()

    def _path(self, event: EpochEnd | BatchEnd, numbers: Mapping[str, int]) -> str:
        fields: dict[str, Any] = {"epoch": event.epoch + 1, **numbers, **event.logs}
        try:
            return self.filepath.format(**fields)
        except KeyError as error:
            raise InvalidInput(
                f"{self.label}: the path {self.filepath!r} needs {error.args[0]!r}, which the logs of this "
                f"{event.type} lack; they have {', '.join(event.logs) or 'nothing'}"
            ) from None

    def _written(self, write: Write, durable: bool) -> None:
        if durable and self.save_best_only and write.value is not None:
            self._best_on_disk = write.value
        if self._best_write is write:
            self._best_write = None  # it holds a model, and by its event the run
            if not durable:  # what is not on the disk is nothing to beat
                self.best = self._best_on_disk


def _check_place(path: str) -> None:
    """Refuse a place where no file can be written, as far as that shows before its names are filled in."""
    fixed = ""
    for text, field, _, _ in string.Formatter().parse(path):
        fixed += text
        if field is not None:
            fixed = os.path.join(os.path.dirname(fixed), "…")  # any file there
            break
    found = obstacle(fixed)
    if found is not None:
        raise InvalidInput(f"ModelCheckpoint: no file can be written to {path!r}: {found.strerror}") from found


def _with_epoch(path: str, *, weights: bool) -> str:
    stem = path.removesuffix(WEIGHTS) if weights else os.path.splitext(path)[0]
    return f"{stem}-{{epoch}}{path[len(stem) :]}"


def _check_template(path: str, *, by_batch: bool) -> list[str]:
    """The names to fill in. Those that no logs could ever fill in are refused, and formats that fit no number."""
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(path) if field is not None]
    except ValueError as error:
        raise InvalidInput(f"ModelCheckpoint: the path {path!r} cannot be filled in: {error}") from None
    for field in fields:
        what = ""
        if not field or field.isdigit():
            what = "names its fields: {epoch}, {val_loss:.2f}"
        elif field == "batch" and not by_batch:
            what = "has no {batch} at the end of an epoch; save_freq=n saves at batches"
        elif by_batch and (field.startswith("val_") or field == "learning_rate"):
            what = f"has no {{{field}}} at a batch, whose logs are those of the training; save_freq='epoch' has it"
        if what:
            raise InvalidInput(f"ModelCheckpoint: the path {path!r} {what}")
    try:
        path.format_map(_Example())
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise InvalidInput(f"ModelCheckpoint: the path {path!r} cannot be filled in: {error}") from None
    return fields


class _Example(dict[str, float]):
    """A number for each name."""

    def __missing__(self, name: str) -> float:
        return 1 if name in ("epoch", "batch") else 0.5

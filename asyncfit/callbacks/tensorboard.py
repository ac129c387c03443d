"""`TensorBoard`: figures, learning rate and histograms of weights for TensorBoard, in the files that Keras writes."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from typing import Any

import anyio

from .. import extras
from ..errors import DetachedEvent, InvalidInput
from ..events import BatchBegin, BatchEnd, EpochBegin, EpochEnd, TrainBegin, TrainEnd, ValidationEnd
from ..front import keywords_checked
from ..names import unknown
from ..nn.naming import whole
from ..snapshot import Snapshot
from .base import SAVES, StatefulCallback, flag
from .files import Gathered, checked_path, off_loop
from .tfevents import EventFile, Figure

__all__ = ["TensorBoard"]

MOST = 1000
"""Figures that wait to be written."""

NOT_HERE = {
    "write_graph": "there is no graph of TensorFlow to draw; model.summary() prints the layers",
    "write_images": "weights are not drawn as images; histogram_freq=1 shows them as histograms",
    "profile_batch": "the profiler is TensorFlow's; write_steps_per_second=True tells how fast it goes",
    "embeddings_freq": "there are no embedding layers",
    "embeddings_metadata": "there are no embedding layers",
}
"""What Keras's callback does and this one does not, and why."""


class TensorBoard(StatefulCallback):
    """Writes what `tensorboard --logdir logs` shows, with Keras's names in Keras's folders.

    In `log_dir/train`, by epoch (from 0): `epoch_loss`, `epoch_learning_rate` and so on; in `log_dir/validation` the
    same of the validation, and `evaluation_loss_vs_iterations` by batches trained. With `update_freq` also
    `batch_loss` and so on, by batches trained in the run (from 1). Here these are the figures of that batch alone;
    Keras writes the mean of the epoch so far. And an epoch's figures are always written, where Keras leaves out those
    of epochs whose last batch is no multiple of `update_freq`.

    Files are written in a thread, at the end of each epoch and after a second at the latest. Each run, a resumed one
    too, has files of its own. With histograms the callback is a gate: the run waits for it where a histogram is not
    done when the next is due.

    Args:
        log_dir: where the folders `train` and `validation` are made.
        histogram_freq: epochs from one histogram of all weights to the next, from epoch 0 on; 0 for none.
        write_graph, write_images, profile_batch, embeddings_freq, embeddings_metadata: as in Keras, but must be off.
        write_steps_per_second: write `epoch_steps_per_second`, and with `update_freq` `batch_steps_per_second`.
        update_freq: "epoch", "batch", or so many batches from one writing to the next.
        name: what statistics and messages call it.

    Raises:
        ImportError: tensorboard is not installed (the extra `tensorboard`). TensorFlow is not needed.
    """

    order = SAVES

    @keywords_checked
    def __init__(
        self,
        log_dir: str | os.PathLike[str] = "logs",
        histogram_freq: int = 0,
        write_graph: bool = False,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: str | int = "epoch",
        profile_batch: int | tuple[int, int] = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: Any = None,
        *,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        extras.require("tensorboard", extra="tensorboard", what=self.label)
        given = (write_graph, write_images, profile_batch, embeddings_freq, embeddings_metadata)
        for (key, why), value in zip(NOT_HERE.items(), given, strict=True):
            if value:
                raise InvalidInput(f"{self.label}({key}={value!r}) is not possible: {why}")
        self.log_dir = checked_path(f"{self.label}(log_dir=…)", log_dir)
        if os.path.exists(self.log_dir) and not os.path.isdir(self.log_dir):
            raise InvalidInput(f"{self.label}(log_dir=…): {self.log_dir} is a file; give a directory, or a new name")
        self.histogram_freq = whole("histogram_freq", histogram_freq, least=0)
        self.write_steps_per_second = flag(f"{self.label}(write_steps_per_second=…)", write_steps_per_second)
        self.update_freq: int | None = None
        if update_freq != "epoch":
            if isinstance(update_freq, str) and update_freq != "batch":
                raise InvalidInput(
                    f"{self.label}(update_freq=…): {unknown('frequency', update_freq, ('epoch', 'batch'))}, or batches"
                )
            self.update_freq = 1 if isinstance(update_freq, str) else whole("update_freq", update_freq, least=1)
        self.gates = "epoch" if self.histogram_freq else "none"
        self._figures = Gathered(self._add, MOST)
        if self.write_steps_per_second or self.update_freq is not None:
            self.on_batch_end = self._batch_ended  # type: ignore[method-assign]
            if self.write_steps_per_second:
                self.on_batch_begin = self._batch_began  # type: ignore[method-assign]
            else:
                self.every = self.update_freq or 1

    def reset(self) -> None:
        self._files: dict[str, EventFile] = {}
        self._steps: int | None = None  # batches in an epoch
        self._done = self._done_before = 0  # batches, and those before this epoch
        self._epoch_began = self._batch_began_at = 0.0
        self._drawing: anyio.Event | None = None

    async def on_train_begin(self, event: TrainBegin) -> None:
        super().on_train_begin(event)
        self._steps = event.params.get("steps")
        self._files = {name: EventFile(os.path.join(self.log_dir, name)) for name in ("train", "validation")}
        self._figures.begin()
        await off_loop(self._files["train"].add, [])  # what cannot be written shows now
        event.start_soon(self._figures.keep_flushing, wait=False)

    def _batch_began(self, event: BatchBegin) -> None:
        self._batch_began_at = event.time

    def _batch_ended(self, event: BatchEnd) -> Awaitable[None] | None:
        self._done = event.step + 1
        if self.update_freq is None or self._done % self.update_freq:
            return None
        figures = {f"batch_{name}": value for name, value in event.logs.items()}
        if self.write_steps_per_second and event.time > self._batch_began_at:
            figures["batch_steps_per_second"] = 1.0 / (event.time - self._batch_began_at)
        due = [self._figures.add(("train", (event.time, self._done, *figure))) for figure in figures.items()]
        return self._figures.flush() if any(due) else None

    def on_epoch_begin(self, event: EpochBegin) -> None:
        self._epoch_began, self._done_before = event.time, self._done

    def on_validation_end(self, event: ValidationEnd) -> None:
        if self._steps is not None:
            trained = (event.epoch + 1) * self._steps
            for name, value in event.logs.items():
                self._figures.add(("validation", (event.time, trained, f"evaluation_{name}_vs_iterations", value)))

    async def on_epoch_end(self, event: EpochEnd) -> None:
        for name, value in event.logs.items():
            folder = "validation" if name.startswith("val_") else "train"
            self._figures.add((folder, (event.time, event.epoch, f"epoch_{name.removeprefix('val_')}", value)))
        if self.write_steps_per_second and event.time > self._epoch_began:
            rate = (self._done - self._done_before) / (event.time - self._epoch_began)
            self._figures.add(("train", (event.time, event.epoch, "epoch_steps_per_second", rate)))
        if self.histogram_freq and event.complete and not event.epoch % self.histogram_freq:
            await self._draw_soon(event)
        await self._figures.flush()

    async def on_train_end(self, event: TrainEnd) -> None:
        await self._figures.flush()

    # --- histograms --------------------------------------------------------------------------------------------------

    async def _draw_soon(self, event: EpochEnd) -> None:
        """Let the run's weights be drawn while it goes on; one such work at a time, for each holds a model."""
        if self._drawing is not None:
            await self._drawing.wait()
        self._drawing = anyio.Event()
        try:
            event.start_soon(self._draw, event.model, event.time, self._drawing)
        except DetachedEvent:  # the run was cancelled meanwhile, and nothing of it is left to draw
            self._drawing.set()

    async def _draw(self, model: Snapshot, when: float, done: anyio.Event) -> None:
        try:
            await off_loop(self._add_histograms, model, when)
        finally:
            done.set()

    # --- in a thread -------------------------------------------------------------------------------------------------

    def _add_histograms(self, model: Snapshot, when: float) -> None:
        weights = {name.replace(":", "_"): values for name, values in model.named_weights().items()}
        self._files["train"].add(
            (when, model.epoch, f"{name}/histogram", values)
            for name, values in weights.items()
            if values.dtype.kind in "fiu"
        )

    def _add(self, figures: list[tuple[str, Figure]]) -> None:
        for folder, file in self._files.items():
            mine = [figure for name, figure in figures if name == folder]
            if mine:
                file.add(mine)

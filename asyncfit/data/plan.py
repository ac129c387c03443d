"""What `fit`, `evaluate` and `predict` were given, checked in two halves and made into sources of batches.

    plan = plan_fit(x, y, batch_size=32, epochs=10, validation_split=0.2)      # at once: types, shapes, ranges
    data = await to_thread.run_sync(plan.read, (seed, number_of_the_fit))      # off the loop: every value
    for epoch in range(plan.initial_epoch, plan.epochs):
        for x, y, sample_weight, size in data.train.batches(epoch): ...
        if data.validation is not None and plan.validates(epoch):
            for x, y, sample_weight, size in data.validation.batches(0): ...

Plain and synchronous; nothing of models. Meanings are Keras's; where they differ, it says so.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput

from . import options
from .arrays import Array, ArrayData, Batch
from .batch import BatchIntake
from .blocks import StoredData
from .feed import Feed
from .feedpass import FeedPass
from .intake import Rows, take_in
from .kinds import BatchSource, batch_source
from .later import later
from .lists import ListData
from .stored import Stored
from .values import Labels, check_finite, check_labels, check_some, check_words, nothing, weights_by_class

__all__ = [
    "AnyPass",
    "FitData",
    "FitOptions",
    "FitPlan",
    "PassPlan",
    "RowData",
    "check_labels_of",
    "fit_options",
    "given_evaluate",
    "given_fit",
    "given_predict",
    "plan_evaluate",
    "plan_fit",
    "plan_predict",
]

RowData = ArrayData | StoredData


@dataclass(frozen=True, slots=True)
class FitData:
    """The sources that a fit reads: `RowData`, `ListData` or `Feed`, and for the validation perhaps None."""

    train: Any
    validation: Any

    def limit(self, batches: int, validations: int) -> None:
        """No more than so many will be wanted."""
        if isinstance(self.train, Feed):
            self.train.limit = batches
        if isinstance(self.validation, Feed):
            self.validation.limit = validations * self.validation.steps(0)

    @property
    def settings(self) -> dict[str, Any]:
        """What the order of rows depends on, besides what `FitPlan.settings` has."""
        train = self.train
        return {"blocks": [train.block_rows, train.window_blocks]} if isinstance(train, StoredData) else {}

    def check_labels(self, labels: Labels) -> None:
        """Refuse labels that a sparse loss cannot take. O(rows): off the loop.

        Those that stay in a file are checked when they are read.
        """
        for name, source in (("y", self.train), ("the validation data's y", self.validation)):
            if source is not None:
                check_labels_of(name, source, labels)

    def check_words(self, words: int) -> None:
        """Refuse what an Embedding of so many words does not know. O(rows): off the loop.

        What is not in memory is checked by the layer, batch by batch.
        """
        for name, source in (("x", self.train), ("the validation data's x", self.validation)):
            if isinstance(source, RowData) and not isinstance(source.x, Stored):
                check_words(name, source.x, words)

    def check_portable(self) -> None:
        """Refuse what another process cannot read."""
        for source in (self.train, self.validation):
            if isinstance(source, StoredData):
                source.check_portable()


def check_labels_of(
    name: str, source: RowData | ListData | Feed, labels: Labels, *, tick: Callable[[], None] = nothing
) -> None:
    """The same of one source."""
    if isinstance(source, Feed | ListData):
        source.intake.labels = labels
        if isinstance(source, ListData):
            source.check()
        return
    if isinstance(source, StoredData):
        source.labels = labels
    if source.y is not None and not isinstance(source.y, Stored):
        check_labels(name, source.y, labels, tick=tick)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassPlan:
    """One unshuffled pass: evaluate, predict, validation.

    Attributes:
        samples: how many rows there are.
        batch_size: rows a batch.
        steps: how many batches the pass has.
    """

    rows: Rows
    batch_size: int
    steps: int
    own_model: bool = False

    @property
    def samples(self) -> int:
        return self.rows.x.rows

    def resolved(self) -> PassPlan:
        """See `Later`."""
        return self

    def read(self, tick: Callable[[], None] = nothing) -> RowData:
        """Open the source and check every value that is in memory. Raises InvalidInput; call it off the loop.

        What is mapped from a file is checked batch by batch, by `batches`: it is read once.

        Args:
            tick: called every now and then; what it raises ends the reading.
        """
        rows = self.rows.load(own_model=self.own_model)
        for given in rows.all():
            tick()
            if not _mapped(given.loaded):
                check_finite(given.name, given.loaded, as_given=self.own_model, tick=tick)
        return _source(*rows.arrays(), batch_size=self.batch_size, steps_per_epoch=self.steps, as_given=self.own_model)

    def opened(self, tick: Callable[[], None] = nothing) -> Iterator[Batch]:
        """`read`, and then its batches."""
        return self.batches(self.read(tick))

    def batches(self, data: RowData) -> Iterator[Batch]:
        """The batches of the pass, of what `read` returned; see `ArrayData.batches`."""
        if isinstance(data, StoredData):
            return data.batches(0)
        mapped = self._from_files(data)
        return self._checked(data, mapped) if mapped else data.batches(0)

    def slices(self, data: RowData) -> Iterator[Array]:
        """Of the batches of the pass x alone, as it was given (what stays in a file: as float32)."""
        if isinstance(data, StoredData):
            with closing(data.batches(0)) as batches:
                for batch in batches:
                    yield batch[0]
            return
        size, x = self.batch_size, data.x[: self.steps * self.batch_size]
        mapped = self._from_files(data)
        for start in range(0, len(x), size):
            if mapped:
                self._check(mapped, start, start + size)
            yield x[start : start + size]

    def _checked(self, data: ArrayData, mapped: list[tuple[str, Array]]) -> Iterator[Batch]:
        start = 0
        for batch in data.batches(0):
            self._check(mapped, start, start + batch[3])
            start += batch[3]
            yield batch

    def _check(self, mapped: list[tuple[str, Array]], start: int, stop: int) -> None:
        for name, column in mapped:
            check_some(name, column, start, stop, as_given=self.own_model)

    def _from_files(self, data: ArrayData) -> list[tuple[str, Array]]:
        """What `read` has not checked, by name."""
        names = [given.name for given in self.rows.all()]
        columns = [column for column in (data.x, data.y, data.sample_weight) if column is not None]
        return [(name, column) for name, column in zip(names, columns, strict=True) if _mapped(column)]


AnyPass = PassPlan | FeedPass


@dataclass(frozen=True, slots=True)
class ValidationEpochs:
    """Which epochs validate: each n-th, or those numbered (from 1) in a set."""

    freq: int | frozenset[int]

    def __call__(self, epoch: int) -> bool:
        freq = self.freq
        return (epoch + 1) % freq == 0 if isinstance(freq, int) else epoch + 1 in freq

    def count(self, first: int, epochs: int) -> int:
        """How many of the epochs from `first` up to `epochs` - 1 validate."""
        freq = self.freq
        if isinstance(freq, int):
            return max(0, epochs // freq - first // freq)
        return sum(first < epoch <= epochs for epoch in freq)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlan:
    """What `fit` was given about data and epochs.

    Attributes:
        rows, source: what there is to train on: rows, or what yields batches; the other is None.
        validation, validation_source: the same of what there is to validate on; both None: nothing, or a split.
        samples: rows to train on, after the split; None if nobody knows.
        batch_size: rows a batch; None if they are as they come.
        steps: batches an epoch (with `steps_per_epoch` the last epoch of a pass may have fewer).
        epochs, initial_epoch: epochs `initial_epoch` to `epochs` - 1 are to be run; none if that is empty. None: no
            end.
        validation_samples: rows to validate on, 0 without validation, None if nobody knows.
    """

    rows: Rows | None
    source: BatchSource | None = None
    validation: Rows | None
    validation_source: BatchSource | None = None
    split_at: int | None
    epochs: int | None
    initial_epoch: int
    batch_size: int | None
    steps_per_epoch: int | None
    shuffle: bool
    class_weight: Mapping[int, float] | None
    validation_batch_size: int
    prefetch: int = 1
    validation_steps: int | None
    validation_freq: int | frozenset[int]
    own_model: bool = False

    def resolved(self) -> FitPlan:
        """See `Later`."""
        return self

    @property
    def rewindable(self) -> bool:
        """Whether work on it may be undone and done again."""
        return all(source is None or source.rewindable for source in (self.source, self.validation_source))

    @property
    def fed(self) -> bool:
        """Whether there is something that compute does not read itself."""
        sources = self.source, self.validation_source
        return any(source is not None and source.kind != "listed" for source in sources)

    @property
    def once(self) -> bool:
        """Whether what is trained on can be read once only."""
        return self.source is not None and self.source.once

    @property
    def samples(self) -> int | None:
        if self.rows is None:
            return None
        return self.rows.x.rows if self.split_at is None else self.split_at

    @property
    def validation_samples(self) -> int | None:
        if self.validation_source is not None:
            return None
        if self.split_at is not None and self.rows is not None:
            return self.rows.x.rows - self.split_at
        return 0 if self.validation is None else self.validation.x.rows

    @property
    def steps(self) -> int:
        if self.source is not None:
            return self.source.steps(self.steps_per_epoch, "steps_per_epoch")
        assert self.samples is not None
        assert self.batch_size is not None
        return _steps(self.samples, self.batch_size, self.steps_per_epoch)

    @property
    def settings(self) -> dict[str, Any]:
        """What a run that goes on with another one must have in common with it, as far as numbers can say."""
        rows, weights = self.rows, self.class_weight
        by_class = None if weights is None else {str(key): weights[key] for key in sorted(weights)}
        if rows is None:
            assert self.source is not None
            return {
                "batches": self.source.kind,
                "length": self.source.length,
                "steps_per_epoch": self.steps_per_epoch,
                "shuffle": self.shuffle,
                "class_weight": by_class,
            }
        return {
            "samples": self.samples,
            "batch_size": self.batch_size,
            "steps_per_epoch": self.steps_per_epoch,
            "shuffle": self.shuffle,
            "validation_samples": self.validation_samples,
            "shape of a row of x": None if rows.x.array is None else str(rows.x.array.shape[1:]),
            "shape of a row of y": None if rows.y is None or rows.y.array is None else str(rows.y.array.shape[1:]),
            "sample_weight": rows.sample_weight is not None,
            "class_weight": by_class,
        }

    @property
    def x(self) -> Array | None:
        """x as an array, for a look at its shape before `read`; None if a long list is still to be converted."""
        return None if self.rows is None else self.rows.x.array

    @property
    def y(self) -> Array | None:
        """y as an array; None as for `x`, or if there is none."""
        return None if self.rows is None or self.rows.y is None else self.rows.y.array

    @property
    def validates(self) -> ValidationEpochs:
        """Whether validation follows an epoch (from 0)."""
        return ValidationEpochs(frozenset() if self.validation_samples == 0 else self.validation_freq)

    def read(self, key: tuple[int, int] = (0, 0)) -> FitData:
        """Convert what is left to convert, check every value and open the sources.

        `key` = (seed, number of the fit) decides the order of the rows. Raises InvalidInput. Takes time in
        proportion to the data: call it off the event loop, before the first event.
        """
        if self.rows is None:
            return FitData(self._train_feed(key), self._validation(None))
        rows = _read(self.rows, own_model=self.own_model)
        held_out = None if self.validation is None else _read(self.validation, own_model=self.own_model)
        if held_out is not None:
            _check_alike(rows, held_out, own_model=self.own_model)
        x, y, weight = rows.arrays()
        if self.class_weight is not None:
            assert y is not None
            _check_class_weight(rows)
            weight = weights_by_class("y", y if self.split_at is None else _cut(y, 0, self.split_at), self.class_weight)
        validation: tuple[Any, Any, Any] | None = None if held_out is None else held_out.arrays()
        if (at := self.split_at) is not None:
            # of sample_weight too; weights by class are for the rows trained on
            kept = None if rows.sample_weight is None else rows.sample_weight.loaded[at:]
            validation = _cut(x, at, len(x)), None if y is None else _cut(y, at, len(y)), kept
            x, y = _cut(x, 0, at), None if y is None else _cut(y, 0, at)
            weight = None if weight is None else weight[:at]
        train = _source(
            x, y, weight, batch_size=self.batch_size, shuffle=self.shuffle, key=key,
            steps_per_epoch=self.steps_per_epoch, as_given=self.own_model,
        )  # fmt: skip
        return FitData(train, self._validation(validation))

    def _validation(self, rows: tuple[Any, Any, Any] | None) -> RowData | ListData | Feed | None:
        source, size = self.validation_source, self.validation_batch_size
        if source is not None:
            intake = BatchIntake(source.name, own_model=self.own_model)
            if source.kind == "listed":
                return _checked(ListData(source, intake, steps=self.validation_steps))
            return Feed(source, intake, steps=self.validation_steps, prefetch=self.prefetch)
        if rows is None and self.validation is not None:
            rows = _read(self.validation, own_model=self.own_model).arrays()
        if rows is None:
            return None
        steps = _steps(len(rows[0]), size, self.validation_steps)
        return _source(*rows, batch_size=size, steps_per_epoch=steps, as_given=self.own_model)

    def _train_feed(self, key: tuple[int, int]) -> ListData | Feed:
        assert self.source is not None
        intake = BatchIntake(self.source.name, own_model=self.own_model, class_weight=self.class_weight)
        if self.source.kind == "listed":
            data = ListData(self.source, intake, steps=self.steps_per_epoch, shuffle=self.shuffle, key=key)
            return _checked(data)
        return Feed(
            self.source, intake, steps=self.steps_per_epoch, prefetch=self.prefetch, shuffle=self.shuffle, key=key
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions:
    """The arguments of `fit` that are no data, checked."""

    epochs: int | None
    initial_epoch: int
    steps: int | None
    prefetch: int
    shuffle: bool
    class_weight: dict[int, float] | None
    batch_size: int | None
    split: float
    validation_batch_size: int | None
    validation_steps: int | None
    validation_freq: int | frozenset[int]


def fit_options(
    *,
    epochs: object,
    initial_epoch: object,
    steps_per_epoch: object,
    shuffle: object,
    class_weight: object,
    batch_size: object,
    validation_split: object,
    validation_batch_size: object,
    validation_steps: object,
    validation_freq: object,
    prefetch: object,
) -> FitOptions:
    """Raises InvalidInput."""
    size = None if batch_size is None else options.whole("batch_size", batch_size)
    val_size = size
    if validation_batch_size is not None:
        val_size = options.whole("validation_batch_size", validation_batch_size)
    if epochs is None and steps_per_epoch is None:
        raise InvalidInput(
            "epochs=None trains until somebody stops it or the data ends; say with steps_per_epoch= how many batches "
            "are an epoch"
        )
    return FitOptions(
        epochs=None if epochs is None else options.whole("epochs", epochs),
        prefetch=options.whole("prefetch", prefetch, 0, "batches that are read ahead"),
        initial_epoch=options.whole("initial_epoch", initial_epoch, 0, "the first epoch is 0"),
        steps=None if steps_per_epoch is None else options.whole("steps_per_epoch", steps_per_epoch),
        validation_steps=None if validation_steps is None else options.whole("validation_steps", validation_steps),
        shuffle=options.flag("shuffle", shuffle, "shuffling within batches only is not supported"),
        split=options.fraction("validation_split", validation_split),
        validation_freq=options.validation_frequency(validation_freq),
        class_weight=None if class_weight is None else options.class_weights(class_weight),
        batch_size=size,
        validation_batch_size=val_size,
    )


def plan_fit(
    x: object,
    y: object = None,
    *,
    batch_size: object = 32,
    epochs: object = 1,
    initial_epoch: object = 0,
    steps_per_epoch: object = None,
    shuffle: object = True,
    class_weight: object = None,
    sample_weight: object = None,
    validation_data: object = None,
    validation_split: object = 0.0,
    validation_batch_size: object = None,
    validation_steps: object = None,
    validation_freq: object = 1,
    prefetch: object = 1,
    own_model: bool = False,
) -> FitPlan:
    """Check what `fit` was given, as far as that is quick; raises InvalidInput.

    With `own_model` (a user's Trainable) y may be None, weights may have any shape, and types are left as they
    are. As in Keras `validation_data` wins over `validation_split`, `class_weight` excludes `sample_weight`,
    `batch_size=None` means 32 or what `steps_per_epoch` implies, and weights may be negative.
    """
    chosen = fit_options(
        epochs=epochs, initial_epoch=initial_epoch, steps_per_epoch=steps_per_epoch, shuffle=shuffle,
        class_weight=class_weight, batch_size=batch_size, validation_split=validation_split,
        validation_batch_size=validation_batch_size, validation_steps=validation_steps,
        validation_freq=validation_freq, prefetch=prefetch,
    )  # fmt: skip
    steps, val_steps, split, by_class = chosen.steps, chosen.validation_steps, chosen.split, chosen.class_weight
    source, held_source = batch_source("x", x), batch_source("validation_data", validation_data)
    if held_source is not None:
        held_source.steps(val_steps, "validation_steps")
        if validation_batch_size is not None:
            raise InvalidInput("validation_batch_size= is for rows, but validation_data yields batches")
    if source is not None:
        _check_alone(source, y, sample_weight, batch_size, "fit")
        source.steps(steps, "steps_per_epoch")
        if split and validation_data is None:
            raise InvalidInput(
                f"validation_split={split:g} cannot be used, because x yields batches and nobody knows which are the "
                "last rows; give validation_data="
            )
        held_rows = None
        if validation_data is not None and held_source is None:
            held_rows = _validation_rows(validation_data, own_model=own_model)
        held_samples = 0 if held_rows is None else held_rows.x.rows
        return FitPlan(
            rows=None, source=source, validation=held_rows, validation_source=held_source, split_at=None,
            epochs=chosen.epochs, initial_epoch=chosen.initial_epoch, batch_size=None, steps_per_epoch=steps,
            shuffle=chosen.shuffle, class_weight=by_class, prefetch=chosen.prefetch,
            validation_batch_size=chosen.validation_batch_size or _implied(held_samples, val_steps),
            validation_steps=val_steps, validation_freq=chosen.validation_freq, own_model=own_model,
        )  # fmt: skip

    rows = _take_in(("x", "y", "sample_weight"), x, y, sample_weight, own_model=own_model, what="fit")
    if by_class is not None:
        if rows.sample_weight is not None:
            raise InvalidInput(
                "class_weight and sample_weight were both given; give one of them: sample_weight may carry the "
                "product, one weight a row"
            )
        _check_class_weight(rows)
    held_out, at = None, None
    if validation_data is not None and held_source is None:
        held_out = _validation_rows(validation_data, own_model=own_model)
        _check_alike(rows, held_out, own_model=own_model)
    elif split and validation_data is None:
        at = math.floor(rows.x.rows * (1.0 - split))  # Keras's arithmetic, to the row
        if at == 0 or at == rows.x.rows:
            raise InvalidInput(
                f"validation_split={split:g} of {rows.x.rows:,} rows leaves none to "
                f"{'train' if at == 0 else 'validate'} on; choose another share, or give more rows"
            )
    samples = rows.x.rows if at is None else at
    val_samples = rows.x.rows - samples if held_out is None else held_out.x.rows
    return FitPlan(
        rows=rows, validation=held_out, validation_source=held_source, split_at=at, prefetch=chosen.prefetch,
        epochs=chosen.epochs, initial_epoch=chosen.initial_epoch,
        batch_size=chosen.batch_size or _implied(samples, steps), steps_per_epoch=steps, shuffle=chosen.shuffle,
        class_weight=by_class, validation_batch_size=chosen.validation_batch_size or _implied(val_samples, val_steps),
        validation_steps=val_steps, validation_freq=chosen.validation_freq, own_model=own_model,
    )  # fmt: skip


def plan_evaluate(
    x: object,
    y: object = None,
    *,
    batch_size: object = 32,
    sample_weight: object = None,
    steps: object = None,
    own_model: bool = False,
) -> PassPlan:
    """Check what `evaluate` was given, as far as that is quick; see `plan_fit`. `steps` batches at most."""
    rows = _take_in(("x", "y", "sample_weight"), x, y, sample_weight, own_model=own_model, what="evaluate")
    return _pass(rows, batch_size, steps, own_model=own_model)


def plan_predict(x: object, *, batch_size: object = 32, steps: object = None, own_model: bool = False) -> PassPlan:
    """Check what `predict` was given, as far as that is quick. `steps` batches at most."""
    return _pass(Rows(take_in("x", x)), batch_size, steps, own_model=own_model)


def _pass_options(batch_size: object, steps: object) -> tuple[int | None, int | None]:
    limit = None if steps is None else options.whole("steps", steps)
    return None if batch_size is None else options.whole("batch_size", batch_size), limit


def _pass(rows: Rows, batch_size: object, steps: object, *, own_model: bool) -> PassPlan:
    size, limit = _pass_options(batch_size, steps)
    size = size or _implied(rows.x.rows, limit)
    return PassPlan(rows=rows, batch_size=size, steps=_steps(rows.x.rows, size, limit), own_model=own_model)


def _steps(samples: int, batch_size: int, limit: int | None) -> int:
    steps = -(-samples // batch_size)
    return steps if limit is None else min(steps, limit)


def _implied(samples: int, steps: int | None) -> int:
    """What `batch_size=None` means in Keras."""
    return 32 if steps is None else -(-samples // steps)


def _take_in(names: tuple[str, str, str], x: object, y: object, weight: object, *, own_model: bool, what: str) -> Rows:
    of_x = take_in(names[0], x)
    if y is None and not own_model:
        raise InvalidInput(
            f"{names[1]} is missing: {what} compares what the model makes of {names[0]} with targets; give one row "
            "of them for each row (what should be learned, or x itself for an autoencoder)"
        )
    of_y = None if y is None else take_in(names[1], y)
    return Rows(of_x, of_y, None if weight is None else take_in(names[2], weight)).checked(own_model=own_model)


def _validation_rows(data: object, *, own_model: bool) -> Rows:
    least = 1 if own_model else 2
    expected = "(x, y) or (x, y, sample_weight)"
    if not isinstance(data, tuple | list):
        raise InvalidInput(f"validation_data is a {type(data).__name__}; give a tuple {expected}")
    if not least <= len(data) <= 3:
        raise InvalidInput(f"validation_data has {len(data)} items; give a tuple {expected}")
    x, y, weight = (*data, None, None)[:3]
    names = ("validation_data[0]", "validation_data[1]", "validation_data[2]")
    return _take_in(names, x, y, weight, own_model=own_model, what="validation")


def _check_alike(train: Rows, held_out: Rows, *, own_model: bool) -> None:
    """Rows to validate on have the shape of rows to train on (a user's own model may take what it likes)."""
    if own_model:
        return
    for one, other in ((train.x, held_out.x), (train.y, held_out.y)):
        if one is None or other is None or one.array is None or other.array is None:
            continue
        if (one.array.shape[1:] or (1,)) != (other.array.shape[1:] or (1,)):
            raise InvalidInput(
                f"{other.name} has rows of shape {other.array.shape[1:]}, but those of {one.name} have "
                f"{one.array.shape[1:]}; prepare both alike"
            )


def _check_class_weight(rows: Rows) -> None:
    if rows.y is None:
        raise InvalidInput("class_weight weighs rows by the class in y, but there is no y; pass sample_weight")
    if rows.y.array is not None and rows.y.array.ndim > 2:
        raise InvalidInput(
            f"class_weight needs one class a row, but y has shape {rows.y.array.shape}; pass sample_weight"
        )


def _checked(data: ListData) -> ListData:
    data.check()
    return data


def _check_alone(source: BatchSource, y: object, weight: object, batch_size: object, what: str) -> None:
    """What yields batches yields all that belongs to them."""
    kind = type(source.value).__name__
    if y is not None:
        raise InvalidInput(f"x ({kind}) yields batches, so {what} takes no y beside it: yield (x, y)")
    if weight is not None:
        raise InvalidInput(
            f"x ({kind}) yields batches, so {what} takes no sample_weight beside it: yield (x, y, sample_weight)"
        )
    if batch_size not in (None, 32):
        raise InvalidInput(
            f"batch_size={batch_size} cannot be used: x ({kind}) yields batches, whose sizes are as they are; "
            "af.batches(rows, size) gathers rows of an async iterator"
        )


def _source(x: Any, y: Any, weight: Any, **settings: Any) -> RowData:
    stays = any(isinstance(column, Stored) for column in (x, y, weight))
    return StoredData(x, y, weight, **settings) if stays else ArrayData(x, y, weight, **settings)


def _cut(array: Any, start: int, stop: int) -> Any:
    return array.part(start, stop) if isinstance(array, Stored) else array[start:stop]


def _mapped(array: Array) -> bool:
    """Whether it lies in a file: looking at every value beforehand would read the file once more."""
    if isinstance(array, Stored):
        return True
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


def _read(rows: Rows, *, own_model: bool) -> Rows:
    loaded = rows.load(own_model=own_model)
    for given in loaded.all():
        if not isinstance(given.array, Stored):  # checked when it is read
            check_finite(given.name, given.loaded, as_given=own_model)
    return loaded


def _any_evaluate(
    x: object,
    y: object = None,
    *,
    batch_size: object = 32,
    sample_weight: object = None,
    steps: object = None,
    own_model: bool = False,
) -> AnyPass:
    source = batch_source("x", x)
    if source is None:
        return plan_evaluate(x, y, batch_size=batch_size, sample_weight=sample_weight, steps=steps, own_model=own_model)
    _check_alone(source, y, sample_weight, batch_size, "evaluate")
    return FeedPass(source, _pass_options(batch_size, steps)[1], own_model=own_model, targets=True)


def _any_predict(x: object, *, batch_size: object = 32, steps: object = None, own_model: bool = False) -> AnyPass:
    source = batch_source("x", x)
    if source is None:
        return plan_predict(x, batch_size=batch_size, steps=steps, own_model=own_model)
    _check_alone(source, None, None, batch_size, "predict")
    return FeedPass(source, _pass_options(batch_size, steps)[1], own_model=own_model, targets=False)


given_fit = later(plan_fit, fit_options)
"""`plan_fit` for whatever a user gives; so are the next two for evaluate and predict."""
given_evaluate = later(_any_evaluate, _pass_options)
given_predict = later(_any_predict, _pass_options)

"""`Trainer`: runs for any model that follows the Trainable protocol."""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import numpy as np

from .bus import EventBus
from .data import AnyPass, given_evaluate, given_fit, given_predict
from .errors import BadFile, InvalidInput, ModelBusy
from .executors.base import Executor
from .fit import Fit
from .front import Callbacks, Front, as_callbacks, keywords_checked, reading, resolved, run_batches
from .jobs import Job, in_thread
from .mailbox import handling
from .passes import EVALUATE, check_listeners, perform
from .protocol import Change, State, Trainable
from .resuming import Arrays, unpacked
from .run import Run
from .snapshot import Array
from .stepping import Stepping, Steps, alone

__all__ = ["Trainer"]

_METHODS = {
    "train_batch": "train_batch(self, x, y, sample_weight=None)",
    "test_batch": "test_batch(self, x, y, sample_weight=None)",
    "state": "state(self)",
    "load_state": "load_state(self, state)",
}
_ARGUMENTS: dict[str, tuple[None, ...]] = {
    "train_batch": (None,) * 3, "test_batch": (None,) * 3, "state": (), "load_state": (None,)
}  # fmt: skip


class Trainer(Front):
    """Trains a model of your own: five members are enough (see `Trainable`).

    Runs, events and callbacks are those of `Sequential`. Snapshots can be saved; they can also predict and evaluate if
    the model has `clone()` and `predict(x)`.

    Raises:
        TypeError: a member is missing; the message shows the line to write.
    """

    def __init__(self, trainable: Trainable) -> None:
        super().__init__()
        if isinstance(trainable, type):
            raise TypeError(f"Trainer takes an object; give {trainable.__name__}(…), not the class")
        for name, line in _METHODS.items():
            if not callable(getattr(trainable, name, None)):
                raise TypeError(f"{type(trainable).__name__} is no Trainable, it lacks: def {line}: …")
            try:
                inspect.signature(getattr(trainable, name)).bind(*_ARGUMENTS[name])
            except TypeError:
                given = inspect.signature(getattr(trainable, name))
                raise TypeError(f"{type(trainable).__name__}.{name}{given} should be: def {line}: …") from None
            except ValueError:  # some builtins have no signature
                pass
        if not hasattr(trainable, "learning_rate"):
            raise TypeError(f"{type(trainable).__name__} is no Trainable, it lacks: learning_rate: float")
        self.trainable = trainable
        self._seed = int.from_bytes(os.urandom(8))
        self._spare: Any = None
        self._spare_lock = threading.Lock()
        self._holders: set[object] = set()  # the deliveries of those who evaluate the model

    def _trainable(self) -> Trainable:
        return self.trainable

    _seed_given = False  # it is drawn

    def _model_settings(self) -> dict[str, Any]:
        return {"class": type(self.trainable).__name__}

    @property
    def _own_seed(self) -> int:
        return self._seed

    @_own_seed.setter
    def _own_seed(self, seed: int) -> None:
        self._seed = seed

    # --- training ----------------------------------------------------------------------------------------------------

    @keywords_checked
    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int | None = 32,
        epochs: int | None = 1,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        validation_data: Any = None,
        validation_split: float = 0.0,
        validation_batch_size: int | None = None,
        validation_steps: int | None = None,
        validation_freq: Any = 1,
        callbacks: Callbacks = (),
        bus: EventBus | None = None,
        verbose: int | str = 0,
        run_id: str | None = None,
        seed: int | None = None,
        executor: str | Executor = "thread",
        lookahead: int = 0,
        prefetch: int = 1,
        resume: str | os.PathLike[str] | None = None,
        resume_data: str | None = None,
        drain_timeout: float = 10.0,
        grace: float = 5.0,
    ) -> Fit:
        """Train on `x` and `y`, as `Sequential.fit`; the rows are handed over as they are given, those of data
        that yields batches as NumPy arrays.

        `y` may be left out, and is None in `train_batch` then. `seed` decides the order of the rows; left out, one is
        drawn when the Trainer is made. `lookahead` is 0: compute waits for gates, because only a complete `state()` can
        be put back; `asyncfit.testing.check_trainable` proves yours, and then 1 lets compute go on meanwhile. So does
        `resume` depend on it: it goes on with a checkpoint as if nothing had happened.
        """
        given = given_fit(
            x, y, batch_size=batch_size, epochs=epochs, initial_epoch=initial_epoch, steps_per_epoch=steps_per_epoch,
            shuffle=shuffle, class_weight=class_weight, sample_weight=sample_weight, validation_data=validation_data,
            validation_split=validation_split, validation_batch_size=validation_batch_size,
            validation_steps=validation_steps, validation_freq=validation_freq, prefetch=prefetch,
            own_model=True,
        )  # fmt: skip
        known = as_callbacks(callbacks, "fit")
        return self._fit(
            "trainer.fit(…)", self.trainable, given, callbacks=known, bus=bus, executor=executor, lookahead=lookahead,
            seed=None if seed is None else _checked_seed(seed), run_id=run_id, resume=resume,
            resume_data=resume_data,
            drain_timeout=drain_timeout, grace=grace, prepared=lambda data: self._make_spare(),
        )  # fmt: skip

    # --- reading -----------------------------------------------------------------------------------------------------

    @keywords_checked
    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int = 32,
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Callbacks = (),
        bus: EventBus | None = None,
    ) -> Job[dict[str, float]]:
        """Loss and metrics on data, as a dict. Cancelling it ends it within a batch.

        The model is in use until its last batch: meanwhile runs, `save` and other evaluations wait, and handlers of
        its events, for which it may have to wait itself, get `ModelBusy` from them.

        Args:
            callbacks: get the events of this evaluation.
            bus: its subscribers get them as well.

        Raises:
            ModelBusy: a run is training the model, and it has no `clone()`.
        """
        given = given_evaluate(x, y, batch_size=batch_size, sample_weight=sample_weight, steps=steps, own_model=True)
        known = as_callbacks(callbacks, "evaluate")
        check_listeners(known, bus)

        def here(plan: AnyPass, tick: Callable[[], None]) -> Steps[dict[str, float] | None]:
            batches = plan.opened(tick)
            with self._reading:  # a run that begins meanwhile waits for it
                if self._user is not None:
                    return None
                yield None
                return (yield from run_batches(self.trainable, batches))

        async def start(plan: AnyPass, stepping: Stepping[dict[str, float] | None]) -> None:
            stepping.limiter = anyio.CapacityLimiter(1)
            if self._user is None:
                await stepping.hop(stepping.open, here(plan, stepping.tick))
                if not stepping.over or stepping.result is not None:
                    return
            self._require_clone("evaluate")
            await self._read(lambda state: stepping.open(self._evaluating(state, plan, stepping.tick)), stepping.hop)

        async def evaluate() -> dict[str, float]:
            means: dict[str, float] | None
            self._require_apart("evaluate")
            plan = await resolved(given)
            begin = functools.partial(start, plan)
            params = {"samples": plan.samples, "batch_size": plan.batch_size, "steps": plan.steps}
            async with reading(plan) as fetch:
                means = await perform(
                    EVALUATE, begin, callbacks=known, bus=bus, params=params, holders=self._holders, fetch=fetch
                )
            assert means is not None
            return means

        return Job("trainer.evaluate(…)", evaluate)

    def _evaluating(self, state: State, plan: AnyPass, tick: Callable[[], None]) -> Steps[dict[str, float] | None]:
        batches = plan.opened(tick)
        with self._spare_lock:
            twin = self._spare_with(state)
            yield None
            return (yield from run_batches(twin, batches))

    def predict_from(self, state: State, x: Any, *, batch_size: int) -> Job[Array]:
        self._require_clone("predict")
        self._require_apart("predict")
        given = given_predict(x, batch_size=batch_size, own_model=True)

        def predicting(plan: AnyPass, tick: Callable[[], None]) -> Steps[Array]:
            batches = plan.opened(tick)
            outputs: list[Array] = []
            with self._spare_lock:
                twin = self._spare_with(state)
                yield None
                for batch in batches:
                    if batch is None:
                        yield None
                        continue
                    outputs.append(np.array(twin.predict(batch[0])))
                    yield batch[3], outputs[-1]
            return np.concatenate(outputs)

        async def predict() -> Array:
            plan = await resolved(given)
            async with reading(plan) as fetch:
                return await alone(functools.partial(predicting, plan), fetch=fetch)

        return Job("snapshot.predict(…)", predict)

    def evaluate_from(
        self, state: State, x: Any, y: Any, *, batch_size: int, sample_weight: Any, return_dict: bool
    ) -> Job[Any]:
        self._require_clone("evaluate")
        self._require_apart("evaluate")
        given = given_evaluate(x, y, batch_size=batch_size, sample_weight=sample_weight, own_model=True)

        async def evaluate() -> Any:
            plan = await resolved(given)
            async with reading(plan) as fetch:
                return await alone(functools.partial(self._evaluating, state, plan), fetch=fetch)

        return Job("snapshot.evaluate(…)", evaluate)

    def weights_from(self, state: State) -> list[Array]:
        return list(self.named_weights_from(state).values())

    def named_weights_from(self, state: State) -> dict[str, Array]:
        return {name: value.copy() for name, value in state.items() if isinstance(value, np.ndarray)}

    def _require_clone(self, what: str) -> None:
        if not callable(getattr(self.trainable, "clone", None)):
            kind = type(self.trainable).__name__
            raise ModelBusy(f"{kind} has no clone(), so while it trains, or as it was, it can be saved but not {what}")

    def _make_spare(self) -> None:
        """A copy to read with, made while nobody trains: a model need not stand two threads at a time."""
        if self._spare is None and callable(getattr(self.trainable, "clone", None)):
            self._spare = self.trainable.clone()  # type: ignore[attr-defined]

    def _spare_with(self, state: State) -> Any:
        """The copy, with this state. It is the caller's as long as it holds `_spare_lock`."""
        if self._spare is None:
            with self._reading:
                self._make_spare()
        self._spare.load_state(state)
        return self._spare

    def _require_apart(self, what: str) -> None:
        """What waits for the model must not be asked for by a handler that whoever uses the model waits for."""
        box = handling.get()
        if box is not None and box.home in self._holders:
            raise ModelBusy(
                f"{box.name} handles an event of an evaluate that is using the model, so {what} might wait for itself; "
                "ask in on_evaluate_end, or after the evaluate"
            )

    def _claim(self, run: Run) -> None:
        self._require_apart("fit")
        super()._claim(run)

    def file_of(self, state: State, change: Change | None) -> None:
        """For a checkpoint: no other program knows such a model."""

    # --- files -------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> Job[None]:
        """Write the state to an HDF5 file, whole or not at all; while it trains, a whole state that nobody can undo."""
        target = os.fspath(path)
        self._require_apart("save")
        return Job("trainer.save(…)", lambda: self._read(lambda state: _write(state, target)))

    def save_from(self, state: State, path: str | os.PathLike[str]) -> Job[None]:
        return in_thread("snapshot.save(…)", _write, state, os.fspath(path))

    def load(self, path: str | os.PathLike[str]) -> Job[None]:
        """Put back a state that `save`, or a snapshot's `save`, wrote.

        Raises:
            ModelBusy: a run is training the model.
            FileNotFoundError, BadFile: there is no such file, or it is no whole state.
        """
        self._require_free("load", "load after the run")
        self._require_apart("load")
        target = os.fspath(path)

        def load() -> None:
            state = _read(target)
            with self._reading:
                self._require_free("load", "load after the run")
                self.trainable.load_state(state)

        return in_thread("trainer.load(…)", load)


def _write(state: State, path: str) -> None:
    from .formats.checkpoint_h5 import Saved, Writer  # imported, with all that it needs, when a file is first touched

    arrays = Arrays()
    entries = arrays.packed(state, "state", "state()")
    Writer().write(path, Saved(model=None, arrays=arrays.by_name, run={"state": entries}))


def _read(path: str) -> dict[str, Any]:
    from .formats import checkpoint_h5

    run, arrays = checkpoint_h5.read(path)
    try:
        return unpacked(run.get("state"), arrays)
    except BadFile as error:
        raise BadFile(f"{path} {error}") from error


def _checked_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InvalidInput(f"seed is a whole number of at least 0, not {seed!r}")
    return int(seed)

"""`Sequential`: the model that users hold. A thin front over `nn.Network` and `nn.Learner`; runs do the work.

The network is never changed under the eyes of somebody who reads it: a layer that is added to a built one goes to a
copy that shares its arrays, and each compilation has a learner of its own.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
import numpy as np

from . import modelfile
from .bus import EventBus
from .callback import Callback
from .data import AnyPass, FeedPass, FitData, Later, given_evaluate, given_fit, given_predict
from .data.intake import Rows
from .errors import InvalidInput
from .events import LayerCreated, ModelCompiled
from .executors.base import Executor
from .fit import Fit
from .formats.paths import check_path
from .front import Callbacks, Front, as_callbacks, keywords_checked, reading, resolved
from .jobs import Job, in_thread
from .news import News
from .nn import Learner, Network, quiet
from .nn.arrays import Array
from .nn.layers import InputLayer, Layer
from .nn.losses import LossLike
from .nn.metrics import MetricLike
from .nn.naming import whole
from .nn.optimizers import Optimizer, OptimizerLike
from .nn.profile import Profile
from .nn.streams import checked_seed
from .passes import EVALUATE, PREDICT, Kind, check_listeners, perform
from .pool import copy_state
from .protocol import State, Trainable
from .reading import Figures, Reader, as_figures, check_rows, check_values
from .run import Run
from .stepping import Stepping, Steps, alone
from .subscriptions import Subscription

__all__ = ["Sequential", "load_model"]

_logger = logging.getLogger("asyncfit")

T = TypeVar("T")

AFTER = "await the end of the run (run.wait()), or stop it (run.stop())"


class Sequential(Front):
    """Layers in a row, which can be compiled, trained, asked and saved.

    Args:
        layers: the layers, an `Input` first if you like; without it the first data say the shape of the input.
        name: "sequential" if left out.
        seed: initial weights, dropout and the order of the rows are functions of it; None draws one.

    Attributes:
        history: the newest run's `History`, also after an error; None before the first.
    """

    @keywords_checked
    def __init__(self, layers: Iterable[Layer] = (), *, name: str | None = None, seed: int | None = None) -> None:
        super().__init__()
        given: Any = layers
        if isinstance(given, Layer | str) or not isinstance(given, Iterable):
            raise InvalidInput(f"Sequential takes a list of layers, as in Sequential([Dense(1)]), not {given!r}")
        title: Any = name
        if title is not None and not (isinstance(title, str) and title):
            raise InvalidInput(f"the name of a model is a text, not {name!r}")
        self._take(Network(name=name, seed=seed), None)
        for layer in layers:
            self.add(layer)

    _learner: Learner | None = None
    _last_reader: Reader | None = None

    @property
    def _fits(self) -> int:
        """How often it was fitted since it was compiled: part of the state, for random numbers depend on it."""
        return 0 if self._learner is None else self._learner.fits

    @_fits.setter
    def _fits(self, number: int) -> None:
        if self._learner is not None:
            self._learner.fits = number

    def _take(self, network: Network, learner: Learner | None) -> None:
        self._network = network
        self._learner = learner
        self._grown = False  # layers were added since it was compiled
        self._news = News()
        self._callbacks: list[Callback] = []
        for index, layer in enumerate(network.layers):
            self._news.happened(LayerCreated(layer=layer, index=index))
        if learner is not None:
            self._news.happened(self._compilation(learner))

    @property
    def stop_training(self) -> bool:
        """Not here: a run is stopped by its events, `event.stop()`, or by its handle, `run.stop()`."""
        raise AttributeError("a model has no stop_training here; in a callback say event.stop(), elsewhere run.stop()")

    @stop_training.setter
    def stop_training(self, value: object) -> None:
        raise AttributeError("a model has no stop_training here; in a callback say event.stop(), elsewhere run.stop()")

    # --- layers ------------------------------------------------------------------------------------------------------

    def add(self, layer: Layer) -> None:
        """Put a layer behind the others.

        Raises:
            InvalidInput: it is no layer, or cannot take what the layer before it gives.
            ModelBusy: a run is training the model.
        """
        network, learner = self._network, self._learner
        with self._changing("add"):
            if network.built:
                network = network.twin()
            network.add(layer)
            if network is not self._network:
                self._network = network
                if learner is not None:
                    learner.optimizer.owner = network
                    self._learner, self._grown = None, True
        if not isinstance(layer, InputLayer):
            self._news.happened(LayerCreated(layer=layer, index=len(network.layers) - 1), self._callbacks)

    @property
    def name(self) -> str:
        return self._network.name

    @property
    def layers(self) -> list[Layer]:
        """The layers, without the `Input`."""
        return list(self._network.layers)

    @property
    def trainable(self) -> bool:
        """Whether any layer's weights are trained. Setting it sets it for all layers; it holds from `compile` on."""
        return any(layer.trainable for layer in self._network.layers) or not self._network.layers

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self._network.layers:
            layer.trainable = bool(value)

    @property
    def optimizer(self) -> Optimizer | None:
        """The optimizer; None before `compile`. While a run trains the model, its `learning_rate` is read-only."""
        return None if self._learner is None else self._learner.optimizer

    @property
    def metrics_names(self) -> list[str]:
        """The keys of what `evaluate` gives, in its order: "loss", then the metrics; empty before `compile`."""
        return [] if self._learner is None else ["loss", *self._learner.metric_directions]

    def count_params(self) -> int:
        """How many numbers the weights have."""
        return self._network.count_params()

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Print the layers, the shapes of their outputs and the sizes of their weights.

        Which of them are trained is told as of `compile`, and as it would be if the model is not compiled yet.
        """
        if self._learner is None:
            with self._changing("summary"):
                self._network = self._network.resplit()
        print_fn("\n".join(self._network.summary_lines()))

    def get_config(self) -> dict[str, Any]:
        """The layers and their settings as plain JSON types, as Keras reads them."""
        return self._network.get_config()

    def get_weights(self) -> list[Array]:
        """Copies of all weights in Keras's order: layer by layer, kernel before bias.

        Raises:
            ModelBusy: a run is training the model; the message names the ways that work meanwhile.
        """
        self._require_free("get_weights", "use event.model.get_weights(), or (await run.snapshot()).get_weights()")
        return self._network.get_weights()

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Replace all weights, given in the order of `get_weights`.

        Raises:
            InvalidInput: a number or shape differs; nothing was changed.
            ModelBusy: a run is training the model.
        """
        with self._changing("set_weights", "a gate of the run can: event.set_weights(snapshot)"):
            self._network.set_weights(weights)

    # --- compile -----------------------------------------------------------------------------------------------------

    @keywords_checked
    def compile(
        self,
        optimizer: OptimizerLike = "rmsprop",
        loss: LossLike | None = None,
        metrics: MetricLike | Iterable[MetricLike] | None = None,
        *,
        weighted_metrics: MetricLike | Iterable[MetricLike] | None = None,
        callbacks: Callbacks = (),
    ) -> None:
        """Say how to train: names as in Keras, or objects. The optimizer begins anew.

        Args:
            metrics: names, objects, or functions `f(y_true, y_pred)` that give a value for each sample. Sample weights
                do not weigh them.
            weighted_metrics: metrics that sample and class weights weigh, as in Keras.
            callbacks: take part in all runs until the model is compiled anew. Plain hooks for layers and compilations
                are called here, async ones before the next `TrainBegin`.

        Raises:
            InvalidInput: an unknown name (the message has the nearest known one), or no loss.
            ModelBusy: a run is training the model.
        """
        known = as_callbacks(callbacks, "compile")
        if loss is None:
            raise InvalidInput("compile needs a loss, as in model.compile(optimizer='adam', loss='mse')")
        with self._changing("compile"):
            learner = self._learner_of(self._network.resplit(), optimizer, loss, metrics, weighted_metrics)
            self._learner, self._grown, self._callbacks = learner, False, known
        for layer in self._network.drop_masks():  # Keras warns of it, too
            _logger.warning(
                "%s (%s) does not know of masks: steps that are masked count in it and behind it as others do",
                layer.name, type(layer).__name__,
            )  # fmt: skip
        self._news.happened(self._compilation(learner))
        self._callbacks = self._news.introduce(known)

    def _learner_of(
        self,
        network: Network,
        optimizer: OptimizerLike,
        loss: LossLike,
        metrics: MetricLike | Iterable[MetricLike] | None,
        weighted_metrics: MetricLike | Iterable[MetricLike] | None,
    ) -> Learner:
        """What trains `network`, which is the model's from now on, unless something is wrong."""
        before = self._network
        used = None if self._learner is None else self._learner.optimizer
        if used is not None and used.owner is before:
            used.owner = network
        try:
            learner = Learner(
                network, loss=loss, optimizer=optimizer, metrics=metrics, weighted_metrics=weighted_metrics
            )
        except BaseException:
            if used is not None and used.owner is network:
                used.owner = before
            if network is not before:
                before.claim()
            raise
        self._network = network
        return learner

    def _compilation(self, learner: Learner) -> ModelCompiled:
        return ModelCompiled(
            model=self,
            optimizer=learner.optimizer.get_config()["name"],
            loss=learner.loss.name,
            metrics=tuple(
                metric if isinstance(metric, str) else metric.name
                for metric in [*learner.metrics, *learner.weighted_metrics]
            ),
        )

    def _compiled(self, what: str) -> Learner:
        if self._grown:
            raise InvalidInput(f"{what}: layers were added to {self.name!r} after compile; compile it again")
        if self._learner is None:
            raise InvalidInput(
                f"{what} needs a compiled model: model.compile(optimizer='adam', loss='mse', metrics=[…]) first"
            )
        if not self._network.layers:
            raise InvalidInput(f"{what}: the model {self.name!r} has no layers; model.add(…) some first")
        return self._learner

    # --- fit ---------------------------------------------------------------------------------------------------------

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
        validation_freq: int | Iterable[int] = 1,
        callbacks: Callbacks = (),
        bus: EventBus | None = None,
        verbose: Any = 0,
        run_id: str | None = None,
        seed: int | None = None,
        executor: str | Executor = "thread",
        lookahead: int = 1,
        prefetch: int = 1,
        resume: str | os.PathLike[str] | None = None,
        resume_data: str | None = None,
        drain_timeout: float = 10.0,
        grace: float = 5.0,
    ) -> Fit:
        """Train. Await what it returns for the `History`, enter it for the live `Run`, or `start` it.

        Keywords mean what they mean in Keras. A second fit goes on with the optimizer's state.

        Args:
            x, y: arrays, memory maps or what `np.asarray` takes, a row for each sample; or open HDF5 data sets
                (`h5py.Dataset`). Up to 64 MiB of these are read when the run starts, more stays in the file, is read
                ahead by a thread while the run trains, and is shuffled in two steps: the order of blocks of rows that
                lie together, and then the rows of many blocks (16 MiB) among each other. Keep the file open; for
                `executor="process"` open it for reading. Or `x` alone is what yields batches: `x`, `(x, y)` or
                `(x, y, sample_weight)`, each with as many rows as it likes. A list of such tuples is
                checked as arrays are. What has a length and can be indexed (a Keras-like Sequence) or iterated (a
                DataLoader) is read anew in each epoch, in a thread. `shuffle` changes the order of batches in a list
                and of what can be indexed. An iterator, a generator or an
                async one is read once, ahead of training by `prefetch` batches, and closed when the run ends; its end
                stops the run ("data ended"), and with it `lookahead` is 0. What is async is read on the loop.
            epochs: None: without end. That, and data without a length, needs `steps_per_epoch`.
            validation_data: `(x, y)` or `(x, y, sample_weight)`, or what yields batches; if that has no length,
                `validation_steps` of them each time.
            prefetch: batches that may be taken of data that yields them, beyond those that are trained on.
                `TrainEnd.unread` counts what was taken in vain.
            callbacks: take part beside those of `compile`, in this run.
            bus: its subscribers get the run's events.
            verbose: accepted, and silent; subscribe to events instead.
            run_id: the run's name in its events; drawn if left out.
            seed: for the order of the rows and dropout, in place of the model's.
            executor: where to compute: "thread", "process", or a `ProcessExecutor` whose block is open.
            lookahead: how many boundaries compute may work ahead of gates, 0 for lock-step. The bits are the same.
            resume: a checkpoint, or a directory of them, to go on with: model, data, batch size and seed must be those
                of the run that wrote it. It ends with the bits and the history that this run would have had.
            resume_data: "continue" says that an iterator goes on with the first batch that the run before has not
                trained on; without it a run on an iterator cannot be resumed.
            drain_timeout: seconds that subscribers have for what is queued when the run has ended.
            grace: seconds that all handlers together have after a cancellation or failure.

        Raises:
            InvalidInput: types, names or shapes do not fit; all else that is wrong with the data is told, and
                `ModelBusy` raised, when the run starts.
        """
        learner = self._compiled("fit")
        given = given_fit(
            x, y, batch_size=batch_size, epochs=epochs, initial_epoch=initial_epoch, steps_per_epoch=steps_per_epoch,
            shuffle=shuffle, class_weight=class_weight, sample_weight=sample_weight, validation_data=validation_data,
            validation_split=validation_split, validation_batch_size=validation_batch_size,
            validation_steps=validation_steps, validation_freq=validation_freq, prefetch=prefetch,
        )  # fmt: skip
        known = as_callbacks([*self._callbacks, *as_callbacks(callbacks, "fit")], "fit")
        if self._network.split_differs():
            _logger.warning(
                "%r: trainable was changed after compile, and fit trains what was trainable then; compile again",
                self.name,
            )
        self._check_now(learner, given.rows)
        self._check_built(given)
        return self._fit(
            "model.fit(…)", learner, given, callbacks=known, bus=bus, executor=executor, lookahead=lookahead,
            seed=None if seed is None else checked_seed(seed), run_id=run_id, resume=resume,
            resume_data=resume_data,
            drain_timeout=drain_timeout, grace=grace, prepared=functools.partial(self._prepared, learner),
            before=functools.partial(self._tell, bus), as_stored=_as_stored, around=quiet,
        )  # fmt: skip

    def _model_settings(self) -> dict[str, Any]:
        learner = self._learner
        assert learner is not None
        return modelfile.described(self._network, learner)

    @property
    def _own_seed(self) -> int:
        return self._network.seed

    @_own_seed.setter
    def _own_seed(self, seed: int) -> None:
        self._network.seed = seed

    @property
    def _seed_given(self) -> bool:  # type: ignore[override]
        return self._network.seed_given

    def _prepared(self, learner: Learner, data: FitData) -> None:
        """The last checks of a run, in a worker thread."""
        if self._learner is not learner:
            raise InvalidInput(f"{self.name!r} was compiled anew, or got layers, after fit was called; call fit again")
        check_values(learner, data)

    def _tell(self, bus: EventBus | None, subscriptions: list[Subscription]) -> list[Callable[[], Any]]:
        """What happened to the model, for those who take part in a run and have not heard of it."""
        news = self._news
        tell: list[Callable[[], Any]] = [functools.partial(news.catch_up, one) for one in subscriptions]
        return tell if bus is None else [*tell, functools.partial(news.publish_on, bus)]

    def _check_now(self, learner: Learner | None, rows: Rows | None) -> None:
        """Look at shapes and types. A network without weights gets them, unless a run is about to do that."""
        if rows is None:  # it takes a thread to look
            return
        if self._network.built and (learner is None or learner.started):
            check_rows(self._network, learner, rows)
        elif self._user is None:
            with self._reading:
                check_rows(self._network, learner, rows)

    def _check_built(self, given: Any) -> None:
        """What yields batches shows no shape before it is read."""
        source = getattr(given, "source", None)
        listed = source is not None and source.kind == "listed" and not isinstance(given, FeedPass)
        if source is not None and not listed and not self._network.built:
            raise InvalidInput(
                f"{self.name!r} does not know the shape of its input yet, and x yields batches; let the model begin "
                "with layers.Input(shape), or give its first layer input_shape=shape"
            )

    def _claim(self, run: Run) -> None:
        """A run begins."""
        super()._claim(run)
        if self._learner is not None:
            self._learner.optimizer.busy = (
                f"run {run.id} is training this model; run.set_learning_rate(…) or event.set_learning_rate(…) sets "
                "the rate of a run"
            )

    def _release(self, run: Run) -> None:
        """A run has ended."""
        if self._user is run and self._learner is not None:
            self._learner.optimizer.busy = None
        super()._release(run)

    # --- reading -----------------------------------------------------------------------------------------------------

    @keywords_checked
    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int | None = 32,
        sample_weight: Any = None,
        steps: int | None = None,
        return_dict: bool = False,
        callbacks: Callbacks = (),
        bus: EventBus | None = None,
        verbose: Any = 0,
    ) -> Job[Any]:
        """The loss as a float, or with metrics `[loss, *metrics]`; a dict by name with `return_dict=True`.

        While a run trains the model: of the newest state that nobody can undo. Cancelling it ends it within a batch.

        Args:
            x: rows, with their targets in `y`; or what yields batches, async or not, as for `fit`.
            steps: so many batches at most.
            callbacks: get the events of this evaluation; those of `compile` take part in runs only.
            bus: its subscribers get them as well.
            verbose: accepted, and silent; subscribe to events instead.
        """
        learner = self._compiled("evaluate")
        given = given_evaluate(x, y, batch_size=batch_size, sample_weight=sample_weight, steps=steps)
        known = as_callbacks(callbacks, "evaluate")
        check_listeners(known, bus)
        self._check_now(learner, given.rows)
        self._check_built(given)

        async def evaluate() -> Figures:
            means = await self._pass(EVALUATE, Reader.evaluating, given, known, bus)
            return as_figures(means, bool(return_dict))

        return Job("model.evaluate(…)", evaluate)

    @keywords_checked
    def predict(
        self,
        x: Any,
        *,
        batch_size: int | None = 32,
        steps: int | None = None,
        callbacks: Callbacks = (),
        bus: EventBus | None = None,
        verbose: Any = 0,
    ) -> Job[Array]:
        """The outputs for `x`, `(rows, *output_shape)`.

        While a run trains the model: with the newest weights that nobody can undo. Cancelling it ends it within a
        batch. A memory map is read once, batch by batch; the outputs of all rows are in memory.

        Args:
            x: rows; or what yields batches, async or not: `x`, or tuples that begin with it.
            steps: so many batches at most.
            callbacks: get the events of this prediction; those of `compile` take part in runs only.
            bus: its subscribers get them as well.
            verbose: accepted, and silent; subscribe to events instead.
        """
        given = given_predict(x, batch_size=batch_size, steps=steps)
        known = as_callbacks(callbacks, "predict")
        check_listeners(known, bus)
        self._check_now(None, given.rows)
        self._check_built(given)
        return Job("model.predict(…)", lambda: self._pass(PREDICT, Reader.predicting, given, known, bus))

    @keywords_checked
    def profile(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int | None = 32,
        sample_weight: Any = None,
        batches: int = 50,
    ) -> Job[Profile]:
        """Where a training batch's time goes: layer by layer, loss, metrics, optimizer, in µs. `print` it.

        A copy of the model is trained on the data, round and round, in a worker thread; the model itself, its
        optimizer and its random numbers stay as they are. While a run trains the model, both share the processor.

        Args:
            x: rows, with their targets in `y`; or what yields batches, async or not, as for `fit`.
            batches: so many are measured; as many again are trained without a clock inside, for the whole.

        Raises:
            InvalidInput: the model is not compiled, or the data do not fit it.
        """
        learner = self._compiled("profile")
        count = whole("profile(batches=…)", batches, least=1)
        given = given_evaluate(x, y, batch_size=batch_size, sample_weight=sample_weight)
        self._check_now(learner, given.rows)
        self._check_built(given)

        async def profile() -> Profile:
            plan = await resolved(given)
            shape_of = None if isinstance(plan, FeedPass) else lambda: plan.read().x
            reader, state = await self._on_state(lambda *found: found, shape_of=shape_of)
            async with reading(plan) as fetch:
                return await alone(functools.partial(reader.profiling, state, plan, count), quiet, fetch)

        return Job("model.profile(…)", profile)

    async def _pass(
        self,
        kind: Kind,
        steps: Callable[[Reader, State, AnyPass, Callable[[], None]], Steps[T]],
        given: AnyPass | Later[AnyPass],
        callbacks: list[Callback],
        bus: EventBus | None,
    ) -> T:
        plan = await resolved(given)

        async def start(stepping: Stepping[T]) -> None:
            def begin(reader: Reader, state: State) -> None:
                stepping.open(steps(reader, state, plan, stepping.tick))

            shape_of = None if isinstance(plan, FeedPass) else lambda: plan.read(stepping.tick).x
            await self._on_state(begin, shape_of=shape_of, hop=stepping.hop)

        params = {"samples": plan.samples, "batch_size": plan.batch_size, "steps": plan.steps}
        async with reading(plan) as fetch:
            return await perform(kind, start, callbacks=callbacks, bus=bus, params=params, around=quiet, fetch=fetch)

    def save(self, path: str | os.PathLike[str]) -> Job[None]:
        """Write the whole model, optimizer included, as Keras's `.h5`: whole, or not at all.

        Raises:
            InvalidInput: no such file can be made.
            CheckpointError: (when awaited) it could not be written; what was there before is still there.
        """
        return self._saving("save", check_path(path))

    def save_weights(self, path: str | os.PathLike[str]) -> Job[None]:
        """Write the weights as Keras's `.weights.h5`, with the optimizer's state if compiled: whole, or not at all.

        Raises:
            InvalidInput: no such file can be made; the name must end in `.weights.h5`.
            CheckpointError: (when awaited) it could not be written; what was there before is still there.
        """
        return self._saving("save_weights", check_path(path, weights=True))

    def _saving(self, what: str, target: Path) -> Job[None]:
        if self._user is None:
            self._network.require_built(what)

        def work(reader: Reader, state: State) -> None:
            reader.save(state, target)

        return Job(f"model.{what}(…)", lambda: self._on_state(work, whole=True))

    def load_weights(self, path: str | os.PathLike[str]) -> Job[None]:
        """Put in the weights of a `.weights.h5`, or of a whole model's `.h5`, of such a model, as Keras does.

        A `.weights.h5` that holds the state of such an optimizer brings that too, iteration and learning rate
        included; another optimizer's is left out, which is logged.

        Raises:
            InvalidInput: the model has no weights yet, because the shape of its input is not known.
            ModelBusy: a run is training the model.
            FileNotFoundError: (when awaited) there is no such file.
            BadFile: (when awaited) the weights are not those of such a model; nothing was changed.
        """
        name = _path_text("load_weights", path)
        self._require_free("load_weights", AFTER)
        self._network.require_built("load_weights")

        def load() -> None:
            found = modelfile.read_weights(name)
            with self._changing("load_weights"):
                modelfile.take_weights(self._network, self._learner, found, name)

        return in_thread("model.load_weights(…)", load)

    async def _on_state(
        self,
        work: Callable[[Reader, State], T],
        *,
        whole: bool = False,
        shape_of: Callable[[], Array] | None = None,
        hop: Callable[..., Any] = anyio.to_thread.run_sync,
    ) -> T:
        """Let `work` have a copy of the model's state in a worker thread; beside training, the run's whole state.

        Args:
            shape_of: gives the samples that a network without weights is built for.
            hop: what takes the work to a thread.
        """

        def idle() -> tuple[T] | None:
            unbuilt = shape_of is not None and not self._network.built
            shape = shape_of().shape[1:] if shape_of is not None and unbuilt else None  # takes time: before the lock
            with self._reading:
                if self._user is not None:
                    return None
                reader = self._reader()
                if shape is not None and not reader.network.built:
                    reader.network.build(shape)
                state = copy_state(reader.live(whole=whole))
            return (work(reader, state),)

        def beside(run_reader: Any, state: State) -> T:
            return work(run_reader, state)

        while True:
            run = self._user
            if run is None:
                done: tuple[T] | None = await hop(idle)
                if done is not None:
                    return done[0]
            else:
                snapshot = await run._whole()
                answer: T = await hop(beside, snapshot._model, snapshot._state)
                return answer

    def _reader(self) -> Reader:
        """One for each compilation: by it a snapshot is known to be of this model."""
        reader = self._last_reader
        if reader is None or reader.network is not self._network or reader.learner is not self._learner:
            reader = self._last_reader = Reader(self._network, self._learner)
        return reader

    # --- a Trainable -------------------------------------------------------------------------------------------------

    @property
    def learning_rate(self) -> float:
        """The optimizer's, as it stores it: rounded to float32."""
        return self._mine("learning_rate").learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._mine("learning_rate").learning_rate = value

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> dict[str, float]:
        """One step on a batch; its loss and metrics, computed with the weights before the step."""
        with quiet():
            return self._mine("train_batch").train_batch(x, y, sample_weight)

    def test_batch(self, x: Any, y: Any, sample_weight: Any = None) -> dict[str, float]:
        """Loss and metrics of a batch."""
        with quiet():
            return self._mine("test_batch").test_batch(x, y, sample_weight)

    def state(self) -> dict[str, Any]:
        """All that the next batch depends on: live flat arrays, and numbers. Copy what you keep."""
        return self._mine("state").state()

    def load_state(self, state: State) -> None:
        """Copy a state in."""
        self._mine("load_state").load_state(state)

    def _mine(self, what: str) -> Learner:
        ways = {"learning_rate": "model.optimizer.learning_rate and run.set_learning_rate(…) work meanwhile"}
        self._require_free(what, ways.get(what, f"{AFTER}; event.model and run.snapshot() have the state meanwhile"))
        return self._compiled(what)

    def _trainable(self) -> Trainable:
        return self._compiled("this")

    @contextmanager
    def _changing(self, what: str, way: str = "") -> Iterator[None]:
        """Nobody trains the model, and nobody is just copying it."""
        self._require_free(what, f"{AFTER}{way and '; '}{way}")
        with self._reading:
            yield

    # --- copies ------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """What a copy gets: layers, weights, the optimizer with its state; no callbacks and no history."""
        self._require_free("copying it", AFTER)
        return {"network": self._network, "learner": self._learner, "grown": self._grown}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Front.__init__(self)
        self._take(state["network"], state["learner"])
        self._grown = state["grown"]

    def __copy__(self) -> Sequential:
        return copy.deepcopy(self)

    def __repr__(self) -> str:
        kinds = ", ".join(type(layer).__name__ for layer in self._network.layers)
        return f"<Sequential {self.name}: {kinds or 'no layers'}>"


def _as_stored(rate: float) -> float:
    return float(np.float32(rate))


@keywords_checked
def load_model(
    path: str | os.PathLike[str], *, compile: bool = True, custom_objects: Mapping[str, Any] | None = None
) -> Job[Sequential]:
    """Read the model in a Keras `.h5`, as this library or Keras wrote it; training goes on where it was.

    Args:
        compile: False takes the layers and weights alone.
        custom_objects: classes and functions of your own that the file names, by these names.

    Raises:
        FileNotFoundError: (when awaited) there is no such file.
        BadFile: (when awaited) it is no model that we can use; the message says why.
    """
    own: Any = {} if custom_objects is None else custom_objects
    if not isinstance(own, Mapping) or not all(isinstance(name, str) for name in own):
        raise InvalidInput(f"custom_objects= takes a dict of classes and functions by their names, not {own!r}")
    return in_thread("load_model(…)", _load, _path_text("load_model", path), bool(compile), dict(own))


def _path_text(what: str, path: object) -> str:
    try:
        return os.fsdecode(os.fspath(path))  # type: ignore[call-overload]
    except TypeError:
        raise InvalidInput(f"{what} takes a path (str or os.PathLike), not {path!r}") from None


def _load(path: str, compiled: bool, own: Mapping[str, Any]) -> Sequential:
    saved = modelfile.read(path)
    model = Sequential.__new__(Sequential)
    Front.__init__(model)
    model._take(modelfile.restored(saved, path, own=own), None)
    settings = modelfile.settings(saved, path, own) if compiled else None
    if settings is not None:
        model.compile(
            optimizer=settings.optimizer,
            loss=settings.loss,
            metrics=settings.metrics,
            weighted_metrics=settings.weighted_metrics,
        )
        if model._learner is not None and model._learner.started:
            modelfile.take_optimizer(model._learner, saved, path)
    modelfile.take_notes(model._network, model._learner, saved)
    return model

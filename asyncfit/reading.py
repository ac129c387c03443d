"""What can be done with a state of a network: predict, evaluate, save. All of it beside training.

A `Reader` belongs to one compilation of one stack of layers, so that a snapshot keeps its meaning when its model is
compiled anew or gets more layers. It never touches the live arrays but to have them copied.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import modelfile
from .data import AnyPass, Feed, FeedPass, FitData, Labels, ListData, check_labels_of, given_evaluate, given_predict
from .data.arrays import Batch
from .data.intake import Rows
from .errors import InvalidInput
from .formats.paths import check_path
from .front import reading, resolved, run_batches
from .jobs import Job, in_thread
from .nn import Learner, Network, Outputs, quiet
from .nn.arrays import Array
from .nn.profile import Profile
from .nn.stopwatch import Stopwatch
from .protocol import Change, State
from .stepping import Steps, alone

if TYPE_CHECKING:
    from .formats.saved_model import SavedModel

__all__ = ["Figures", "Reader", "as_figures", "check_arrays", "check_rows", "check_values"]

Figures = float | list[float] | dict[str, float]


class Reader:
    """Makes use of states of `network`, and of `learner`, which is None if it was never compiled."""

    def __init__(self, network: Network, learner: Learner | None) -> None:
        self.network = network
        self.learner = learner
        self._training = None if learner is None else modelfile.training_config(learner)

    def live(self, *, whole: bool) -> State:
        """The live state, or its weights alone."""
        if whole and self.learner is not None:
            return self.learner.state()
        network = self.network
        network.require_built("state")
        return {"params": network.params} | ({"fixed": network.fixed} if network.fixed.size else {})

    # --- in worker threads -------------------------------------------------------------------------------------------

    def predicting(self, state: State, plan: AnyPass, tick: Callable[[], None]) -> Steps[Array]:
        """The steps of a prediction; of each batch they yield the outputs, a view of the result."""
        if isinstance(plan, FeedPass):
            return (yield from self._predicting_feed(state, plan, tick))
        data = plan.read(tick)
        rows = min(plan.samples, plan.steps * plan.batch_size)
        yield None
        outputs = Outputs(self.network, rows, params=state["params"], fixed=state.get("fixed"))
        for x in plan.slices(data):
            yield len(x), outputs.put(x)
        return outputs.all

    def _predicting_feed(self, state: State, plan: FeedPass, tick: Callable[[], None]) -> Steps[Array]:
        self.network.require_built("predict")
        yield None
        outputs = Outputs(self.network, 0, params=state["params"], fixed=state.get("fixed"))
        found: list[Array] = []
        for batch in plan.opened(tick):
            if batch is None:
                yield None
            else:
                check_batch(self.network, batch[0])
                found.append(outputs.alone(batch[0]))
                yield batch[3], found[-1]
        return np.concatenate(found)

    def evaluating(self, state: State, plan: AnyPass, tick: Callable[[], None]) -> Steps[dict[str, float]]:
        """The steps of an evaluation; of each batch they yield its figures."""
        if self.learner is None:
            raise InvalidInput("evaluate: the model is not compiled; model.compile(optimizer=…, loss=…) first")
        learner = Learner(
            self.network.twin(state["params"], state.get("fixed")),
            loss=self.learner.loss,
            metrics=self.learner.metrics,
            weighted_metrics=self.learner.weighted_metrics,
            optimizer="sgd",  # not used
        )
        if isinstance(plan, FeedPass):
            self.network.require_built("evaluate")
            plan.intake.labels = labels_of(learner) if learner.wants_limits else None
            yield None
            return (yield from run_batches(learner, plan.opened(tick)))
        data = plan.read(tick)
        assert data.y is not None
        check_arrays(learner, data.x, data.y, data.sample_weight)
        if learner.wants_limits:
            check_labels_of("y", data, labels_of(learner), tick=tick)
        yield None
        return (yield from run_batches(learner, plan.batches(data)))

    def profiling(
        self, state: State, plan: AnyPass, batches: int, tick: Callable[[], None] = lambda: None
    ) -> Steps[Profile]:
        """The steps of a profile; it trains a copy on the data, round and round."""
        if self.learner is None:
            raise InvalidInput("profile: the model is not compiled; model.compile(optimizer=…, loss=…) first")
        learner = self.learner.copied(self.network.twin(state["params"].copy(), np.array(state.get("fixed", ()))))
        watch = Stopwatch(learner, batches)
        if isinstance(plan, FeedPass):
            self.network.require_built("profile")
            plan.intake.labels = labels_of(learner) if learner.wants_limits else None
            yield None
            yield from _clocked(watch, plan.opened(tick))
        else:
            data = plan.read(tick)
            assert data.y is not None
            check_arrays(learner, data.x, data.y, data.sample_weight)
            if learner.wants_limits:
                check_labels_of("y", data, labels_of(learner), tick=tick)
            yield None
            while not watch.done:
                yield from _clocked(watch, plan.batches(data))
        return watch.profile()

    def save(self, state: State, path: Path) -> None:
        modelfile.write(modelfile.saved(self.network, self.learner, self._training, state), path)

    def file_of(self, state: State, change: Change | None) -> SavedModel:
        """For a checkpoint: the model as it is when what was decided has been done."""
        if change is not None:
            weights, rate = change.weights or {}, change.rate
            state = {**state, **{name: weights[name] for name in ("params", "fixed") if name in weights}}
            if rate is not None:
                state["learning_rate"] = float(np.float32(rate))
        return modelfile.saved(self.network, self.learner, self._training, state)

    # --- for snapshots -----------------------------------------------------------------------------------------------

    def predict_from(self, state: State, x: Any, *, batch_size: int = 32) -> Job[Array]:
        given = given_predict(x, batch_size=batch_size)
        check_rows(self.network, None, given.rows)

        async def predict() -> Array:
            plan = await resolved(given)
            async with reading(plan) as fetch:
                return await alone(functools.partial(self.predicting, state, plan), quiet, fetch)

        return Job("snapshot.predict(…)", predict)

    def evaluate_from(
        self,
        state: State,
        x: Any,
        y: Any,
        *,
        batch_size: int = 32,
        sample_weight: Any = None,
        return_dict: bool = False,
    ) -> Job[Any]:
        given = given_evaluate(x, y, batch_size=batch_size, sample_weight=sample_weight)
        check_rows(self.network, self.learner, given.rows)

        async def evaluate() -> Figures:
            plan = await resolved(given)
            async with reading(plan) as fetch:
                means = await alone(functools.partial(self.evaluating, state, plan), quiet, fetch)
            return as_figures(means, return_dict)

        return Job("snapshot.evaluate(…)", evaluate)

    def save_from(self, state: State, path: str | os.PathLike[str]) -> Job[None]:
        return in_thread("snapshot.save(…)", self.save, state, check_path(path, weights=None))

    def weights_from(self, state: State) -> list[Array]:
        return list(self.named_weights_from(state).values())

    def named_weights_from(self, state: State) -> dict[str, Array]:
        network = self.network
        return {
            f"{network.name}/{s.path}": s.view(state["params" if s.trainable else "fixed"]).copy()
            for s in network.slots
        }


def as_figures(means: dict[str, float], return_dict: bool) -> Figures:
    """What `evaluate` returns: a number, a list, or a dict."""
    if return_dict:
        return means
    return list(means.values()) if len(means) > 1 else means["loss"]


def _clocked(watch: Stopwatch, batches: Iterator[Batch | None]) -> Steps[None]:
    with contextlib.closing(batches) if isinstance(batches, Generator) else contextlib.nullcontext():
        for batch in batches:
            if batch is None:
                yield None
                continue
            x, y, weights, _ = batch
            assert y is not None
            watch.take(x, y, weights)
            yield batch[3], None
            if watch.done:
                return


# --- checks ----------------------------------------------------------------------------------------------------------


def labels_of(learner: Learner) -> Labels:
    """What its loss takes, if that takes class numbers."""
    output = learner.network.output_shape
    assert output is not None
    return Labels(output[-1], getattr(learner.loss, "ignore_class", None))


def check_arrays(learner: Learner, x: Array, y: Array, weights: Array | None = None) -> None:
    """Refuse shapes and types that do not fit the model. Builds the network."""
    shape = None if weights is None else weights.shape
    learner.check_data(x.shape, x.dtype, y.shape, y.dtype, weight_shape=shape)


def check_batch(network: Network, x: Array) -> None:
    """Refuse a batch of rows of another shape than the model's input."""
    network.build(x.shape[1:])


def check_rows(network: Network, learner: Learner | None, rows: Rows | None) -> None:
    """The same as far as `rows` are arrays already. What is not built yet is built, if its shape is known."""
    if rows is None:
        return
    x, y = rows.x.array, None if rows.y is None else rows.y.array
    if x is None:
        return
    if learner is not None and y is not None:
        check_arrays(learner, x, y, None if rows.sample_weight is None else rows.sample_weight.array)
    else:
        network.build(x.shape[1:])


def check_values(learner: Learner, data: FitData) -> None:
    """Refuse what is not fit to train `learner` on. It looks at every label: call it off the loop."""
    if isinstance(data.train, Feed | ListData):
        if isinstance(data.train, ListData):
            x, y, weights, _ = data.train.first
            assert y is not None
            check_arrays(learner, x, y, weights)
        if learner.wants_limits:
            data.check_labels(labels_of(learner))
        return
    assert data.train.y is not None  # that of the validation has been compared with it
    check_arrays(learner, data.train.x, data.train.y, data.train.sample_weight)
    if (words := learner.network.words) is not None:
        data.check_words(words)
    if learner.wants_limits:
        data.check_labels(labels_of(learner))

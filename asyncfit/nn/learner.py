"""Learner: a network with a loss, an optimizer and metrics; the numeric half of a compiled model.

Plain synchronous NumPy: one batch in, one mapping of floats out. Whoever drives it (the loop in `compute.py`) decides
in which thread; all methods but `predict` belong to one thread at a time, which enters `quiet()` around its batches.
For each size of batch a run is planned once, arrays bound; from then on a batch is a fixed number of NumPy calls::

    copy the batch in · forward · loss (with its gradient) · metrics · backward · optimizer step
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput

from . import losses, optimizers
from . import metrics as metrics_
from .activations import ActivationFunction
from .arrays import Array, Call, DType, Shape
from .checks import check_samples, check_targets, check_weights
from .losses import Loss, LossLike
from .metrics import Metric, MetricLike, Tally
from .network import Network, Slot
from .optimizers import Optimizer, OptimizerLike, Stretch
from .outcome import Outcome
from .penalties import Penalty, charged
from .plan import Plan
from .prediction import predict
from .steady import Steady, large
from .streams import Dice
from .workspace import Workspace

__all__ = ["Learner"]

Run = Callable[[Array, Array, Array | None], dict[str, float]]
MAX_RUNS = 64
"""Planned runs that are kept; data whose batches all differ in size begins anew after that many."""


class Learner:
    """Trains `network` on `loss` with `optimizer`; follows the Trainable protocol.

    Args:
        network: the network; built already, or built by the first batch or `prepare`.
        loss, optimizer, metrics: names as in Keras or objects; an optimizer begins anew.
        weighted_metrics: metrics that the sample weights weigh.

    Raises:
        InvalidInput: an unknown name, or an optimizer that another model uses.
    """

    any_thread = True
    """It knows nothing of threads: a run may go on in another one."""

    def __init__(
        self,
        network: Network,
        *,
        loss: LossLike,
        optimizer: OptimizerLike = "rmsprop",
        metrics: MetricLike | Iterable[MetricLike] | None = None,
        weighted_metrics: MetricLike | Iterable[MetricLike] | None = None,
    ) -> None:
        self.network = network
        self.loss: Loss = losses.get(loss)
        self.metrics: list[Metric | str] = metrics_.get_all(metrics)
        self.weighted_metrics: list[Metric | str] = metrics_.get_all(weighted_metrics)
        self.optimizer: Optimizer = optimizers.get(optimizer)
        if self.optimizer.owner not in (None, network):
            raise InvalidInput(
                f"the optimizer {self.optimizer!r} belongs to another model; make one for each, or pass its name"
            )
        self.optimizer.owner = network
        self.fits = 0  # how often it was fitted; whoever fits it counts
        self._begin()
        if network.built:
            self._start()

    def _begin(self) -> None:
        """Nothing is planned yet."""
        dtype = self.network.dtype
        self._dice = Dice()
        self._sought = False
        self._train_work, self._test_work, self._penalty_work = Workspace(dtype), Workspace(dtype), Workspace(dtype)
        self._train_runs: dict[Any, Run] = {}
        self._test_runs: dict[Any, Run] = {}
        self._params: Array = np.empty(0, dtype)
        self._grads: Array = self._params
        self._step: Callable[[], None] = self.optimizer.before
        self._train_tally = self._test_tally = Tally((), (), False)
        self._entries = metrics_.keyed(self.metrics, self.weighted_metrics)
        self._started = False

    def __getstate__(self) -> dict[str, Any]:
        """What a copy or another process needs; plans are made anew there, optimizer slots travel."""
        names = ("network", "loss", "metrics", "weighted_metrics", "optimizer", "fits", "_started")
        return {name: getattr(self, name) for name in names} | {"_accumulated": self._train_tally.flat}

    def __setstate__(self, state: dict[str, Any]) -> None:
        accumulated = state["_accumulated"]
        self.__dict__.update({name: value for name, value in state.items() if name != "_accumulated"})
        self._begin()
        if state["_started"]:
            self._start(anew=False)
            self._train_tally.flat[...] = accumulated

    def copied(self, network: Network) -> Learner:
        """A learner of the same settings that begins anew, for another network; this one may be training meanwhile."""
        mine = self.optimizer
        optimizer = copy.deepcopy(mine, {id(mine.owner): None, id(mine.slots): {}, id(mine.busy): None})
        metrics = {"metrics": self.metrics, "weighted_metrics": self.weighted_metrics}
        return Learner(network, loss=self.loss, optimizer=optimizer, **metrics)

    # Preparation and checks

    def prepare(self, x_shape: Sequence[int]) -> None:
        """Build the network, if it is not, for inputs of this shape, batch included.

        Raises:
            InvalidInput: the network is built for another shape, or got more layers since it was compiled.
        """
        self.network.build(tuple(x_shape)[1:])
        if not self._started:
            self._start()
        elif self._params is not self.network.params:
            raise self._outdated()

    def _outdated(self) -> InvalidInput:
        return InvalidInput(f"layers were added to {self.network.name!r} after compile; compile it again")

    def _start(self, *, anew: bool = True) -> None:
        self._params = self.network.params
        self._grads = np.zeros_like(self._params)
        if anew:
            self.optimizer.start(self._params.size, self._params.dtype)
        self._step = self._constrained(self.optimizer.bind(self._params, self._grads, self._stretches()))
        output = self.network.output_shape
        assert output is not None
        masked = False
        for layer in self.network.layers:
            masked = layer.makes_mask or (masked and layer.supports_masking)
        self._train_tally, self._test_tally = (Tally(self._entries, output, masked) for _ in range(2))
        self._started = True

    def _stretches(self) -> list[Stretch]:
        """Where each trained weight lies in the flat arrays, in their order."""
        trained = [s for s in self.network.slots if s.trainable]
        return [Stretch(s.path, s.offset, s.size) for s in sorted(trained, key=lambda s: s.offset)]

    def _constrained(self, step: Callable[[], None]) -> Callable[[], None]:
        """The optimizer's step, and what holds for the weights after it."""
        slots, work = [s for s in self.network.slots if s.trainable], Workspace(self.network.dtype)
        calls = [s.constraint.bind(s.view(self._params), work) for s in slots if s.constraint is not None]
        if not calls:
            return step

        def whole() -> None:
            step()
            for call in calls:
                call()

        return whole

    def check_data(
        self,
        x_shape: Sequence[int],
        x_dtype: DType | type | str,
        y_shape: Sequence[int],
        y_dtype: DType | type | str,
        *,
        y_limits: tuple[float, float] | None = None,
        weight_shape: Sequence[int] | None = None,
        weight_dtype: DType | type | str = np.float32,
    ) -> DType:
        """Refuse data that cannot be trained on, before a run; shapes with the batch. Builds the network if need be.

        Args:
            y_limits: smallest and largest target, if known; needed only where `wants_limits` is true.

        Returns:
            The type that targets are best given in: float32. Others work and are converted batch by batch.

        Raises:
            InvalidInput: what was given, what was expected and what to do.
        """
        check_samples(x_dtype)
        if not x_shape:
            raise InvalidInput("x must have one row for each sample, not a single number")
        if len(y_shape) < 1 or y_shape[0] != x_shape[0]:
            raise InvalidInput(f"x has {x_shape[0]} samples, but y has the shape {tuple(y_shape)}")
        self.prepare(x_shape)
        output = self.network.output_shape
        assert output is not None
        chosen = [metrics_.meant(metric, (1, *output), tuple(y_shape)) for _, metric, _ in self._entries]
        check_targets(self.loss, chosen, output, tuple(y_shape)[1:], y_dtype, y_limits)
        if weight_shape is not None:
            if len(weight_shape) < 1 or weight_shape[0] != x_shape[0]:
                raise InvalidInput(f"x has {x_shape[0]} samples, but sample_weight has the shape {tuple(weight_shape)}")
            check_weights(tuple(weight_shape)[1:], weight_dtype, output)
        return self.network.dtype

    @property
    def started(self) -> bool:
        """Whether the optimizer has its slots: from the moment that the network is built."""
        return self._started

    @property
    def wants_limits(self) -> bool:
        """Whether the loss takes class numbers, whose range should be checked."""
        return self.loss.sparse

    @property
    def metric_directions(self) -> dict[str, metrics_.Direction | None]:
        """By their keys in logs, in their order, whether less ("min") or more ("max") of each metric is better, as far
        as known.
        """
        return metrics_.directions(self._entries, self.network.output_shape)

    # Metrics that are no means: their values at the end

    def begin_epoch(self) -> None:
        """Let what metrics accumulate in training begin at zero."""
        self._train_tally.reset()

    def epoch_logs(self) -> dict[str, float]:
        """The metrics that accumulate, over the training batches since `begin_epoch`."""
        return self._train_tally.results()

    def end_epoch(self) -> dict[str, float]:
        """The same, and begin at zero again."""
        found = self._train_tally.results()
        self._train_tally.reset()
        return found

    def end_fit(self) -> None:
        """Let averaged weights take the weights' place, where the optimizer keeps averages."""
        self.optimizer.finish(self._params)

    def begin_test(self) -> None:
        """Let what metrics accumulate in `test_batch` begin at zero; it has nothing to do with training's."""
        self._test_tally.reset()

    def end_test(self) -> dict[str, float]:
        """The metrics that accumulate, over the batches tested since `begin_test`."""
        found = self._test_tally.results()
        self._test_tally.reset()
        return found

    # Batches

    def train_batch(self, x: Array, y: Array, sample_weight: Array | None = None) -> dict[str, float]:
        """One step on a batch: `x` `(rows, *input_shape)`, `y`, and optionally weights.

        Weights are `(rows,)`, or `(rows, steps)` for the predictions of a sequence.

        Returns:
            `{"loss": …, metric: …}`: means over the batch, computed with the weights before the step. Metrics that are
            no means are missing: `end_epoch` has their values.
        """
        try:
            run = self._train_runs[x.shape, y.shape, sample_weight if sample_weight is None else sample_weight.shape]
        except (KeyError, AttributeError):
            x, y, sample_weight, run = self._planned(x, y, sample_weight, self._train_runs, self._train_run)
        return run(x, y, sample_weight)

    def test_batch(self, x: Array, y: Array, sample_weight: Array | None = None) -> dict[str, float]:
        """Loss and metrics of a batch; nothing is dropped out and nothing changes."""
        try:
            run = self._test_runs[x.shape, y.shape, sample_weight if sample_weight is None else sample_weight.shape]
        except (KeyError, AttributeError):
            x, y, sample_weight, run = self._planned(x, y, sample_weight, self._test_runs, self._test_run)
        return run(x, y, sample_weight)

    @property
    def random(self) -> bool:
        """Whether a training batch draws random numbers; if so, `seek` says which."""
        return self.network.random

    def seek(self, key: tuple[int, int], epoch: int, step: int) -> None:
        """Before a training batch: where it stands. All its random numbers are functions of this.

        Args:
            key: (seed, number of the fit).
            epoch, step: both count from 0; `step` never resets.
        """
        self._dice.seek(key, epoch, step)
        self._sought = True

    def _planned(
        self, x: Array, y: Array, w: Array | None, runs: dict[Any, Run], make: Callable[[Shape, Shape, bool], Run]
    ) -> tuple[Array, Array, Array | None, Run]:
        """The slow way in: anything array-like, a size of batch that was not seen yet, a network without weights."""
        x, y = np.asarray(x), np.asarray(y)
        w = None if w is None else np.asarray(w)
        key = x.shape, y.shape, None if w is None else w.shape
        run = runs.get(key)
        if run is None:
            shapes = (None, np.float32) if w is None else (w.shape, w.dtype)
            self.check_data(x.shape, x.dtype, y.shape, y.dtype, weight_shape=shapes[0], weight_dtype=shapes[1])
            if not x.shape[0]:
                raise InvalidInput("a batch needs at least one sample")
            if len(runs) >= MAX_RUNS:
                runs.clear()
            run = runs[key] = make(x.shape, y.shape, w is not None)
        return x, y, w, run

    def _train_run(self, x_shape: Shape, y_shape: Shape, weighted: bool) -> Run:
        def make(given: Array | None) -> Run | None:
            return self._bound_run(x_shape, y_shape, weighted, given)

        if large(x_shape[0], x_shape[1:], self.network.dtype):
            return Steady(make, self.network.dtype)
        run = make(None)
        assert run is not None
        return run

    def _bound_run(self, x_shape: Shape, y_shape: Shape, weighted: bool, given: Array | None) -> Run | None:
        """The steps of a batch, on the plan's own input or on that given; None if it cannot be computed on."""
        penalties: list[Penalty] = []
        plan = self.network.plan(
            x_shape[0], self._train_work, grads=self._grads, dice=self._dice, penalties=penalties, given=given
        )
        if given is not None and plan.x is not given:
            return None
        forth, value, back, outcome, metrics, counts = self._parts(plan, y_shape, weighted, train=True)
        of_weights = self._weight_penalties(self._grads)
        penalties += of_weights
        back = [*back, *of_weights]
        work, key, x_in = plan.workspace, plan.key, plan.x
        y_in, w_in = outcome.target_views, outcome.weight_views
        target = y_in[0]
        others = y_in[1:]
        step, random, network, params = self._step, self.random, self.network, self._params
        forward, backward = tuple(forth), tuple(back)

        def run(x: Array, y: Array, w: Array | None) -> dict[str, float]:
            if work.current is not key:
                plan.enter()
            if network.params is not params:
                raise self._outdated()
            if random and not self._sought:
                self._dice.seek((self.network.seed, 0), 0, self.optimizer.batches)
            if given is None:
                x_in[...] = x
            target[...] = y
            for view in others:
                view[...] = y
            for view in w_in:
                view[...] = w.reshape(view.shape[0], -1)  # type: ignore[union-attr]
            for call in forward:
                call()
            logs = {"loss": value()}
            for name, metric in metrics:
                logs[name] = metric()
            for count in counts:
                count()
            for call in backward:
                call()
            step()
            if random:
                self._sought = False
            return logs

        return charged(run, penalties)

    def _test_run(self, x_shape: Shape, y_shape: Shape, weighted: bool) -> Run:
        penalties: list[Penalty] = []
        plan = self.network.plan(x_shape[0], self._test_work, penalties=penalties)
        forward, value, _, outcome, metrics, counts = self._parts(plan, y_shape, weighted, train=False)
        of_weights = self._weight_penalties(None)
        penalties += of_weights
        forward = [*forward, *of_weights]
        work, key, x_in = plan.workspace, plan.key, plan.x
        y_in, w_in = outcome.target_views, outcome.weight_views

        def run(x: Array, y: Array, w: Array | None) -> dict[str, float]:
            if work.current is not key:
                plan.enter()
            x_in[...] = x
            for view in y_in:
                view[...] = y
            for view in w_in:
                view[...] = w.reshape(view.shape[0], -1)  # type: ignore[union-attr]
            for call in forward:
                call()
            logs = {"loss": value()}
            for name, metric in metrics:
                logs[name] = metric()
            for count in counts:
                count()
            return logs

        return charged(run, penalties)

    def _weight_penalties(self, grads: Array | None) -> list[Penalty]:
        """Those of the weights that are trained; their gradients are added to `grads`."""
        found = []
        for slot in self.network.slots:
            if slot.trainable and slot.regularizer is not None:
                self._penalty_work.restart()  # one after the other: all take the same scratch memory
                slope = None if grads is None else slot.view(grads)
                weight = slot.view(self.network.params)
                found.append(Penalty(slot.regularizer, weight, slope, 1.0, self._penalty_work))
        return found

    def _parts(
        self, plan: Plan, y_shape: Shape, weighted: bool, *, train: bool
    ) -> tuple[list[Call], Callable[[], float], list[Call], Outcome, list[tuple[str, Callable[[], float]]], list[Call]]:
        """What one batch runs, with the last activation computed by the loss where it can."""
        fused = self.loss.fuses is not None and self.loss.fuses == plan.activation.name and not plan.whole_head
        fused = fused and not isinstance(plan.activation, ActivationFunction)  # which may be called the same
        outcome = Outcome(
            work=plan.workspace, y=plan.y, logits=plan.z if fused else None, dy=plan.dy if train else None,
            target_shape=y_shape, weighted=weighted, mask=plan.mask,
        )  # fmt: skip
        value = self.loss.bound(outcome)
        tally = self._train_tally if train else self._test_tally
        metrics: list[tuple[str, Callable[[], float]]] = []
        counts: list[Call] = []
        for key, given, weighs in self._entries:
            shown, counted = tally.bind(key, metrics_.meant(given, plan.y.shape, y_shape), weighs, outcome)
            if shown is not None:
                metrics.append((key, shown))
            if counted is not None:
                counts.append(counted)
        if fused:
            return [*plan.forward, *outcome.begin], value, plan.backward, outcome, metrics, counts
        forward = [*plan.forward, *plan.head_forward, *outcome.begin]
        backward = [*plan.head_backward, *plan.backward]
        return forward, value, backward, outcome, metrics, counts

    # Prediction

    def predict(
        self, x: Array, *, batch_size: int = 32, params: Array | None = None, fixed: Array | None = None
    ) -> Array:
        """The outputs for `x`, `(rows, *output_shape)`.

        Several predictions may run at once, in different threads and beside training: each has a workspace of its own.
        Beside training give the flat arrays of a snapshot, because the live ones change under its hands.

        Args:
            batch_size: rows that are computed at a time; the last bits may depend on it.
            params, fixed: flat arrays to use instead of the live weights.
        """
        return predict(self.network, x, batch_size=batch_size, params=params, fixed=fixed)

    # State

    @property
    def learning_rate(self) -> float:
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self.optimizer.set_rate(value)

    @property
    def why_scheduled(self) -> str | None:
        """Why the learning rate cannot be set; None if it can."""
        return None if self.optimizer.schedule is None else self.optimizer.why_scheduled

    def state(self) -> dict[str, Any]:
        """All that the next batch depends on: live flat arrays, and numbers. Copy what you keep."""
        self._require_started()
        optimizer = self.optimizer
        return self.weights_state() | {
            "learning_rate": optimizer.learning_rate,
            "optimizer/iteration": optimizer.batches,
            "fits": self.fits,
            **{f"optimizer/{name}": slot for name, slot in optimizer.slots.items()},
            **{f"optimizer/{name}": number for name, number in optimizer.scalars.items()},
            **({"metrics": self._train_tally.flat} if self._train_tally.flat.size else {}),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Copy a state in.

        Raises:
            InvalidInput: names or shapes are not those of `state()`; nothing was changed.
        """
        mine = self.check_state(state)
        if self.optimizer.schedule is None:  # (it follows from the iteration)
            self.optimizer.set_rate(float(state["learning_rate"]))
        for name, array in mine.items():
            if isinstance(array, np.ndarray):
                array[...] = state[name]
        self.optimizer.batches = int(state["optimizer/iteration"])
        self.fits = int(state["fits"])

    def check_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse what `load_state` would; returns the present state.

        Raises:
            InvalidInput: names, shapes or kinds are not those of `state()`.
        """
        if not isinstance(state, Mapping):
            raise InvalidInput(
                f"a state is what state() returns, a mapping of names to arrays and numbers, not {state!r}"
            )
        mine = self.state()
        self._match(mine, state)
        for name, value in mine.items():
            kind, given = np.asarray(value).dtype.kind, np.asarray(state[name]).dtype.kind
            if kind != given and (kind, given) != ("f", "i"):
                raise InvalidInput(f"{name!r} of the state is of kind {given!r}, but this model's is of {kind!r}")
        rate = float(state["learning_rate"])
        if not 0 <= rate <= float(np.finfo(np.float32).max):
            raise InvalidInput(f"the learning rate of the state is {rate}; it is finite and at least 0")
        for name in ("optimizer/iteration", "fits"):
            if not 0 <= int(state[name]) < 2**63:
                raise InvalidInput(f"{name!r} of the state is {state[name]}; it counts from 0")
        return mine

    def weights_state(self) -> dict[str, Any]:
        """The live weights alone: "params", and "fixed" if the network has weights that are not trained."""
        self._require_started()
        network = self.network
        return {"params": network.params} | ({"fixed": network.fixed} if network.fixed.size else {})

    def load_weights_state(self, state: Mapping[str, Any]) -> None:
        """Copy weights in; learning rate, iteration and slots stay. `state` may be a whole state or its weights."""
        for name, array in self.check_weights(state).items():
            array[...] = state[name]

    def check_weights(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse what `load_weights_state` would; returns the present weights.

        Raises:
            InvalidInput: names, shapes or kinds are not those of `weights_state()`.
        """
        mine = self.weights_state()
        self._match(mine, {name: value for name, value in state.items() if name in mine})
        for name in mine:
            if np.asarray(state[name]).dtype.kind not in "fiu":
                raise InvalidInput(f"{name!r} of the state is of kind {np.asarray(state[name]).dtype.kind!r}")
        return mine

    def _match(self, mine: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        if missing := mine.keys() ^ given.keys():
            raise InvalidInput(
                f"the state has {', '.join(sorted(given))}, but this model's has {', '.join(sorted(mine))} "
                f"(differing: {', '.join(sorted(missing))})"
            )
        for name, value in mine.items():
            if np.shape(value) != np.shape(given[name]):
                raise InvalidInput(
                    f"{name!r} of the state has the shape {np.shape(given[name])}, but this model's {np.shape(value)}"
                )

    def _require_started(self) -> None:
        if not self._started:
            self.network.require_built("state")
            self._start()
        elif self._params is not self.network.params:
            raise self._outdated()

    # Optimizer variables, as model files hold them

    def optimizer_slots(self, state: Mapping[str, Any] | None = None) -> list[tuple[str, Array]]:
        """The slots as views by name, in Keras's order (formats.md 7.6): `adam/dense_kernel_momentum`, …

        In files the iteration and the learning rate stand before them. Those of `state`, else the live ones.
        """
        state = self.state() if state is None else state
        prefix = self.optimizer.get_config()["name"]
        trained: list[Slot] = [s for s in self.network.slots if s.trainable]
        return [
            (f"{prefix}/{s.path.replace('/', '_')}_{name}", s.view(state[f"optimizer/{name}"]))
            for group in self.optimizer.all_slot_groups
            for s in trained
            for name in group
        ] + [(f"{prefix}/{name}", np.asarray(state[f"optimizer/{name}"])) for name in self.optimizer.scalars]

    def load_optimizer_slots(self, arrays: Sequence[Array], *, iteration: int, learning_rate: float | None) -> None:
        """Copy in what a file holds, in the order of `optimizer_slots`. With a schedule there is no learning rate.

        Raises:
            InvalidInput: the number or a shape differs; nothing was changed.
        """
        mine = self.optimizer_slots()
        if len(arrays) != len(mine):
            raise InvalidInput(f"the optimizer {self.optimizer!r} has {len(mine)} slots, but {len(arrays)} were given")
        for (name, slot), array in zip(mine, arrays, strict=True):
            if slot.shape != np.shape(array):
                raise InvalidInput(f"the slot {name} has the shape {slot.shape}, but {np.shape(array)} was given")
        for (_, slot), array in zip(mine, arrays, strict=True):
            slot[...] = array
        self.optimizer.batches = int(iteration)
        if learning_rate is not None:
            self.optimizer.learning_rate = float(learning_rate)

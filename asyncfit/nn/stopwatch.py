"""A clock beside the calls of a plan: what each part of a training batch takes.

The calls are those that training runs, in lists of a layer each; the clock is read between the lists, not between the
calls. Every other batch is trained without a clock inside, so that the whole is known as well.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from asyncfit.errors import InvalidInput

from .arrays import Array, Call
from .learner import Learner
from .penalties import Penalty
from .plan import Plan
from .profile import Profile, ProfileRow
from .steady import large
from .workspace import Workspace

__all__ = ["Stopwatch"]

WARM_UP = 3
"""Batches of either kind that do not count: plans are made, and memory is touched for the first time."""

Stage = tuple[str, Sequence[Call]]
Batch = tuple[Array, Array, Array | None]


class Stopwatch:
    """Trains `learner` (somebody's copy) on batches of one size, and notes what that takes.

    Args:
        batches: so many count.
    """

    def __init__(self, learner: Learner, batches: int) -> None:
        self.learner = learner
        self.batches = batches
        self._shape: tuple[object, ...] | None = None
        self._whole: list[int] = []
        self._marks: list[list[int]] = []
        self._batch: Batch

    @property
    def done(self) -> bool:
        return len(self._marks) >= self.batches + WARM_UP

    def take(self, x: Array, y: Array, w: Array | None) -> None:
        """Measure a batch; one of another shape than the first, as the last of a pass, is left out."""
        shape = x.shape, y.shape, w is None
        if self._shape is None:
            self._shape = shape
            self._begin(x, y, w)
        if shape != self._shape or self.done:
            return
        self._x[...] = x  # a buffer of a source's, which is not the learner's own
        begin = time.perf_counter_ns()
        self.learner.train_batch(self._x, y, w)
        self._whole.append(time.perf_counter_ns() - begin)
        self._batch = self._x, y, w
        self._marks.append(self._clocked([calls for _, calls in self._stages]))

    def _begin(self, x: Array, y: Array, w: Array | None) -> None:
        learner = self.learner
        dtype = learner.network.dtype
        self._x = np.empty(x.shape, dtype)
        self._batch = (self._x, y, w)
        learner._planned(self._x, y, w, learner._train_runs, learner._train_run)  # checks the data
        penalties: list[Penalty] = []
        for given in (self._x, None) if large(x.shape[0], x.shape[1:], dtype) else (None,):
            penalties.clear()
            self._plan = learner.network.plan(
                x.shape[0],
                Workspace(dtype),
                grads=learner._grads,
                dice=learner._dice,
                penalties=penalties,
                given=given,
            )
            if given is None or self._plan.x is given:
                break
        self._stages = self._staged(y.shape, w is not None)
        self._plan.enter()

    def _staged(self, y_shape: tuple[int, ...], weighted: bool) -> list[Stage]:
        """All calls of a batch in order, by what they belong to."""
        learner, plan = self.learner, self._plan
        forth, value, back, outcome, metrics, counts = learner._parts(plan, y_shape, weighted, train=True)
        tail, head = forth[len(plan.forward) :], back[: len(back) - len(plan.backward)]
        last = len(plan.sections) - 1

        def copy_in() -> None:
            x, y, w = self._batch
            if plan.x is not x:
                plan.x[...] = x
            for view in outcome.target_views:
                view[...] = y
            for view in outcome.weight_views:
                view[...] = w.reshape(view.shape[0], -1)  # type: ignore[union-attr]

        stages: list[Stage] = [("batch", [copy_in])]
        stages += [
            (f"forward {i}", [*section.forward, *(tail if i == last else [])])
            for i, section in enumerate(plan.sections)
        ]
        stages += [("loss", [value]), ("metrics", [*(metric for _, metric in metrics), *counts])]
        stages += [
            (f"backward {i}", [*(head if i == last else []), *plan.sections[i].backward])
            for i in reversed(range(last + 1))
        ]
        return [*stages, ("penalties", learner._weight_penalties(learner._grads)), ("optimizer", [learner._step])]

    def _clocked(self, stages: Sequence[Sequence[Call]]) -> list[int]:
        """Run the stages; the clock before the first and after each."""
        learner, clock = self.learner, time.perf_counter_ns
        if learner.random:
            learner._dice.seek((learner.network.seed, 0), 0, learner.optimizer.batches)
        marks = [clock()]
        for calls in stages:
            for call in calls:
                call()
            marks.append(clock())
        return marks

    def profile(self) -> Profile:
        """What was found.

        Raises:
            InvalidInput: there were too few batches.
        """
        if len(self._marks) <= WARM_UP:
            raise InvalidInput(
                f"profile: the data ended after {len(self._marks)} batches; it takes at least {WARM_UP + 1} to measure"
            )
        empty = np.diff([self._clocked([()] * len(self._stages)) for _ in range(20)], axis=1)
        spent = np.diff(self._marks[WARM_UP:], axis=1)
        times = np.maximum(faster_half(spent) - np.median(empty), 0) / 1000
        found = {name: float(took) for (name, _), took in zip(self._stages, times, strict=True)}
        whole = float(faster_half(np.array(self._whole[WARM_UP:])[:, None])[0]) / 1000
        rest = max(0.0, whole - sum(found.values()))
        batch = max(whole, sum(found.values()))
        rows = [self._row(row, batch) for row in rows_of(self.learner, self._plan, found, rest)]
        return Profile(
            model=self.learner.network.name, rows=tuple(rows), batch=whole, batch_size=len(self._x),
            batches=len(spent),
        )  # fmt: skip

    @staticmethod
    def _row(row: ProfileRow, batch: float) -> ProfileRow:
        return ProfileRow(
            name=row.name, kind=row.kind, output=row.output, forward=row.forward, backward=row.backward,
            share=row.total / batch,
        )  # fmt: skip


def faster_half(times: Array) -> Array:
    """The mean over that half of the batches (the first axis) that took less time in all: others were held up by
    something else. So the parts of a batch still add up to the whole, as medians would not.
    """
    order = np.argsort(times.sum(1))[: (len(times) + 1) // 2]
    found: Array = times[order].mean(0)
    return found


def rows_of(learner: Learner, plan: Plan, found: dict[str, float], rest: float) -> list[ProfileRow]:
    """The rows of a profile; without shares, and without those of nothing."""
    layers = learner.network.layers
    rows = [ProfileRow(name="batch", forward=found["batch"])]
    for i, section in enumerate(plan.sections):
        one = layers[section.first : section.last + 1]
        rows.append(
            ProfileRow(
                name=" + ".join(layer.name for layer in one), kind=" + ".join(type(layer).__name__ for layer in one),
                output=one[-1].output_shape, forward=found[f"forward {i}"], backward=found[f"backward {i}"],
            )
        )  # fmt: skip
    penalized = any(slot.trainable and slot.regularizer is not None for slot in learner.network.slots)
    there = {
        "loss": True,
        "metrics": bool(learner.metrics or learner.weighted_metrics),
        "penalties": penalized,
        "optimizer": True,
    }
    kinds = {"loss": type(learner.loss).__name__, "optimizer": type(learner.optimizer).__name__}
    rows += [ProfileRow(name=name, kind=kinds.get(name, ""), forward=found[name]) for name in there if there[name]]
    return [*rows, ProfileRow(name="other", forward=rest)]

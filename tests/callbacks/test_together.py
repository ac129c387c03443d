"""All that decide, in one run, in any order of the list."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncfit as af
from asyncfit import callbacks as shipped
from asyncfit.callbacks import (
    CSVLogger,
    EarlyStopping,
    JSONLinesLogger,
    LearningRateScheduler,
    ProgressBar,
    ReduceLROnPlateau,
    StopOnSignal,
    SwapEMAWeights,
    TerminateOnNaN,
    TimeLimit,
)
from asyncfit.testing import LoopbackExecutor, Scripted
from tests.run.helpers import X, Y


class Adds(af.Callback):
    """A user's own figure."""

    def on_epoch_end(self, event: af.EpochEnd) -> None:
        event.add_logs(score=event.logs["loss"] + 1)


def train(order: list[int], lookahead: int) -> tuple[Any, ...]:
    callbacks = [
        Adds(),
        EarlyStopping("score", patience=4, mode="min", restore_best_weights=True),
        EarlyStopping("loss", patience=6, name="longer"),
        ReduceLROnPlateau("score", patience=1, mode="min", factor=0.5),
        LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        TerminateOnNaN(),
        TimeLimit(1000),
        StopOnSignal(),
    ]
    model = Scripted([3.0, 2.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    history = af.Trainer(model).fit(
        X, Y, epochs=10, batch_size=2, executor=LoopbackExecutor(), lookahead=lookahead,
        callbacks=[callbacks[place] for place in order],
    ).blocking()  # fmt: skip
    return history.history, history.outcome, history.reason, model.state()


@settings(max_examples=40)
@given(order=st.permutations(range(8)), lookahead=st.sampled_from([0, 1, 2]))
def test_neither_order_nor_lookahead_decides_anything(order: list[int], lookahead: int) -> None:
    result = train(order, lookahead)
    assert result[1:3] == ("stopped", "score has not improved for 4 epochs")
    assert repr(result) == repr(train(list(range(8)), 0))


@pytest.mark.parametrize("name", [n for n in shipped.__all__ if n != "LambdaCallback"])
def test_an_unknown_keyword_is_answered_with_the_nearest_one(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}: unknown keyword 'nmae'; did you mean 'name'"):
        getattr(shipped, name)(nmae="mine")


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        (CSVLogger, {"filename": "log.csv", "append": "no"}, "append=….* is True or False, not 'no'"),
        (JSONLinesLogger, {"filename": "log.jsonl", "append": None}, "append=….* is True or False"),
        (ProgressBar, {"leave": "no"}, "leave=….* is True or False"),
        (SwapEMAWeights, {"swap_on_epoch": 0.99}, "swap_on_epoch=….* is True or False"),
        (CSVLogger, {"filename": "\ud800.csv"}, "is no path"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_construction(kind: Any, given: dict[str, Any], says: str) -> None:
    with pytest.raises((TypeError, af.InvalidInput), match=says):
        kind(**given)

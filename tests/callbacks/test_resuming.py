"""A run that is cut anywhere, and goes on with fresh callbacks that were given the states, decides as if uncut."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncfit as af
from asyncfit.callbacks import EarlyStopping, LearningRateScheduler, ReduceLROnPlateau, TerminateOnNaN
from asyncfit.testing import LoopbackExecutor, Scripted

ROWS = np.zeros((2, 1))


class Kept(af.Callback):
    """Notes, before each epoch, all that a run needs to go on there: what a checkpoint has."""

    order = 200

    def __init__(self, callbacks: list[af.Callback]) -> None:
        self.callbacks = callbacks
        self.kept: dict[int, tuple[dict[str, Any], list[str]]] = {}

    def on_epoch_begin(self, event: af.EpochBegin) -> None:
        state = dict(event.model.state()) | {"learning_rate": event.learning_rate}
        self.kept[event.epoch] = copy.deepcopy(state), [frozen(one.state_dict()) for one in self.callbacks]


def frozen(state: Mapping[str, Any]) -> str:
    """As a file would have it: numbers, text and arrays are all that there is."""
    plain: dict[str, Any] = {}
    for name, value in state.items():
        assert isinstance(value, int | float | str | np.ndarray), name
        plain[name] = {"array": value.tolist()} if isinstance(value, np.ndarray) else value
    return json.dumps(plain)


def thawed(text: str) -> dict[str, Any]:
    return {
        name: np.array(value["array"]) if isinstance(value, dict) else value for name, value in json.loads(text).items()
    }


def states(callbacks: list[af.Callback]) -> list[str]:
    """Without the step, which begins anew in a run that does not know of the one before."""
    return [frozen({k: v for k, v in c.state_dict().items() if k != "best_model_step"}) for c in callbacks]


figure = st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.0, 2.0, float("nan"), float("inf")])


@settings(max_examples=25)
@given(
    curve=st.lists(figure, min_size=2, max_size=7),
    stopping=st.fixed_dictionaries(
        {
            "patience": st.integers(0, 4),
            "mode": st.sampled_from(["min", "max"]),
            "min_delta": st.sampled_from([0, 0.25]),
            "baseline": st.sampled_from([None, 0.5]),
            "restore_best_weights": st.booleans(),
            "start_from_epoch": st.integers(0, 3),
        }
    ),
    plateau=st.fixed_dictionaries(
        {"patience": st.integers(0, 3), "cooldown": st.integers(0, 3), "factor": st.sampled_from([0.5, 0.1])}
    ),
)
def test_a_cut_run_goes_on(curve: list[float], stopping: dict[str, Any], plateau: dict[str, Any]) -> None:
    def callbacks() -> list[af.Callback]:
        return [
            EarlyStopping("loss", **stopping),
            ReduceLROnPlateau("loss", **plateau),
            LearningRateScheduler(lambda epoch, rate: rate * 0.9),
        ]

    def train(model: Scripted, given: list[af.Callback], first: int = 0) -> tuple[Any, ...]:
        history = af.Trainer(model).fit(
            ROWS, ROWS, batch_size=1, epochs=len(curve), initial_epoch=first, callbacks=given,
            executor=LoopbackExecutor(),
        ).blocking()  # fmt: skip
        return history.epoch, history.history["learning_rate"], history.outcome, history.reason, model.state()

    whole = callbacks()
    keeper = Kept(whole)
    epochs, rates, *end = train(Scripted(curve), [*whole, keeper])
    for first, (state, kept) in keeper.kept.items():
        fresh, model = callbacks(), Scripted(curve)
        for one, text in zip(fresh, kept, strict=True):
            one.load_state_dict(thawed(text))
        model.load_state(state)
        again = train(model, fresh, first)
        assert repr(again) == repr((epochs[first:], rates[first:], *end))
        assert states(fresh) == states(whole)


def test_those_without_a_memory_have_no_state() -> None:
    assert TerminateOnNaN().state_dict() == {}
    assert LearningRateScheduler(lambda epoch: 0.1).state_dict() == {}

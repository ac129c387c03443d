"""Functions become hooks, and what cannot be called is refused at once, with the line to write."""

from __future__ import annotations

from typing import Any

import pytest

import asyncfit as af
from asyncfit.callbacks import LambdaCallback
from tests.run.helpers import fit, kinds


@pytest.mark.anyio
async def test_functions_are_called_at_their_events() -> None:
    seen: list[af.Event] = []

    async def later(event: af.Event) -> None:
        seen.append(event)

    callback = LambdaCallback(
        later, seen.append, lambda event: seen.append(event), later, seen.append, later,
        on_learning_rate_changed=later,
    )  # fmt: skip
    async with fit(callbacks=callback) as run:
        run.set_learning_rate(0.5)
    steps = ["TrainBegin", "EpochBegin"] + ["BatchBegin", "BatchEnd"] * 3 + ["EpochEnd", "TrainEnd"]
    assert [kind for kind in kinds(seen) if kind != "LearningRateChanged"] == steps
    assert "LearningRateChanged" in kinds(seen)
    assert run.subscribers[0].name == "LambdaCallback"


@pytest.mark.anyio
async def test_it_is_a_gate_as_every_callback() -> None:
    history = await fit(epochs=10, callbacks=LambdaCallback(on_epoch_end=lambda event: event.stop("enough")))
    assert (history.epoch, history.reason) == ([0], "enough")


@pytest.mark.anyio
async def test_settings_are_keywords() -> None:
    callback = LambdaCallback(on_event=lambda event: None, gates="none", on_error="log", name="all")
    async with fit(callbacks=callback) as run:
        pass
    (stats,) = run.subscribers
    assert (stats.name, stats.mode) == ("all", "queued")


def nothing(*_: Any) -> None: ...


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"on_epoch_end": lambda epoch, logs: None}, r"not of \(epoch, logs\). Write on_epoch_end=lambda event: …"),
        ({"on_epoch_end": lambda epoch, logs=None: None}, r"# event.epoch, event.logs"),
        ({"on_train_begin": lambda logs: None}, r"Write on_train_begin=lambda event"),
        (
            {"on_train_batch_end": lambda b, logs: None},
            r"Write on_train_batch_end=lambda event: …  # event.step, event.l",
        ),
        ({"on_validation_end": lambda: None}, r"takes a function of one argument"),
        ({"on_epoch_ends": nothing}, "no hook on_epoch_ends; did you mean on_epoch_end?"),
        ({"onEpochEnd": nothing}, "did you mean on_epoch_end?"),
        ({"wavelet": nothing}, "no hook wavelet; hooks are on_batch_begin"),
        ({"on_batch_end": nothing, "on_train_batch_end": nothing}, "one hook"),
        ({"on_epoch_end": 3}, "takes a handler"),
        ({"on_epoch_end": af.History}, "History is a class"),
        ({"on_epoch_end": nothing, "name": 3}, "name= takes text"),
    ],
)
def test_what_cannot_be_called_is_refused_at_once(given: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        LambdaCallback(**given)


def test_settings_are_checked_at_once() -> None:
    with pytest.raises(ValueError, match="gates='always' is unknown"):
        LambdaCallback(gates="always")  # type: ignore[arg-type]

"""`Trainer`: what a model of one's own must offer, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import asyncfit as af

X, Y = np.zeros((4, 2)), np.zeros(4)


class Model:
    learning_rate = 0.1

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Any:
        return {"loss": np.float32(1.0)}

    def test_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Any:
        return {"loss": 1.0}

    def state(self) -> Any:
        return {"w": np.zeros(1)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        pass


def test_what_is_missing_is_named_with_the_line_to_write() -> None:
    for name in ("train_batch", "test_batch", "state", "load_state"):
        lacking: Any = type("Lacking", (), {k: v for k, v in vars(Model).items() if k != name})()
        with pytest.raises(TypeError, match=rf"Lacking is no Trainable, it lacks: def {name}\(self"):
            af.Trainer(lacking)
    rateless: Any = type("Rateless", (), {k: v for k, v in vars(Model).items() if k != "learning_rate"})()
    with pytest.raises(TypeError, match="lacks: learning_rate"):
        af.Trainer(rateless)
    with pytest.raises(TypeError, match="not the class"):
        af.Trainer(Model)  # type: ignore[arg-type]


def test_a_wrong_signature_is_told_when_the_trainer_is_made() -> None:
    two: Any = type("Two", (Model,), {"train_batch": lambda self, x, y: {"loss": 1.0}})()
    with pytest.raises(
        TypeError, match=r"Two.train_batch\(x, y\) should be: def train_batch\(self, x, y, sample_weight=None\)"
    ):
        af.Trainer(two)


async def _later() -> dict[str, float]:
    return {"loss": 1.0}


RETURNS = [
    pytest.param(lambda: 0.5, "must return a mapping such as", id="a number"),
    pytest.param(lambda: None, "must return a mapping such as", id="None"),
    pytest.param(lambda: {"l": 0.5}, "must return at least a 'loss'; it returned 'l'", id="no loss"),
    pytest.param(lambda: {"loss": np.ones(3)}, "which is no single number", id="an array"),
    pytest.param(lambda: {"loss": "low"}, "which is no single number", id="text"),
    pytest.param(_later, "compute runs in a thread and cannot await it", id="async"),
]


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["train_batch", "test_batch"])
@pytest.mark.parametrize(("returns", "message"), RETURNS)
async def test_what_a_batch_returns_is_looked_at(method: str, returns: Any, message: str) -> None:
    model: Any = Model()
    setattr(model, method, lambda x, y, sample_weight=None: returns())
    with pytest.raises(TypeError, match=message) as raised:
        await af.Trainer(model).fit(X, Y, validation_data=(X, Y))
    assert method in str(raised.value)


@pytest.mark.anyio
async def test_a_state_is_a_mapping() -> None:
    model: Any = Model()
    model.state = lambda: [1, 2]
    trainer = af.Trainer(model)
    with pytest.raises(TypeError, match=r"state\(\) must return a mapping"):
        await trainer.fit(X, Y)
    assert trainer._user is None

"""Any model can be trained: here a linear regression in ten lines, with the same runs, events and callbacks.

python examples/own_model.py
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np

import asyncfit as af
from asyncfit.testing import check_trainable


class LinearRegression:
    """y ≈ x · w, by gradient descent on the mean squared error."""

    def __init__(self, features: int) -> None:
        self.w, self.learning_rate = np.zeros(features), 0.1

    def train_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        error = x @ self.w - y
        self.w -= self.learning_rate * 2 * x.T @ error / len(x)
        return {"loss": np.mean(error**2)}

    def test_batch(self, x: Any, y: Any, sample_weight: Any = None) -> Mapping[str, float]:
        return {"loss": np.mean((x @ self.w - y) ** 2)}

    def state(self) -> Mapping[str, Any]:
        return {"w": self.w, "learning_rate": self.learning_rate}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.w[:], self.learning_rate = state["w"], state["learning_rate"]


class LowerTheRate(af.Callback):
    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        print(f"epoch {event.epoch}: loss {event.logs['loss']:.6f}, validation {event.logs['val_loss']:.6f}")
        event.set_learning_rate(0.9 * event.logs["learning_rate"])
        if event.logs["val_loss"] < 3e-5:
            event.stop("solved")


async def main() -> None:
    rng = np.random.default_rng(0)
    true = np.array([2.0, -3.0, 0.5])
    x = rng.normal(size=(500, 3))
    y = x @ true + rng.normal(scale=0.005, size=500)

    model = LinearRegression(features=3)
    check_trainable(model, [(x[:32], y[:32]), (x[32:64], y[32:64])])  # state() holds all that the next batch needs

    history = await af.Trainer(model).fit(x, y, epochs=20, validation_split=0.2, callbacks=LowerTheRate(), seed=1)
    print(f"{history.outcome} ({history.reason}): w = {np.round(model.w, 2)}, true {true}")


if __name__ == "__main__":
    asyncio.run(main())

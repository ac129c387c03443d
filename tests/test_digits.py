"""The main job on real data."""

from __future__ import annotations

from pathlib import Path

import anyio
import numpy as np
import pytest

import asyncfit as af
from asyncfit import layers

DATA = Path(__file__).parent.parent / "examples" / "data" / "mnist10k.npz"


@pytest.mark.slow
def test_digits_are_told_apart_within_ten_epochs() -> None:
    """A 784-256-128-10 network passes 95 % on digits that it has not seen, while a ticker runs beside it."""
    with np.load(DATA) as digits:
        x, y = digits["images"].reshape(-1, 784) / np.float32(255), digits["labels"]

    async def main() -> tuple[af.History, int]:
        model = af.Sequential(
            [
                layers.Input((784,)),
                layers.Dense(256, activation="relu"),
                layers.Dense(128, activation="relu"),
                layers.Dense(10, activation="softmax"),
            ],
            seed=0,
        )
        model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        ticks = 0

        class Enough(af.Callback):
            async def on_epoch_end(self, event: af.EpochEnd) -> None:
                if event.logs["val_accuracy"] > 0.95:
                    event.stop("more than 95 %")

        async def tick() -> None:
            nonlocal ticks
            while True:
                await anyio.sleep(0.001)
                ticks += 1

        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            fit = model.fit(x[:8000], y[:8000], epochs=10, validation_data=(x[8000:], y[8000:]), callbacks=Enough())
            history = await fit
            group.cancel_scope.cancel()
        return history, ticks

    history, ticks = anyio.run(main)
    assert history.outcome == "stopped"
    assert ticks > 100, "the loop was free"

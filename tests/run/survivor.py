"""A program that trains and may be killed at any moment: `python -m tests.run.survivor FOLDER EXECUTOR`.

It writes a byte to its output when training has begun, and what came out, when it is done, to FOLDER/result.json.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import asyncfit as af
from asyncfit import callbacks, layers

RNG = np.random.default_rng(1)
X, Y = RNG.normal(size=(400, 24)).astype("float32"), RNG.integers(0, 4, 400)


class Sums(af.Callback):
    """A user's callback that remembers what it has seen."""

    gates = "epoch"

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_batch_end(self, event: af.BatchEnd) -> None:
        self.losses.append(event.logs["loss"])

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        event.add_logs(seen=float(np.sum(self.losses)), batches=len(self.losses))

    def state_dict(self) -> Mapping[str, Any]:
        return {"losses": np.array(self.losses)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.losses = state["losses"].tolist()


class Ready(af.Callback):
    """Tells whoever watches that training has begun."""

    gates = "none"

    def on_batch_begin(self, event: af.BatchBegin) -> None:
        if not self.told:
            self.told = True
            sys.stdout.write(".")
            sys.stdout.flush()

    told = False


def model() -> af.Sequential:
    """80,000 weights, with Adam's slots about a megabyte of state."""
    made = af.Sequential([
        layers.Input((24,)), layers.Dense(256, "relu"), layers.Dropout(0.2), layers.Dense(256, "relu"), layers.Dense(4),
    ], seed=11)  # fmt: skip
    made.compile("adam", af.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return made


def result(trained: af.Sequential, history: af.History, sums: Sums) -> dict[str, Any]:
    """All that must be the same again."""
    state = trained.state()
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + np.asarray(state[name]).tobytes())
    return {
        "state": digest.hexdigest(),
        "history": history.history,
        "epochs": history.epoch,
        "losses": [float(loss) for loss in sums.losses],
        "outcome": history.outcome,
    }


async def train(executor: Any, *more: af.Callback, bus: af.EventBus | None = None) -> dict[str, Any]:
    trained, sums = model(), Sums()
    history = await trained.fit(
        X, Y, batch_size=16, epochs=6, validation_split=0.2, executor=executor, bus=bus,
        callbacks=[
            sums, callbacks.ReduceLROnPlateau(patience=1),
            callbacks.EarlyStopping(patience=9, restore_best_weights=True), *more,
        ],
    )  # fmt: skip
    return result(trained, history, sums)


async def main(folder: Path, executor: str) -> None:
    backup = callbacks.BackupAndRestore(folder / "backup", save_freq=3)
    found = await train(executor, backup, Ready())
    written = folder / "result.part"
    written.write_text(json.dumps(found))
    written.rename(folder / "result.json")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))

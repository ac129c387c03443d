"""A live run as a stream: its events with `async for`, and a stop from outside.

python examples/stream.py
"""

import asyncio
from pathlib import Path

import numpy as np

import asyncfit as af
from asyncfit import layers, losses

DATA = Path(__file__).parent / "data" / "mnist10k.npz"


async def main() -> None:
    with np.load(DATA) as digits:
        x, y = digits["images"].reshape(-1, 784) / np.float32(255), digits["labels"]

    model = af.Sequential([layers.Input((784,)), layers.Dense(64, activation="relu"), layers.Dense(10)], seed=3)
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])

    async with model.fit(x, y, epochs=1000, validation_split=0.2) as run:
        enough = asyncio.create_task(somebody_else(run))
        async for event in run.events(af.EpochEnd, af.StopRequested, af.TrainEnd):
            match event:
                case af.EpochEnd(complete=True):
                    print(f"epoch {event.epoch}: validation accuracy {event.logs['val_accuracy']:.3f}")
                case af.StopRequested():
                    print(f"stop requested by {event.who}: {event.reason}")
                case af.TrainEnd():
                    print(f"{event.outcome} at step {event.step}")
        await enough
    print(f"{len(run.history.epoch)} whole epochs are in the history")


async def somebody_else(run: af.Run) -> None:
    """Any task, thread or signal handler may do this."""
    async for event in run.events(af.BatchEnd):
        if event.step >= 700:
            await run.stop("seen enough")
            return


if __name__ == "__main__":
    asyncio.run(main())

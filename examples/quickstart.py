"""Train a network on handwritten digits inside an async program: live progress, a file per epoch, an early stop.

python examples/quickstart.py [directory for the model files]
"""

import asyncio
import os
import sys
from pathlib import Path

# BLAS threads wait by spinning: a small network in a busy program is better off with one. NumPy reads it when imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import asyncfit as af
from asyncfit import layers

DATA = Path(__file__).parent / "data" / "mnist10k.npz"
CLEAR = "\r" if sys.stdout.isatty() else ""


class Progress(af.Callback):
    """Shows the run while it computes. An observer: nothing waits for it."""

    gates = "none"

    async def on_batch_end(self, event: af.BatchEnd) -> None:
        if sys.stdout.isatty() and (event.step + 1) % 5 == 0:
            print(f"\r  batch {event.batch + 1}: loss {event.logs['loss']:.3f} ", end="", flush=True)

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        logs = event.logs
        print(
            f"{CLEAR}epoch {event.epoch + 1}: loss {logs['loss']:.3f}, accuracy {logs['accuracy']:.1%}, "
            f"validation loss {logs['val_loss']:.3f}, accuracy {logs['val_accuracy']:.1%}"
        )


class Checkpoints(af.Callback):
    """Awaits a file at the end of each epoch. Compute goes on meanwhile."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        await event.model.save(self.directory / f"model_at_epoch_{event.epoch}.h5")


class GoodEnough(af.Callback):
    """Asks for a stop when the validation loss has not fallen for two epochs; it acts as of that very epoch."""

    def on_train_begin(self, event: af.TrainBegin) -> None:
        self.best, self.waited = float("inf"), 0

    def on_epoch_end(self, event: af.EpochEnd) -> None:
        if event.logs["val_loss"] < self.best:
            self.best, self.waited = event.logs["val_loss"], 0
        else:
            self.waited += 1
            if self.waited == 2:
                event.stop(f"validation loss has not fallen below {self.best:.3f} for two epochs")


async def main(directory: Path) -> None:
    with np.load(DATA) as digits:
        x = digits["images"].reshape(-1, 784) / np.float32(255)
        y = digits["labels"]

    model = af.Sequential(
        [
            layers.Input((784,)),
            layers.Dense(256, activation="relu"),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ],
        seed=7,
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.summary()

    history = await model.fit(
        x[:8000],
        y[:8000],
        batch_size=64,
        epochs=20,
        validation_data=(x[8000:], y[8000:]),
        callbacks=[Progress(), GoodEnough(), Checkpoints(directory)],
    )

    print(f"{history.outcome}: {history.reason}")
    best = int(np.argmin(history.history["val_loss"]))
    chosen = await af.load_model(directory / f"model_at_epoch_{best}.h5")
    loss, accuracy = await chosen.evaluate(x[8000:], y[8000:])
    print(f"best: epoch {best + 1}, validation loss {loss:.3f}, accuracy {accuracy:.1%}, read back from its file")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))

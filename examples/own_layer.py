"""A layer, a loss and a metric of one's own, in NumPy: gradients are found by noting what they do.

python examples/own_layer.py [directory for the model file]
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # see quickstart.py

import numpy as np

import asyncfit as af
from asyncfit import layers

DATA = Path(__file__).parent / "data" / "mnist10k.npz"


class Prototypes(layers.Layer):
    """How near the input is to each of some points that are learned: minus its squared distance, times a factor."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: tuple[Any, ...]) -> None:
        self.points = self.add_weight(shape=(input_shape[-1], self.units), name="points")
        self.factor = self.add_weight(initializer="ones", constraint="non_neg", name="factor")

    def call(self, x: Any) -> Any:
        squares = np.sum(x**2, axis=-1, keepdims=True) + np.sum(self.points**2, axis=0)
        return -self.factor * (squares - 2 * x @ self.points)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def smoothed_crossentropy(y_true: Any, y_pred: Any) -> Any:
    """The crossentropy of scores (logits), with 5% of the probability for all classes alike."""
    shifted = y_pred - y_pred.max(axis=-1, keepdims=True)
    logs = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    chosen = np.take_along_axis(logs, y_true.astype(int)[:, None], axis=-1)[:, 0]
    return -0.95 * chosen - 0.05 * np.mean(logs, axis=-1)


def among_two(y_true: Any, y_pred: Any) -> Any:
    """Whether the class is among the two with the highest scores."""
    return np.any(np.argsort(y_pred, axis=-1)[:, -2:] == y_true.astype(int)[:, None], axis=-1)


async def main(directory: Path) -> None:
    with np.load(DATA) as digits:
        x = digits["images"].reshape(-1, 784) / np.float32(255)
        y = digits["labels"]

    model = af.Sequential([layers.Input((784,)), layers.Dense(64, activation="relu"), Prototypes(10)], seed=7)
    model.compile(optimizer="adam", loss=smoothed_crossentropy, metrics=["accuracy", among_two])
    model.summary()

    async with model.fit(x[:8000], y[:8000], batch_size=64, epochs=5, validation_data=(x[8000:], y[8000:])) as run:
        async for event in run.events(af.EpochEnd):
            logs = event.logs
            print(
                f"epoch {event.epoch + 1}: loss {logs['loss']:.3f}, validation accuracy {logs['val_accuracy']:.1%}, "
                f"among the best two {logs['val_among_two']:.1%}"
            )

    await model.save(directory / "prototypes.h5")
    own = {"Prototypes": Prototypes, "smoothed_crossentropy": smoothed_crossentropy, "among_two": among_two}
    again = await af.load_model(directory / "prototypes.h5", custom_objects=own)
    same = np.array_equal(await again.predict(x[8000:]), await model.predict(x[8000:]))
    _, accuracy, two = await again.evaluate(x[8000:], y[8000:])
    print(f"read back: the same predictions: {same}; accuracy {accuracy:.1%}, among the best two {two:.1%}")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))

"""A custom callback as the tutorials for Keras and TensorFlow.js write it, and what it looks like here.

It tracks the loss of every batch, saves `model_at_epoch_N.h5` after every epoch, and hears when a layer is created and
when the model is compiled and trained. Each hook takes one argument, the event, and may be `async def` or `def`.

    python examples/custom_callback.py
"""

import asyncio

import numpy as np

import asyncfit as af
from asyncfit import layers


class CustomCallback(af.Callback):
    async def on_train_begin(self, event: af.TrainBegin) -> None:
        self.losses: list[float] = []
        print("Training started.")

    async def on_batch_end(self, event: af.BatchEnd) -> None:
        self.losses.append(event.logs["loss"])

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        print(f"Epoch {event.epoch}: loss = {event.logs['loss']:.4f}")
        await event.model.save(f"model_at_epoch_{event.epoch}.h5")

    async def on_train_end(self, event: af.TrainEnd) -> None:
        print(f"Training finished. Final loss: {self.losses[-1]:.4f}, after {len(self.losses)} batches.")


class LayerCallback(af.Callback):
    """A layer callback: runs when a layer is created."""

    def on_layer_created(self, event: af.LayerCreated) -> None:
        print(f"Layer {event.index} created: {event.layer.name}")


class ModelCallback(af.Callback):
    """A model callback: runs when the model is compiled and trained."""

    def on_model_compiled(self, event: af.ModelCompiled) -> None:
        print(f"Model compiled: optimizer {event.optimizer}, loss {event.loss}")

    async def on_train_begin(self, event: af.TrainBegin) -> None:
        print(f"Model is trained: {event.params['epochs']} epochs of {event.params['steps']} batches")


async def main() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(256, 10)).astype(np.float32)
    y = (x.sum(axis=1) > 0).astype(np.float32)

    model = af.Sequential(seed=1)
    model.add(layers.Dense(units=32, activation="relu", input_shape=[10]))
    model.add(layers.Dense(units=1, activation="sigmoid"))

    model.compile(
        optimizer="sgd",
        loss="binaryCrossentropy",
        callbacks=[CustomCallback(), LayerCallback(), ModelCallback()],
    )
    await model.fit(x, y, epochs=10)


if __name__ == "__main__":
    asyncio.run(main())

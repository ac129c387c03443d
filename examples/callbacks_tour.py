"""A tour of the callbacks that come with asyncfit, on real handwritten digits: what each is for, what it leaves behind.

pip install "asyncfit[progress,plot,remote,tensorboard]"      # what is not installed is left out of the tour
python examples/callbacks_tour.py [directory for the files]

Names, parameters and decisions are those of Keras. Nobody needs all of them at once.
"""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

# BLAS threads wait by spinning: a small network in a busy program is better off with one. NumPy reads it when imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

import asyncfit as af
from asyncfit import callbacks, layers, optimizers

with np.load(Path(__file__).parent / "data" / "mnist10k.npz") as digits:
    X, Y = digits["images"].reshape(-1, 784) / np.float32(255), digits["labels"]
TRAINING, VALIDATION = (X[:4000], Y[:4000]), (X[8000:], Y[8000:])


def new_model(optimizer: optimizers.Optimizer) -> af.Sequential:
    model = af.Sequential(
        [layers.Input((784,)), layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax")], seed=7
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


async def the_usual_ones(folder: Path) -> None:
    """They decide, save, log and draw, beside compute and beside each other."""
    print("1. Stop early with the best weights, lower the rate, keep the best files, write everything down")
    bus = af.EventBus()

    @bus.on(af.LearningRateChanged, af.StopRequested, af.WeightsRestored)
    def tell(event: af.LearningRateChanged | af.StopRequested | af.WeightsRestored) -> None:
        match event:  # what a callback decides is an event as well, and says who decided
            case af.LearningRateChanged():
                print(f"   step {event.step}: {event.who} sets the rate from {event.previous:g} to {event.value:g}")
            case af.StopRequested():
                print(f"   step {event.step}: {event.who} asks for a stop: {event.reason}")
            case af.WeightsRestored():
                print(f"   step {event.step}: {event.who} puts the weights of step {event.source_step} back")

    model = new_model(optimizers.Adam(0.01))
    history = await model.fit(
        *TRAINING,
        epochs=50,
        validation_data=VALIDATION,
        bus=bus,
        callbacks=[
            callbacks.EarlyStopping(patience=4, restore_best_weights=True),
            callbacks.ReduceLROnPlateau(factor=0.3, patience=2),
            callbacks.ModelCheckpoint(folder / "{epoch:02d}-{val_loss:.3f}.h5", keep_last=1, keep_best=2),
            callbacks.CSVLogger(folder / "epochs.csv"),
            callbacks.JSONLinesLogger(folder / "events.jsonl"),
            *if_installed(callbacks.ProgressBar),
            *if_installed(lambda: callbacks.TensorBoard(folder / "board", histogram_freq=1)),
        ],
    )
    loss, accuracy = await model.evaluate(*VALIDATION)
    print(f"   the model has the best epoch's weights: validation loss {loss:.3f}, accuracy {accuracy:.1%}")
    await asyncio.to_thread(what_is_left, folder, history)


def what_is_left(folder: Path, history: af.History) -> None:
    files = sorted(file.name for file in folder.glob("*.h5"))
    print(f"   files: {', '.join(files)} (the best two, and the last)")
    header, first, *_ = (folder / "epochs.csv").read_text().splitlines()
    print(f"   epochs.csv: {header}\n               {first[:60]}…")
    again = list(callbacks.JSONLinesLogger.read(folder / "events.jsonl"))  # the same events, out of the file
    (kind, count), *_ = Counter(event.type for event in again).most_common()
    best = min((event for event in again if isinstance(event, af.EpochEnd)), key=lambda event: event.logs["val_loss"])
    print(f"   events.jsonl: {len(again)} events, {count} of them {kind}; the best epoch in it is {best.epoch + 1}")
    if (folder / "board").exists():
        print(f"   board: to look at it, tensorboard --logdir {folder / 'board'}")
    try:
        history.plot().savefig(folder / "curves.png")
    except ImportError as missing:
        print(f"   (left out: {missing})")


def if_installed(make: Callable[[], af.Callback]) -> list[af.Callback]:
    """A callback that needs an extra says so where it is made."""
    try:
        return [make()]
    except ImportError as missing:
        print(f"   (left out: {missing})")
        return []


async def rates_and_averages() -> None:
    """A rate that is known beforehand, a figure of one's own, an average of the weights."""
    print("2. A schedule, a figure of one's own, and a moving average of the weights")

    def add_largest(event: af.EpochEnd) -> None:  # callbacks that decide or save come later, and see it in the logs
        event.add_logs(largest=max(float(abs(weights).max()) for weights in event.model.get_weights()))

    model = new_model(optimizers.SGD(momentum=0.9))
    history = await model.fit(
        *TRAINING,
        epochs=6,
        validation_data=VALIDATION,
        callbacks=[
            callbacks.LearningRateScheduler(lambda epoch: 0.2 * 0.7**epoch),
            callbacks.LambdaCallback(on_epoch_end=add_largest),
            callbacks.SwapEMAWeights(momentum=0.98),
        ],
    )
    for name in ("learning_rate", "largest"):
        print(f"   {name}: {', '.join(f'{value:.3f}' for value in history.history[name])}")
    _, accuracy = await model.evaluate(*VALIDATION)
    print(
        f"   accuracy of the trained weights {history.history['val_accuracy'][-1]:.1%}, of their average {accuracy:.1%}"
    )


async def ends() -> None:
    """A run that goes wrong, one whose time is up, and one whose process is asked to end."""
    print("3. Ends")
    history = await new_model(optimizers.SGD(1e10)).fit(*TRAINING, epochs=10, callbacks=callbacks.TerminateOnNaN())
    print(f"   {history.outcome}: {history.reason}")

    model = new_model(optimizers.Adam())
    history = await model.fit(*TRAINING, epochs=100_000, callbacks=callbacks.TimeLimit(0.5))
    print(f"   {history.outcome}: {history.reason}")

    async with model.fit(*TRAINING, epochs=100_000, callbacks=callbacks.StopOnSignal(signal.SIGTERM)) as run:
        async for event in run.events(af.EpochEnd):
            if event.epoch == 2:
                signal.raise_signal(signal.SIGTERM)  # as a shutdown does; a second one would cancel the run
    print(f"   {run.outcome}: {run.reason}")


async def a_dashboard() -> None:
    """`RemoteMonitor` tells a server of each epoch. This one runs in the same loop, which training leaves free."""
    received: list[float] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            length = 0
            while head.strip():
                name, _, value = head.decode().partition(":")
                length = int(value) if name.lower() == "content-length" else length
                head = await reader.readline()
            received.append(json.loads(await reader.readexactly(length))["loss"])
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    print("4. Tell a server of each epoch")
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        monitor = if_installed(lambda: callbacks.RemoteMonitor(address, send_as_json=True))
        await new_model(optimizers.Adam()).fit(*TRAINING, epochs=3, callbacks=monitor)
    if monitor:
        print(f"   the server got the losses {', '.join(f'{loss:.3f}' for loss in received)}")


async def in_a_process() -> None:
    """Compute in a process of its own: the callbacks stay here, and nothing about them changes."""
    print("5. In a process of its own")
    weights = []
    for executor in ("thread", "process"):
        model = new_model(optimizers.Adam(0.005))
        stopping = callbacks.EarlyStopping(patience=1, restore_best_weights=True)
        history = await model.fit(
            *TRAINING, epochs=20, validation_data=VALIDATION, callbacks=stopping, executor=executor
        )
        print(f"   {executor}: {history.outcome} after {len(history.epoch)} epochs: {history.reason}")
        weights.append(np.concatenate([part.ravel() for part in model.get_weights()]))
    print(f"   the same weights, to the bit: {np.array_equal(weights[0], weights[1])}")


async def other_events() -> None:
    """`evaluate` and `predict` have events, too: look into batches, or use outputs while others are being computed."""
    print("6. Evaluate and predict")
    model = new_model(optimizers.Adam())
    await model.fit(*TRAINING, epochs=3)

    batches: list[af.EvaluateBatchEnd] = []
    note = callbacks.LambdaCallback(on_evaluate_batch_end=batches.append)
    await model.evaluate(*VALIDATION, batch_size=100, callbacks=note)
    worst = min(batches, key=lambda event: event.logs["accuracy"])
    print(f"   the worst of {len(batches)} batches is number {worst.batch}: accuracy {worst.logs['accuracy']:.0%}")

    sure = 0

    async def count(event: af.PredictBatchEnd) -> None:
        nonlocal sure
        sure += int((event.outputs.max(axis=1) > 0.99).sum())

    await model.predict(VALIDATION[0], callbacks=callbacks.LambdaCallback(on_predict_batch_end=count))
    print(f"   it is more than 99% sure of {sure} of {len(VALIDATION[0])} digits")


async def main(folder: Path) -> None:
    await the_usual_ones(folder)
    await rates_and_averages()
    await ends()
    await a_dashboard()
    await in_a_process()
    await other_events()
    print(f"the files are in {folder}")


if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else "callbacks_tour")
    where.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(where))

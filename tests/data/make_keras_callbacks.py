"""Let Keras's own callbacks decide on generated sequences, and write down what they decide: keras_callbacks.json.gz.

    KERAS_BACKEND=torch python tests/data/make_keras_callbacks.py        # Keras 3.15.1

Each case is driven as Keras's `fit` does it, through its `CallbackList`, on a stand-in for a model whose metrics and
optimizer are Keras's own. The figures are drawn with ties, NaN, infinities, gaps (a figure that is missing in an
epoch), and differences that float32 cannot tell. The file holds, by callback, a list of cases:

    EarlyStopping       params, monitor values per epoch (null: missing) → epochs run, epoch restored, best epoch, wait
                        at the end, error
    ReduceLROnPlateau   params, monitor values, first rate → the rate after each epoch, wait and cooldown at the end,
                        error
    ModelCheckpoint     params, batches per epoch, logs per epoch → saves as [epoch, batch or null, file name], error.
                        Each batch of an epoch has that epoch's logs without those of the validation. A case in which
                        Keras itself breaks down (a best file by batches before the first epoch has ended) is left out.
    LearningRateScheduler  the schedule (see `schedule`), first rate → the rate in each epoch, epoch of the error
    TerminateOnNaN      raise_error, loss of each batch → batches trained, epochs ended, whether it raised

`error` is the name of the exception that Keras raised, or null. Rates are as the optimizer stores them, in float32.
"""

from __future__ import annotations

import gzip
import json
import math
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np
from keras.src.callbacks import CallbackList  # type: ignore[import-not-found,unused-ignore]
from keras.src.trainers.compile_utils import MetricsList  # type: ignore[import-not-found,unused-ignore]

__all__ = ["main"]

CASES = 400
ODD = [math.nan, math.inf, -math.inf, 0.0, -0.0, 3.4e38, -3.4e38, 1e-45]


class Model:
    """What Keras's callbacks ask of a model. Its weights are the number of the epoch that was trained last."""

    def __init__(self, rate: float = 0.01) -> None:
        self.optimizer = keras.optimizers.SGD(rate)
        self.metrics = [MetricsList([keras.metrics.BinaryAccuracy("accuracy"), keras.metrics.MeanAbsoluteError("mae")])]
        self.stop_training = False
        self.weights: int | None = None
        self.restored: int | None = None
        self.saved: list[str] = []

    def get_weights(self) -> int | None:
        return self.weights

    def set_weights(self, weights: int) -> None:
        self.restored = weights

    def save(self, path: str, overwrite: bool) -> None:
        self.saved.append(path)

    save_weights = save

    @property
    def rate(self) -> float:
        return float(keras.ops.convert_to_numpy(self.optimizer.learning_rate))


def drive(
    callback: keras.callbacks.Callback,
    model: Model,
    epochs: list[dict[str, float]],
    batches: Callable[[int], list[dict[str, float]]] = lambda epoch: [],
    after: Callable[[int, int | None], None] = lambda epoch, batch: None,
) -> tuple[int, str | None]:
    """A whole fit: how many epochs ended, and what the callback raised."""
    calls = CallbackList([callback], model=model, epochs=len(epochs))
    ended = 0
    try:
        calls.on_train_begin()
        for epoch, logs in enumerate(epochs):
            calls.on_epoch_begin(epoch)
            for batch, batch_logs in enumerate(batches(epoch)):
                calls.on_train_batch_begin(batch)
                calls.on_train_batch_end(batch, dict(batch_logs))
                after(epoch, batch)
                if model.stop_training:
                    break
            model.weights = epoch
            calls.on_epoch_end(epoch, dict(logs))
            ended += 1
            after(epoch, None)
            if model.stop_training:
                break
        calls.on_train_end(dict(logs))
    except Exception as error:
        return ended, type(error).__name__
    return ended, None


def figures(draw: random.Random, count: int) -> list[float]:
    """A sequence as trainings bring them, and as they do not."""
    kind = draw.choice(["grid", "grid", "fall", "rise", "near", "odd"])
    level = draw.choice([0.1, 0.5, 1.0, 2.0])
    values = []
    for _ in range(count):
        if kind == "grid":
            value = draw.randrange(6) / 4
        elif kind in ("fall", "rise"):
            level *= draw.uniform(0.8, 1.05) if kind == "fall" else draw.uniform(0.95, 1.2)
            value = round(level, 3)
        elif kind == "near":
            value = level + draw.choice([0, 1e-9, 1e-7, 2.0**-24, 2.0**-23, 1e-4]) * draw.choice([1, -1])
        else:
            value = draw.choice([*ODD, draw.randrange(-3, 4) / 2])
        if draw.random() < 0.04:
            value = draw.choice(ODD)
        values.append(float(np.float32(value)) if draw.random() < 0.5 else value)
    return values


def monitored(draw: random.Random) -> tuple[str, str, list[float | None]]:
    """A monitor, a mode, and its values; None where it is missing."""
    monitor = draw.choice(["val_loss"] * 3 + ["loss", "val_accuracy", "accuracy", "val_mae", "mae", "val_f1"])
    mode = draw.choice(["auto", "auto", "min", "max"])
    values: list[float | None] = list(figures(draw, draw.randrange(1, 16)))
    gaps = draw.choice([0, 0, 0, 0.2, 0.5, 1]) if monitor != "loss" else 0
    return monitor, mode, [None if draw.random() < gaps else value for value in values]


def logs_of(monitor: str, values: list[float | None]) -> list[dict[str, float]]:
    return [{"loss": 0.5} | ({} if value is None else {monitor: value}) for value in values]


def early_stopping(draw: random.Random) -> dict[str, Any]:
    monitor, mode, values = monitored(draw)
    present = [value for value in values if value is not None and math.isfinite(value)]
    params = {
        "monitor": monitor,
        "mode": mode,
        "min_delta": draw.choice([0, 0, 0, 0.01, 0.25, 0.5, -0.25, 1e-4, 1e-7, 2.0**-24, 1e-45, 10]),
        "patience": draw.choice([0, 1, 2, 3, 5]),
        "baseline": draw.choice([None, None, None, 0, 0.5, 1.0, draw.choice(present) if present else -1.0]),
        "restore_best_weights": draw.random() < 0.6,
        "start_from_epoch": draw.choice([0, 0, 0, 1, 2, 4]),
    }
    model = Model()
    callback = keras.callbacks.EarlyStopping(**params)
    ended, error = drive(callback, model, logs_of(monitor, values))
    best = None if callback.best is None else callback.best_epoch
    return {"params": params, "values": values, "ended": ended, "restored": model.restored, "best_epoch": best,
            "wait": callback.wait, "error": error}  # fmt: skip


def reduce_on_plateau(draw: random.Random) -> dict[str, Any]:
    monitor, mode, values = monitored(draw)
    params = {
        "monitor": monitor,
        "mode": mode,
        "factor": draw.choice([0.1, 0.5, 0.9, 0.3, 0.999999, 0, round(draw.random() * 0.99, 3)]),
        "patience": draw.choice([0, 1, 1, 2, 3]),
        "min_delta": draw.choice([1e-4, 1e-4, 0, 0.01, 0.25, -0.25, 1e-7, 2.0**-24]),
        "cooldown": draw.choice([0, 0, 1, 2, 4]),
        "min_lr": draw.choice([0, 0, 0.1, 0.01, 0.001, 0.0033, 1e-5, 0.5]),
    }
    rate = draw.choice([0.01, 0.1, 0.001, 1.0, 0.0033, 1e-7])
    model = Model(rate)
    rates: list[float] = []
    callback = keras.callbacks.ReduceLROnPlateau(**params)
    _, error = drive(callback, model, logs_of(monitor, values), after=lambda epoch, batch: rates.append(model.rate))
    return {"params": params, "values": values, "rate": rate, "rates": rates, "wait": callback.wait,
            "cooldown": callback.cooldown_counter, "error": error}  # fmt: skip


PLAIN = ["best", "{epoch}", "{epoch:02d}", "at-{epoch:03d}-{loss:.2f}", "{loss:.4f}-{epoch}"]
WITH_VAL = ["{epoch}-{val_loss:.3f}", "{val_accuracy:.1f}_{epoch:04d}", "{val_loss}"]
BY_BATCH = ["{epoch}-{batch}", "{epoch:02d}-{batch:03d}-{loss:.2f}", "newest"]


def model_checkpoint(draw: random.Random) -> dict[str, Any]:
    monitor = draw.choice(["val_loss"] * 3 + ["loss", "val_accuracy", "accuracy", "val_f1"])
    epochs, batches = draw.randrange(1, 9), draw.choice([1, 2, 3, 4])
    names = ["loss", "accuracy", "val_loss", "val_accuracy"]
    columns = {name: figures(draw, epochs) for name in names}
    gaps = draw.choice([0, 0, 0, 0.3, 1])
    rows: list[dict[str, float]] = []
    for epoch in range(epochs):
        gap = draw.random() < gaps  # no validation in this epoch
        rows.append({name: columns[name][epoch] for name in names if not (gap and name.startswith("val_"))})
    freq = draw.choice(["epoch", "epoch", "epoch", 1, 2, 3, 5, 7])
    weights_only = draw.random() < 0.4
    templates = PLAIN + BY_BATCH if freq != "epoch" else PLAIN + WITH_VAL
    template = draw.choice(templates if draw.random() < 0.9 else PLAIN + WITH_VAL + BY_BATCH)
    params = {
        "filepath": template + (".weights.h5" if weights_only else ".h5"),
        "monitor": monitor,
        "save_best_only": draw.random() < (0.7 if freq == "epoch" else 0.3),
        "save_weights_only": weights_only,
        "mode": draw.choice(["auto", "auto", "min", "max"]),
        "save_freq": freq,
        "initial_value_threshold": draw.choice([None, None, None, 0.0, 0.5, 1.0, draw.choice(columns["val_loss"])]),
    }
    model = Model()
    saves: list[list[Any]] = []

    def after(epoch: int, batch: int | None) -> None:
        saves.extend([epoch, batch, path] for path in model.saved)
        model.saved.clear()

    def train_logs(epoch: int) -> list[dict[str, float]]:
        return [{k: v for k, v in rows[epoch].items() if not k.startswith("val_")}] * batches

    _, error = drive(keras.callbacks.ModelCheckpoint(**params), model, rows, train_logs, after)
    return {"params": params, "batches": batches, "logs": rows, "saves": saves, "error": error}


def schedule(plan: dict[str, Any]) -> Callable[..., Any]:
    """The function that a plan describes: `table` gives the rate of each epoch, `times` what the present one is
    multiplied with; `type` is what it returns."""
    kinds: dict[str, Callable[[float], Any]] = {
        "float": float, "float32": np.float32, "float64": np.float64, "int": lambda rate: 1, "bool": lambda rate: True,
        "str": str, "None": lambda rate: None, "array": lambda rate: np.array([rate]), "float16": np.float16,
    }  # fmt: skip
    made = kinds[plan["type"]]
    if "table" in plan:
        return lambda epoch: (made if epoch >= plan["from"] else float)(plan["table"][epoch])
    return lambda epoch, lr: (made if epoch >= plan["from"] else float)(lr * plan["times"])


def scheduler(draw: random.Random) -> dict[str, Any]:
    epochs = draw.randrange(1, 10)
    plan: dict[str, Any] = {
        "type": draw.choice(["float"] * 6 + ["float32", "float64", "int", "bool", "str", "None", "array", "float16"]),
        "from": draw.choice([0, 0, 1, 3]),
    }
    if draw.random() < 0.5:
        plan["table"] = [draw.choice([0.0, 0.1, 0.01, round(draw.random(), 4), 1e-6, 3]) * 1.0 for _ in range(epochs)]
    else:
        plan["times"] = draw.choice([1.0, 0.5, 0.9, 1.1, 0.333, 0.0])
    rate = draw.choice([0.01, 0.1, 1.0, 0.0033])
    model = Model(rate)
    rates: list[float] = []
    callback = keras.callbacks.LearningRateScheduler(schedule(plan))
    ended, error = drive(callback, model, [{"loss": 0.5}] * epochs, after=lambda epoch, batch: rates.append(model.rate))
    return {"plan": plan, "epochs": epochs, "rate": rate, "rates": rates, "ended": ended, "error": error}


def terminate_on_nan(draw: random.Random) -> dict[str, Any]:
    epochs, batches = draw.randrange(1, 5), draw.randrange(1, 6)
    odd = draw.choice([0, 0.05, 0.2, 1])
    values = [
        [draw.choice([math.nan, math.inf, -math.inf]) if draw.random() < odd else draw.choice([0.5, -1.0, 3e38, 0.0])
         for _ in range(batches)] for _ in range(epochs)
    ]  # fmt: skip
    raises = draw.random() < 0.3
    model = Model()
    done: list[int] = []
    ended, error = drive(
        keras.callbacks.TerminateOnNaN(raise_error=raises), model, [{"loss": 0.5}] * epochs,
        lambda epoch: [{"loss": value} for value in values[epoch]],
        lambda epoch, batch: done.append(epoch) if batch is not None else None,
    )  # fmt: skip
    return {"raise_error": raises, "losses": values, "steps": len(done), "ended": ended, "error": error}


def main() -> None:
    warnings.simplefilter("ignore")
    keras.utils.disable_interactive_logging()
    makers = {
        "EarlyStopping": early_stopping,
        "ReduceLROnPlateau": reduce_on_plateau,
        "ModelCheckpoint": model_checkpoint,
        "LearningRateScheduler": scheduler,
        "TerminateOnNaN": terminate_on_nan,
    }
    cases: dict[str, Any] = {"keras": keras.__version__}
    for name, make in makers.items():
        draw = random.Random(name)
        made: list[dict[str, Any]] = []
        while len(made) < CASES:
            case = make(draw)
            if case["error"] != "TypeError":
                made.append(case)
        cases[name] = made
        errors = sorted({str(case["error"]) for case in made})
        print(name, len(made), {error: sum(str(c["error"]) == error for c in made) for error in errors})
    text = json.dumps(cases, separators=(",", ":"))
    path = Path(__file__).with_name("keras_callbacks.json.gz")
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f"{path.name}: {path.stat().st_size:,} bytes, {len(text):,} unpacked")


if __name__ == "__main__":
    main()

"""Makes `keras_recurrent.npz`, `.h5` and `.weights.h5`: what Keras 3 computes with recurrent layers, embeddings, masks.

`KERAS_BACKEND=torch python tests/data/make_keras_recurrent.py`, with Keras 3.15; not run in CI.

Each case trains a small model for three epochs without shuffling, 20 samples in batches of 8 (the last one has 4),
and keeps: its config, all weights before (flat, one behind the other), losses and metrics by epoch, what `evaluate`
says, and predictions. All cases share their data: `numbers` (20, 6, 3), of which some steps at the end (and two
whole samples) are zeros, `words` (20, 6), with zeros there, and targets.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np

__all__ = ["main"]

HERE = Path(__file__).parent
L = keras.layers
INNER: dict[str, Callable[..., Any]] = {
    "lstm": L.LSTM,
    "gru": L.GRU,
    "gru_before": lambda *a, **k: L.GRU(*a, reset_after=False, **k),
    "rnn": L.SimpleRNN,
}
START = {"bias_initializer": "random_normal"}


def words() -> Any:
    return L.Embedding(11, 4, mask_zero=True)


def cases() -> dict[str, tuple[str, list[Any], str, dict[str, Any]]]:
    """By name: input, layers, target, settings of the training."""
    found: dict[str, tuple[str, list[Any], str, dict[str, Any]]] = {}
    for kind, make in INNER.items():
        found[kind] = ("numbers", [make(4, **START), L.Dense(2)], "two", {})
        found[f"{kind}, sequences"] = ("numbers", [make(4, return_sequences=True, **START), make(2)], "two", {})
        found[f"{kind}, backwards"] = (
            "numbers", [make(3, go_backwards=True, return_sequences=True), L.Dense(1)], "steps", {}
        )  # fmt: skip
        more = {} if kind == "rnn" else {"recurrent_activation": "hard_sigmoid" if kind == "gru" else "tanh"}
        found[f"{kind}, other"] = (
            "numbers",
            [make(3, activation="elu", use_bias=False, **more), L.Dense(2)],
            "two",
            {},
        )
        found[f"{kind}, masked"] = ("numbers", [L.Masking(), make(4, **START), L.Dense(2)], "two", {})
        found[f"{kind}, masked sequences"] = (
            "numbers", [L.Masking(), make(3, return_sequences=True), make(3, go_backwards=True), L.Dense(2)], "two", {}
        )  # fmt: skip
        found[f"{kind}, masked steps"] = (
            "numbers", [L.Masking(), make(3, return_sequences=True), L.Dense(1)], "steps", {}
        )  # fmt: skip
        found[f"{kind}, both ways"] = ("numbers", [L.Bidirectional(make(3, **START)), L.Dense(2)], "two", {})
        found[f"{kind}, both ways, masked"] = (
            "words", [words(), L.Bidirectional(make(3, return_sequences=True)), L.Dense(1)], "steps", {}
        )  # fmt: skip
    for mode in ("sum", "mul", "ave"):
        both = L.Bidirectional(L.LSTM(3, return_sequences=True), merge_mode=mode)
        found[f"both ways, {mode}"] = ("numbers", [both, L.GRU(2)], "two", {})
    other = L.GRU(2, activation="relu", go_backwards=True)
    found["both ways, another back"] = (
        "words",
        [words(), L.Bidirectional(L.LSTM(2), backward_layer=other)],
        "four",
        {},
    )
    found["zeros for masked"] = (
        "words", [words(), L.LSTM(3, return_sequences=True, zero_output_for_mask=True), L.Dense(1)], "steps", {}
    )  # fmt: skip
    found["zeros for masked, last"] = ("words", [words(), L.GRU(3, zero_output_for_mask=True), L.Dense(2)], "two", {})
    found["embedding"] = ("words", [L.Embedding(11, 3), L.Flatten(), L.Dense(2)], "two", {})
    found["embedding, masked dense"] = ("words", [words(), L.Dense(3, activation="tanh"), L.Dense(1)], "steps", {})
    found["classes"] = (
        "words", [words(), L.LSTM(3, return_sequences=True), L.Dense(3, activation="softmax")], "classes",
        {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]},
    )  # fmt: skip
    found["classes, weighted"] = (
        "words", [words(), L.GRU(3, return_sequences=True), L.Dense(3, activation="softmax")], "classes",
        {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], "weights": "w"},
    )  # fmt: skip
    found["bits, weighted steps"] = (
        "words", [words(), L.GRU(3, return_sequences=True), L.Dense(1, activation="sigmoid")], "bits",
        {"loss": "binary_crossentropy", "metrics": ["accuracy"], "weights": "w_steps"},
    )  # fmt: skip
    found["mask ends"] = ("words", [words(), L.Flatten(), L.Dense(2)], "two", {})
    found["masked vectors"] = (
        "vectors", [L.Masking(), L.Dense(3, activation="tanh"), L.Dense(2)], "two", {"metrics": ["mae"]}
    )  # fmt: skip
    found["at each step"] = ("numbers", [L.TimeDistributed(L.Dense(3, activation="tanh")), L.LSTM(2)], "two", {})
    found["at each step, masked"] = (
        "words",
        [words(), L.TimeDistributed(L.Dense(3)), L.GRU(3, return_sequences=True), L.TimeDistributed(L.Dense(1))],
        "steps",
        {},
    )  # fmt: skip
    found["normalized at each step"] = (
        "numbers", [L.TimeDistributed(L.BatchNormalization(momentum=0.8)), L.LSTM(2)], "two", {}
    )  # fmt: skip
    found["normalized at each step, masked"] = (
        "words", [words(), L.TimeDistributed(L.BatchNormalization(momentum=0.8)), L.GRU(3, return_sequences=True)],
        "three steps", {},
    )  # fmt: skip
    found["normalized channels at each step"] = (
        "numbers",
        [
            L.Reshape((3, 2, 3)),
            L.TimeDistributed(L.Conv1D(4, 2, padding="same")),
            L.TimeDistributed(L.BatchNormalization(momentum=0.8, gamma_regularizer="l2")),
            L.TimeDistributed(L.BatchNormalization(trainable=False)),
            L.TimeDistributed(L.Flatten()),
            L.GRU(2),
        ],
        "two", {},
    )  # fmt: skip
    return found


def numbers_of(rng: np.random.Generator) -> dict[str, Any]:
    lengths = rng.integers(1, 7, 20)
    lengths[[3, 17]] = 0
    there = np.arange(6) < lengths[:, None]
    there[5] = [False, True, False, True, True, False]
    return {
        "numbers": rng.standard_normal((20, 6, 3)) * there[:, :, None],
        "vectors": rng.standard_normal((20, 3)) * (rng.random((20, 1)) < 0.7),
        "words": rng.integers(1, 11, (20, 6)) * there,
        "two": rng.standard_normal((20, 2)),
        "four": rng.standard_normal((20, 4)),
        "steps": rng.standard_normal((20, 6, 1)),
        "bits": rng.integers(0, 2, (20, 6, 1)),
        "classes": rng.integers(0, 3, (20, 6)),
        "w": np.repeat(
            rng.random((20, 1)) * 2, 6, axis=1
        ),  # one for each sample; with the torch backend Keras fails on those
        "w_steps": rng.random((20, 6)) * 2,
        "three steps": rng.standard_normal((20, 6, 3)),
    }


def flat(model: Any) -> Any:
    return np.concatenate([w.ravel() for w in model.get_weights()] or [np.empty(0)])


def everything() -> Any:
    """A model of all kinds, for the files."""
    return keras.Sequential(
        [
            keras.Input((6,)),
            words(),
            L.LSTM(3, return_sequences=True, recurrent_initializer="glorot_uniform"),
            L.Bidirectional(L.GRU(2, return_sequences=True), merge_mode="sum"),
            L.TimeDistributed(L.Dense(3, activation="relu")),
            L.TimeDistributed(L.BatchNormalization()),
            L.Masking(0.0),
            L.Bidirectional(L.SimpleRNN(2, return_sequences=True)),
            L.GRU(2, reset_after=False, go_backwards=True),
            L.Dense(2),
        ],
        name="all_kinds",
    )


def main() -> None:
    data = {
        k: v.astype(np.int64 if v.dtype.kind == "i" else np.float32)
        for k, v in numbers_of(np.random.default_rng(8)).items()
    }
    arrays: dict[str, Any] = {f"data/{name}": array for name, array in data.items()}
    told: dict[str, Any] = {}
    for number, (name, (source, layers, target, how)) in enumerate(cases().items()):
        keras.utils.set_random_seed(number)
        x, y, w = data[source], data[target], data.get(how.get("weights", ""))
        model = keras.Sequential([keras.Input(x.shape[1:]), *layers])
        metrics = how.get("metrics", [])
        model.compile(keras.optimizers.SGD(0.2), how.get("loss", "mse"), metrics=metrics)
        arrays[f"{number}/before"] = flat(model)
        fitted = model.fit(x, y, sample_weight=w, batch_size=8, epochs=3, shuffle=False, verbose=0).history
        arrays[f"{number}/after"], arrays[f"{number}/predictions"] = flat(model), model.predict(x, verbose=0)
        evaluated = model.evaluate(x, y, sample_weight=w, batch_size=8, verbose=0, return_dict=True)
        told[name] = {
            "x": source, "y": target, "w": how.get("weights"), "loss": how.get("loss", "mse"), "metrics": metrics,
            "config": model.get_config(), "history": fitted, "evaluated": evaluated,
        }  # fmt: skip
    keras.backend.clear_session()
    keras.utils.set_random_seed(99)
    model = everything()
    model.compile("adam", "mse", metrics=["mae"])
    x, y = data["words"], data["two"]
    model.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0)
    model.save(HERE / "keras_recurrent.h5")
    model.save_weights(HERE / "keras_recurrent.weights.h5")
    arrays["file/predictions"] = model.predict(x, verbose=0)
    history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    told["file"] = {"losses": history["loss"]}
    arrays["cases"] = np.array(json.dumps(told))
    np.savez_compressed(HERE / "keras_recurrent.npz", **arrays)


if __name__ == "__main__":
    main()

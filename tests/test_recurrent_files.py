"""Recurrent layers in Keras's files: read, written, read by Keras."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from asyncfit.layers import (
    GRU,
    LSTM,
    BatchNormalization,
    Bidirectional,
    Dense,
    Dropout,
    Embedding,
    Input,
    InputLayer,
    Layer,
    Masking,
    SimpleRNN,
    TimeDistributed,
)
from asyncfit.nn.arrays import Array
from asyncfit.sequential import Sequential, load_model

DATA = Path(__file__).parent / "data"
KERAS = os.environ.get("KERAS_PYTHON")
RNG = np.random.default_rng(1)
STACKS: dict[str, Callable[[], list[Layer]]] = {
    "recurrent": lambda: [
        Input((5, 3)),
        LSTM(4, return_sequences=True, dropout=0.2, kernel_regularizer="l2"),
        GRU(3, "elu", "tanh", reset_after=False, return_sequences=True, go_backwards=True, unroll=True),
        LSTM(3, return_sequences=True, use_bias=False, unit_forget_bias=False),
        SimpleRNN(3, return_sequences=True, recurrent_initializer="identity", bias_constraint="non_neg"),
        GRU(2, recurrent_dropout=0.3, zero_output_for_mask=True),
        Dense(2),
    ],
    "words": lambda: [
        Input((6,)),
        Embedding(9, 3, mask_zero=True, embeddings_initializer="random_normal"),
        LSTM(3, return_sequences=True),
        Masking(0.25),
        GRU(2),
    ],
    "wrapped": lambda: [
        Input((6,)),
        Embedding(9, 3, mask_zero=True),
        Bidirectional(LSTM(3, return_sequences=True, kernel_regularizer="l2"), merge_mode="mul"),
        TimeDistributed(Dense(4, activation="tanh")),
        TimeDistributed(Dropout(0.2), trainable=False),
        TimeDistributed(BatchNormalization(momentum=0.9)),
        Bidirectional(GRU(2, name="mine"), backward_layer=SimpleRNN(2, go_backwards=True), name="both"),
        Dense(2),
    ],
}


def trained(name: str) -> tuple[Sequential, Array, Array]:
    layers = STACKS[name]()
    model = Sequential(layers, name="mine", seed=4)
    model.compile("adam", "mse", metrics=["mae"])
    assert isinstance(layers[0], InputLayer)
    x: Array = RNG.standard_normal((20, *layers[0].shape)).astype(np.float32)
    if x.ndim == 2:
        x = RNG.integers(0, 9, x.shape)
    y = RNG.standard_normal((20, 2)).astype(np.float32)
    model.fit(x, y, batch_size=8, epochs=1, shuffle=False).blocking()
    return model, x, y


@pytest.mark.parametrize("name", STACKS)
def test_a_saved_model_goes_on_with_the_same_bits(name: str, tmp_path: Path) -> None:
    model, x, y = trained(name)
    model.save(tmp_path / "m.h5").blocking()
    model.save_weights(tmp_path / "m.weights.h5").blocking()
    again = load_model(tmp_path / "m.h5").blocking()
    other = Sequential(STACKS[name](), seed=9)
    other.compile("adam", "mse", metrics=["mae"])
    other.load_weights(tmp_path / "m.weights.h5").blocking()
    assert again.get_config() == model.get_config()
    predicted = model.predict(x).blocking()
    for one in (again, other):
        np.testing.assert_array_equal(one.predict(x).blocking(), predicted)
    histories = [m.fit(x, y, batch_size=8, epochs=2, seed=7).blocking().history for m in (model, again)]
    assert histories[0] == histories[1]


def test_files_of_keras_are_read_with_all_that_is_inside() -> None:
    with np.load(DATA / "keras_recurrent.npz") as arrays:
        x, y, predictions = (arrays[name] for name in ("data/words", "data/two", "file/predictions"))
        losses = json.loads(str(arrays["cases"]))["file"]["losses"]
    model = load_model(DATA / "keras_recurrent.h5").blocking()
    np.testing.assert_allclose(model.predict(x).blocking(), predictions, atol=1e-6)
    history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False).blocking().history
    np.testing.assert_allclose(history["loss"], losses, rtol=1e-5)
    model.load_weights(DATA / "keras_recurrent.weights.h5").blocking()
    np.testing.assert_allclose(model.predict(x).blocking(), predictions, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(KERAS is None, reason="needs Keras; KERAS_PYTHON may name an interpreter that has it")
@pytest.mark.parametrize("name", STACKS)
def test_keras_reads_what_is_written(name: str, tmp_path: Path) -> None:
    assert KERAS is not None
    model, x, _ = trained(name)
    path = tmp_path / "m.h5"
    model.save(path).blocking()
    model.save_weights(tmp_path / "m.weights.h5").blocking()
    told = {"x": x.tolist(), "predictions": model.predict(x).blocking().tolist()}
    (tmp_path / "m.h5.json").write_text(json.dumps(told))
    code = (
        "import sys, json, keras, numpy as np\n"
        "want = json.load(open(sys.argv[1] + '.json')); x = np.array(want['x'], 'float32')\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "first = model.predict(x, verbose=0)\n"
        "model.set_weights([w * 0 for w in model.get_weights()]); model.load_weights(sys.argv[2])\n"
        "for found in (first, model.predict(x, verbose=0)):\n"
        "    np.testing.assert_allclose(found, want['predictions'], rtol=1e-4, atol=1e-5)\n"
    )
    done = subprocess.run(
        [KERAS, "-c", code, str(path), str(tmp_path / "m.weights.h5")],
        env={"KERAS_BACKEND": "torch", **os.environ},
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_another_process_trains_the_same_bits() -> None:
    found = []
    x, y = RNG.integers(0, 9, (20, 6)), RNG.standard_normal((20, 2))
    for executor in ("thread", "process"):
        model = Sequential(STACKS["wrapped"](), seed=4)
        model.compile("adam", "mse")
        history = model.fit(x, y, batch_size=8, epochs=2, executor=executor, seed=3).blocking().history
        found.append((history, [w.tobytes() for w in model.get_weights()]))
    assert found[0] == found[1]

"""Models in Keras's HDF5 layout: what Keras wrote is read, what is written is read by Keras, and round trips."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asyncfit.errors import InvalidInput
from asyncfit.formats.keras_h5 import LayerWeights, SavedModel, check_path, from_bytes, read, to_bytes

DATA = Path(__file__).parent.parent / "data"
ROOT = DATA.parent.parent
REFERENCE = json.loads((DATA / "keras_h5.json").read_text())
CASES = [*REFERENCE["cases"], "kinds"]
SLOTS = {
    "sgd": [],
    "momentum": ["momentum"],
    "nesterov": ["momentum"],
    "rmsprop": ["velocity"],
    "rmsprop_centered": ["velocity", "momentum", "average_gradient"],
    "adam": ["momentum", "velocity"],
    "adam_amsgrad": ["momentum", "velocity", "velocity_hat"],
    "adamw": ["momentum", "velocity"],
}


def assert_same(one: SavedModel, two: SavedModel) -> None:
    assert one.config == two.config
    assert one.training_config == two.training_config
    assert [layer.layer for layer in one.weights] == [layer.layer for layer in two.weights]
    pairs = list(zip(one.weights, two.weights, strict=True))
    lists = [(a.weights, b.weights) for a, b in pairs] + [(one.optimizer_weights, two.optimizer_weights)]
    for first, second in lists:
        assert [name for name, _ in first] == [name for name, _ in second]
        for (_, a), (_, b) in zip(first, second, strict=True):
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def small(**changes: Any) -> SavedModel:
    """A Dense(2) on three features, compiled with Adam, as this library configures it."""
    layers: list[dict[str, Any]] = [
        {
            "class_name": "InputLayer",
            "config": {"name": "input", "batch_input_shape": [None, 3], "dtype": "float32"},
        },
        {
            "class_name": "Dense",
            "config": {"name": "dense", "units": 2, "activation": "linear", "use_bias": True},
        },
    ]
    values = np.arange(8, dtype=np.float32) / 8
    kernel, bias = values[:6].reshape(3, 2), values[6:]
    slots = [
        (f"dense_{n}_{s}", a / 3) for n, a in (("kernel", kernel), ("bias", bias)) for s in ("momentum", "velocity")
    ]
    state = [("iteration", np.array(7, np.int64)), ("learning_rate", np.array(0.01, np.float32)), *slots]
    fields: dict[str, Any] = {
        "config": {"class_name": "Sequential", "config": {"name": "sequential", "layers": layers}},
        "weights": [LayerWeights("dense", [("kernel", kernel), ("bias", bias)])],
        "training_config": {
            "loss": "mean_squared_error",
            "loss_weights": None,
            "metrics": ["mean_absolute_error"],
            "weighted_metrics": None,
            "optimizer_config": {"class_name": "Adam", "config": {"name": "adam", "learning_rate": 0.01}},
        },
        "optimizer_weights": state,
    }
    return SavedModel(**(fields | changes))


@pytest.mark.parametrize("case", CASES)
def test_reads_what_keras_3_wrote(case: str) -> None:
    model = read(DATA / f"keras_{case}.h5")
    layers = model.config["config"]["layers"]
    assert layers[0]["class_name"] == "InputLayer"
    assert layers[0]["config"]["batch_input_shape"] == [None, 4, 3]
    assert {layer["config"]["dtype"] for layer in layers} == {"float32"}
    assert "module" not in json.dumps(model.config)
    assert [layer["config"]["name"] for layer in layers[1:]] == [name for name, _ in model.weights]
    for config, (_, weights) in zip(layers[1:], model.weights, strict=True):
        names = ["kernel", "bias"][: 1 + config["config"].get("use_bias", False)]
        assert [name for name, _ in weights] == (names if config["class_name"] == "Dense" else [])
        assert all(value.flags.writeable and value.dtype == np.float32 for _, value in weights)


@pytest.mark.parametrize("case", REFERENCE["cases"])
def test_reads_the_state_of_the_optimizer_in_keras_s_order(case: str) -> None:
    model, told = read(DATA / f"keras_{case}.h5"), REFERENCE["cases"][case]
    assert model.training_config is not None
    assert model.training_config["loss"] == told["loss"]
    config = model.training_config["optimizer_config"]
    assert config["class_name"] == told["optimizer"]
    names, values = zip(*model.optimizer_weights, strict=True)
    assert names[:2] == ("iteration", "learning_rate")
    assert values[0] == told["iteration"]
    assert float(values[1]) == pytest.approx(config["config"]["learning_rate"])
    weights = [f"{layer}_{name}" for layer, pairs in model.weights for name, _ in pairs]
    slots = SLOTS[case]
    if case.startswith("adam"):  # interleaved, and then all of velocity_hat
        want = [f"sequential_{w}_{s}" for w in weights for s in slots[:2]]
        want += [f"sequential_{w}_{s}" for s in slots[2:] for w in weights]
    else:
        want = [f"sequential_{w}_{s}" for s in slots for w in weights]
    assert list(names[2:]) == want


def test_a_model_that_was_never_compiled_has_no_training_config() -> None:
    model = read(DATA / "keras_kinds.h5")
    assert model.training_config is None
    assert model.optimizer_weights == []
    assert model.config["config"]["name"] == "kinds"


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_is_read_back_the_same_and_written_as_the_same_bytes(case: str) -> None:
    model = read(DATA / f"keras_{case}.h5")
    data = to_bytes(model)
    again = from_bytes(data, name="again")
    assert_same(model, again)
    assert to_bytes(again) == data


def test_reads_back_every_kind_of_number_and_shape(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    arrays = [(f"w_{d}", rng.normal(size=(2, 3)).astype(d)) for d in ("f2", "f4", "f8", "i1", "i4", "i8", "u1", "?")]
    arrays += [("scalar", np.array(2.5)), ("empty", np.zeros((0, 3), np.float32))]
    arrays += [("strided", np.arange(12.0).reshape(3, 4)[:, ::2]), ("non_finite", np.array([np.nan, np.inf]))]
    model = small(weights=[LayerWeights("größe", arrays), LayerWeights("nested", [("cell/kernel", np.ones(2))])])
    assert_same(model, from_bytes(to_bytes(model), name="m"))
    swapped = small(weights=[LayerWeights("a", [("big", np.arange(3, dtype=">f4"))])])
    found = from_bytes(to_bytes(swapped), name="m").weights[0].weights[0][1]
    assert found.dtype == np.dtype("=f4")
    assert found.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("layers", "length"), [(900, 70), (901, 72), (3000, 20), (2, 40_000)])
def test_long_lists_of_names_are_kept_in_numbered_parts(layers: int, length: int) -> None:
    names = [f"{n:x<{length}}" for n in range(layers)]
    model = small(weights=[LayerWeights(name, []) for name in names])
    data = to_bytes(model)
    with h5py.File(io.BytesIO(data), "r") as file:
        attributes = file["model_weights"].attrs
        parts = [name for name in attributes if name.startswith("layer_names")]
        assert all(attributes.get_id(name).get_storage_size() <= 64_512 for name in parts)
        assert (parts == ["layer_names"]) == (layers * length <= 64_512)
    assert_same(model, from_bytes(data, name="m"))


def test_a_long_configuration_is_kept_whole() -> None:
    model = small()
    model.config["config"]["note"] = "ä" * 300_000
    assert_same(model, from_bytes(to_bytes(model), name="m"))


def test_the_dialect_is_the_one_that_all_readers_take() -> None:
    model = small(training_config={"loss": "mse", "optimizer_config": {"class_name": "SGD", "config": {}}})
    with h5py.File(io.BytesIO(to_bytes(model)), "r") as file:
        assert file.attrs["keras_version"].startswith(b"2.")
        assert json.loads(file.attrs["training_config"])["loss_weights"] is None
        group = file["model_weights"]
        assert set(group) == {"dense", "top_level_model_weights"}
        assert group["dense"].attrs["weight_names"].tolist() == [b"dense/kernel:0", b"dense/bias:0"]
        assert group["dense/dense/kernel:0"].shape == (3, 2)
        assert group["top_level_model_weights"].attrs["weight_names"].shape == (0,)
    with h5py.File(io.BytesIO(to_bytes(small())), "r") as file:
        assert file["optimizer_weights"].attrs["weight_names"][0] == b"adam/iteration:0"
    with h5py.File(io.BytesIO(to_bytes(small(optimizer_weights=[]))), "r") as file:
        assert "optimizer_weights" not in file


def keras_2_file(config: Any) -> bytes:
    """As tf.keras wrote it: names with `:0`, everything in bytes, no InputLayer, numbers where a list is empty."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["keras_version"] = b"2.4.0"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config}).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names0"] = [b"lstm"]
        group.attrs["layer_names1"] = [b"dropout"]
        group.create_group("dropout").attrs["weight_names"] = []
        names = [b"lstm/lstm_cell/kernel:0", b"lstm/lstm_cell/bias:0"]
        group.create_group("lstm").attrs["weight_names"] = names
        for name in names:
            group["lstm"][name] = np.ones(2, ">f4")
        group = file.create_group("optimizer_weights")
        group.attrs["weight_names"] = [b"Adam/iter:0"]
        group["Adam/iter:0"] = np.int64(3)
    return buffer.getvalue()


def test_reads_what_keras_2_wrote() -> None:
    layers = [
        {
            "class_name": "LSTM",
            "config": {"name": "lstm", "batch_input_shape": [None, 5, 2], "dtype": "float32"},
        },
        {"class_name": "Dropout", "config": {"name": "dropout", "rate": 0.5}},
    ]
    for config in ({"name": "old", "layers": layers}, layers):
        model = from_bytes(keras_2_file(config), name="old.h5")
        source, lstm, dropout = model.config["config"]["layers"]
        assert source["class_name"] == "InputLayer"
        assert source["config"]["batch_input_shape"] == [None, 5, 2]
        assert lstm["config"] == {"name": "lstm", "dtype": "float32"}
        assert dropout == layers[1]
        assert [layer.layer for layer in model.weights] == ["lstm", "dropout"]
        assert [name for name, _ in model.weights[0].weights] == ["lstm_cell/kernel", "lstm_cell/bias"]
        assert model.weights[0].weights[0][1].dtype == np.dtype("=f4")
        assert [(name, int(value)) for name, value in model.optimizer_weights] == [("Adam/iter", 3)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": [LayerWeights("a/b", [])]}, "layer name 'a/b'"),
        ({"weights": [LayerWeights("", [])]}, "layer name ''"),
        ({"weights": [LayerWeights("a\0", [])]}, "layer name"),
        ({"weights": [LayerWeights("..", [])]}, "layer name"),
        ({"weights": [LayerWeights("a", []), LayerWeights("a", [])]}, "'a' is used twice"),
        ({"weights": [LayerWeights("top_level_model_weights", [])]}, "Keras uses itself"),
        ({"weights": [LayerWeights("a" * 70_000, [])]}, "too long"),
        ({"weights": [LayerWeights("a", [("w", np.ones(1))] * 2)]}, "'w' is used twice"),
        ({"weights": [LayerWeights("a", [("x//y", np.ones(1))])]}, "weight name 'x//y'"),
        ({"weights": [LayerWeights("a", [("w", np.array(["x"]))])]}, "'a/w:0' is of type <U1"),
        ({"weights": [LayerWeights("a", [("w", np.array([1j]))])]}, "complex"),
        ({"weights": [LayerWeights("a", [("w", np.array([object()]))])]}, "object"),
        ({"config": {"class_name": "Sequential", "config": {"x": object()}}}, "model_config"),
        ({"training_config": {"loss": print}}, "training_config"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        to_bytes(small(**changes))


@pytest.mark.parametrize("name", ["m.h5", "m.hdf5", "a.b.h5", "new/../m.h5", "there.h5", "link.h5"])
def test_a_place_where_a_model_can_be_saved(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new").mkdir()
    (tmp_path / "there.h5").write_bytes(b"")
    (tmp_path / "link.h5").symlink_to("nowhere.h5")
    assert check_path(name) == Path(name)
    assert check_path(tmp_path / name) == tmp_path / name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("m.keras", "save to m.h5"),
        ("m.weights.h5", "say m.h5"),
        ("m", r"must end in \.h5; save to m\.h5"),
        ("m.H5", r"save to m\.h5"),
        ("m.json", r"must end in \.h5"),
        ("", "no path"),
        ("m\0.h5", "no path"),
        ("\udfff\ud800.h5", "no path"),
        (b"m.h5", "not of bytes"),
        (3, "not to 3"),
        (None, "not to None"),
        ("folder.h5", "is a directory"),
        ("pipe.h5", "not a regular file"),
        ("missing/m.h5", "directory missing does not exist"),
        ("~/no/m.h5", "expanduser"),
        ("file/m.h5", "file is not a directory"),
    ],
)
def test_a_place_where_it_cannot(name: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(InvalidInput, match=said):
        check_path(name)


def test_a_directory_without_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InvalidInput, match="no permission"):
        check_path(tmp_path / "m.h5")


def test_h5py_is_not_imported_before_a_file_is_touched() -> None:
    code = "import sys, asyncfit.formats.keras_h5, asyncfit.checkpoints; sys.exit('h5py' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


KERAS = os.environ.get("KERAS_PYTHON") or (sys.executable if importlib.util.find_spec("keras") else None)


@pytest.mark.slow
@pytest.mark.skipif(KERAS is None, reason="needs Keras; KERAS_PYTHON may name an interpreter that has it")
@pytest.mark.parametrize("case", CASES)
def test_keras_reads_what_is_written(case: str, tmp_path: Path) -> None:
    with np.load(DATA / "keras_h5.npz") as arrays:
        want = {"x": arrays["x"].tolist(), "predictions": arrays[f"{case}_predictions"].tolist()}
        if told := REFERENCE["cases"].get(case):
            y = arrays[f"{case}_y"].tolist()
            want |= {"y": y, "batch_size": REFERENCE["batch_size"], **told}
    path = tmp_path / "m.h5"
    path.write_bytes(to_bytes(read(DATA / f"keras_{case}.h5")))
    Path(f"{path}.json").write_text(json.dumps(want))
    command = [str(KERAS), str(DATA / "check_keras_reads.py"), str(path)]
    environment = {"KERAS_BACKEND": "torch", **os.environ}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("losses" in done.stdout) == (case != "kinds")

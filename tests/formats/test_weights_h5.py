"""Files of weights alone, in both directions: what Keras wrote is loaded, what is written has Keras's very layout."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncfit as af
from asyncfit.errors import BadFile, InvalidInput
from asyncfit.formats import weights_h5
from asyncfit.layers import Activation, Dense, Dropout, Flatten, Input
from asyncfit.optimizers import SGD, Adam

DATA = Path(__file__).parent.parent / "data"
TOLD = json.loads((DATA / "keras_weights.json").read_text())
X, Y = np.array(TOLD["x"], np.float32), np.array(TOLD["y"], np.float32)
OPTIMIZERS: dict[str, Callable[[], Any]] = {"adam": lambda: Adam(0.5), "momentum": lambda: SGD(0.5, momentum=0.9)}
CASES = [*OPTIMIZERS, "plain"]
HOW: dict[str, Any] = {"batch_size": TOLD["batch_size"], "shuffle": False}


def model(case: str = "plain", seed: int = 3) -> af.Sequential:
    """As in make_keras_weights.py; its weights, and the learning rate, are others."""
    first = [Input((2, 3)), Flatten(), Dense(5, activation="tanh", name="first"), Dropout(0)]
    then = [Dense(4, use_bias=False), Activation("relu"), Dense(2, name="head")]
    made = af.Sequential([*first, *then], name="weighty", seed=seed)
    if case in OPTIMIZERS:
        made.compile(OPTIMIZERS[case](), "mse")
    return made


def reference(case: str) -> Path:
    return DATA / f"keras_{case}.weights.h5"


def contents(path: Path) -> dict[str, Any]:
    """Everything that is in an HDF5 file."""
    found: dict[str, Any] = {}

    def note(name: str, thing: Any) -> None:
        array = (thing.shape, thing.dtype.str, thing[()].tobytes()) if isinstance(thing, h5py.Dataset) else None
        found[name] = array, dict(thing.attrs)

    with h5py.File(path) as file:
        file.visititems(note)
        return found | {"": dict(file.attrs)}


# --- what Keras wrote ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_weights_of_keras_predict_as_in_keras(case: str) -> None:
    made = model(case)
    made.load_weights(reference(case)).blocking()
    np.testing.assert_allclose(made.predict(X).blocking(), TOLD["cases"][case]["predictions"], atol=1e-6)


@pytest.mark.parametrize("case", OPTIMIZERS)
def test_training_goes_on_where_keras_was(case: str) -> None:
    made, told = model(case), TOLD["cases"][case]
    made.load_weights(reference(case)).blocking()
    assert made.optimizer is not None
    assert made.optimizer.iterations == told["iteration"]
    history = made.fit(X, Y, epochs=len(told["losses"]), **HOW).blocking()
    np.testing.assert_allclose(history.history["loss"], told["losses"], atol=1e-5)


def test_another_optimizer_s_state_is_left_out_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    made = model("momentum")
    with caplog.at_level(logging.WARNING, "asyncfit"):
        made.load_weights(reference("adam")).blocking()
    np.testing.assert_allclose(made.predict(X).blocking(), TOLD["cases"]["adam"]["predictions"], atol=1e-6)
    assert made.optimizer is not None
    assert (made.optimizer.iterations, made.optimizer.learning_rate) == (0, 0.5)
    assert "the state of its optimizer is not" in caplog.text
    caplog.clear()
    model("adam").load_weights(reference("plain")).blocking()
    model().load_weights(reference("adam")).blocking()
    assert not caplog.text, "nothing was left out"


@pytest.mark.parametrize("name", ["keras_adam.h5", "ours.h5"])
def test_weights_of_a_whole_model(name: str, tmp_path: Path) -> None:
    """The optimizer stays as it is, as in Keras."""
    arrays = np.load(DATA / "keras_h5.npz")
    stack = [Input((4, 3)), Flatten(), Dense(6), Activation("relu"), Dropout(0.0), Dense(3, activation="softmax")]
    made = af.Sequential(stack, seed=1)
    made.compile("adam", "categorical_crossentropy")
    path = DATA / name
    if name == "ours.h5":
        path = tmp_path / name
        af.load_model(DATA / "keras_adam.h5").blocking().save(path).blocking()
    made.load_weights(path).blocking()
    np.testing.assert_allclose(made.predict(arrays["x"]).blocking(), arrays["adam_predictions"], atol=1e-6)
    assert made.optimizer is not None
    assert made.optimizer.iterations == 0


def test_weights_alone_as_keras_2_wrote_them(tmp_path: Path) -> None:
    """Its `save_weights("x.h5")` has what a whole model has under model_weights, at the top."""
    path = tmp_path / "old.h5"
    model("adam").save(tmp_path / "whole.h5").blocking()
    with h5py.File(tmp_path / "whole.h5") as whole, h5py.File(path, "w") as old:
        for name in whole["model_weights"]:
            whole.copy(f"model_weights/{name}", old)
        old.attrs["layer_names"] = whole["model_weights"].attrs["layer_names"]
    made = model(seed=9)
    made.load_weights(path).blocking()
    np.testing.assert_array_equal(made.predict(X).blocking(), model("adam").predict(X).blocking())
    path = tmp_path / "newer.weights.h5"  # the later ones of Keras 2
    path.write_bytes(reference("plain").read_bytes())
    with h5py.File(path, "r+") as file:
        file.move("layers", "_layer_checkpoint_dependencies")
    made.load_weights(path).blocking()
    np.testing.assert_allclose(made.predict(X).blocking(), TOLD["cases"]["plain"]["predictions"], atol=1e-6)


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_the_file_is_the_one_that_keras_wrote(case: str, tmp_path: Path) -> None:
    """Group for group, number for number, attributes included."""
    made, path = model(case), tmp_path / "m.weights.h5"
    made.load_weights(reference(case)).blocking()
    made.save_weights(path).blocking()
    assert contents(path) == contents(reference(case))
    assert os.listdir(tmp_path) == ["m.weights.h5"]
    again = tmp_path / "again.weights.h5"
    made.save_weights(again).blocking()
    assert again.read_bytes() == path.read_bytes()


KERAS = os.environ.get("KERAS_PYTHON")


@pytest.mark.slow
@pytest.mark.skipif(KERAS is None, reason="needs Keras; KERAS_PYTHON may name an interpreter that has it")
@pytest.mark.parametrize("case", CASES)
def test_keras_loads_what_is_written_and_trains_on_with_the_same_losses(case: str, tmp_path: Path) -> None:
    assert KERAS is not None
    made = model(case)
    if case != "plain":
        made.fit(X, Y, epochs=2, **HOW).blocking()
    path, want = tmp_path / "m.weights.h5", {**TOLD, "case": case, "predictions": made.predict(X).blocking().tolist()}
    made.save_weights(path).blocking()
    if case != "plain":
        want |= {"iteration": 8, "losses": made.fit(X, Y, epochs=3, **HOW).blocking().history["loss"]}
    (tmp_path / "want.json").write_text(json.dumps(want))
    command = [KERAS, str(DATA / "check_keras_reads_weights.py"), str(path), str(tmp_path / "want.json")]
    environment = {"KERAS_BACKEND": "torch", **os.environ}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("losses" in done.stdout) == (case != "plain")


@pytest.mark.anyio
async def test_a_snapshot_decides_by_the_suffix(tmp_path: Path) -> None:
    """Weights beside training, of the state that the event shows."""

    class Saver(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            await event.model.save(tmp_path / f"{event.epoch}.weights.h5")
            await event.model.save(tmp_path / f"{event.epoch}.h5")

    made = model("adam")
    await made.fit(X, Y, epochs=2, callbacks=Saver(), **HOW)
    for epoch in (0, 1):
        other = model("adam", seed=8)
        await other.load_weights(tmp_path / f"{epoch}.weights.h5")
        whole = await af.load_model(tmp_path / f"{epoch}.h5")
        np.testing.assert_array_equal(await other.predict(X), await whole.predict(X))
        assert other.optimizer is not None
        assert other.optimizer.iterations == 4 * (epoch + 1)
    with pytest.raises(BadFile, match=r"holds weights without a model .*model\.load_weights"):
        await af.load_model(tmp_path / "0.weights.h5")


@pytest.mark.anyio
async def test_a_model_in_use_writes_its_weights_and_loads_none(tmp_path: Path) -> None:
    made = model("adam")
    async with made.fit(X, Y, epochs=10**6, **HOW) as run:
        await made.save_weights(tmp_path / "now.weights.h5")
        job = made.load_weights
        with pytest.raises(af.ModelBusy, match="load_weights must wait"):
            job(tmp_path / "now.weights.h5")
        run.stop()
    loading = made.load_weights(tmp_path / "now.weights.h5")
    async with made.fit(X, Y, epochs=10**6, **HOW) as run:
        with pytest.raises(af.ModelBusy, match="load_weights must wait"):
            await loading
        run.stop()


# --- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("save", "name", "part"),
    [
        ("save_weights", "m.h5", r"must end in \.weights\.h5: .*m\.weights\.h5"),
        ("save_weights", "m.keras", r"m\.weights\.h5"),
        ("save_weights", "missing/m.weights.h5", "does not exist"),
        ("save", "m.weights.h5", r"\(save_weights\); for the whole model say .*m\.h5"),
    ],
)
def test_a_name_of_the_other_kind_is_refused(save: str, name: str, part: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=part):
        getattr(model(), save)(tmp_path / name)


def test_a_model_without_weights_has_none_to_save_or_load(tmp_path: Path) -> None:
    unbuilt = af.Sequential([Dense(2)])
    with pytest.raises(InvalidInput, match=r"save_weights: .* has no weights yet"):
        unbuilt.save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(InvalidInput, match=r"load_weights: .* has no weights yet"):
        unbuilt.load_weights(reference("plain"))
    with pytest.raises(InvalidInput, match="takes a path"):
        model().load_weights(3)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        model().load_weights(tmp_path / "none.weights.h5").blocking()


def edited(edit: Callable[[Any], object]) -> bytes:
    buffer = io.BytesIO(reference("adam").read_bytes())
    with h5py.File(buffer, "r+") as file:
        edit(file)
    return buffer.getvalue()


def replaced(file: Any, path: str, value: Any) -> None:
    del file[path]
    file[path] = value


@pytest.mark.parametrize(
    ("edit", "part"),
    [
        (lambda f: f.__delitem__("layers/dense_2"), r"2 \(dense, dense_1\), but 'weighty' needs 3"),
        (lambda f: f.copy("layers/dense", "layers/dense_7"), "dense_7"),
        (lambda f: f.copy("layers/dense", "layers/conv2d"), "conv2d"),
        (
            lambda f: replaced(f, "layers/dense/vars/0", np.zeros((6, 4))),
            r"dense/kernel has the shape \(6, 4\), but Dense",
        ),
        (lambda f: f.__delitem__("layers/dense/vars/1"), "has the weights 1 .*but Dense 'first' needs 2"),
        (lambda f: f.__delitem__("layers/dense/vars/0"), "not numbered from 0"),
        (lambda f: f.move("layers/dense/vars/1", "layers/dense/vars/bias"), "not numbered from 0"),
        (lambda f: f.copy("layers/dense/vars", "layers/dense/cell/vars"), "the layer 'dense' has the weights 4"),
        (lambda f: f.__delitem__("layers"), "holds no weights as Keras saves them"),
        (lambda f: replaced(f, "layers/dense", h5py.SoftLink("/layers/dense_1")), "has a link in place of"),
        (lambda f: replaced(f, "layers/dense/vars/0", h5py.ExternalLink("o.h5", "/x")), "has a link in place of"),
        (lambda f: replaced(f, "layers/dense", 3.0), "has no group at"),
        (lambda f: replaced(f, "layers/dense/vars/0", "text"), "holds text of"),
        (lambda f: f["layers/dense"].create_dataset("more", data=np.ones(2)), "has no group at"),
        (lambda f: replaced(f, "optimizer", 3.0), "has no group at"),
    ],
)
def test_what_does_not_fit_changes_nothing(edit: Callable[[Any], object], part: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.weights.h5"
    path.write_bytes(edited(edit))
    made = model("adam")
    before = made.get_weights()
    with pytest.raises(BadFile, match=part) as caught:
        made.load_weights(path).blocking()
    assert str(path) in str(caught.value)
    for old, new in zip(before, made.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(("place", "value"), [("0", -1), ("0", np.nan), ("1", np.nan), ("1", -0.5), ("1", np.ones(2))])
def test_an_odd_optimizer_is_left_out(place: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "odd.weights.h5"
    path.write_bytes(edited(lambda f: replaced(f, f"optimizer/vars/{place}", value)))
    made = model("adam")
    made.load_weights(path).blocking()
    assert made.optimizer is not None
    assert (made.optimizer.iterations, made.optimizer.learning_rate) == (0, 0.5)
    np.testing.assert_allclose(made.predict(X).blocking(), TOLD["cases"]["adam"]["predictions"], atol=1e-6)


@settings(max_examples=300)
@given(
    edits=st.lists(st.tuples(st.integers(0, 1 << 20), st.sampled_from([1, 2, 4, 8]), st.integers(0)), min_size=1,
                   max_size=6)
)  # fmt: skip
def test_a_damaged_file_is_read_or_refused(edits: list[tuple[int, int, int]]) -> None:
    damaged = bytearray(reference("adam").read_bytes())
    for at, width, value in edits:
        at %= len(damaged) - width
        damaged[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
    said = "m.weights.h5 "
    try:
        weights_h5.from_bytes(bytes(damaged), name="m.weights.h5")
    except BadFile as error:
        said = str(error)
    assert said.startswith("m.weights.h5 ")


def test_lengths_and_addresses_may_be_damaged() -> None:
    """Places of eight bytes in turn get a large number."""
    whole, rng = reference("momentum").read_bytes(), random.Random(3)
    for at in rng.sample(range(0, len(whole) - 8, 8), 300):
        damaged = bytearray(whole)
        struct.pack_into("<Q", damaged, at, rng.choice([(1 << 64) - 1, 1 << 62, 1 << 31, 1 << 16, at]))
        try:
            weights_h5.from_bytes(bytes(damaged), name="m.weights.h5")
        except BadFile:
            pass


def test_a_truncated_file_is_refused() -> None:
    whole = reference("adam").read_bytes()
    for length in range(0, len(whole), 97):
        with pytest.raises(BadFile):
            weights_h5.from_bytes(whole[:length], name="m.weights.h5")

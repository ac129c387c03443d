"""Checkpoints: what goes in comes out, Keras and h5py see a model, and damage is told."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asyncfit.checkpoints import write_whole
from asyncfit.errors import BadFile, CheckpointError, InvalidInput
from asyncfit.formats import checkpoint_h5, keras_h5
from asyncfit.formats.checkpoint_h5 import Saved, Writer, read, read_run
from asyncfit.formats.checksums import checksum
from asyncfit.nn.arrays import Array
from asyncfit.sequential import load_model

from ..faults import NUMBERS, faults
from .kept import X, Y, aligned, kept, trained

DATA = Path(__file__).parent.parent / "data"
KERAS = os.environ.get("KERAS_PYTHON") or (sys.executable if importlib.util.find_spec("keras") else None)
PAGE = 4096
RNG = np.random.default_rng(7)

RUN: dict[str, Any] = {
    "history": {"loss": [0.1, 1 / 3, math.pi, 5e-324], "odd": [math.inf, -math.inf]},
    "seed": 1 << 90,
    "größe": "\ud800 \0 ü",
    "none": None,
    "deep": [[{"a": [True]}]],
}
ARRAYS: dict[str, Array] = {
    **{f"types/{code}": RNG.normal(size=(3, 5)).astype(code) for code in "? b B h H i I q Q e f d F D".split()},
    **{f"types/>{code}": RNG.normal(size=4).astype(f">{code}") for code in "h f d D".split()},
    "scalar": np.array(7),
    "empty": np.zeros((0, 1 << 40), np.float32),
    "strided": np.arange(24.0).reshape(4, 6)[:, ::2],
    "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "page": RNG.normal(size=512),
    "large": RNG.normal(size=(1000, 1003)).astype(np.float32),
    "callbacks/EarlyStopping[0]/best_model:params": np.array([math.nan, math.inf], np.float32),
}


def only(run: dict[str, Any] | None = None, /, **arrays: Array) -> Saved:
    return Saved(model=None, arrays=arrays, run=run or {})


def assert_same(found: dict[str, Array], wanted: Any) -> None:
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert (found[name].dtype.str, found[name].shape) == (array.dtype.str, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name
        assert found[name].flags.writeable
        assert found[name].flags.c_contiguous


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    size = Writer().write(path, Saved(model=None, arrays=ARRAYS, run=RUN))
    assert size == path.stat().st_size
    run, arrays = read(path)
    assert run == RUN
    assert_same(arrays, ARRAYS)
    assert read_run(path) == RUN
    Writer().write(path, only({"nan": math.nan}))
    assert math.isnan(read(path)[0]["nan"])
    assert os.listdir(tmp_path) == ["c.h5"]


def test_a_model_is_read_by_h5py_and_by_load_model_as_by_read(tmp_path: Path) -> None:
    learner = trained(units=300)
    saved = kept(learner, RUN, extra=np.arange(3))
    path = tmp_path / "c.h5"
    size = Writer().write(path, saved)
    assert_same(read(path)[1], saved.arrays)
    assert saved.model is not None
    again = keras_h5.read(path)
    assert again.config == saved.model.config
    assert again.training_config == saved.model.training_config
    assert again.notes == saved.model.notes
    plain = [array for _, weights in saved.model.weights for _, array in weights]
    assert [a.tobytes() for _, weights in again.weights for _, a in weights] == [a.tobytes() for a in plain]
    model = load_model(path).blocking()
    for name, value in learner.state().items():
        np.testing.assert_array_equal(model.state()[name], value)
    assert model.predict(X).blocking().tobytes() == learner.predict(X).tobytes()
    with h5py.File(path, "r") as file:
        params, kernel = file["asyncfit/arrays/state/params"], file["model_weights/dense/dense/kernel:0"]
        assert params.id.get_offset() == kernel.id.get_offset(), "no number is written twice"
        assert kernel[()].tobytes() == plain[0].tobytes()
        assert file["asyncfit/arrays/extra"][()].tolist() == [0, 1, 2]
        record = json.loads(file["asyncfit/run"][()])
        assert record["run"]["history"] == RUN["history"]
        momentum = file["optimizer_weights/adam/dense_kernel_momentum:0"]
        assert momentum[()].tobytes() == learner.state()["optimizer/momentum"][: 12 * 300].tobytes()
    assert size < sum(array.nbytes for array in saved.arrays.values()) + 80_000


def test_arrays_of_the_model_that_are_no_parts_of_others_are_written_too(tmp_path: Path) -> None:
    saved = kept(trained())
    alone = Saved(model=saved.model, arrays={"x": np.arange(2)}, run={})
    Writer().write(tmp_path / "c.h5", alone)
    again = keras_h5.read(tmp_path / "c.h5")
    assert saved.model is not None
    for (_, ours), (_, found) in zip(saved.model.weights, again.weights, strict=True):
        assert [array.tolist() for _, array in ours] == [array.tolist() for _, array in found]


def test_the_next_file_with_the_same_layout_needs_no_hdf5(tmp_path: Path) -> None:
    path, writer, learner = tmp_path / "c.h5", Writer(), trained()
    writer.write(path, kept(learner, {"history": [0.5]}))
    for number, rate in enumerate([0.1, 0.012345678, 1e-7, 0.3]):
        learner.learning_rate = rate
        learner.fits = 10**number
        learner.train_batch(X[:8], Y[:8])
        saved = kept(learner, {"history": [0.123456789] * 40 * number})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(h5py, "File", None)
            writer.write(path, saved)
            run, arrays = read(path)
        assert run == saved.run
        assert_same(arrays, saved.arrays)
        found = keras_h5.read(path)
        assert saved.model is not None
        assert found.training_config == saved.model.training_config
        assert found.notes["fits"] == 10**number
        pairs = zip(found.optimizer_weights, saved.model.optimizer_weights, strict=True)
        assert all(a.tolist() == b.tolist() for (_, a), (_, b) in pairs)


def test_a_layout_that_no_longer_suits_is_made_anew(tmp_path: Path) -> None:
    path, writer = tmp_path / "c.h5", Writer()
    learner = trained()
    long = {"history": [0.1] * 20_000}
    saveds = [
        kept(learner),
        kept(learner, long),
        kept(learner, more=np.arange(3)),
        kept(learner, more=np.arange(3.0)),
        kept(learner, more=np.arange(4.0)),
        kept(trained(units=21)),
        kept(trained(name="another_name_of_the_model" * 20)),
        kept(trained(optimizer="sgd")),
        only(RUN, x=np.arange(5)),
        kept(learner, long),
        Saved(model=kept(learner).model, arrays={"state/params": np.arange(4)}, run={}),
    ]
    for saved in saveds:
        writer.write(path, saved)
        run, arrays = read(path)
        assert run == saved.run
        assert_same(arrays, saved.arrays)
        if saved.model is not None:
            found = keras_h5.read(path)
            assert found.config == saved.model.config
            pairs = zip(found.optimizer_weights, saved.model.optimizer_weights, strict=True)
            assert all(a.tolist() == b.tolist() for (_, a), (_, b) in pairs)
        fresh = tmp_path / "fresh.h5"
        Writer().write(fresh, saved)
        assert read(fresh)[0] == run


NAMES = [
    "a", "a/b", "a/b/c", "b/c/d", "b/c", "b", "", "/", "//", ".", "..", "../x", "./a", "x\0y", "ä ö", "\ud800", "%",
    "%00", "run", "q/r", "q%2Fr", "q", "q/r/s", "n" * 5000,
]  # fmt: skip


def test_any_name_will_do(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    for names in (NAMES, NAMES[::-1]):
        arrays = {name: np.array(number) for number, name in enumerate(names)}
        Writer().write(path, Saved(model=None, arrays=arrays, run={}))
        assert_same(read(path)[1], arrays)
        with h5py.File(path, "r") as file:
            items: list[Any] = []
            file["asyncfit/arrays"].visititems(lambda _, item, items=items: items.append(item))
            assert sorted(item[()] for item in items if isinstance(item, h5py.Dataset)) == list(range(len(names)))


def test_thousands_of_arrays(tmp_path: Path) -> None:
    arrays = {f"g{number % 7}/w{number}": np.full(number % 50, number) for number in range(3000)}
    size = Writer().write(tmp_path / "c.h5", Saved(model=None, arrays=arrays, run={}))
    assert_same(read(tmp_path / "c.h5")[1], arrays)
    assert size < 4 << 20, "small ones stand together"


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (only(x=np.array(["text"])), "'x' is of type <U4"),
        (only(x=np.array([object()])), "'x' is of type object"),
        (only({"x": object()}), "cannot be written as JSON"),
        (only({"x": np.float32(1)}), "cannot be written as JSON"),
        (only({"x": "y" * (33 << 20)}), "can be kept"),
    ],
)
def test_what_a_checkpoint_cannot_hold_is_refused(saved: Saved, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=said):
        Writer().write(tmp_path / "c.h5", saved)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [*NUMBERS, None])
def test_whichever_system_call_fails_the_old_checkpoint_is_whole_or_the_new_one_is(
    number: int | None, tmp_path: Path
) -> None:
    path, writer = tmp_path / "c.h5", Writer()
    old, new = only({"n": 1}, x=aligned(np.zeros(5000))), only({"n": 2}, x=aligned(np.ones(5000)))
    writer.write(path, new)
    for at in range(1, 200):
        writer.write(path, old)
        failed = None
        with faults(at, number) as seen:
            try:
                writer.write(path, new)
            except CheckpointError as error:
                failed = error
        run, arrays = read(path)
        assert arrays["x"].tolist() == [run["n"] - 1] * 5000
        assert run["n"] == (2 if failed is None or "in place" in str(failed) else 1)
        assert os.listdir(tmp_path) == ["c.h5"]
        if not seen.failed:
            break
    assert at > 3


# --- damage ----------------------------------------------------------------------------------------------------------


def test_the_checksum_notices_what_is_changed_or_exchanged() -> None:
    array = RNG.integers(0, 256, 3 * PAGE + 100, np.uint8)
    known = checksum(array)
    for at in (0, 7, PAGE, 3 * PAGE - 1, 3 * PAGE, array.size - 1):
        for bit in range(8):
            array[at] ^= 1 << bit
            assert checksum(array) != known
            array[at] ^= 1 << bit
    words = array[: 3 * PAGE].view("<u8")
    for one, two in ((0, 1), (5, 600), (511, 512), (0, 512), (3, 1400)):
        words[[one, two]] = words[[two, one]]
        assert checksum(array) != known
        words[[one, two]] = words[[two, one]]
    assert checksum(array) == known
    assert checksum(array[:-1]) != known
    assert checksum(np.zeros(0)) == 0


def test_every_damaged_number_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    Writer().write(path, only(RUN, x=RNG.normal(size=1000), y=np.arange(3)))
    whole = path.read_bytes()
    with h5py.File(path, "r") as file:
        places = {name: file[f"asyncfit/arrays/{name}"].id.get_offset() for name in "xy"}
    for name, size in (("x", 8000), ("y", 24)):
        for at in (0, size // 2, size - 1):
            damaged = bytearray(whole)
            damaged[places[name] + at] ^= 4
            path.write_bytes(damaged)
            with pytest.raises(BadFile, match=rf"c\.h5 is damaged: the numbers of '{name}'"):
                read(path)
            assert read_run(path) == RUN


class Parts:
    """A checkpoint taken apart, to be put together with something wrong."""

    def __init__(self, data: bytes) -> None:
        self.head, self.trailer = data[:-PAGE], data[-PAGE:]
        self.at, self.length = struct.unpack_from("<QQ", self.trailer, 20)
        self.record = json.loads(self.head[self.at : self.at + self.length])

    def to_bytes(self, text: bytes | None = None, **fields: Any) -> bytes:
        text = json.dumps(self.record).encode() if text is None else text
        head = self.head[: self.at] + text
        head += bytes(-len(head) % PAGE)
        values = {
            "magic": self.trailer[:16], "version": 1, "at": self.at, "length": len(text), "size": len(head) + PAGE,
            "check": zlib.crc32(text), **fields,
        }  # fmt: skip
        known = struct.pack("<16sIQQQI", *values.values())
        return head + (known + struct.pack("<I", zlib.crc32(known))).ljust(PAGE, b"\0")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "c.h5"
    Writer().write(path, only({"a": 1}, x=np.arange(1000), y=np.arange(600)))
    return path.read_bytes()


def entry(**changes: Any) -> list[Any]:
    known: dict[str, Any] = {"name": "x", "dtype": "<i8", "shape": [1000], "offset": 8192, "check": 0}
    return list((known | changes).values())


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ([entry(shape=[1 << 40])], "no room"),
        ([entry(shape=[1 << 48, 1 << 48])], "impossible shape|too large"),
        ([entry(shape=[1 << 47, 1 << 47])], "too large"),
        ([entry(shape=[0, 1 << 47, 1 << 47])], "too large"),
        ([entry(shape=[-1])], "impossible shape"),
        ([entry(shape=[True])], "impossible shape"),
        ([entry(shape=[1.0])], "impossible shape"),
        ([entry(shape=["1"])], "impossible shape"),
        ([entry(shape=[1] * 33)], "impossible shape"),
        ([entry(shape=[10**400])], "impossible shape"),
        ([entry(shape=None)], "is none"),
        ([entry(shape={})], "is none"),
        ([entry(dtype="O")], "type that is not read"),
        ([entry(dtype="<U4")], "type that is not read"),
        ([entry(dtype="<i8,<i8")], "type that is not read"),
        ([entry(dtype="<M8")], "type that is not read"),
        ([entry(dtype="<i7")], "not known here"),
        ([entry(dtype="<f32")], "not known here"),
        ([entry(dtype=8)], "is none"),
        ([entry(name=None)], "is none"),
        ([entry(offset=-8)], "no room"),
        ([entry(offset=1 << 70)], "no room"),
        ([entry(offset=0.5)], "is none"),
        ([entry(offset=None)], "is none"),
        ([entry(check="x")], "is none"),
        ([entry(check=1 << 80)], "do not match"),
        ([entry()], "do not match"),
        ([entry()[:4]], "is none"),
        ([{}], "is none"),
        ([None], "is none"),
        ([entry(), entry(offset=20_000)], "two arrays of one name"),
        ([entry(), entry(name="y", offset=8200)], "no room for the array 'y'"),
        ([entry(name=str(number)) for number in range(2)], "no room for the array '1'"),
        ([entry(name=str(number), shape=[]) for number in range(10_000)], "no room"),
        ({}, "without a run and arrays"),
        (None, "without a run and arrays"),
    ],
)
def test_an_impossible_array_is_refused(whole: bytes, arrays: Any, said: str, tmp_path: Path) -> None:
    parts = Parts(whole)
    parts.record["arrays"] = arrays
    (tmp_path / "c.h5").write_bytes(parts.to_bytes())
    with pytest.raises(BadFile, match=rf"c\.h5 .*({said})"):
        read(tmp_path / "c.h5")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"run": ' + b"1" * 5000 + b"}", "no JSON"),
        (b"[]", "without a run"),
        (b"3", "without a run"),
        (b'{"arrays": []}', "without a run"),
        (b'{"run": [], "arrays": []}', "without a run"),
    ],
)
def test_an_impossible_record_is_refused(whole: bytes, text: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "c.h5").write_bytes(Parts(whole).to_bytes(text))
    for reads in (read, read_run):
        with pytest.raises(BadFile, match=rf"c\.h5 .*{said}"):
            reads(tmp_path / "c.h5")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"magic": b"x" * 16}, "is no checkpoint"),
        ({"version": 2}, "is a checkpoint of format 2; this version of asyncfit reads 1"),
        ({"version": 0}, "is damaged"),
        ({"at": 1}, "not where it should be"),
        ({"at": 1 << 60}, "not where it should be"),
        ({"at": (1 << 64) - PAGE}, "not where it should be"),
        ({"length": 1 << 40}, "not where it should be"),
        ({"length": (1 << 64) - 1}, "not where it should be"),
        ({"size": 5}, "should have 5"),
        ({"check": 5}, "record does not match"),
    ],
)
def test_an_impossible_trailer_is_refused(whole: bytes, fields: Any, said: str, tmp_path: Path) -> None:
    (tmp_path / "c.h5").write_bytes(Parts(whole).to_bytes(**fields))
    for reads in (read, read_run):
        with pytest.raises(BadFile, match=rf"c\.h5 .*{said}"):
            reads(tmp_path / "c.h5")


def test_a_file_that_is_no_checkpoint_or_not_all_of_one_is_told(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        read(path)
    with pytest.raises(BadFile, match="is a directory; a checkpoint"):
        read(tmp_path)
    for size in (0, 1, PAGE - 1, PAGE, len(whole) - PAGE, len(whole) - 1):
        path.write_bytes(whole[:size])
        for reads in (read, read_run):
            with pytest.raises(BadFile, match=r"c\.h5 is (empty|no checkpoint, or not all of one)"):
                reads(path)
    for longer in (whole + b"x", whole + bytes(PAGE), whole + whole):
        path.write_bytes(longer)
        with pytest.raises(BadFile, match=r"is (no checkpoint|damaged: it has)"):
            read(path)
    write_whole(path, keras_h5.to_bytes(kept(trained()).model))  # type: ignore[arg-type]
    with pytest.raises(BadFile, match="is no checkpoint"):
        read(path)


def test_a_checkpoint_that_another_program_has_changed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    Writer().write(path, kept(trained()))
    with h5py.File(path, "a") as file:
        file["more"] = np.arange(3)
    with pytest.raises(BadFile, match="is no checkpoint, or not all of one"):
        read(path)
    assert load_model(path).blocking().name == "kept"


def test_reading_goes_without_libhdf5(whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.h5").write_bytes(b"\xff" * PAGE + whole[PAGE:])  # nothing is left of HDF5's metadata
    monkeypatch.setattr(h5py, "File", None)
    run, arrays = read(tmp_path / "c.h5")
    assert run == {"a": 1}
    assert arrays["x"].tolist() == list(range(1000))
    assert not hasattr(checkpoint_h5, "h5py")


# --- what Keras reads ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(KERAS is None, reason="needs Keras; KERAS_PYTHON may name an interpreter that has it")
@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_keras_opens_it_as_a_model_with_the_same_state_and_trains_on(optimizer: str, tmp_path: Path) -> None:
    path, writer = tmp_path / "c.h5", Writer()
    writer.write(path, kept(trained(optimizer=optimizer, batches=1)))
    learner = trained(optimizer=optimizer)
    learner.learning_rate = 0.015625  # texts of another length, in the layout that is there
    saved = kept(learner, {"history": [0.5] * 50})
    writer.write(path, saved)
    assert saved.model is not None
    expected = {
        "x": X.tolist(),
        "y": Y.tolist(),
        "predictions": learner.predict(X).tolist(),
        "batch_size": 40,
        "iteration": 5,
        "state": [float(n) for _, array in saved.model.optimizer_weights for n in array.ravel()],
        "losses": [learner.train_batch(X, Y)["loss"] for _ in range(3)],
    }
    Path(f"{path}.json").write_text(json.dumps(expected))
    command = [str(KERAS), str(DATA / "check_keras_reads.py"), str(path)]
    environment = {"KERAS_BACKEND": "torch", **os.environ}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "state of the optimizer: the same" in done.stdout

"""Batches of rows that stay in HDF5 files."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asyncfit.data import ArrayData, Labels, Later, StoredData, blocks, given_fit, given_predict, plan_fit, stored
from asyncfit.data.arrays import Array
from asyncfit.data.stored import Stored
from asyncfit.errors import InvalidInput

ROWS = 1000


@pytest.fixture
def file(tmp_path: Path) -> Iterator[h5py.File]:
    """x and y, chunked and not; every row says which it is."""
    number = np.arange(ROWS)
    with h5py.File(tmp_path / "data.h5", "w") as made:
        made["x"] = (number[:, None] + np.zeros(3)).astype("f4")
        made.create_dataset("chunked", data=number[:, None] + np.zeros((1, 3)), chunks=(7, 2))
        made["y"] = number
        made["bad"] = np.where(number == 700, np.nan, number)
        made["text"] = np.array([b"a"] * 10)
        made["scalar"] = 3.0
        made["none"] = np.zeros((0, 3))
    with h5py.File(tmp_path / "data.h5", "r") as opened:
        yield opened


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays in the file, and how much is read at once, as if the data were large."""
    monkeypatch.setattr(stored, "LOAD_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 300)
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 3000)


def data_of(file: h5py.File, x: str = "x", **how: Any) -> StoredData:
    settings: dict[str, Any] = {"batch_size": 32, "shuffle": True, "key": (3, 1), **how}
    return StoredData(Stored(file[x], "x"), Stored(file["y"], "y"), np.arange(float(ROWS)), **settings)


def rows_of(data: StoredData, epoch: int = 0, start: int = 0) -> list[int]:
    """The rows in the order in which they come; x, y and the weight must say the same."""
    rows: list[int] = []
    for x, y, weight, size in data.batches(epoch, start):
        assert y is not None
        assert weight is not None
        assert x.dtype == np.float32
        assert y.dtype == np.int64
        assert len(x) == size == data.batch_size or len(rows) + size == ROWS or start or data.steps_per_epoch
        assert (x[:, 0] == y).all()
        assert (weight == y).all()
        rows += y.tolist()
    return rows


@pytest.mark.parametrize("name", ["x", "chunked"])
@pytest.mark.parametrize("batch", [1, 7, 32, 999, 1000, 2000])
def test_every_row_comes_once_a_pass_and_far_from_its_neighbours(file: h5py.File, name: str, batch: int) -> None:
    data = data_of(file, name, batch_size=batch)
    first, second = rows_of(data), rows_of(data, 1)
    assert sorted(first) == sorted(second) == list(range(ROWS))
    assert first != second
    assert first == rows_of(data_of(file, name, batch_size=batch))
    assert first != rows_of(data_of(file, name, batch_size=batch, key=(4, 1)))
    steps = np.abs(np.diff(first))
    assert np.median(steps) > 50
    assert rows_of(data_of(file, name, batch_size=batch, shuffle=False)) == list(range(ROWS))


@pytest.mark.parametrize("shuffle", [False, True])
def test_one_may_begin_at_any_batch(file: h5py.File, shuffle: bool) -> None:
    data = data_of(file, shuffle=shuffle)
    whole = rows_of(data, 2)
    for start in range(data.steps(2) + 1):
        assert rows_of(data, 2, start) == whole[start * 32 :]
    parts = data_of(file, shuffle=shuffle, steps_per_epoch=13)
    assert [rows_of(parts, 6) + rows_of(parts, 7) + rows_of(parts, 8)] == [whole]
    with pytest.raises(ValueError, match="start=40"):
        data.batches(0, 40)


def test_reads_are_contiguous_and_follow_the_chunks(file: h5py.File, monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[tuple[int, int]] = []
    read = Stored.read

    def noted(self: Stored, start: int, stop: int, into: Array) -> None:
        if self.name == "x":
            spans.append((start, stop))
        read(self, start, stop, into)

    monkeypatch.setattr(Stored, "read", noted)
    data = data_of(file, "chunked")
    assert data.block_rows % 7 == 0
    rows_of(data)
    assert all(start % data.block_rows == 0 for start, _ in spans)
    assert sum(stop - start for start, stop in spans) == ROWS  # each row is read once
    windows = -(-ROWS // (data.block_rows * data.window_blocks))
    assert len(spans) <= windows * data.window_blocks


def test_the_reading_thread_ends_with_the_iterator_and_with_an_error(file: h5py.File) -> None:
    before = threading.active_count()
    batches = data_of(file).batches(0)
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()
    assert threading.active_count() == before
    data = StoredData(Stored(file["bad"], "x"), batch_size=10)
    with pytest.raises(InvalidInput, match="x holds NaN or infinity in row 700;"):
        list(data.batches(0))
    assert threading.active_count() == before
    data = data_of(file, shuffle=False)
    data.labels = Labels(600)
    with pytest.raises(InvalidInput, match="y has the label 600 in row 600, but the model has 600 classes"):
        list(data.batches(0))
    assert threading.active_count() == before


def test_a_file_that_is_closed_meanwhile_is_an_error_that_names_the_rows(file: h5py.File) -> None:
    data = data_of(file)
    file.close()
    with pytest.raises(Exception, match=r"identifier|invalid|closed") as caught:
        next(data.batches(0))
    assert any("of x were read from the HDF5 file" in note for note in caught.value.__notes__)


def test_it_travels_by_name_if_the_file_is_open_for_reading(file: h5py.File, tmp_path: Path) -> None:
    data = data_of(file)
    data.labels = Labels(ROWS)
    data.check_portable()
    there = pickle.loads(pickle.dumps(data))
    assert there.labels == Labels(ROWS)
    assert rows_of(there, 1) == rows_of(data, 1)
    part = StoredData(Stored(file["x"], "x").part(10, 20), batch_size=5)
    assert [x[0, 0] for x, *_ in pickle.loads(pickle.dumps(part)).batches(0)] == [10, 15]
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["x"] = np.zeros((5, 2))
        with pytest.raises(InvalidInput, match=r"open for writing.*'r'.*executor='thread'"):
            StoredData(Stored(other["x"], "x"), batch_size=5).check_portable()
    with h5py.File("memory", "w", driver="core", backing_store=False) as memory:
        memory["x"] = np.zeros((5, 2))
        with pytest.raises(InvalidInput, match=r"no file of its own.*'core'"):
            StoredData(Stored(memory["x"], "x"), batch_size=5).check_portable()
    told = pickle.dumps(data)
    path = Path(file.filename)
    file.close()
    (tmp_path / "other.h5").replace(path)
    with pytest.raises(InvalidInput, match="is not the file any more"):
        pickle.loads(told)


def test_a_plan_waits_until_it_may_look(file: h5py.File) -> None:
    plan = given_fit(file["x"], file["y"], batch_size=50, validation_split=0.25)
    assert isinstance(plan, Later)
    known = plan.resolved()
    assert (known.samples, known.validation_samples, known.steps) == (750, 250, 15)
    data = known.read((1, 2))
    assert isinstance(data.train, StoredData)
    assert isinstance(data.validation, StoredData)
    assert sorted(rows for x, *_ in data.train.batches(0) for rows in x[:, 0]) == list(range(750))
    assert [x[0, 0] for x, *_ in data.validation.batches(0)] == [750, 800, 850, 900, 950]
    weighed = given_fit(file["x"], np.arange(ROWS) % 2, class_weight={1: 3.0}, shuffle=False).resolved().read()
    _, _, weight, _ = next(weighed.train.batches(0))
    assert weight is not None
    assert weight[:4].tolist() == [1, 3, 1, 3]
    mixed = given_fit(np.zeros((4, 3)), np.zeros(4), validation_data=(file["x"], file["y"])).resolved()
    assert isinstance(mixed.read().validation, StoredData)
    data = given_fit(file["x"], file["y"], sample_weight=file["y"]).resolved().read()
    assert isinstance(data.train.sample_weight, np.ndarray)


def test_small_data_sets_become_arrays(file: h5py.File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "LOAD_BYTES", 10**6)
    here = given_fit(file["x"], file["y"], batch_size=50).resolved().read((1, 2)).train
    assert isinstance(here, ArrayData)
    there = plan_fit(file["x"][:], file["y"][:], batch_size=50).read((1, 2)).train
    for one, other in zip(here.batches(3), there.batches(3), strict=True):
        assert (one[0] == other[0]).all()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("text", "x is an HDF5 data set with dtype .S1 where numbers are needed"),
        ("scalar", r"x is an HDF5 data set of shape \(\)"),
        ("none", r"x is an HDF5 data set of shape \(0, 3\)"),
    ],
)
def test_what_cannot_be_used_is_refused(file: h5py.File, name: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        given_predict(file[name]).resolved()


def test_other_things_of_h5py_and_closed_files_are_refused(file: h5py.File) -> None:
    with pytest.raises(InvalidInput, match=r"x is a Group; .*give one array"):
        given_fit(file["/"], np.zeros(10))
    with pytest.raises(InvalidInput, match="x has 1,000 rows but y has 10"):
        given_fit(file["x"], np.zeros(10)).resolved()
    with pytest.raises(InvalidInput, match="epochs=0"):
        given_fit(file["x"], file["y"], epochs=0)
    plan = given_fit(file["x"], file["y"])
    file.close()
    with pytest.raises(InvalidInput, match="x is a data set of an HDF5 file that has been closed"):
        plan.resolved()

"""HDF5 metadata made before its arrays: every array is found where it was put, by h5py and by us."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from asyncfit.formats import assembly, keras_h5, skeleton
from asyncfit.formats.saved_model import Array, LayerWeights, SavedModel
from asyncfit.formats.skeleton import PAGE, Skeleton, declare
from asyncfit.modelfile import write

RNG = np.random.default_rng(5)
ARRAYS: dict[str, Array] = {
    "/small": np.arange(6, dtype="<f4").reshape(2, 3),
    "/deep/er/bool": np.array([True, False, True]),
    "/deep/complex": np.array([1 + 2j]),
    "/deep/half": np.array(0.5, np.float16),
    "/deep/big": np.arange(7, dtype=">i4"),
    "/empty": np.zeros((0, 3)),
    "/page": RNG.normal(size=(PAGE // 8,)),
    "/larger": RNG.normal(size=(100, 1000)).astype(np.float32),
    **{f"/many/w{number}": RNG.normal(size=number * 50) for number in range(1, 60)},
}


class Arrays:
    """A file with arrays and a text."""

    def __init__(self, arrays: dict[str, Array], text: str = "a text") -> None:
        self.arrays, self.text = arrays, text

    def fill(self, file: Any) -> None:
        file.attrs["text"] = self.text
        for path, array in self.arrays.items():
            declare(file, path, array.dtype, array.shape)


def test_h5py_finds_every_array_where_it_was_put() -> None:
    blocks = assembly.segments(Arrays(ARRAYS))
    data = assembly.joined(blocks)
    assert all(offset % PAGE == 0 for offset, _ in blocks)
    assert len(data) % PAGE == 0
    with h5py.File(io.BytesIO(data), "r") as file:
        assert file.attrs["text"] == "a text"
        for path, array in ARRAYS.items():
            found = file[path][()]
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            assert found.tobytes() == array.tobytes()
            if array.nbytes >= PAGE:
                assert file[path].id.get_offset() % PAGE == 0
        file["many"].visititems(lambda name, found: None)  # every link leads somewhere


def test_large_arrays_are_not_copied() -> None:
    blocks = assembly.segments(Arrays(ARRAYS))
    larger = [block for _, block in blocks if isinstance(block, np.ndarray)]
    assert any(np.shares_memory(block, ARRAYS["/larger"]) for block in larger)


def test_a_file_may_be_read_and_changed_by_others_afterwards() -> None:
    buffer = io.BytesIO(assembly.joined(assembly.segments(Arrays(ARRAYS))))
    with h5py.File(buffer, "a") as file:
        file["new"] = np.arange(10_000)
        file["larger"][0] = 1
        file.attrs["more"] = "x" * 5000
    with h5py.File(buffer, "r") as file:
        assert file["new"][()].tolist() == list(range(10_000))
        assert file["larger"][0].tolist() == [1] * 1000
        assert file["page"][()].tolist() == ARRAYS["/page"].tolist()


def test_two_arrays_may_share_bytes() -> None:
    def fill(file: Any) -> None:
        declare(file, "flat", np.dtype("<f4"), (6,))
        declare(file, "part", np.dtype("<f4"), (2, 2))

    made = Skeleton(fill, lambda size: ({"/flat": size, "/part": size + 8}, size + PAGE))
    with h5py.File(io.BytesIO(bytes(made.data) + ARRAYS["/small"].tobytes().ljust(PAGE, b"\0")), "r") as file:
        assert file["flat"][()].tolist() == [0, 1, 2, 3, 4, 5]
        assert file["part"][()].tolist() == [[2, 3], [4, 5]]


def test_a_text_can_be_replaced_as_long_as_it_fits() -> None:
    made = Skeleton(Arrays({}, "t" * 50).fill, lambda size: ({}, size))
    place = made.find("t" * 50)
    assert place is not None
    assert made.replace(place, "other")
    assert not made.replace(place, "x" * 51)
    with h5py.File(io.BytesIO(made.data), "r") as file:
        assert file.attrs["text"] == "other".ljust(50)
    assert made.find("nowhere") is None
    assert made.find("") is None
    assert made.find("\0") is None, "not in one place"


def test_what_libhdf5_would_do_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def lay(size: int) -> tuple[dict[str, int], int]:
        return {"/x": size}, size + PAGE

    def compact(file: Any) -> None:
        file["x"] = np.arange(3)

    with pytest.raises(RuntimeError, match="not known"):
        Skeleton(compact, lay)
    monkeypatch.setattr(skeleton, "_address", lambda data, header, size: 0)
    with pytest.raises((RuntimeError, OSError)):
        Skeleton(lambda file: declare(file, "x", np.dtype("f4"), (3,)), lay)
    monkeypatch.setattr(skeleton, "_address", lambda data, header, size: 8 * PAGE)
    with pytest.raises(RuntimeError, match="libhdf5 finds /x at None"):
        Skeleton(lambda file: declare(file, "x", np.dtype("f4"), (3,)), lay)


def large(megabytes: int) -> SavedModel:
    kernel = np.ones((megabytes, 1 << 18), np.float32)
    layers = [{"class_name": "Dense", "config": {"name": "dense"}}]
    config = {"class_name": "Sequential", "config": {"name": "large", "layers": layers}}
    return SavedModel(config=config, weights=[LayerWeights("dense", [("kernel", kernel), ("bias", kernel[0])])])


@pytest.mark.parametrize("name", ["m.h5", "m.weights.h5"])
def test_other_users_of_hdf5_are_not_held_up_while_a_model_goes_to_the_disk(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write stands still at each block until others have used h5py."""
    pwrite, fsync = os.pwrite, os.fsync
    model = large(64)
    sizes: list[int] = []
    failed: list[BaseException] = []

    def use_hdf5() -> None:
        try:
            with h5py.File(tmp_path / "other.h5", "w") as file:
                file["x"] = np.arange(10)
            with h5py.File(tmp_path / "other.h5", "r") as file:
                assert file["x"][3] == 3
        except BaseException as error:
            failed.append(error)

    def others() -> None:
        thread = threading.Thread(target=use_hdf5, daemon=True)
        thread.start()
        thread.join(60)  # for ever, if the lock were held here
        assert not thread.is_alive()
        assert not failed

    def blocked_pwrite(descriptor: int, data: Any, offset: int) -> int:
        others()
        sizes.append(written := pwrite(descriptor, data, offset))
        return written

    def blocked_fsync(descriptor: int) -> None:
        others()
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", blocked_pwrite)
        patch.setattr(os, "fsync", blocked_fsync)
        write(model, tmp_path / name)
    assert sum(sizes) > 64 << 20, "that was the whole file"
    with h5py.File(tmp_path / name, "r") as file:
        found: list[Any] = []
        file.visititems(lambda _, item: found.append(item[()]) if isinstance(item, h5py.Dataset) else None)
        assert sorted(array.size for array in found) == [1 << 18, 1 << 24]
        assert all((array == 1).all() for array in found)


def test_the_same_model_gives_the_same_bytes_wherever_its_arrays_lie() -> None:
    flat = np.arange(40_000, dtype=np.float32)

    def model(copy: bool) -> SavedModel:
        parts = [("kernel", flat[:30_000].reshape(3, 10_000)), ("bias", flat[30_000:30_010])]
        weights = [(name, array.copy() if copy else array) for name, array in parts]
        config = {"class_name": "Sequential", "config": {"name": "m", "layers": []}}
        return SavedModel(config=config, weights=[LayerWeights("dense", weights)])

    assert keras_h5.to_bytes(model(True)) == keras_h5.to_bytes(model(False))

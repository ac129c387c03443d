"""Our own reading of HDF5 files: it finds what h5py put in, in every layout that it says it knows."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
import pytest

from asyncfit.errors import BadFile
from asyncfit.formats.hdf5_arrays import stored
from asyncfit.formats.hdf5_groups import Links
from asyncfit.formats.hdf5_image import Image
from asyncfit.formats.hdf5_text import Texts
from asyncfit.nn.arrays import Array

RNG = np.random.default_rng(4)
VERSIONS: list[Any] = ["earliest", "v108", "latest"]
TYPES = "i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 >i2 >i4 >u8 >f2 >f4 >f8 ?".split()


def made(fill: Callable[[Any], object], libver: Any = "earliest", **how: Any) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=libver, **how) as file:
        fill(file)
    return buffer.getvalue()


def found(data: bytes) -> dict[str, Array]:
    """Every array in a file, as we read it."""
    image = Image(data)
    links = Links(image)
    arrays: dict[str, Array] = {}

    def visit(path: str, address: int) -> None:
        if (inside := links.of(address)) is not None:
            for name, target in inside.items():
                assert target is not None
                visit(f"{path}/{name}", target)
        else:
            array = stored(image, address)
            assert array is not None
            arrays[path] = array.read(image)

    visit("", image.root)
    return arrays


def assert_read(data: bytes) -> None:
    """What we read is what h5py reads."""
    wanted: dict[str, Array] = {}

    def visit(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            wanted[path] = item[()]
        else:
            for name in item:
                visit(f"{path}/{name}", item[name])

    with h5py.File(io.BytesIO(data), "r") as file:
        visit("", file)
    ours = found(data)
    assert sorted(ours) == sorted(wanted)
    for name, value in wanted.items():
        array = np.asarray(value)
        assert ours[name].dtype == array.dtype.newbyteorder("=")
        assert ours[name].shape == array.shape
        np.testing.assert_array_equal(ours[name], array)
        assert ours[name].flags.owndata


@pytest.mark.parametrize("libver", VERSIONS)
def test_every_type_and_shape(libver: Any) -> None:
    def fill(file: Any) -> None:
        for code in TYPES:
            file[f"types/{code}"] = (RNG.normal(size=(3, 5)) * 9).astype(code)
        for number, shape in enumerate([(), (1,), (0,), (0, 3), (2, 3, 4, 5), (1,) * 10]):
            file[f"shapes/{number}"] = RNG.normal(size=shape)

    assert_read(made(fill, libver))


@pytest.mark.parametrize("libver", VERSIONS)
@pytest.mark.parametrize("count", [1, 8, 9, 300, 2000])
def test_groups_of_any_size(libver: Any, count: int) -> None:
    """In the newer versions from 9 members on they are in a heap; hundreds need several blocks of it."""

    def fill(file: Any) -> None:
        one = file.create_dataset("group/a", data=1.0)
        for number in range(1, count):
            file[f"group/{'long_' * (number % 12)}name_{number}"] = one  # hard links

    assert_read(made(fill, libver))
    assert_read(made(fill, libver, track_order=True))


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("fletcher32", [False, True])
def test_chunks(compression: Any, shuffle: bool, fletcher32: bool) -> None:
    how: dict[str, Any] = {"compression": compression, "shuffle": shuffle, "fletcher32": fletcher32}

    def fill(file: Any) -> None:
        file.create_dataset("one", data=RNG.normal(size=7), chunks=(7,), **how)
        file.create_dataset("many", data=RNG.normal(size=(50, 33)).astype("f4"), chunks=(3, 10), **how)
        file.create_dataset("deep", data=RNG.integers(0, 9, (9, 8, 7), dtype="i2"), chunks=(2, 3, 4), **how)
        file.create_dataset("bool", data=RNG.normal(size=100) > 0, chunks=(30,), **how)
        file.create_dataset("thousands", data=RNG.normal(size=9000), chunks=(2,), **how)

    for libver in ("earliest", "v108"):
        assert_read(made(fill, libver))


def test_arrays_within_their_header() -> None:
    def fill(file: Any) -> None:
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_layout(h5py.h5d.COMPACT)
        file.create_dataset("x", data=np.arange(20.0), dcpl=plan)

    for libver in VERSIONS:
        assert_read(made(fill, libver))


@pytest.mark.parametrize(
    ("fill", "libver", "said"),
    [
        (lambda f: f.create_dataset("x", data=np.arange(9), chunks=(2,)), "latest", "arrays"),
        (lambda f: f.create_dataset("x", data=np.ones(99), compression="lzf"), "earliest", "filter 32000"),
        (lambda f: f.create_dataset("x", (9,), "f4", chunks=(2,)), "earliest", "never written"),
        (lambda f: f.create_dataset("x", (9,), "f4"), "earliest", "never written"),
    ],
)
def test_what_is_not_supported_is_told(fill: Callable[[Any], object], libver: Any, said: str) -> None:
    with pytest.raises(BadFile, match=said):
        found(made(fill, libver))


def test_chunks_that_are_missing_are_told() -> None:
    def fill(file: Any) -> None:
        file.create_dataset("x", (9,), "f4", chunks=(2,))[3] = 1

    with pytest.raises(BadFile, match="not all of its numbers"):
        found(made(fill))


def test_a_chunk_that_unpacks_to_more_than_it_says_is_refused() -> None:
    """What it says is all that is unpacked."""
    data = made(lambda f: f.create_dataset("x", data=np.zeros(1000), chunks=(1000,), compression="gzip"))
    packed = zlib.compress(bytes(8000), 4)
    at = data.index(packed)
    bomb = zlib.compress(bytes(64 << 20), 9)
    end = len(data)
    moved = data.replace(at.to_bytes(8, "little"), end.to_bytes(8, "little"))
    moved = moved.replace(
        len(packed).to_bytes(4, "little") + bytes(20) + end.to_bytes(8, "little"),
        len(bomb).to_bytes(4, "little") + bytes(20) + end.to_bytes(8, "little"),
    )
    tracemalloc.start()
    try:
        with pytest.raises(BadFile, match="not as large as it should be"):
            found(moved + bomb)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_other_kinds_of_links_lead_nowhere() -> None:
    def fill(file: Any) -> None:
        file["real"] = 1.0
        file["soft"] = h5py.SoftLink("/real")
        file["outside"] = h5py.ExternalLink("other.h5", "/x")
        for number in range(20):
            file[f"more/soft{number}"] = h5py.SoftLink("/real")

    for libver in VERSIONS:
        image = Image(made(fill, libver))
        links = Links(image)
        root = links.of(image.root)
        assert root is not None
        assert {name for name, target in root.items() if target is None} == {"soft", "outside"}
        assert root["more"] is not None
        inside = links.of(root["more"])
        assert inside is not None
        assert len(inside) == 20
        assert set(inside.values()) == {None}


@pytest.mark.parametrize("libver", VERSIONS)
def test_attributes(libver: Any) -> None:
    def fill(file: Any) -> None:
        file.attrs["fixed"] = np.bytes_(b"abc")
        file.attrs["text"] = "größe"
        file.attrs["list"] = ["a", "bc"]
        file.attrs["number"] = 3
        file.attrs["empty"] = h5py.Empty("f4")

    image = Image(made(fill, libver))
    texts = Texts(image).of(image.root)
    assert {name: a.texts for name, a in texts.items()} == {
        "fixed": [b"abc"],
        "text": ["größe".encode()],
        "list": [b"a", b"bc"],
        "number": None,
        "empty": None,
    }


def test_more_attributes_than_a_header_holds_are_told() -> None:
    def fill(file: Any) -> None:
        for number in range(20):
            file.attrs[f"a{number}"] = "x"

    image = Image(made(fill))
    assert len(Texts(image).of(image.root)) == 20
    image = Image(made(fill, "latest"))
    with pytest.raises(BadFile, match="keeps attributes in a way that is not supported"):
        Texts(image).of(image.root)


def test_a_block_before_the_file_is_told() -> None:
    data = made(lambda f: f.create_group("x"), userblock_size=512)
    with pytest.raises(BadFile):
        Image(data)


@pytest.mark.parametrize("shape", [(0, (1 << 64) - 1), (1 << 63, 0), (1 << 40, 1 << 40), ((1 << 64) - 1, 3)])
@pytest.mark.parametrize("how", [{}, {"chunks": (2, 3)}])
def test_absurd_shapes_are_refused(shape: tuple[int, int], how: dict[str, Any]) -> None:
    """Also those that come to no bytes at all, or to few if a product runs over."""
    data = made(lambda f: f.create_dataset("x", data=np.ones((4, 3)), **how))
    assert data.count(struct.pack("<QQ", 4, 3)) in (1, 2), "the shape, and the largest that it may become"
    with pytest.raises(BadFile, match="claims an array"):
        found(data.replace(struct.pack("<QQ", 4, 3), struct.pack("<QQ", *shape)))


@pytest.mark.timeout(60)
def test_a_header_that_leads_back_to_itself_is_refused() -> None:
    def fill(file: Any) -> None:
        for number in range(20):
            file.attrs[f"a{number}"] = "x"

    data = bytearray(made(fill))
    image = Image(data)
    one = next(message for message in image.messages(image.root) if message.kind == 0x10)
    data[one.start : one.start + 16] = struct.pack("<QQ", one.start - 8, 24)  # the very message
    image = Image(data)
    with pytest.raises(BadFile, match="leads back"):
        image.messages(image.root)


def test_names_that_overlap_are_refused() -> None:
    """Each of them ends where the longest one ends, so together they are far larger than the file."""

    def fill(file: Any) -> None:
        file.create_group("n" * 50_000)
        for number in range(500):
            file.create_group(f"g{number}")

    data = bytearray(made(fill))
    names = data.index(b"n" * 50_000)
    size, start = next(
        struct.unpack_from("<Q8xQ", data, at + 8)
        for at in range(0, len(data), 8)
        if data.startswith(b"HEAP", at) and struct.unpack_from("<Q", data, at + 8)[0] > 50_000
    )
    assert start < names < start + size
    table, shift = data.find(b"SNOD"), 0
    while table >= 0:
        for number in range(int.from_bytes(data[table + 6 : table + 8], "little")):
            struct.pack_into("<Q", data, table + 8 + 40 * number, names - start + shift)
            shift += 1
        table = data.find(b"SNOD", table + 4)
    image = Image(data)
    with pytest.raises(BadFile, match="its names overlap"):
        Links(image).of(image.root)

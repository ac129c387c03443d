"""Feeds damaged and hostile files to the readers, in a process that may crash, hang or run out of memory.

::

    python -m tests.formats.fuzz SEED NUMBER KIND FILE [KIND FILE ...]

makes NUMBER files of each whole one, by changes drawn from SEED and their number, and reads each. The last line of
what it prints is the number of the file that it was at; after "failed" stands what went wrong. NUMBER may be FIRST:END.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import struct
import sys
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asyncfit.errors import BadFile

__all__ = ["READERS", "damaged", "main"]

PAGE = 4096
SECONDS = 60
MEGABYTES = 300
_TRAILER = struct.Struct("<16sIQQQI")

# --- what is done to a file ------------------------------------------------------------------------------------------


def damaged(whole: bytes, seed: str) -> bytes:
    """The file with one or some changes."""
    rng = random.Random(seed)
    data = bytearray(whole)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        rng.choices([_number, _bits, _blocks, _length, _trailer, _record], [10, 4, 2, 1, 1, 4])[0](data, rng)
        if not data:
            break
    return bytes(data)


def _place(data: bytearray, rng: random.Random) -> int:
    """A place, mostly where something is written."""
    for _ in range(20):
        at = rng.randrange(min(len(data), rng.choice([256, PAGE, 4 * PAGE, len(data)])))
        if data[at]:
            break
    return at


def _number(data: bytearray, rng: random.Random) -> None:
    width, at = rng.choice([1, 2, 4, 8]), _place(data, rng)
    at -= rng.choice([0, at % width])
    known = int.from_bytes(data[at : at + width], "little")
    fixed = [0, 1, 2, 8, 255, 1 << 31, 1 << 63, -1, -8, len(data), len(data) - 1, at, at + 8, rng.getrandbits(64)]
    near = [known + 1, known - 1, known * 2, known ^ 8, rng.randrange(len(data)), rng.randrange(len(data)) // 8 * 8]
    value = rng.choice(fixed + near)
    data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")


def _bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 2, 30])):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def _blocks(data: bytearray, rng: random.Random) -> None:
    size = rng.choice([4, 8, 16, 40, 512, PAGE])
    one, two = (_place(data, rng) // 8 * 8 for _ in range(2))
    first, second = data[one : one + size], data[two : two + size]
    how = rng.randrange(4)
    if how == 0 and abs(one - two) >= size:
        data[one : one + len(second)] = second
        data[two : two + len(first)] = first
    elif how == 1:
        data[one : one + len(first)] = bytes(len(first))
    elif how == 2:
        data[one : one + len(second)] = second
    else:
        data[one:one] = second


def _length(data: bytearray, rng: random.Random) -> None:
    if rng.randrange(3):
        del data[rng.choice([rng.randrange(len(data)), rng.randrange(len(data)) // PAGE * PAGE, _place(data, rng)]) :]
    else:
        data += bytes(rng.choice([1, 8, PAGE]))


def _trailer(data: bytearray, rng: random.Random) -> None:
    """Another number in the trailer, and a checksum that says it is right."""
    if len(data) < 2 * PAGE:
        return
    at = len(data) - PAGE
    values = list(_TRAILER.unpack_from(data, at))
    number = rng.randrange(1, 6)
    values[number] = rng.choice([0, 1, len(data), rng.getrandbits(63), values[number] + rng.choice([-1, 1, PAGE])])
    _sealed(data, at, values)


def _record(data: bytearray, rng: random.Random) -> None:
    """Something else in the record, and checksums that say it is right."""
    if len(data) < 2 * PAGE:
        return
    at = len(data) - PAGE
    values = list(_TRAILER.unpack_from(data, at))
    try:
        record = json.loads(data[values[2] : values[2] + values[3]])
    except (ValueError, RecursionError):
        return
    for _ in range(rng.choice([1, 1, 2, 5])):
        record = _changed(record, rng)
    text = json.dumps(record).encode()
    if rng.randrange(10) == 0:
        text = text[: rng.randrange(len(text))] + rng.choice([b"", b"[" * 5000, b"9" * 5000, b"NaN", b'"'])
    head = bytes(data[: values[2]]) + text
    data[:] = head + bytes(-len(head) % PAGE) + data[at:]
    _sealed(data, len(data) - PAGE, [values[0], values[1], values[2], len(text), len(data), zlib.crc32(text)])


def _sealed(data: bytearray, at: int, values: list[Any]) -> None:
    try:
        known = _TRAILER.pack(*values)
    except struct.error:
        return
    data[at : at + len(known) + 4] = known + struct.pack("<I", zlib.crc32(known))


_HOSTILE: list[Callable[[random.Random], Any]] = [
    lambda rng: None,
    lambda rng: rng.choice([True, False, "", "x", "\0", "a" * 10_000, "<f4", "|O", "<f8", ">c16", "|V8", "<U9", "<M8"]),
    lambda rng: rng.choice([0, 1, -1, 5, 1 << 31, 1 << 40, 1 << 62, 1 << 64, -(1 << 63), 10**300]),
    lambda rng: rng.choice([0.5, 1e308, float("nan"), float("inf")]),
    lambda rng: [rng.choice([0, 1, 3, 1 << 20, 1 << 45, -2, "x", None]) for _ in range(rng.choice([0, 1, 2, 5, 70]))],
    lambda rng: {rng.choice(["", "run", "arrays"]): 1},
    lambda rng: rng.randrange(1 << 20),
]


def _changed(value: Any, rng: random.Random) -> Any:
    """The same with something else at one place in it."""
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        how = rng.randrange(12)
        if how == 0:
            del value[key]
        elif how == 1 and isinstance(value, list):
            value.append(value[key])
        elif how == 2:
            value[key] = value[rng.choice(keys)]
        else:
            value[key] = _changed(value[key], rng)
        return value
    if isinstance(value, int) and rng.random() < 0.3:
        return value + rng.choice([-8, -1, 1, 8, PAGE])
    return rng.choice(_HOSTILE)(rng)


# --- who reads it ----------------------------------------------------------------------------------------------------


def _checkpoint(path: str) -> None:
    from asyncfit.formats import checkpoint_h5

    read = False
    try:
        run, arrays = checkpoint_h5.read(path)
        read = True
        assert isinstance(run, dict)
        assert sum(array.nbytes for array in arrays.values()) <= Path(path).stat().st_size
    finally:
        try:
            checkpoint_h5.read_run(path)
        except BadFile:
            assert not read, "read takes it, read_run does not"


def _model(path: str) -> None:
    from asyncfit.sequential import load_model

    load_model(path).blocking()


def _weights(path: str) -> None:
    from asyncfit import modelfile

    modelfile.read_weights(path)


READERS: dict[str, Callable[[str], None]] = {"checkpoint": _checkpoint, "model": _model, "weights": _weights}


def _peak() -> int:
    """The most memory that this process ever asked for, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmPeak:"):
            return int(line.split()[1]) * 1024
    return 0


def main(seed: str, number: str, *files: str) -> int:
    first, _, end = number.rpartition(":")
    pairs = list(zip(files[::2], files[1::2], strict=True))
    for kind, file in pairs:
        READERS[kind](file)  # all is imported and warm
    start = _peak()
    resource.setrlimit(resource.RLIMIT_AS, (start + (4 << 30), resource.RLIM_INFINITY))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "m.h5")
        for kind, file in pairs:
            whole, taken = Path(file).read_bytes(), 0
            for count in range(int(first or 0), int(end)):
                print(kind, file, count, flush=True)
                Path(path).write_bytes(damaged(whole, f"{seed}:{count}"))
                if (wrong := _wrong(READERS[kind], path)) or (_peak() > start + (MEGABYTES << 20)):
                    print("failed:", (wrong or f"{(_peak() - start) >> 20} MB were asked for")[:2000])
                    return 1
                taken += wrong is None
            print(f"{taken} were taken of {kind} {file}")
    return 0


def _wrong(reader: Callable[[str], None], path: str) -> str | None:
    """What should not be; "" if the file was refused as it should be, None if it was read."""
    signal.alarm(SECONDS)  # ends the process wherever it is
    try:
        reader(path)
        return None
    except BadFile as error:
        return "" if str(error).startswith(path) else f"it names no file: {error}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

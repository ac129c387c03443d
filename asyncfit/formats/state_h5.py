"""A Trainable's state in an HDF5 file: names to arrays, numbers and text, nothing else.

Plain and synchronous; h5py is imported when it is first needed. For models of asyncfit's own layers there is
`keras_h5`; a state of somebody's own model has no layout that others could read.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadFile, InvalidInput

__all__ = ["read", "to_bytes"]

MARK = "asyncfit_state"
VERSION = 1


def to_bytes(state: Mapping[str, Any]) -> bytes:
    """The file's bytes.

    Raises:
        InvalidInput: a value is no array of numbers, number or text.
    """
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs[MARK] = VERSION
        group = file.create_group("state")
        for number, (name, value) in enumerate(state.items()):
            if isinstance(value, str):
                item = group.create_dataset(str(number), data=np.frombuffer(value.encode(), np.uint8))
                item.attrs["kind"] = "text"
            else:
                array = np.asarray(value)
                if array.dtype.kind not in "biufc":
                    raise InvalidInput(
                        f"state()[{name!r}] is {type(value).__name__}; a state holds arrays, numbers and text"
                    )
                item = group.create_dataset(str(number), data=array)
                scalar = not isinstance(value, np.ndarray)
                item.attrs["kind"] = type(value).__name__ if scalar and type(value) in (bool, int, float) else "array"
            item.attrs["name"] = name
    return buffer.getvalue()


_SCALARS: dict[str, Any] = {"bool": bool, "int": int, "float": float}


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state that a file holds.

    Raises:
        FileNotFoundError: there is no such file.
        BadFile: it is no such file, or damaged.
    """
    import h5py

    data = Path(path).read_bytes()
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            if MARK not in file.attrs:
                raise BadFile(f"{os.fspath(path)}: an HDF5 file, but no state that Trainer.save wrote")
            state: dict[str, Any] = {}
            items = file["state"]
            for number in range(len(items)):
                item = items[str(number)]
                if item.nbytes > len(data):
                    raise BadFile(f"{os.fspath(path)}: item {number} claims {item.nbytes:,} bytes, more than the file")
                kind, value = item.attrs["kind"], item[()]
                if kind == "text":
                    value = bytes(value).decode()
                elif kind in _SCALARS:
                    value = _SCALARS[kind](value)
                else:
                    value = np.asarray(value)
                state[item.attrs["name"]] = value
            return state
    except BadFile:
        raise
    except Exception as error:  # what h5py raises at damage has many types
        raise BadFile(f"{os.fspath(path)}: not a whole HDF5 file ({error})") from error

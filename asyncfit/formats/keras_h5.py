"""Keras's whole-model HDF5 files (`.h5`): the public door.

Plain synchronous code for a worker thread. h5py is imported when a file is first touched, for `import asyncfit`
must not pay for it.
"""

from __future__ import annotations

import os

from asyncfit.checkpoints import Segment
from asyncfit.errors import BadFile

from . import assembly, checkpoint_reader
from .keras_h5_reader import from_bytes
from .keras_h5_writer import Description
from .opening import opened
from .paths import check_path
from .saved_model import LayerWeights, SavedModel

__all__ = ["LayerWeights", "SavedModel", "check_path", "from_bytes", "read", "read_bytes", "segments", "to_bytes"]


def read(path: str | os.PathLike[str]) -> SavedModel:
    """The model in the file at `path`, as Keras 3, Keras 2 or this library wrote it.

    Raises:
        FileNotFoundError: there is no such file.
        BadFile: anything else; the message names the file and what is wrong with it.
    """
    data = read_bytes(path)
    try:
        checkpoint_reader.check(data)
    except BadFile as error:
        raise BadFile(f"{os.fspath(path)} {error}") from error.__cause__
    return from_bytes(data, name=os.fspath(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The contents of the file at `path`. Raises FileNotFoundError and BadFile."""
    with opened(path, "model") as file:
        return file.read()


def segments(model: SavedModel) -> list[Segment]:
    """The file that holds `model`, for `checkpoints.write_segments`; its arrays are not copied, if they need not be.

    Raises:
        InvalidInput: a name that HDF5 cannot hold, an array not of numbers, a config that is not JSON.
    """
    return assembly.segments(Description(model))


def to_bytes(model: SavedModel) -> bytes:
    """The file's bytes; the same for the same model."""
    return assembly.joined(segments(model))

"""Keras's whole-model HDF5 files (`.h5`): the public door, and the writer.

Written is the dialect that Keras 2, Keras 3 and the TF.js converter all read: text in the style of Keras 2,
`keras_version` "2.15.0", weights named `<layer>/<weight>:0`. The writer makes bytes; whoever calls it puts
them on the disk, so that HDF5's lock, one for the whole process, is held only while they are built. Plain
synchronous code for a worker thread. h5py is imported when a file is first touched, for `import asyncfit`
must not pay for it.
"""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from collections.abc import Iterable
from typing import Any

import numpy as np

from asyncfit.errors import BadFile, InvalidInput

from .keras_h5_reader import from_bytes
from .paths import check_path
from .saved_model import Array, LayerWeights, SavedModel, keras2_style

__all__ = ["LayerWeights", "SavedModel", "check_path", "from_bytes", "read", "read_bytes", "to_bytes"]

_KERAS_VERSION = "2.15.0"
_ATTRIBUTE_LIMIT = 64_512  # bytes, for attributes live in an object's header; Keras reads numbered parts
_TOP = "top_level_model_weights"


def read(path: str | os.PathLike[str]) -> SavedModel:
    """The model in the file at `path`, as Keras 3, Keras 2 or this library wrote it.

    Raises:
        FileNotFoundError: there is no such file.
        BadFile: anything else; the message names the file and what is wrong with it.
    """
    return from_bytes(read_bytes(path), name=os.fspath(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The contents of the file at `path`. Raises FileNotFoundError and BadFile."""
    name = os.fspath(path)
    try:
        if stat.S_ISDIR((found := os.stat(name)).st_mode):
            raise BadFile(f"{name} is a directory; a model is read from a .h5 file")
        if not stat.S_ISREG(found.st_mode):  # a pipe would make us wait, /dev/zero would never end
            raise BadFile(f"{name} is not a regular file")
        with open(name, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "there is no such model file", name) from None
    except OSError as error:
        raise BadFile(f"{name} cannot be read: {error.strerror}") from error
    except (ValueError, OverflowError) as error:
        if isinstance(error, BadFile):
            raise
        raise BadFile(f"{name!r} is no path: {error}") from error


def to_bytes(model: SavedModel) -> bytes:
    """The file that holds `model`; the same bytes for the same model.

    Raises:
        InvalidInput: a name that HDF5 cannot hold, an array not of numbers, a config that is not JSON.
    """
    layers = _names("layer", [name for name, _ in model.weights])
    if _TOP in layers:
        raise InvalidInput(f"a layer cannot be named {_TOP!r}, which Keras uses itself")
    config = _json("model_config", model.config)
    training = model.training_config
    if training is not None:  # Keras reads no file without the key
        training = {"loss_weights": None, **training}
    prefix = _optimizer_prefix(training)

    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        text = h5py.string_dtype("utf-8")
        for group in (file, weights := file.create_group("model_weights")):
            group.attrs["keras_version"] = np.bytes_(_KERAS_VERSION)
            group.attrs["backend"] = np.bytes_("tensorflow")
        file.attrs.create("model_config", config, dtype=text)
        if model.notes:
            file.attrs.create("asyncfit", _json("notes", model.notes), dtype=text)
        if training is not None:
            file.attrs.create("training_config", _json("training_config", training), dtype=text)
        _write_names(weights, "layer_names", layers)
        for layer, arrays in model.weights:
            _write_arrays(weights.create_group(layer), f"{layer}/", arrays)
        _write_arrays(weights.create_group(_TOP), "", [])
        if model.optimizer_weights:
            _write_arrays(file.create_group("optimizer_weights"), prefix, model.optimizer_weights)
    return buffer.getvalue()


def _write_arrays(group: Any, prefix: str, arrays: Iterable[tuple[str, Array]]) -> None:
    named = [(f"{prefix}{name}:0", name, np.asarray(array)) for name, array in arrays]
    _write_names(group, "weight_names", [full for full, _, _ in named])
    _names("weight", [name for _, name, _ in named], parts=True)
    for full, _, array in named:
        if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            raise InvalidInput(
                f"weight {full!r} is of type {array.dtype}; real numbers of up to 64 bits can be written"
            )
        little = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
        group.create_dataset(full, data=little, track_times=False)


def _write_names(group: Any, attribute: str, names: list[str]) -> None:
    """An array of text, in numbered parts where it is too long for one attribute."""
    import h5py

    if not names:  # as Keras writes an empty list
        group.attrs[attribute] = np.zeros(0, np.float64)
        return
    raw = [name.encode() for name in names]
    width = max(map(len, raw))
    each = _ATTRIBUTE_LIMIT // width
    if not each:
        raise InvalidInput(f"the name {max(names, key=len)[:80]!r}… is too long for a file")
    for part, start in enumerate(range(0, len(raw), each)):
        name = attribute if len(raw) <= each else f"{attribute}{part}"
        values = np.array(raw[start : start + each], dtype=f"S{width}")
        group.attrs.create(name, values, dtype=h5py.string_dtype("utf-8", width))


def _names(what: str, names: list[str], *, parts: bool = False) -> list[str]:
    """`names` if they can name HDF5 objects side by side; with `parts` a `/` may divide them."""
    for name in names:
        pieces = name.split("/") if parts else [name]
        if "\0" in name or any(piece in ("", ".", "..") or "/" in piece for piece in pieces):
            raise InvalidInput(f"{what} name {name!r} cannot be kept in a file; use letters, digits and _")
    if twice := {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set():
        raise InvalidInput(f"{what} name {min(twice)!r} is used twice; each needs a name of its own")
    return names


def _optimizer_prefix(training: dict[str, Any] | None) -> str:
    """`adam/`, as Keras begins the names of an optimizer's weights (for people: reading goes by order)."""
    config = (training or {}).get("optimizer_config") or {}
    inner = config.get("config") if isinstance(config, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    usable = isinstance(name, str) and name not in ("", ".", "..") and "/" not in name
    return f"{name}/" if usable else ""


def _json(what: str, value: Any) -> str:
    try:
        return json.dumps(keras2_style(value))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{what} cannot be written as JSON: {error}") from error

"""Writes a model as Keras's whole-model HDF5 file: what is in it, by which names.

The dialect is the one that Keras 2, Keras 3 and the TF.js converter all read: text in the style of Keras 2,
`keras_version` "2.15.0", weights named `<layer>/<weight>:0`. Plain values and h5py; nothing here touches the disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from asyncfit.errors import InvalidInput

from .saved_model import Array, SavedModel, keras2_style
from .skeleton import declare

__all__ = ["Description"]

_KERAS_VERSION = "2.15.0"
_ATTRIBUTE_LIMIT = 64_512  # bytes, for attributes live in an object's header; Keras reads numbered parts
_TOP = "top_level_model_weights"


class Description:
    """What the file of a model has in it.

    Attributes:
        texts: the configurations as JSON, by the names of the root's attributes.
        names: of the weights, by the group that lists them.
        arrays: by path from the root: little-endian and contiguous, copies where they were not.

    Raises:
        InvalidInput: a name that HDF5 cannot hold, an array not of numbers, a config that is not JSON.
    """

    def __init__(self, model: SavedModel) -> None:
        self.layers = _names("layer", [name for name, _ in model.weights])
        if _TOP in self.layers:
            raise InvalidInput(f"a layer cannot be named {_TOP!r}, which Keras uses itself")
        self.texts = {"model_config": _json("model_config", model.config)}
        if model.notes:
            self.texts["asyncfit"] = _json("notes", model.notes)
        training = model.training_config
        if training is not None:  # Keras reads no file without the key
            training = {"loss_weights": None, **training}
            self.texts["training_config"] = _json("training_config", training)
        self.names: dict[str, list[str]] = {}
        self.arrays: dict[str, Array] = {}
        for layer, arrays in model.weights:
            self._add(f"/model_weights/{layer}", f"{layer}/", arrays)
        self._add(f"/model_weights/{_TOP}", "", [])
        if model.optimizer_weights:
            self._add("/optimizer_weights", _optimizer_prefix(training), model.optimizer_weights)

    def _add(self, group: str, prefix: str, arrays: Iterable[tuple[str, Array]]) -> None:
        named = [(f"{prefix}{name}:0", name, np.asarray(array)) for name, array in arrays]
        _names("weight", [name for _, name, _ in named], parts=True)
        for full, _, array in named:
            if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
                raise InvalidInput(
                    f"weight {full!r} is of type {array.dtype}; real numbers of up to 64 bits can be written"
                )
            little = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
            self.arrays[f"{group}/{full}"] = little
        self.names[group] = [full for full, _, _ in named]

    def form(self) -> tuple[Any, ...]:
        """All that decides what the metadata looks like, but for the texts: alike for models that are alike."""
        names = tuple((group, tuple(names)) for group, names in self.names.items())
        return tuple(self.layers), names, tuple((p, a.dtype.str, a.shape) for p, a in self.arrays.items())

    def fill(self, file: Any) -> None:
        """Make it all in an open h5py file, but for the numbers in the arrays."""
        import h5py

        text = h5py.string_dtype("utf-8")
        for group in (file, weights := file.create_group("model_weights")):
            group.attrs["keras_version"] = np.bytes_(_KERAS_VERSION)
            group.attrs["backend"] = np.bytes_("tensorflow")
        for name, value in self.texts.items():
            file.attrs.create(name, value, dtype=text)
        _write_names(weights, "layer_names", self.layers)
        for place, names in self.names.items():
            _write_names(file.require_group(place), "weight_names", names)
        for path, array in self.arrays.items():
            declare(file, path, array.dtype, array.shape)


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
        return json.dumps(_wrapped(keras2_style(value)))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{what} cannot be written as JSON: {error}") from error


def _wrapped(value: Any) -> Any:
    """A configuration in which a layer that is inside another one says where Keras 3 finds its class; others ignore it.

    Keras 3 reads the layers of a file by the names of their classes, but not those inside of a wrapper.
    """
    if isinstance(value, list):
        return [_wrapped(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _wrapped(item) for key, item in value.items()}
    for key in ("layer", "backward_layer"):
        if isinstance(inner := found.get(key), dict) and "class_name" in inner:
            found[key] = {"module": "keras.layers", **inner, "registered_name": None}
    return found

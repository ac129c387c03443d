"""Files of weights alone: Keras 3's `.weights.h5`, read and written, and the weights in its other HDF5 files.

A `.weights.h5` has a group for each layer, `layers/<class in snake case>[_n]/vars`, and in it the layer's arrays by
number, trainable ones first (a recurrent layer's in `cell/vars`, and so on: `_part`); layers are found by that
group's name, not by their own. With a compiled model it has `optimizer/vars` too: the iteration, the learning rate,
then the slots. Plain synchronous code about bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asyncfit.checkpoints import Segment
from asyncfit.errors import BadFile
from asyncfit.names import snake

from . import assembly
from .keras_h5_reader import Group, Reader, opened
from .saved_model import Array, LayerWeights, SavedModel
from .skeleton import declare

__all__ = ["SavedWeights", "from_bytes", "keys", "segments", "to_bytes"]

_PARTS = ("cell", "layer", "forward_layer", "backward_layer")
_RECURRENT = ("GRU", "LSTM", "SimpleRNN")
_PLACES = ("layers", "_layer_checkpoint_dependencies")  # the second in files of Keras 2.13 to 2.15


@dataclass(frozen=True, slots=True)
class SavedWeights:
    """The weights that a file holds.

    Attributes:
        layers: of those layers that have some.
        keyed: whether `layers` are named as `keys` names them, in no order; else they stand in the model's order.
        optimizer: the iteration, the learning rate, then the slots in Keras's order; empty if there are none.
    """

    layers: list[LayerWeights]
    keyed: bool
    optimizer: list[Array] = field(default_factory=list)


def keys(classes: Iterable[str]) -> list[str]:
    """The names of layers in a file, by the names of their classes: `dense`, `dropout`, `dense_1`."""
    found: list[str] = []
    seen: dict[str, int] = {}
    for name in map(snake, classes):
        number = seen[name] = seen.get(name, -1) + 1
        found.append(f"{name}_{number}" if number else name)
    return found


class Description:
    """What the file of a model's weights has in it, with its optimizer's state if it was compiled.

    Attributes:
        arrays: by path from the root.
    """

    def __init__(self, model: SavedModel) -> None:
        self.arrays: dict[str, Array] = {}
        self._names: dict[str, str] = {}
        config = model.config["config"]
        entries = {one["config"]["name"]: one for one in config["layers"]}
        self._add("", config["name"], [])
        names = keys(entries[name]["class_name"] for name, _ in model.weights)
        for key, (name, arrays) in zip(names, model.weights, strict=True):
            parts: dict[str, list[Array]] = {"": []}
            for weight, array in arrays:
                parts.setdefault(_part(entries[name], weight), []).append(array)
            for part, found in parts.items():
                self._add(f"/layers/{key}{part}", name, found)
        if model.optimizer_weights:
            settings = (model.training_config or {}).get("optimizer_config", {}).get("config", {})
            iteration, *rest = [array for _, array in model.optimizer_weights]
            small = iteration.astype(np.int32) if iteration < 1 << 31 else iteration  # as Keras counts
            self._add("/optimizer", settings.get("name", "optimizer"), [small, *rest])

    def _add(self, place: str, name: str, arrays: Sequence[Array]) -> None:
        self._names[f"{place}/vars"] = name
        for number, array in enumerate(arrays):
            little = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
            self.arrays[f"{place}/vars/{number}"] = little

    def fill(self, file: Any) -> None:
        """Make it all in an open h5py file, but for the numbers in the arrays."""
        file.create_group("layers")
        for path, name in self._names.items():
            file.create_group(path).attrs["name"] = name
        for path, array in self.arrays.items():
            declare(file, path, array.dtype, array.shape)


def _part(entry: Any, weight: str) -> str:
    """In which part of a layer Keras keeps a weight: `/cell` of an LSTM, `/forward_layer/cell` of a wrapped one."""
    kind, inner = entry["class_name"], entry["config"]
    first, _, rest = weight.partition("/")
    if kind == "Bidirectional":
        forward = inner["layer"]["config"]["name"] == first
        wrapped = inner["layer"] if forward else inner.get("backward_layer", inner["layer"])
        return ("/forward_layer" if forward else "/backward_layer") + _part(wrapped, rest)
    if kind == "TimeDistributed":
        return "/layer" + _part(inner["layer"], rest)
    return "/cell" if kind in _RECURRENT else ""


def segments(model: SavedModel) -> list[Segment]:
    """The file that holds the weights of `model`, for `checkpoints.write_segments`."""
    return assembly.segments(Description(model))


def to_bytes(model: SavedModel) -> bytes:
    """The file's bytes; the same for the same model."""
    return assembly.joined(segments(model))


def from_bytes(data: bytes, *, name: str) -> SavedWeights:
    """The weights in the bytes of a `.weights.h5`, a whole-model `.h5`, or what Keras 2's `save_weights` wrote.

    Raises:
        BadFile: always this, whatever is wrong.
    """
    with opened(data, name=name) as reader:
        if "layer_names" in reader.root or "layer_names0" in reader.root:
            return SavedWeights(_with_some(reader.listed(reader.file, "")), keyed=False)
        if "model_weights" in reader.file.links:
            return SavedWeights(_with_some(reader.layers("")), keyed=False)
        for place in _PLACES:
            if place in reader.file.links:
                layers = _keyed(reader, reader.group(reader.file, place))
                optimizer = _numbered(reader, reader.file, "optimizer")
                return SavedWeights(_with_some(layers), keyed=True, optimizer=optimizer)
        raise BadFile("is an HDF5 file but holds no weights as Keras saves them: there is no group named layers")


def _with_some(layers: list[LayerWeights]) -> list[LayerWeights]:
    return [layer for layer in layers if layer.weights]


def _keyed(reader: Reader, group: Group) -> list[LayerWeights]:
    found = []
    for key in group.links:
        arrays = _with_parts(reader, group, key)
        found.append(LayerWeights(key, [(str(number), array) for number, array in enumerate(arrays)]))
    return found


def _with_parts(reader: Reader, group: Group, key: str, depth: int = 0) -> list[Array]:
    """The arrays of a layer, then those of its parts (the cell of an LSTM, what a wrapper wraps), in Keras's order."""
    arrays = _numbered(reader, group, key)
    inner = reader.group(group, key)
    for part in inner.links:
        if part not in (*_PARTS, "vars", "seed_generator") and reader.group(inner, part).links:
            raise BadFile(f"has weights in parts of the layer {key} ({part}), which is not supported")
    if depth > 3:
        raise BadFile(f"has parts of parts of the layer {key} without end")
    return arrays + [a for part in _PARTS if part in inner.links for a in _with_parts(reader, inner, part, depth + 1)]


def _numbered(reader: Reader, group: Group, key: str) -> list[Array]:
    """The arrays `0`, `1`, … of an object, in that order; none if it is not there."""
    if key not in group.links or "vars" not in reader.group(group, key).links:
        return []
    place = reader.group(group, f"{key}/vars")
    names = set(place.links)
    wanted = [str(number) for number in range(len(names))]
    if names != set(wanted):
        raise BadFile(f"has arrays in {place.name} that are not numbered from 0: {', '.join(sorted(names))[:80]}")
    return [reader.array(place, name) for name in wanted]

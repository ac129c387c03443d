"""Reads the bytes of Keras's whole-model HDF5 file, which may come from anywhere.

A file is material to doubt: every name, link, type and size in it is checked before it is followed or given
memory, and whatever is wrong comes out as one `BadFile` that names the file. Nothing here touches the disk, calls
libhdf5 (which trusts files too much), or knows what a layer computes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from asyncfit.errors import BadFile

from .hdf5_arrays import stored
from .hdf5_groups import Links
from .hdf5_image import SIGNATURE, Image
from .hdf5_text import Attribute, Texts
from .saved_model import Array, LayerWeights, SavedModel, keras2_style

__all__ = ["Group", "Reader", "from_bytes", "opened"]


_WEIGHTS_ALONE = ("layers", "_layer_checkpoint_dependencies")  # groups that save_weights makes
# All arrays together may be that much larger than the file; compression does not gain more on real weights.
_EXPANSION, _ALLOWANCE = 16, 16 << 20
_LONGEST_JSON = 16 << 20  # it becomes up to some 25 times as large in memory


def from_bytes(data: bytes, *, name: str) -> SavedModel:
    """The model in the bytes of a whole-model file; `name` is what errors call it.

    Names of weights come out relative to their layer (`kernel`, `lstm_cell/kernel`) or to the optimizer,
    without `:0`; both configurations in the dialect of `SavedModel`. Arrays are the caller's own, in native
    byte order.

    Raises:
        BadFile: always this, whatever is wrong.
    """
    with opened(data, name=name) as reader:
        return reader.model()


@contextmanager
def opened(data: bytes, *, name: str) -> Iterator[Reader]:
    """A reader of the bytes of an HDF5 file; what goes wrong inside comes out as `BadFile`, with the name."""
    if not data.startswith(SIGNATURE):
        raise BadFile(f"{name} {_what_else(data)}")
    try:
        yield Reader(name, data)
    except BadFile as error:
        raise BadFile(f"{name} {error}") from error.__cause__
    except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError) as error:
        raise BadFile(f"{name} is damaged: {error}") from error  # none is known, but a file must not tell us otherwise


def _what_else(data: bytes) -> str:
    """What a file without HDF5's signature seems to be, and what to do about it."""
    if not data:
        return "is empty"
    if data.startswith(b"PK\x03\x04"):
        return "is a zip archive, as .keras files are, and not supported; in Keras: model.save('name.h5')"
    if data.lstrip()[:1] == b"{":
        if b'"modelTopology"' in data:
            return "is a TF.js model, which is not supported; tensorflowjs_converter makes an .h5 of it"
        return "is JSON, not an HDF5 file; load_model takes a whole model in .h5"
    return f"is not an HDF5 file (it begins with {data[:8]!r})"


@dataclass(frozen=True, slots=True)
class Group:
    """A group: where it is, and what it leads to by which names."""

    name: str
    address: int
    links: dict[str, int | None]


class Reader:
    """One pass over an open file, with a budget for the memory that its arrays may take."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self.size = len(data)
        self.left = self.size * _EXPANSION + _ALLOWANCE
        self.image = Image(data)
        self.links, self.attributes = Links(self.image), Texts(self.image)
        self.file = self.at("/", self.image.root)
        self.root = self.about(self.file)

    def model(self) -> SavedModel:
        config = self.json("model_config")
        if config is None:
            raise BadFile(self.without_config())
        inner = config.get("config")
        if not isinstance(config.get("class_name"), str) or not isinstance(inner, dict):
            raise BadFile("has a model_config without class_name and config")
        training = self.json("training_config")
        title = inner.get("name")
        weights = self.layers(title if isinstance(title, str) else "")
        return SavedModel(
            config=config,
            weights=weights,
            training_config=training,
            optimizer_weights=self.optimizer(training),
            notes=self.json("asyncfit") or {},
        )

    def without_config(self) -> str:
        alone = "layer_names" in self.root or any(name in self.file.links for name in _WEIGHTS_ALONE)
        if alone or self.name.endswith(".weights.h5"):
            return "holds weights without a model (save_weights); make the model and say model.load_weights(…)"
        return "is an HDF5 file but holds no Keras model: there is no model_config"

    def layers(self, title: str) -> list[LayerWeights]:
        return self.listed(self.group(self.file, "model_weights"), title)

    def listed(self, group: Group, title: str) -> list[LayerWeights]:
        """The weights of the layers that the group's `layer_names` lists."""
        names = self.names(group, "layer_names")
        if names is None:
            raise BadFile(f"does not say which layers have weights: {group.name} has no layer_names")
        if len(set(names)) < len(names):
            raise BadFile("names a layer twice in layer_names")
        found = []
        for layer in names:
            arrays = self.arrays(self.group(group, layer))
            found.append(LayerWeights(layer, [(_within(layer, title, name), value) for name, value in arrays]))
        if "top_level_model_weights" in group.links and self.arrays(self.group(group, "top_level_model_weights")):
            raise BadFile("has weights that belong to no layer (top_level_model_weights): not supported")
        return found

    def optimizer(self, training: dict[str, Any] | None) -> list[tuple[str, Array]]:
        if "optimizer_weights" not in self.file.links:
            return []
        config = (training or {}).get("optimizer_config")
        inner = config.get("config") if isinstance(config, dict) else None
        title = inner.get("name") if isinstance(inner, dict) else None
        arrays = self.arrays(self.group(self.file, "optimizer_weights"))
        return [(name.removesuffix(":0").removeprefix(f"{title}/"), array) for name, array in arrays]

    def arrays(self, group: Group) -> list[tuple[str, Array]]:
        """The arrays that the group's `weight_names` lists."""
        names = self.names(group, "weight_names")
        if names is None and group.links:
            raise BadFile(f"has weights without names: {group.name} has no weight_names")
        return [(name, self.array(group, name)) for name in names or []]

    def array(self, group: Group, path: str) -> Array:
        where = f"{group.name.rstrip('/')}/{path}"
        found = stored(self.image, self.member(group, path))
        if found is None:
            raise BadFile(f"has no array at {where}, where one is named, but a group")
        if found.elsewhere:
            raise BadFile(f"keeps {where} in another file, which is refused")
        if found.dtype is None:
            raise BadFile(f"holds {found.kind} in {where}; real numbers of up to 64 bits are read")
        if found.shape is None:
            raise BadFile(f"has an array without a shape at {where}")
        self.left -= max(found.nbytes, math.prod(found.chunk or ()) * found.dtype.itemsize)
        if self.left < 0:
            raise BadFile(f"claims {found.nbytes:,} bytes for {where} and has {self.size:,} in all: refused")
        try:
            return found.read(self.image)
        except BadFile as error:
            raise BadFile(f"{error} (at {where})") from error.__cause__

    def group(self, parent: Group, path: str) -> Group:
        return self.at(f"{parent.name.rstrip('/')}/{path}", self.member(parent, path))

    def at(self, name: str, address: int) -> Group:
        links = self.links.of(address)
        if links is None:
            raise BadFile(f"has no group at {name}, but an array")
        return Group(name, address, links)

    def member(self, group: Group, path: str) -> int:
        """Where `path` leads to, hard link by hard link: any other kind may point out of the file."""
        where = f"{group.name.rstrip('/')}/{path}"
        address = group.address
        for part in path.split("/"):
            if part in ("", ".", "..") or "\0" in part:
                raise BadFile(f"has an impossible name: {where!r}")
            links = self.links.of(address)
            if links is None or part not in links:
                raise BadFile(f"has no {where}, which it should have by its own account")
            target = links[part]
            if target is None:
                raise BadFile(f"has a link in place of {where}, which is refused")
            address = target
        return address

    def names(self, group: Group, attribute: str) -> list[str] | None:
        """A list of text, or its numbered parts put together; None if there is neither."""
        attributes = self.about(group)
        if attribute in attributes:
            return _texts(attributes[attribute], f"{attribute} of {group.name}")
        found: list[str] = []
        part = 0
        while (numbered := f"{attribute}{part}") in attributes:
            found += _texts(attributes[numbered], f"{numbered} of {group.name}")
            part += 1
        return found if part else None

    def json(self, attribute: str) -> dict[str, Any] | None:
        if attribute not in self.root:
            return None
        found = self.root[attribute]
        if found.texts is None or found.shape not in ((), (1,)):
            raise BadFile(f"has something other than text in {attribute}")
        if len(found.texts[0]) > _LONGEST_JSON:
            raise BadFile(f"has {len(found.texts[0]):,} bytes of JSON in {attribute}: refused")
        text = _decoded(found.texts[0], attribute)
        try:
            value = keras2_style(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise BadFile(f"has damaged JSON in {attribute}: {error}") from error
        if not isinstance(value, dict):
            raise BadFile(f"has {type(value).__name__} in {attribute}, where JSON for a dict belongs")
        return value

    def about(self, group: Group) -> dict[str, Attribute]:
        return self.attributes.of(group.address)


def _texts(attribute: Attribute, where: str) -> list[str]:
    if attribute.shape == (0,):
        return []  # Keras writes an empty list as numbers
    if attribute.texts is None or attribute.shape is None or len(attribute.shape) != 1:
        raise BadFile(f"has no list of names in {where}")
    return [_decoded(text, where) for text in attribute.texts]


def _decoded(text: bytes, where: str) -> str:
    try:
        return text.decode()
    except UnicodeError as error:
        raise BadFile(f"has damaged text in {where}: {error}") from error


def _within(layer: str, model: str, name: str) -> str:
    """The name of a weight relative to its layer, whichever prefixes the version of Keras put before it."""
    plain = name.removesuffix(":0")
    prefixes = [f"{layer}/"] if plain != name else [f"{model}/{layer}/", f"{layer}/"]
    for prefix in prefixes:
        if plain.startswith(prefix) and plain != prefix:
            return plain.removeprefix(prefix)
    *path, last = plain.split("/")
    if layer in path:  # the model was renamed after it was built
        path = path[len(path) - path[::-1].index(layer) :]
        return "/".join([*path, last])
    return plain

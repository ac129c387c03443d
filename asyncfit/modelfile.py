"""Between a network and a file of it: what `formats.SavedModel` holds becomes a network, and the other way round.

Plain and synchronous. `formats/` knows the bytes, `checkpoints` the disk, this knows what they mean to `nn/`.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .adapting import ADAPTED
from .errors import BadFile, InvalidInput
from .formats.paths import WEIGHTS
from .nn import Learner, Network, configs, losses, metrics, optimizers
from .nn.arrays import Array, Shape
from .nn.custom import reading_with
from .nn.layers import Layer
from .nn.metrics import Metric
from .protocol import State

if TYPE_CHECKING:
    from .formats.saved_model import LayerWeights, SavedModel
    from .formats.weights_h5 import SavedWeights

__all__ = [
    "Settings",
    "described",
    "matched_weights",
    "read",
    "read_weights",
    "restored",
    "saved",
    "settings",
    "take_notes",
    "take_optimizer",
    "take_weights",
    "training_config",
    "write",
]


_MOST_LAYERS = 4096  # to build a network takes the square of it, and nobody has that many in a row
_logger = logging.getLogger("asyncfit")

# --- out -------------------------------------------------------------------------------------------------------------


def training_config(learner: Learner) -> dict[str, Any]:
    """Loss, metrics and optimizer as Keras writes them."""
    return {
        "loss": losses.config(learner.loss),
        "loss_weights": None,
        "metrics": [metrics.config(metric) for metric in learner.metrics] or None,
        "weighted_metrics": [metrics.config(metric) for metric in learner.weighted_metrics] or None,
        "optimizer_config": optimizers.config(learner.optimizer),
    }


def described(network: Network, learner: Learner) -> dict[str, Any]:
    """What the numbers of a training depend on, besides the state: as plain JSON types, without names."""
    training = training_config(learner)
    optimizer = training.pop("optimizer_config")
    free = ("name", "learning_rate") if learner.optimizer.schedule is None else ("name",)
    config = {key: value for key, value in optimizer["config"].items() if key not in free}
    layers = [
        {"class_name": type(layer).__name__}
        | {key: value for key, value in layer.get_config().items() if key not in ("name", "trainable", "dtype")}
        for layer in network.layers
    ]
    return {
        "layers": layers,
        "input": list(network.input_shape or ()),
        "loss": training["loss"],
        "metrics": training["metrics"],
        **({"weighted_metrics": training["weighted_metrics"]} if training["weighted_metrics"] else {}),
        "optimizer": {"class_name": optimizer["class_name"], **config},
    }


def saved(network: Network, learner: Learner | None, training: Mapping[str, Any] | None, state: State) -> SavedModel:
    """The model with this state, for any format. `training` is its `training_config`, None if it has none.

    Raises:
        InvalidInput: it has no weights yet.
    """
    from .formats.saved_model import LayerWeights, SavedModel

    network.require_built("save")
    weights = [
        LayerWeights(
            layer.name,
            [
                (s.name, s.view(state["params" if s.trainable else "fixed"]))
                for s in network.slots
                if s.layer == layer.name
            ],
        )
        for layer in network.layers
    ]
    config = network.get_config()
    if learner is not None:  # a flag that was changed since compile holds from the next one on, also in files
        for layer in config["layers"]:
            if "trainable" in layer["config"]:
                layer["config"]["trainable"] = layer["config"]["name"] not in network.frozen
    model = SavedModel(config={"class_name": "Sequential", "config": config}, weights=weights)
    if learner is None or training is None:
        return model
    rate = float(state["learning_rate"])
    optimizer = dict(training["optimizer_config"])
    scheduled = isinstance(optimizer["config"].get("learning_rate"), Mapping)
    if not scheduled:
        optimizer["config"] = {**optimizer["config"], "learning_rate": rate}
    slots = [(name.partition("/")[2], array) for name, array in learner.optimizer_slots(state)]
    return SavedModel(
        config=model.config,
        weights=weights,
        training_config={**training, "optimizer_config": optimizer},
        optimizer_weights=[
            ("iteration", np.array(state["optimizer/iteration"], np.int64)),
            *([] if scheduled else [("learning_rate", np.array(rate, np.float32))]),
            *slots,
        ],
        notes={"seed": network.seed, "fits": int(state["fits"])},
    )


def write(model: SavedModel, path: str | os.PathLike[str]) -> None:
    """Put a model into a file, or its weights alone if it ends in `.weights.h5`: whole or not at all.

    For a worker thread. HDF5's lock, one for the whole process, is not held while the arrays go to the disk.
    """
    from .checkpoints import write_segments
    from .formats import keras_h5, weights_h5  # imported, with all that they need, when a file is first touched

    weights = os.fspath(path).endswith(WEIGHTS)
    write_segments(path, weights_h5.segments(model) if weights else keras_h5.segments(model))


# --- in --------------------------------------------------------------------------------------------------------------


def read(path: str) -> SavedModel:
    """What the file at `path` holds; for a worker thread. Raises FileNotFoundError and BadFile."""
    from .formats import keras_h5

    return keras_h5.read(path)


def read_weights(path: str) -> SavedWeights:
    """The weights that the file at `path` holds; for a worker thread. Raises FileNotFoundError and BadFile."""
    from .formats import keras_h5, weights_h5

    return weights_h5.from_bytes(keras_h5.read_bytes(path), name=path)


def matched_weights(network: Network, found: SavedWeights, name: str) -> list[Array]:
    """A file's weights in the order of `network.get_weights()`; `name` is the file's.

    Raises:
        BadFile: they are not those of such a network.
    """
    from .formats.weights_h5 import keys

    layers = network.layers
    specs = {one.name: [(s.name, s.shape) for s in network.slots if s.layer == one.name] for one in layers}
    wanted = [(f"{type(one).__name__} {one.name!r}", specs[one.name]) for one in layers if specs[one.name]]
    given = found.layers
    if found.keyed:
        there = {layer.layer: layer for layer in given}
        of = zip(keys(type(one).__name__ for one in layers), layers, strict=True)
        mine = [key for key, one in of if specs[one.name]]
        if set(mine) != set(there):
            raise BadFile(f"{name} has weights for {_listed(list(there))}, but {network.name!r} needs {_listed(mine)}")
        given = [there[key] for key in mine]
    return _matched(name, wanted, given, f"{network.name!r} needs")


def take_weights(network: Network, learner: Learner | None, found: SavedWeights, name: str) -> None:
    """Put a file's weights in, and the state of the optimizer if it holds one that fits; else that is left as it is.

    Raises:
        BadFile: the weights are not those of such a network; nothing was changed.
    """
    network.set_weights(matched_weights(network, found, name))
    if learner is None or not learner.started or not found.optimizer:
        return
    try:
        _take_optimizer(learner, found.optimizer)
    except InvalidInput as error:
        _logger.warning(
            "%s: the weights are loaded, the state of its optimizer is not, for it is another one's: %s", name, error
        )


def take_notes(network: Network, learner: Learner | None, model: SavedModel) -> None:
    """Go on where the file's model was: its seed, and how often it was fitted. Other libraries' files say nothing."""
    seed, fits = model.notes.get("seed"), model.notes.get("fits")
    if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0:
        network.seed = seed
    if learner is not None and isinstance(fits, int) and not isinstance(fits, bool) and fits >= 0:
        learner.fits = fits


@dataclass(frozen=True, slots=True)
class Settings:
    """What a file's `training_config` says: the arguments of `compile`."""

    optimizer: optimizers.Optimizer
    loss: losses.Loss
    metrics: list[Metric | str]
    weighted_metrics: list[Metric | str]


def restored(model: SavedModel, name: str, seed: int | None = None, own: Mapping[str, Any] = {}) -> Network:
    """The network that a file holds, with its weights; `name` is the file's, `own` the user's classes by theirs.

    Raises:
        BadFile: the file describes layers that we do not have, or weights of another number or shape than theirs.
    """
    with _blamed(name, "its model_config cannot be used"):
        title, layers = configs.read(model.config, {**ADAPTED, **own})
        if len(layers) > _MOST_LAYERS:
            raise InvalidInput(f"it lists {len(layers):,} layers; {_MOST_LAYERS:,} are read at most")
        wanted = _wanted(layers)
    values = _matched(name, wanted, model.weights)  # before anything is built: what a file claims may be huge
    with _blamed(name, "its model_config cannot be used"):
        network = Network(layers, name=title, seed=seed)
    if network.built:
        network.set_weights(values)
    return network


def _wanted(layers: Sequence[Layer]) -> list[tuple[str, list[tuple[str, Shape]]]] | None:
    """The weights of each layer that has some, as names and shapes; None if the shape of the input is not known."""
    shape: Shape | None = None
    found = []
    for layer in layers:
        if shape is None:
            shape = layer.given_shape
        if shape is None:
            return None
        specs = layer.weight_specs(shape)
        if specs:
            found.append((f"{type(layer).__name__} {layer.name!r}", [(w.name, tuple(w.shape)) for w in specs]))
        shape = layer.output_shape_for(shape)
    return found


def _matched(
    name: str,
    wanted: list[tuple[str, list[tuple[str, Shape]]]] | None,
    given: Sequence[LayerWeights],
    who: str = "its model_config needs them for",
) -> list[Array]:
    """The file's weights in the model's order, each of the shape that it wants; as in Keras names do not count."""
    given = [layer for layer in given if layer.weights]
    if wanted is None:
        if given:
            raise BadFile(f"{name} does not say which shape its input has, so its weights cannot be used")
        return []
    if len(given) != len(wanted):
        raise BadFile(
            f"{name} has weights for {_listed([layer.layer for layer in given])}, but {who} "
            f"{_listed([layer for layer, _ in wanted])}"
        )
    values: list[Array] = []
    for (layer, specs), (title, arrays) in zip(wanted, given, strict=True):
        if len(specs) != len(arrays):
            raise BadFile(
                f"{name}: the layer {title!r} has the weights {_listed([n for n, _ in arrays])}, but {layer} needs "
                f"{_listed([n for n, _ in specs])}"
            )
        for (weight, shape), (_, array) in zip(specs, arrays, strict=True):
            if array.shape != shape:
                raise BadFile(
                    f"{name}: the weight {title}/{weight} has the shape {array.shape}, but {layer} needs {shape}"
                )
            values.append(array)
    return values


def settings(model: SavedModel, name: str, own: Mapping[str, Any] = {}) -> Settings | None:
    """What to compile the network with; None if the file says nothing of training, or nothing of a loss.

    Args:
        own: a user's classes and functions, by the names in the file.

    Raises:
        BadFile: it says something that we cannot do.
    """
    config = model.training_config
    if config is None or config.get("loss") is None:
        return None
    hint = "; load_model(…, compile=False) takes the layers and weights alone"
    if not _nothing(weights := config.get("loss_weights")):
        raise BadFile(f"{name}: its training_config has loss_weights={weights!r}, which is not supported{hint}")
    with _blamed(name, "its training_config cannot be used: the loss", hint), reading_with(own):
        loss = losses.get(_one(config["loss"]))
    of_own = "; custom_objects={…} takes your own by their names"
    with _blamed(name, "its training_config cannot be used: the metrics", of_own + hint):
        found, weighted = (metrics.get_all(_flat(config.get(key)), own) for key in ("metrics", "weighted_metrics"))
    with _blamed(name, "its training_config cannot be used: the optimizer", hint), reading_with(own):
        given = config.get("optimizer_config")
        if not isinstance(given, Mapping):
            raise InvalidInput(f"optimizer_config is {given!r}, not a class_name and a config")
        optimizer = optimizers.get(given)
    return Settings(optimizer, loss, found, weighted)


def take_optimizer(learner: Learner, model: SavedModel, name: str) -> None:
    """Put in the state of the optimizer that a file holds, if it holds one.

    Raises:
        BadFile: it is another optimizer's.
    """
    arrays = [array for _, array in model.optimizer_weights]
    if not arrays:
        return
    hint = "; load_model(…, compile=False) takes the layers and weights alone"
    with _blamed(name, "its optimizer_weights cannot be used", hint):
        _take_optimizer(learner, arrays)


def _take_optimizer(learner: Learner, arrays: Sequence[Array]) -> None:
    scheduled = learner.optimizer.schedule is not None
    before = 1 if scheduled else 2
    if len(arrays) < before or any(array.size != 1 for array in arrays[:before]):
        also = "" if scheduled else " and the learning rate"
        raise InvalidInput(f"they do not begin with the iteration{also}, as Keras 3 writes them")
    iteration, rate = arrays[0].item(), 0.0 if scheduled else arrays[1].item()
    if not math.isfinite(iteration) or iteration < 0 or iteration != int(iteration):
        raise InvalidInput(f"the iteration is {iteration!r}")
    if not math.isfinite(rate) or rate < 0:
        raise InvalidInput(f"the learning_rate is {rate!r}")
    rate = None if scheduled else rate
    learner.load_optimizer_slots(arrays[before:], iteration=int(iteration), learning_rate=rate)


@contextmanager
def _blamed(name: str, what: str, hint: str = "") -> Iterator[None]:
    """What goes wrong inside is the file's fault."""
    try:
        yield
    except InvalidInput as error:
        raise BadFile(f"{name}: {what}: {error}{hint}") from error
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, ArithmeticError, MemoryError) as error:
        raise BadFile(f"{name}: {what}: {type(error).__name__}: {error}{hint}") from error


def _one(loss: Any) -> Any:
    """A loss for one output may stand in a list."""
    return loss[0] if isinstance(loss, list) and len(loss) == 1 else loss


def _flat(value: Any) -> list[Any]:
    """Metrics, in as many lists as they may stand in."""
    if value is None:
        return []
    if isinstance(value, list):
        return [m for item in value for m in _flat(item)]
    return [value]


def _nothing(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(_nothing(item) for item in value))


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names)})" if names else "none"

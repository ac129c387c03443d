"""Model files: what Keras wrote predicts and trains on as in Keras, and the other way round; what is wrong is named."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncfit.callback import Callback
from asyncfit.errors import BadFile, CheckpointError, InvalidInput
from asyncfit.events import EpochBegin, EpochEnd
from asyncfit.formats.keras_h5 import LayerWeights, SavedModel, read, to_bytes
from asyncfit.layers import Activation, Dense, Dropout, Flatten, Input
from asyncfit.losses import BinaryCrossentropy
from asyncfit.metrics import BinaryAccuracy
from asyncfit.optimizers import SGD, Adam, AdamW, RMSprop
from asyncfit.sequential import Sequential, load_model

DATA = Path(__file__).parent / "data"
REFERENCE = json.loads((DATA / "keras_h5.json").read_text())
ARRAYS = np.load(DATA / "keras_h5.npz")
X = ARRAYS["x"]
KERAS = os.environ.get("KERAS_PYTHON")

OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "sgd": lambda: SGD(0.1),
    "momentum": lambda: SGD(0.05, momentum=0.9),
    "nesterov": lambda: SGD(0.05, momentum=0.8, nesterov=True),
    "rmsprop": lambda: RMSprop(0.005),
    "rmsprop_centered": lambda: RMSprop(0.01, momentum=0.3, centered=True),
    "adam": lambda: Adam(0.01),
    "adam_amsgrad": lambda: Adam(0.02, amsgrad=True),
    "adamw": lambda: AdamW(0.01, weight_decay=0.05),
}


def weights_of(model: Sequential) -> list[bytes]:
    return [w.tobytes() for w in model.get_weights()]


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def config_of(path: Path) -> dict[str, Any]:
    training_config = read(path).training_config
    assert training_config is not None
    config: dict[str, Any] = training_config["optimizer_config"]["config"]
    return config


def made(optimizer: Any = "adam", *, seed: int = 5, **how: Any) -> tuple[Sequential, Any]:
    """A compiled model of every layer, and targets for it."""
    layers = [Input((4, 3)), Flatten(), Dense(6), Activation("relu"), Dropout(0.3)]
    model = Sequential([*layers, Dense(3, activation="softmax", use_bias=False)], name="mine", seed=seed)
    model.compile(**{"optimizer": optimizer, "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **how})
    return model, ARRAYS["adamw_y"]


# --- what Keras wrote ------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("case", REFERENCE["cases"])
async def test_what_keras_wrote_predicts_and_trains_on_as_keras_did(case: str) -> None:
    told = REFERENCE["cases"][case]
    model = await load_model(DATA / f"keras_{case}.h5")
    np.testing.assert_allclose(await model.predict(X), ARRAYS[f"{case}_predictions"], atol=1e-6)
    assert model.optimizer is not None
    assert type(model.optimizer).__name__ == told["optimizer"]
    assert model.state()["optimizer/iteration"] == told["iteration"]
    how: dict[str, Any] = {"batch_size": REFERENCE["batch_size"], "epochs": REFERENCE["epochs"], "shuffle": False}
    history = (await model.fit(X, ARRAYS[f"{case}_y"], **how)).history
    np.testing.assert_allclose(history["loss"], told["losses"], rtol=1e-5)
    for name, values in told["metrics"].items():
        np.testing.assert_allclose(history[name], values, rtol=1e-5)
    np.testing.assert_allclose(await model.predict(X), ARRAYS[f"{case}_after"], atol=2e-6)


@pytest.mark.anyio
async def test_a_model_that_was_never_compiled_predicts_and_stays_so(tmp_path: Path) -> None:
    model = await load_model(DATA / "keras_kinds.h5")
    np.testing.assert_allclose(await model.predict(X), ARRAYS["kinds_predictions"], atol=1e-6)
    assert model.name == "kinds"
    assert model.optimizer is None
    await model.save(tmp_path / "again.h5")
    again = await load_model(tmp_path / "again.h5")
    assert again.optimizer is None
    assert weights_of(again) == weights_of(model)
    assert again.get_config() == model.get_config()


@pytest.mark.anyio
async def test_compile_false_takes_the_layers_and_weights_alone() -> None:
    model = await load_model(str(DATA / "keras_adam.h5"), compile=False)
    assert model.optimizer is None
    np.testing.assert_allclose(await model.predict(X), ARRAYS["adam_predictions"], atol=1e-6)


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("case", OPTIMIZERS)
async def test_a_saved_model_goes_on_with_the_same_bits(case: str, tmp_path: Path) -> None:
    model, y = made(OPTIMIZERS[case]())
    await model.fit(X, y, batch_size=8, epochs=2)
    model.learning_rate = 0.003
    await model.save(tmp_path / "m.h5")
    again = await load_model(tmp_path / "m.h5")
    assert weights_of(again) == weights_of(model)
    assert again.learning_rate == model.learning_rate
    assert again.get_config() == model.get_config()
    one, two = model.state(), again.state()
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert repr(again.optimizer) == repr(model.optimizer)
    history = (await model.fit(X, y, batch_size=8, epochs=2, seed=9)).history
    assert (await again.fit(X, y, batch_size=8, epochs=2, seed=9)).history == history
    await again.save(tmp_path / "again.h5")
    await model.save(tmp_path / "m.h5")
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "m.h5").read_bytes()


@pytest.mark.anyio
async def test_settings_that_are_not_the_defaults_come_back(tmp_path: Path) -> None:
    model = Sequential([Input((4, 3)), Flatten(), Dense(1, kernel_initializer="he_normal", trainable=False), Dense(1)])
    model.compile(Adam(0.5, beta_1=0.8), BinaryCrossentropy(from_logits=True), [BinaryAccuracy("acc2"), "mse"])
    y = ARRAYS["rmsprop_y"]
    await model.fit(X, y)
    await model.save(tmp_path / "m.h5")
    again = await load_model(tmp_path / "m.h5")
    figures = await model.evaluate(X, y, return_dict=True)
    assert isinstance(figures, dict)
    assert list(figures) == ["loss", "acc2", "mse"]
    assert await again.evaluate(X, y, return_dict=True) == figures
    assert [layer.trainable for layer in again.layers] == [True, False, True]
    assert repr(again.optimizer) == repr(model.optimizer)


@pytest.mark.anyio
async def test_each_epoch_can_be_saved_by_a_callback_and_read_back(tmp_path: Path) -> None:
    weights: list[list[bytes]] = []

    class Halves(Callback):
        def on_epoch_begin(self, event: EpochBegin) -> None:
            if event.epoch:
                event.set_learning_rate(0.001 / 2**event.epoch)

    class Saves(Callback):
        async def on_epoch_end(self, event: EpochEnd) -> None:
            weights.append([w.tobytes() for w in event.model.get_weights()])
            await event.model.save(tmp_path / f"model_at_epoch_{event.epoch}.h5")

    model, y = made()
    await model.fit(X, y, epochs=3, batch_size=8, callbacks=[Saves(), Halves()])
    rates = [0.001, 0.0005, 0.00025]
    assert [config_of(tmp_path / f"model_at_epoch_{n}.h5")["learning_rate"] for n in range(3)] == pytest.approx(rates)
    assert names_in(tmp_path) == [f"model_at_epoch_{n}.h5" for n in range(3)]
    for epoch in range(3):
        again = await load_model(tmp_path / f"model_at_epoch_{epoch}.h5")
        assert weights_of(again) == weights[epoch]
        assert again.state()["optimizer/iteration"] == 4 * (epoch + 1)
        assert again.learning_rate == pytest.approx(rates[epoch])
    assert weights_of(again) == weights_of(model)


def test_plain_scripts_block(tmp_path: Path) -> None:
    model, _ = made()
    model.save(str(tmp_path / "m.hdf5")).blocking()
    assert weights_of(load_model(str(tmp_path / "m.hdf5")).blocking()) == weights_of(model)


# --- what Keras reads ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(KERAS is None, reason="needs Keras; KERAS_PYTHON may name an interpreter that has it")
@pytest.mark.parametrize("case", OPTIMIZERS)
def test_keras_reads_what_is_written_and_trains_on_with_the_same_losses(case: str, tmp_path: Path) -> None:
    assert KERAS is not None
    layers = [Input((4, 3)), Flatten(), Dense(6), Activation("relu"), Dropout(0.0), Dense(3, activation="softmax")]
    model = Sequential(layers, seed=5)
    model.compile(OPTIMIZERS[case](), "sparse_categorical_crossentropy", metrics=["accuracy"])
    y = ARRAYS["adamw_y"]
    how: dict[str, Any] = {"batch_size": 8, "shuffle": False}
    model.fit(X, y, epochs=2, **how).blocking()
    path = tmp_path / f"{case}.h5"
    model.save(path).blocking()
    expected = {
        "x": X.tolist(), "y": y.tolist(), "predictions": model.predict(X).blocking().tolist(), "batch_size": 8,
        "iteration": 8, "losses": model.fit(X, y, epochs=3, **how).blocking().history["loss"],
    }  # fmt: skip
    Path(f"{path}.json").write_text(json.dumps(expected))
    done = subprocess.run(
        [KERAS, str(DATA / "check_keras_reads.py"), str(path)],
        env={"KERAS_BACKEND": "torch", **os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# --- what is wrong ---------------------------------------------------------------------------------------------------


def saved(name: str = "adam", **changes: Any) -> SavedModel:
    """What a file of Keras holds, with something else in it."""
    model = read(DATA / f"keras_{name}.h5")
    fields = {key: getattr(model, key) for key in ("config", "weights", "training_config", "optimizer_weights")}
    return SavedModel(**(fields | changes))


def layers(edit: Callable[[list[Any]], object], **changes: Any) -> SavedModel:
    model = saved()
    edit(model.config["config"]["layers"])
    model.config["config"].update(changes)
    return model


def training(**changes: Any) -> SavedModel:
    model = saved()
    return saved(training_config={**(model.training_config or {}), **changes})


def weights(edit: Callable[[list[Any]], object]) -> SavedModel:
    model = saved()
    edit(model.weights)
    return model


def slots(edit: Callable[[list[Any]], object]) -> SavedModel:
    model = saved()
    edit(model.optimizer_weights)
    return model


BAD: dict[str, tuple[Callable[[], SavedModel], list[str]]] = {
    "more layers than can be": (
        lambda: layers(lambda found: found.extend(found[2:3] * 5000)), ["model_config", "layers; 4,096 are read"],
    ),
    "an unknown layer": (
        lambda: layers(lambda found: found[2].update(class_name="Desne")),
        ["model_config", "unknown layer class 'Desne'", "did you mean 'Dense'"],
    ),
    "an option that we do not have": (
        lambda: layers(lambda found: found[2]["config"].update(kernel_constraint="NonNegg")),
        ["model_config", "unknown constraint", "did you mean 'non_neg'"],
    ),
    "an unknown activation": (
        lambda: layers(lambda found: found[2]["config"].update(activation="swash")), ["model_config", "'swash'"],
    ),
    "units that are none": (
        lambda: layers(lambda found: found[2]["config"].update(units="six")), ["model_config", "units"],
    ),
    "a layer without units": (
        lambda: layers(lambda found: found[2]["config"].pop("units")), ["model_config", "units"],
    ),
    "a layer that is text": (lambda: layers(lambda found: found.append("Dense")), ["model_config", "'Dense'"]),
    "a config that is text": (lambda: layers(lambda found: found[2].update(config="x")), ["model_config"]),
    "an activation too much": (
        lambda: layers(lambda found: found.insert(0, found[0])), ["model_config", "Input comes first"],
    ),
    "two of one name": (
        lambda: layers(lambda found: found[2]["config"].update(name="dense_1")), ["model_config", "'dense_1'"],
    ),
    "another kind of model": (
        lambda: saved(config={"class_name": "Functional", "config": {"layers": []}}), ["'Functional'", "Sequential"],
    ),
    "weights of another shape": (
        lambda: layers(lambda found: found[2]["config"].update(units=7)),
        ["dense/kernel has the shape (12, 6)", "Dense 'dense' needs (12, 7)"],
    ),
    "a size that no machine has": (
        lambda: layers(lambda found: found[2]["config"].update(units=10**14)), ["needs (12, 100000000000000)"],
    ),
    "a layer too few": (
        lambda: weights(lambda found: found.pop()), ["has weights for 1 (dense)", "2 (Dense 'dense', Dense 'dense_1')"],
    ),
    "no weights at all": (lambda: saved(weights=[]), ["has weights for none", "Dense 'dense'"]),
    "a weight too few": (
        lambda: weights(lambda found: found[1].weights.pop()), ["'dense' has the weights 1 (kernel)", "(kernel, bias)"],
    ),
    "no shape of the input": (
        lambda: layers(lambda found: found.pop(0), build_input_shape=None), ["which shape its input has"],
    ),
    "an unknown loss": (lambda: training(loss="mze"), ["training_config", "the loss", "'mze'", "compile=False"]),
    "several losses": (lambda: training(loss=["mse", "mae"]), ["training_config", "the loss", "compile=False"]),
    "a loss's settings": (
        lambda: training(loss={"class_name": "BinaryCrossentropy", "config": {"label_smoothing": "x"}}),
        ["training_config", "the loss"],
    ),
    "weighted losses": (lambda: training(loss_weights=[0.5]), ["loss_weights=[0.5]", "not supported", "compile=False"]),
    "an unknown metric": (
        lambda: training(metrics=["aux"]), ["training_config", "the metrics", "'aux'", "'auc'", "compile=False"],
    ),
    "an unknown metric of weights": (
        lambda: training(weighted_metrics=["may"]), ["training_config", "the metrics", "'may'", "'mae'"],
    ),
    "an unknown optimizer": (
        lambda: training(optimizer_config={"class_name": "Lamb", "config": {}}),
        ["training_config", "the optimizer", "'Lamb'", "compile=False"],
    ),
    "no optimizer": (lambda: training(optimizer_config=None), ["training_config", "the optimizer", "None"]),
    "an optimizer's settings": (
        lambda: training(optimizer_config={"class_name": "Adam", "config": {"loss_scale_factor": 2.0}}),
        ["the optimizer", "loss_scale_factor=2.0", "not supported"],
    ),
    "a schedule": (
        lambda: training(
            optimizer_config={
                "class_name": "Adam",
                "config": {"learning_rate": {"class_name": "CosineDecay", "config": {}}},
            }
        ),
        ["the optimizer", "CosineDecay", "'initial_learning_rate' and 'decay_steps'"],
    ),
    "a slot too few": (
        lambda: slots(lambda found: found.pop()), ["optimizer_weights", "has 8 slots, but 7 were given"],
    ),
    "a slot of another shape": (
        lambda: slots(lambda found: found.__setitem__(2, ("m", np.zeros((2, 2))))),
        ["optimizer_weights", "adam/dense_kernel_momentum has the shape (12, 6), but (2, 2)"],
    ),
    "an iteration that is none": (
        lambda: slots(lambda found: found.__setitem__(0, ("iteration", np.array(-1)))), ["the iteration is -1"],
    ),
    "a rate that is none": (
        lambda: slots(lambda found: found.__setitem__(1, ("learning_rate", np.array(np.nan)))),
        ["learning_rate", "nan"],
    ),
    "the slots of an old optimizer": (lambda: slots(lambda found: found.pop(1)), ["do not begin with the iteration"]),
}  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize("case", BAD)
async def test_a_file_that_cannot_be_used_is_named_with_what_is_wrong(case: str, tmp_path: Path) -> None:
    make, parts = BAD[case]
    path = tmp_path / "bad.h5"
    path.write_bytes(to_bytes(make()))
    with pytest.raises(BadFile) as info:
        await load_model(path)
    for part in [str(path), *parts]:
        assert part in str(info.value)
    if "compile=False" in str(info.value):
        assert (await (await load_model(path, compile=False)).predict(X)).shape == (32, 3)


@pytest.mark.anyio
async def test_damage_below_is_named_too(tmp_path: Path) -> None:
    whole = (DATA / "keras_adam.h5").read_bytes()
    for name, data, part in (
        ("cut.h5", whole[:3000], ""),
        ("text.h5", b"hello", "is not an HDF5 file"),
        ("empty.h5", b"", "is empty"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadFile, match=name) as info:
            await load_model(tmp_path / name)
        assert part in str(info.value)
    with pytest.raises(FileNotFoundError, match="there is no such model file"):
        await load_model(tmp_path / "none.h5")
    with pytest.raises(BadFile, match="is a directory"):
        await load_model(tmp_path)
    with pytest.raises(InvalidInput, match="load_model takes a path"):
        load_model(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="load_model: unknown keyword 'compiled'; did you mean 'compile'"):
        load_model("m.h5", compiled=False)  # type: ignore[call-arg]


TOLERATED: dict[str, Callable[[], SavedModel]] = {
    "metrics in lists": lambda: training(metrics=[["accuracy"]]),
    "a loss in a list": lambda: training(loss=["categorical_crossentropy"]),
    "Keras 2's wrapped metrics": lambda: training(
        metrics=[[{"class_name": "MeanMetricWrapper", "config": {"name": "accuracy", "fn": "categorical_accuracy"}}]]
    ),
    "Keras 2's optimizer": lambda: training(
        optimizer_config={
            "class_name": "Adam",
            "config": {"name": "Adam", "learning_rate": 0.01, "decay": 0.0, "jit_compile": True, "amsgrad": False},
        }
    ),
    "empty lists": lambda: training(loss_weights=[], weighted_metrics=[None]),
    "no state of the optimizer": lambda: saved(optimizer_weights=[]),
}


@pytest.mark.anyio
@pytest.mark.parametrize("case", TOLERATED)
async def test_other_spellings_are_read(case: str, tmp_path: Path) -> None:
    (tmp_path / "m.h5").write_bytes(to_bytes(TOLERATED[case]()))
    model = await load_model(tmp_path / "m.h5")
    assert model.state()["optimizer/iteration"] == (0 if case.startswith("no state") else 8)
    figures = await model.evaluate(X, ARRAYS["adam_y"])
    assert isinstance(figures, list)
    assert len(figures) == 2


@pytest.mark.anyio
async def test_a_file_that_says_nothing_of_a_loss_is_not_compiled(tmp_path: Path) -> None:
    (tmp_path / "m.h5").write_bytes(to_bytes(training(loss=None)))
    assert (await load_model(tmp_path / "m.h5")).optimizer is None
    bare = SavedModel(config={"class_name": "Sequential", "config": {"name": "bare", "layers": []}}, weights=[])
    (tmp_path / "bare.h5").write_bytes(to_bytes(bare))
    assert (await load_model(tmp_path / "bare.h5")).layers == []
    layer = LayerWeights("dense", [("kernel", np.ones((2, 1))), ("bias", np.ones(1))])
    frozen = {"class_name": "Dense", "config": {"name": "dense", "units": 1, "trainable": False}}
    shaped = {"name": "m", "layers": [frozen], "build_input_shape": [None, 2]}
    kept = SavedModel(config={"class_name": "Sequential", "config": shaped}, weights=[layer])
    (tmp_path / "kept.h5").write_bytes(to_bytes(kept))
    assert (await (await load_model(tmp_path / "kept.h5")).predict([[1.0, 2.0]])).tolist() == [[4.0]]


@pytest.mark.anyio
async def test_a_path_that_cannot_work_is_refused_at_the_call(tmp_path: Path) -> None:
    model, _ = made()
    for path, part in (
        (tmp_path / "m.keras", "save to .*m.h5"),
        (tmp_path / "m", "must end in .h5"),
        (tmp_path / "none" / "m.h5", "does not exist"),
        (3, "saved to a path"),
    ):
        with pytest.raises(InvalidInput, match=part):
            model.save(path)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_save_that_fails_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: Any) -> None:
    model, y = made()
    path = tmp_path / "m.h5"
    await model.save(path)
    before = path.read_bytes()
    await model.fit(X, y)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match="the disk is full"):
            await model.save(path)
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["m.h5"]
    await model.save(path)
    assert path.read_bytes() != before


@pytest.mark.anyio
async def test_a_model_read_back_goes_on_as_the_one_that_wrote_it(tmp_path: Path) -> None:
    """Also with rows shuffled and units dropped: the seed and the number of the fit are in the file."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 4))
    y = (x[:, 0] > 0).astype(float)
    model = Sequential([Input((4,)), Dense(8, "relu"), Dropout(0.3), Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy")
    await model.fit(x, y, epochs=2)
    await model.save(tmp_path / "m.h5")
    again = await load_model(tmp_path / "m.h5")
    here, there = await model.fit(x, y, epochs=2), await again.fit(x, y, epochs=2)
    assert here.history == there.history
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), again.get_weights(), strict=True))

"""Each loss and reduction: losses and weights of Keras 3.15 (`tests/data/make_keras_losses.py`), and its configs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncfit as af
from asyncfit import modelfile
from asyncfit.errors import InvalidInput
from asyncfit.nn import Learner, Network, losses
from asyncfit.nn.arrays import Array
from asyncfit.nn.layers import Dense, Flatten, Input, Masking
from asyncfit.nn.optimizers import SGD

from .helpers import check_gradient, learner64

DATA = Path(__file__).parents[1] / "data"
KERAS = os.environ.get("KERAS_PYTHON")
with np.load(Path(__file__).parents[1] / "data" / "keras_losses.npz") as file:
    TOLD, X, VALUES = json.loads(str(file["told"])), file["x"], file["values"]
CASES: list[dict[str, Any]] = TOLD["cases"]
SIZES = [int(np.prod(shape)) for shape in TOLD["shapes"].values()]
PARTS = np.split(VALUES, np.cumsum(SIZES)[:-1])
ARRAYS = {name: part.reshape(shape) for (name, shape), part in zip(TOLD["shapes"].items(), PARTS, strict=True)}
IDS = [f"{c['loss']}-{'-'.join(map(str, c['settings'].values()))}-{i}" for i, c in enumerate(CASES)]


def epoch(learner: Learner, number: int, *, train: bool) -> float:
    x, y, w = X, ARRAYS[f"{number}/y"], ARRAYS.get(f"{number}/w")
    batch, total = learner.train_batch if train else learner.test_batch, 0.0
    for begin in range(0, len(x), 8):
        part = slice(begin, begin + 8)
        total += batch(x[part], y[part], None if w is None else w[part])["loss"] * len(x[part])
    return total / len(x)


@pytest.mark.parametrize("number", range(len(CASES)), ids=IDS)
def test_training_gives_what_keras_gives(number: int) -> None:
    case = CASES[number]
    network = Network([Input(3), Dense(4, activation="tanh"), Dense(case["units"], activation=case["last"])])
    network.build((3,))
    network.set_weights([ARRAYS[f"{number}/before/{i}"] for i in range(4)])
    loss = losses.get({"class_name": case["loss"], "config": case["config"] | case["settings"]})
    learner = Learner(network, loss=loss, optimizer=SGD(case["rate"]))
    for expected in case["losses"]:
        assert epoch(learner, number, train=True) == pytest.approx(expected, rel=2e-5, abs=1e-6)
    for i, ours in enumerate(network.get_weights()):
        np.testing.assert_allclose(ours, ARRAYS[f"{number}/after/{i}"], rtol=5e-5, atol=5e-6)
    np.testing.assert_allclose(learner.predict(X), ARRAYS[f"{number}/predictions"], rtol=5e-5, atol=5e-6)
    assert epoch(learner, number, train=False) == pytest.approx(case["evaluated"], rel=5e-5, abs=1e-6)


@pytest.mark.parametrize("number", range(0, len(CASES), 2), ids=IDS[::2])
def test_functions_give_the_values_that_the_loss_reduces(number: int) -> None:
    case = CASES[number]
    loss = losses.get({"class_name": case["loss"], "config": case["settings"]})
    (function,) = [f for f, cls in losses.KINDS.items() if cls is type(loss)]
    settings = {key: value for key, value in case["settings"].items() if key != "reduction"}
    each = function(ARRAYS[f"{number}/y"], ARRAYS[f"{number}/predictions"], **settings)
    total = float(np.sum(each))
    if "ignore_class" in settings:
        each = each[ARRAYS[f"{number}/y"] != settings["ignore_class"]]
    learner = Learner(Network([Input(case["units"]), Flatten()]), loss=loss)
    found = learner.test_batch(ARRAYS[f"{number}/predictions"], ARRAYS[f"{number}/y"])["loss"]
    summed = case["settings"].get("reduction") == "sum"
    assert found == pytest.approx(total if summed else total / each.size, rel=1e-5)


RNG = np.random.default_rng(0)


def numbers(shape: tuple[int, ...]) -> Array:
    return RNG.standard_normal(shape)


def bits(shape: tuple[int, ...]) -> Array:
    return RNG.integers(0, 2, shape)


def one_hot(shape: tuple[int, ...]) -> Array:
    return np.eye(shape[-1])[RNG.integers(0, shape[-1], shape[:-1])]


LOSSES: dict[str, tuple[losses.Loss, str, Any]] = {
    "mape": (losses.MeanAbsolutePercentageError(), "linear", numbers),
    "msle": (losses.MeanSquaredLogarithmicError(), "softplus", bits),
    "huber": (losses.Huber(0.7), "linear", numbers),
    "logcosh": (losses.LogCosh(), "linear", numbers),
    "cosine": (losses.CosineSimilarity(), "linear", numbers),
    "cosine, first axis": (losses.CosineSimilarity(1), "linear", numbers),
    "poisson": (losses.Poisson(), "softplus", bits),
    "kld": (losses.KLDivergence(), "softmax", lambda s: RNG.dirichlet(np.ones(s[-1]), s[:-1])),
    "hinge": (losses.Hinge(), "linear", bits),
    "squared hinge": (losses.SquaredHinge(), "linear", lambda s: bits(s) * 2 - 1),
    "categorical hinge": (losses.CategoricalHinge(), "linear", one_hot),
    "focal": (losses.BinaryFocalCrossentropy(True, 0.3, 1.7, label_smoothing=0.1), "sigmoid", bits),
    "focal from logits": (losses.BinaryFocalCrossentropy(from_logits=True), "linear", bits),
    "focal cce": (losses.CategoricalFocalCrossentropy([0.2, 0.4, 0.8], 1.7), "softmax", one_hot),
    "focal cce of any sum": (losses.CategoricalFocalCrossentropy(label_smoothing=0.2), "sigmoid", one_hot),
    "focal cce from logits": (losses.CategoricalFocalCrossentropy(from_logits=True), "linear", one_hot),
    "dice": (losses.Dice(), "sigmoid", bits),
    "dice, by sample": (losses.Dice(axis=(1, 2)), "sigmoid", bits),
    "tversky": (losses.Tversky(0.3, 0.8), "sigmoid", bits),
    "ignored class, sum": (losses.SparseCategoricalCrossentropy(ignore_class=1, reduction="sum"), "softmax", None),
    "ignored class": (losses.SparseCategoricalCrossentropy(ignore_class=1), "softmax", None),
    "sum": (losses.MeanSquaredError("sum"), "linear", numbers),
    "weighted mean": (losses.BinaryCrossentropy(reduction="mean_with_sample_weight"), "sigmoid", bits),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_gradients(name: str, weighted: bool) -> None:
    loss, last, make = LOSSES[name]
    for shape in ((3,), (4, 3)):
        if len(shape) == 1 and name == "dice, by sample":
            continue
        y = RNG.integers(0, 3, (6, *shape[:-1])) if make is None else make((6, *shape))
        learner = learner64([Input(shape), Dense(4, activation="tanh"), Dense(3, activation=last)], loss)
        check_gradient(learner, RNG.standard_normal((6, *shape)), y, RNG.random(6) * 2 if weighted else None)


def test_sums_count_what_a_mask_keeps_once() -> None:
    x, y = np.ones((2, 4, 3)), numbers((2, 4, 2))
    x[0, 1:], x[1, :1] = 0, 0
    keep = np.array([[1, 0, 0, 0], [0, 1, 1, 1]])
    for reduction, divisor in (("sum", 1), ("mean_with_sample_weight", 4), ("mean", 4)):
        learner = learner64([Input((4, 3)), Masking(), Dense(2)], losses.MeanSquaredError(reduction))
        each = losses.mean_squared_error(y, learner.predict(x))
        assert learner.test_batch(x, y)["loss"] == pytest.approx(float((each * keep).sum()) / divisor)


def test_a_small_loss_of_a_big_batch_is_not_lost_among_big_numbers() -> None:
    """Where all is right by far the logits are big, and what is left over of them is tiny."""
    learner = Learner(Network([Input(1), Dense(1, activation="sigmoid")]), loss="binary_crossentropy")
    learner.network.set_weights([[[1.0]], [0.0]])
    z: Array = numbers((20_000, 1)).astype(np.float32)
    z += np.where(z < 0, np.float32(-12), np.float32(12))
    loss = learner.test_batch(z, (z > 0).astype(np.float32))["loss"]
    assert loss == pytest.approx(float(np.log1p(np.exp(-np.abs(z.astype(np.float64)))).mean()), rel=1e-5)


@pytest.mark.anyio
@pytest.mark.parametrize("ignored", [-1, 255])
async def test_labels_to_ignore_may_be_no_classes(ignored: int) -> None:
    x, y = numbers((40, 3)), np.arange(40) % 4
    known = y < 3
    y[~known] = ignored
    figures = []
    for rows in (slice(None), known):
        model = af.Sequential([Input(3), Dense(3, kernel_initializer="ones")])
        model.compile("sgd", af.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=ignored))
        data = x[rows], y[rows]
        history = await model.fit(*data, batch_size=40, shuffle=False, validation_data=data, epochs=2)
        lists = await model.evaluate([data], None)
        figures.append([*history.history["loss"], *history.history["val_loss"], lists])
        assert (await model.evaluate(*data, batch_size=40)) == pytest.approx(lists, rel=1e-6)
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)
    with pytest.raises(af.InvalidInput, match=rf"label 9 in row 0.*or {ignored} \(ignore_class\)"):
        await model.fit(x, np.full(40, 9))


def test_no_prediction_that_counts_is_a_loss_of_0() -> None:
    learner = learner64([Input(3), Dense(2)], losses.SparseCategoricalCrossentropy(ignore_class=-1))
    x = numbers((4, 3))
    assert learner.train_batch(x, np.full(4, -1))["loss"] == 0
    assert not learner._grads.any()
    learner = learner64([Input(3), Dense(2)], losses.MeanSquaredError("mean_with_sample_weight"))
    assert learner.train_batch(x, numbers((4, 2)), np.zeros(4))["loss"] == 0
    assert not learner._grads.any()


NAMES = {
    losses.MeanAbsolutePercentageError: ["mape", "MAPE", "meanAbsolutePercentageError"],
    losses.MeanSquaredLogarithmicError: ["msle", "MSLE", "mean_squared_logarithmic_error"],
    losses.Huber: ["huber", "Huber", "huber_loss", "huberLoss"],
    losses.LogCosh: ["log_cosh", "logcosh", "LogCosh"],
    losses.CosineSimilarity: ["cosine_similarity", "cosine_proximity", "cosineProximity", "cosine"],
    losses.KLDivergence: ["kld", "KLD", "kl_divergence", "kullbackLeiblerDivergence"],
    losses.CategoricalHinge: ["categorical_hinge", "categoricalHinge"],
    losses.BinaryFocalCrossentropy: ["binary_focal_crossentropy", "BinaryFocalCrossentropy"],
}


@pytest.mark.parametrize(("cls", "name"), [(cls, name) for cls, names in NAMES.items() for name in names])
def test_losses_are_found_however_they_are_spelled(cls: type[losses.Loss], name: str) -> None:
    assert type(losses.get(name)) is cls


@pytest.mark.parametrize("loss", [loss for loss, _, _ in LOSSES.values()], ids=LOSSES)
def test_configs_round_trip_through_json(loss: losses.Loss) -> None:
    again = losses.get(json.loads(json.dumps(losses.config(loss))))
    assert type(again) is type(loss)
    assert again.get_config() == {k: v if k != "axis" else again.get_config()[k] for k, v in loss.get_config().items()}


BAD: list[tuple[Any, str]] = [
    (lambda: losses.MeanSquaredError("none"), "training descends on one number"),
    (lambda: losses.Huber(reduction=None), "training descends on one number"),
    (lambda: losses.MeanSquaredError("summ"), "did you mean 'sum'"),
    (lambda: losses.Huber(0), "delta"),
    (lambda: losses.BinaryFocalCrossentropy(gamma=-1), "gamma"),
    (lambda: losses.CategoricalCrossentropy(axis=1), "classes lie along the last axis"),
    (lambda: losses.SparseCategoricalCrossentropy(ignore_class=0.5), "ignore_class"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_slips_are_told(call: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64, np.float64])
@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_targets_of_any_kind_mean_the_same(dtype: Any, shape: tuple[int, ...]) -> None:
    x, y = numbers((6, 3)), np.array([0, 1, 1, 0, 1, 0])
    for name in ("bce", "hinge", "huber", "mape", "binary_focal_crossentropy"):
        learner = learner64([Input(3), Dense(1, activation="sigmoid")], name)
        expected = learner.train_batch(x, y.astype(np.float64)[:, None])
        assert learner.train_batch(x, y.astype(dtype).reshape(shape)) == expected


@pytest.mark.slow
@pytest.mark.skipif(KERAS is None, reason="needs Keras; KERAS_PYTHON may name an interpreter that has it")
@pytest.mark.timeout(600)
def test_keras_reads_each_of_them_and_trains_on_with_the_same_losses(tmp_path: Path) -> None:
    assert KERAS is not None
    written = []
    for number, case in enumerate(CASES):
        if f"{number}/w" in ARRAYS:
            continue
        network = Network(
            [Input(3), Dense(4, activation="tanh"), Dense(case["units"], activation=case["last"])], seed=1
        )
        loss = losses.get({"class_name": case["loss"], "config": case["config"] | case["settings"]})
        learner = Learner(network, loss=loss, optimizer=SGD(0.01))
        y, path = ARRAYS[f"{number}/y"], tmp_path / f"{number}.h5"
        training = modelfile.training_config(learner)
        for file in (path, path.with_suffix(".weights.h5")):
            modelfile.write(modelfile.saved(network, learner, training, learner.state()), file)
        expected = {
            "x": X.tolist(), "y": y.tolist(), "predictions": learner.predict(X).tolist(), "batch_size": 8,
            "iteration": 0, "losses": [epoch(learner, number, train=True) for _ in range(2)],
        }  # fmt: skip
        Path(f"{path}.json").write_text(json.dumps(expected))
        written.append(case["loss"])
    assert len(set(written)) >= 17
    done = subprocess.run(
        [KERAS, str(DATA / "check_keras_reads_all.py"), str(tmp_path), "5e-5"],
        env={"KERAS_BACKEND": "torch", **os.environ}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout.count("losses: largest difference") == len(written)

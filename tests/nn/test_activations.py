"""Activations: Keras's values and gradients, extremes, options, names, files. Finite differences: test_gradients.py."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncfit.activations as door
from asyncfit import Sequential, load_model, modelfile
from asyncfit.errors import InvalidInput
from asyncfit.nn import Network, activations
from asyncfit.nn.activations import Activation, LeakyReLU
from asyncfit.nn.arrays import Array, Call
from asyncfit.nn.layers import Activation as ActivationLayer
from asyncfit.nn.layers import Dense, Flatten, Input
from asyncfit.nn.workspace import Workspace

from .helpers import check_gradient, learner64

DATA = Path(__file__).parents[1] / "data"
KERAS = os.environ.get("KERAS_PYTHON")
with np.load(DATA / "keras_activations.npz") as file:
    ARRAYS = dict(file)
CASES: dict[str, Any] = json.loads(str(ARRAYS.pop("cases")))
X, DY = ARRAYS["x"], ARRAYS["dy"]
NAMES = sorted({a.name for a in activations.SPELLINGS.values()})
RNG = np.random.default_rng(0)


def test_all_of_keras_s_names_are_known() -> None:
    keras = {told["name"] for told in CASES.values()}
    assert keras <= activations.SPELLINGS.keys()
    assert keras == set(door.__all__) - {"Activation", "swish", "hard_swish"} | ({"swish", "hard_swish"} & keras)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lies", ["rows", "columns"])
def test_values_and_gradients_are_keras_s(case: str, lies: str) -> None:
    name, options = CASES[case]["name"], CASES[case]["options"]
    function = getattr(door, name)
    if name == "sparsemax":
        pytest.skip("Keras 3.15.1 sums cumulative sums: its shares do not add up to 1")
    np.testing.assert_allclose(function(X, **options), ARRAYS[case], rtol=2e-6, atol=2e-6)
    one, work = function.with_options(**options), Workspace(np.dtype(np.float32))
    if name == "glu":
        return
    z = X.copy() if lies == "rows" else X.T.copy().T
    y, dy = np.empty_like(z), np.empty_like(z)
    dy[...] = DY
    forward, backward = one.forward(z, y, work), one.backward(z, y, dy, work)
    for call in [*forward, *backward]:
        call()
    np.testing.assert_allclose(y, ARRAYS[case], rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(dy, ARRAYS[f"{case}/dx"], rtol=1e-5, atol=5e-6)
    np.testing.assert_array_equal(z, X)


@pytest.mark.parametrize("name", [*(n for n in NAMES if n not in ("glu", "threshold")), "gelu, approximate"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_nothing_overflows(name: str, kind: type) -> None:
    z: Array = np.array([[-1e18, -1e4, -700.0, -90.0, -20.0, 0.0, 20.0, 90.0, 700.0, 1e4, 1e18]], kind)
    if name == "exponential":
        z = np.minimum(z, 80)
    one = door.gelu.with_options(approximate=True) if "," in name else activations.get(name)
    work = Workspace(z.dtype)
    y, dy = np.empty_like(z), np.ones_like(z)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for call in [*one.forward(z, y, work), *one.backward(z, y, dy, work)]:
            call()
    assert np.isfinite(y).all()
    assert np.isfinite(dy).all()


OPTIONS: list[Activation] = [
    getattr(door, told["name"]).with_options(**told["options"])
    for told in CASES.values()
    if told["options"] and told["options"].get("axis") != 0
]


@pytest.mark.parametrize("one", OPTIONS, ids=repr)
def test_options_hold_in_layers_and_configs(one: Activation) -> None:
    check_gradient(
        learner64([Input(3), Dense(5, activation=one), Dense(2)], "mse"), RNG.random((6, 3)), RNG.random((6, 2))
    )
    network = Network([Input(3), Dense(5, activation=one), ActivationLayer(one)], seed=1)
    again = Network.from_config(network.get_config())
    assert [layer.activation for layer in again.layers] == [one, one]
    assert again.get_config() == network.get_config()
    assert one.name == pickle.loads(pickle.dumps(one)).name == repr(one)
    assert copy.deepcopy(one) == one
    assert one != activations.SPELLINGS[type(one).name]
    with pytest.raises(InvalidInput, match="unknown activation"):
        activations.get(one.name)  # the name is for people: options do not go by it


def test_ours_stay_the_same_objects() -> None:
    for one in activations.SPELLINGS.values():
        if one.name in ("glu", "threshold"):
            continue
        assert pickle.loads(pickle.dumps(one)) is copy.deepcopy(one) is one
        assert activations.config(one) == one.name
    assert activations.get(None) is activations.linear
    assert activations.get("hardSwish") is door.hard_silu
    assert door.relu.with_options() == door.relu


def test_layers_that_are_activations_stand_for_them() -> None:
    assert Dense(3, activation=ActivationLayer("selu")).activation is door.selu  # type: ignore[arg-type]
    assert activations.get({"class_name": "LeakyReLU", "config": {"name": "a", "alpha": 0.1}}) == LeakyReLU(0.1)
    assert activations.get({"class_name": "ReLU", "config": {"max_value": 3.0}}) == door.relu.with_options(
        max_value=3.0
    )
    written = activations.config(LeakyReLU(0.1))
    assert isinstance(written, dict)
    assert (written["class_name"], written["config"]) == ("LeakyReLU", {"negative_slope": 0.1})
    assert activations.get(written) == LeakyReLU(0.1)


@pytest.mark.parametrize("axis", [-1, 0])
def test_sparsemax_is_the_nearest_point_of_the_simplex(axis: int) -> None:
    z = X.astype(np.float64) / 2
    z[-2:] /= 20
    found = door.sparsemax(z, axis=axis)
    np.testing.assert_allclose(found.sum(axis), 1)
    assert (found >= 0).all()
    assert 0.2 < np.mean(found == 0) < 0.9
    # Karush, Kuhn and Tucker: z − y is the same where y > 0, and at most that elsewhere
    rest = z - found
    most = rest.max(axis, keepdims=True)
    np.testing.assert_allclose(np.where(found > 0, rest, most), np.broadcast_to(most, X.shape), atol=1e-9)


class Cube(Activation):
    """y = scale·z³."""

    name = "cube"

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.name = self.full_name()

    def forward(self, z: Array, y: Array, work: Workspace) -> list[Call]:
        return [lambda: np.copyto(y, self.scale * z**3)]

    def backward(self, z: Array, y: Array, dy: Array, work: Workspace) -> list[Call]:
        return [lambda: np.multiply(dy, self.scale * 3 * z**2, dy)]


def test_one_of_your_own_is_read_by_its_name() -> None:
    stack = [Input(3), Dense(4, activation=Cube()), Dense(2, activation=Cube(2.0))]
    check_gradient(learner64(list(stack), "mse"), RNG.random((6, 3)), RNG.random((6, 2)))
    config = Network([Input(3), Dense(4, activation=Cube()), Dense(2, activation=Cube(2.0))]).get_config()
    for own in (Cube, Cube()):
        names: Any = {"cube": own}
        found = [layer.activation for layer in Network.from_config(config, custom_objects=names).layers]
        assert found == [Cube(), Cube(2.0)]
    with pytest.raises(InvalidInput, match="unknown activation 'cube'"):
        Network.from_config(config)


def test_glu_halves_the_features() -> None:
    stack = [Input((4, 3)), Dense(6), ActivationLayer("glu"), Dense(2, "tanh"), ActivationLayer("glu"), Flatten()]
    learner = learner64([*stack, Dense(8), ActivationLayer("glu"), Dense(2)], "mse")
    assert [layer.output_shape for layer in learner.network.layers][1] == (4, 3)
    check_gradient(learner, RNG.random((6, 4, 3)), RNG.random((6, 2)))
    x = RNG.standard_normal((2, 6))
    np.testing.assert_allclose(door.glu(x), x[:, :3] / (1 + np.exp(-x[:, 3:])))


SLIPS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: Dense(4, activation="glu"), InvalidInput, r"layer of its own: Activation\('glu'\)"),
    (lambda: Network([Input(3), ActivationLayer("glu")]), InvalidInput, "even number of features.* not 3"),
    (lambda: Dense(4, activation="threshold"), InvalidInput, "threshold needs options"),
    (lambda: door.threshold(X), InvalidInput, "threshold needs options"),
    (lambda: door.threshold(X, 0.5), InvalidInput, "both options"),
    (lambda: door.celu(X, alpha=0), InvalidInput, r"celu\(alpha=…\) must be above 0"),
    (lambda: door.elu(X, beta=1), TypeError, "it takes: alpha"),
    (lambda: door.tanh(X, 1), TypeError, "takes no options"),
    (lambda: door.soft_shrink(X, -1), InvalidInput, "at least 0"),
    (lambda: Dense(4, activation=Dense(3)), InvalidInput, "an activation is a name"),  # type: ignore[arg-type]
    (lambda: Dense(4, activation={"class_name": "Geluu"}), InvalidInput, "did you mean 'gelu'"),
]


@pytest.mark.parametrize(("call", "kind", "message"), SLIPS)
def test_slips_are_told(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_keras_file() -> None:
    path = str(DATA / "keras_activations.h5")
    network = modelfile.restored(modelfile.read(path), path)
    from asyncfit.nn import predict

    found = predict(network, ARRAYS["inputs"], batch_size=8)
    np.testing.assert_allclose(found, ARRAYS["predictions"], rtol=1e-4, atol=1e-6)
    options = [layer.activation.get_config() for layer in network.layers if layer.activation.get_config()]
    assert options == [{"negative_slope": 0.07}, {"max_value": 0.8}]


def model() -> Sequential:
    names = [n for n in NAMES if n not in ("exponential", "glu", "sparsemax", "threshold")]
    stack: list[Any] = [Input(3), *(Dense(4, activation=name) for name in names)]
    stack += [Dense(4, activation=one) for one in (LeakyReLU(0.07), door.relu.with_options(max_value=0.8))]
    return Sequential([*stack, Dense(4, activation="exponential"), ActivationLayer("glu")], seed=3)


def test_a_file_keeps_them(tmp_path: Path) -> None:
    made, path = model(), tmp_path / "m.h5"
    made.save(path).blocking()
    again = load_model(path).blocking()
    assert again.get_config() == made.get_config()


@pytest.mark.slow
@pytest.mark.skipif(KERAS is None, reason="needs Keras; KERAS_PYTHON may name an interpreter that has it")
def test_keras_reads_them(tmp_path: Path) -> None:
    assert KERAS is not None
    made, path = model(), tmp_path / "m.h5"
    made.save(path).blocking()
    x = ARRAYS["inputs"]
    told = {"x": x.tolist(), "predictions": made.predict(x).blocking().tolist()}
    Path(f"{path}.json").write_text(json.dumps(told))
    command = [KERAS, str(DATA / "check_keras_reads.py"), str(path)]
    environment = {"KERAS_BACKEND": "torch", **os.environ}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("lies", ["rows", "columns", "padded"])
@pytest.mark.parametrize(
    "one", [activations.get(n) for n in NAMES if n not in ("glu", "threshold")] + OPTIONS, ids=repr
)
def test_big_arrays_give_what_small_ones_give(one: Activation, lies: str) -> None:
    """They go other ways: in blocks, and by other loops of NumPy."""
    full: Array = RNG.normal(scale=3.0, size=(400, 101)).astype(np.float32)
    full[:, ::7] = 0
    wide = {"rows": full[:, :100].copy(), "columns": full[:, :100].T.copy().T, "padded": full[:, :100]}[lies]
    gradient = np.ones_like(wide)
    y = np.empty_like(wide)
    work = Workspace(wide.dtype)
    for call in [*one.forward(wide, y, work), *one.backward(wide, y, gradient, work)]:
        call()
    for begin in range(0, 400, 20):
        z = full[begin : begin + 20, :100].copy()
        small, slope, work = np.empty_like(z), np.ones_like(z), Workspace(z.dtype)
        for call in [*one.forward(z, small, work), *one.backward(z, small, slope, work)]:
            call()
        near = 0.0 if one.elementwise else 1e-5  # sums along an axis depend on how it lies
        np.testing.assert_allclose(y[begin : begin + 20], small, rtol=near, atol=near)
        np.testing.assert_allclose(gradient[begin : begin + 20], slope, rtol=near, atol=near)

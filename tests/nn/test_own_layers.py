"""Layers of users' own, written with `add_weight` and `call`: they train, are saved and resumed as ours are."""

from __future__ import annotations

import copy
import inspect
import pickle
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncfit
from asyncfit import Sequential, initializers, layers, load_model
from asyncfit.errors import InvalidInput
from asyncfit.nn import Learner, Network, activations
from asyncfit.nn.arrays import Array
from asyncfit.nn.layers import LSTM, Dense, Flatten, Input, Layer, Masking, TimeDistributed
from asyncfit.nn.workspace import Place

from .helpers import check_gradient, learner64

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((6, 3)), RNG.standard_normal((6, 2))
SEQUENCES = RNG.standard_normal((6, 4, 3))


class Linear(Layer):
    """Dense, as a user would write it."""

    def __init__(self, units: int, activation: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.activation = activations.get(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        assert input_shape[0] is None
        assert input_shape[-1] is not None
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel", regularizer="l2")
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias", constraint="non_neg")

    def call(self, x: Any) -> Any:
        return self.activation(x @ self.kernel + self.bias)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "activation": self.activation.name}


class Centred(Layer):
    """Takes a moving mean away; two weights in a list."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = input_shape[-1:]
        self.mean = self.add_weight(shape=shape, initializer="zeros", trainable=False)  # type: ignore[arg-type]
        self.scales = [self.add_weight(name=name, initializer="ones") for name in ("a", "b")]

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.mean.assign(0.5 * self.mean + 0.5 * x.mean(0))
        return (x - self.mean) * self.scales[0] * np.exp(self.scales[1])


class Noisy(Layer):
    supports_masking = True

    def __init__(self, stddev: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stddev = stddev

    def call(self, x: Any, rng: np.random.Generator | None = None) -> Any:
        return x if rng is None else x * (1 + self.stddev * rng.standard_normal(x.shape))


class MeanOfSteps(Layer):
    """The mean over the steps that count; no weights."""

    def call(self, x: Any, mask: Any = None) -> Any:
        kept = np.ones(x.shape[:2]) if mask is None else mask
        return (x * kept[..., None]).sum(1) / np.maximum(kept.sum(1), 1)[:, None]


OWN: dict[str, Any] = {cls.__name__: cls for cls in (Linear, Centred, Noisy, MeanOfSteps)}


@pytest.mark.parametrize("activation", [None, "relu", "softmax", "selu", "gelu"])
def test_a_dense_layer_of_one_s_own_trains_as_ours(activation: Any) -> None:
    own, ours = (
        learner64([Input(3), make(4, "tanh"), make(2, activation)], "mse")
        for make in (Linear, lambda n, a: Dense(n, a, kernel_regularizer="l2", bias_constraint="non_neg"))
    )
    assert [a.shape for a in own.network.get_weights()] == [a.shape for a in ours.network.get_weights()]
    np.testing.assert_array_equal(own.network.params, ours.network.params)
    assert own.train_batch(X, Y)["loss"] == pytest.approx(ours.train_batch(X, Y)["loss"])
    np.testing.assert_allclose(own._grads, ours._grads, atol=1e-12)
    np.testing.assert_allclose(own.predict(X), ours.predict(X))
    assert own.test_batch(X, Y)["loss"] == pytest.approx(ours.test_batch(X, Y)["loss"])


@pytest.mark.parametrize("name", ["first", "middle", "last", "time", "mask", "frozen"])
def test_gradients(name: str) -> None:
    frozen = Linear(4, trainable=False)
    stack = {
        "first": [Input(3), Linear(4, "tanh"), Dense(2)],
        "middle": [Input(3), Dense(4, "tanh"), Noisy(), Linear(5), Dense(2)],
        "last": [Input(3), Dense(4), Linear(2, "softmax")],
        "time": [Input((4, 3)), TimeDistributed(Linear(4, "tanh")), MeanOfSteps(), Dense(2)],
        "mask": [Input((4, 3)), Masking(), Noisy(), LSTM(3, return_sequences=True), MeanOfSteps(), Dense(2)],
        "frozen": [Input(3), Dense(4, "tanh"), frozen, Dense(2)],
    }[name]
    check_gradient(learner64(stack, "mse"), SEQUENCES if stack[0].shape == (4, 3) else X, Y)  # type: ignore[attr-defined]


def test_a_mean_that_moves() -> None:
    learner = learner64([Input(3), Centred(), Dense(2)], "mse")
    learner.train_batch(X, Y)
    np.testing.assert_allclose(learner.network.fixed, 0.5 * X.mean(0))
    assert [slot.path for slot in learner.network.slots][:3] == ["centred/a", "centred/b", "centred/variable"]
    before = learner.network.fixed.copy()
    learner.test_batch(X, Y)
    learner.predict(X)
    np.testing.assert_array_equal(learner.network.fixed, before)
    a, b = learner.network.params[:2]
    kernel = learner.network.get_weights()[3]
    np.testing.assert_allclose(learner.predict(X), (X - before) * a * np.exp(b) @ kernel)


def test_masks() -> None:
    x = SEQUENCES.copy()
    x[:, 2:] = 0
    network = Network([Input((4, 3)), Masking(), Noisy(), MeanOfSteps()], _dtype=np.float64)
    found = Learner(network, loss="mse").predict(x)
    np.testing.assert_allclose(found, x[:, :2].mean(1))
    assert network.drop_masks() == []
    assert [one.name for one in Network([Input((4, 3)), Masking(), Linear(2)]).drop_masks()] == ["linear"]


@pytest.mark.parametrize("copied_by", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_go_on_with_the_same_bits(copied_by: Any) -> None:
    learner = Learner(Network([Input(3), Linear(4, "relu"), Centred(), Noisy(), Dense(2)], seed=2), loss="mse")
    learner.train_batch(X, Y)
    again = copied_by(learner)
    for one in (learner, again):
        one.seek((7, 1), 2, 3)
        one.train_batch(X, Y)
    assert again.network.params.tobytes() == learner.network.params.tobytes()
    assert again.network.fixed.tobytes() == learner.network.fixed.tobytes()


def model() -> Sequential:
    found = Sequential([Input(3), Linear(4, "relu"), Centred(), Noisy(0.25, name="n"), Dense(2)], seed=3)
    found.compile("adam", "mse")
    return found


@pytest.mark.parametrize("executor", ["thread", "process", asyncfit.testing.LoopbackExecutor()])
def test_executors_agree_to_the_bit(executor: Any) -> None:
    one, other = model(), model()
    one.fit(X, Y, epochs=2, batch_size=4).blocking()
    other.fit(X, Y, epochs=2, batch_size=4, executor=executor).blocking()
    assert [a.tobytes() for a in one.get_weights()] == [a.tobytes() for a in other.get_weights()]


def test_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    whole, first = model(), model()
    whole.fit(X, Y, epochs=4, batch_size=4).blocking()

    class Stop(asyncfit.Callback):
        def on_epoch_end(self, event: asyncfit.EpochEnd) -> None:
            if event.epoch == 1:
                event.stop("later", resumable=True)

    saver = asyncfit.callbacks.BackupAndRestore(tmp_path / "backup")
    stopped = first.fit(X, Y, epochs=4, batch_size=4, callbacks=[Stop(), saver]).blocking()
    assert stopped.outcome == "stopped"
    assert [a.tobytes() for a in first.get_weights()] != [a.tobytes() for a in whole.get_weights()]
    again = model()
    again.fit(
        X, Y, epochs=4, batch_size=4, callbacks=[asyncfit.callbacks.BackupAndRestore(tmp_path / "backup")]
    ).blocking()
    assert [a.tobytes() for a in again.get_weights()] == [a.tobytes() for a in whole.get_weights()]


def test_files(tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "m.h5"
    one = model()
    one.fit(X, Y, epochs=1).blocking()
    one.save(path).blocking()
    again = load_model(path, custom_objects=OWN).blocking()
    assert again.predict(X).blocking().tobytes() == one.predict(X).blocking().tobytes()
    assert again.layers[2].stddev == 0.25  # type: ignore[attr-defined]
    runs = [m.fit(X, Y, epochs=2, shuffle=False).blocking().history["loss"] for m in (again, one)]
    assert len(runs[0]) == len(runs[1]) == 2
    one.summary()
    assert "linear (Linear)" in capsys.readouterr().out
    assert "linear (Linear)" in str(one.profile(X, Y).blocking())
    inside = Sequential([Input((4, 3)), TimeDistributed(Linear(2))])
    inside.save(path).blocking()
    twin = load_model(path, custom_objects=OWN).blocking()
    assert twin.predict(SEQUENCES).blocking().tobytes() == inside.predict(SEQUENCES).blocking().tobytes()


def test_the_examples_of_the_docstring_work() -> None:
    text = inspect.getdoc(Layer)
    assert text is not None
    blocks = [
        part.split("\n\n- ")[0].split("\n\nWhere ")[0].split("\n\nAttributes")[0] for part in text.split("::\n\n")
    ]
    assert len(blocks) == 3
    space = {"Layer": Layer, "np": np, "Weight": layers.Weight, "initializers": initializers}
    for block in blocks[1:]:
        exec(textwrap.dedent(block), space)
    scaled: Any = space["Scaled"]
    scale: Any = space["Scale"]
    check_gradient(learner64([Input(3), scaled(4), scale(), Dense(2)], "mse"), X, Y)
    assert scaled(4).get_config()["units"] == 4


def own(call: Any, build: Any = lambda self, input_shape: None, **more: Any) -> Layer:
    """A layer of class Mine."""
    cls: Any = type("Mine", (Layer,), {"call": call, "build": build, **more})
    found = cls()
    assert isinstance(found, Layer)
    return found


def with_weights(self: Any, input_shape: Any) -> None:
    self.w, self.s = self.add_weight(name="w"), self.add_weight(name="s", trainable=False)


def set_weight(self: Any, x: Any) -> Any:
    self.s = x.mean()
    return x * self.w


def set_other(self: Any, x: Any) -> Any:
    self.count = 1
    return x * self.w


def assign_always(self: Any, x: Any) -> Any:
    self.s.assign(1.0)
    return x


def of_training(self: Any, x: Any, training: bool = False) -> Any:
    return x[:, :1] if training else x


def assign_shape(self: Any, x: Any, training: bool = False) -> Any:
    if training:
        self.s.assign(x)
    return x * self.w


def write_into(self: Any, x: Any) -> Any:
    x[:, 0] = 0
    return x


SLIPS: list[tuple[Any, str]] = [
    (lambda self, x: np.linalg.det(x[..., None] * x[:, None]) [:, None], r"Mine 'mine': np.det has no gradient here"),
    (lambda self, x: None, r"call\(\) of Mine 'mine' gave NoneType, not an array"),
    (lambda self, x: [x, x], "gave list, not an array"),
    (lambda self, x: x.sum(), r"of Mine 'mine' gives the shape \(\)"),
    (lambda self, x: x.sum(1), r"of Mine 'mine' gives the shape \(2,\)"),
    (lambda self, x: x[:1], r"gives the shape \(1, 3\); it must have the batch first"),
    (lambda self, x: x * self.add_weight(name="late"), r"add_weight\(\) of Mine 'mine' belongs in __init__ or build"),
    (set_weight, r"Mine 'mine' has set self.s; write self.s.assign"),
    (set_other, "has set self.count, which is lost"),
    (assign_always, "is there in training alone"),
    (of_training, r"gave an array of the shape \(6, 1\) for an input of \(6, 3\); it must be \(6, 3\)"),
    (assign_shape, r"assign\(\) got an array of the shape \(6, 3\) for a weight of \(\)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), SLIPS)
def test_slips_are_told(call: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        learner64([Input(3), Dense(3), own(call, with_weights), Dense(2)], "mse").train_batch(X, Y)


def test_errors_of_call_and_build_name_the_layer() -> None:
    for layer in (own(lambda self, x: x @ np.ones((7, 7))), own(lambda self, x: x, lambda self, shape: 1 / 0)):
        with pytest.raises((ValueError, ZeroDivisionError)) as told:
            Network([Input(3), layer])
        assert any("Mine 'mine'" in note for note in told.value.__notes__)
    with pytest.raises(ValueError, match="read-only") as told:
        Network([Input(3), own(write_into)])
    assert any("call() of Mine" in note for note in told.value.__notes__)


def twice(self: Any, shape: Any) -> None:
    self.add_weight(name="w")
    self.add_weight(name="w")


BUILDS: list[tuple[Any, str]] = [
    (twice, "Mine 'mine' asks for two weights named 'w'"),
    (lambda self, shape: self.add_weight(shape=shape), "whole numbers"),
    (lambda self, shape: self.add_weight(name="a/b"), "name"),
    (lambda self, shape: self.add_weight(initializer="zeross"), "did you mean 'zeros'"),
    (lambda self, shape: self.add_weight(dtype="int32"), "weights are float32"),
]


@pytest.mark.parametrize(("build", "message"), BUILDS)
def test_slips_in_build_are_told(build: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Network([Input(3), own(lambda self, x: x, build)])


def test_classes_are_checked_when_they_are_defined() -> None:
    with pytest.raises(TypeError, match=r"cannot be given 'other'"):
        type("Mine", (Layer,), {"call": lambda self, x, other: x})
    with pytest.raises(TypeError, match="takes the input first"):
        type("Mine", (Layer,), {"call": lambda self: 0})
    with pytest.raises(TypeError, match=r"has a call\(\) and a plan\(\)"):
        type("Mine", (Dense,), {"call": lambda self, x: x})

    class Both(Linear):
        def call(self, x: Any) -> Any:
            return 2 * super().call(x)

    assert Both(2)._extras == ()
    with pytest.raises(NotImplementedError, match=r"has no call\(\), and no plan"):
        Network([Input(3), Layer()]).layers[0].plan(Place.__new__(Place))


def test_the_shape_of_the_output_may_be_given() -> None:
    def strict(self: Any, x: Array) -> Any:
        assert len(x) != 2, "not called to find the shape"
        return x[:, :2]

    layer = own(strict, compute_output_shape=lambda self, shape: (shape[0], 2))
    assert Network([Input(3), layer]).output_shape == (2,)
    wrong = own(lambda self, x: x, compute_output_shape=lambda self, shape: 2)
    with pytest.raises(InvalidInput, match=r"compute_output_shape\(\) of Mine 'mine' gives the shape 2"):
        Network([Input(3), wrong])


def test_a_mask_must_fit_what_it_passes_through() -> None:
    layer = own(lambda self, x: x.sum(1), supports_masking=True)
    with pytest.raises(InvalidInput, match="leave out supports_masking"):
        Network([Input((4, 3)), layer])
    assert Network([Input((4, 3)), own(lambda self, x: x.sum(1)), Flatten()]).output_shape == (3,)


def test_settings_that_cannot_be_saved_are_told(tmp_path: Path) -> None:
    class Held(Noisy):
        def __init__(self, function: Any, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.function = function

    with pytest.raises(InvalidInput, match=r"keeps no plain .function.*add get_config"):
        Sequential([Input(3), Held(np.sin)]).save(tmp_path / "m.h5").blocking()


def mine(y_true: Array, y_pred: Array) -> Any:
    return np.mean(np.abs(y_true - y_pred) ** 1.5, axis=-1)


def bent(x: Array) -> Any:
    return np.where(x > 0, x, 0.1 * x)


def compiled(loss: Any, metrics: Any, *stack: Layer) -> Sequential:
    found = Sequential([Input(3), *stack, Dense(2)], seed=3)
    found.compile("adam", loss, metrics=metrics)
    return found


def test_functions_at_the_top_of_a_module_work_in_a_process() -> None:
    runs = []
    for executor in ("thread", "process"):
        one = compiled(mine, [mine], Dense(4, bent), Linear(3, bent))
        history = one.fit(X, Y, epochs=2, batch_size=4, executor=executor).blocking().history
        runs.append((history["loss"], history["mine"], [a.tobytes() for a in one.get_weights()]))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("what", ["loss", "metric", "activation", "layer"])
def test_what_cannot_go_into_a_process_is_refused_before_the_run(what: str) -> None:
    def local(*arrays: Any) -> Any:
        return arrays[0] if len(arrays) == 1 else mine(*arrays)

    class Local(Noisy):
        pass

    one = {
        "loss": lambda: compiled(local, None),
        "metric": lambda: compiled("mse", [lambda y_true, y_pred: mine(y_true, y_pred)]),
        "activation": lambda: compiled("mse", None, Dense(3, local)),
        "layer": lambda: compiled("mse", None, Local()),
    }[what]()
    seen: list[Any] = []
    bus = asyncfit.EventBus()
    bus.subscribe(asyncfit.TrainBegin, seen.append)
    with pytest.raises(InvalidInput, match=r"is defined in a function. Define it at the top of a module"):
        one.fit(X, Y, executor="process", bus=bus).blocking()
    assert not seen
    one.fit(X, Y).blocking()


def test_gradients_are_those_of_the_values_before_assign() -> None:
    def late(self: Any, x: Any, training: bool = False) -> Any:
        y = x * self.s * self.w
        if training:
            self.s.assign(self.s + 5)
        return y

    plain, changed = (
        learner64([Input(3), Dense(2), own(call, with_weights)], "mse")
        for call in (lambda self, x: x * self.s * self.w, late)
    )
    for learner in (plain, changed):
        learner.train_batch(X, Y)
    np.testing.assert_array_equal(plain._grads, changed._grads)
    assert changed.network.fixed == plain.network.fixed + 5

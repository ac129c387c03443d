"""Networks: building, names, weights, configs, the table, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncfit.errors import InvalidInput
from asyncfit.nn import Network, initializers, predict
from asyncfit.nn.arrays import Shape
from asyncfit.nn.layers import Activation, Dense, Dropout, Flatten, Input, Layer, Weight
from asyncfit.nn.workspace import Place


def small(**how: Any) -> Network:
    return Network([Input((3,)), Dense(4, activation="relu"), Dropout(0.5), Dense(2)], seed=1, **how)


def test_layers_are_named_within_their_model() -> None:
    for _ in range(2):
        network = Network([Input(3), Dense(4), Dense(4, name="mine"), Dense(4), Activation("relu"), Flatten()])
        assert [layer.name for layer in network.layers] == ["dense", "mine", "dense_1", "activation", "flatten"]


def test_shapes_are_known_layer_by_layer() -> None:
    network = Network([Input((2, 3)), Flatten(), Dense(4)])
    assert [(layer.input_shape, layer.output_shape) for layer in network.layers] == [((2, 3), (6,)), ((6,), (4,))]
    assert (network.input_shape, network.output_shape) == ((2, 3), (4,))


@pytest.mark.parametrize("layers", [
    lambda: [Input((3,)), Dense(2)],
    lambda: [Input(3), Dense(2)],
    lambda: [Input([3]), Dense(2)],
    lambda: [Dense(2, input_shape=(3,))],
    lambda: [Dense(2, input_shape=3)],
])  # fmt: skip
def test_ways_to_give_the_input_shape(layers: Callable[[], list[Layer]]) -> None:
    network = Network(layers())
    assert network.built
    assert network.input_shape == (3,)
    assert len(network.layers) == 1


def test_without_a_shape_the_first_data_builds_it() -> None:
    network = Network([Dense(2)])
    assert not network.built
    assert predict(network, np.zeros((5, 3))).shape == (5, 2)
    assert network.input_shape == (3,)


def test_all_trained_weights_are_views_of_one_flat_array() -> None:
    network = small()
    assert network.params.dtype == np.float32
    assert network.params.shape == (3 * 4 + 4 + 4 * 2 + 2,)
    network.params[...] = np.arange(26)
    assert network.layers[0].arrays["kernel"][1, 2] == 6
    assert network.layers[2].arrays["bias"].tolist() == [24, 25]
    assert all(np.shares_memory(a, network.params) for layer in network.layers for a in layer.weights)


def test_frozen_weights_lie_apart_and_keep_their_place_in_the_order() -> None:
    network = Network([Input(3), Dense(4, trainable=False), Dense(2)], seed=1)
    assert (network.params.size, network.fixed.size) == (10, 16)
    assert [w.shape for w in network.get_weights()] == [(3, 4), (4,), (4, 2), (2,)]
    assert " Non-trainable params: 16 (64.00 B)" in network.summary_lines()


def test_get_weights_copies_and_set_weights_copies_in() -> None:
    network = small()
    weights = [w + 1 for w in network.get_weights()]
    network.set_weights(weights)
    weights[0][...] = 0
    network.get_weights()[1][...] = 7
    assert network.get_weights()[0].min() > 0
    assert network.get_weights()[1].tolist() == [1, 1, 1, 1]


def test_set_weights_names_what_does_not_fit_and_changes_nothing() -> None:
    network = small()
    before = network.params.tobytes()
    with pytest.raises(InvalidInput, match=r"has 4 weights .*dense/kernel.* but 1 were given"):
        network.set_weights([np.zeros(3)])
    with pytest.raises(InvalidInput, match=r"takes a list of arrays.*not None"):
        network.set_weights(None)  # type: ignore[arg-type]
    weights = network.get_weights()
    with pytest.raises(InvalidInput, match=r"dense_1/kernel has the shape \(4, 2\), but \(2, 4\) was given"):
        network.set_weights([weights[0] + 1, weights[1], weights[2].T, weights[3]])
    assert network.params.tobytes() == before


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda w: np.full(w.shape, "x"), InvalidInput),
        (lambda w: w * 1j, InvalidInput),
        (lambda w: np.full(w.shape, 1e300), RuntimeWarning),  # in a program that makes errors of warnings
    ],
)
def test_set_weights_changes_all_or_nothing(change: Callable[[Any], Any], error: type[Exception]) -> None:
    network = small()
    before = network.params.tobytes()
    weights = network.get_weights()
    with pytest.raises(error):
        network.set_weights([weights[0] + 1, weights[1], change(weights[2]), weights[3]])
    assert network.params.tobytes() == before


def test_adding_a_layer_keeps_the_weights_before_it() -> None:
    network = small()
    network.params += 1
    before = network.get_weights()
    network.add(Dense(3))
    for old, new in zip(before, network.get_weights(), strict=False):
        np.testing.assert_array_equal(old, new)


def test_config_round_trip_is_plain_json_in_the_dialect_of_keras_2() -> None:
    network = Network([Input((2, 3)), Flatten(), Dense(4, "relu"), Dropout(0.5, seed=3), Activation("softmax")])
    config = json.loads(json.dumps(network.get_config()))
    first, _, dense, *_ = config["layers"]
    assert first["class_name"] == "InputLayer"
    assert first["config"]["batch_input_shape"] == [None, 2, 3]
    assert dense["config"]["dtype"] == "float32"
    assert dense["config"]["kernel_initializer"] == {"class_name": "GlorotUniform", "config": {"seed": None}}
    again = Network.from_config(config)
    assert again.get_config() == network.get_config()
    assert Network.from_config({"class_name": "Sequential", "config": config}).get_config() == config


KERAS_3 = {
    "name": "m",
    "trainable": True,
    "dtype": {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None},
    "layers": [
        {
            "module": "keras.layers",
            "class_name": "InputLayer",
            "config": {"batch_shape": [None, 3], "dtype": "float32", "sparse": False, "name": "in", "optional": False},
            "registered_name": None,
        },
        {
            "module": "keras.layers",
            "class_name": "Dense",
            "config": {
                "name": "d",
                "trainable": True,
                "dtype": {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}},
                "units": 2,
                "activation": "relu",
                "use_bias": True,
                "kernel_initializer": {"module": "keras.initializers", "class_name": "HeNormal", "config": {}},
                "bias_initializer": "zeros",
                "kernel_regularizer": None,
                "bias_constraint": None,
                "quantization_config": None,
            },
            "registered_name": None,
            "build_config": {"input_shape": [None, 3]},
        },
    ],
    "build_input_shape": [None, 3],
}
SCALING = {"scale": 1, "mode": "fan_avg", "distribution": "normal", "seed": None}
TFJS = {
    "name": "m",
    "layers": [
        {
            "class_name": "Dense",
            "config": {
                "name": "d",
                "trainable": True,
                "batch_input_shape": [None, 3],
                "dtype": "float32",
                "units": 2,
                "use_bias": True,
                "activation": "relu",
                "kernel_initializer": {"class_name": "VarianceScaling", "config": SCALING},
                "bias_initializer": {"class_name": "Zeros", "config": {}},
                "activity_regularizer": None,
            },
        },
    ],
}


@pytest.mark.parametrize("config", [KERAS_3, TFJS], ids=["Keras 3", "TF.js"])
def test_foreign_dialects_are_read(config: dict[str, Any]) -> None:
    network = Network.from_config(config)
    assert network.name == "m"
    assert network.input_shape == (3,)
    assert [layer.name for layer in network.layers] == ["d"]
    assert network.layers[0].activation.name == "relu"


def with_option(**option: Any) -> dict[str, Any]:
    return {"name": "m", "layers": [{"class_name": "Dense", "config": {"units": 2, **option}}]}


BAD_CONFIGS: list[tuple[Any, str]] = [
    ({"name": "m", "layers": [{"class_name": "Dens"}]}, "unknown layer class 'Dens'; did you mean 'Dense'"),
    (with_option(kernel_regularizer={"class_name": "L3"}), "unknown regularizer 'L3'"),
    (with_option(lora_rank=4), "lora_rank=4 is not supported"),
    (with_option(activation="reluu"), "unknown activation 'reluu'; did you mean 'relu'"),
    (with_option(unit=3), "unknown option 'unit'; did you mean 'units'"),
    ({"class_name": "Functional", "config": {}}, "'Functional' cannot be read"),
    ({"name": "m"}, "needs a list 'layers'"),
    ({"name": "m", "layers": ["Dense"]}, "a layer's config is"),
]


@pytest.mark.parametrize(("config", "message"), BAD_CONFIGS)
def test_configs_that_cannot_be_read_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Network.from_config(config)


SLIPS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: Dense(0), InvalidInput, r"Dense\(units=…\) must be a whole number from 1, not 0"),
    (lambda: Dense(2.5), InvalidInput, "whole number"),  # type: ignore[arg-type]
    (lambda: Dense(units=3, kernelInitializer="ones"), TypeError, "did you mean 'kernel_initializer'"),  # type: ignore[call-arg]
    (lambda: Dense(3, activation="rleu"), InvalidInput, "did you mean 'relu'"),
    (lambda: Dense(3, input_shape=(0,)), InvalidInput, "from 1 without the batch"),
    (lambda: Dense(3, input_shape=(None, 3)), InvalidInput, "without the batch"),  # type: ignore[arg-type]
    (lambda: Input((None,)), InvalidInput, "any length, give the greatest"),  # type: ignore[arg-type]
    (lambda: Dense(3, name="a/b"), InvalidInput, "without '/'"),
    (lambda: Dropout(1.5), InvalidInput, "from 0 to 1"),
    (lambda: Dropout(-0.5), InvalidInput, "at least 0"),
    (lambda: Input((2.5,)), InvalidInput, "whole numbers"),  # type: ignore[arg-type]
    (lambda: Network([Dense]), InvalidInput, "add the parentheses"),  # type: ignore[list-item]
    (lambda: Network(Dense(3)), InvalidInput, "takes a list"),  # type: ignore[arg-type]
    (lambda: Network([Dense(3), Input(3)]), InvalidInput, "Input comes first"),
    (lambda: Network([Input(3), Dense(3, name="a"), Dense(3, name="a")]), InvalidInput, "two layers are named 'a'"),
    (lambda: Network([small().layers[0]]), InvalidInput, "part of a model already"),
    (lambda: Network().build((3,)), InvalidInput, "has no layers"),
    (lambda: Network([Dense(2)]).count_params(), InvalidInput, "input_shape="),
    (lambda: Network(seed=-1), InvalidInput, "seed must be None or a whole number"),
    (lambda: small().build((5,)), InvalidInput, r"Dense 'dense' got samples of shape \(5,\) but expects \(3,\)"),
    (lambda: small().build((3, 1)), InvalidInput, r"put Flatten\(input_shape=\(3, 1\)\) first"),
]


@pytest.mark.parametrize(("call", "kind", "message"), SLIPS)
def test_slips_are_told(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


def test_the_table_is_keras_s() -> None:
    lines = small(name="m").summary_lines()
    assert lines[0] == 'Model: "m"'
    assert lines[2].split("┃")[1:-1] == [" Layer (type)      ", " Output Shape ", " Param # "]
    assert lines[4] == "│ dense (Dense)     │ (None, 4)    │      16 │"
    assert lines[5] == "│ dropout (Dropout) │ (None, 4)    │       0 │"
    assert lines[-3:] == [
        " Total params: 26 (104.00 B)",
        " Trainable params: 26 (104.00 B)",
        " Non-trainable params: 0 (0.00 B)",
    ]
    assert any("?" in line for line in Network([Dense(2)]).summary_lines())


class Scale(Layer):
    """y = x · factor: what a user writes."""

    def weight_specs(self, input_shape: Shape) -> list[Weight]:
        return [Weight("factor", input_shape[-1:], initializers.get("ones"))]

    def plan(self, at: Place) -> None:
        factor = at.weights["factor"]
        at.forward.append(lambda: np.multiply(at.x, factor, at.y))
        if at.dy is not None:
            dy, dx = at.dy, at.dx
            at.backward.append(lambda: np.sum(at.x * dy, axis=0, out=at.grads["factor"]))
            if dx is not None:
                at.backward.append(lambda: np.multiply(dy, factor, dx))


def test_a_layer_of_the_user_s_own() -> None:
    from .helpers import check_gradient, learner64

    rng = np.random.default_rng(0)
    learner = learner64([Input(3), Dense(4, activation="tanh"), Scale(), Dense(2)], "mse")
    check_gradient(learner, rng.standard_normal((6, 3)), rng.standard_normal((6, 2)))
    config = learner.network.get_config()
    with pytest.raises(InvalidInput, match="unknown layer class 'Scale'"):
        Network.from_config(config)
    assert isinstance(Network.from_config(config, custom_objects={"Scale": Scale}).layers[1], Scale)

"""`trainable`: what is frozen stays as it is, costs nothing, and is told; it holds from `compile` on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import asyncfit as af
from asyncfit import layers
from asyncfit.errors import InvalidInput
from asyncfit.nn.arrays import Array

rng = np.random.default_rng(0)
X = rng.standard_normal((40, 5)).astype(np.float32)
Y = (X[:, :1] > 0).astype(np.float32)


def made(**how: Any) -> af.Sequential:
    stack = [layers.Input(5), layers.Dense(8, "tanh"), layers.BatchNormalization(), layers.Dense(6, "tanh")]
    model = af.Sequential([*stack, layers.Dense(1)], seed=3)
    model.compile(**{"optimizer": "adam", "loss": "mse", **how})
    return model


def told(model: af.Sequential) -> list[str]:
    lines: list[str] = []
    model.summary(lines.append)
    return [line.strip() for line in lines[0].splitlines()[-2:]]


def kept(before: list[Array], model: af.Sequential) -> list[bool]:
    return [np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]


@pytest.mark.anyio
async def test_what_is_frozen_behind_compile_is_told(caplog: pytest.LogCaptureFixture) -> None:
    model = made()
    await model.fit(X, Y)
    assert not caplog.records
    model.layers[0].trainable = False
    before = model.get_weights()
    await model.fit(X, Y)
    assert ["trainable was changed after compile" in record.message for record in caplog.records] == [True]
    assert not any(kept(before, model)[:2])
    model.compile("adam", "mse")
    await model.fit(X, Y)
    assert len(caplog.records) == 1


@pytest.mark.anyio
async def test_layers_are_frozen_for_fine_tuning_and_thawed_again() -> None:
    model = made()
    await model.fit(X, Y, epochs=2)
    predicted, weights = await model.predict(X), model.get_weights()
    assert told(model) == ["Trainable params: 125 (500.00 B)", "Non-trainable params: 16 (64.00 B)"]
    model.layers[0].trainable = model.layers[1].trainable = False
    model.compile("adam", "mse")
    assert told(model) == ["Trainable params: 61 (244.00 B)", "Non-trainable params: 80 (320.00 B)"]
    np.testing.assert_array_equal(await model.predict(X), predicted)
    await model.fit(X, Y, epochs=2)
    assert kept(weights, model) == [True] * 6 + [False] * 4, "also the moving statistics stay"
    assert model.state()["params"].size == 61
    assert [a is b for a, b in zip(model.layers[2].weights, model.layers[2].weights, strict=True)] == [True, True]
    np.testing.assert_array_equal(model.layers[2].get_weights()[0], model.get_weights()[6])
    weights = model.get_weights()
    model.trainable = True
    model.compile("adam", "mse")
    await model.fit(X, Y)
    assert kept(weights, model) == [False] * 10


@pytest.mark.anyio
async def test_a_flag_holds_from_compile_on(tmp_path: Path) -> None:
    model, weights = made(), made().get_weights()
    model.layers[0].trainable = False
    await model.fit(X, Y)
    assert not any(kept(weights, model))
    await model.save(tmp_path / "m.h5")  # with the state of the optimizer for all that was trained
    again = await af.load_model(tmp_path / "m.h5")
    assert [layer.trainable for layer in again.layers] == [True] * 4
    assert (await again.fit(X, Y, seed=1)).history == (await model.fit(X, Y, seed=1)).history
    model.compile("adam", "mse")
    await model.save(tmp_path / "m.h5")
    again = await af.load_model(tmp_path / "m.h5")
    assert [layer.trainable for layer in again.layers] == [False, True, True, True]
    assert told(again) == told(model)
    assert (await again.fit(X, Y, seed=1)).history == (await model.fit(X, Y, seed=1)).history


@pytest.mark.anyio
async def test_nothing_is_trained_in_a_model_that_is_not_trainable() -> None:
    model = made()
    model.trainable = False
    assert [layer.trainable for layer in model.layers] == [False] * 4
    assert not model.trainable
    model.compile("adam", "mse", metrics=["mae"])
    weights = model.get_weights()
    history = (await model.fit(X, Y, epochs=3, shuffle=False, batch_size=20)).history
    assert all(kept(weights, model))
    assert history["loss"][0] == history["loss"][2]
    assert told(model) == ["Trainable params: 0 (0.00 B)", "Non-trainable params: 141 (564.00 B)"]


def test_what_is_frozen_and_all_before_costs_no_backward_pass() -> None:
    def calls(*frozen: int) -> int:
        model = made()
        for index in frozen:
            model.layers[index].trainable = False
        model.compile("adam", "mse")
        network = model._network
        from asyncfit.nn.workspace import Workspace

        return len(network.plan(8, Workspace(network.dtype), grads=np.zeros_like(network.params)).backward)

    assert calls(0, 1, 2, 3) == 0
    assert calls(0, 1, 2) == 1, "the last layer's weights, and nothing for its input"
    assert calls(0, 1) < calls(0) < calls()
    assert calls(2) < calls()


def test_a_model_that_was_not_compiled_tells_what_would_be_trained() -> None:
    model = af.Sequential([layers.Input(5), layers.Dense(2), layers.Dense(1)], seed=1)
    weights = model.get_weights()
    model.layers[0].trainable = False
    assert told(model) == ["Trainable params: 3 (12.00 B)", "Non-trainable params: 12 (48.00 B)"]
    assert all(kept(weights, model))


@pytest.mark.anyio
async def test_a_compilation_that_fails_changes_nothing() -> None:
    model = made()
    await model.fit(X, Y)
    state = {name: np.copy(value) for name, value in model.state().items()}
    optimizer = model.optimizer
    model.layers[0].trainable = False
    with pytest.raises(InvalidInput, match="mze"):
        model.compile("adam", "mze")
    assert model.optimizer is optimizer
    for name, value in model.state().items():
        np.testing.assert_array_equal(value, state[name])
    model.layers[0].weights[0][...] = 0
    assert not model.get_weights()[0].any(), "the layers hold the weights of the model"
    await model.fit(X, Y)
    assert model.get_weights()[0].any()


@pytest.mark.anyio
async def test_an_optimizer_can_be_given_again() -> None:
    optimizer = af.optimizers.SGD(0.1, momentum=0.9)
    model = made(optimizer=optimizer)
    await model.fit(X, Y)
    model.layers[0].trainable = False
    model.compile(optimizer, "mse")
    await model.fit(X, Y)
    assert model.state()["optimizer/momentum"].size == 77

"""Weights for each step of a sequence, however they come: Keras 3.15.1's figures (`make_keras_step_weights.py`)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from asyncfit import Sequential, layers, losses
from asyncfit.errors import InvalidInput
from asyncfit.optimizers import SGD

TOLD = json.loads((Path(__file__).parent / "data" / "keras_step_weights.json").read_text())
CASES: dict[str, dict[str, Any]] = TOLD["cases"]
X = np.array(TOLD["x"], np.float32)
HOW: dict[str, Any] = {"epochs": 3, "shuffle": False}


def made(case: dict[str, Any]) -> Sequential:
    stack: list[Any] = [layers.Input((5, 3)), *([layers.Masking()] if case["masked"] else [])]
    stack += [layers.SimpleRNN(4, return_sequences=True)]
    stack += [layers.TimeDistributed(layers.Dense(case["units"], case["activation"]))]
    model = Sequential(stack)
    model.compile(SGD(0.1), getattr(losses, case["loss"])(), metrics=case["metrics"], weighted_metrics=case["metrics"])
    model.set_weights([np.array(w, np.float32) for w in case["before"]])
    return model


def data(case: dict[str, Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    y = np.array(TOLD[case["target"]])
    return (y if y.dtype.kind == "i" else y.astype(np.float32)), np.array(TOLD[case["weight"]], np.float32)


def batches(y: npt.NDArray[Any], w: npt.NDArray[np.float32]) -> Iterator[tuple[npt.NDArray[Any], ...]]:
    for begin in range(0, len(X), 5):
        part = slice(begin, begin + 5)
        yield X[part], y[part], w[part]


def same(history: dict[str, list[float]], case: dict[str, Any]) -> None:
    names = [name for name in history if name != "learning_rate"]
    assert set(names) == set(case["history"])
    for name in names:
        if case["masked"] and "weighted" in name:
            continue  # see the generator
        assert history[name] == pytest.approx(case["history"][name], rel=1e-4, abs=1e-6), name


@pytest.mark.anyio
@pytest.mark.parametrize("name", CASES)
async def test_arrays_give_what_keras_gives(name: str) -> None:
    case, model = CASES[name], made(CASES[name])
    y, w = data(case)
    history = await model.fit(X, y, sample_weight=w, batch_size=5, validation_data=(X[:4], y[:4], w[:4]), **HOW)
    same(history.history, case)
    for ours, keras in zip(model.get_weights(), case["after"], strict=True):
        np.testing.assert_allclose(ours, keras, rtol=1e-4, atol=1e-5)
    evaluated = await model.evaluate(X, y, sample_weight=w, batch_size=5, return_dict=True)
    assert isinstance(evaluated, dict)
    assert {k: v for k, v in evaluated.items() if not (case["masked"] and "weighted" in k)} == pytest.approx(
        {k: v for k, v in case["evaluated"].items() if not (case["masked"] and "weighted" in k)}, rel=1e-4
    )


@pytest.mark.anyio
async def test_a_weighted_metric_counts_what_is_not_masked_by_its_weight() -> None:
    case, model = CASES["huber"], made(CASES["huber"])
    y, w = data(case)
    error = np.abs(await model.predict(X) - y).mean(-1)
    counted = w * (X != 0).any(-1)
    evaluated = await model.evaluate(X, y, sample_weight=w, batch_size=5, return_dict=True)
    assert isinstance(evaluated, dict)
    assert evaluated["weighted_mae"] == pytest.approx((error * counted).sum() / counted.sum(), rel=1e-5)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["list", "generator", "async iterator"])
async def test_they_come_with_batches(kind: str) -> None:
    case, model = CASES["labels_masked"], made(CASES["labels_masked"])
    y, w = data(case)

    async def later() -> AsyncIterator[tuple[npt.NDArray[Any], ...]]:
        for _ in range(3):
            for batch in batches(y, w):
                yield batch

    def now() -> Iterator[tuple[npt.NDArray[Any], ...]]:
        for _ in range(3):
            yield from batches(y, w)

    given: Any = {"list": lambda: list(batches(y, w)), "generator": now, "async iterator": later}[kind]()
    steps: dict[str, Any] = {} if kind == "list" else {"steps_per_epoch": 3}
    history = await model.fit(given, validation_data=(X[:4], y[:4], w[:4]), **HOW, **steps)
    same(history.history, case)


@pytest.mark.anyio
async def test_weights_that_fit_no_step_are_refused_before_anything_began() -> None:
    model = made(CASES["numbers"])
    y, _ = data(CASES["numbers"])
    for bad in (np.ones((12, 4)), np.ones((12, 5, 2)), np.ones((12, 5, 3))):
        with pytest.raises(InvalidInput, match=r"sample_weight has (the )?shape \((12|rows), .*\(rows, (5|steps)\)"):
            await model.fit(X, y, sample_weight=bad)
    flat = Sequential([layers.Dense(2)])
    flat.compile("sgd", "mse")
    with pytest.raises(InvalidInput, match="sample_weight has the shape"):
        await flat.fit(X[:, 0], y[:, 0], sample_weight=np.ones((12, 2)))
    with pytest.raises(InvalidInput, match="sample_weight"):
        await flat.fit([(X[:, 0], y[:, 0], np.ones((12, 2)))])
    with pytest.raises(InvalidInput, match="class_weight needs one class a row"):
        await made(CASES["labels"]).fit(X, data(CASES["labels"])[0], class_weight={0: 2.0})

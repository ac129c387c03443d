"""Each metric against Keras: the same value over two batches, with and without sample weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncfit import metrics
from asyncfit.nn import Learner, Network, quiet
from asyncfit.nn.arrays import Array
from asyncfit.nn.layers import Activation, Input
from asyncfit.nn.metrics import KINDS, Metric, config, get

FILE = json.loads((Path(__file__).parents[1] / "data" / "keras_metrics.json").read_text())
WEIGHTS = np.array(FILE["weights"], np.float32)
CASES: list[dict[str, Any]] = FILE["cases"]


def title(case: dict[str, Any]) -> str:
    settings = "".join(f" {key}={value}" for key, value in case["settings"].items())
    return f"{case['class']}{settings} of {case['data']}"


def learner(metric: Metric, y: Array, p: Array) -> Learner:
    """Gives its inputs as outputs."""
    loss = "mse" if y.shape == p.shape else "sparse_categorical_crossentropy"
    return Learner(
        Network([Input(p.shape[1]), Activation("linear")]), loss=loss, metrics=[metric], weighted_metrics=[metric]
    )


def over_the_epoch(one: Learner, y: Array, p: Array) -> tuple[list[float], list[float]]:
    """The values of the metric without and with weights, after batches of 15 and 9."""
    means: dict[str, float] = {}
    one.begin_test()
    for rows in (slice(0, 15), slice(15, None)):
        for key, value in one.test_batch(p[rows], y[rows], WEIGHTS[rows]).items():
            means[key] = means.get(key, 0.0) + value * len(p[rows]) / len(p)
    found = means | one.end_test()
    keys = [key for key in one.metric_directions if not key.startswith("weighted_")]
    return [found[key] for key in keys], [found[f"weighted_{key}"] for key in keys]


@pytest.mark.parametrize("case", CASES, ids=title)
def test_it_says_what_keras_says(case: dict[str, Any]) -> None:
    data = FILE["data"][case["data"]]
    y, p = np.array(data["y"]), np.array(data["p"], np.float32)
    metric = getattr(metrics, case["class"])(**case["settings"])
    plain, weighted = over_the_epoch(learner(metric, y, p), y, p)
    np.testing.assert_allclose(plain, np.reshape(case["plain"], -1), rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(weighted, np.reshape(case["weighted"], -1), rtol=2e-5, atol=1e-6)


def test_every_metric_is_compared() -> None:
    assert {case["class"] for case in CASES} == {cls.__name__ for cls in KINDS}


@pytest.mark.parametrize("case", CASES, ids=title)
def test_settings_survive_a_file(case: dict[str, Any]) -> None:
    metric = getattr(metrics, case["class"])(**case["settings"], name="mine")
    again = get(json.loads(json.dumps(config(metric))))
    assert isinstance(again, type(metric))
    assert repr(again) == repr(metric)
    for key, value in case["settings"].items():
        settings = again.get_config()
        assert settings[key] == (sorted(value) if case["class"] == "AUC" and key == "thresholds" else value)


@pytest.mark.parametrize("case", CASES, ids=title)
def test_what_is_no_number_ends_no_training(case: dict[str, Any]) -> None:
    """Whoever stops at a NaN must live to see it."""
    data = FILE["data"][case["data"]]
    y, p = np.array(data["y"]), np.array(data["p"], np.float32)
    p[3:6] = np.array([np.nan, np.inf, -np.inf])[:, None]
    metric = getattr(metrics, case["class"])(**case["settings"])
    one = Learner(
        Network([Input(p.shape[1]), Activation("linear")]),
        loss="mse" if y.shape == p.shape else "sparse_categorical_crossentropy",
        metrics=[metric],
    )

    with quiet():
        one.test_batch(p, y)
        one.end_test()

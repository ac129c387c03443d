"""Makes `keras_metrics.json`: what Keras's metrics say of given targets, outputs and weights; and two models before
training, `keras_metrics.h5` and `keras_metrics_masked.h5`, with what Keras reports of it.

    KERAS_BACKEND=torch python tests/data/make_keras_metrics.py

Each case is a metric's class and settings, and data by name; its values are those after two updates, without sample
weights and with them. Targets and outputs stand beside them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np

HERE = Path(__file__).parent
RNG = np.random.default_rng(20)
ROWS = 24


def data() -> dict[str, tuple[Any, Any]]:
    """Targets and outputs by name."""
    one = RNG.random((ROWS, 1)).astype(np.float32)
    one[:4, 0] = 0.0, 0.5, 1.0, 0.25
    shares = RNG.dirichlet(np.ones(4), ROWS).astype(np.float32)
    labels = RNG.integers(0, 4, ROWS)
    numbers = RNG.standard_normal((ROWS, 3)).astype(np.float32)
    return {
        "binary": (RNG.integers(0, 2, (ROWS, 1)), one),
        "several": (RNG.integers(0, 2, (ROWS, 3)), RNG.random((ROWS, 3)).astype(np.float32)),
        "logits": (RNG.integers(0, 2, (ROWS, 1)), 3 * RNG.standard_normal((ROWS, 1)).astype(np.float32)),
        "classes": (np.eye(4)[labels], shares),
        "labels": (labels, shares),
        "numbers": (numbers + RNG.standard_normal((ROWS, 3)), numbers),
        "counts": (RNG.integers(0, 5, (ROWS, 2)), (5 * RNG.random((ROWS, 2))).astype(np.float32)),
        "ids": (RNG.integers(0, 3, (ROWS, 1)), RNG.integers(0, 3, (ROWS, 1)).astype(np.float32)),
    }


CASES: list[tuple[str, dict[str, Any], list[str]]] = [
    ("Accuracy", {}, ["ids"]),
    ("BinaryAccuracy", {"threshold": 0.3}, ["binary", "several"]),
    ("CategoricalAccuracy", {}, ["classes"]),
    ("SparseCategoricalAccuracy", {}, ["labels"]),
    ("TopKCategoricalAccuracy", {"k": 2}, ["classes"]),
    ("SparseTopKCategoricalAccuracy", {"k": 3}, ["labels"]),
    ("TruePositives", {}, ["binary", "several"]),
    ("TrueNegatives", {"thresholds": 0.25}, ["binary"]),
    ("FalsePositives", {"thresholds": [0.7, 0.2]}, ["binary"]),
    ("FalseNegatives", {"thresholds": [0.0, 0.5, 1.0]}, ["binary", "several"]),
    ("Precision", {}, ["binary", "several", "classes"]),
    ("Precision", {"top_k": 2, "class_id": 1}, ["classes"]),
    ("Precision", {"thresholds": [0.9, 0.1, 0.4]}, ["binary"]),
    ("Recall", {}, ["binary", "several", "classes"]),
    ("Recall", {"top_k": 1}, ["classes"]),
    ("Recall", {"class_id": 2, "thresholds": 0.2}, ["classes"]),
    ("AUC", {}, ["binary", "several", "classes"]),
    ("AUC", {"num_thresholds": 2}, ["binary"]),
    ("AUC", {"num_thresholds": 20, "curve": "PR"}, ["binary", "several"]),
    ("AUC", {"num_thresholds": 20, "curve": "PR", "summation_method": "majoring"}, ["binary"]),
    ("AUC", {"num_thresholds": 20, "curve": "PRGAIN"}, ["binary"]),
    ("AUC", {"num_thresholds": 20, "summation_method": "minoring"}, ["binary"]),
    ("AUC", {"thresholds": [0.8, 0.1, 0.3]}, ["binary", "several"]),
    ("AUC", {"multi_label": True}, ["several"]),
    ("AUC", {"multi_label": True, "label_weights": [0.2, 3.0, 1.0], "curve": "PR"}, ["several"]),
    ("AUC", {"label_weights": [0.2, 3.0, 1.0]}, ["several"]),
    ("AUC", {"from_logits": True}, ["logits"]),
    ("SensitivityAtSpecificity", {"specificity": 0.6}, ["binary", "several"]),
    ("SpecificityAtSensitivity", {"sensitivity": 0.6, "num_thresholds": 1}, ["binary"]),
    ("SpecificityAtSensitivity", {"sensitivity": 0.4}, ["several"]),
    ("PrecisionAtRecall", {"recall": 0.5, "num_thresholds": 40}, ["binary"]),
    ("RecallAtPrecision", {"precision": 0.6, "class_id": 1}, ["classes"]),
    ("F1Score", {}, ["classes", "several"]),
    ("F1Score", {"average": "micro"}, ["classes"]),
    ("F1Score", {"average": "macro", "threshold": 0.4}, ["several"]),
    ("FBetaScore", {"average": "weighted", "beta": 2.0}, ["classes"]),
    ("R2Score", {}, ["numbers", "counts"]),
    ("R2Score", {"class_aggregation": None}, ["numbers"]),
    ("R2Score", {"class_aggregation": "variance_weighted_average", "num_regressors": 2}, ["numbers"]),
    ("RootMeanSquaredError", {}, ["numbers"]),
    ("MeanSquaredError", {}, ["numbers"]),
    ("MeanAbsoluteError", {}, ["numbers"]),
    ("MeanAbsolutePercentageError", {}, ["numbers", "counts"]),
    ("MeanSquaredLogarithmicError", {}, ["numbers", "counts"]),
    ("LogCoshError", {}, ["numbers"]),
    ("CosineSimilarity", {}, ["numbers"]),
    ("PearsonCorrelation", {}, ["numbers"]),
    ("ConcordanceCorrelation", {}, ["numbers"]),
    ("Poisson", {}, ["counts"]),
    ("KLDivergence", {}, ["classes"]),
    ("BinaryCrossentropy", {"label_smoothing": 0.1}, ["binary", "several"]),
    ("BinaryCrossentropy", {"from_logits": True}, ["logits"]),
    ("CategoricalCrossentropy", {"label_smoothing": 0.2}, ["classes"]),
    ("SparseCategoricalCrossentropy", {}, ["labels"]),
    ("Hinge", {}, ["binary", "numbers"]),
    ("SquaredHinge", {}, ["binary", "numbers"]),
    ("CategoricalHinge", {}, ["classes"]),
    ("BinaryIoU", {"target_class_ids": [1], "threshold": 0.4}, ["binary"]),
    ("IoU", {"num_classes": 3, "target_class_ids": [0, 2]}, ["ids"]),
    ("MeanIoU", {"num_classes": 3, "ignore_class": 1}, ["ids"]),
    ("MeanIoU", {"num_classes": 4, "sparse_y_pred": False}, ["labels"]),
    ("OneHotIoU", {"num_classes": 4, "target_class_ids": [1, 3]}, ["classes"]),
    ("OneHotMeanIoU", {"num_classes": 4}, ["classes"]),
]  # fmt: skip


def value(cls: str, settings: dict[str, Any], y: Any, p: Any, w: Any) -> Any:
    """After two updates, of unequal size."""
    metric = getattr(keras.metrics, cls)(**settings)
    for rows in (slice(0, 15), slice(15, None)):
        metric.update_state(y[rows], p[rows], None if w is None else w[rows])
    return np.asarray(keras.ops.convert_to_numpy(metric.result()), float).tolist()


def bias(y_true: Any, y_pred: Any) -> Any:
    """A function of one's own."""
    return keras.ops.mean(y_pred - y_true, axis=-1)


def run(model: Any, name: str, x: Any, y: Any, w: Any, metrics: list[Any], weighted: list[Any]) -> dict[str, Any]:
    """Save the model, train it for three epochs, and evaluate it."""
    model.compile(keras.optimizers.SGD(0.2), "binary_crossentropy", metrics=metrics, weighted_metrics=weighted)
    model.save(HERE / name)
    half = len(x) // 2
    history = model.fit(
        x[:half], y[:half], sample_weight=None if w is None else w[:half], batch_size=8, epochs=3, shuffle=False,
        validation_data=(x[half:], y[half:]) if w is None else (x[half:], y[half:], w[half:]), verbose=0,
    ).history  # fmt: skip
    figures = model.evaluate(x, y, sample_weight=w, batch_size=8, verbose=0, return_dict=True)
    weights = None if w is None else w.tolist()
    return {"file": name, "x": x.tolist(), "y": y.tolist(), "w": weights, "history": history, "evaluate": figures}


def runs() -> list[dict[str, Any]]:
    """Rows; and sequences of which steps are masked."""
    keras.utils.set_random_seed(3)
    m, layers = keras.metrics, keras.layers
    rows = keras.Sequential([layers.Input((4,)), layers.Dense(3, "tanh"), layers.Dense(2, "sigmoid")])
    x = RNG.standard_normal((40, 4)).astype(np.float32).round(3)
    y = (x[:, :2] + RNG.standard_normal((40, 2)) > 0).astype(int)
    metrics = [
        "auc", "mse", "mape", m.AUC(curve="PR", num_thresholds=30, name="pr"), m.Precision(name="precision"),
        m.Recall(thresholds=0.4, class_id=1, name="recall"), bias, m.F1Score("macro", name="f1"), m.R2Score(name="r2"),
        m.BinaryIoU(name="iou"), "kl_divergence", m.RootMeanSquaredError(name="rmse"), "cosine_similarity",
    ]  # fmt: skip
    weighted = ["auc", "mae", bias, m.Precision(name="exact"), m.BinaryAccuracy(name="hits", threshold=0.4)]
    first = run(rows, "keras_metrics.h5", x, y, RNG.random(40).round(3), metrics, weighted)

    steps = keras.Sequential(
        [layers.Input((5, 3)), layers.Masking(), layers.Dense(4, "tanh"), layers.Dense(1, "sigmoid")]
    )
    x = RNG.standard_normal((24, 5, 3)).astype(np.float32).round(3)
    for row, length in enumerate(RNG.integers(1, 6, 24)):
        x[row, length:] = 0
    y = (x[..., :1] > 0.1).astype(int)
    metrics = ["accuracy", "mse", m.BinaryAccuracy(name="hits"), m.RootMeanSquaredError(name="rmse")]
    second = run(steps, "keras_metrics_masked.h5", x, y, None, metrics, ["mae"])
    return [first, second]


def main() -> None:
    sets, weights = data(), RNG.integers(0, 4, ROWS).astype(np.float32)
    whole = [value(cls, how, *sets[of], w) for cls, how, names in CASES for of in names for w in (None, weights)]
    found = iter(whole)
    cases = [
        {"class": cls, "settings": how, "data": of, "plain": next(found), "weighted": next(found)}
        for cls, how, names in CASES
        for of in names
    ]
    document = {
        "keras": keras.__version__,
        "data": {name: {"y": np.asarray(y).tolist(), "p": p.tolist()} for name, (y, p) in sets.items()},
        "weights": weights.tolist(),
        "cases": cases,
        "runs": runs(),
    }
    (HERE / "keras_metrics.json").write_text(json.dumps(document) + "\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()

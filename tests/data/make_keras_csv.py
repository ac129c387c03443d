"""Makes `keras_csv.json`: the files that Keras's `CSVLogger` writes for generated logs. Keras 3.15.1 made it.

::

    KERAS_BACKEND=torch python tests/data/make_keras_csv.py

The file holds `keras` (the version) and `cases`: `separator`, `append`, `before` (what is in the file at first, null
without a file), `runs` (for each run, one after the other with the same callback, the logs of its epochs) and `after`
(the file's text). What is no JSON in the logs is a list with one word in front: `["float", "nan"]`,
`["array", [1.0, 2.0]]` and `["scalar", 1.5]` (an array without dimensions).
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["main", "value"]

HERE = Path(__file__).parent
NAMES = ["loss", "accuracy", "mae", "learning_rate", "Größe", "a,b", 'say "x"', "epoch", "two words", "valid", "z;y"]
FLOATS = [0.0, -0.0, 1.0, 0.1, 1e-7, 1e16, 123456.789, 3.4e38, 1e-300, 2.0**53]
BEFORE = ["", "\n", "epoch,loss\r\n0,1.5\r\n", "whatever\n"]


def value(given: Any) -> Any:
    """What a value in the file stands for."""
    if not isinstance(given, list):
        return given
    kind, content = given
    return float(content) if kind == "float" else np.array(content)


def one_value(rng: random.Random) -> Any:
    kind = rng.random()
    if kind < 0.70:
        return rng.choice([rng.random(), rng.gauss(0, 1e3), rng.choice(FLOATS)])
    if kind < 0.80:
        return ["float", rng.choice(["nan", "inf", "-inf"])]
    if kind < 0.85:
        return rng.choice(["text", "NA", "with, comma", 'with "quotes"', "", "two\nlines"])
    if kind < 0.90:
        return ["array", [rng.random() for _ in range(rng.randint(0, 3))]]
    if kind < 0.94:
        return ["scalar", rng.random()]
    return rng.choice([rng.randint(-5, 1000), True, False, None])


def one_run(rng: random.Random) -> list[dict[str, Any]]:
    names = rng.sample(NAMES, rng.randint(0 if rng.random() < 0.1 else 1, 5))
    if rng.random() < 0.5:
        names += [f"val_{name}" for name in names if rng.random() < 0.8]
    epochs = []
    for _ in range(rng.randint(0 if rng.random() < 0.1 else 1, 5)):
        mine = [name for name in names if rng.random() < 0.9]
        if rng.random() < 0.2:
            mine.append(rng.choice(["late", "val_late", "val_loss"]))
        rng.shuffle(mine)
        epochs.append({name: one_value(rng) for name in mine})
    return epochs


def main() -> None:
    import keras  # type: ignore[import-not-found,unused-ignore]

    rng = random.Random(7)
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(160):
            append = rng.random() < 0.4
            before = rng.choice([None, *BEFORE])
            separator = rng.choice([",", ",", ",", ";", "\t", "|", " "])
            runs = [one_run(rng) for _ in range(rng.choice([1, 1, 1, 2]))]
            path = Path(folder) / f"{number}.csv"
            if before is not None:
                path.write_bytes(before.encode())
            logger = keras.callbacks.CSVLogger(str(path), separator=separator, append=append)
            for run in runs:
                logger.on_train_begin()
                for epoch, logs in enumerate(run):
                    logger.on_epoch_end(epoch, {name: value(given) for name, given in logs.items()})
                logger.on_train_end()
            after = path.read_bytes().decode()
            cases.append({"separator": separator, "append": append, "before": before, "runs": runs, "after": after})
    out = {"keras": keras.__version__, "cases": cases}
    (HERE / "keras_csv.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()

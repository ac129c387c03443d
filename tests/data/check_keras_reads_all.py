"""`check_keras_reads.py` for each whole model `<name>.h5` in a folder, in one process. Needs Keras.

::

    KERAS_BACKEND=torch python tests/data/check_keras_reads_all.py folder [tolerance]

Then `<name>.weights.h5` is loaded into the model, its weights set to 0 before: it must predict the same. Keras's own
`keras_<name>.weights.h5` of it stays in the folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import keras  # type: ignore[import-not-found,unused-ignore]
import numpy as np
from check_keras_reads import main as check  # type: ignore[import-not-found,unused-ignore]

__all__ = ["main"]


def main(folder: str, tolerance: str = "2e-5") -> int:
    failed = 0
    for path in sorted(Path(folder).glob("*.h5")):
        if path.name.endswith(".weights.h5"):
            continue
        print(f"{path}:")
        failed += check(str(path), None, tolerance)
        want = json.loads(Path(f"{path}.json").read_text())
        model = keras.models.load_model(path)
        model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
        model.load_weights(path.with_name(f"{path.stem}.weights.h5"))
        gap = np.abs(model.predict(np.array(want["x"], np.float32), verbose=0) - np.array(want["predictions"])).max()
        print(f"predictions with the weights file: largest difference {gap:.3g}")
        failed += not gap <= float(tolerance)
        model.save_weights(path.with_name(f"keras_{path.stem}.weights.h5"))
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

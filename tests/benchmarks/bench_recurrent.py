"""An LSTM against the loop written by hand, interleaved in one process: `python -m tests.benchmarks.bench_recurrent`.

Both must give the same losses first. Other libraries: `bench_models W5 W6 --peers`.
"""

from __future__ import annotations

import sys

import numpy as np

from asyncfit.layers import LSTM, Dense, Input
from asyncfit.nn import Learner, Network

from .bench_engine import compare
from .handwritten_recurrent import HandwrittenLSTM


def main(repeats: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 32, 16)).astype(np.float32)
    y = rng.integers(0, 10, 64)
    network = Network([Input((32, 16)), LSTM(64), Dense(10, activation="softmax")], seed=0)
    learner = Learner(network, loss="sparse_categorical_crossentropy", optimizer="adam")
    hand = HandwrittenLSTM(network.get_weights(), 64, 32)
    for _ in range(20):
        ours, theirs = learner.train_batch(x, y)["loss"], hand.step(x, y)
        assert abs(ours - theirs) < 1e-4 * theirs, (ours, theirs)
    compare(
        "LSTM(64) on 32×16, batch 64, Adam", lambda: learner.train_batch(x, y), lambda: hand.step(x, y), 10, repeats
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 21)

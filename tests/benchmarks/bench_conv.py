"""Convolutions against a loop written by hand with im2col, interleaved in one process; with `--peers` against others.

    python -m tests.benchmarks.bench_conv [rounds] [--peers] [--python OTHER_INTERPRETER …]

The network is W4: 28×28×1, conv 16, pool, conv 32, pool, dense 64, Adam, batch 64. Both must have the same losses.
Peers run as `bench_models W4` runs them: each in a process of its own, round by round.
"""

from __future__ import annotations

import argparse

import numpy as np

from asyncfit.layers import Conv2D, Dense, Flatten, Input, MaxPooling2D
from asyncfit.nn import Learner, Network

from .bench_engine import compare
from .bench_models import compare as compare_peers
from .contenders import CONTENDERS
from .handwritten_convolution import HandwrittenConvolution

BATCH = 64


def network() -> Network:
    layers = [Conv2D(16, 3, activation="relu"), MaxPooling2D(), Conv2D(32, 3, activation="relu"), MaxPooling2D()]
    return Network([Input((28, 28, 1)), *layers, Flatten(), Dense(64, "relu"), Dense(10, "softmax")], seed=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rounds", nargs="?", type=int, default=21)
    parser.add_argument("--peers", action="store_true", help="compare with other libraries, too")
    parser.add_argument("--python", action="append", default=[], help="an interpreter that has peers; may be repeated")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((BATCH, 28, 28, 1)).astype(np.float32), rng.integers(0, 10, BATCH)
    made = network()
    learner = Learner(made, loss="sparse_categorical_crossentropy", optimizer="adam")
    hand = HandwrittenConvolution(made.get_weights(), BATCH, 28, 28)
    for _ in range(5):
        np.testing.assert_allclose(learner.train_batch(x, y)["loss"], hand.step(x, y), rtol=1e-4)
    compare("W4", lambda: learner.train_batch(x, y), lambda: hand.step(x, y), 10, given.rounds)
    if given.peers:
        compare_peers("W4", list(CONTENDERS), given.python, given.rounds)


if __name__ == "__main__":
    main()

"""Which rows an epoch sees."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asyncfit.data import EpochRange, epoch_range, permutation


def keras_epochs(batches: int, steps_per_epoch: int | None, epochs: int) -> list[EpochRange]:
    """As Keras's EpochIterator goes on through an iterator: one epoch after the other, with what it remembers."""
    ranges, number, seen = [], 0, 0
    for _ in range(epochs):
        first = seen
        for _ in range(steps_per_epoch or batches):
            if seen >= batches:
                break
            seen += 1
        ranges.append(EpochRange(number, first, seen - first))
        if seen >= batches:
            number, seen = number + 1, 0
    return ranges


@given(st.integers(1, 40), st.none() | st.integers(1, 50), st.integers(1, 60))
def test_epochs_go_on_through_a_pass_as_in_keras(batches: int, steps: int | None, epochs: int) -> None:
    assert [epoch_range(e, batches, steps) for e in range(epochs)] == keras_epochs(batches, steps, epochs)


def test_what_keras_3_15_1_did_with_four_batches() -> None:
    assert [epoch_range(e, 4, 3).steps for e in range(5)] == [3, 1, 3, 1, 3]
    assert [epoch_range(e, 4, 6).steps for e in range(3)] == [4, 4, 4]


@given(st.integers(1, 500), st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(0, 2**40))
def test_a_permutation_is_one_and_always_the_same(rows: int, seed: int, fit: int, number: int) -> None:
    order = permutation(rows, (seed, fit), number)
    assert sorted(order.tolist()) == list(range(rows))
    np.testing.assert_array_equal(order, permutation(rows, (seed, fit), number))


def test_seed_fit_and_pass_each_make_another_order() -> None:
    orders = [permutation(50, key, number).tolist() for key, number in [((0, 0), 0), ((1, 0), 0), ((0, 1), 0),
                                                                        ((0, 0), 1)]]  # fmt: skip
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_is_the_one_of_the_first_release() -> None:
    """A NumPy that shuffles otherwise would break resuming without a word."""
    assert permutation(10, (7, 1), 3).tolist() == [0, 6, 1, 9, 7, 2, 3, 5, 4, 8]

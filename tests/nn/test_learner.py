"""The learner: what a batch returns, state, randomness, odd inputs, prediction beside training."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncfit.errors import InvalidInput
from asyncfit.nn import Learner, Network, quiet
from asyncfit.nn.arrays import Array
from asyncfit.nn.layers import Dense, Dropout, Flatten, Input
from asyncfit.nn.optimizers import Adam

from .helpers import toy

X, Y = toy()


def learner(dropout: float = 0.0, **how: Any) -> Learner:
    layers = [Input(4), Dense(8, activation="relu"), Dropout(dropout), Dense(1, activation="sigmoid")]
    return Learner(Network(layers, seed=3), **{"loss": "binary_crossentropy", "optimizer": "adam", **how})


def train(one: Learner, batches: int = 12, first: int = 0) -> list[dict[str, float]]:
    logs = []
    for step in range(first, first + batches):
        rows = slice(step * 8 % 64, step * 8 % 64 + (5 if step % 4 == 3 else 8))
        if one.random:
            one.seek((9, 1), step // 4, step)
        logs.append(one.train_batch(X[rows], Y[rows]))
    return logs


def copied(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in state.items()}


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_same_batches_give_the_same_bits(dropout: float) -> None:
    first, second = learner(dropout), learner(dropout)
    assert train(first) == train(second)
    assert first.network.params.tobytes() == second.network.params.tobytes()


def test_another_thread_gives_the_same_bits() -> None:
    here, there = learner(0.3), learner(0.3)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(train(there)))
    thread.start()
    thread.join()
    assert train(here) == found


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_loaded_state_is_replayed_to_the_bit(dropout: float) -> None:
    one = learner(dropout)
    train(one, 5)
    state = copied(one.state())
    expected = train(one, 7, first=5)
    one.learning_rate = 0.7
    one.load_state(state)
    assert one.learning_rate == state["learning_rate"]
    assert train(one, 7, first=5) == expected
    other = learner(dropout)
    other.load_state(state)
    assert train(other, 7, first=5) == expected


def test_the_state_is_live_and_plain() -> None:
    one = learner()
    state = one.state()
    assert set(state) == {
        "params",
        "learning_rate",
        "fits",
        "optimizer/iteration",
        "optimizer/momentum",
        "optimizer/velocity",
    }
    before = state["params"].copy()
    train(one, 1)
    assert not np.array_equal(state["params"], before)
    assert one.state()["optimizer/iteration"] == 1


def test_weights_alone_leave_the_optimizer_as_it_is() -> None:
    one = learner()
    train(one, 3)
    kept = copied(one.weights_state())
    train(one, 3)
    momentum = one.state()["optimizer/momentum"].copy()
    one.load_weights_state(kept)
    assert one.network.params.tobytes() == kept["params"].tobytes()
    assert one.optimizer.iterations == 6
    np.testing.assert_array_equal(one.state()["optimizer/momentum"], momentum)


def pickled(one: Learner) -> Learner:
    again = pickle.loads(pickle.dumps(one))
    assert isinstance(again, Learner)
    return again


@pytest.mark.parametrize("copied_by", [copy.deepcopy, pickled])
def test_a_copy_goes_on_with_the_same_bits_and_on_its_own(copied_by: Callable[[Learner], Learner]) -> None:
    one = learner(0.5, metrics=["accuracy"])
    train(one, 5)
    other = copied_by(one)
    assert train(one, 7, first=5) == train(other, 7, first=5)
    assert not np.shares_memory(one.network.params, other.network.params)
    assert np.shares_memory(other.network.params, other.network.layers[0].arrays["kernel"])
    assert other.network.layers[0].activation is one.network.layers[0].activation


BAD_STATES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda s: s.pop("optimizer/momentum"), "differing: optimizer/momentum"),
    (lambda s: s.update(extra=1), "differing: extra"),
    (lambda s: s.update(params=np.zeros(3)), r"'params' of the state has the shape \(3,\)"),
]


def test_a_state_is_a_mapping() -> None:
    with pytest.raises(InvalidInput, match=r"a state is what state\(\) returns.*not None"):
        learner().load_state(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("spoil", "message"), BAD_STATES)
def test_a_state_that_does_not_fit_changes_nothing(spoil: Callable[[dict[str, Any]], object], message: str) -> None:
    one = learner()
    before = one.network.params.tobytes()
    state = {k: v + 1 for k, v in copied(one.state()).items()}
    spoil(state)
    with pytest.raises(InvalidInput, match=message):
        one.load_state(state)
    assert one.network.params.tobytes() == before


# Dropout


def masks(one: Learner, key: tuple[int, int], epoch: int, step: int) -> bytes:
    weights = one.network.params.copy()
    one.seek(key, epoch, step)
    one.train_batch(X, Y)
    changed = one.network.params.tobytes()
    one.network.params[...] = weights
    return changed


def test_dropout_is_a_function_of_seed_fit_epoch_and_step() -> None:
    one = learner(0.5, optimizer="sgd")
    first = masks(one, (1, 0), 0, 0)
    assert masks(one, (1, 0), 0, 0) == first
    others = {masks(one, (2, 0), 0, 0), masks(one, (1, 1), 0, 0), masks(one, (1, 0), 1, 0), masks(one, (1, 0), 0, 1)}
    assert len(others | {first}) == 5


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean(rate: float) -> None:
    network = Network([Input(1000), Dropout(rate), Dense(1, use_bias=False, kernel_initializer="ones")], seed=1)
    one = Learner(network, loss="mae", optimizer="sgd")
    one.learning_rate = 0.0
    one.seek((1, 2), 3, 4)
    mean = one.train_batch(np.ones((100, 1000)), np.zeros((100, 1)))["loss"] / 1000
    assert mean == pytest.approx(1, abs=5 * np.sqrt(rate / (1 - rate) / 1e5))
    kernel_grad = one._grads  # each is the mean of 100 scaled zeros and ones: the share that was kept
    assert float((kernel_grad * (1 - rate)).mean()) == pytest.approx(1 - rate, abs=0.01)


def test_layers_drop_independently_and_a_seed_selects_another_stream() -> None:
    def kept(**how: Any) -> bytes:
        network = Network([Input(64), Dropout(0.5, **how), Dense(1, use_bias=False)], seed=1)
        one = Learner(network, loss="mae", optimizer="sgd")
        one.seek((1, 0), 0, 0)
        one.train_batch(np.ones((1, 64)), np.full((1, 1), -9.0))
        return bytes(one._grads != 0)

    assert kept() == kept()
    assert len({kept(), kept(seed=1), kept(seed=2)}) == 3


def test_dropout_does_nothing_outside_training() -> None:
    with_it, without = learner(0.5), learner(0.0)
    assert with_it.test_batch(X, Y) == without.test_batch(X, Y)
    np.testing.assert_array_equal(with_it.predict(X), without.predict(X))


def test_without_seek_steps_still_differ() -> None:
    one = learner(0.5, optimizer="sgd")
    one.learning_rate = 0.0
    assert one.random
    assert len({one.train_batch(X, Y)["loss"] for _ in range(5)}) == 5
    assert not learner(0.0).random


# Inputs


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.uint8, np.bool_])
def test_other_number_types_are_converted(dtype: type) -> None:
    x: Array = (np.abs(X) * 3).astype(dtype)
    y: Array = Y.astype(dtype)
    one, other = learner(), learner()
    assert one.train_batch(x, y) == other.train_batch(x.astype(np.float32), y.astype(np.float32))


def test_lists_and_columns_are_taken() -> None:
    one, other = learner(), learner()
    assert one.train_batch(X.tolist(), Y[:, None].tolist()) == other.train_batch(X, Y)


def test_strided_input_is_taken() -> None:
    one, other = learner(), learner()
    assert one.train_batch(np.asfortranarray(X)[::2], Y[::2]) == other.train_batch(X[::2].copy(), Y[::2].copy())


def test_the_size_of_other_batches_does_not_matter() -> None:
    one, other = learner(), learner()
    for rows in (64, 3, 64, 1, 7, 64):
        one.test_batch(X[:rows], Y[:rows])
        assert one.train_batch(X[:rows], Y[:rows]) == other.train_batch(X[:rows], Y[:rows])


def test_weights_of_one_are_no_weights_and_zeros_leave_rows_out() -> None:
    one, other = learner(), learner()
    ones = np.ones(64, np.float32)
    assert one.test_batch(X, Y, ones)["loss"] == pytest.approx(other.test_batch(X, Y)["loss"], rel=1e-6)
    half = np.repeat(np.array([1, 0], np.float32), 32)
    assert one.test_batch(X, Y, half)["loss"] == pytest.approx(other.test_batch(X[:32], Y[:32])["loss"] / 2, rel=1e-6)


@pytest.mark.parametrize("loss", ["binary_crossentropy", "mse", "mae"])
def test_extreme_values_give_numbers_without_warnings(loss: str) -> None:
    one = learner(loss=loss, optimizer="sgd")
    for scale in (1e4, 1e8, -1e8):
        logs = one.train_batch(X * scale, Y)
        assert np.isfinite(logs["loss"])


@pytest.mark.parametrize("last", ["softmax", "sigmoid", "linear"])
def test_extreme_logits_of_classes_give_numbers(last: str) -> None:
    from asyncfit.nn.losses import SparseCategoricalCrossentropy

    network = Network([Input(4), Dense(3, activation=last)], seed=0)
    one = Learner(network, loss=SparseCategoricalCrossentropy(from_logits=last == "linear"), metrics="acc")
    network.params *= 1e3
    logs = one.train_batch(X, np.arange(64) % 3)
    assert np.isfinite(logs["loss"])
    assert np.isfinite(network.params).all()


def test_divergence_is_quiet_and_shows_in_the_loss() -> None:
    one = learner(loss="mse", optimizer="sgd")
    one.network.params *= 1e30
    with quiet():
        logs = [one.train_batch(X * 1e20, Y) for _ in range(3)]
    assert not np.isfinite(one.network.params).all() or np.isnan(logs[-1]["loss"])
    assert one.predict(X).shape == (64, 1)


def test_a_good_fit_still_has_an_exact_loss() -> None:
    network = Network([Input(1), Dense(1, activation="sigmoid", kernel_initializer="ones")])
    one = Learner(network, loss="binary_crossentropy")
    x = np.array([[12.0], [-12.0], [13.0]], np.float32)
    exact = np.mean(np.log1p(np.exp([-12.0, -12.0, -13.0])))
    assert one.test_batch(x, np.array([1, 0, 1], np.float32))["loss"] == pytest.approx(exact, rel=1e-6)


CHECKS: list[tuple[str, int, tuple[int, ...], tuple[int, ...], Any, Any, str]] = [
    # loss, units, shape of x, shape of y, type of y, range of y, message
    ("mse", 2, (8, 5), (8, 2), "f4", None, r"Dense 'dense' got samples of shape \(5,\) but expects \(4,\)"),
    ("mse", 2, (8, 2, 2), (8, 2), "f4", None, "put Flatten"),
    ("mse", 2, (8, 4), (7, 2), "f4", None, "x has 8 samples, but y has the shape"),
    ("mse", 2, (8, 4), (8, 3), "f4", None, "give the last layer 3 units"),
    ("mse", 2, (8, 4), (8,), "f4", None, r"needs y of that shape, not \(rows,\)"),
    ("mse", 2, (8, 4), (8, 2), "U3", None, "y must hold real numbers"),
    ("mse", 2, (8, 4), (8, 2), "c8", None, "y must hold real numbers"),
    ("bce", 1, (8, 4), (8, 2), "f4", None, "give the last layer 2 units"),
    ("categorical_crossentropy", 3, (8, 4), (8,), "i8", None, "use 'sparse_categorical_crossentropy'"),
    ("categorical_crossentropy", 1, (8, 4), (8, 1), "i8", None, "use 'binary_crossentropy'"),
    ("sparse_categorical_crossentropy", 3, (8, 4), (8, 3), "i8", None, "one-hot targets go with"),
    ("sparse_categorical_crossentropy", 1, (8, 4), (8,), "i8", None, "use 'binary_crossentropy'"),
    ("sparse_categorical_crossentropy", 3, (8, 4), (8,), "i8", (0, 3), "from 0 to 2, because .* y goes from 0 to 3"),
    ("sparse_categorical_crossentropy", 3, (8, 4), (8,), "i8", (1, 3), "need y - 1"),
    ("sparse_categorical_crossentropy", 3, (8, 4), (8,), "i8", (-1, 2), "y goes from -1"),
]


@pytest.mark.parametrize(("loss", "units", "x", "y", "kind", "limits", "message"), CHECKS)
def test_data_that_does_not_fit_is_refused_before_a_run(
    loss: str, units: int, x: tuple[int, ...], y: tuple[int, ...], kind: str, limits: Any, message: str
) -> None:
    one = Learner(Network([Input(4), Dense(units)]), loss=loss)
    with pytest.raises(InvalidInput, match=message):
        one.check_data(x, "f4", y, np.dtype(kind), y_limits=limits)


def test_check_data_builds_and_tells_the_type_for_targets() -> None:
    one = Learner(Network([Flatten(), Dense(3)]), loss="sparse_categorical_crossentropy", metrics=["acc", "accuracy"])
    assert one.check_data((8, 2, 2), "u1", (8,), "i8", y_limits=(0, 2), weight_shape=(8,)) == np.float32
    assert one.network.built
    assert one.wants_limits
    with pytest.raises(InvalidInput, match="sample_weight has the shape"):
        one.check_data((8, 2, 2), "u1", (8,), "i8", weight_shape=(8, 3))
    with pytest.raises(InvalidInput, match="x must hold real numbers"):
        one.check_data((8, 2, 2), "O", (8,), "i8")


def test_refused_batches_change_nothing() -> None:
    one = learner()
    before = one.network.params.tobytes()
    for x, y in ((X[:, :3], Y), (X[:5], Y), (X[:0], Y[:0])):
        with pytest.raises(InvalidInput):
            one.train_batch(x, y)
    assert one.network.params.tobytes() == before


def test_an_optimizer_belongs_to_one_model_and_begins_anew_with_it() -> None:
    adam = Adam()
    one = learner(optimizer=adam)
    train(one, 2)
    with pytest.raises(InvalidInput, match="belongs to another model"):
        learner(optimizer=adam)
    again = Learner(one.network, loss="mse", optimizer=adam)
    assert adam.iterations == 0
    assert not again.state()["optimizer/momentum"].any()


def test_layers_added_after_compile_are_noticed() -> None:
    one = learner()
    train(one, 1)
    one.network.add(Dense(1))
    for rows in (8, 64):
        with pytest.raises(InvalidInput, match="compile it again"):
            one.train_batch(X[:rows], Y[:rows])
    with pytest.raises(InvalidInput, match="compile it again"):
        one.state()


# Prediction


def test_prediction_is_the_same_in_parts() -> None:
    one = learner()
    whole = one.predict(X, batch_size=64)
    assert whole.shape == (64, 1)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(one.predict(X, batch_size=7), whole, rtol=1e-6)
    assert one.predict(X[:0]).shape == (0, 1)
    with pytest.raises(InvalidInput, match="batch_size must be a whole number from 1"):
        one.predict(X, batch_size=0)
    with pytest.raises(InvalidInput, match=r"got samples of shape \(\)"):
        one.predict(X[:, 0])


def test_predictions_run_beside_training_on_weights_of_their_own() -> None:
    one, alone = learner(0.3), learner(0.3)
    snapshot = one.network.params.copy()
    expected = one.predict(X, params=snapshot).tobytes()
    barrier = threading.Barrier(4)
    wrong: list[bool] = []

    def ask() -> None:
        barrier.wait()
        wrong.extend(one.predict(X, params=snapshot).tobytes() != expected for _ in range(100))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    barrier.wait()
    logs = train(one, 200)
    for thread in threads:
        thread.join()
    assert len(wrong) == 300
    assert not any(wrong)
    assert logs == train(alone, 200)
    assert one.network.params.tobytes() == alone.network.params.tobytes()


def test_it_learns() -> None:
    x, y = toy(512)
    one = learner(metrics=["accuracy"], optimizer=Adam(0.01))
    for step in range(400):
        rows = slice(step * 32 % 512, step * 32 % 512 + 32)
        one.train_batch(x[rows], y[rows])
    assert one.test_batch(x, y)["accuracy"] > 0.97

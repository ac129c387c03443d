"""Sequential: what Keras's `fit` and `evaluate` report, the same bits, a model in use, and bad input."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

from asyncfit.bus import EventBus
from asyncfit.callback import Callback
from asyncfit.errors import DetachedEvent, InvalidInput, ModelBusy, RunCancelled
from asyncfit.events import BatchBegin, BatchEnd, EpochBegin, EpochEnd, Event, LearningRateChanged, TrainBegin, TrainEnd
from asyncfit.layers import Dense, Dropout, Flatten, Input
from asyncfit.losses import BinaryCrossentropy
from asyncfit.optimizers import SGD, Adam
from asyncfit.protocol import Trainable
from asyncfit.reading import Reader
from asyncfit.run import Run
from asyncfit.sequential import Sequential
from asyncfit.snapshot import Snapshot

REFERENCE = json.loads((Path(__file__).parent / "data" / "keras_fit.json").read_text())
RNG = np.random.default_rng(7)
X = RNG.normal(size=(40, 4)).astype(np.float32)
Y = (X.sum(axis=1) > 0).astype(np.float32)


def small(*, dropout: float = 0.0, seed: int = 3, **how: Any) -> Sequential:
    """A compiled model on four features with one output."""
    layers = [Input(4), Dense(6, activation="relu"), Dropout(dropout), Dense(1, activation="sigmoid")]
    model = Sequential(layers, seed=seed)
    model.compile(**{"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["accuracy"], **how})
    return model


class Holds(Callback):
    """A gate that holds an epoch's end until it is told to go on, so that a run stays where it is."""

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch
        self.reached = anyio.Event()
        self.go_on = anyio.Event()
        self.snapshot: Snapshot | None = None

    async def on_epoch_end(self, event: EpochEnd) -> None:
        if event.epoch == self.epoch:
            self.snapshot = event.model
            self.reached.set()
            await self.go_on.wait()


# --- as Keras --------------------------------------------------------------------------------------------------------


def as_keras_had_it(kind: dict[str, Any]) -> Sequential:
    layers = [Input(4), Dense(5, activation="tanh"), Dense(kind["units"], activation=kind["activation"])]
    model = Sequential(layers)
    model.set_weights(kind["weights"])
    model.compile(optimizer=kind["optimizer"], loss=kind["loss"], metrics=kind["metrics"])
    return model


@pytest.mark.anyio
@pytest.mark.parametrize("case", REFERENCE["cases"])
async def test_fit_and_evaluate_report_what_keras_reports(case: str) -> None:
    told = REFERENCE["cases"][case]
    kind = REFERENCE["kinds"][told["kind"]]
    x, xv = (np.array(REFERENCE[name], np.float32) for name in ("x", "xv"))
    y, yv = np.array(kind["y"]), np.array(kind["yv"])
    how = dict(told["fit"])
    if "sample_weight" in how:
        how["sample_weight"] = REFERENCE["weights"]
    if "validation_data" in how:
        how["validation_data"] = (xv, yv)
    if "class_weight" in how:
        how["class_weight"] = {int(c): w for c, w in how["class_weight"].items()}
    model = as_keras_had_it(kind)
    history = await model.fit(x, y, shuffle=False, **how)
    assert set(history.history) == {*told["history"], "learning_rate"}
    for name, values in told["history"].items():
        np.testing.assert_allclose(history.history[name], values, rtol=2e-5, atol=2e-6, err_msg=name)
    figures = await model.evaluate(xv, yv, batch_size=7, return_dict=True)
    assert isinstance(figures, dict)
    assert set(figures) == set(told["evaluate"])
    for name, value in told["evaluate"].items():
        assert figures[name] == pytest.approx(value, rel=2e-5, abs=2e-6)


@pytest.mark.anyio
async def test_evaluate_gives_a_number_a_list_or_a_dict() -> None:
    model = small()
    loss, accuracy = await model.evaluate(X, Y)
    assert await model.evaluate(X, Y, return_dict=True) == {"loss": loss, "accuracy": accuracy}
    bare = small(metrics=None)
    assert await bare.evaluate(X, Y, verbose=2) == loss
    assert await bare.evaluate(X, Y, return_dict=True) == {"loss": loss}
    assert await bare.evaluate(X, Y, batch_size=10, steps=2) == pytest.approx(await bare.evaluate(X[:20], Y[:20]))


@pytest.mark.anyio
async def test_a_second_fit_goes_on_with_the_optimizer_and_compile_resets_it() -> None:
    model, other = small(), small()
    await model.fit(X, Y, epochs=2, shuffle=False)
    await other.fit(X, Y, epochs=1, shuffle=False)
    await other.fit(X, Y, epochs=1, shuffle=False)
    assert [w.tobytes() for w in model.get_weights()] == [w.tobytes() for w in other.get_weights()]
    assert model.state()["optimizer/iteration"] == 4
    model.compile("adam", "mse")
    assert model.state()["optimizer/iteration"] == 0
    assert not model.state()["optimizer/momentum"].any()


@pytest.mark.anyio
async def test_the_seed_of_fit_stands_in_for_that_of_the_model() -> None:
    async def weights(model_seed: int, seed: int | None) -> bytes:
        model = small(dropout=0.5, seed=3)
        model._network.seed = model_seed
        await model.fit(X, Y, epochs=2, batch_size=8, seed=seed)
        return b"".join(w.tobytes() for w in model.get_weights())

    assert await weights(3, None) == await weights(4, 3)
    assert await weights(3, None) != await weights(4, None)
    assert await weights(3, 5) != await weights(3, 6)


def test_the_same_bits_on_every_loop_and_for_every_lookahead() -> None:
    async def run(lookahead: int) -> bytes:
        model = small(dropout=0.3)
        await model.fit(X, Y, epochs=3, batch_size=8, lookahead=lookahead, validation_split=0.2, callbacks=Lowers())
        return b"".join(w.tobytes() for w in model.get_weights())

    class Lowers(Callback):
        async def on_epoch_end(self, event: EpochEnd) -> None:
            event.set_learning_rate(0.01 / (event.epoch + 2))

    runs = [(backend, ahead) for backend in ("asyncio", "trio") for ahead in (0, 1, 3)]
    assert len({anyio.run(run, ahead, backend=backend) for backend, ahead in runs}) == 1


@pytest.mark.anyio
async def test_the_shape_of_the_input_comes_from_whoever_knows_it_first() -> None:
    for first in (Dense(3, input_shape=(4,)), Dense(3, input_shape=[4])):
        assert Sequential([first]).count_params() == 15
    model = Sequential([Dense(3), Dense(1)], seed=1)
    assert model.get_weights() == []
    model.compile("sgd", "mse")
    await model.fit(X, Y)
    assert [w.shape for w in model.get_weights()] == [(4, 3), (3,), (3, 1), (1,)]
    asked = Sequential([Dense(3), Dense(1)], seed=1)
    assert (await asked.predict(X)).shape == (40, 1)
    for how in (X, X.tolist() * 100):
        late = Sequential([Dense(3)])
        late.compile("sgd", "mse")
        assert (await late.predict(how)).shape == (len(how), 3)
        later = Sequential([Dense(1)])
        later.compile("sgd", "mse")
        await later.evaluate(how, [[0.0]] * len(how))
        assert later.count_params() == 5
        latest = Sequential([Dense(1)])
        latest.compile("sgd", "mse")
        await latest.fit(how, [[0.0]] * len(how))
        assert latest.count_params() == 5


@pytest.mark.anyio
async def test_odd_arrays_are_taken_as_they_come() -> None:
    model = small()
    expected = await model.predict(X)
    assert expected.dtype == np.float32
    for given in (X.tolist(), X.astype(np.float64), np.asfortranarray(X), X[::-1][::-1]):
        np.testing.assert_allclose(await model.predict(given), expected, rtol=1e-5)
    np.testing.assert_array_equal(await model.predict(X, batch_size=16, steps=2), expected[:32])
    sparse = Sequential([Input((2, 2)), Flatten(), Dense(3, activation="softmax")])
    sparse.compile("sgd", "sparse_categorical_crossentropy", "accuracy")
    images = X.reshape(40, 2, 2)
    for labels in (np.arange(40) % 3, (np.arange(40) % 3).astype(np.uint8)[:, None], [float(n % 3) for n in range(40)]):
        await sparse.fit(images, labels, validation_split=0.5)


def test_plain_scripts_block() -> None:
    model = small()
    history = model.fit(X, Y, epochs=2).blocking()
    assert len(history.history["loss"]) == 2
    assert model.history is history
    assert model.predict(X).blocking().shape == (40, 1)


def test_what_a_model_tells_of_itself(capsys: pytest.CaptureFixture[str]) -> None:
    model = small(optimizer=SGD(0.5))
    assert model.name == "sequential"
    assert [layer.name for layer in model.layers] == ["dense", "dropout", "dense_1"]
    assert model.count_params() == 37
    assert model.optimizer is not None
    assert model.optimizer.learning_rate == model.learning_rate == 0.5
    model.optimizer.learning_rate = 0.25
    assert model.learning_rate == 0.25
    model.summary()
    printed = capsys.readouterr().out
    lines: list[str] = []
    model.summary(print_fn=lines.append)
    assert printed == "\n".join(lines) + "\n"
    assert "Total params: 37" in printed
    assert [entry["class_name"] for entry in model.get_config()["layers"]] == [
        "InputLayer",
        "Dense",
        "Dropout",
        "Dense",
    ]
    assert Sequential(name="mine").name == "mine"
    assert Sequential().optimizer is None
    assert repr(model) == "<Sequential sequential: Dense, Dropout, Dense>"
    assert isinstance(model, Trainable)


@pytest.mark.anyio
async def test_a_layer_added_later_keeps_the_weights_and_needs_a_new_compile() -> None:
    optimizer = Adam(0.01)
    model = small(optimizer=optimizer)
    await model.fit(X, Y)
    before = model.get_weights()
    middle = await model.predict(X)
    model.add(Dense(2))
    assert [w.tobytes() for w in model.get_weights()[:4]] == [w.tobytes() for w in before]
    kernel, bias = model.get_weights()[4:]
    np.testing.assert_allclose(await model.predict(X), middle @ kernel + bias, rtol=1e-5)
    with pytest.raises(InvalidInput, match="layers were added to 'sequential' after compile; compile it again"):
        model.fit(X, Y)
    model.compile(optimizer, "mse")
    assert model.state()["optimizer/iteration"] == 0
    await model.fit(X, np.stack([Y, Y], 1))


def pickled(model: Sequential) -> Sequential:
    again: Sequential = pickle.loads(pickle.dumps(model))
    return again


@pytest.mark.anyio
@pytest.mark.parametrize("copied_by", [copy.copy, copy.deepcopy, pickled])
async def test_a_copy_goes_on_with_the_same_bits_and_on_its_own(copied_by: Callable[[Sequential], Sequential]) -> None:
    model = small(dropout=0.4)
    await model.fit(X, Y, batch_size=8)
    other = copied_by(model)
    one = await model.fit(X, Y, batch_size=8, epochs=2)
    two = await other.fit(X, Y, batch_size=8, epochs=2)
    assert one.history == two.history
    model.set_weights([w * 0 for w in model.get_weights()])
    assert any(w.any() for w in other.get_weights())
    bare = copied_by(Sequential([Dense(2)]))
    assert bare.optimizer is None


@pytest.mark.anyio
async def test_it_is_a_trainable_itself() -> None:
    model, other = small(), small()
    await model.fit(X, Y, epochs=1, shuffle=False, batch_size=40)
    logs = other.train_batch(X, Y)
    assert logs["loss"] == model.history.history["loss"][0]  # type: ignore[union-attr]
    assert other.test_batch(X, Y)["loss"] == (await other.evaluate(X, Y, batch_size=40))[0]
    state = {name: np.copy(value) for name, value in model.state().items()}
    other.learning_rate = 0.5
    other.load_state(state)
    assert other.learning_rate == model.learning_rate
    assert [w.tobytes() for w in model.get_weights()] == [w.tobytes() for w in other.get_weights()]


@pytest.mark.anyio
async def test_a_network_that_diverges_says_so_in_its_loss_and_nowhere_else() -> None:
    model = Sequential([Input(4), Dense(1)])
    model.compile(SGD(1e30), "mse")
    history = await model.fit(X, Y, epochs=3, batch_size=8, validation_split=0.2)
    assert not np.isfinite(history.history["loss"][-1])
    assert not np.isfinite(await model.evaluate(X, Y))
    with pytest.warns(RuntimeWarning, match="overflow"):
        np.float32(3e38) * np.array(2, np.float32)  # the host's own warnings stay as they are


@pytest.mark.anyio
async def test_a_rate_that_is_set_is_told_as_the_optimizer_stores_it() -> None:
    class Sets(Callback):
        def __init__(self) -> None:
            self.told: list[LearningRateChanged] = []

        def on_epoch_end(self, event: EpochEnd) -> None:
            event.set_learning_rate(0.1)

        def on_learning_rate_changed(self, event: LearningRateChanged) -> None:
            self.told.append(event)

    model, sets = small(), Sets()
    history = await model.fit(X, Y, epochs=2, callbacks=sets)
    stored = float(np.float32(0.1))
    assert sets.told[0].value == stored
    assert history.history["learning_rate"][1] == stored
    assert model.learning_rate == stored


# --- a model in use --------------------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[Callable[[Sequential], object], str]] = {
    "get_weights": (lambda m: m.get_weights(), r"event\.model\.get_weights\(\)"),
    "set_weights": (lambda m: m.set_weights([]), r"event\.set_weights"),
    "add": (lambda m: m.add(Dense(1)), "await the end of the run"),
    "compile": (lambda m: m.compile("sgd", "mse"), "await the end of the run"),
    "the rate": (lambda m: m.learning_rate, "run.set_learning_rate"),
    "setting the rate": (lambda m: setattr(m, "learning_rate", 1.0), "run.set_learning_rate"),
    "the optimizer's rate": (lambda m: setattr(m.optimizer, "learning_rate", 1.0), "run.set_learning_rate"),
    "train_batch": (lambda m: m.train_batch(X, Y), "await the end of the run"),
    "test_batch": (lambda m: m.test_batch(X, Y), "await the end of the run"),
    "state": (lambda m: m.state(), r"run\.snapshot\(\)"),
    "load_state": (lambda m: m.load_state({}), "await the end of the run"),
    "a copy": (copy.deepcopy, "await the end of the run"),
}


@pytest.mark.anyio
async def test_what_would_change_a_model_in_use_names_the_way() -> None:
    model, holds = small(), Holds()
    optimizer = model.optimizer
    assert optimizer is not None
    async with model.fit(X, Y, epochs=2, callbacks=holds, run_id="mine") as run:
        with anyio.fail_after(10):
            await holds.reached.wait()
        for what, (change, way) in CHANGES.items():
            with pytest.raises(ModelBusy, match=way) as info:
                change(model)
            assert "run mine is training this model" in str(info.value), what
        with pytest.raises(ModelBusy, match="run mine is training this model"):
            await model.fit(X, Y)
        assert optimizer.learning_rate == pytest.approx(0.001)
        holds.go_on.set()
    assert run.outcome == "completed"
    assert run.history.epoch == [0, 1]
    optimizer.learning_rate = 0.5
    assert model.learning_rate == 0.5
    model.get_weights()
    await model.fit(X, Y)
    assert model.state()["optimizer/iteration"] == 6


@pytest.mark.anyio
async def test_beside_training_all_answers_are_of_the_newest_boundary_that_nobody_can_undo(tmp_path: Path) -> None:
    model, holds = small(dropout=0.2), Holds(epoch=1)
    seen: list[Snapshot] = []

    class Keeps(Callback):
        def on_epoch_end(self, event: EpochEnd) -> None:
            seen.append(event.model)

    async with model.fit(X, Y, epochs=4, batch_size=8, callbacks=[Keeps(), holds], lookahead=3):
        with anyio.fail_after(10):
            await holds.reached.wait()  # epoch 1 is not confirmed, compute is on its way ahead
            beside = await model.predict(X)
            figures = await model.evaluate(X, Y)
            await model.save(tmp_path / "beside.h5")
        confirmed, held = seen
        np.testing.assert_array_equal(beside, await confirmed.predict(X))
        assert figures == await confirmed.evaluate(X, Y)
        assert (beside != await held.predict(X)).any()
        holds.go_on.set()
    assert (beside != await model.predict(X)).any()
    await confirmed.save(tmp_path / "confirmed.h5")
    assert (tmp_path / "beside.h5").read_bytes() == (tmp_path / "confirmed.h5").read_bytes()
    np.testing.assert_array_equal(beside, await confirmed.predict(X))


@pytest.mark.anyio
async def test_without_gates_predictions_come_from_a_whole_state_too() -> None:
    model = small()
    async with model.fit(X, Y, epochs=100_000, batch_size=8) as run:
        with anyio.fail_after(20):
            async for _ in run.events(BatchEnd):
                break
            first = await model.predict(X)
            assert first.shape == (40, 1)
            assert isinstance(await model.evaluate(X, Y), list)
            snapshot = await run.snapshot()
            assert [w.shape for w in snapshot.get_weights()] == [(4, 6), (6,), (6, 1), (1,)]
            await run.stop("seen enough")
    assert run.outcome == "stopped"


@pytest.mark.anyio
async def test_what_is_asked_of_a_free_model_is_answered_with_the_state_of_one_moment(monkeypatch: Any) -> None:
    model = small()
    expected, predicting = await model.predict(X), Reader.predicting

    def meanwhile(reader: Reader, state: Any, plan: Any, tick: Any) -> Any:
        model.set_weights([w + 1 for w in model.get_weights()])
        return predicting(reader, state, plan, tick)

    monkeypatch.setattr(Reader, "predicting", meanwhile)
    np.testing.assert_array_equal(await model.predict(X), expected)
    assert (await model.predict(X) != expected).all()


@pytest.mark.anyio
async def test_a_run_that_begins_while_a_prediction_waits_for_its_thread_answers_it(monkeypatch: Any) -> None:
    model, holds, asked = small(), Holds(), []
    whole = Run._whole

    async def counted(run: Run) -> Snapshot:
        asked.append(run)
        return await whole(run)

    monkeypatch.setattr(Run, "_whole", counted)
    results: list[Any] = []

    async def ask() -> None:
        results.append(await model.predict(X))
        holds.go_on.set()

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            model._reading.acquire()
            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            async with model.fit(X, Y, callbacks=holds) as run:
                model._reading.release()
                await holds.reached.wait()
    assert asked == [run]
    assert results[0].shape == (40, 1)


@pytest.mark.anyio
async def test_a_snapshot_keeps_its_meaning_when_its_model_goes_on(tmp_path: Path) -> None:
    model, holds = small(optimizer=SGD(0.5, momentum=0.9)), Holds()
    holds.go_on.set()
    await model.fit(X, Y, callbacks=holds)
    snapshot = holds.snapshot
    assert snapshot is not None
    expected, figures, weights = await model.predict(X), await model.evaluate(X, Y), model.get_weights()
    await model.save(tmp_path / "then.h5")
    await model.fit(X, Y, epochs=2)
    model.compile("adam", "mse", metrics=["mae"])
    model.add(Dense(3))
    model.compile("rmsprop", "mse")
    await model.fit(X, np.stack([Y, Y, Y], 1))
    np.testing.assert_array_equal(await snapshot.predict(X), expected)
    assert await snapshot.evaluate(X, Y) == figures
    assert await snapshot.evaluate(X, Y, return_dict=True) == dict(zip(("loss", "accuracy"), figures, strict=True))
    assert [w.tobytes() for w in snapshot.get_weights()] == [w.tobytes() for w in weights]
    await snapshot.save(tmp_path / "now.h5")
    assert (tmp_path / "then.h5").read_bytes() == (tmp_path / "now.h5").read_bytes()
    with pytest.raises(InvalidInput, match=r"got samples of shape \(3,\) but expects \(4,\)"):
        snapshot.predict(X[:, :3])
    with pytest.raises(InvalidInput, match="y is missing"):
        snapshot.evaluate(X)
    with pytest.raises(InvalidInput, match=r"must end in \.h5"):
        snapshot.save(tmp_path / "now.txt")


@pytest.mark.anyio
async def test_gates_put_back_the_weights_of_a_snapshot() -> None:
    kept: list[Snapshot] = []

    class Restores(Callback):
        def on_epoch_end(self, event: EpochEnd) -> None:
            kept.append(event.model)
            if event.epoch == 1:
                event.restore_at_end(kept[0])

    model = small()
    await model.fit(X, Y, epochs=3, batch_size=8, callbacks=Restores())
    assert [w.tobytes() for w in model.get_weights()] == [w.tobytes() for w in kept[0].get_weights()]
    assert model.state()["optimizer/iteration"] == 15


@pytest.mark.anyio
async def test_two_models_train_side_by_side_as_they_do_alone() -> None:
    alone = [small(seed=seed) for seed in (1, 2)]
    for model in alone:
        await model.fit(X, Y, epochs=5, batch_size=8)
    together = [small(seed=seed) for seed in (1, 2)]
    async with anyio.create_task_group() as tasks:
        for model in together:
            tasks.start_soon(lambda m: m.fit(X, Y, epochs=5, batch_size=8), model)
    for one, other in zip(alone, together, strict=True):
        assert [w.tobytes() for w in one.get_weights()] == [w.tobytes() for w in other.get_weights()]


@pytest.mark.anyio
async def test_a_run_that_fails_or_is_cancelled_leaves_the_model_usable() -> None:
    model = small()

    class Raises(Callback):
        def on_epoch_end(self, event: EpochEnd) -> None:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await model.fit(X, Y, callbacks=Raises())
    assert model.history is not None
    assert model.history.outcome == "failed"
    holds = Holds()

    async def cancelled() -> None:
        async with model.fit(X, Y, callbacks=holds, grace=0.0) as run:
            await holds.reached.wait()
            run.cancel("enough")
            await run.wait()

    with pytest.raises(RunCancelled, match="enough"):
        await cancelled()
    with anyio.move_on_after(0) as scope:
        await model.fit(X, Y)
    assert scope.cancelled_caught
    await model.fit(X, Y)
    model.get_weights()


# --- bad input -------------------------------------------------------------------------------------------------------


def sparse() -> Sequential:
    model = Sequential([Input(4), Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


LONG = X.tolist() * 100
AT_THE_CALL: dict[str, tuple[Callable[[], object], type[Exception], list[str]]] = {
    "not compiled": (
        lambda: Sequential([Dense(1)]).fit(X, Y), InvalidInput, ["fit needs a compiled", "model.compile("],
    ),
    "evaluate without compile": (
        lambda: Sequential([Dense(1)]).evaluate(X, Y), InvalidInput, ["evaluate needs a compiled"],
    ),
    "no loss": (lambda: Sequential([Dense(1)]).compile("sgd"), InvalidInput, ["needs a loss", "loss='mse'"]),
    "no layers": (lambda: without_layers().fit(X, Y), InvalidInput, ["no layers", "add"]),
    "no layers to predict with": (lambda: Sequential().predict(X), InvalidInput, ["no layers"]),
    "unknown loss": (
        lambda: Sequential([Dense(1)]).compile("sgd", "binaryCrosentropy"), InvalidInput,
        ["'binaryCrosentropy'", "did you mean 'binary_crossentropy'"],
    ),
    "unknown optimizer": (lambda: small(optimizer="adan"), InvalidInput, ["'adan'", "did you mean 'adam'"]),
    "unknown metric": (lambda: small(metrics=["acuracy"]), InvalidInput, ["'acuracy'", "did you mean 'accuracy'"]),
    "another model's optimizer": (
        lambda: small(optimizer=small().optimizer), InvalidInput, ["belongs to another model"],
    ),
    "camel case keyword": (
        lambda: small().fit(X, Y, batchSize=3), TypeError, ["fit: unknown keyword 'batchSize'", "'batch_size'"],  # type: ignore[call-arg]
    ),
    "unknown keyword of fit": (
        lambda: small().fit(X, Y, epoch=3), TypeError, ["'epoch'", "did you mean 'epochs'"],  # type: ignore[call-arg]
    ),
    "unknown keyword of compile": (
        lambda: Sequential().compile("sgd", "mse", metric=["mae"]), TypeError,  # type: ignore[call-arg]
        ["compile: unknown keyword 'metric'", "did you mean 'metrics'"],
    ),
    "unknown keyword of predict": (
        lambda: small().predict(X, batch=3), TypeError, ["predict: unknown keyword 'batch'", "'batch_size'"],  # type: ignore[call-arg]
    ),
    "unknown keyword of Sequential": (
        lambda: Sequential([], nam="x"), TypeError, ["Sequential: unknown keyword 'nam'", "did you mean 'name'"],  # type: ignore[call-arg]
    ),
    "layers are no list": (lambda: Sequential(Dense(1)), InvalidInput, ["takes a list of layers"]),  # type: ignore[arg-type]
    "layers are a number": (lambda: Sequential(3), InvalidInput, ["takes a list of layers", "not 3"]),  # type: ignore[arg-type]
    "a layer's class": (lambda: Sequential([Dense]), InvalidInput, ["add the parentheses"]),  # type: ignore[list-item]
    "a model as layer": (lambda: Sequential([Sequential()]), InvalidInput, ["a layer is an object from"]),  # type: ignore[list-item]
    "a layer twice": (lambda: small().add(small().layers[0]), InvalidInput, ["part of a model already"]),
    "a name that is none": (lambda: Sequential(name=3), InvalidInput, ["name of a model"]),  # type: ignore[arg-type]
    "a seed that is none": (lambda: Sequential(seed=-1), InvalidInput, ["seed must be None or a whole number"]),
    "a seed for fit": (lambda: small().fit(X, Y, seed=1.5), InvalidInput, ["seed must be"]),  # type: ignore[arg-type]
    "lengths": (lambda: small().fit(X, Y[:39]), InvalidInput, ["x has 40 rows but y has 39"]),
    "empty": (lambda: small().fit(X[:0], Y[:0]), InvalidInput, ["x is empty"]),
    "ragged": (lambda: small().fit([[1.0], [1.0, 2.0]], [0, 1]), InvalidInput, ["x is ragged: row 1"]),
    "text": (lambda: small().fit(X, ["a"] * 40), InvalidInput, ["y holds text"]),
    "no y": (lambda: small().fit(X), InvalidInput, ["y is missing"]),
    "shape of x": (
        lambda: small().fit(X[:, :3], Y), InvalidInput,
        ["Dense 'dense' got samples of shape (3,) but expects (4,)", "build the model anew"],
    ),
    "a flat x": (lambda: small().fit(Y, Y), InvalidInput, ["samples of shape ()", "one row for each sample"]),
    "a flat x for one feature": (lambda: one_feature().fit(Y, Y), InvalidInput, ["reshape x to (rows, 1)"]),
    "shape of y": (lambda: small().fit(X, X), InvalidInput, ["outputs of shape (rows, 1)", "not (rows, 4)"]),
    "one-hot for a sparse loss": (
        lambda: sparse().fit(X, X[:, :3]), InvalidInput, ["one class number", "categorical_crossentropy"],
    ),
    "shape for evaluate": (lambda: small().evaluate(X, X), InvalidInput, ["needs y of that shape"]),
    "shape for predict": (lambda: small().predict(X[:, :2]), InvalidInput, ["expects (4,)"]),
    "batch size": (lambda: small().fit(X, Y, batch_size=0), InvalidInput, ["batch_size=0"]),
    "epochs": (lambda: small().fit(X, Y, epochs=0), InvalidInput, ["epochs=0"]),
    "validation split": (lambda: small().fit(X, Y, validation_split=1.0), InvalidInput, ["outside [0, 1)"]),
    "validation data": (lambda: small().fit(X, Y, validation_data=X), InvalidInput, ["give a tuple (x, y)"]),
    "validation shape": (
        lambda: small().fit(X, Y, validation_data=(X[:, :2], Y)), InvalidInput, ["validation_data[0]", "(2,)"],
    ),
    "both weights": (
        lambda: small().fit(X, Y, class_weight={0: 1.0}, sample_weight=Y), InvalidInput, ["give one of them"],
    ),
    "executor": (lambda: small().fit(X, Y, executor="threads"), InvalidInput, ["'threads'", "did you mean 'thread'"]),
    "lookahead": (lambda: small().fit(X, Y, lookahead=-1), InvalidInput, ["lookahead", "0 for lock-step"]),
    "bus": (lambda: small().fit(X, Y, bus=[]), TypeError, ["bus= takes an af.EventBus()"]),  # type: ignore[arg-type]
    "callback": (lambda: small().fit(X, Y, callbacks=[print]), TypeError, ["Callback"]),  # type: ignore[list-item]
    "callback's class": (lambda: small(callbacks=Holds), TypeError, ["Holds"]),
    "weights": (lambda: small().set_weights([X]), InvalidInput, ["has 4 weights", "1 were given"]),
    "count without weights": (lambda: Sequential([Dense(1)]).count_params(), InvalidInput, ["no weights yet"]),
    "save without weights": (lambda: Sequential([Dense(1)]).save("m.h5"), InvalidInput, ["save", "no weights yet"]),
    "state without compile": (lambda: Sequential([Dense(1)]).state(), InvalidInput, ["needs a compiled model"]),
}  # fmt: skip


def without_layers() -> Sequential:
    model = Sequential()
    model.compile("sgd", "mse")
    return model


def one_feature() -> Sequential:
    model = Sequential([Input(1), Dense(1)])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize("case", AT_THE_CALL)
def test_bad_input_is_refused_at_the_call(case: str) -> None:
    call, kind, parts = AT_THE_CALL[case]
    with pytest.raises(kind) as info:
        call()
    for part in parts:
        assert part in str(info.value)


AT_THE_START: dict[str, tuple[Callable[[], Sequential], tuple[Any, Any], dict[str, Any], list[str]]] = {
    "NaN": (small, (np.where(X > 2, np.nan, X), Y), {}, ["x holds NaN or infinity"]),
    "a label too big": (sparse, (X, np.arange(40) % 4), {}, ["y has the label 3 in row 3", "3 classes"]),
    "a negative label": (sparse, (X, np.arange(40) % 3 - 1), {}, ["label -1", "from 0 to 2"]),
    "a label that is a fraction": (sparse, (X, np.full(40, 0.5)), {}, ["label 0.5"]),
    "a validation label": (
        sparse, (X, np.arange(40) % 3), {"validation_data": (X, np.full(40, 7))},
        ["the validation data's y", "label 7"],
    ),
    "a long list of another shape": (
        small, ([[*row, 0.0] for row in LONG], [0.0] * len(LONG)), {}, ["got samples of shape (5,)"],
    ),
    "long targets of another shape": (small, (LONG, LONG), {}, ["outputs of shape (rows, 1)"]),
    "a long ragged list": (small, ([*LONG, [1.0]], [0.0] * 4001), {}, ["x is ragged"]),
    "long validation data": (
        small, (X, Y), {"validation_data": (LONG, LONG)}, ["validation_data[1] has rows of shape (4,)"],
    ),
    "classes that are measures": (small, (X, X[:, 0]), {"class_weight": {0: 2.0}}, ["class_weight needs classes"]),
}  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize("case", AT_THE_START)
async def test_bad_data_is_refused_before_the_first_event_and_the_model_stays_free(case: str) -> None:
    make, (x, y), how, parts = AT_THE_START[case]
    model, bus = make(), EventBus()
    seen: list[Event] = []
    bus.subscribe(TrainBegin, TrainEnd, EpochBegin, BatchBegin, seen.append)
    before = model.get_weights()
    fit = model.fit(x, y, bus=bus, **how)
    with pytest.raises(InvalidInput) as info:
        await fit
    for part in parts:
        assert part in str(info.value)
    assert seen == []
    assert [w.tobytes() for w in model.get_weights()] == [w.tobytes() for w in before]
    await model.fit(X, np.arange(40) % 2)


@pytest.mark.anyio
async def test_evaluate_looks_at_labels_too() -> None:
    with pytest.raises(InvalidInput, match="label 3 in row 3"):
        await sparse().evaluate(X, np.arange(40) % 4)
    with pytest.raises(InvalidInput, match="x holds NaN"):
        await sparse().predict(X * np.nan)


@pytest.mark.anyio
async def test_a_fit_of_an_older_compilation_is_refused() -> None:
    model = small()
    fit = model.fit(X, Y)
    model.compile("sgd", "mse")
    with pytest.raises(InvalidInput, match="compiled anew, or got layers, after fit was called; call fit again"):
        await fit
    await model.fit(X, Y)


def test_failed_calls_leave_a_model_as_it_was() -> None:
    model = small()
    optimizer = model.optimizer
    with pytest.raises(InvalidInput):
        model.compile("sgd", "nothing")
    assert model.optimizer is optimizer
    with pytest.raises(InvalidInput):
        model.add(Dense(2, name="dense"))
    assert len(model.layers) == 3
    assert model.fit(X, Y).blocking().epoch == [0]


def test_what_is_dropped_unawaited_warns() -> None:
    model = small()
    for made in (model.fit, model.evaluate):
        with pytest.warns(RuntimeWarning, match=rf"model\.{made.__name__}\(…\) was never awaited"):
            made(X, Y)
    with pytest.warns(RuntimeWarning, match=r"model\.predict\(…\) was never awaited"):
        model.predict(X)
    assert asyncio.run(model.fit(X, Y)).epoch == [0]


@pytest.mark.anyio
async def test_events_of_a_run_bring_the_model_only_to_gates() -> None:
    model, bus = small(loss=BinaryCrossentropy()), EventBus()
    seen: list[EpochEnd] = []
    bus.subscribe(EpochEnd, seen.append)
    async with model.fit(X, Y, bus=bus) as run:
        assert isinstance(run, Run)
    with pytest.raises((DetachedEvent, AttributeError)):
        _ = seen[0].model

"""`SwapEMAWeights`: the numbers of Keras, and a training that goes on as if nobody averaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest

import asyncfit as af
from asyncfit import layers
from asyncfit.callback import subscription_of
from asyncfit.callbacks import EarlyStopping, ModelCheckpoint, SwapEMAWeights
from asyncfit.optimizers import SGD, Adam
from asyncfit.testing import Scripted

TOLD = json.loads((Path(__file__).parent.parent / "data" / "keras_ema.json").read_text())
X, Y, XV, YV = (np.array(TOLD[name], np.float32) for name in ("x", "y", "xv", "yv"))
HOW: dict[str, Any] = {"batch_size": TOLD["batch_size"], "epochs": TOLD["epochs"], "shuffle": False}
BOUNDS = 4  # batches an epoch


def network(case: dict[str, Any] = TOLD["cases"][0]) -> af.Sequential:
    model = af.Sequential([layers.Input((3,)), layers.Dense(4, activation="tanh"), layers.Dense(2)], seed=2)
    model.compile(Adam(0.05) if case["optimizer"] == "adam" else SGD(0.1, momentum=0.9), "mse")
    model.set_weights([np.array(w, np.float32) for w in case["first"]])
    return model


def close(got: list[Any], want: list[Any], tolerance: float = 1e-5) -> None:
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, np.array(other), atol=tolerance)


class Sees(af.Callback):
    """The weights that others find at the end of each epoch."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def on_epoch_end(self, event: af.EpochEnd) -> None:
        self.seen.append(event.model.get_weights())


class Watches(Sees):
    gates = "none"


# --- against Keras ---------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("lookahead", [0, 1, 3])
@pytest.mark.parametrize("case", TOLD["cases"], ids=lambda c: f"{c['optimizer']}-{c['momentum']}-{c['swap_on_epoch']}")
async def test_the_model_ends_with_keras_s_average(case: dict[str, Any], lookahead: int) -> None:
    """The same last weights, the same in the hands of callbacks behind, the same figures of the validation."""
    model, sees = network(case), Sees()
    average = SwapEMAWeights(case["swap_on_epoch"], momentum=case["momentum"], validation_data=(XV, YV))
    history = await model.fit(
        X, Y, callbacks=[sees, average], validation_data=(XV, YV), lookahead=lookahead, **HOW
    )  # fmt: skip
    close(model.get_weights(), case["last"])
    for got, want in zip(sees.seen, case["seen"], strict=True):
        close(got, want)
    np.testing.assert_allclose(history.history["val_loss"], case["val_loss"], atol=1e-5)


@pytest.mark.anyio
async def test_the_training_is_the_one_without_it() -> None:
    """Bit for bit, in losses and in the weights that others see; only the end differs."""
    plain, averaged, losses = network(), network(), []
    for model, callbacks in ((plain, []), (averaged, [SwapEMAWeights(momentum=0.9)])):
        history = await model.fit(X, Y, callbacks=callbacks, validation_data=(XV, YV), **HOW)
        losses.append(history.history)
    assert losses[0] == losses[1]
    close(plain.get_weights(), TOLD["cases"][0]["plain"])
    assert averaged.optimizer is not None
    assert plain.optimizer is not None
    assert averaged.optimizer.iterations == plain.optimizer.iterations


# --- the average as a snapshot ---------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_others_find_the_average_of_the_epoch(tmp_path: Path) -> None:
    """To predict, evaluate and save; with swap_on_epoch=True it is what they get as the model, queues apart."""
    ema, found, model = SwapEMAWeights(momentum=0.9, swap_on_epoch=True), [], network()

    class Uses(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            assert ema.averaged is event.model
            assert event.model.step == BOUNDS * (event.epoch + 1)
            found.append(await event.model.predict(XV))
            assert isinstance(await event.model.evaluate(XV, YV), float)

    bus, live = af.EventBus(), []
    bus.subscribe(af.EpochEnd, lambda event: live.append(event.model.get_weights()), snapshots=True)
    checkpoint = ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True)
    await model.fit(X, Y, callbacks=[checkpoint, Uses(), ema], bus=bus, **HOW)
    for epoch, predictions in enumerate(found, 1):
        other = network()
        await other.load_weights(tmp_path / f"{epoch}.weights.h5")
        np.testing.assert_array_equal(await other.predict(XV), predictions)
    close(live[-1], TOLD["cases"][0]["plain"])
    np.testing.assert_array_equal(await model.predict(XV), found[-1])


@pytest.mark.anyio
async def test_a_stop_within_an_epoch_leaves_the_average_of_its_last_batch() -> None:
    class Stops(af.Callback):
        gates = "batch"

        async def on_batch_end(self, event: af.BatchEnd) -> None:
            seen.append(event.model.get_weights())
            if event.step == 5:
                event.stop()

    seen: list[list[Any]] = []
    model = network()
    await model.fit(X, Y, callbacks=[SwapEMAWeights(momentum=0.75), Stops()], **HOW)
    want = seen[0]
    for weights in seen[1:]:
        want = [0.75 * a + 0.25 * w for a, w in zip(want, weights, strict=True)]
    assert len(seen) == 6
    close(model.get_weights(), want, 1e-6)


@pytest.mark.anyio
@pytest.mark.parametrize("lookahead", [0, 1, 3])
async def test_work_that_is_undone_is_no_part_of_the_average(lookahead: int) -> None:
    """Rates that gates set roll back what compute did ahead: the bits are those of lock-step."""

    class Slows(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            await anyio.sleep(0.002)  # compute gets ahead
            event.set_learning_rate(0.05 / (event.epoch + 2))

    ends = []
    for ahead in (0, lookahead):
        model, sees = network(), Sees()
        ema = SwapEMAWeights(momentum=0.9, swap_on_epoch=True)
        how = {**HOW, "epochs": 6}
        await model.fit(X, Y, callbacks=[ema, Slows(), sees], lookahead=ahead, **how)
        ends.append([*sees.seen, model.get_weights()])
    for one, other in zip(*ends, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.anyio
@pytest.mark.parametrize("swap", [False, True])
async def test_early_stopping_restores_what_it_chose(swap: bool) -> None:
    """As in Keras its weights come last; with swap_on_epoch=True they are the average of the best epoch."""

    class Worsens(af.Callback):
        order = -200

        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            event.add_logs(figure=[3.0, 1.0, 2.0, 2.0, 2.0][event.epoch])
            trained.append(event.model.get_weights())

    trained: list[Any] = []
    ema, sees, model = SwapEMAWeights(swap, momentum=0.9), Sees(), network()
    stopping = EarlyStopping("figure", patience=2, mode="min", restore_best_weights=True)
    await model.fit(X, Y, callbacks=[ema, Worsens(), stopping, sees], **{**HOW, "epochs": 9})
    assert len(sees.seen) == 4
    for got, want in zip(model.get_weights(), (sees.seen if swap else trained)[1], strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.anyio
async def test_a_failed_run_gets_no_average() -> None:
    class Fails(af.Callback):
        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            if event.epoch == 1:
                raise ValueError("no more")

    model, sees = network(), Sees()
    with pytest.raises(ValueError, match="no more"):
        await model.fit(X, Y, callbacks=[SwapEMAWeights(), sees, Fails()], **HOW)
    for got, want in zip(model.get_weights(), sees.seen[-1], strict=True):
        np.testing.assert_array_equal(got, want)


# --- one run after another -------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_second_run_averages_afresh_and_a_continued_one_goes_on() -> None:
    ema = SwapEMAWeights(momentum=0.9)
    one, two = network(), network()
    for model in (one, two):
        await model.fit(X, Y, callbacks=ema, **HOW)
    for got, want in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)

    whole = network()
    sees = Sees()
    await whole.fit(X, Y, callbacks=[ema, sees], **{**HOW, "epochs": 4})
    first, half = network(), SwapEMAWeights(momentum=0.9)
    trained = Sees()
    await first.fit(X, Y, callbacks=[half, trained], **{**HOW, "epochs": 2})
    state = half.state_dict()
    first.set_weights(trained.seen[-1])
    again = SwapEMAWeights(momentum=0.9)
    again.load_state_dict(state)
    await first.fit(X, Y, callbacks=again, initial_epoch=2, **{**HOW, "epochs": 4})
    close(first.get_weights(), whole.get_weights(), 1e-6)


# --- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ({"swap_on_epoch": 0.9}, "momentum="),
        ({"momentum": 1.5}, "from 0 to 1"),
        ({"momentum": -0.1}, "at least 0"),
        ({"momentum": "much"}, "must be a number"),
        ({"validation_data": XV}, r"is \(x, y\)"),
        ({"validation_data": (XV,)}, r"is \(x, y\)"),
    ],
)
def test_bad_input_is_refused_at_construction(how: dict[str, Any], part: str) -> None:
    with pytest.raises(af.InvalidInput, match=part):
        SwapEMAWeights(**how)


def test_a_model_whose_weights_nobody_knows_is_refused() -> None:
    with pytest.raises(af.InvalidInput, match="Scripted has a state, of which nobody knows what weights are"):
        af.Trainer(Scripted([1.0])).fit(X, Y, callbacks=SwapEMAWeights()).blocking()


def test_it_stays_in_this_process() -> None:
    """Its average is read where it is made: on a copy in another process it would be lost."""
    ema = SwapEMAWeights()
    assert not ema.portable
    modes = {kind.__name__: hook.mode for kind, hook in subscription_of(ema)._hooks.items()}
    assert modes["BatchEnd"] == modes["EpochBegin"] == "inline"
    assert modes["EpochEnd"] == "gate"


@pytest.mark.anyio
async def test_what_is_shown_is_for_later_groups_alone() -> None:
    """The first group and queues get the model as it was, and a snapshot of another model is refused."""
    kept: list[Any] = []

    class Shows(af.Callback):
        order = 1

        async def on_epoch_begin(self, event: af.EpochBegin) -> None:
            self.begun = event.model

        async def on_epoch_end(self, event: af.EpochEnd) -> None:
            with pytest.raises(af.InvalidInput, match="not one of another model"):
                event.show_model(other)
            event.show_model(self.begun)
            kept.append(event)

    class First(Sees): ...

    class Last(Sees):
        order = 2

    async with network().fit(X, Y, **HOW) as run:
        other = await run.snapshot()
    first, last = First(), Last()
    await network().fit(X, Y, callbacks=[first, last, Shows()], **{**HOW, "epochs": 2})
    close(last.seen[1], first.seen[0], 0)
    close(last.seen[0], TOLD["cases"][0]["first"], 1e-7)
    with pytest.raises(af.GateReleased, match="show_model"):
        kept[0].show_model(kept[0].model)

"""TensorBoard's own reader finds what Keras would have written; files are closed; nothing else is loaded for it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

import asyncfit as af
from asyncfit import layers, optimizers
from asyncfit.callbacks import TensorBoard, files
from tests.run.helpers import Gate, Linear, X, Y, fit, nothing_left, until

DATA = json.loads((Path(__file__).parents[1] / "data" / "keras_tensorboard.json").read_text())

Found = dict[tuple[str, str, int], tuple[str, Any]]


def read(log_dir: Path) -> Found:
    """What is there, by folder, tag and step: the plugin, and the values."""
    found: Found = {}
    for folder in sorted(path for path in log_dir.iterdir() if path.is_dir()):
        reader = EventAccumulator(str(folder), size_guidance={"tensors": 0})
        reader.Reload()
        for tag in reader.Tags()["tensors"]:
            plugin = reader.SummaryMetadata(tag).plugin_data.plugin_name
            for event in reader.Tensors(tag):
                key = (folder.name, tag, event.step)
                assert key not in found
                found[key] = (plugin, tensor_util.make_ndarray(event.tensor_proto))
    return found


def numbers(log_dir: Path) -> dict[tuple[str, str, int], float]:
    return {key: float(value) for key, (plugin, value) in read(log_dir).items() if plugin == "scalars"}


def network(weights: Any = None) -> af.Sequential:
    model = af.Sequential([layers.Input((2,)), layers.Dense(3, activation="tanh"), layers.Dense(1)])
    if weights is not None:
        model.set_weights([np.array(w) for w in weights])
    model.compile(optimizers.SGD(0.1), "mse", metrics=["mae"])
    return model


@pytest.mark.parametrize("case", DATA["cases"], ids=[str(case["settings"]) for case in DATA["cases"]])
@pytest.mark.anyio
async def test_it_is_what_keras_writes(case: dict[str, Any], tmp_path: Path) -> None:
    x, y = np.array(DATA["x"], np.float32), np.array(DATA["y"], np.float32)
    board = TensorBoard(tmp_path, **case["settings"])
    with nothing_left():
        await network(DATA["weights"]).fit(
            x[:12], y[:12], epochs=3, batch_size=4, shuffle=False, validation_data=(x[12:], y[12:]), callbacks=board
        )
    found = read(tmp_path)
    sums: dict[tuple[str, int], list[float]] = {}
    for entry in case["written"]:
        plugin, value = found.pop((entry["folder"], entry["tag"], entry["step"]))
        assert (plugin, str(value.dtype), list(value.shape)) == (entry["plugin"], entry["dtype"], entry["shape"])
        if entry["values"] is None:
            assert value > 0
        elif entry["tag"].startswith("batch_"):  # Keras writes the mean of the epoch so far
            so_far = sums.setdefault((entry["tag"], (entry["step"] - 1) // 3), [])
            so_far.append(float(value))
            if board.update_freq == 1:
                np.testing.assert_allclose(np.mean(so_far), entry["values"][0], rtol=1e-5)
        else:
            np.testing.assert_allclose(value.ravel(), entry["values"], rtol=2e-5, atol=1e-6)
    late = {tag for _, tag, _ in found}
    if board.update_freq == 3:  # Keras leaves out some of these then
        late -= {"evaluation_loss_vs_iterations", "evaluation_mae_vs_iterations"}
    assert not late


@pytest.mark.anyio
async def test_only_every_nth_batch_is_asked_for(tmp_path: Path) -> None:
    async with fit(epochs=4, callbacks=TensorBoard(tmp_path, update_freq=5)) as run:
        pass
    assert [step for _, tag, step in read(tmp_path) if tag == "batch_loss"] == [5, 10]
    assert run.subscribers[0].delivered == 1 + 4 + 4 + 2 + 1


@pytest.mark.anyio
@pytest.mark.parametrize(("frequency", "mode"), [(0, "queued"), (2, "gate")])
async def test_the_run_waits_for_it_only_for_histograms(frequency: int, mode: str, tmp_path: Path) -> None:
    async with fit(callbacks=TensorBoard(tmp_path, frequency)) as run:
        pass
    assert run.subscribers[0].mode == mode


@pytest.mark.anyio
async def test_a_run_without_validation_has_no_folder_for_it(tmp_path: Path) -> None:
    await fit(epochs=2, callbacks=TensorBoard(tmp_path / "deep" / "logs"))
    assert [path.name for path in (tmp_path / "deep" / "logs").iterdir()] == ["train"]
    assert set(numbers(tmp_path / "deep" / "logs")) == {
        ("train", f"epoch_{name}", epoch) for name in ("loss", "learning_rate") for epoch in (0, 1)
    }


@pytest.mark.anyio
async def test_a_second_run_has_a_file_of_its_own(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    await fit(epochs=1, callbacks=board)
    (first,) = (tmp_path / "train").iterdir()
    before = first.read_bytes()
    await fit(epochs=1, callbacks=board)
    assert first.read_bytes() == before
    assert len(list((tmp_path / "train").iterdir())) == 2


@pytest.mark.anyio
async def test_what_users_add_to_the_logs_is_there(tmp_path: Path) -> None:
    class Adds(af.Callback):
        def on_epoch_end(self, event: af.EpochEnd) -> None:
            event.add_logs(f1=0.5, val_f1=float("nan"))

    for frequency in (0, 1):
        await fit(epochs=1, callbacks=[TensorBoard(tmp_path / str(frequency), frequency), Adds()])
        found = numbers(tmp_path / str(frequency))
        assert found["train", "epoch_f1", 0] == 0.5
        assert np.isnan(found["validation", "epoch_f1", 0])


@pytest.mark.anyio
async def test_a_model_of_ones_own_has_histograms_of_its_state(tmp_path: Path) -> None:
    await fit(epochs=2, callbacks=TensorBoard(tmp_path, histogram_freq=1))
    drawn = {tag: value for (_, tag, step), (plugin, value) in read(tmp_path).items() if plugin == "histograms"}
    assert list(drawn) == ["w/histogram"]
    assert drawn["w/histogram"][:, 2].sum() == 2


@pytest.mark.anyio
async def test_weights_that_are_not_finite_do_no_harm(tmp_path: Path) -> None:
    def spoil(model: Linear) -> None:
        model.w[0] = np.nan if model.batches < 3 else np.inf
        model.w[1] = 1.0 if model.batches < 3 else np.nan

    await fit(Linear(spoil), epochs=2, callbacks=TensorBoard(tmp_path, histogram_freq=1))
    drawn = {step: value for (_, _, step), (plugin, value) in read(tmp_path).items() if plugin == "histograms"}
    assert set(drawn) == {0, 1}
    assert drawn[1][:, 2].sum() == 0


@pytest.mark.anyio
async def test_figures_are_there_while_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "OFTEN", 0.05)
    gate = Gate(at=8)
    async with fit(Linear(gate), epochs=3, callbacks=TensorBoard(tmp_path, update_freq="batch")):
        await until(gate.reached.is_set)
        await until(lambda: (tmp_path / "train").exists() and ("train", "batch_loss", 8) in read(tmp_path))
        gate.open.set()


@pytest.mark.anyio
@pytest.mark.parametrize("frequency", [0, 1])
async def test_a_cancelled_run_leaves_whole_files_and_nothing_open(frequency: int, tmp_path: Path) -> None:
    gate = Gate(at=6)
    board = TensorBoard(tmp_path, frequency, update_freq="batch")

    async def cut() -> None:
        async with fit(Linear(gate), epochs=10**6, callbacks=board) as run:
            await until(gate.reached.is_set)
            run.cancel("enough")
            gate.open.set()

    with nothing_left(), pytest.raises(af.RunCancelled):
        await cut()
    assert ("train", "epoch_loss", 1) in read(tmp_path)


@pytest.mark.anyio
@pytest.mark.parametrize("frequency", [0, 1])
async def test_what_cannot_be_written_fails_the_run(frequency: int, tmp_path: Path) -> None:
    board = TensorBoard(tmp_path / "logs", frequency)
    (tmp_path / "logs").write_text("in the way")
    with nothing_left(), pytest.raises(OSError, match="logs"):
        await fit(epochs=10**6, callbacks=board)


@pytest.mark.anyio
async def test_with_log_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    board = TensorBoard(tmp_path / "logs", 1)
    board.on_error = "log"
    (tmp_path / "logs").write_text("in the way")
    history = await fit(epochs=3, callbacks=board)
    assert history.outcome == "completed"
    assert "TensorBoard failed" in caplog.text


@pytest.mark.anyio
async def test_files_and_histograms_are_no_business_of_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from asyncfit.callbacks import tfevents

    threads: set[int] = set()
    for name in ("add", "_histogram", "_scalar"):
        real = getattr(tfevents, name)

        def watched(*args: Any, real: Any = real) -> Any:
            threads.add(threading.get_ident())
            return real(*args)

        monkeypatch.setattr(tfevents, name, watched)
    await fit(epochs=2, callbacks=TensorBoard(tmp_path, 1, update_freq="batch"))
    assert threads
    assert threading.get_ident() not in threads


def test_neither_tensorflow_nor_torch_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys, asyncfit as af, numpy as np\n"
        "from asyncfit.callbacks import TensorBoard\n"
        "assert 'tensorboard' not in sys.modules, 'before it is used'\n"
        f"board = TensorBoard({str(tmp_path)!r}, 1, update_freq='batch')\n"
        "from asyncfit.testing import Scripted\n"
        "af.Trainer(Scripted([1.0])).fit(np.zeros((4, 1)), np.zeros(4), epochs=2, callbacks=board).blocking()\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules} & {'tensorflow', 'torch', 'tensorboard'}))"
    )
    out = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["tensorboard"]
    assert read(tmp_path)


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"log_dir": 3}, TypeError, "takes a path"),
        ({"log_dir": __file__}, af.errors.InvalidInput, "is a file"),
        ({"histogram_freq": -1}, af.errors.InvalidInput, "histogram_freq"),
        ({"histogram_freq": 0.5}, af.errors.InvalidInput, "whole number"),
        ({"update_freq": 0}, af.errors.InvalidInput, "update_freq"),
        ({"update_freq": "batches"}, af.errors.InvalidInput, "did you mean 'batch'"),
        ({"write_graph": True}, af.errors.InvalidInput, "no graph of TensorFlow"),
        ({"write_images": True}, af.errors.InvalidInput, "histogram_freq=1"),
        ({"profile_batch": (1, 3)}, af.errors.InvalidInput, "write_steps_per_second=True"),
        ({"embeddings_freq": 1}, af.errors.InvalidInput, "no embedding layers"),
        ({"embeddings_metadata": "words.tsv"}, af.errors.InvalidInput, "no embedding layers"),
    ],
)
def test_bad_input_is_refused_at_once(given: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        TensorBoard(**given)


def test_kerass_values_that_switch_things_off_are_taken() -> None:
    TensorBoard("logs", 0, False, False, False, "epoch", 0, 0, None)


def test_without_the_library_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"TensorBoard needs tensorboard.*pip install 'asyncfit\[tensorboard\]'"):
        TensorBoard()


@pytest.mark.anyio
async def test_snapshots_tell_the_names_of_their_weights() -> None:
    model = network()
    async with model.fit(X, Y[:, None], epochs=1) as run:
        snapshot = await run.snapshot()
    named = snapshot.named_weights()
    assert list(named) == [f"sequential/{name}/{part}" for name in ("dense", "dense_1") for part in ("kernel", "bias")]
    for one, two in zip(named.values(), snapshot.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)

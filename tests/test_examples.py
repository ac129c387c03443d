"""The examples, as a reader runs them; the service over real HTTP."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import io
import json
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
from rich.console import Console

import asyncfit as af
from asyncfit.callbacks import ProgressBar
from asyncfit.events import FrozenDict
from asyncfit.formats import checkpoint_h5

from .readme import README, blocks, differs

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")],
        cwd=folder, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quickstart(tmp_path: Path) -> None:
    out = run("quickstart", tmp_path)
    last = out.strip().splitlines()[-1]
    assert "stopped: validation loss has not fallen" in out
    assert last.startswith("best: epoch")
    assert float(last.split("accuracy ")[1].split("%")[0]) > 94.0
    epochs = out.count("validation loss") - 2
    assert len(list(tmp_path.glob("model_at_epoch_*.h5"))) == epochs


def test_custom_callback(tmp_path: Path) -> None:
    lines = run("custom_callback", tmp_path).strip().splitlines()
    assert lines[:5] == [
        "Layer 0 created: dense",
        "Layer 1 created: dense_1",
        "Model compiled: optimizer sgd, loss binary_crossentropy",
        "Training started.",
        "Model is trained: 10 epochs of 8 batches",
    ]
    assert [line.split(":")[0] for line in lines[5:15]] == [f"Epoch {n}" for n in range(10)]
    assert lines[15].startswith("Training finished. Final loss:")
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"model_at_epoch_{n}.h5" for n in range(10)]


def test_stream(tmp_path: Path) -> None:
    out = run("stream", tmp_path)
    assert "stop requested by run: seen enough" in out
    assert "stopped at step" in out
    assert "3 whole epochs" in out or "2 whole epochs" in out


def test_own_model(tmp_path: Path) -> None:
    assert "stopped (solved): w = [ 2.  -3.   0.5]" in run("own_model", tmp_path)


def test_own_layer(tmp_path: Path) -> None:
    out = run("own_layer", tmp_path)
    assert "prototypes (Prototypes) │ (None, 10)   │     641" in out
    last = out.strip().splitlines()[-1]
    assert last.startswith("read back: the same predictions: True")
    accuracy, two = (float(number) for number in re.findall(r"([\d.]+)%", last))
    assert 91 < accuracy < two


def test_callbacks_tour(tmp_path: Path) -> None:
    out = run("callbacks_tour", tmp_path)
    assert "left out" not in out
    assert "ReduceLROnPlateau sets the rate from 0.01 to 0.003" in out
    assert "EarlyStopping asks for a stop: val_loss has not improved for 4 epochs" in out
    assert "EarlyStopping puts the weights of step" in out
    assert "stopped: the loss is nan in batch" in out
    assert "stopped: the time limit of 0.5 s is reached" in out
    assert "stopped: SIGTERM was received" in out
    assert "the same weights, to the bit: True" in out
    assert len(re.findall(r"the server got the losses \d\.\d+, \d\.\d+, \d\.\d+\n", out)) == 1
    trained, average = re.findall(r"accuracy of the trained weights ([\d.]+)%, of their average ([\d.]+)%", out)[0]
    assert 85 < float(trained) <= float(average)
    folder = tmp_path / "callbacks_tour"
    names = sorted(path.name for path in folder.iterdir())
    assert names[-4:] == ["board", "curves.png", "epochs.csv", "events.jsonl"]
    assert 2 <= len(names[:-4]) <= 3, "the best two, and the last"
    assert f"files: {', '.join(names[:-4])} (" in out
    assert len(list(folder.glob("board/*/events.out.tfevents.*"))) == 2


def test_callbacks_tour_with_nothing_but_the_core(tmp_path: Path) -> None:
    missing = ["httpx", "matplotlib", "rich", "tensorboard"]
    code = f"""if True:
        import runpy, sys
        sys.modules.update(dict.fromkeys({missing!r}))
        runpy.run_path({str(EXAMPLES / "callbacks_tour.py")!r}, run_name="__main__")
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"left out: .*asyncfit\[(\w+)\]", done.stdout) == ["tensorboard", "plot", "remote"]
    assert "it is more than 99% sure of" in done.stdout


@pytest.mark.parametrize(("code", "shown"), list(blocks(README.read_text())))
def test_the_readme_does_what_it_says(code: str, shown: str | None, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    if shown is not None:
        assert differs(shown, done.stdout) is None


def test_the_readme_names_every_callback_and_every_extra() -> None:
    text = README.read_text()
    table = text.split("## Callbacks you know")[1].split("\n\n")[2]
    for name in af.callbacks.__all__:
        assert f"`{name}" in table, name
    project = tomllib.loads((README.parent / "pyproject.toml").read_text())["project"]
    extras = text.split("## Extras")[1].split("\n\n")[2]
    assert sorted(re.findall(r"^\| `(\w+)` \|", extras, re.MULTILINE)) == sorted(project["optional-dependencies"])


def test_the_readme_counts_the_sequences_right() -> None:
    decided = json.loads(gzip.decompress((README.parent / "tests/data/keras_callbacks.json.gz").read_bytes()))
    assert decided.pop("keras") == "3.15.1"
    assert f"each of {sum(map(len, decided.values())):,} generated sequences" in README.read_text().replace("\n", " ")
    assert all(f"`{name}`" in README.read_text() for name in decided)


# --- the service ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(name: str = "service") -> Iterator[str]:
    """The application of an example behind a real server in a thread; yields its address."""
    uvicorn = pytest.importorskip("uvicorn")
    spec = importlib.util.spec_from_file_location(f"{name}_example", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = uvicorn.Server(
        uvicorn.Config(module.app, port=0, log_level="warning", lifespan="on", ws="none", timeout_graceful_shutdown=1)
    )
    ready = threading.Event()

    class Told(type(server)):  # type: ignore[misc]
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            ready.set()

    server.__class__ = Told
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert ready.wait(20)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def events_of(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line[6:])


def test_the_service_over_http() -> None:
    with served() as address, httpx.Client(base_url=address, timeout=30) as client:
        idle = client.post("/predict", json={"index": 3}).json()
        assert idle["training"] is False
        started = client.post("/runs")
        assert started.status_code == 201
        run_id = started.json()["id"]
        assert client.post("/runs").status_code == 409, "one model trains once at a time"
        assert client.get("/runs/nobody/events").status_code == 404

        with client.stream("GET", f"/runs/{run_id}/events") as stream, httpx.Client(base_url=address) as other:
            events = events_of(stream.iter_lines())
            epochs = 0
            for event in events:
                assert event["run_id"] == run_id
                epochs += event["type"] == "EpochEnd"
                if epochs == 2:
                    break
            beside = other.post("/predict", json={"index": 3}, timeout=30).json()
            assert beside["training"] is True
            assert beside["digit"] == beside["label"]
            stopped = other.post(f"/runs/{run_id}/stop", timeout=30).json()
            assert stopped["outcome"] == "stopped"
            last = list(events)[-1]
            assert last["type"] == "TrainEnd"
            assert last["outcome"] == "stopped"
            assert last["reason"] == "asked over HTTP"
        assert client.post("/predict", json={"index": 3}).json()["training"] is False
        again = client.post("/runs?epochs=1")
        assert again.status_code == 201, "and it can train again"
        assert client.post("/runs?epochs=many").status_code == 422
        assert client.post("/predict", json={"index": 99999}).status_code == 422
        assert client.post("/predict", content="{").status_code == 422


def test_the_service_shuts_down_in_the_middle_of_a_run() -> None:
    """Also with a client that listens to its events."""
    with contextlib.ExitStack() as stack, served() as address:
        client = stack.enter_context(httpx.Client(base_url=address, timeout=30))
        run_id = client.post("/runs").json()["id"]
        stream = stack.enter_context(client.stream("GET", f"/runs/{run_id}/events"))
        assert next(events_of(stream.iter_lines()))["run_id"] == run_id


def test_a_service_that_starts_again_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shutdown leaves the last checkpoint; the next start trains on from that very step."""
    monkeypatch.setenv("BACKUPS", str(tmp_path / "backups"))
    steps: list[int] = []
    for start in range(3):
        with served("restart") as address, httpx.Client(base_url=address, timeout=30) as client:
            told = client.get("/").json()
            deadline = time.monotonic() + 20
            while told["step"] < max([20, *(step + 20 for step in steps)]) or (steps and told["resumed"] is None):
                assert time.monotonic() < deadline
                told = client.get("/").json()
            assert told["outcome"] is None
            assert told["resumed"] == (steps[-1] if steps else None)
        kept = sorted((tmp_path / "backups").glob("*.h5"))
        run = checkpoint_h5.read_run(str(kept[-1]))
        assert run["attempt"] == start
        steps.append(run["position"]["step"])
        assert not [path for path in (tmp_path / "backups").iterdir() if path.suffix != ".h5"]


def test_the_pictures_are_small_and_whole() -> None:
    pictures = [EXAMPLES / "pictures" / name for name in ("progress.svg", "curves.svg")]
    assert sum(picture.stat().st_size for picture in pictures) < 150_000
    for picture in pictures:
        assert f"examples/pictures/{picture.name}" in README.read_text()
        assert ElementTree.parse(picture).getroot().tag.endswith("svg")
        assert "url(http" not in picture.read_text(), "it asks nobody for anything"


def test_the_progress_bars_picture_is_of_its_terminal(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_pictures", EXAMPLES / "pictures" / "make_pictures.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    screen = io.StringIO()
    bar = ProgressBar(console=Console(file=screen, force_terminal=True, width=maker.WIDTH), every_s=0)
    bar.on_train_begin(af.TrainBegin(params=FrozenDict({"epochs": 3, "steps": 10}), time=100.0))
    for epoch in range(2):
        bar.on_epoch_begin(af.EpochBegin(epoch=epoch, time=100.0))
        bar.on_epoch_end(af.EpochEnd(epoch=epoch, logs=FrozenDict({"loss": 0.5}), time=101.0))
    bar.on_epoch_begin(af.EpochBegin(epoch=2, time=101.0))
    bar.on_batch_end(af.BatchEnd(epoch=2, batch=6, step=26, size=1, logs=FrozenDict({"loss": 0.25}), time=102.0))
    bar.on_run_paused(af.RunPaused(step=27, time=102.0))  # shown at once
    bar.on_train_end(af.TrainEnd(outcome="completed"))
    written = maker.in_epoch(screen.getvalue(), 3, 0.6)
    maker.photograph(written, tmp_path / "progress.svg")
    shown = "".join(ElementTree.parse(tmp_path / "progress.svg").getroot().itertext()).replace("\xa0", " ")
    assert [shown.count(f"epoch {n}/3") for n in (1, 2, 3)] == [1, 1, 1]
    assert "━" in shown
    assert "7/10" in shown

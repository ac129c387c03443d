"""History.plot: what is drawn, and that nothing else is touched."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest

import asyncfit as af
from asyncfit.events import EpochEnd, FrozenDict
from asyncfit.history import History


def history(*logs: dict[str, float]) -> History:
    made = History("mine")
    for epoch, each in enumerate(logs):
        made.note(EpochEnd(run_id="mine", epoch=epoch, logs=FrozenDict(each)))
    return made


THREE = history(
    {"loss": 0.9, "accuracy": 0.5, "learning_rate": 0.1},
    {"loss": 0.5, "accuracy": 0.7, "learning_rate": 0.1, "val_loss": 0.6, "val_accuracy": 0.6},
    {"loss": 0.3, "accuracy": 0.8, "learning_rate": 0.01},
    {"loss": 0.2, "accuracy": 0.9, "learning_rate": 0.01, "val_loss": 0.4, "val_accuracy": 0.8},
)


def shown(ax: Any) -> dict[str, list[tuple[float, float]]]:
    return {line.get_label(): list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in ax.lines}


def test_a_panel_for_each_metric_with_its_validation_where_it_was_measured() -> None:
    figure = THREE.plot()
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss", "accuracy"]
    assert [ax.get_xlabel() for ax in figure.axes] == ["epoch", "epoch"]
    assert shown(figure.axes[0]) == {
        "training": [(1, 0.9), (2, 0.5), (3, 0.3), (4, 0.2)],
        "validation": [(2, 0.6), (4, 0.4)],
    }
    assert shown(figure.axes[1])["validation"] == [(2, 0.6), (4, 0.8)]
    assert figure.axes[0].get_legend() is not None


def test_names_choose_the_panels() -> None:
    figure = THREE.plot(["learning_rate", "val_accuracy"])
    rate, accuracy = figure.axes
    assert shown(rate) == {"learning rate": [(1, 0.1), (2, 0.1), (3, 0.01), (4, 0.01)]}
    assert (rate.get_yscale(), rate.get_ylabel()) == ("log", "learning rate")
    assert shown(accuracy) == {"val accuracy": [(2, 0.6), (4, 0.8)]}
    assert [ax.get_ylabel() for ax in THREE.plot("accuracy").axes] == ["accuracy"]
    many = history({f"metric{n}": 0.5 for n in range(7)}).plot()
    assert len(many.axes) == 7


def test_axes_of_ones_own() -> None:
    from matplotlib.figure import Figure

    one, two = Figure().subplots(2)
    assert THREE.plot(ax=one) is one
    assert set(shown(one)) == {"training", "validation"}
    assert one.get_ylabel() == "loss"
    THREE.plot(["loss", "accuracy"], ax=two)
    assert set(shown(two)) == {"loss", "loss, validation", "accuracy", "accuracy, validation"}
    colors = {line.get_label(): line.get_color() for line in two.lines}
    assert colors["loss"] == colors["loss, validation"] != colors["accuracy"]


def test_a_history_made_or_changed_by_hand_is_drawn_too() -> None:
    made = History("mine", epoch=[4, 5, 6], history={"loss": [3.0, 2.0, 1.0], "val_loss": [1.5]})
    assert shown(made.plot().axes[0]) == {"training": [(5, 3.0), (6, 2.0), (7, 1.0)], "validation": [(7, 1.5)]}


@pytest.mark.anyio
async def test_it_is_drawn_of_a_run(tmp_path: Any) -> None:
    from .run.helpers import X, Y, fit

    done = await fit(epochs=3, validation_data=(X, Y))
    figure = done.plot()
    assert [x for x, _ in shown(figure.axes[0])["validation"]] == [1, 2, 3]
    assert [y for _, y in shown(figure.axes[0])["validation"]] == done.history["val_loss"]
    figure.savefig(tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert figure._repr_png_()[:4] == b"\x89PNG", "a notebook shows it"
    assert len(pickle.loads(pickle.dumps(figure)).axes) == 1


def test_pyplot_is_not_touched() -> None:
    code = (
        "import sys, asyncfit.history as h; a = h.History('a', epoch=[0], history={'loss': [1.0]}); "
        "assert 'matplotlib' not in sys.modules; a.plot(); assert 'matplotlib.pyplot' not in sys.modules; "
        "print('fine')"
    )
    out = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert out.stdout == "fine\n", out.stderr


def test_without_matplotlib_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from asyncfit import curves

    curves._figure.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"History.plot needs matplotlib.*pip install 'asyncfit\[plot\]'"):
        THREE.plot()


@pytest.mark.parametrize(
    ("of", "how", "error", "words"),
    [
        (history(), {}, af.InvalidInput, "no complete epoch"),
        (THREE, {"names": "acuracy"}, af.InvalidInput, "accuracy"),
        (THREE, {"names": ["loss", 3]}, af.InvalidInput, "3"),
        (THREE, {"names": []}, af.InvalidInput, "names nothing"),
        (THREE, {"ax": "loss"}, TypeError, "Axes"),
    ],
)
def test_bad_input_is_refused(of: History, how: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        of.plot(**how)

"""Make the README's pictures of a real run on the digits: the progress bar in mid-run, and the curves.

pip install "asyncfit[plot,progress]"
python examples/pictures/make_pictures.py
"""

import asyncio
import io
import re
from pathlib import Path

import matplotlib
import numpy as np
from rich.console import Console
from rich.text import Text

import asyncfit as af
from asyncfit import callbacks, layers, optimizers

HERE = Path(__file__).parent
DATA = HERE.parent / "data" / "mnist10k.npz"
WIDTH = 108
ANEW = "\r\x1b[2K"
"""What the bar's terminal is told when its line is drawn anew."""


async def train(screen: io.StringIO) -> af.History:
    """A run whose progress is drawn on `screen`."""
    with np.load(DATA) as digits:
        x = digits["images"].reshape(-1, 784) / np.float32(255)
        y = digits["labels"]
    model = af.Sequential(
        [
            layers.Input((784,)),
            layers.Dense(512, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(256, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ],
        seed=7,
    )
    model.compile(optimizer=optimizers.Adam(0.0003), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    console = Console(file=screen, force_terminal=True, color_system="truecolor", width=WIDTH)
    return await model.fit(
        x[:8000],
        y[:8000],
        batch_size=16,
        epochs=12,
        validation_data=(x[8000:], y[8000:]),
        callbacks=callbacks.ProgressBar(console=console),
    )


def in_epoch(written: str, epoch: int, share: float) -> str:
    """What a terminal had been told when that epoch had got so far."""
    frames = written.split(ANEW)
    for place, frame in enumerate(frames):
        found = re.search(rf"epoch +{epoch}/.* (\d+)/(\d+) ", re.sub(r"\x1b\[[\d;]*m", "", frame))
        if found and int(found[1]) >= share * int(found[2]):
            return ANEW.join(frames[: place + 1])
    raise SystemExit(f"no such moment in epoch {epoch}: is the machine too quick for one?")


def photograph(written: str, path: Path) -> None:
    """What the terminal shows after all that was written, as a picture."""
    console = Console(record=True, file=io.StringIO(), width=WIDTH)
    for line in written.split("\n"):
        console.print(Text.from_ansi(line.rpartition(ANEW)[2]), soft_wrap=True)
    svg = console.export_svg(title="model.fit(…, callbacks=ProgressBar())")
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)  # a picture asks nobody for a font
    path.write_text(re.sub(r"[ \t]+\n", "\n", svg))


async def main() -> None:
    screen = io.StringIO()
    history = await train(screen)
    photograph(in_epoch(screen.getvalue(), 9, 0.6), HERE / "progress.svg")
    with matplotlib.rc_context({"svg.hashsalt": "asyncfit"}):  # the same run gives the same file
        history.plot().savefig(HERE / "curves.svg", metadata={"Date": None})


if __name__ == "__main__":
    asyncio.run(main())

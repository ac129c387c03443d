"""The house: who may import whom, what an import costs, and that nothing is public by accident."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import asyncfit

ROOT = Path(asyncfit.__file__).parent

ORDER = """
    errors names wording extras machine signals jobs events
    tasks stepping roster subscriptions mailbox streams bus callback claims
    nn adapting layers losses metrics optimizers initializers activations regularizers constraints
    data direct temporaries checkpoints locks backups formats protocol retracing pool
    snapshot background batching feeding control budget compute ledger resuming saving
    executors inline_port delivery
    curves notebook history run fit passes front trainer testing
    news modelfile reading sequential doctor
    callbacks
    __init__
""".split()
"""From the ground up: each may import only from what stands before it, a folder also from itself."""

WITHOUT_ASYNC = [
    "errors",
    "names",
    "wording",
    "machine",
    "events",
    "nn",
    "data",
    "formats",
    "direct",
    "temporaries",
    "checkpoints",
    "locks",
    "backups",
    "protocol",
    "retracing",
    "pool",
    "budget",
    "compute",
    "ledger",
    "resuming",
]


def rooms() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).parts[0].removesuffix(".py"), path


def imports(path: Path) -> set[str]:
    """The modules of asyncfit, and others, that a file imports when it runs."""
    found: set[str] = set()
    package = ["asyncfit", *path.relative_to(ROOT).parts[:-1]]

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "asyncfit":
                found.update(f"asyncfit.{alias.name}" for alias in node.names)
            else:
                found.add(module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def test_every_file_has_its_floor() -> None:
    assert {room for room, _ in rooms()} == set(ORDER)


@pytest.mark.parametrize(("room", "path"), [pytest.param(*r, id=str(r[1].relative_to(ROOT))) for r in rooms()])
def test_imports_point_down(room: str, path: Path) -> None:
    below = set(ORDER[: ORDER.index(room)])
    for name in imports(path):
        if name.startswith("asyncfit."):
            other = name.split(".")[1]
            assert other in below or (other == room and path.parent != ROOT), (
                f"{room} imports {name}, which is above it"
            )


@pytest.mark.parametrize("room", WITHOUT_ASYNC)
def test_the_lower_half_knows_nothing_of_async(room: str) -> None:
    for name, path in rooms():
        if name == room:
            assert not imports(path) & {"anyio", "asyncio", "trio", "anyio.to_thread", "anyio.lowlevel"}, path


def test_importing_touches_nothing_heavy() -> None:
    code = (
        "import sys, numpy, anyio; before = set(sys.modules); import asyncfit; "
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(out.stdout.split()) <= {"asyncfit", "anyio", "numpy", "sniffio"}  # h5py waits until a file is touched


@pytest.mark.parametrize("module", [m.name for m in pkgutil.walk_packages([str(ROOT)], "asyncfit.")])
def test_all_lists_exactly_what_is_there(module: str) -> None:
    made = importlib.import_module(module)
    assert made.__doc__, "says what it is for"
    listed = getattr(made, "__all__", None)
    if listed is None:
        assert not [n for n in vars(made) if not n.startswith("_")] or made.__file__.endswith("__init__.py")  # type: ignore[union-attr]
        return
    assert len(set(listed)) == len(listed)
    assert not [name for name in listed if not hasattr(made, name)]


def test_the_front_door_is_complete() -> None:
    names = [name for name in asyncfit.__all__ if hasattr(asyncfit, name)]
    wanted = """
        Sequential load_model Trainer Trainable Fit Run Snapshot History Progress SubscriberStats batches
        EventStream EventBus ProcessExecutor Subscription Callback inline Job Event LayerCreated ModelCompiled
        TrainBegin EpochBegin EpochEnd BatchBegin BatchEnd ValidationBegin ValidationEnd TrainEnd
        StopRequested LearningRateChanged WeightsRestored CheckpointSaved CheckpointFailed
        SubscriberFailed EventsDropped RunPaused RunResumed WorkerRestarted AsyncFitError InvalidInput ModelBusy
        NotStarted DetachedEvent GateReleased RunCancelled SubscriberTimeout WorkerLost
        CheckpointError BadFile CallbackBusy DirectoryBusy Omitted
        EvaluateBegin EvaluateBatchEnd EvaluateEnd PredictBegin PredictBatchEnd PredictEnd
    """.split()
    assert not set(wanted) - set(names)
    assert (ROOT / "py.typed").exists()


def test_the_public_modules_are_there_without_an_import_of_their_own() -> None:
    code = (
        "import asyncfit as af\n"
        "print(af.layers.Dense(1).units, af.callbacks.EarlyStopping().monitor, af.losses.__name__)\n"
        "[getattr(af, door) for door in 'activations constraints initializers'.split()]\n"
        "[getattr(af, door) for door in 'metrics optimizers regularizers testing'.split()]\n"
        "try: af.layer\nexcept AttributeError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1 val_loss asyncfit.losses", "module 'asyncfit' has no attribute 'layer'"]


def test_the_table_of_floors_is_the_order() -> None:
    table = (ROOT.parent / "CONTRIBUTING.md").read_text().split("| floor |")[1].split("\n\n")[0]
    floors = [re.findall(r"`(\w+)/?`", line.split("|")[2]) for line in table.splitlines()[2:]]
    told = [room for floor in reversed(floors) for room in sorted(floor, key=ORDER.index)]
    assert [*told, "__init__"] == ORDER

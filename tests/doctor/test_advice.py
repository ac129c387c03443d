"""Advice, from facts that were made up."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from asyncfit.doctor import Advice, Facts, Speed, advise, as_dict, as_text, measure
from asyncfit.doctor.__main__ import main
from asyncfit.doctor.advice import allowed
from asyncfit.doctor.kernels import LEVELS, family_of, level_of

AVX512 = ("avx", "avx2", "avx512bw", "avx512dq", "avx512f", "avx512vl", "fma", "sse")
AVX2 = ("avx", "avx2", "fma", "sse")
GOOD = Facts(
    system="Linux", architecture="x86_64", python="CPython 3.12.1", processor="Xeon", flags=AVX512, cpus=8, usable=8,
    cores=8, load=0.5, blas="scipy-openblas 0.3.31", kernels="SkylakeX", threads=8,
    versions={"asyncfit": "1", "numpy": "2.4", "uvloop": None, "trio": "0.30"},
)  # fmt: skip
FAST = Speed(products={64: 60.0, 1024: 400.0}, memory=20.0, call=0.4, batch=15.0)


def of(speed: Speed | None = None, **changes: Any) -> list[Advice]:
    return advise(dataclasses.replace(GOOD, **changes), speed)


def test_where_all_is_well_nothing_is_said() -> None:
    assert of() == []
    assert of(FAST) == []
    assert "Nothing stands in the way." in as_text(GOOD, FAST, [])


def test_kernels_that_a_variable_forces() -> None:
    (one,) = of(kernels="Haswell", variables={"OPENBLAS_CORETYPE": "Haswell"})
    assert (one.weight, one.about) == ("slow", "kernels")
    assert "AVX-512" in one.what
    assert "OPENBLAS_CORETYPE=Haswell forces them" in one.what
    assert one.do is not None
    assert one.do.startswith("unset OPENBLAS_CORETYPE")
    assert 'ProcessExecutor(env={"OPENBLAS_CORETYPE": None})' in one.do


def test_kernels_of_a_blas_that_does_not_know_the_processor() -> None:
    (one,) = of(kernels="Prescott")
    assert one.weight == "slow"
    assert one.do is not None
    assert "upgrade numpy" in one.do
    assert "OPENBLAS_CORETYPE=SkylakeX" in one.do


def test_kernels_that_the_processor_cannot_run() -> None:
    (one,) = of(flags=AVX2, variables={"OPENBLAS_CORETYPE": "SkylakeX"})
    assert (one.weight, one.do) == ("wrong", "unset OPENBLAS_CORETYPE")


def test_kernels_that_suit_though_they_are_forced() -> None:
    (one,) = of(variables={"OPENBLAS_CORETYPE": "SkylakeX"})
    assert (one.weight, one.do) == ("note", None)


@pytest.mark.parametrize(
    ("kernels", "flags"),
    [("Zen", AVX2), ("Haswell", AVX2), ("Cooperlake", AVX512), ("neoversev1", ("asimd", "sve")), ("armv8", ("asimd",))],
)
def test_kernels_that_fit(kernels: str, flags: tuple[str, ...]) -> None:
    assert of(kernels=kernels, flags=flags) == []


@pytest.mark.parametrize(("kernels", "flags"), [("unknown", AVX512), ("SkylakeX", ()), ("Haswell", ("asimd", "sve"))])
def test_of_what_is_not_known_nothing_is_said(kernels: str, flags: tuple[str, ...]) -> None:
    assert of(kernels=kernels, flags=flags) == []


def test_sve_that_is_not_used() -> None:
    (one,) = of(kernels="armv8", flags=("asimd", "sve"))
    assert "SVE" in one.what


def test_levels_tell_apart() -> None:
    families = [family for level in LEVELS for family in level.families]
    assert len(families) == len(set(families))
    for level in LEVELS:
        assert family_of(level.core) is level
        assert level_of(level.needs) is level


def test_more_threads_than_a_container_may_use() -> None:
    found = of(quota=2.0, threads=8)
    assert [one.weight for one in found] == ["slow", "note"]
    assert "quota is 2 CPUs" in found[0].what
    assert found[0].do == "set OPENBLAS_NUM_THREADS=2 before Python starts"
    assert "sees 8" in found[1].what
    assert of(quota=0.5, threads=4)[0].do == "set OPENBLAS_NUM_THREADS=1 before Python starts"


def test_more_threads_than_cores() -> None:
    (one,) = of(cores=4)
    assert "share its arithmetic units" in one.what
    assert one.do == "set OPENBLAS_NUM_THREADS=4 before Python starts"
    (one,) = of(usable=3, threads=8, variables={"OMP_NUM_THREADS": "8"})
    assert "may run on 3 CPUs" in one.what
    assert one.do == "set OMP_NUM_THREADS=3 before Python starts"
    assert of(threads=None, usable=3) == []


def test_fewer_threads_than_there_could_be() -> None:
    (one,) = of(threads=1, variables={"OPENBLAS_NUM_THREADS": "1"})
    assert (one.weight, one.do) == ("note", "for large networks: set OPENBLAS_NUM_THREADS=8")


@pytest.mark.parametrize(
    ("changes", "count"),
    [({}, 8), ({"usable": 3}, 3), ({"quota": 1.5}, 2), ({"quota": 0.1}, 1), ({"cores": 4}, 4), ({"cores": None}, 8)],
)
def test_how_many_threads_can_run(changes: dict[str, Any], count: int) -> None:
    assert allowed(dataclasses.replace(GOOD, **changes)) == count


def test_a_blas_without_kernels() -> None:
    (one,) = of(blas="blas 3.12", kernels="unknown", threads=None)
    assert (one.weight, one.about) == ("slow", "blas")
    assert of(blas="accelerate", kernels="unknown", threads=None) == []


def test_variables_that_do_nothing() -> None:
    (one,) = of(variables={"MKL_DEBUG_CPU_TYPE": "5", "MKL_NUM_THREADS": "8"})
    assert "no effect" in one.what
    (one,) = of(blas="mkl-sdl 2024", kernels="unknown", variables={"OPENBLAS_CORETYPE": "Haswell"})
    assert "OPENBLAS_CORETYPE has no effect" in one.what
    (one,) = of(variables={"OPENBLAS_NUM_THREADS": "8", "OMP_NUM_THREADS": "4"})
    assert one.what == "OPENBLAS_NUM_THREADS=8 counts for BLAS; OMP_NUM_THREADS=4 does not"
    assert of(variables={"OPENBLAS_NUM_THREADS": "8", "OMP_NUM_THREADS": "8", "MKL_NUM_THREADS": "8"}) == []


@pytest.mark.parametrize("name", ["PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONMALLOC", "NPY_DISABLE_CPU_FEATURES"])
def test_variables_that_cost(name: str) -> None:
    (one,) = of(variables={name: "debug"})
    assert one.weight == "slow"
    assert one.do is not None
    assert f"unset {name}" in one.do
    assert of(variables={"PYTHONMALLOC": "pymalloc"}) == []


def test_a_python_for_debugging_and_a_busy_machine() -> None:
    (one,) = of(debug=True)
    assert one.about == "python"
    (one,) = of(load=20.0)
    assert "busy" in one.what


def test_figures_that_are_strange() -> None:
    (one,) = of(dataclasses.replace(FAST, products={64: 60.0, 1024: 20.0}))
    assert one.about == "threads"
    (one,) = of(dataclasses.replace(FAST, call=8.0))
    assert "8.0 µs" in one.what


def test_the_text_and_the_weightiest_first() -> None:
    facts = dataclasses.replace(
        GOOD, flags=AVX2, quota=2.0, threads=8, variables={"OPENBLAS_CORETYPE": "SkylakeX", "PYTHONDEVMODE": "1"}
    )
    found = advise(facts, FAST)
    assert [one.weight for one in found] == ["wrong", "slow", "slow", "note"]
    text = as_text(facts, FAST, found)
    for part in ("Xeon, has AVX2", "SkylakeX kernels (AVX-512), 8 threads", "a quota of 2", "400 at 1024×1024",
                 "not installed: uvloop", "What to do", "!! ", "→ unset OPENBLAS_CORETYPE", "15.0 µs"):  # fmt: skip
        assert part in text
    assert max(len(line) for line in text.splitlines()) <= 100
    told = json.loads(json.dumps(as_dict(facts, FAST, found)))
    assert told["facts"]["allowed"] == 2
    assert told["speed"]["products"] == {"64": 60.0, "1024": 400.0}
    assert told["advice"][0]["weight"] == "wrong"
    bare = Facts(system="Windows", architecture="AMD64", python="CPython 3.13.0")
    assert "threads unknown" in as_text(bare, None, advise(bare))


def test_the_speed_test_measures() -> None:
    found = measure(0.05)
    assert all(value > 0 for value in (*found.products.values(), found.memory, found.call, found.batch))


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--no-speed"]) == 0
    assert capsys.readouterr().out.startswith("Python ")
    assert main(["--no-speed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["blas"]


def test_the_module_runs_where_a_console_knows_ascii_only() -> None:
    command = [sys.executable, "-W", "error", "-m", "asyncfit.doctor", "--no-speed"]
    environment = {"PYTHONIOENCODING": "ascii", "OPENBLAS_CORETYPE": "Haswell"}

    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"OPENBLAS_CORETYPE=Haswell" in done.stdout

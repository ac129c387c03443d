"""Facts, from files as other machines have them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

import pytest

from asyncfit import machine
from asyncfit.doctor import collect, facts
from asyncfit.doctor.facts import cpu_info, quota

INTEL = """processor\t: 0
model name\t: Intel(R) Xeon(R) Gold 6230
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu sse sse2 avx avx2 fma avx512f avx512dq avx512bw avx512vl

processor\t: 1
model name\t: Intel(R) Xeon(R) Gold 6230
physical id\t: 0
core id\t\t: 1
flags\t\t: fpu sse sse2 avx avx2 fma avx512f avx512dq avx512bw avx512vl

processor\t: 2
model name\t: Intel(R) Xeon(R) Gold 6230
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu sse sse2 avx avx2 fma avx512f avx512dq avx512bw avx512vl
"""
ARM = (
    "processor\t: 0\nFeatures\t: fp asimd evtstrm sve\nCPU part\t: 0xd40\n\nprocessor\t: 1\nFeatures\t: fp asimd sve\n"
)


def test_processors() -> None:
    name, flags, cores = cpu_info(INTEL)
    assert (name, cores) == ("Intel(R) Xeon(R) Gold 6230", 2)
    assert flags == ("avx", "avx2", "avx512bw", "avx512dq", "avx512f", "avx512vl", "fma", "sse", "sse2")
    assert cpu_info(ARM) == (None, ("asimd", "sve"), None)
    assert cpu_info("") == (None, (), None)


V2 = {"/proc/self/cgroup": "0::/docker/abc\n"}
V1 = {"/proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({**V2, "/sys/fs/cgroup/docker/abc/cpu.max": "max 100000\n"}, None),
        ({**V2, "/sys/fs/cgroup/docker/abc/cpu.max": "150000 100000\n"}, 1.5),
        ({**V2, "/sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),  # a container sees its own group as the root
        (
            {
                **V2,
                "/sys/fs/cgroup/docker/abc/cpu.max": "400000 100000",
                "/sys/fs/cgroup/docker/cpu.max": "200000 100000",
            },
            2.0,
        ),
        ({"/sys/fs/cgroup/cpu.max": "300000 100000"}, 3.0),
        (
            {
                **V1,
                "/sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "200000\n",
                "/sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            2.0,
        ),
        (
            {
                **V1,
                "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "25000\n",
                "/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "50000\n",
            },
            0.5,
        ),
        (
            {
                **V1,
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({**V2, "/sys/fs/cgroup/cpu.max": "damaged"}, None),
    ],
)
def test_quotas(files: Mapping[str, str], expected: float | None) -> None:
    assert quota(files.get) == expected


def test_this_machine() -> None:
    found = collect()
    assert found.usable >= 1
    assert found.versions["numpy"]
    assert found.versions["asyncfit"]
    assert found.python.split(" ")[1].startswith("3.")


def test_a_machine_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS and Windows: no /proc, no affinity, no load; NumPy's own look stands in for the flags."""
    monkeypatch.setattr(facts, "read", lambda path: None)
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.delattr("os.getloadavg", raising=False)
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr(facts, "asked", lambda *command: "Apple M3")
    shown = {"SIMD Extensions": {"baseline": ["NEON", "ASIMD"], "found": ["SVE", "ASIMDHP"]}}
    monkeypatch.setattr("numpy.show_config", lambda mode: shown)

    def missing(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setattr(machine, "blas", lambda: {"blas": "unknown", "kernels": "unknown", "threads": "unknown"})
    found = collect()
    assert (found.processor, found.flags, found.cores, found.quota, found.load) == (
        "Apple M3",
        ("asimd", "sve"),
        None,
        None,
        None,
    )
    assert found.versions["numpy"] is None
    assert found.threads is None
    assert found.usable == found.cpus


@pytest.mark.parametrize("name", ["AVX512_SKX", "X86_V4"])  # until NumPy 2.3, and since
def test_numpy_s_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "numpy.show_config", lambda mode: {"SIMD Extensions": {"baseline": ["SSE"], "found": ["AVX2", name]}}
    )
    assert {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"} <= set(facts.numpy_flags())


def test_a_program_that_is_not_there() -> None:
    assert facts.asked("no-such-program-anywhere") is None

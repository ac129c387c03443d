"""What kernels need: OpenBLAS's families by the instructions that they use, and what a processor's flags allow."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["LEVELS", "Level", "family_of", "level_of"]


@dataclass(frozen=True, slots=True)
class Level:
    """A set of instructions.

    Attributes:
        kind: "x86" or "arm".
        rank: higher is faster, within a kind.
        core: what `OPENBLAS_CORETYPE` calls the plain kernels of this level.
        needs: the flags of a processor that has it.
        families: OpenBLAS's names of kernels for it, in lower case.
        cost: what it means to be held at this level by a processor that can do more.
    """

    kind: str
    rank: int
    name: str
    core: str
    needs: frozenset[str]
    families: frozenset[str]
    cost: str = "matrix products are several times slower"


def names(text: str) -> frozenset[str]:
    return frozenset(text.split())


LEVELS = (
    Level("x86", 3, "AVX-512", "SkylakeX", names("avx512f avx512dq avx512bw avx512vl"),
          names("skylakex cooperlake sapphirerapids")),
    Level("x86", 2, "AVX2", "Haswell", names("avx2 fma"), names("haswell zen excavator"),
          "large matrix products take up to twice the time"),
    Level("x86", 1, "AVX", "Sandybridge", names("avx"), names("sandybridge bulldozer piledriver steamroller"),
          "large matrix products take two to four times the time"),
    Level("x86", 0, "SSE", "Nehalem", names("sse"), names(
        "prescott nehalem core2 penryn dunnington atom banias katmai coppermine northwood athlon opteron opteron_sse3 "
        "barcelona bobcat nano generic")),
    Level("arm", 1, "SVE", "NEOVERSEV1", names("sve"), names("neoversev1 neoversen2 neoversev2 a64fx armv8sve")),
    Level("arm", 0, "NEON", "ARMV8", names("asimd"), names(
        "armv8 cortexa53 cortexa55 cortexa57 cortexa72 cortexa73 cortexa76 falkor thunderx thunderx2t99 thunderx3t110 "
        "tsv110 neoversen1 emag8180 vortex vortexm4 ft2000"), "large matrix products take up to twice the time"),
)  # fmt: skip
"""Best first within a kind. Source: OpenBLAS's driver/others/dynamic.c and dynamic_arm64.c, TargetList.txt."""


def level_of(flags: Collection[str]) -> Level | None:
    """The best level that a processor with these flags has, None if they say nothing."""
    return next((level for level in LEVELS if level.needs <= set(flags)), None)


def family_of(kernels: str) -> Level | None:
    """The level that kernels of this name use, None for an unknown name."""
    return next((level for level in LEVELS if kernels.lower() in level.families), None)

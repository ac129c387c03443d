"""Initial values of weights: Keras 3's names, defaults and distributions, drawn from a stream that the caller brings.

Source of the formulas: Glorot & Bengio 2010 (glorot), He et al. 2015 (he), LeCun et al. 1998 (lecun). As in Keras
the normal ones are truncated at two standard deviations and widened so that the variance is what the paper asks for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias

import numpy as np

from asyncfit.errors import InvalidInput

from .arrays import Array, Shape
from .custom import the_users
from .naming import CheckedKeywords, fold, look_up, number, plain_config, whole

__all__ = [
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "InitializerLike",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "config",
    "get",
]

TRUNCATED_STDDEV = 0.87962566103423978
"""Standard deviation of a standard normal distribution that is cut at ±2."""


class Initializer(CheckedKeywords):
    """Fills a new weight. Subclasses override `fill` and `get_config`."""

    def fill(self, shape: Shape, rng: np.random.Generator) -> Array:
        """Values of `shape` (float64); random ones come from `rng` and nowhere else."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Initializer:
        made = cls(**plain_config(cls, config, ignored=("dtype",), off={"input_axes": None, "output_axes": None}))
        assert isinstance(made, Initializer)
        return made

    def __call__(self, shape: Shape, seed: int | None = None) -> Array:
        """Float32 values of `shape`; None draws a seed."""
        return self.fill(tuple(shape), np.random.default_rng(seed)).astype(np.float32)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((type(self), repr(self.get_config())))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.get_config().items())})"


InitializerLike: TypeAlias = str | Initializer | Mapping[str, Any]


class Zeros(Initializer):
    def fill(self, shape: Shape, rng: np.random.Generator) -> Array:
        return np.zeros(shape)


class Ones(Initializer):
    def fill(self, shape: Shape, rng: np.random.Generator) -> Array:
        return np.ones(shape)


class Constant(Initializer):
    def __init__(self, value: float = 0.0) -> None:
        self.value = number("Constant(value=…)", value)

    def fill(self, shape: Shape, rng: np.random.Generator) -> Array:
        return np.full(shape, self.value)

    def get_config(self) -> dict[str, Any]:
        return {"value": self.value}


class Seeded(Initializer):
    """With a `seed` of its own an initializer gives the same values each time, whatever the model's seed is."""

    seed: int | None

    def fill(self, shape: Shape, rng: np.random.Generator) -> Array:
        return self.draw(shape, rng if self.seed is None else np.random.Generator(np.random.Philox(self.seed)))

    def draw(self, shape: Shape, rng: np.random.Generator) -> Array:
        raise NotImplementedError


class RandomUniform(Seeded):
    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        self.minval = number("RandomUniform(minval=…)", minval)
        self.maxval = number("RandomUniform(maxval=…)", maxval, least=self.minval)
        self.seed = whole_seed(seed)

    def draw(self, shape: Shape, rng: np.random.Generator) -> Array:
        return rng.uniform(self.minval, self.maxval, shape)

    def get_config(self) -> dict[str, Any]:
        return {"minval": self.minval, "maxval": self.maxval, "seed": self.seed}


class RandomNormal(Seeded):
    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        self.mean = number(f"{type(self).__name__}(mean=…)", mean)
        self.stddev = number(f"{type(self).__name__}(stddev=…)", stddev, least=0.0)
        self.seed = whole_seed(seed)

    def draw(self, shape: Shape, rng: np.random.Generator) -> Array:
        return rng.normal(self.mean, self.stddev, shape)

    def get_config(self) -> dict[str, Any]:
        return {"mean": self.mean, "stddev": self.stddev, "seed": self.seed}


class TruncatedNormal(RandomNormal):
    """A normal distribution cut at two standard deviations: what falls outside is drawn again."""

    def draw(self, shape: Shape, rng: np.random.Generator) -> Array:
        return self.mean + self.stddev * truncated(shape, rng)


class VarianceScaling(Seeded):
    """Variance `scale / n`, where n is the mean of fan in and fan out (or one of the two), as `mode` says."""

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ) -> None:
        self.scale = number("VarianceScaling(scale=…)", scale, least=1e-30)
        self.mode = one_of("mode", mode, ("fan_in", "fan_out", "fan_avg"))
        distribution = "truncated_normal" if distribution == "normal" else distribution
        known = ("truncated_normal", "untruncated_normal", "uniform")
        self.distribution = one_of("distribution", distribution, known)
        self.seed = whole_seed(seed)

    def draw(self, shape: Shape, rng: np.random.Generator) -> Array:
        fan_in, fan_out = fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            return rng.uniform(-limit, limit, shape)
        if self.distribution == "untruncated_normal":
            return rng.normal(0.0, math.sqrt(variance), shape)
        return math.sqrt(variance) / TRUNCATED_STDDEV * truncated(shape, rng)

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale, "mode": self.mode, "distribution": self.distribution, "seed": self.seed}


class Named(VarianceScaling):
    """A VarianceScaling with a name of its own; only the seed can be chosen."""

    settings: ClassVar[tuple[float, str, str]]

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(*self.settings, seed=seed)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


class GlorotUniform(Named):
    settings = (1.0, "fan_avg", "uniform")


class GlorotNormal(Named):
    settings = (1.0, "fan_avg", "truncated_normal")


class HeUniform(Named):
    settings = (2.0, "fan_in", "uniform")


class HeNormal(Named):
    settings = (2.0, "fan_in", "truncated_normal")


class LecunUniform(Named):
    settings = (1.0, "fan_in", "uniform")


class LecunNormal(Named):
    settings = (1.0, "fan_in", "truncated_normal")


class Orthogonal(Seeded):
    """Rows (or columns, whichever are fewer) are at right angles to each other and of length `gain` (Saxe et al. 2014).

    All axes but the last count as rows.
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        self.gain = number("Orthogonal(gain=…)", gain)
        self.seed = whole_seed(seed)

    def draw(self, shape: Shape, rng: np.random.Generator) -> Array:
        if len(shape) < 2:
            raise InvalidInput(f"Orthogonal fills weights of at least two axes, not of the shape {shape}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
        q *= np.where(np.diag(r) < 0, -1.0, 1.0)  # so that each such matrix is as likely as any other
        return self.gain * (q.T if rows < columns else q).reshape(shape)

    def get_config(self) -> dict[str, Any]:
        return {"gain": self.gain, "seed": self.seed}


class Identity(Initializer):
    """`gain` on the diagonal of a matrix, 0 elsewhere."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = number("Identity(gain=…)", gain)

    def fill(self, shape: Shape, rng: np.random.Generator) -> Array:
        if len(shape) != 2:
            raise InvalidInput(f"Identity fills matrices, not weights of the shape {shape}")
        return self.gain * np.eye(*shape)

    def get_config(self) -> dict[str, Any]:
        return {"gain": self.gain}


def truncated(shape: Shape, rng: np.random.Generator) -> Array:
    found = rng.standard_normal(shape)
    while (outside := np.abs(found) > 2.0).any():
        found[outside] = rng.standard_normal(int(np.count_nonzero(outside)))
    return found


def fans(shape: Shape) -> tuple[int, int]:
    """Inputs and outputs of a weight: `(in, out)`, or `(…, in, out)` with a receptive field before (convolutions)."""
    if len(shape) < 2:
        return (shape[0], shape[0]) if shape else (1, 1)
    field = math.prod(shape[:-2])
    return shape[-2] * field, shape[-1] * field


def whole_seed(seed: object) -> int | None:
    return None if seed is None else whole("the seed of an initializer", seed, least=0)


def one_of(what: str, value: str, known: tuple[str, ...]) -> str:
    return look_up(f"VarianceScaling {what}", value, {fold(name): name for name in known}, known)


SPELLINGS = {
    "constant": Constant,
    "glorot_normal": GlorotNormal,
    "glorot_uniform": GlorotUniform,
    "he_normal": HeNormal,
    "he_uniform": HeUniform,
    "identity": Identity,
    "lecun_normal": LecunNormal,
    "lecun_uniform": LecunUniform,
    "ones": Ones,
    "orthogonal": Orthogonal,
    "random_normal": RandomNormal,
    "random_uniform": RandomUniform,
    "truncated_normal": TruncatedNormal,
    "variance_scaling": VarianceScaling,
    "zeros": Zeros,
}
TABLE: dict[str, type[Initializer]] = {fold(name): cls for name, cls in SPELLINGS.items()} | {
    "normal": RandomNormal,
    "one": Ones,
    "uniform": RandomUniform,
    "zero": Zeros,
}


def get(given: InitializerLike) -> Initializer:
    """The initializer for a name, a config `{"class_name", "config"}` or an initializer.

    Raises:
        InvalidInput: the name is unknown; the message has the nearest known one.
    """
    if isinstance(given, Initializer):
        return given
    if isinstance(given, str):
        return (the_users(given, Initializer) or look_up("initializer", given, TABLE, SPELLINGS))()
    if isinstance(given, Mapping):
        name = str(given.get("class_name"))
        cls = the_users(name, Initializer) or look_up("initializer", name, TABLE, SPELLINGS)
        made: Initializer = cls.from_config(given.get("config") or {})
        return made
    raise InvalidInput(f"an initializer is a name, an Initializer or a config, not {given!r}")


def config(initializer: Initializer) -> dict[str, Any]:
    """`{"class_name", "config"}`, as Keras 2, Keras 3 and TF.js read it."""
    return {"class_name": type(initializer).__name__, "config": initializer.get_config()}

"""Sampled parameters: samplers draw points of the unit cube, which distributions map to values."""

import hashlib
from array import array
from collections.abc import Callable, Sequence
from typing import Final, Literal, overload

from ems_worker.core import canonical

JSON = canonical.JSON
Sampler = Literal["random", "sobol", "halton", "lhs"]

SAMPLERS: Final = ("random", "sobol", "halton", "lhs")
MAX_SAMPLES: Final = 2**22
# Samples times sampled parameters, for samplers that draw all of them at once: 8 MB of numbers.
MAX_NUMBERS: Final = 2**20
_UNIT: Final = 2.0**-53


class MissingExtraError(Exception):
    """The package that the sampler needs is not installed."""


class Column(Sequence[JSON]):
    """The values of one sampled parameter: coordinates in [0, 1), mapped by its distribution."""

    __slots__ = ("_coordinates", "_value")

    def __init__(self, coordinates: Sequence[float], value: Callable[[float], JSON]) -> None:
        self._coordinates = coordinates
        self._value = value

    def __len__(self) -> int:
        return len(self._coordinates)

    @overload
    def __getitem__(self, index: int) -> JSON: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[JSON]: ...
    def __getitem__(self, index: int | slice) -> JSON | Sequence[JSON]:
        if isinstance(index, slice):
            return [self._value(coordinate) for coordinate in self._coordinates[index]]
        return self._value(self._coordinates[index])


class _Hashed(Sequence[float]):
    """Random coordinates: coordinate i is the first 53 bits of SHA-256 over `ems-sample-1:{seed}:{i}:{name}`."""

    __slots__ = ("_count", "_name", "_seed")

    def __init__(self, seed: int, name: str, count: int) -> None:
        self._seed = seed
        self._name = name
        self._count = count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[float]: ...
    def __getitem__(self, index: int | slice) -> float | Sequence[float]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._count))]
        digest = hashlib.sha256(f"ems-sample-1:{self._seed}:{index}:{self._name}".encode()).digest()
        return (int.from_bytes(digest[:8], "big") >> 11) * _UNIT


def columns(
    sampler: Sampler, names: Sequence[str], count: int, seed: int, *, times: int = 1
) -> Sequence[Sequence[float]]:
    """`count` points of the unit cube, `times` over: one column per parameter name. Raises MissingExtraError.

    The first ones don't depend on `times`; further ones of a latin hypercube are hypercubes of their own. With `random`
    a column depends only on the seed and the parameter's name, so that other parameters and more samples don't change
    it.
    """
    if sampler == "random":
        return [_Hashed(seed, name, count * times) for name in names]
    return _low_discrepancy(sampler, len(names), count, seed, times=times)


def _low_discrepancy(
    sampler: Sampler, dimensions: int, count: int, seed: int, *, times: int
) -> Sequence[Sequence[float]]:
    try:
        import numpy as np  # loading these takes a second, and only these samplers need them
        from scipy.stats import qmc
    except ImportError as error:
        raise MissingExtraError(sampler) from error
    # An explicit generator: the meaning of a plain seed has changed between versions of scipy.
    rng = np.random.Generator(np.random.PCG64(seed))
    engine: qmc.QMCEngine
    total = count * times
    if sampler == "sobol":
        engine = qmc.Sobol(dimensions, scramble=True, seed=rng)
        # scipy warns unless it draws a power of two, of which the first samples are the same; the plan warns itself.
        points = engine.random(1 << (total - 1).bit_length())[:total]
    elif sampler == "halton":
        points = qmc.Halton(dimensions, scramble=True, seed=rng).random(total)
    else:
        engine = qmc.LatinHypercube(dimensions, seed=rng)
        points = np.concatenate([engine.random(count) for _ in range(times)])
    return [array("d", column.tobytes()) for column in points.T]

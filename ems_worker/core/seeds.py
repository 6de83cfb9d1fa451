"""Random seeds of runs: pure functions of the plan's root, the point and the replicate.

The pair (point, replicate) is a 52-bit number, `point << 20 | replicate`. The root selects a permutation of all 52-bit
numbers, and the seed is the image of the pair. A permutation never maps two pairs to the same seed, so that the seeds
of an experiment don't collide. Each seed depends only on its own pair, so that adding points, replicates or attempts
changes none. Numbers of 52 bits are exact in JSON and in JavaScript.

The permutation is a balanced Feistel network of 6 rounds over two halves of 26 bits. The round function is the first
four bytes (big-endian, their low 26 bits) of SHA-256 over the ASCII text `ems-seed-1:{root}:{round}:{half}`, numbers in
decimal, rounds from 0, `half` the right half. `docs/plan-language.md` has test vectors.
"""

import functools
import hashlib
from collections.abc import Sequence
from typing import Final, Literal

Policy = Literal["common", "independent", "list"]

ROUNDS: Final = 6
POINTS: Final = 2**32
REPLICATES: Final = 2**20
_HALF: Final = 26
_MASK: Final = 2**_HALF - 1


def seed(policy: Policy, root: int, point: int, replicate: int, *, values: Sequence[int] = ()) -> int:
    """The seed of a job: 0 <= seed < 2**52, unless the plan lists its seeds.

    With `common`, replicate r has the same seed at every point, so that points can be compared in pairs. With
    `independent`, each job has its own seed. With `list`, replicate r has the seed number r of `values`.
    """
    if policy == "list":
        return values[replicate]
    if policy == "common":
        return _common(root, replicate)
    return permute(root, point << 20 | replicate)


def permute(root: int, number: int) -> int:
    """The image of a 52-bit number under the root's permutation."""
    left, right = number >> _HALF, number & _MASK
    sha256 = hashlib.sha256
    for prefix in _prefixes(root):
        digest = sha256(b"%b%d" % (prefix, right)).digest()
        left, right = right, left ^ int.from_bytes(digest[:4], "big") & _MASK
    return left << _HALF | right


@functools.lru_cache(maxsize=64)
def _prefixes(root: int) -> tuple[bytes, ...]:
    return tuple(b"ems-seed-1:%d:%d:" % (root, number) for number in range(ROUNDS))


@functools.lru_cache(maxsize=4096)
def _common(root: int, replicate: int) -> int:
    return permute(root, replicate)

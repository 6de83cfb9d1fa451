"""The seeds of runs."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core import seeds

ROOTS = st.integers(0, 2**63 - 1)
POINTS = st.integers(0, seeds.POINTS - 1)
REPLICATES = st.integers(0, seeds.REPLICATES - 1)

# The test vectors of docs/plan-language.md: (policy, root, point, replicate) -> seed.
VECTORS = [
    ("common", 0, 0, 0, 951979130700066),
    ("common", 0, 0, 1, 2947676365597677),
    ("common", 0, 12345, 1, 2947676365597677),
    ("common", 42, 0, 0, 1945375010677563),
    ("independent", 0, 0, 0, 951979130700066),
    ("independent", 0, 1, 0, 3729102246300581),
    ("independent", 0, 1, 1, 3385054348111303),
    ("independent", 42, 1000, 7, 474149134416048),
    ("independent", 2**63 - 1, 2**32 - 1, 2**20 - 1, 2466151084304025),
]


@pytest.mark.parametrize(("policy", "root", "point", "replicate", "expected"), VECTORS)
def test_the_published_seeds_never_change(
    policy: seeds.Policy, root: int, point: int, replicate: int, expected: int
) -> None:
    """Every version of the worker has the same seeds, so that results can be compared across years."""
    assert seeds.seed(policy, root, point, replicate) == expected


@given(ROOTS, POINTS, REPLICATES)
def test_a_seed_is_exact_in_json_and_javascript(root: int, point: int, replicate: int) -> None:
    """It is less than 2**52."""
    assert 0 <= seeds.seed("independent", root, point, replicate) < 2**52
    assert 0 <= seeds.seed("common", root, point, replicate) < 2**52


@given(ROOTS, POINTS, POINTS, REPLICATES)
def test_common_seeds_are_the_same_at_every_point(root: int, point: int, other: int, replicate: int) -> None:
    """They equal the independent seeds of point 0."""
    assert seeds.seed("common", root, point, replicate) == seeds.seed("common", root, other, replicate)
    assert seeds.seed("common", root, point, replicate) == seeds.seed("independent", root, 0, replicate)


@given(ROOTS, st.sets(st.tuples(POINTS, REPLICATES), min_size=2, max_size=50))
def test_independent_seeds_never_collide(root: int, jobs: set[tuple[int, int]]) -> None:
    """Different jobs of an experiment have different seeds."""
    assert len({seeds.seed("independent", root, point, replicate) for point, replicate in jobs}) == len(jobs)


@given(ROOTS, st.integers(0, 2**52 - 1))
def test_seeds_are_a_permutation_for_every_root(root: int, number: int) -> None:
    """The rounds of the documented Feistel network, in reverse, map each image back to its number."""
    image = seeds.permute(root, number)
    left, right = image >> 26, image & (2**26 - 1)
    for number_of_round in reversed(range(seeds.ROUNDS)):
        digest = hashlib.sha256(f"ems-seed-1:{root}:{number_of_round}:{left}".encode()).digest()
        left, right = right ^ int.from_bytes(digest[:4], "big") & (2**26 - 1), left
    assert left << 26 | right == number


def test_seeds_of_neighbouring_jobs_look_unrelated() -> None:
    """On average half of the bits differ between replicates, points and roots that differ by one."""
    flips: list[int] = []
    for number in range(500):
        here = seeds.seed("independent", 7, number, number)
        others = (
            seeds.seed("independent", 7, number, number + 1),
            seeds.seed("independent", 7, number + 1, number),
            seeds.seed("independent", 8, number, number),
        )
        flips.extend((here ^ other).bit_count() for other in others)
    assert 25.5 < sum(flips) / len(flips) < 26.5
    assert min(flips) > 5


def test_listed_seeds_are_used_unchanged() -> None:
    """Replicate r has the seed number r of the list at every point."""
    assert [seeds.seed("list", 0, 3, replicate, values=(5, 6, 7)) for replicate in range(3)] == [5, 6, 7]

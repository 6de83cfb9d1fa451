"""Seeds of runs."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core import seeds

ROOTS = st.integers(0, 2**63 - 1)
POINTS = st.integers(0, seeds.POINTS - 1)
REPLICATES = st.integers(0, seeds.REPLICATES - 1)

# Published in docs/plan-language.md: (policy, root, point, replicate) -> seed.
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
def test_published_vectors(policy: seeds.Policy, root: int, point: int, replicate: int, expected: int) -> None:
    """A seed never changes, in any version: results are compared across years."""
    assert seeds.seed(policy, root, point, replicate) == expected


@given(ROOTS, POINTS, REPLICATES)
def test_a_seed_is_exact_in_json_and_javascript(root: int, point: int, replicate: int) -> None:
    """Seeds stay below 2**52."""
    assert 0 <= seeds.seed("independent", root, point, replicate) < 2**52
    assert 0 <= seeds.seed("common", root, point, replicate) < 2**52


@given(ROOTS, POINTS, POINTS, REPLICATES)
def test_common_seeds_pair_points(root: int, point: int, other: int, replicate: int) -> None:
    """Replicate r has the same seed at every point; it is the independent seed of point 0."""
    assert seeds.seed("common", root, point, replicate) == seeds.seed("common", root, other, replicate)
    assert seeds.seed("common", root, point, replicate) == seeds.seed("independent", root, 0, replicate)


@given(ROOTS, st.sets(st.tuples(POINTS, REPLICATES), min_size=2, max_size=50))
def test_independent_seeds_never_collide(root: int, jobs: set[tuple[int, int]]) -> None:
    """Different jobs of an experiment have different seeds."""
    assert len({seeds.seed("independent", root, point, replicate) for point, replicate in jobs}) == len(jobs)


@given(ROOTS, st.integers(0, 2**52 - 1))
def test_the_permutation_can_be_undone(root: int, number: int) -> None:
    """Running the rounds backwards gives the number back: no two numbers share an image, whatever the root."""
    image = seeds.permute(root, number)
    left, right = image >> 26, image & (2**26 - 1)
    for prefix in reversed(seeds._prefixes(root)):
        digest = hashlib.sha256(b"%b%d" % (prefix, left)).digest()
        left, right = right ^ int.from_bytes(digest[:4], "big") & (2**26 - 1), left
    assert left << 26 | right == number


def test_seeds_of_neighbours_look_unrelated() -> None:
    """Half of the bits differ on average between replicates, points and roots that differ by one."""
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


def test_a_list_of_seeds_is_taken_as_it_is() -> None:
    """Replicate r of every point has the r-th seed of the list."""
    assert [seeds.seed("list", 0, 3, replicate, values=(5, 6, 7)) for replicate in range(3)] == [5, 6, 7]

"""The identity of points, by which the next version of a plan finds them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.points import identity
from ems_worker.core.points.work_limits import WorkLimits
from tests.support.small_plans import UNCOUNTED, parsed


def digests(text: str) -> list[bytes]:
    return [each.digest for each in identity.points(parsed(text))]


def test_a_point_is_known_by_its_parameters() -> None:
    """Neither their order, nor the other values of the plan, nor its position matter."""
    few = digests("parameter_space: {a: [1, 2], b: [x]}")
    assert {len(digest) for digest in few} == {identity.DIGEST_BYTES}
    assert digests("parameter_space: {b: [y, x], a: [0, 1, 2]}")[4:] == few
    assert len({*digests("parameter_space: {a: [1, 1.0, true, '1', null, [1], {x: 1}]}")}) == 7


def test_a_parameter_is_known_by_its_path() -> None:
    """A name given by 'as' is no part of the identity."""
    named = "parameter_space: {f.g: {values: [1, 2], as: gain}, a: {value: 3, as: n}}"
    assert digests(named) == digests("parameter_space: {f.g: [1, 2], a: {value: 3}}")
    paths = identity.dotted(parsed(named))
    assert paths == {"gain": "f.g", "n": "a"}
    assert identity.digest({"n": 3, "gain": 1}, None, paths) == digests(named)[0]


def test_a_parameter_that_is_left_out_is_absent() -> None:
    """A point without it is another than one that has the base configuration's value."""
    left_out = digests("parameter_space: {a: [0, 1], b: {value: 0, when: a == 1}}")
    assert left_out[0] == digests("parameter_space: {a: [0]}")[0]
    assert left_out[0] != digests("parameter_space: {a: [0], b: [0]}")[0]


def test_a_suffix_is_part_of_the_identity() -> None:
    """With a parameter_space, each entry of 'runs' is a point at every combination."""
    runs = "runs: [{run_id_suffix: e1, params_override: {a: 1}}, {params_override: {a: 1}}]"
    assert len({*digests(runs)}) == 2
    assert len({*digests(f"{{{runs}, parameter_space: {{b: [1, 2]}}}}")}) == 4


def test_equal_points_have_equal_identities() -> None:
    """Samples may repeat and entries of 'runs' may be equal: each of them is a point all the same."""
    text = "{parameter_space: {a: {dist: choice, values: [x, y]}}, design: {samples: 9}}"
    assert len(digests(text)) == 9
    assert len({*digests(text)}) == 2


@pytest.mark.parametrize("limits", [None, UNCOUNTED])
def test_points_continue_from_any_position(limits: WorkLimits | None) -> None:
    """An interrupted matching continues where it stopped, also if the points are not counted yet."""
    plan = parsed("{parameter_space: {a: [1, 2, 3, 4], b: [1, 2, 3, 4]}, constraints: [a < b]}", limits=limits)
    everything = [*identity.points(plan)]
    assert [each.point.index for each in everything] == [*range(6)]
    for start in range(7):
        assert [*identity.points(plan, start)] == everything[start:]


@pytest.mark.parametrize("sampler", ["random", "sobol", "halton"])
@given(few=st.integers(1, 40), more=st.integers(0, 40))
def test_more_samples_keep_those_that_are_there(sampler: str, few: int, more: int) -> None:
    """At every combination of the other axes, the first samples of a larger design are those of a smaller one."""
    text = (
        "{{parameter_space: {{b: [1, 2], a: {{dist: uniform, low: 0, high: 1}}, c: {{dist: int, low: 1, high: 3}}}}, "
        "design: {{sampler: {}, samples: {}}}}}"
    )
    assert Counter(digests(text.format(sampler, few))) <= Counter(digests(text.format(sampler, few + more)))

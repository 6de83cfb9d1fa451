"""Which spaces are compared with each other, point by point, and how much of that is possible."""

import pytest

from ems_worker import errors
from ems_worker.core.points import space
from ems_worker.core.points.work_limits import WorkLimits
from tests.support import steps
from tests.support.small_plans import JSON, UNCOUNTED, parsed, refused
from tests.support.unions import axes, grid, united


@pytest.mark.usefixtures("untraced")
def test_disjoint_spaces_are_not_compared() -> None:
    """A path or variable that never has the same value in two spaces shows it: no point is made."""
    square = f"{grid(600)}, {grid(600, 'b')}"
    many = [axes(f"{square}, c: [{number}]") for number in range(50)]
    assert space.count(parsed(united(*many))) == space.SpaceSize(18_000_000, 18_000_000)
    assert steps.of(lambda: parsed(united(*many))) < 200_000
    marked = [f"{axes(square)}, variables: {{part: [{number}]}}" for number in range(3)]
    assert space.count(parsed(united(*marked))).points == 1_080_000


@pytest.mark.usefixtures("untraced")
def test_one_factor_at_a_time_is_a_union() -> None:
    """Sixty spaces of a path each, and the base, have no points in common but the base."""
    base: dict[str, JSON] = dict.fromkeys(map("p{}".format, range(60)), 0)
    made = parsed(united("", *(axes(f"p{number}: [1, 2, 3]") for number in range(60))), base)
    assert space.count(made) == space.SpaceSize(181, 181)
    assert next(space.points(made, 180)).params == {**base, "p59": 3}


def test_too_many_points_are_not_compared_one_by_one() -> None:
    """They are refused, with the spaces and what to do; up to the limit they are compared in steps."""
    text = united(
        axes(f"{grid(600)}, {grid(600, 'b')}"), axes("a: [1], b: [1]"), axes("c: [7]"), axes("a: [2], b: [2]")
    )
    for limits in (None, UNCOUNTED):
        [(code, message)] = refused(text, limits)
        assert code == "too_many_combinations"
        assert "the 360,002 points of spaces that may have some in common (0, 1, 3) are too many" in message
        assert "vary a path or variable in them that never has the same value" in message
    [(code, message)] = refused(united(axes(grid(900)), axes(grid(900))), WorkLimits(early_steps=0, steps=20_000))
    assert code == "too_many_combinations"
    assert "the points of these spaces are too many" in message
    many = united(*(axes(f"{grid(400)}, {grid(400, 'b')}") for _ in range(6)))
    assert "(0, 1, 2, 3, 4, ...)" in refused(many)[0][1]


def test_points_are_compared_in_steps() -> None:
    """Until then the number is an upper bound, and there are no points; a call with enough steps counts."""
    made = parsed(united(axes(grid(100)), axes(grid(150))), limits=UNCOUNTED)
    assert space.count(made) == space.SpaceSize(250, 250, exact=False)
    assert [*space.points(made, 0, 500)] == []
    assert not made.grid.exact
    numbers = [size.points for size in space.settle(made)]
    assert numbers[-1] == 150
    assert made.grid.settled
    assert [point.params["a"] for point in space.points(made, 148)] == [149, 150]
    assert (
        space.count(parsed(united(axes(grid(100)), axes(grid(150))), limits=WorkLimits(early_steps=3000))).points < 251
    )


def test_constraints_of_a_space_are_too_much_work_at_their_place() -> None:
    """The limit of work is for all spaces together."""
    text = united("", axes(f"{grid(50)}, {grid(50, 'b')}") + ", constraints: ['sin(a * b) > 0']")
    [(code, path, message)] = problems_of(text, WorkLimits(early_steps=0, steps=900))
    assert (code, path) == ("too_many_combinations", "parameter_space.1.constraints")
    assert "connect a, b" in message


def problems_of(text: str, limits: WorkLimits) -> list[tuple[str, str, str]]:
    with pytest.raises(errors.PlanRejected) as rejected:
        [*space.points(parsed(text, limits=limits))]
    return [(problem.code, problem.path, problem.message) for problem in rejected.value.problems]


def test_many_long_values_are_compared_in_little_memory() -> None:
    """Their digests are kept, ten thousand at a time."""
    texts = [f"{'x' * 70}{number}" for number in range(6000)]
    one, other = (axes(f"a: [{', '.join(each)}]") for each in (texts, texts[1:]))
    assert space.count(parsed(united(one, other))) == space.SpaceSize(6000, 6000)

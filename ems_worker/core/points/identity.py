"""What makes a point of one version of a plan the same point in the next, and how the versions of a plan differ.

A point keeps its number as long as its experiment exists. `extend` gives an experiment a new plan, whose own points are
in another order: each is looked up by its identity among those that are there, and is new if it isn't found.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import quotes
from ems_worker.core.points import space
from ems_worker.core.points.plan import Plan
from ems_worker.core.points.space import Point

JSON = canonical.JSON

DIGEST_BYTES: Final = 16
# How many points of each kind a difference shows to people, and how much of each.
_MAX_EXAMPLES: Final = 3
_MAX_EXAMPLE: Final = 120


def digest(params: Mapping[str, JSON], suffix: str | None, paths: Mapping[str, str]) -> bytes:
    """The identity of a point: 16 bytes of its run_id_suffix, if it has one, and its parameters.

    `paths` has the dotted path of each parameter's name. Parameters are equal if their canonical JSON is, so that `1`
    and `1.0` are two values, as in the rest of a plan; parameters that a condition leaves out are absent. The suffix
    alone wouldn't do: with a parameter_space, each entry of `runs` is a point at every combination.
    """
    by_path = {paths.get(name, name): value for name, value in params.items()}
    text = canonical.text([suffix, by_path])
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES, person=b"ems-point-1").digest()


@dataclass(frozen=True, slots=True)
class IdentifiedPoint:
    """A point of a plan, at its position among that plan's own points, with its identity.

    Several points of a plan may have the same identity: samples may repeat, and entries of `runs` may be equal.
    """

    point: Point
    digest: bytes


def dotted(plan: Plan) -> dict[str, str]:
    """The dotted path of each parameter of a plan, by its name in points."""
    return {parameter.name: quotes.dotted(parameter.path) for parameter in plan.parameters}


def points(plan: Plan, start: int = 0, max_evaluations: int | None = None) -> Iterator[IdentifiedPoint]:
    """The plan's own points from position `start` on, in its order; see `space.points`."""
    paths = dotted(plan)
    for point in space.points(plan, start, max_evaluations):
        yield IdentifiedPoint(point, digest(point.params, point.run_id_suffix, paths))


def described(params: Mapping[str, JSON], suffix: str | None) -> str:
    """A point in a few words, for people."""
    values = " ".join(f"{name}={quotes.brief(value)}" for name, value in params.items())
    text = " ".join(part for part in (suffix, values) if part) or "the base configuration"
    return text if len(text) <= _MAX_EXAMPLE else f"{text[: _MAX_EXAMPLE - 3]}..."


@dataclass(frozen=True, slots=True)
class Difference:
    """What an extension does, so far: how many points are new, which are there already, and which are withdrawn.

    Points that are there and that the new plan doesn't have are unchanged, unless they are withdrawn. `jobs`: new jobs,
    those of new replicates of points that are there included. The examples are for people.
    """

    added: int = 0
    unchanged: int = 0
    withdrawn: int = 0
    jobs: int = 0
    added_examples: tuple[str, ...] = field(default=())
    withdrawn_examples: tuple[str, ...] = field(default=())

    def add(self, params: Mapping[str, JSON], suffix: str | None, jobs: int) -> "Difference":
        """The difference with one more new point, with this many jobs."""
        examples = _with_example(self.added_examples, params, suffix)
        return replace(self, added=self.added + 1, jobs=self.jobs + jobs, added_examples=examples)

    def keep(self, points: int, jobs: int = 0) -> "Difference":
        """The difference with more points that are there, which get this many new jobs."""
        return replace(self, unchanged=self.unchanged + points, jobs=self.jobs + jobs)

    def withdraw(self, params: Mapping[str, JSON], suffix: str | None) -> "Difference":
        """The difference with one more point that is withdrawn."""
        examples = _with_example(self.withdrawn_examples, params, suffix)
        return replace(self, withdrawn=self.withdrawn + 1, withdrawn_examples=examples)

    def __str__(self) -> str:
        parts = [
            _part(self.added, "added", self.added_examples),
            _part(self.withdrawn, "withdrawn", self.withdrawn_examples),
            f"{self.unchanged:,} unchanged",
        ]
        jobs = f"{self.jobs:,} new {'job' if self.jobs == 1 else 'jobs'}"
        return f"points: {', '.join(part for part in parts if part)}; {jobs}"


def _with_example(examples: tuple[str, ...], params: Mapping[str, JSON], suffix: str | None) -> tuple[str, ...]:
    return examples if len(examples) >= _MAX_EXAMPLES else (*examples, described(params, suffix))


def _part(number: int, what: str, examples: tuple[str, ...]) -> str:
    if not number:
        return ""
    more = "; ..." if number > len(examples) else ""
    return f"{number:,} {what} ({'; '.join(examples)}{more})"

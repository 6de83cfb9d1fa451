"""Which plans may take the place of another in a running experiment."""

from collections.abc import Mapping

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core.points import extension, identity, plan
from ems_worker.core.points.extension import Version
from tests.support.small_plans import BASE, JSON
from tests.support.unions import axes, united

PLAIN = "{parameter_space: {a: [1, 2]}}"
DIST = "a: {dist: uniform, low: 0, high: 1}, b: {dist: choice, values: [1, 2]}"


def version(text: str, base: Mapping[str, JSON] = BASE) -> Version:
    document = {"experiment_name": "x", "base_config_path": "base.yaml", **yaml_reader.read_plan(text.encode()).data}
    return Version(document, plan.parse(document, base))


def problems(
    old: str, new: str, *, withdraw: bool = False, parameters: Mapping[str, str] | None = None
) -> tuple[errors.Problem, ...]:
    before, after = version(old), version(new)
    known = identity.dotted(before.plan) if parameters is None else parameters
    return extension.compare(before, after, experiment_id="x1", parameters=known, withdraw=withdraw)


def paths(old: str, new: str, *, withdraw: bool = False) -> list[str]:
    return [problem.path for problem in problems(old, new, withdraw=withdraw)]


def sampled(sampler: str, axes: str = DIST, **design: object) -> str:
    keys = "".join(f", {key}: {value}" for key, value in {"samples": 8, **design}.items())
    return f"{{parameter_space: {{{axes}}}, design: {{sampler: {sampler}{keys}}}}}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (PLAIN, PLAIN),
        (PLAIN, "{parameter_space: {a: [2, 3]}}"),
        (PLAIN, "{parameter_space: {a: {range: {start: 1, stop: 9, step: 1}}, b: [1, 2]}, constraints: [a > b]}"),
        (PLAIN, "{runs: [{run_id_suffix: e1, labels: {x: y}, params_override: {f: {g: 2}}}]}"),
        (PLAIN, f"{{num_replicates_per_run: 30, limits: {{max_failed: 5}}, labels: {{x: y}}, {PLAIN[1:-1]}}}"),
        (PLAIN, f"{{experiment_id: x1, $schema: somewhere, seeds: {{root: 0}}, {PLAIN[1:-1]}}}"),
        (f"{{metrics_to_track: [m], {PLAIN[1:-1]}}}", f"{{metrics_to_track: [{{name: m}}], {PLAIN[1:-1]}}}"),
        (PLAIN, "{parameter_space: {a: [1, 2], b: [1, 2]}, design: {zip: [[a, b]], max_jobs: 5}}"),
        (
            "{runs: [{}], num_replicates_per_run: 2, seeds: {policy: list, values: [5, 6]}}",
            "{runs: [{}], num_replicates_per_run: 3, seeds: {policy: list, values: [5, 6, 7]}}",
        ),
        (sampled("lhs"), sampled("lhs", DIST + ", c: [1, 2]")),
        (sampled("sobol"), sampled("sobol", samples=16)),
        (sampled("halton"), sampled("halton", samples=9)),
        (sampled("random"), sampled("random", samples=9, seed=0)),
        (
            sampled("random"),
            sampled("random", "b: {dist: choice, values: [1, 2]}, a: {dist: uniform, low: 0, high: 1}"),
        ),
    ],
)
def test_spaces_runs_samples_replicates_limits_and_labels_may_differ(old: str, new: str) -> None:
    """And what means the same written in another way."""
    assert problems(old, new) == ()


@pytest.mark.parametrize(
    ("more", "differing"),
    [
        ("experiment_name: y", ["experiment_name"]),
        ("experiment_id: other", ["experiment_id"]),
        ("description: y", ["description"]),
        ("inject: {seed: run.seed}", ["inject"]),
        ("metrics_to_track: [m]", ["metrics_to_track"]),
        ("group: g, tags: [t]", ["group", "tags"]),
        ("model_version: '1'", ["model_version"]),
        ("allow_new_paths: true", ["allow_new_paths"]),
        ("settle: {quorum: 1}, hold: true, keep_open: true", ["settle", "hold", "keep_open"]),
        ("seeds: {root: 1}", ["seeds"]),
        ("seeds: {policy: independent}", ["seeds"]),
        ("base_config: {a: 0}", ["base_config"]),
    ],
)
def test_nothing_else_may_differ(more: str, differing: list[str]) -> None:
    """Each path that differs is refused, in both directions where both plans are complete."""
    with_more = f"{{{more}, {PLAIN[1:-1]}}}"
    assert paths(PLAIN, with_more) == differing
    if "experiment_" not in more and "base" not in more:
        assert paths(with_more, PLAIN) == differing


def test_each_path_of_a_difference_is_a_problem() -> None:
    """The message says what may differ."""
    one, two = (f"{{metrics_to_track: [{{name: {name}, goal: minimize}}], {PLAIN[1:-1]}}}" for name in "mn")
    [problem] = problems(one, two)
    assert (problem.code, problem.path) == ("not_extensible", "metrics_to_track.0.name")
    assert "Extend may change parameter_space" in problem.message


def test_the_base_configuration_stays() -> None:
    """The message names the paths that differ, of many only the first."""
    before, after = version(PLAIN), version(PLAIN, {**BASE, "b": 1, "f": {"g": 1}})
    many = version(f"{{base_config: {{a: 1, {', '.join(f'x{n}: 0' for n in range(20))}}}, {PLAIN[1:-1]}}}")
    changed, more = (
        extension.compare(before, each, experiment_id="x1", parameters={}, withdraw=False) for each in (after, many)
    )
    assert [problem.path for problem in (*changed, *more)] == ["base_config_path", "base_config"]
    assert "differs from the experiment's in b, f.g." in changed[0].message
    assert "in a, b, c, d, e, f, list, on, x0, x1 and more. Extend may" in more[0].message


@pytest.mark.parametrize(
    ("old", "new", "path", "words"),
    [
        (sampled("lhs"), sampled("lhs", samples=9), "design.samples", "as many strata as it has samples"),
        (sampled("random"), sampled("sobol"), "design.sampler", "sampler is random"),
        (sampled("random"), PLAIN, "design", "sampler is random"),
        (sampled("random"), sampled("random", seed=4), "design.seed", "seed 0"),
        (
            sampled("random"),
            sampled("random", DIST + ", c: {dist: int, low: 1, high: 2}"),
            "parameter_space.c",
            "sampled",
        ),
        (sampled("sobol"), sampled("sobol", DIST.split(", b")[0]), "parameter_space", "'b' is sampled"),
        (sampled("random"), sampled("random", DIST.replace("low: 0", "low: -1")), "parameter_space.a", "distribution"),
        (sampled("random"), sampled("random", DIST.replace("[1, 2]", "[1.0, 2]")), "parameter_space.b", "distribution"),
        (
            sampled("sobol"),
            sampled("sobol", "b: {dist: choice, values: [1, 2]}, a: {dist: uniform, low: 0, high: 1}"),
            "parameter_space",
            "sobol draws sampled parameters in the order of the plan: a, b",
        ),
        (sampled("halton"), sampled("halton", samples=7), "design.samples", "with 'withdraw' those after the first 7"),
        (f"{{num_replicates_per_run: 3, {PLAIN[1:-1]}}}", PLAIN, "num_replicates_per_run", "takes none away"),
        (PLAIN, "{parameter_space: {a: {values: [1], as: n}}}", "parameter_space.a", "called 'a' in the experiment"),
        (
            "{parameter_space: {a: {values: [1], as: n}}}",
            "{parameter_space: {b: {values: [1], as: n}}}",
            "parameter_space.b",
            "'n' stands for 'a'",
        ),
        (
            "{parameter_space: {a: {values: [1], as: n}}}",
            "{runs: [{params_override: {a: 1}}]}",
            "runs",
            "keep its name",
        ),
        (
            "{runs: [{params_override: {a: 1}}, {run_id_suffix: e1, params_override: {a: 1}}]}",
            "{runs: [{params_override: {a: 3}}, {run_id_suffix: e1, params_override: {a: 2}}]}",
            "runs.1.run_id_suffix",
            "give this one a suffix of its own",
        ),
    ],
)
def test_what_would_move_a_point_is_refused_with_the_reason(old: str, new: str, path: str, words: str) -> None:
    """Samples, names and listed runs that are there stay what they are."""
    [problem] = problems(old, new)
    assert problem.path == path
    assert words in problem.message


def test_withdrawing_takes_samples_away() -> None:
    """Never those of a latin hypercube, and never replicates."""
    assert paths(sampled("sobol"), sampled("sobol", samples=4), withdraw=True) == []
    assert paths(sampled("lhs"), sampled("lhs", samples=4), withdraw=True) == ["design.samples"]
    two = f"{{num_replicates_per_run: 2, {PLAIN[1:-1]}}}"
    assert paths(two, PLAIN, withdraw=True) == ["num_replicates_per_run"]


def test_names_of_earlier_versions_keep_their_meaning() -> None:
    """Points of an earlier version have parameters that the present plan doesn't have."""
    [problem] = problems(PLAIN, "{parameter_space: {b: {values: [1], as: n}}}", parameters={"a": "a", "n": "f.g"})
    assert problem.path == "parameter_space.b"


def test_extend_compares_spaces_in_order() -> None:
    """Spaces and values may be added; samples that are there keep their values."""
    old = united(axes("a: [1, 2]"), axes("b: [3]"))
    assert paths(old, united(axes("a: [1, 2, 5]"), axes("b: [3, 4]"), axes("a: [7], b: [7]"))) == []
    dist = "b: {dist: uniform, low: 0, high: 1}"
    sampled = united(axes("a: [1]"), f"{axes(dist)}, design: {{samples: 8}}")
    assert paths(sampled, sampled.replace("8", "9")) == []
    assert paths(sampled, sampled.replace("8", "7")) == ["parameter_space.1.design.samples"]
    assert paths(sampled, sampled.replace("8", "8, seed: 3")) == ["parameter_space.1.design.seed"]
    assert paths(sampled, sampled.replace("8", "8, sampler: halton")) == ["parameter_space.1.design.sampler"]
    assert paths(sampled, sampled.replace("high: 1", "high: 2")) == ["parameter_space.1.parameter_space.b"]

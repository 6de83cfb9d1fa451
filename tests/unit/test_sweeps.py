"""`ems run`: words such as lr=0.1,0.01 become a plan."""

from pathlib import Path
from typing import Any

import pytest

from ems_worker.cli import exits, plans, sweeps
from ems_worker.core.points import render, space


def sweep(*words: str, **options: Any) -> sweeps.Sweep:
    return sweeps.of_words(words, **{"replicates": None, "metrics": [], "config": None} | options)


def points(*words: str, **options: Any) -> list[dict[str, Any]]:
    """The parameters of all points of the plan of these words, checked by the worker's rules."""
    text = render.block(sweep(*words, **options).plan("x", simulator="sim-1"))
    checked = plans.check(plans.PlanFile("x", text.encode(), Path()))
    return [dict(point.params) for point in space.points(checked.plan)]


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("x=0.1,0.01", [0.1, 0.01]),
        ("x=0.8..0.95/4", [0.8, 0.85, 0.9, 0.95]),
        ("x=1..4", [1, 2, 3, 4]),
        ("x=3..1", [3, 2, 1]),
        ("x=-1..+1/3", [-1, 0, 1]),
        ("x=a,b", ["a", "b"]),
        ("x=true,no,null", [True, "no", None]),
        ("x=1e-3", [0.001]),
        ('x=""', [""]),
        ('x=["a,b", [1, 2]]', ["a,b", [1, 2]]),
        ('x={"logrange": {"start": 1, "stop": 100, "num": 3}}', [1, 10, 100]),
        ("a.b=1,2", [1, 2]),
    ],
)
def test_values_are_lists_ranges_or_axes_of_the_plan_language(word: str, values: list[Any]) -> None:
    """They mean what they mean in a plan."""
    assert [value for point in points(word) for value in point.values()] == values


def test_axes_are_combined() -> None:
    """Each value of one with each of the other, in the order of the words."""
    assert points("a=1,2", "b=x,y") == [{"a": a, "b": b} for a in (1, 2) for b in ("x", "y")]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--lr", r"no option '--lr'.*put the whole command in quotes"),
        ("train.py", r"should be NAME=VALUES.*in quotes"),
        ("=1", "should be NAME=VALUES"),
        ("x=", r"no values; an empty text is x="),
        ("x=0.1..0.2", r"how many values, such as 0\.1\.\.0\.2/5"),
        ("x=1..2/0", "at least one value"),
        ("x=1..3,7", "a range stands alone"),
        ("x=0.1..", "half a range"),
        ("x=..3", "half a range"),
        ("x=1..2/2.5", "half a range"),
        ("x=[1", "x: the values can't be read"),
        ("seed=a", "whole numbers"),
        ("seed=1..3/2", "whole numbers"),
        ("seed=1..5000", "more than 1,000"),
    ],
)
def test_a_word_that_means_nothing_is_refused_with_a_remedy(word: str, message: str) -> None:
    """Nothing has been started by then."""
    with pytest.raises(exits.Misused, match=message):
        sweep(word)


def test_a_parameter_is_given_once() -> None:
    """Twice would be a mistake."""
    with pytest.raises(exits.Misused, match="given twice"):
        sweep("x=1", "x=2")


def test_seeds_are_small_numbers() -> None:
    """Many libraries take none above 32 bits; beyond a thousand the plan's own are used."""
    assert sweep("x=1", replicates=3).plan("n")["seeds"] == {"policy": "list", "values": [1, 2, 3]}
    assert "seeds" not in sweep("x=1", replicates=1001).plan("n")


def test_seed_lists_the_seeds_of_the_replicates() -> None:
    """They are in the configuration too, so that {args} has them."""
    document = sweep("x=1", "seed=5,7").plan("n")
    assert document["num_replicates_per_run"] == 2
    assert document["seeds"]["values"] == [5, 7]
    assert document["inject"] == {"seed": "seed"}
    assert sweep("seed=5..7").seeds == (5, 6, 7)
    with pytest.raises(exits.Misused, match="--replicates is 3"):
        sweep("seed=5,7", replicates=3)


def test_without_axes_there_is_one_point() -> None:
    """The base configuration itself."""
    assert points() == [{}]
    assert points(config={"a": 1}) == [{}]


def test_axes_are_paths_into_a_base_configuration() -> None:
    """All its paths may be placeholders."""
    config = {"opt": {"lr": 1, "m": [1, {"k": 2}]}, "name": "x"}
    given = sweep("opt.lr=1,2", config=config)
    assert given.parameters == ["opt.lr", "opt", "opt.m", "opt.m.0", "opt.m.1", "opt.m.1.k", "name"]
    assert points("opt.lr=1,2", config=config) == [{"opt.lr": 1}, {"opt.lr": 2}]
    assert "allow_new_paths" not in given.plan("n")


@pytest.mark.parametrize(
    ("names", "flags", "metrics"),
    [
        (["score:max", "loss:min"], {}, [("score", "maximize"), ("loss", "minimize")]),
        (["score", "loss"], {"minimize": True}, [("score", "minimize"), ("loss", None)]),
        (["score:max", "loss"], {"minimize": True}, [("score", "maximize"), ("loss", "minimize")]),
        (["a:b"], {"maximize": True}, [("a:b", "maximize")]),
    ],
)
def test_metrics_have_goals(names: list[str], flags: dict[str, bool], metrics: list[tuple[str, str | None]]) -> None:
    """Of their own, or by a flag for the first one without."""
    found = sweeps.goals(names, **{"minimize": False, "maximize": False} | flags)
    assert [(metric["name"], metric.get("goal")) for metric in found] == metrics


@pytest.mark.parametrize(("names", "both"), [([], False), (["a:max"], False), (["a"], True)])
def test_a_goal_needs_a_metric(names: list[str], both: bool) -> None:
    """And there is only one."""
    with pytest.raises(exits.Misused, match="--metric"):
        sweeps.goals(names, minimize=True, maximize=both)


def test_a_base_configuration_is_read_from_a_file(tmp_path: Path) -> None:
    """In YAML or JSON; what can't be read is named."""
    (tmp_path / "a.yaml").write_text("a: 1\n")
    (tmp_path / "b.json").write_text('{"a": 1}')
    (tmp_path / "c.yaml").write_text("- 1\n")
    assert sweeps.configuration(tmp_path / "a.yaml") == sweeps.configuration(tmp_path / "b.json") == {"a": 1}
    for name in ("c.yaml", "missing.yaml"):
        with pytest.raises(exits.Misused, match=f"--config .*{name}"):
            sweeps.configuration(tmp_path / name)

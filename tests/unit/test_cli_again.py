"""The plan that reproduces an experiment or a run is the same work, and results are compared to the last digit."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ems_worker import errors
from ems_worker.cli import again, plans
from ems_worker.core.points import render, space
from ems_worker.service.intake import check

BASE = '{"model": {"lr": 0.1, "layers": [8, 8]}, "seed": 0}'
PLAN = """\
name: sweep   # a short name, and a comment
base_config_file_path: base.yaml
parameters: {model.lr: {values: [0.1, 1e-05], as: lr}}
seeds: {root: 7}
inject: {seed: seed}
replicates: 2
hold: true
labels: {team: reef}
"""
DETAILS = {
    "experiment_id": "sweep-1",
    "experiment_name": "sweep",
    "tags": ["first"],
    "parameters": {"lr": "model.lr"},
}


def checked(plan: bytes) -> check.Checked:
    """The plan as the worker would read it."""
    return plans.check(plans.PlanFile("plan", plan, Path()))


def job(number: int = 0, **changes: Any) -> dict[str, Any]:
    """The `ems.result.v1` of a job, as far as it is compared."""
    return {
        "simulation_id": f"x-p{number:06d}-r000-a1",
        "point": number,
        "replicate": 0,
        "config_sha": f"{number:064x}",
        "state": "completed",
        "metrics": {"loss": 0.1},
        "error": None,
        "model_version": "m1",
        **changes,
    }


class Jobs:
    """A client that has these jobs of two experiments."""

    def __init__(self, first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> None:
        self._jobs = {"first": first, "second": second}

    async def jobs(self, experiment_id: str) -> AsyncIterator[dict[str, Any]]:
        for each in self._jobs[experiment_id]:
            yield each


async def compared(first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]) -> again.Comparison:
    """The comparison of two experiments."""
    client: Any = Jobs(first, second)
    return await again.compare(client, "first", "second", None)


def test_the_plan_of_an_experiment_is_the_same_work() -> None:
    """Only the id, the label, the tag, and what says how it is run differ."""
    plan = json.loads(again.plan(PLAN, BASE, DETAILS, "sweep-2"))
    assert plan == {
        "experiment_id": "sweep-2",
        "experiment_name": "sweep",
        "base_config": json.loads(BASE),
        "parameter_space": {"model.lr": {"values": [0.1, 1e-05], "as": "lr"}},
        "seeds": {"root": 7},
        "inject": {"seed": "seed"},
        "num_replicates_per_run": 2,
        "labels": {"team": "reef", "reproduces": "sweep-1"},
        "tags": ["first", "reproduction"],
    }


def test_the_plan_of_a_run_has_one_job_with_its_configuration_and_seed() -> None:
    """It comes to the same identity, or is refused."""
    whole = checked(again.plan(PLAN, BASE, DETAILS, "x"))
    run = {
        "simulation_id": "sweep-1-p000003-r001-a1",
        "experiment_id": "sweep-1",
        "params": {"lr": 1e-05},
        "labels": {"team": "reef"},
        "seed": 99,
        "config_sha": render.Template(whole.plan).config_sha({"lr": 1e-05}, 99),
    }
    encoded = again.plan_of_run(PLAN, BASE, DETAILS, name="one", run=run)
    one = checked(encoded)
    [point] = space.points(one.plan)
    assert (one.count.jobs, one.plan.seeds.of(0, 0), one.plan.base) == (1, 99, json.loads(BASE))
    assert render.Template(one.plan).config_sha(point.params, 99) == run["config_sha"]
    with pytest.raises(errors.RequestRefused, match="reproduce sweep-1, the whole experiment"):
        again.plan_of_run(PLAN, BASE, DETAILS, name="one", run={**run, "config_sha": "00" * 32})


async def test_results_agree_if_each_metric_is_the_same() -> None:
    """In any order of jobs, and a failure that the simulator makes again is the same too."""
    failed = job(2, state="failed", metrics=None, error={"kind": "simulation", "message": "x"})
    same = await compared([job(0), job(1), failed], [failed, job(1), job(0)])
    assert (same.agree, same.same, same.different, same.missing) == (True, 3, 0, 0)


async def test_each_difference_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """With both values to the last digit, and the versions of the model if they differ."""
    lost = job(2, state="lost", metrics=None, error={"kind": "lost", "message": "x"})
    after = job(0, metrics={"loss": 0.1 + 2e-17, "more": 2.0}, model_version="m2")
    result = await compared([job(0), job(1), lost], [after, job(1, state="failed", error={"kind": "simulation"}), lost])
    assert (result.agree, result.same, result.different, result.missing) == (False, 0, 2, 1)
    again.show("first", "second", result)
    assert capsys.readouterr().out.splitlines() == [
        "second: 0 of 3 results agree with those of first, 2 differ, 1 can't be compared, because a job has no result",
        "  x-p000000-r000-a1: loss 0.1 then, 0.10000000000000002 now, more none then, 2.0 now",
        "  x-p000001-r000-a1: completed then, simulation now",
        "  the model version was m1, and is m2 now",
    ]


async def test_jobs_of_one_side_only_are_missing() -> None:
    """No agreement is claimed for what wasn't computed."""
    result = await compared([job(0), job(1)], [job(0)])
    assert (result.agree, result.same, result.missing) == (False, 1, 1)
    assert (await compared([], [])).agree is False

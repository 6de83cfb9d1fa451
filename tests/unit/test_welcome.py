"""What `ems up` says when it is ready."""

import dataclasses
import json
import shlex
from pathlib import Path

import pytest

from ems_worker.cli import plans
from ems_worker.local import platform, up

ADDRESSES = platform.Addresses(
    "nats://127.0.0.1:4222",
    "/d/context.json",
    "unix:/d/x",
    "http://127.0.0.1:8080",
    "/d",
    "/d/worker/manifest.db",
    "",
    4,
)


def test_it_names_the_simulator_and_how_many_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It suggests the example of the fish where that is, and a program of the user's own."""
    text = up.welcome(ADDRESSES)
    assert text.startswith("simulator     the built-in fish (your own: --simulator COMMAND), 4 at once\n")
    assert "ems submit examples/reef_heat.yaml --wait\n" in text
    assert "Ctrl-C stops everything" in text
    monkeypatch.chdir(tmp_path)
    text = up.welcome(dataclasses.replace(ADDRESSES, nats_url="nats://127.0.0.1:9999", slots=1), stop="`ems down`")
    assert "reef_heat" not in text
    assert ", one at a time\n" in text
    assert "ems run --server nats://127.0.0.1:9999 'python train.py --lr {lr}' lr=0.1,0.01" in text
    assert "`ems down` stops everything" in text


def test_it_suggests_a_plan_that_fits_the_simulator() -> None:
    """The plan has the parameters of the command line, and is valid."""
    text = up.welcome(dataclasses.replace(ADDRESSES, simulator="sim {lr} --m {momentum} {seed}"))
    assert text.startswith("simulator     sim {lr} --m {momentum} {seed}, 4 at once\n")
    [line] = [line for line in text.splitlines() if "echo" in line]
    _, plan, *rest = shlex.split(line.partition("such as: ")[2])
    assert rest == ["|", "ems", "submit", "-", "--wait"]
    checked = plans.check(plans.PlanFile("-", plan.encode(), Path()))
    assert list(json.loads(plan)["parameters"]) == [parameter.name for parameter in checked.plan.parameters]
    assert [parameter.name for parameter in checked.plan.parameters] == ["lr", "momentum"]

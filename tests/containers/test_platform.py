"""An experiment completes on the platform of deploy/compose.yaml, although every container is restarted."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import commands, compose, servers, wait

# The first test includes the build of the image.
pytestmark = pytest.mark.timeout(600)

_EXAMPLE = servers.ROOT / "examples" / "reef_heat.yaml"
_JOBS = 96


@pytest.fixture(scope="module")
def platform() -> Iterator[compose.Platform]:
    """The running deployment."""
    with compose.Platform() as platform:
        yield platform


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """The example plan with twice as many replicates."""
    base = _EXAMPLE.with_name("reef_base.yaml")
    (tmp_path / base.name).write_bytes(base.read_bytes())
    text = _EXAMPLE.read_text()
    once = "num_replicates_per_run: 4"
    assert once in text
    path = tmp_path / "plan.yaml"
    path.write_text(text.replace(once, "num_replicates_per_run: 8"))
    return path


async def _more_ended(platform: compose.Platform, experiment: str, before: int) -> int:
    """Waits until more jobs have ended than `before`; returns their number."""

    def more() -> int:
        now = _ended(platform, experiment)
        return now if now > before else 0

    return await wait.until(more, timeout=60, what="jobs to end")


def _ended(platform: compose.Platform, experiment: str) -> int:
    """The number of jobs that have ended; 0 while the worker doesn't answer."""
    shown = commands.run("ems", "show", experiment, "--json", env=platform.env)
    if shown.code:
        return 0
    counts: dict[str, int] = json.loads(shown.out.splitlines()[0])["counts"]
    return sum(
        number for state, number in counts.items() if state in ("completed", "failed", "infeasible", "cancelled")
    )


async def test_every_part_can_be_restarted_during_an_experiment(platform: compose.Platform, plan: Path) -> None:
    """Broker, orchestrator and worker are restarted while runs are executing, and every job completes exactly once."""
    await wait.until(lambda: platform.ready, timeout=60, what="the worker to be ready")
    published = commands.run("ems-publish", str(plan), "--json", env=platform.env)
    assert published.code == 0, published.err
    experiment = json.loads(published.out.splitlines()[0])["experiment_id"]

    ended = 0
    for service in ("worker", "orchestrator", "broker"):
        ended = await _more_ended(platform, experiment, ended)
        assert ended < _JOBS, "the experiment ended before everything was restarted"
        platform.restart(service)

    watched = commands.run("ems", "watch", experiment, "--timeout", "120", env=platform.env)
    assert watched.code == 0, (watched.err, platform.logs()[-5000:])
    attempts = _exported(platform, experiment, "--attempts")
    completed = Counter((run["point"], run["replicate"]) for run in attempts if run["state"] == "completed")
    assert len(completed) == _JOBS
    assert set(completed.values()) == {1}
    assert len(_exported(platform, experiment)) == _JOBS


def _exported(platform: compose.Platform, experiment: str, *flags: str) -> list[dict[str, Any]]:
    """The rows of the exported experiment."""
    done = commands.run("ems", "export", experiment, "--format", "jsonl", *flags, env=platform.env)
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]

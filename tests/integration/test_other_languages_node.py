"""Programs in Node: an orchestrator with all calls or only StartSimulation, and a publisher."""

import asyncio
import contextlib
import functools
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ems_worker.conformance import check, kit, orchestrator
from tests.support import local_platform, other_languages, servers, whole

SHELL_SHORT = b"""echo '{"metrics": {"population": 12}}'\n"""
SHELL_LONG = b"""sleep 5; echo '{"metrics": {"population": 12}}'\n"""
OPTIONAL = {"partial-batch", "stop-unknown", "stop-running", "status", "capacity"}
# PAUSE is not implemented.
NOT_IN_NODE = {"pause-resume", "stop-paused", "output"}

ALL_AND_ONE = pytest.mark.parametrize(
    "flags", [pytest.param([], marks=pytest.mark.long), ["--only-start"]], ids=["all", "only-start"]
)


@pytest.fixture(scope="module", autouse=True)
def _packages() -> None:
    other_languages.install_node_packages()


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[servers.NatsServer]:
    async with servers.NatsServer(tmp_path / "nats") as server:
        yield server


@contextlib.asynccontextmanager
async def node_orchestrator(
    broker: servers.NatsServer, directory: Path, simulator: str, flags: list[str]
) -> AsyncIterator[other_languages.Orchestrator]:
    script = other_languages.EXAMPLES / "orchestrator-node" / "orchestrator.mjs"
    command = [str(other_languages.node()), str(script), "--listen", "{address}", "--server", broker.url, *flags]
    options = ["--data-dir", str(directory / "orchestrator"), "--simulator", simulator]
    async with other_languages.Orchestrator([*command, *options], log=directory / "orchestrator.log") as started:
        await started.ready()
        yield started


async def publish(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Runs examples/publish.mjs; returns its exit code and the documents that it printed."""
    script = other_languages.EXAMPLES / "publish.mjs"
    process = await asyncio.create_subprocess_exec(other_languages.node(), script, *arguments, stdout=subprocess.PIPE)
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()]


@ALL_AND_ONE
async def test_an_orchestrator_in_node_conforms(broker: servers.NatsServer, tmp_path: Path, flags: list[str]) -> None:
    """The orchestrator passes every check; with only StartSimulation, the checks of other calls are skipped."""
    async with node_orchestrator(broker, tmp_path, 'sh "$SIMULATION_CONFIG"', flags) as started:
        options = kit.Options(
            started.address,
            broker.url,
            short=SHELL_SHORT,
            long=SHELL_LONG,
            timeout=20,
            restart=started.restart,
            restart_in_order=functools.partial(started.restart, in_order=True),
            restart_broker=lambda: broker.restart(crash=True),
        )
        results = [result async for result in orchestrator.run(options)]
    assert [(each.name, each.message) for each in results if each.result is check.CheckResult.FAILED] == []
    skipped = {each.name: each.message for each in results if each.result is check.CheckResult.SKIPPED}
    assert skipped.keys() == NOT_IN_NODE | (OPTIONAL if flags else set())


@pytest.mark.long
@ALL_AND_ONE
async def test_the_worker_runs_a_plan_with_programs_in_node(
    broker: servers.NatsServer, tmp_path: Path, flags: list[str]
) -> None:
    """A publisher that uses only a NATS client has its plan accepted, run by an orchestrator in Node, and completed."""
    simulator = """echo '{"metrics": {"population": '$(wc -l < "$SIMULATION_CONFIG")'}}'"""
    async with node_orchestrator(broker, tmp_path, simulator, flags) as started:
        async with whole.Worker(tmp_path, broker.url, started.address):
            code, (decision, status) = await publish("--server", broker.url)
            assert (decision["decision"], decision["points"], decision["jobs"]) == ("accepted", 2, 4)
            assert (status["state"], status["counts"]["completed"], status["progress"]) == ("completed", 4, 1.0)
            assert code == 0
            plan = tmp_path / "plan.yaml"
            plan.write_text("experiment_name: typo\nbase_config: {a: 1}\nparameter_spice: {a: [1, 2]}\n")
            code, (decision,) = await publish("--server", broker.url, str(plan))
            assert (code, decision["decision"]) == (1, "rejected")
    simulations = [path.name for path in (tmp_path / "orchestrator").iterdir() if path.is_dir()]
    assert sorted(simulations) == [
        f"{status['experiment_id']}-p{point:06d}-r{n:03d}-a1" for point in (0, 1) for n in (0, 1)
    ]


@pytest.mark.long
async def test_a_publisher_in_node_connects_to_a_local_platform(swept: Path) -> None:
    """The publisher uses the credentials in the nats context that `ems up` writes."""
    platform = await local_platform.up(swept)
    code, (decision, status) = await publish("--context", platform.addresses["context"])
    assert (code, decision["decision"], status["state"]) == (0, "accepted", "completed")
    await platform.program.stop(grace=30)


def test_no_registry_is_named() -> None:
    """The lock file identifies packages by their digests and names no registry."""
    lock = (other_languages.EXAMPLES / "package-lock.json").read_text()
    packages = json.loads(lock)["packages"]
    assert "://" not in lock
    assert all("integrity" in package for name, package in packages.items() if name)

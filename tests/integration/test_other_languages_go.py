"""The skeleton of an orchestrator in Go compiles and passes the conformance kit."""

import asyncio
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ems_worker.conformance import check, kit, orchestrator
from tests.support import other_languages, servers

SHELL_SHORT = b"""echo '{"metrics": {"population": 12}}'\n"""
SHELL_LONG = b"""sleep 3; echo '{"metrics": {"population": 12}}'\n"""
OPTIONAL = {
    "partial-batch",
    "stop-unknown",
    "stop-running",
    "pause-resume",
    "stop-paused",
    "status",
    "capacity",
    "output",
}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[servers.NatsServer]:
    server = servers.run_sync(servers.NatsServer(tmp_path / "nats"))
    yield server
    asyncio.run(server.stop())


@pytest.mark.long
@pytest.mark.skipif(bool(other_languages.without_go()), reason=other_languages.without_go() or "Go is here")
async def test_the_skeleton_in_go_conforms(broker: servers.NatsServer, tmp_path: Path) -> None:
    """Built with the system's Go, the skeleton passes every check, and the checks of optional calls are skipped."""
    executable = await asyncio.to_thread(other_languages.build_go_skeleton, tmp_path / "go")
    data = tmp_path / "data"
    data.mkdir()

    command = [str(executable), "{address}", broker.url, str(data), 'sh "$SIMULATION_CONFIG"']
    async with other_languages.Orchestrator(command, log=tmp_path / "orchestrator.log") as skeleton:
        await skeleton.ready()
        options = kit.Options(
            skeleton.address,
            broker.url,
            short=SHELL_SHORT,
            long=SHELL_LONG,
            timeout=20,
            restart=skeleton.restart,
            restart_in_order=functools.partial(skeleton.restart, in_order=True),
            restart_broker=lambda: broker.restart(crash=True),
        )
        results = [result async for result in orchestrator.run(options)]
    assert [(each.name, each.message) for each in results if each.result is check.CheckResult.FAILED] == []
    assert {each.name for each in results if each.result is check.CheckResult.SKIPPED} == OPTIONAL


def test_the_page_shows_the_skeleton_that_is_tested() -> None:
    """docs/orchestrator.md contains examples/orchestrator-go/main.go unchanged."""
    page = (servers.ROOT / "docs" / "orchestrator.md").read_text()
    [quoted] = re.findall(r"^```go\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert quoted == (other_languages.EXAMPLES / "orchestrator-go" / "main.go").read_text()

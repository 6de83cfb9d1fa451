"""`ems doctor` finds what is missing: from no broker at all to a user who may not change anything."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest

from ems_worker.cli import exits
from ems_worker.core.access import rights
from ems_worker.local import ports
from tests.support import broker, commands, servers


def found(env: dict[str, str], *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and what was found by check."""
    ended = commands.run("ems", "doctor", "--json", *arguments, env=env)
    findings = [json.loads(line) for line in ended.out.splitlines()]
    return ended.code, {finding["check"]: finding for finding in findings}


def test_a_deployment_that_works_is_well(deployment: commands.Deployment) -> None:
    """Each part is ok, and what belongs to another machine is unknown."""
    settings = deployment.worker_settings
    env = {**deployment.env, "EMS_ORCHESTRATOR": settings["EMS_ORCHESTRATOR"], "EMS_DATA_DIR": settings["EMS_DATA_DIR"]}
    code, checks = found(env)
    assert code == exits.Exit.OK, checks
    well = ("broker", "streams", "rights", "worker", "clock", "orchestrator", "disk", "file system", "versions")
    assert {name: checks[name]["verdict"] for name in well} == dict.fromkeys(well, "ok")
    assert checks["simulator"]["verdict"] == checks["readiness"]["verdict"] == "unknown"
    assert checks["worker"]["remedy"] is None


def test_the_lines_are_for_people(deployment: commands.Deployment, tmp_path: Path) -> None:
    """A verdict, a part and what was seen; what to do about a fault is under it."""
    env = {**deployment.env, "EMS_ORCHESTRATOR": f"127.0.0.1:{ports.free_port()}"}
    ended = commands.run("ems", "doctor", "--simulator", f"{tmp_path}/sim.sh", env=env)
    assert ended.code == exits.Exit.FAILED
    lines = ended.out.splitlines()
    assert any(line.startswith("ok       broker        nats-server 2.") for line in lines)
    at = next(index for index, line in enumerate(lines) if line.startswith("fail     orchestrator"))
    assert "connection refused" in lines[at].lower()
    assert lines[at + 1] == "   -> start it, or name another: EMS_ORCHESTRATOR"
    assert any(line.startswith("fail     simulator     there is no program") for line in lines)
    assert lines[-1] == "2 failed"


def test_without_a_broker_it_says_how_to_get_one() -> None:
    """The checks that need none are made all the same."""
    code, checks = found(commands.environment(NATS_URL=f"nats://127.0.0.1:{ports.free_port()}"))
    assert code == exits.Exit.FAILED
    assert checks["broker"]["verdict"] == "fail"
    assert "start one" in checks["broker"]["remedy"]
    assert "worker" not in checks
    assert checks["versions"]["verdict"] == "ok"


def test_settings_that_cant_be_used_are_a_finding() -> None:
    """No traceback, and the setting is named."""
    code, checks = found(commands.environment(EMS_RPC_WINDOW="many"))
    assert (code, checks["settings"]["verdict"]) == (exits.Exit.FAILED, "fail")
    assert "EMS_RPC_WINDOW" in checks["settings"]["remedy"]


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[servers.NatsServer]:
    async with servers.NatsServer(tmp_path / "nats") as server:
        yield server


async def test_a_broker_without_streams_and_worker(empty: servers.NatsServer) -> None:
    """Both are told with what makes them; a stream that is not ours is told with how to mend it."""
    code, checks = found(commands.environment(NATS_URL=empty.url))
    assert code == exits.Exit.FAILED
    assert "EMS_PLANS" in checks["streams"]["seen"]
    assert "ems-worker provision" in checks["streams"]["remedy"]
    assert checks["worker"]["seen"] == "none answers"
    client = await nats.connect(empty.url)
    await client.jetstream().add_stream(name="EMS_PLANS", subjects=["ems.experiment.submit"])
    await client.close()
    _, checks = found(commands.environment(NATS_URL=empty.url))
    assert "nats stream edit EMS_PLANS" in checks["streams"]["remedy"]


async def test_nothing_is_stored_or_changed(empty: servers.NatsServer) -> None:
    """Trying the rights leaves no message in the stream of plans."""
    client = await nats.connect(empty.url)
    stream = client.jetstream()
    await stream.add_stream(name="EMS_PLANS", subjects=["ems.experiment.submit", "ems.experiment.submit.*"])
    asked = await client.subscribe("ems.api.*")
    await broker.subscribed(client)
    found(commands.environment(NATS_URL=empty.url))
    await client.flush()
    assert (await stream.stream_info("EMS_PLANS")).state.messages == 0
    requests = [await asked.next_msg(timeout=5) for _ in range(asked.pending_msgs)]
    changes = [json.loads(request.data) for request in requests if request.subject == "ems.api.pause"]
    assert [change["dry_run"] for change in changes] == [True]
    await client.close()


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        ("dashboard", ["ask the worker", "follow statuses"], ["send plans", "change experiments"]),
        ("publisher", ["send plans", "ask the worker", "follow statuses"], ["change experiments"]),
        ("operator", ["send plans", "ask the worker", "change experiments", "follow statuses"], []),
    ],
)
async def test_the_rights_of_a_role_are_told(tmp_path: Path, role: str, may: list[str], may_not: list[str]) -> None:
    """What a user may not do is a warning, with where to get the right."""
    [chosen] = [one for one in rights.ROLES if one.name == role]
    publish, subscribe = json.dumps(chosen.may_publish("u")), json.dumps(chosen.may_subscribe("u"))
    limits = f"publish: {{ allow: {publish} }}, subscribe: {{ allow: {subscribe} }}"
    user = f"{{ user: u, password: p, permissions: {{ {limits} }} }}"
    config = f"authorization {{ users: [ {user} ] }}\n"
    async with servers.NatsServer(tmp_path / "nats", more=config) as server:
        env = commands.environment(
            NATS_URL=server.url,
            EMS_NATS_USER="u",
            EMS_NATS_PASSWORD="p",
            EMS_NATS_INBOX_PREFIX=rights.inbox_prefix("u"),
        )
        _, checks = found(env)
    seen = checks["rights"]["seen"]
    allowed, _, denied = seen.partition(", but not ")
    assert allowed == f"this user may {', '.join(may)}"
    assert denied == ", ".join(may_not)
    assert checks["rights"]["verdict"] == ("warn" if may_not else "ok")

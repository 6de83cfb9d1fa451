"""The whole platform as processes over mutual TLS, each with its own credentials, none of which is logged."""

import asyncio
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ems_worker.cli import exits
from ems_worker.local import ports
from tests.support import commands, security, servers, wait

WORKER_PASSWORD, ORCHESTRATOR_PASSWORD = "w0rker-word", "0rch-word"
PLAN = "experiment_id: secured\nbase_config: {a: 1}\nparameter_space: {a: [1, 2, 3]}\n"


@dataclass(frozen=True)
class Platform:
    """The environment of commands with valid credentials, and the logs of all processes."""

    env: dict[str, str]
    logs: list[Path]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    directory = tmp_path_factory.mktemp("secured")
    certificates = security.certificates(directory)
    users = ", ".join(
        f'{{ user: {name}, password: "{password}" }}'
        for name, password in (("w", WORKER_PASSWORD), ("o", ORCHESTRATOR_PASSWORD))
    )
    config = security.server_tls(certificates, verify=True) + f"authorization {{ users: [ {users} ] }}\n"
    broker = servers.run_sync(servers.NatsServer(directory / "nats", more=config))
    url = broker.url.replace("nats://", "tls://")
    contexts = directory / ".config" / "nats" / "context"
    contexts.mkdir(parents=True)
    files = {"ca": str(certificates.ca), "cert": str(certificates.client_cert), "key": str(certificates.client_key)}
    context = {"url": url, "user": "w", "password": WORKER_PASSWORD, **files}
    security.private(contexts / "reef.json", json.dumps(context).encode())

    target, http = (f"{ports.LOOPBACK}:{ports.free_port()}" for _ in range(2))
    flags = ["--listen", target, "--server", url, "--data-dir", str(directory / "orchestrator"), "--slots", "2"]
    tls = [
        "--tls-cert",
        str(certificates.cert),
        "--tls-key",
        str(certificates.key),
        "--tls-client-ca",
        str(certificates.ca),
    ]
    module = [sys.executable, "-m", "ems_worker.local.orchestrator"]
    nats_files = {"NATS_CA": files["ca"], "NATS_CERT": files["cert"], "NATS_KEY": files["key"]}
    orchestrator = servers.Program(
        "orchestrator",
        [*module, *flags, *tls, "--simulator", "sh -c 'exit 0'"],
        log=directory / "orchestrator.log",
        env={**nats_files, "NATS_USER": "o", "NATS_PASSWORD": ORCHESTRATOR_PASSWORD},
    )
    worker = servers.Program(
        "worker",
        [sys.executable, "-m", "ems_worker.cli.worker", "run", "--context", "reef", "--log-level", "debug"],
        log=directory / "worker.log",
        env={
            "HOME": str(directory),
            "XDG_CONFIG_HOME": "",
            "EMS_ORCHESTRATOR": target,
            "EMS_ORCHESTRATOR_CA": files["ca"],
            "EMS_ORCHESTRATOR_CERT": files["cert"],
            "EMS_ORCHESTRATOR_KEY": files["key"],
            "EMS_DATA_DIR": str(directory / "data"),
            "EMS_HTTP": http,
        },
    )

    def ready() -> bool:
        assert worker.running, worker.last_words()
        try:
            with urllib.request.urlopen(f"http://{http}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    try:
        orchestrator.start()
        worker.start()
        asyncio.run(wait.until(ready, timeout=30, what="the worker to be ready"))
        env = commands.environment(HOME=str(directory), XDG_CONFIG_HOME="")
        yield Platform(env, [orchestrator.log, worker.log, broker.log])
    finally:
        for part in (worker, orchestrator):
            asyncio.run(part.stop(grace=15))
        asyncio.run(broker.stop())


def test_a_plan_runs_over_mutual_tls(platform: Platform) -> None:
    """A plan published with a context of the nats command runs, and an unknown context is refused."""
    flags = ("--context", "reef", "--publisher", "reef", "--wait")
    ended = commands.run("ems-publish", "-", *flags, env=platform.env, stdin=PLAN)
    assert ended.code in (exits.Exit.OK, exits.Exit.FAILED), ended.err
    listed = commands.run("ems", "ls", "--context", "reef", "--json", env=platform.env)
    assert json.loads(listed.out)["progress"] == 1.0
    assert "eof_received" not in ended.err + listed.err
    for log in platform.logs:
        assert WORKER_PASSWORD not in log.read_text()
        assert ORCHESTRATOR_PASSWORD not in log.read_text()
    absent = commands.run("ems", "ls", "--context", "none", env=platform.env)
    assert absent.code == exits.Exit.USAGE
    assert "available: reef" in absent.err

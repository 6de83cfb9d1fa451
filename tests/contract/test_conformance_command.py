"""`ems-conformance` as a command: its output, its files and its exit codes."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ems_worker.conformance import cli, orchestrator, simulator
from ems_worker.local import ports
from tests.support import servers

RUN = [sys.executable, "-m", "ems_worker.conformance.cli"]


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.NatsServer]:
    """One nats-server for this module."""
    server = servers.run_sync(servers.NatsServer(tmp_path_factory.mktemp("nats")))
    yield server
    asyncio.run(server.stop())


async def run(*arguments: str) -> tuple[int, str, str]:
    """Runs the command as a process, and returns its exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(*RUN, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_results_are_tap_and_junit(broker: servers.NatsServer, tmp_path: Path) -> None:
    """A failed check is `not ok` with its reason, and a skipped check has one too; JUnit agrees; the exit code is 1."""
    short, long, junit = tmp_path / "short", tmp_path / "long", tmp_path / "junit.xml"
    short.write_text("0\n")
    long.write_text("1\n")
    arguments = ["--server", broker.url, "--wrong", "any-sha"]
    async with servers.GrpcProgram("tests.support.wrong_orchestrator", arguments, log=tmp_path / "log") as wrong:
        options = {
            "--orchestrator": wrong.target,
            "--server": broker.url,
            "--config": str(short),
            "--long-config": str(long),
            "--junit": str(junit),
            "--timeout": "10",
            "--restart-command": "echo no permission >&2; exit 3",
        }
        code, out, err = await run("orchestrator", *(word for option in options.items() for word in option))
    assert (code, err) == (1, "")
    count = len(orchestrator.CHECKS)
    lines = out.splitlines()
    assert lines[:3] == ["TAP version 14", f"1..{count}", "ok 1 - start-accepted: A new id is ACCEPTED"]
    reason = "a known id with another config_sha was answered ALREADY_EXISTS instead of FAILED_PRECONDITION"
    failed = next(index for index, line in enumerate(lines) if line.startswith("not ok 6 - other-config-sha"))
    assert lines[failed + 1] == "  ---"
    assert lines[failed + 2] == f'  message: "{reason}"'
    assert "ended with 3; no permission" in out
    broker_outage, orderly_restart = [line for line in lines if " # SKIP " in line]
    assert broker_outage.endswith("give --broker-restart-command, which stops the broker and starts it again")
    assert "give --orderly-restart-command, which" in orderly_restart
    assert lines[-1] == f"# {count - 5} passed, 3 failed, 2 skipped"

    [suite] = ElementTree.parse(junit).getroot()
    counts = (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"])
    assert counts == (str(count), "3", "2")
    failures = {case.attrib["name"]: failure.attrib["message"] for case in suite for failure in case.iter("failure")}
    assert failures["other-config-sha"] == reason
    assert set(failures) == {"other-config-sha", "partial-batch", "known-after-restart"}


async def test_the_restart_commands_are_shell_commands(broker: servers.NatsServer, tmp_path: Path) -> None:
    """--restart-command and --broker-restart-command run in a shell, and the checks continue after them."""
    touched = tmp_path / "restarted"
    restarts = {
        "--restart-command": f"echo once >> {touched}",
        "--broker-restart-command": f"echo twice >> {touched}",
    }
    arguments = ["--server", broker.url, "--delay", "0.2"]
    async with servers.GrpcProgram("tests.support.oracle", arguments, log=tmp_path / "log") as program:
        options = {"--orchestrator": program.target, "--server": broker.url, **restarts}
        only = ["--check", "known-after-restart", "--check", "broker-outage"]
        code, out, _ = await run("orchestrator", *only, *(word for option in options.items() for word in option))
    assert code == 0
    assert "broker did not go away" in out
    assert touched.read_text() == "twice\nonce\n"


async def test_an_unreachable_server_ends_with_4(broker: servers.NatsServer, tmp_path: Path) -> None:
    """Without an orchestrator or a broker, stdout is empty and stderr says which of them can't be reached."""
    unused = f"127.0.0.1:{ports.free_port()}"
    async with servers.GrpcProgram("tests.support.oracle", ["--server", broker.url], log=tmp_path / "log") as program:
        no_orchestrator, no_broker = await asyncio.gather(
            run("orchestrator", "--orchestrator", unused, "--server", broker.url),
            run("orchestrator", "--orchestrator", program.target, "--server", f"nats://{unused}"),
        )
    assert no_orchestrator[:2] == no_broker[:2] == (4, "")
    assert f"the orchestrator at {unused} can't be reached" in no_orchestrator[2]
    assert f"the NATS server nats://{unused} can't be reached" in no_broker[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulator"], "name the simulator"),
        (["orchestrator", "--check", "strat-accepted"], "there is no check strat-accepted"),
        (["orchestrator", "--config", "/nonexistent"], "the configuration can't be read"),
        (
            [
                "simulator",
                "--junit",
                "/nonexistent/junit.xml",
                "--check",
                "metrics",
                "--",
                "echo",
                '{"metrics":{"a":1}}',
            ],
            "JUnit",
        ),
    ],
)
def test_wrong_use_ends_with_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The error is a line on stderr, and the exit code is 2."""
    assert cli.run(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("timeout", ["0", "-1", "soon", "inf"])
def test_a_timeout_must_be_a_positive_number_of_seconds(timeout: str) -> None:
    """Any other timeout is a usage error."""
    with pytest.raises(SystemExit) as ended:
        cli.run(["orchestrator", "--timeout", timeout])
    assert ended.value.code == 2


def test_the_checks_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """--list prints every check with its meaning, and runs none."""
    assert cli.run(["orchestrator", "--list"]) == 0
    assert cli.run(["simulator", "--list"]) == 0
    listed = [line.partition(": ") for line in capsys.readouterr().out.splitlines()]
    checks = [(each.name, each.meaning) for each in orchestrator.CHECKS]
    checks += [(each.name, each.meaning) for each in simulator.CHECKS]
    assert [(name, meaning) for name, _, meaning in listed] == checks
    assert all(meaning for _, meaning in checks)

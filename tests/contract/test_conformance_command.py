"""`ems-conformance` as a command: what it prints and writes, and its exit codes."""

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
    """The command as a process: exit code, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(*RUN, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_results_are_tap_and_junit(broker: servers.NatsServer, tmp_path: Path) -> None:
    """A failed check is `not ok` with its reason, a skipped one says why; JUnit has the same; the exit code is 1."""
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
    [skipped] = [line for line in lines if " # SKIP " in line]
    assert skipped.endswith("give --broker-restart-command, which stops the broker and starts it again")
    assert lines[-1] == f"# {count - 4} passed, 3 failed, 1 skipped"

    [suite] = ElementTree.parse(junit).getroot()
    told = (suite.attrib["tests"], suite.attrib["failures"], suite.attrib["skipped"])
    assert told == (str(count), "3", "1")
    failures = {case.attrib["name"]: one.attrib["message"] for case in suite for one in case.iter("failure")}
    assert failures["other-config-sha"] == reason
    assert set(failures) == {"other-config-sha", "partial-batch", "known-after-restart"}


async def test_the_restart_commands_are_shell_commands(broker: servers.NatsServer, tmp_path: Path) -> None:
    """--restart-command and --broker-restart-command run in a shell, and what they restart is checked afterwards."""
    touched = tmp_path / "restarted"
    restarts = {
        "--restart-command": f"echo once >> {touched}",
        "--broker-restart-command": f"echo twice >> {touched}",
    }
    arguments = ["--server", broker.url, "--delay", "0.2"]
    async with servers.GrpcProgram("tests.support.oracle", arguments, log=tmp_path / "log") as one:
        options = {"--orchestrator": one.target, "--server": broker.url, **restarts}
        only = ["--check", "known-after-restart", "--check", "broker-outage"]
        code, out, _ = await run("orchestrator", *only, *(word for option in options.items() for word in option))
    assert code == 0
    assert "broker did not go away" in out
    assert touched.read_text() == "twice\nonce\n"


async def test_what_is_unreachable_ends_with_4(broker: servers.NatsServer, tmp_path: Path) -> None:
    """Without an orchestrator, or without a broker, nothing is printed but which of them is missing."""
    nobody = f"127.0.0.1:{ports.free_port()}"
    async with servers.GrpcProgram("tests.support.oracle", ["--server", broker.url], log=tmp_path / "log") as one:
        no_orchestrator, no_broker = await asyncio.gather(
            run("orchestrator", "--orchestrator", nobody, "--server", broker.url),
            run("orchestrator", "--orchestrator", one.target, "--server", f"nats://{nobody}"),
        )
    assert no_orchestrator[:2] == no_broker[:2] == (4, "")
    assert f"the orchestrator at {nobody} can't be reached" in no_orchestrator[2]
    assert f"the NATS server nats://{nobody} can't be reached" in no_broker[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
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
def test_wrong_use_ends_with_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What can't be done as asked is said in a line, and the exit code is 2."""
    assert cli.run(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("timeout", ["0", "-1", "soon", "inf"])
def test_a_timeout_is_a_number_of_seconds(timeout: str) -> None:
    """A timeout that is none is a usage error."""
    with pytest.raises(SystemExit) as ended:
        cli.run(["orchestrator", "--timeout", timeout])
    assert ended.value.code == 2


def test_the_checks_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """--list names every check with its meaning, and does nothing."""
    assert cli.run(["orchestrator", "--list"]) == 0
    assert cli.run(["simulator", "--list"]) == 0
    listed = [line.partition(": ") for line in capsys.readouterr().out.splitlines()]
    checks = [(one.name, one.meaning) for one in orchestrator.CHECKS]
    checks += [(one.name, one.meaning) for one in simulator.CHECKS]
    assert [(name, meaning) for name, _, meaning in listed] == checks
    assert all(meaning for _, meaning in checks)

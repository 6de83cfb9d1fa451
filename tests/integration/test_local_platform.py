"""`ems up` and the demo: a platform is complete when it reports so, keeps running, and leaves nothing behind."""

import asyncio
import dataclasses
import json
import os
import signal
import socket
import sqlite3
import sys
from pathlib import Path

import pytest

from ems_worker import client, errors
from ems_worker.cli import exits
from ems_worker.local import platform as platforms
from ems_worker.local import ports, process
from ems_worker.local import up as up_command
from tests.support import processes, servers, wait
from tests.support.local_platform import BASE, plan, up

SLOW = "sh -c 'sleep 60'"


async def test_up_runs_a_plan_and_ends_all_its_processes(swept: Path) -> None:
    """The first line on stdout has the addresses; a plan completes; after SIGTERM no process is left, exit code 0."""
    platform = await up(swept)
    assert set(platform.addresses) == {
        *("nats_url", "context", "orchestrator", "http", "data_dir", "manifest"),
        *("simulator", "slots"),
    }
    async with client.EmsClient(platform.addresses["nats_url"]) as ems:
        await ems.publish(plan(metrics_to_track=["population"], num_replicates_per_run=2))
        decision = await ems.decision(1, timeout=20)
        assert decision["decision"] == "accepted", decision
        assert (await ems.wait("small"))["state"] == "completed"
    with sqlite3.connect(platform.addresses["manifest"]) as manifest:
        [(jobs,)] = manifest.execute("SELECT count(*) FROM v_jobs WHERE state = 'completed'")
    manifest.close()
    assert jobs == 4
    await platform.program.stop(grace=30)
    assert platform.program.exit_code == 0, platform.program.last_words()
    assert processes.mentioning(str(swept)) == {}


@pytest.mark.long
async def test_parts_that_are_killed_are_restarted(swept: Path) -> None:
    """After SIGKILL, worker, orchestrator and broker all return at their addresses, and a plan completes."""
    platform = await up(swept)
    before = processes.mentioning(str(swept / "data"))
    parts = ("nats-server --config", "ems_worker.local.orchestrator", "ems_worker.cli.worker")
    for part in parts:
        [pid] = [pid for pid, command in before.items() if part in command and "guardian" not in command]
        os.kill(pid, signal.SIGKILL)

    def restarted() -> bool:
        now = processes.mentioning(str(swept / "data"))
        new = [command for pid, command in now.items() if pid not in before]
        return all(any(part in command for command in new) for part in parts)

    await wait.until(restarted, timeout=40, what="all parts to be restarted")
    assert "worker ended unexpectedly" in platform.program.log.read_text()
    async with client.EmsClient(platform.addresses["nats_url"], connect_timeout=20) as ems:
        await ems.publish(plan())
        await ems.decision(1, timeout=60)
        assert (await ems.wait("small"))["state"] == "completed"
    await platform.program.stop(grace=30)
    assert processes.mentioning(str(swept)) == {}


@pytest.mark.parametrize("orchestrator_too", [False, True])
async def test_no_process_survives_sigkill_of_the_platform(swept: Path, orchestrator_too: bool) -> None:
    """When the platform is killed, its parts and their simulations end, even if the orchestrator can't end them."""
    platform = await up(swept, simulator=SLOW)
    async with client.EmsClient(platform.addresses["nats_url"]) as ems:
        await ems.publish(plan())

    def simulating() -> bool:
        return "sleep 60" in processes.mentioning(str(swept)).values()

    await wait.until(simulating, timeout=20, what="a simulation to run")
    running = processes.mentioning(str(swept / "data"))
    [orchestrator] = [pid for pid, command in running.items() if "-m ems_worker.local.orchestrator" in command]
    os.kill(platform.program.pid, signal.SIGKILL)
    if orchestrator_too:
        os.kill(orchestrator, signal.SIGKILL)
    assert await platform.program.wait(timeout=10) == -signal.SIGKILL
    await wait.until(lambda: not processes.mentioning(str(swept)), timeout=40, what="everything to end")


@pytest.mark.long
async def test_a_data_directory_has_one_platform(swept: Path) -> None:
    """A second platform on the same directory is refused before it starts anything; the first one keeps running."""
    first = await up(swept)
    messages: list[str] = []
    with pytest.raises(process.PlatformFailed, match="another platform uses"):
        async with platforms.Platform(platforms.Options(swept / "data"), messages.append):
            pass
    assert messages == []
    assert first.program.running
    await first.program.stop(grace=30)


async def test_the_error_of_a_part_that_cannot_start_has_the_end_of_its_log(swept: Path) -> None:
    """An invalid simulator command fails the start with the message of the orchestrator, and no process is left."""
    options = platforms.Options(swept / "data", simulator="sh 'open")
    with pytest.raises(process.PlatformFailed, match=r"orchestrator ended with 2(.|\n)*No closing quotation"):
        async with platforms.Platform(options, print):
            pass
    assert processes.mentioning(str(swept)) == {}


@pytest.mark.long
async def test_two_platforms_that_start_at_the_same_time_share_nothing(swept: Path) -> None:
    """One of them gets the preferred ports; the other takes free ports, and runs its plans itself."""
    for name in ("a", "b"):
        (swept / name).mkdir()
    preferred = (ports.free_port(), ports.free_port())
    first, second = await asyncio.gather(up(swept / "a", preferred=preferred), up(swept / "b", preferred=preferred))
    try:
        own = first.addresses.keys() - {"simulator", "slots"}
        pairs = {name: (first.addresses[name], second.addresses[name]) for name in own}
        assert all(one != other for one, other in pairs.values()), pairs
        assert sum(str(preferred[0]) in each.addresses["nats_url"] for each in (first, second)) == 1
        async with client.EmsClient(second.addresses["nats_url"]) as ems:
            await ems.publish(plan())
            await ems.decision(1, timeout=60)
            assert (await ems.wait("small"))["state"] == "completed"
        assert list((swept / "b" / "data" / "orchestrator" / "runs").iterdir())
    finally:
        for each in (first, second):
            await each.program.stop(grace=30)


@pytest.mark.parametrize("part", ["nats", "orchestrator", "http"])
async def test_a_requested_port_that_is_taken_is_an_error(swept: Path, part: str) -> None:
    """A server that another program runs on the requested port is not mistaken for a part of the platform."""
    with socket.create_server((ports.LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        options = dataclasses.replace(platforms.Options(swept / "data"), **{f"{part}_port": port})
        with pytest.raises(process.PlatformFailed, match=rf"port {port} is taken: [\w-]+ can't listen there"):
            async with platforms.Platform(options, print):
                pass
    assert processes.mentioning(str(swept)) == {}


async def test_an_unusable_directory_is_a_usage_error(swept: Path) -> None:
    """A file in place of the data directory, or a directory in place of its lock, is named; the exit code is 2."""
    (swept / "data").write_text("a file")
    (swept / "other" / "lock").mkdir(parents=True)
    for name, message in (
        ("data", r"the directory .*/data can't be created: File exists"),
        ("other", "other can't be writ"),
    ):
        with pytest.raises(process.PlatformFailed, match=message) as refused:
            async with platforms.Platform(platforms.Options(swept / name), print):
                pass
        assert exits.of(refused.value) is exits.Exit.USAGE


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-simulator {config}", "there is no executable program 'no-such-simulator'"),
        ("sh 'open", "No closing quotation"),
        (" ", "it is empty"),
        ("sh {confg} ${seed}", r"there is no \{confg\}; did you mean \{config\}\?"),
    ],
)
def test_an_unusable_simulator_is_refused_before_anything_starts(tmp_path: Path, command: str, message: str) -> None:
    """A command line with which every run would fail is a settings error, and no directory is created."""
    with pytest.raises(errors.SettingsError, match=message):
        up_command.run(data_dir=tmp_path / "data", simulator=command)
    assert not (tmp_path / "data").exists()


async def run_demo(directory: Path, *arguments: str) -> tuple[int | None, str]:
    """Runs the demo as a process in this directory; returns its exit code and its output."""
    code = f"import os, runpy, sys; os.chdir({str(directory)!r}); sys.argv = ['demo', *{arguments!r}]\n"
    code += "runpy.run_module('ems_worker.local.demo', run_name='__main__')"
    program = servers.Program("demo", [sys.executable, "-c", code], log=directory / "demo.log")
    program.start()
    ended = await program.wait(timeout=60)
    return ended, program.log.read_text()


@pytest.mark.long
async def test_the_demo_shows_the_means_of_the_manifest(swept: Path) -> None:
    """The demo runs a plan, prints its points with their means, best first, and stops everything; twice in a row."""
    (swept / "base.yaml").write_text(BASE.replace("max_ticks: 700", "max_ticks: 60"))
    (swept / "plan.yaml").write_text(
        "experiment_name: hot\n"
        "base_config_file_path: base.yaml\n"
        "parameter_space:\n"
        "  simulation_layer.environment.water_temperature: {values: [26.0, 33.0, 29.0], as: heat}\n"
        "num_replicates_per_run: 2\n"
        "metrics_to_track: [{name: population, goal: maximize}]\n"
    )
    for _ in range(2):
        code, output = await run_demo(swept, "plan.yaml")
        assert code == 0, output
        lines = output.splitlines()
        header = next(number for number, line in enumerate(lines) if line.split()[:3] == ["point", "n", "heat"])
        shown = [line.split() for line in lines[header + 1 : header + 4]]
        assert [row[2] for row in shown] == ["26.0", "29.0", "33.0"]
        manifest = sqlite3.connect(swept / "demo-data" / "worker" / "manifest.db")
        query = "SELECT point, metrics FROM v_jobs WHERE state = 'completed'"
        populations: dict[int, list[float]] = {}
        for point, metrics in manifest.execute(query):
            populations.setdefault(point, []).append(json.loads(metrics)["population"])
        manifest.close()
        for point, replicates, _, mean, *_ in shown:
            assert len(populations[int(point)]) == int(replicates) == 2
            decimals = len(mean.partition(".")[2])
            assert mean == f"{sum(populations[int(point)]) / 2:,.{decimals}f}"
        assert "6 simulation processes ran" in output
        [experiment_csv] = (swept / "demo-data").glob("hot-*.csv")
        assert len(experiment_csv.read_text().splitlines()) == 7
        assert processes.mentioning(str(swept)) == {}


@pytest.mark.long
async def test_the_demo_of_an_invalid_plan_shows_the_error(swept: Path) -> None:
    """A rejected plan ends the demo with exit code 1 and the problem of the plan; no process is left."""
    (swept / "plan.yaml").write_text("experiment_name: wrong\nbase_config: {a: 1}\nparameter_spaces: {a: [1]}\n")
    code, output = await run_demo(swept, "plan.yaml")
    assert code == 1
    assert "parameter_space" in output
    assert "Traceback" not in output
    assert processes.mentioning(str(swept)) == {}


@pytest.mark.long
async def test_the_demo_can_be_interrupted(swept: Path) -> None:
    """Ctrl-C ends the demo with exit code 130, and with it every process that it started."""
    (swept / "plan.yaml").write_bytes(plan(num_replicates_per_run=2000))
    code = f"import os, sys; os.chdir({str(swept)!r}); sys.argv = ['demo', 'plan.yaml']\n"
    code += "from ems_worker.local import demo; sys.exit(demo.main())"
    program = servers.Program("demo", [sys.executable, "-c", code], log=swept / "demo.log")
    program.start()

    def running() -> bool:
        assert program.running, program.last_words()
        return "running:" in program.log.read_text()

    await wait.until(running, timeout=40, what="the experiment to run")
    program.signal(signal.SIGINT)
    assert await program.wait(timeout=30) == 130, program.last_words()
    assert "interrupted" in program.last_words()
    assert processes.mentioning(str(swept)) == {}


async def test_the_demo_deletes_only_its_own_files(swept: Path) -> None:
    """A directory called demo-data that no demo created is left unchanged, and the demo fails with a clear error."""
    (swept / "demo-data").mkdir()
    (swept / "demo-data" / "thesis.txt").write_text("years of work")
    code, output = await run_demo(swept, "plan.yaml")
    assert code == 1
    assert "not from an earlier demo" in output
    assert (swept / "demo-data" / "thesis.txt").read_text() == "years of work"

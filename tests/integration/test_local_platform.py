"""`ems up` and the demo: a platform is complete when it says so, stays up, and leaves nothing behind."""

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
from ems_worker.local import platform, ports, process, results
from ems_worker.local import up as up_command
from tests.support import processes, servers, wait
from tests.support.local_platform import BASE, plan, up

SLOW = "sh -c 'sleep 60'"


async def test_up_runs_a_plan_and_stops_without_a_trace(swept: Path) -> None:
    """The first line on stdout tells of a platform that is ready; a plan runs on it; SIGTERM ends all, exit code 0."""
    here = await up(swept)
    assert set(here.addresses) == {"nats_url", "context", "orchestrator", "http", "data_dir", "manifest"}
    async with client.EmsClient(here.addresses["nats_url"]) as ems:
        await ems.publish(plan(metrics_to_track=["population"], num_replicates_per_run=2))
        decision = await ems.decision(1, timeout=20)
        assert decision["decision"] == "accepted", decision
        async with asyncio.timeout(60):
            assert (await ems.wait("small"))["state"] == "completed"
    with sqlite3.connect(here.addresses["manifest"]) as manifest:
        [(jobs,)] = manifest.execute("SELECT count(*) FROM v_jobs WHERE state = 'completed'")
    manifest.close()
    assert jobs == 4
    await here.program.stop(grace=30)
    assert here.program.exit_code == 0, here.program.last_words()
    assert processes.mentioning(str(swept)) == {}


async def test_parts_that_die_are_started_again(swept: Path) -> None:
    """After kill -9 of worker, orchestrator and broker each is back where it was, and a plan runs."""
    here = await up(swept)
    before = processes.mentioning(str(swept / "data"))
    parts = ("nats-server --config", "ems_worker.local.orchestrator", "ems_worker.cli.worker")
    for part in parts:
        [pid] = [pid for pid, command in before.items() if part in command and "guardian" not in command]
        os.kill(pid, signal.SIGKILL)

    def back() -> bool:
        now = processes.mentioning(str(swept / "data"))
        new = [command for pid, command in now.items() if pid not in before]
        return all(any(part in command for command in new) for part in parts)

    await wait.until(back, timeout=20, what="all parts to be started again")
    assert "worker ended unexpectedly" in here.program.log.read_text()
    async with client.EmsClient(here.addresses["nats_url"], connect_timeout=20) as ems:
        await ems.publish(plan())
        async with asyncio.timeout(60):
            await ems.decision(1, timeout=60)
            assert (await ems.wait("small"))["state"] == "completed"
    await here.program.stop(grace=30)
    assert processes.mentioning(str(swept)) == {}


async def test_kill_9_of_up_leaves_nothing_running(swept: Path) -> None:
    """Even when the platform itself is killed, its parts and their simulations end."""
    here = await up(swept, simulator=SLOW)
    async with client.EmsClient(here.addresses["nats_url"]) as ems:
        await ems.publish(plan())

    def simulating() -> bool:
        return "sleep 60" in processes.mentioning(str(swept)).values()

    await wait.until(simulating, timeout=20, what="a simulation to run")
    os.kill(here.program.pid, signal.SIGKILL)
    assert await here.program.wait(timeout=10) == -signal.SIGKILL
    await wait.until(lambda: not processes.mentioning(str(swept)), timeout=40, what="everything to end")


async def test_a_data_directory_has_one_platform(swept: Path) -> None:
    """A second platform on the same directory is refused before it says that anything starts; the first stays."""
    here = await up(swept)
    said: list[str] = []
    with pytest.raises(process.PlatformFailed, match="another platform uses"):
        async with platform.Platform(platform.Options(swept / "data"), said.append):
            pass
    assert said == []
    assert here.program.running
    await here.program.stop(grace=30)


async def test_a_part_that_cannot_start_is_told_with_its_words(swept: Path) -> None:
    """A simulator command that can't be parsed fails the start in the orchestrator's own words, and leaves nothing."""
    options = platform.Options(swept / "data", simulator="sh 'open")
    with pytest.raises(process.PlatformFailed, match=r"orchestrator ended with 2(.|\n)*No closing quotation"):
        async with platform.Platform(options, print):
            pass
    assert processes.mentioning(str(swept)) == {}


@pytest.mark.long
async def test_two_that_start_at_once_share_nothing(swept: Path) -> None:
    """The usual ports go to one of two platforms, the other takes ports of its own: a plan for it runs there."""
    for name in ("a", "b"):
        (swept / name).mkdir()
    usual = (ports.free_port(), ports.free_port())
    here, there = await asyncio.gather(up(swept / "a", usual=usual), up(swept / "b", usual=usual))
    try:
        theirs = {name: (here.addresses[name], there.addresses[name]) for name in here.addresses}
        assert all(one != other for one, other in theirs.values()), theirs
        assert sum(str(usual[0]) in one.addresses["nats_url"] for one in (here, there)) == 1
        async with client.EmsClient(there.addresses["nats_url"]) as ems:
            await ems.publish(plan())
            async with asyncio.timeout(60):
                await ems.decision(1, timeout=60)
                assert (await ems.wait("small"))["state"] == "completed"
        assert list((swept / "b" / "data" / "orchestrator" / "runs").iterdir())
    finally:
        for one in (here, there):
            await one.program.stop(grace=30)


@pytest.mark.parametrize("part", ["nats", "orchestrator", "http"])
async def test_a_port_that_is_taken_is_told(swept: Path, part: str) -> None:
    """What somebody else answers on the port that was asked for is not taken for a part of the platform."""
    with socket.create_server((ports.LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        options = dataclasses.replace(platform.Options(swept / "data"), **{f"{part}_port": port})
        with pytest.raises(process.PlatformFailed, match=rf"port {port} is taken: [\w-]+ can't listen there"):
            async with platform.Platform(options, print):
                pass
    assert processes.mentioning(str(swept)) == {}


async def test_a_directory_that_cannot_be_is_told(swept: Path) -> None:
    """A file in the place of the data directory, or of what is in it, is an error with its name and exit code 2."""
    (swept / "data").write_text("a file")
    (swept / "other" / "lock").mkdir(parents=True)
    for name, words in (
        ("data", r"the directory .*/data can't be made: File exists"),
        ("other", "other can't be writ"),
    ):
        with pytest.raises(process.PlatformFailed, match=words) as refused:
            async with platform.Platform(platform.Options(swept / name), print):
                pass
        assert exits.of(refused.value) is exits.Exit.USAGE


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("no-such-simulator {config}", "there is no program 'no-such-simulator'"),
        ("sh 'open", "No closing quotation"),
        ("", "it is empty"),
        ("sh {confg} ${seed}", r"there is no \{confg\}; did you mean \{config\}\?"),
    ],
)
def test_a_simulator_that_cannot_run_is_refused_at_once(tmp_path: Path, command: str, words: str) -> None:
    """Nothing is started for a command line that every run would fail by."""
    with pytest.raises(errors.SettingsError, match=words):
        up_command.run(data_dir=tmp_path / "data", simulator=command)
    assert not (tmp_path / "data").exists()


async def run_demo(directory: Path, *arguments: str) -> tuple[int | None, str]:
    """The demo as a process in this directory: exit code and all that it said."""
    code = f"import os, runpy, sys; os.chdir({str(directory)!r}); sys.argv = ['demo', *{arguments!r}]\n"
    code += "runpy.run_module('ems_worker.local.demo', run_name='__main__')"
    program = servers.Program("demo", [sys.executable, "-c", code], log=directory / "demo.log")
    program.start()
    ended = await program.wait(timeout=60)
    return ended, program.log.read_text()


@pytest.mark.long
async def test_the_demo_shows_the_manifests_means_twice_in_a_row(swept: Path) -> None:
    """The demo runs a plan, prints its points best first with the manifest's means, and stops everything; again too."""
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
        code, said = await run_demo(swept, "plan.yaml")
        assert code == 0, said
        lines = said.splitlines()
        header = next(number for number, line in enumerate(lines) if line.split()[:2] == ["point", "heat"])
        shown = [line.split() for line in lines[header + 1 : header + 4]]
        assert [row[1] for row in shown] == ["26.0", "29.0", "33.0"]
        manifest = sqlite3.connect(swept / "demo-data" / "worker" / "manifest.db")
        query = "SELECT point, metrics FROM v_jobs WHERE state = 'completed'"
        found: dict[int, list[float]] = {}
        for point, metrics in manifest.execute(query):
            found.setdefault(point, []).append(json.loads(metrics)["population"])
        manifest.close()
        for point, _, replicates, mean, _ in shown:
            assert len(found[int(point)]) == int(replicates) == 2
            assert float(mean) == pytest.approx(sum(found[int(point)]) / 2, rel=1e-5)
        assert "6 simulation processes ran" in said
        [experiment_csv] = (swept / "demo-data").glob("hot-*.csv")
        assert len(experiment_csv.read_text().splitlines()) == 7
        assert processes.mentioning(str(swept)) == {}


@pytest.mark.long
async def test_a_demo_of_an_invalid_plan_fails_clearly(swept: Path) -> None:
    """A plan that is refused ends the demo with exit code 1 and the plan's own error; nothing is left running."""
    (swept / "plan.yaml").write_text("experiment_name: wrong\nbase_config: {a: 1}\nparameter_spaces: {a: [1]}\n")
    code, said = await run_demo(swept, "plan.yaml")
    assert code == 1
    assert "parameter_space" in said
    assert "Traceback" not in said
    assert processes.mentioning(str(swept)) == {}


@pytest.mark.long
async def test_the_demo_can_be_interrupted(swept: Path) -> None:
    """Ctrl-C ends the demo with 130, and everything that it started."""
    (swept / "plan.yaml").write_bytes(plan(num_replicates_per_run=2000))
    code = f"import os, sys; os.chdir({str(swept)!r}); sys.argv = ['demo', 'plan.yaml']\n"
    code += "from ems_worker.local import demo; sys.exit(demo.main())"
    program = servers.Program("demo", [sys.executable, "-c", code], log=swept / "demo.log")
    program.start()

    def runs() -> bool:
        assert program.running, program.last_words()
        return "running:" in program.log.read_text()

    await wait.until(runs, timeout=40, what="the experiment to run")
    program.signal(signal.SIGINT)
    assert await program.wait(timeout=30) == 130, program.last_words()
    assert "interrupted" in program.last_words()
    assert processes.mentioning(str(swept)) == {}


async def test_the_demo_wipes_nothing_but_its_own(swept: Path) -> None:
    """A directory called demo-data that no demo made is left alone, with a clear error."""
    (swept / "demo-data").mkdir()
    (swept / "demo-data" / "thesis.txt").write_text("years of work")
    code, said = await run_demo(swept, "plan.yaml")
    assert code == 1
    assert "not from an earlier demo" in said
    assert (swept / "demo-data" / "thesis.txt").read_text() == "years of work"


def test_points_without_a_mean_come_last() -> None:
    """The table is ordered by the goal's direction; a point whose metric is missing everywhere is the last."""
    experiment = {
        "parameters": {"x": "a.x"},
        "metrics": {"m": {}},
        "best": {"metric": "m", "goal": "minimize"},
    }
    means = [3.0, None, 1.0]
    points = [
        {
            "point": number,
            "params": {"x": number},
            "counts": {"completed": 2},
            "metrics": {"m": {"mean": mean, "std": None}},
        }
        for number, mean in enumerate(means)
    ]
    assert results.rows(experiment, points) == [
        ["point", "x", "replicates", "m mean", "std"],
        ["2", "2", "2", "1", "-"],
        ["0", "0", "2", "3", "-"],
        ["1", "1", "2", "-", "-"],
    ]

"""`ems logs`, `artifacts` and `download` on a platform of `ems up`, and where the orchestrator doesn't offer them."""

import asyncio
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import commands, local_platform, servers
from tests.support import runtime as runtime_directory

SIMULATOR = """cd "$SIMULATION_OUTPUT_DIR"
echo "seed $SIMULATION_SEED"
echo careful >&2
echo t > series.csv
case "$(cat "$1")" in *5*) exit 3;; esac
echo '{"metrics": {"loss": 1}, "artifacts": {"series": "series.csv", "model": "s3://bucket/model"}}'
"""
PLAN = {
    "experiment_id": "demo",
    "base_config": {"lr": 0.1},
    "parameter_space": {"lr": [0.1, 5]},
    "num_replicates_per_run": 2,
    "metrics_to_track": ["loss"],
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of commands at a platform on which the experiment `demo` has ended."""
    directory = tmp_path_factory.mktemp("up")
    runtime = runtime_directory.directory()
    (directory / "sim.sh").write_text(SIMULATOR)
    (directory / "plan.json").write_text(json.dumps(PLAN))
    env = commands.environment(XDG_RUNTIME_DIR=runtime)
    platform = asyncio.run(local_platform.up(directory, simulator=f"sh {directory}/sim.sh {{config}}", env=env))
    env |= {"NATS_URL": platform.addresses["nats_url"], "DATA": platform.addresses["data_dir"]}
    try:
        ended = commands.run("ems-publish", str(directory / "plan.json"), "--wait", env=env)
        assert "2 failed" in ended.out, ended
        yield env
    finally:
        asyncio.run(platform.program.stop(grace=20))
        shutil.rmtree(runtime)


def test_logs_are_those_of_the_run(platform: dict[str, str]) -> None:
    """Of a run, or of a job's last attempt; standard error separately; or the last lines."""
    ended = commands.run("ems", "logs", "demo-p000000-r000-a1", env=platform)
    assert (ended.code, ended.out.splitlines()[0][:5]) == (0, "seed ")
    assert commands.run("ems", "logs", "demo-p000000-r000", env=platform).out == ended.out
    assert (
        commands.run("ems", "logs", "demo-p000000-r000", "-n", "1", env=platform).out
        == ended.out.splitlines(keepends=True)[-1]
    )
    assert commands.run("ems", "logs", "demo-p000001-r001", "--stderr", "-f", env=platform).out == "careful\n"


def test_artifacts_are_listed(platform: dict[str, str]) -> None:
    """Files with their sizes, and the artifacts that are elsewhere with their URIs."""
    ended = commands.run("ems", "artifacts", "demo-p000000-r000", "--json", env=platform)
    listed = {(each["path"], each["artifact"]): each for each in map(json.loads, ended.out.splitlines())}
    assert set(listed) == {("series.csv", "series"), (None, "model")}
    assert listed["series.csv", "series"]["bytes"] == 2
    assert listed[None, "model"]["uri"] == "s3://bucket/model"
    shown = commands.run("ems", "artifacts", "demo-p000000-r000", env=platform)
    assert [line.split()[0] for line in shown.out.splitlines()] == ["file", "s3://bucket/model", "series.csv"]


def test_files_are_downloaded_by_name_and_by_condition(platform: dict[str, str], tmp_path: Path) -> None:
    """Again, nothing is sent that is there."""
    command = ("ems", "download", "demo", "*.csv", "--where", "lr < 1", "-o", str(tmp_path))
    ended = commands.run(*command, env=platform)
    assert ended.code == 0, ended
    assert sorted(os.listdir(tmp_path)) == ["demo-p000000-r000-a1", "demo-p000000-r001-a1"]
    assert (tmp_path / "demo-p000000-r001-a1" / "series.csv").read_text() == "t\n"
    assert "2 were there already" in commands.run(*command, env=platform).err
    one = commands.run("ems", "download", "demo-p000001-r000", "-o", str(tmp_path), env=platform)
    assert one.out == f"{tmp_path}/demo-p000001-r000-a1/series.csv\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("logs", "demo-p000009-r000"), "there is no run demo-p000009-r000: demo has 2 points"),
        (("logs", "demo-p000000-r000-a7"), "no simulation 'demo-p000000-r000-a7'"),
        (("logs", "demo"), "demo is more than one run: demo has 2 points"),
        (("download", "demo", "--where", "rl < 1"), "'rl' is neither a parameter nor one of"),
        (("download", "demo-p000000-r000", "--where", "lr < 1"), "give the experiment's id"),
        (("download", "demo", "*.png"), "demo has no file '*.png'"),
        (("download", "other"), "there is no experiment other"),
        (("logs", "demo-p000000-r000-a1", "--orchestrator", "127.0.0.1:1"), "no orchestrator answers"),
    ],
)
def test_what_is_not_there_is_said(platform: dict[str, str], arguments: tuple[str, ...], message: str) -> None:
    """With an exit code that isn't 0."""
    ended = commands.run("ems", *arguments, env=platform)
    assert ended.code in (1, 2, 4)
    assert message in ended.err


def test_old_experiments_and_files_are_pruned(platform: dict[str, str], tmp_path: Path) -> None:
    """A dry run says what would go; only what is old goes, with a manifest file and the directories of its runs."""
    plan = tmp_path / "old.json"
    plan.write_text(json.dumps({**PLAN, "experiment_id": "old", "parameter_space": {"lr": [0.1]}}))
    assert commands.run("ems-publish", str(plan), "--wait", env=platform).code == 0
    prune = ("ems-worker", "prune", "--data-dir", platform["DATA"])
    young = commands.run(*prune, "--older-than", "1h", env=platform)
    assert (young.code, young.out.splitlines()[0][:28]) == (0, "deleted the files of 0 runs ")
    assert young.out.splitlines()[1].startswith("no experiment ended before 20")
    asked = commands.run(*prune, "--older-than", "0.001s", "--dry-run", env=platform)
    assert "would delete the files of 6 runs" in asked.out
    assert "would remove old, ended 20" in asked.out
    assert commands.run("ems", "show", "old", env=platform).code == 0
    assert commands.run(*prune, "--older-than", "30", env=platform).code == 2


def test_an_experiment_is_archived_reproduced_and_removed(platform: dict[str, str], tmp_path: Path) -> None:
    """The archive has everything, the results agree, and what is removed doesn't come back."""
    archive = tmp_path / "demo.tar.gz"
    ended = commands.run("ems", "archive", "demo", "--files", "-o", str(archive), env=platform)
    assert "4 attempts, 4 files" in ended.err
    with tarfile.open(archive) as packed:
        names = {name for name in packed.getnames() if "/files/" not in name}
        assert names == {
            f"demo/{name}" for name in ("experiment.json", "plan.json", "base.json", "points.jsonl", "runs.jsonl")
        }
        member = packed.extractfile("demo/files/demo-p000001-r001-a1/series.csv")
        assert member is not None
        assert member.read() == b"t\n"
    again = commands.run("ems", "archive", "demo", "-o", str(archive), env=platform)
    assert (again.code, "never overwrites a file" in again.err) == (2, True)

    same = commands.run("ems", "reproduce", "demo", "--id", "demo-2", env=platform)
    assert same.out == "demo-2: all 4 results agree with those of demo\n"
    run = commands.run("ems", "reproduce", "demo-p000000-r001", "--id", "one", "--json", env=platform)
    assert json.loads(run.out)["agree"] is True
    job = json.loads(commands.run("ems", "export", "one", "--format", "jsonl", env=platform).out)
    assert (job["label.reproduces"], job["param.lr"]) == ("demo", 0.1)

    assert commands.run("ems", "rm", "one", env=platform).code == 2
    removed = commands.run("ems", "rm", "one", "nothing", "--yes", env=platform)
    assert (removed.code, removed.out) == (1, "one: removed\n")
    assert "there is no experiment nothing" in removed.err
    assert "one was removed at" in commands.run("ems", "show", "one", env=platform).err
    back = commands.run("ems", "reproduce", "demo-p000000-r001", "--id", "one", env=platform)
    assert (back.code, "its id stays taken" in back.err) == (1, True)


def test_an_orchestrator_without_the_call_is_named(platform: dict[str, str], tmp_path: Path) -> None:
    """UNIMPLEMENTED is said, and the artifacts that the worker knows are listed."""

    async def without() -> None:
        flags = ["--server", platform["NATS_URL"]]
        program = servers.GrpcProgram("tests.support.scripted_orchestrator", flags[:0], log=tmp_path / "log")
        async with program:
            target = ("--orchestrator", program.target)
            ended = await asyncio.to_thread(commands.run, "ems", "logs", "demo-p000000-r000", *target, env=platform)
            assert ended.code == 1
            assert "it doesn't implement GetSimulationOutput, which is optional" in ended.err
            listed = await asyncio.to_thread(
                commands.run, "ems", "artifacts", "demo-p000000-r000", *target, "--json", env=platform
            )
            assert listed.code == 0
            assert {json.loads(line)["artifact"] for line in listed.out.splitlines()} == {"series", "model"}

    asyncio.run(without())

"""`ems-worker` as a process: its settings and its exit codes."""

import json
import signal
from pathlib import Path

from ems_worker import settings
from ems_worker.cli import exits
from ems_worker.local import ports
from tests.support import broker, commands, servers


def test_config_lists_every_setting_with_its_source(tmp_path: Path) -> None:
    """The settings are a table, or with --json documents, and passwords are hidden."""
    file = tmp_path / "ems.toml"
    file.write_text("max_jobs = 5\n")
    env = commands.environment(EMS_CONFIG=str(file), EMS_SERVER="nats://u:secret@h:4222")
    ended = commands.run("ems-worker", "config", "--rpc-window", "3", "--no-manifest-export", env=env)
    assert ended.code == exits.Exit.OK
    lines = {line.split()[0]: line.split()[1:4] for line in ended.out.splitlines()}
    assert set(lines) == {"setting", *settings.Settings.model_fields}
    assert lines["max_jobs"] == ["5", str(file), "EMS_MAX_JOBS"]
    assert lines["rpc_window"] == ["3", "--rpc-window", "EMS_RPC_WINDOW"]
    assert lines["manifest_export"] == ["false", "--manifest-export", "EMS_MANIFEST_EXPORT"]
    assert "secret" not in ended.out
    documents = [json.loads(line) for line in commands.run("ems-worker", "config", "--json", env=env).out.splitlines()]
    assert [document["name"] for document in documents] == list(settings.Settings.model_fields)


def test_every_setting_has_a_flag() -> None:
    """The help describes each flag. Secrets have none, as every user of the machine can read a process's arguments."""
    text = " ".join(commands.run("ems-worker", "run", "--help").out.split())
    for setting in settings.describe():
        assert (f" {setting.flag} " in text) is not setting.is_secret
        assert setting.is_secret or setting.description in text


def test_invalid_settings_are_exit_code_2() -> None:
    """All invalid settings are reported at once with their sources."""
    env = commands.environment(EMS_SERVR="x", EMS_RPC_WINDOW="many")
    ended = commands.run("ems-worker", "run", env=env)
    assert ended.code == exits.Exit.USAGE
    assert "unknown environment variable EMS_SERVR; did you mean EMS_SERVER?" in ended.err
    assert "rpc_window (from EMS_RPC_WINDOW): 'many'" in ended.err


def test_a_second_worker_on_the_same_manifest_is_exit_code_6(deployment: commands.Deployment) -> None:
    """The message names the manifest, and the first worker still answers."""
    ended = commands.run("ems-worker", "run", env=deployment.worker_settings)
    assert ended.code == exits.Exit.MANIFEST
    assert "manifest.db" in ended.err
    assert commands.run("ems", "ls", env=deployment.env).code == exits.Exit.OK


def test_a_missing_directory_of_base_files_is_exit_code_2(tmp_path: Path) -> None:
    """It is reported at the start, not at the first plan that names a base file."""
    env = commands.environment(EMS_BASE_CONFIG_ROOT=str(tmp_path / "absent"), EMS_DATA_DIR=str(tmp_path / "data"))
    ended = commands.run("ems-worker", "run", env=env)
    assert ended.code == exits.Exit.USAGE
    assert "absent is not a directory" in ended.err


def test_a_data_directory_that_can_not_be_created_is_exit_code_2(tmp_path: Path) -> None:
    """A file in place of the directory is reported by every command, as a restart would not help."""
    (tmp_path / "file").touch()
    env = commands.environment(EMS_DATA_DIR=str(tmp_path / "file"), EMS_HTTP="")
    for arguments in (["run"], ["restore", str(tmp_path)], ["backup", str(tmp_path / "copy.db")]):
        ended = commands.run("ems-worker", *arguments, env=env)
        assert ended.code == exits.Exit.USAGE, ended
        assert str(tmp_path) in ended.err
        assert "Exception" not in ended.err


async def test_a_misconfigured_broker_is_exit_code_4(tmp_path: Path) -> None:
    """The message names the stream whose configuration is wrong."""
    async with servers.NatsServer(tmp_path / "nats") as server:
        async with broker.plain(server) as (_, jetstream):
            await jetstream.add_stream(name="EMS_PLANS", subjects=["ems.experiment.submit"], retention="workqueue")
        env = commands.environment(EMS_SERVER=server.url, EMS_DATA_DIR=str(tmp_path / "data"), EMS_HTTP="")
        ended = commands.run("ems-worker", "run", env=env)
    assert ended.code == exits.Exit.UNREACHABLE
    assert "EMS_PLANS" in ended.err


async def test_a_signal_stops_the_worker_with_exit_code_0(tmp_path: Path) -> None:
    """SIGTERM and SIGINT stop the worker in order even if it never reached its broker and orchestrator."""
    for number in (signal.SIGTERM, signal.SIGINT):
        env = {
            "EMS_SERVER": f"127.0.0.1:{ports.free_port()}",
            "EMS_ORCHESTRATOR": f"127.0.0.1:{ports.free_port()}",
            "EMS_DATA_DIR": str(tmp_path / number.name),
            "EMS_HTTP": "",
        }
        with commands.start("ems-worker", "run", env=commands.environment(**env)) as process:
            assert process.stderr is not None
            while "worker.starting" not in (line := process.stderr.readline()):
                assert line, "it ended before it started"
            process.send_signal(number)
            _, err = process.communicate(timeout=30)
        assert process.returncode == exits.Exit.OK, err
        assert "Traceback" not in err

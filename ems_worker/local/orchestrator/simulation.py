"""The directory and the processes of one run.

`DIR/config.yaml` is the configuration, `DIR/output/` belongs to the simulation, `DIR/stdout` and `DIR/stderr` are its
output streams. A few lines of POSIX shell wrap every simulation and record what a crash of the orchestrator must not
lose: `DIR/claim`, created by the one wrapper that may start the simulation, and `DIR/exit`, its exit code.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.local import process
from ems_worker.local.orchestrator import attempts, model, regular, result
from ems_worker.local.orchestrator.command import CannotFill, Command, Configuration
from ems_worker.settings import inherited

_ADOPTED_POLL_SECONDS = 0.05

# Separates the name of a directory that was moved aside from a number; ids don't contain it.
_DISCARDED = "~"
_NO_PROCESS = "0 "
_CONFIGURATIONS = ("config.yaml", "config.json", "config.new")
# The claim is a symbolic link: only one wrapper can create it, and its target identifies that wrapper. A process id
# alone may have been reused; together with the time at which the process started (in /proc counted from the boot) it is
# unique. TERM is trapped so that the wrapper outlives the simulation and can record its exit code; the simulation
# itself gets the default handling of TERM.
_WRAPPER = r"""
dir=$1; shift
field() { shift 19; started=$1; }
if read -r stat && read -r boot < /proc/sys/kernel/random/boot_id; then field ${stat##*) }; started="$started $boot"
fi 2> /dev/null < /proc/$$/stat
[ -n "$started" ] || started=$(LC_ALL=C ps -o lstart= -p $$)
ln -s "$$ $started" "$dir/claim" || exit 75
trap : TERM INT HUP
"$@" < /dev/null > "$dir/stdout" 2> "$dir/stderr"
echo $? > "$dir/exit.new" && mv "$dir/exit.new" "$dir/exit"
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """The wrapper that started or is starting the simulation. Its process id is also that of the process group."""

    pid: int
    identity: str
    made_ns: int

    def alive(self) -> bool:
        """Whether that process still exists."""
        return bool(self.identity) and process.identity(self.pid) == self.identity


class Simulation:
    """The processes of one run, started by this orchestrator or an earlier one."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = directory / "output"
        self._wrapper: subprocess.Popen[bytes] | None = None

    def launch(self, command: Command, order: model.Order, configuration: Configuration | None = None) -> None:
        """Starts the wrapper, which starts the simulation unless another wrapper has claimed the directory.

        `configuration` is the content of the order's, if the command needs it. Raises OSError if the directory can't be
        written or no process can be created, and CannotFill if the configuration lacks a value for the command line.
        """
        configuration = configuration or {}
        self.output.mkdir(parents=True, exist_ok=True)
        config, in_json = self.directory / "config.yaml", self.directory / "config.json"
        self._write(config, order.config)
        if command.writes_json:
            self._write(in_json, json.dumps(configuration, ensure_ascii=False, indent=2).encode() + b"\n")
        values = {
            "config": str(in_json if command.config_format == "json" else config),
            "config.json": str(in_json),
            "seed": str(order.seed),
            "simulation_id": order.simulation_id,
            "output": str(self.output),
            "output_dir": str(self.output),
        }
        env = {
            "SIMULATION_CONFIG": values["config"],
            "SIMULATION_SEED": values["seed"],
            "SIMULATION_ID": values["simulation_id"],
            "SIMULATION_OUTPUT_DIR": values["output_dir"],
        }
        if (earlier := attempts.earlier_output(self.directory)) is not None:
            env["SIMULATION_RESUME_DIR"] = str(earlier)
        words = command.filled(values, configuration)
        with (self.directory / "wrapper.log").open("ab") as log:
            self._wrapper = subprocess.Popen(  # noqa: S603 - the simulator is the operator's choice
                ["/bin/sh", "-c", _WRAPPER, "simulation", str(self.directory), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**inherited.environment(os.environ), **command.environment, **env},
                cwd=command.directory,
                start_new_session=True,
            )

    def _write(self, path: Path, content: bytes) -> None:
        # Replaced atomically: a simulation that another wrapper has started may be reading the file.
        fresh = self.directory / "config.new"
        fresh.write_bytes(content)
        fresh.replace(path)

    def claim(self) -> Claim | None:
        """The claim of the wrapper that started the simulation; None if it was not started."""
        link = self.directory / "claim"
        try:
            pid, _, identity = os.readlink(link).partition(" ")
            return Claim(int(pid), identity.strip(), link.lstat().st_mtime_ns)
        except FileNotFoundError:
            return None

    def forbid(self) -> bool:
        """Takes the claim so that no wrapper can start the simulation. False if a wrapper has it already."""
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            (self.directory / "claim").symlink_to(_NO_PROCESS)
        except FileExistsError:
            return False
        return True

    async def ended(self) -> None:
        """Waits until the simulation and every process in its process group are gone."""
        own = 0
        if self._wrapper is not None:
            own = self._wrapper.pid
            await _exit_of(self._wrapper)
            # The id of the group can't be reused before the wrapper is reaped, so this hits no other process.
            _signal_group(own, signal.SIGKILL)
            self._wrapper.wait()
            self._wrapper = None
        claim = self.claim()
        # The claim of a wrapper that an earlier orchestrator started.
        if claim is not None and claim.pid != own and claim.alive():
            while claim.alive():  # noqa: ASYNC110 - the end of a process that isn't our child is not reported
                await asyncio.sleep(_ADOPTED_POLL_SECONDS)
            _signal_group(claim.pid, signal.SIGKILL)

    def exit_code(self) -> int | None:
        """The exit code of the simulation as a shell reports it; None if its wrapper didn't record one."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int(_tail(self.directory / "exit"))
        return None

    def finished_ns(self) -> int:
        """When the simulation ended, in nanoseconds since the Unix epoch; the present time if that was not recorded."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "exit").stat().st_mtime_ns
        return time.time_ns()

    def end(self) -> model.RunEnd:
        """How the simulation ended, judged by the files in its directory."""
        exit_code = self.exit_code()
        if exit_code is None:
            log = _tail(self.directory / "wrapper.log").decode(errors="replace").strip()
            message = f"its processes vanished without an exit code; {log}".rstrip("; ")
            return model.RunEnd(model.ErrorKind.INFRASTRUCTURE, message=message)
        return result.judge(
            exit_code,
            stdout=_tail(self.directory / "stdout"),
            result_file=_start(self.output / "result.json"),
            metrics_file=_start(self.output / "metrics.json"),
            stderr=_tail(self.directory / "stderr"),
            output_dir=self.output.resolve(),
        )

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process group of the simulation, if it still exists."""
        if self._wrapper is not None:
            _signal_group(self._wrapper.pid, number)
        claim = self.claim()
        if claim is not None and claim.alive():
            _signal_group(claim.pid, number)

    def discard(self) -> None:
        """Moves the directory aside, if there is one, so that the next start of the run gets an empty one."""
        with contextlib.suppress(FileNotFoundError):
            self.directory.rename(self.directory.with_name(f"{self.directory.name}{_DISCARDED}{time.time_ns()}"))

    def forget(self) -> None:
        """Deletes everything except the output of the simulation."""
        for name in ("claim", "exit", "exit.new", "stdout", "stderr", "wrapper.log", *_CONFIGURATIONS):
            (self.directory / name).unlink(missing_ok=True)
        if not any(self.output.glob("*")):
            shutil.rmtree(self.directory, ignore_errors=True)


def configuration(order: model.Order) -> Configuration:
    """The content of the configuration of a run. Raises CannotFill if it isn't a mapping in YAML or JSON."""
    try:
        return yaml_reader.read_plan(order.config).data
    except (errors.PlanRejected, errors.Unreadable) as error:
        raise CannotFill(f"the configuration can't be read: {error}") from error


def delete_discarded(runs: Path) -> None:
    """Deletes the directories that were moved aside."""
    for directory in runs.glob(f"*{_DISCARDED}*"):
        shutil.rmtree(directory, ignore_errors=True)


def end_strays(runs: Path) -> None:
    """Kills simulations that their orchestrator left behind. The next orchestrator reports that they vanished."""
    for directory in runs.iterdir() if runs.exists() else ():
        claim = Simulation(directory).claim()
        if claim is not None and claim.alive():
            _signal_group(claim.pid, signal.SIGKILL)


async def _exit_of(wrapper: "subprocess.Popen[bytes]") -> None:
    """Waits for the end of a child, if possible without reaping it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # kernels before 5.3 and sandboxes have no pidfd; then we poll
            descriptor = os.pidfd_open(wrapper.pid)
            loop = asyncio.get_running_loop()
            gone = asyncio.Event()
            loop.add_reader(descriptor, gone.set)
            try:
                await gone.wait()
            finally:
                loop.remove_reader(descriptor)
                os.close(descriptor)
            return
    while wrapper.poll() is None:  # noqa: ASYNC110 - this system reports the end of a child only by a signal
        await asyncio.sleep(_ADOPTED_POLL_SECONDS)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, if all are zombies
        os.killpg(group, number)


def _start(path: Path) -> bytes | None:
    """The content of a file, at most a byte more than a result may have; None if there is no such regular file."""
    try:
        with os.fdopen(regular.opened(path), "rb") as file:
            return file.read(result.RESULT_LIMIT_BYTES + 1)
    except OSError:
        return None


def _tail(path: Path) -> bytes:
    try:
        with os.fdopen(regular.opened(path), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - result.RESULT_LIMIT_BYTES))
            return file.read(result.RESULT_LIMIT_BYTES)
    except FileNotFoundError:
        return b""

"""One run's directory and the processes in it.

`DIR/config.yaml` is the configuration, `DIR/output/` the simulation's own, `DIR/stdout` and `DIR/stderr` what it said.
A wrapper of a few lines of POSIX shell stands over every simulation, and decides what a crash of the orchestrator
can't lose: `DIR/claim`, made by the one wrapper that may start the simulation, and `DIR/exit`, its exit code.
"""

import asyncio
import contextlib
import difflib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ems_worker.local import process
from ems_worker.local.orchestrator import model, result
from ems_worker.settings import inherited

_ADOPTED_POLL_SECONDS = 0.05

_NOBODY = "0 "
# The claim is a symbolic link: made atomically, by one wrapper only, and its target says which process made it. A
# process id alone could be somebody else's by now; with the time it was started (in /proc counted from the boot) it
# can't. TERM is trapped so that the wrapper outlives the simulation and can tell how it ended; the shell gives
# the simulation itself the usual TERM.
_WRAPPER = r"""
dir=$1; shift
field() { shift 19; started=$1; }
if read -r stat && read -r boot < /proc/sys/kernel/random/boot_id; then field ${stat##*) }; started="$started $boot"
fi 2> /dev/null < /proc/$$/stat
[ -n "$started" ] || started=$(LC_ALL=C ps -o lstart= -p $$)
ln -s "$$ $started" "$dir/claim" || exit 75
trap : TERM INT HUP
rm -f "$dir/output/result.json"
"$@" < /dev/null > "$dir/stdout" 2> "$dir/stderr"
echo $? > "$dir/exit.new" && mv "$dir/exit.new" "$dir/exit"
"""


PLACEHOLDERS = ("config", "seed", "simulation_id", "output_dir")
_BRACED = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Command:
    """The simulator's command line, with `{config}`, `{seed}`, `{simulation_id}` and `{output_dir}` to be filled in."""

    words: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Command":
        """Splits a command line as a shell does.

        Raises ValueError where it is empty, has an open quote, or a misspelt placeholder: other braces may mean
        something to the simulator.
        """
        words = tuple(shlex.split(text))
        if not words:
            raise ValueError("it is empty")
        for name in _BRACED.findall(text):
            meant = difflib.get_close_matches(name, PLACEHOLDERS, n=1, cutoff=0.75)
            if name not in PLACEHOLDERS and meant:
                raise ValueError(f"there is no {{{name}}}; did you mean {{{meant[0]}}}?")
        return cls(words)

    @classmethod
    def default(cls) -> "Command":
        """The small fish simulator of this package.

        Run by its path, not as a module: that imports none of this package, which would take longer than the
        simulation. -P keeps this directory off its path, where `platform.py` would stand before the standard library's.
        """
        return cls((sys.executable, "-P", str(Path(__file__).parents[1] / "simulator.py")))

    def filled(self, values: dict[str, str]) -> list[str]:
        """The words with every `{name}` of `values` replaced; other braces stay as they are."""
        words = list(self.words)
        for name, value in values.items():
            words = [word.replace("{" + name + "}", value) for word in words]
        return words


@dataclass(frozen=True, slots=True)
class Claim:
    """The process that started (or starts) the simulation; also the id of its process group."""

    pid: int
    identity: str
    made_ns: int

    def alive(self) -> bool:
        """Whether this very process is there still."""
        return bool(self.identity) and process.identity(self.pid) == self.identity


class Simulation:
    """One run's processes, started by this orchestrator or by one before it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.output = directory / "output"
        self._wrapper: subprocess.Popen[bytes] | None = None

    def launch(self, command: Command, order: model.Order) -> None:
        """Starts the wrapper, which starts the simulation unless another wrapper has claimed this directory.

        Raises OSError where the directory can't be written or no process can be made.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        config = self.directory / "config.yaml"
        # Replaced as a whole: the simulation of a quicker wrapper may be reading it.
        fresh = self.directory / "config.new"
        fresh.write_bytes(order.config)
        fresh.replace(config)
        values = {
            "config": str(config),
            "seed": str(order.seed),
            "simulation_id": order.simulation_id,
            "output_dir": str(self.output),
        }
        env = {
            "SIMULATION_CONFIG": values["config"],
            "SIMULATION_SEED": values["seed"],
            "SIMULATION_ID": values["simulation_id"],
            "SIMULATION_OUTPUT_DIR": values["output_dir"],
        }
        with (self.directory / "wrapper.log").open("ab") as log:
            self._wrapper = subprocess.Popen(  # noqa: S603 - the simulator is the operator's choice
                ["/bin/sh", "-c", _WRAPPER, "simulation", str(self.directory), *command.filled(values)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**inherited.environment(os.environ), **env},
                start_new_session=True,
            )

    def claim(self) -> Claim | None:
        """Who started the simulation; None where nobody did."""
        link = self.directory / "claim"
        try:
            pid, _, identity = os.readlink(link).partition(" ")
            return Claim(int(pid), identity.strip(), link.lstat().st_mtime_ns)
        except FileNotFoundError:
            return None

    def forbid(self) -> bool:
        """Takes the claim, so that no wrapper can start the simulation any more; False where one was quicker."""
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            (self.directory / "claim").symlink_to(_NOBODY)
        except FileExistsError:
            return False
        return True

    async def ended(self) -> None:
        """Returns once the simulation and all that it left in its process group are gone."""
        own = 0
        if self._wrapper is not None:
            own = self._wrapper.pid
            await _exit_of(self._wrapper)
            # The group's id stays taken until the wrapper is reaped: this can't hit a stranger.
            _signal_group(own, signal.SIGKILL)
            self._wrapper.wait()
            self._wrapper = None
        claim = self.claim()
        # Another wrapper's claim: of the orchestrator before us, or of one of its wrappers that was quicker than ours.
        if claim is not None and claim.pid != own and claim.alive():
            while claim.alive():  # noqa: ASYNC110 - nobody tells us when a process ends that isn't our child
                await asyncio.sleep(_ADOPTED_POLL_SECONDS)
            _signal_group(claim.pid, signal.SIGKILL)

    def exit_code(self) -> int | None:
        """The simulation's exit code as a shell tells it; None where nobody saw its end."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return int((self.directory / "exit").read_text())
        return None

    def finished_ns(self) -> int:
        """When it ended, nanoseconds since the Unix epoch; now, where nobody saw its end."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "exit").stat().st_mtime_ns
        return time.time_ns()

    def outcome(self) -> model.Outcome:
        """How it ended, from what it left in its directory."""
        exit_code = self.exit_code()
        if exit_code is None:
            words = _tail(self.directory / "wrapper.log").decode(errors="replace").strip()
            message = f"its processes vanished without an exit code; {words}".rstrip("; ")
            return model.Outcome(model.ErrorKind.INFRASTRUCTURE, message=message)
        try:
            with (self.output / "result.json").open("rb") as file:
                written: bytes | None = file.read(result.RESULT_LIMIT_BYTES + 1)
        except FileNotFoundError:
            written = None
        stdout, stderr = _tail(self.directory / "stdout"), _tail(self.directory / "stderr")
        return result.judge(exit_code, stdout, written, stderr, self.output.resolve())

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to everything in the simulation's process group; nothing happens where it is gone."""
        if self._wrapper is not None:
            _signal_group(self._wrapper.pid, number)
        claim = self.claim()
        if claim is not None and claim.alive():
            _signal_group(claim.pid, number)

    def forget(self) -> None:
        """Removes everything but the simulation's own output."""
        for name in ("claim", "exit", "exit.new", "stdout", "stderr", "wrapper.log", "config.yaml", "config.new"):
            (self.directory / name).unlink(missing_ok=True)
        if not any(self.output.glob("*")):
            shutil.rmtree(self.directory, ignore_errors=True)


def end_strays(runs: Path) -> None:
    """Ends simulations that no orchestrator watches any more; the next one finds that they vanished."""
    for directory in runs.iterdir() if runs.exists() else ():
        claim = Simulation(directory).claim()
        if claim is not None and claim.alive():
            _signal_group(claim.pid, signal.SIGKILL)


async def _exit_of(wrapper: "subprocess.Popen[bytes]") -> None:
    """Waits for the end of a child, where the system can do so without reaping it."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # kernels before 5.3, and sandboxes, have no pidfd: poll then
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
    while wrapper.poll() is None:  # noqa: ASYNC110 - this system tells of a child's end only in a signal
        await asyncio.sleep(_ADOPTED_POLL_SECONDS)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, when all are zombies
        os.killpg(group, number)


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - result.RESULT_LIMIT_BYTES))
            return file.read()
    except FileNotFoundError:
        return b""

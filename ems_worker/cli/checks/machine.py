"""Checks of this machine: the data directory's disk, the simulator, the worker's health, the versions."""

import contextlib
import http.client
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import shutil
from pathlib import Path

from ems_worker.cli.checks import findings
from ems_worker.cli.checks.findings import Finding

_MIN_FREE_BYTES, _LOW_FREE_BYTES = 100_000_000, 2_000_000_000
_LOW_FREE_SHARE = 0.05
_HEALTH_SECONDS = 2.0
# Words of a command line that look like files of the simulator.
_SCRIPTS = (".py", ".sh", ".r", ".R", ".jl", ".js", ".mjs", ".pl", ".rb", ".lua", ".m", ".jar")


def disk(directory: Path | None) -> Finding:
    """The space left where the platform of this machine keeps its data."""
    if directory is None or not directory.is_dir():
        return findings.unknown("disk", "no data directory on this machine")
    usage = shutil.disk_usage(directory)
    seen = f"{_bytes(usage.free)} of {_bytes(usage.total)} free at {directory}"
    remedy = f"free some space: runs keep their output below {directory}"
    if usage.free < _MIN_FREE_BYTES:
        return findings.failure("disk", seen, remedy)
    if usage.free < _LOW_FREE_BYTES or usage.free < _LOW_FREE_SHARE * usage.total:
        return findings.warning("disk", seen, remedy)
    return findings.ok("disk", seen)


def file_system(directory: Path | None, mounts: Path) -> Finding:
    """Whether the manifest would be on a file system of another machine. `mounts` is /proc/self/mountinfo."""
    from ems_worker.adapters.manifest import place

    if directory is None or not directory.is_dir():
        return findings.unknown("file system", "no data directory on this machine")
    try:
        kind = place.network(mounts.read_text("utf-8", "surrogateescape"), directory.resolve())
    except OSError:
        return findings.unknown("file system", "this system doesn't list its file systems")
    if kind is None:
        return findings.ok("file system", "local")
    return findings.failure(
        "file system",
        f"{directory} is on {kind}, which can damage the manifest",
        "take a directory on a disk of this machine: EMS_DATA_DIR, or ems up --data-dir DIR",
    )


def simulator(command: str | None, directory: Path | None) -> Finding:
    """Whether the program of a command line is there and can be executed, and the scripts that it names are there.

    `directory` is the one in which it is started; None for ours.
    """
    part = "simulator"
    if command is None:
        return findings.unknown(part, "the orchestrator knows it, not this command; --simulator COMMAND checks one")
    try:
        program, *words = shlex.split(command)
    except ValueError as error:
        return findings.failure(part, f"{command!r} can't be read: {error}", "write it as for a shell")
    base = directory or Path.cwd()
    found = _program(program, base)
    if found is None:
        return findings.failure(part, f"there is no program {program!r}", _missing_remedy(program, base))
    if not os.access(found, os.X_OK):
        return findings.failure(part, f"{found} is not executable", f"chmod +x {shlex.quote(str(found))}")
    for word in words:
        if word.endswith(_SCRIPTS) and "{" not in word and not word.startswith("-") and not (base / word).exists():
            return findings.failure(part, f"{program} is there, but no file {word!r} in {base}", "give its whole path")
    return findings.ok(part, command if len(command) <= 60 else f"{command[:57]}...")


def _program(program: str, base: Path) -> Path | None:
    """The file of a program: on PATH, or of this name."""
    if "/" in program:
        path = base / program
        return path if path.is_file() else None
    found = shutil.which(program)
    return None if found is None else Path(found)


def _missing_remedy(program: str, base: Path) -> str:
    if "/" not in program and (base / program).is_file():
        return f"a program in the working directory is named ./{program}"
    return "install it, or give the path of its file"


def health(address: str | None) -> Finding:
    """What a worker at this address (host:port) says of itself."""
    part = "readiness"
    if address is None:
        return findings.unknown(part, "the worker's HTTP port isn't known here")
    host, _, port = address.rpartition(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=_HEALTH_SECONDS)) as connection:
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            troubles = dict(json.loads(answer.read())["troubles"])
        except (OSError, http.client.HTTPException) as error:
            return findings.failure(part, f"no answer at {address}: {error}", "look at the worker's log")
        except (ValueError, KeyError, TypeError):
            return findings.unknown(part, f"another program listens at {address}")
    if not troubles:
        return findings.ok(part, f"http://{address}/readyz reports no problem")
    seen = "; ".join(f"{name}: {problem}" for name, problem in troubles.items())
    return findings.failure(part, seen, "docs/operations.md has what to do about each part")


def versions(server: str | None, worker: str | None) -> Finding:
    """The versions of all that is known."""
    part, ours = "versions", importlib.metadata.version("ems-worker")
    known = [f"ems-worker {ours}", f"Python {platform.python_version()}"]
    known += [f"nats-server {server}"] if server else []
    missing = [
        extra
        for extra, module in (("local", "grpc_health"), ("design", "scipy"))
        if not importlib.util.find_spec(module)
    ]
    seen = ", ".join(known) + (f"; without the extras {', '.join(missing)}" if missing else "")
    if worker is not None and worker != ours:
        return findings.warning(part, f"{seen}; the worker is {worker}", "use one version on both sides")
    return findings.ok(part, seen)


def _bytes(number: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"

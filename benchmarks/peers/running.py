"""Runs the peers: each with its own servers, worker and environment, and one turn at a time."""

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import environments
from benchmarks.environments import Unavailable
from benchmarks.processes import Meter, Turn
from ems_worker.local import ports
from tests.support import servers, wait

_HERE: Final = Path(__file__).parent
_LIMIT_SECONDS: Final = 300


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer that runs: its processes by name, and its driver's command with its environment."""

    processes: Mapping[str, servers.Program | servers.NatsServer]
    driver: list[str]
    env: Mapping[str, str] = field(default_factory=dict)


Running = Callable[[Path, str], contextlib.AbstractAsyncContextManager[Peer]]


@contextlib.asynccontextmanager
async def _faststream(folder: Path, python: str) -> AsyncIterator[Peer]:
    module = [python, "-m", "benchmarks.peers.faststream"]
    async with servers.NatsServer(folder / "nats") as server:
        command = [*module, "worker", server.url]
        async with servers.Program("faststream", command, log=folder / "worker.log") as worker:
            yield Peer({"nats-server": server, "worker": worker}, [*module, "driver", server.url])


@contextlib.asynccontextmanager
async def _huey(folder: Path, python: str) -> AsyncIterator[Peer]:
    env = {"PEER_FILE": str(folder / "huey.db")}
    command = [str(Path(python).with_name("huey_consumer")), "benchmarks.peers.huey.huey"]
    async with servers.Program("huey", command, log=folder / "worker.log", env=env) as worker:
        yield Peer({"worker": worker}, [python, "-m", "benchmarks.peers.huey"], env)


@contextlib.asynccontextmanager
async def _celery(folder: Path, python: str) -> AsyncIterator[Peer]:
    if shutil.which("redis-server") is None:
        raise Unavailable("there is no redis-server (apt-get install redis-server)")
    port = ports.free_port()
    env = {"PEER_URL": f"redis://{ports.LOOPBACK}:{port}/0"}
    kept = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    command = ["redis-server", "--bind", ports.LOOPBACK, "--port", str(port), "--dir", str(folder), *kept]
    async with servers.Program("redis", command, log=folder / "redis.log") as redis:
        await wait.until(lambda: not ports.is_free(port), what="redis-server to listen")
        celery = [str(Path(python).with_name("celery")), "-A", "benchmarks.peers.celery", "worker"]
        celery += ["--concurrency", "2", "--loglevel", "warning"]
        async with servers.Program("celery", celery, log=folder / "worker.log", env=env) as worker:
            yield Peer({"redis-server": redis, "worker": worker}, [python, "-m", "benchmarks.peers.celery"], env)


@contextlib.asynccontextmanager
async def _dask(folder: Path, python: str) -> AsyncIterator[Peer]:
    port = ports.free_port()
    address = f"tcp://{ports.LOOPBACK}:{port}"
    dask = [str(Path(python).with_name("dask"))]
    command = [*dask, "scheduler", "--host", ports.LOOPBACK, "--port", str(port), "--no-dashboard"]
    async with servers.Program("scheduler", command, log=folder / "scheduler.log") as scheduler:
        await wait.until(lambda: not ports.is_free(port), what="the scheduler to listen")
        command = [*dask, "worker", address, "--nworkers", "1", "--nthreads", "1", "--no-dashboard"]
        command += ["--local-directory", str(folder)]
        async with servers.Program("worker", command, log=folder / "worker.log") as worker:
            driver = [python, "-m", "benchmarks.peers.dask", address]
            yield Peer({"scheduler": scheduler, "worker": worker}, driver)


PEERS: Final[Mapping[str, Running]] = {
    "FastStream": _faststream,
    "SqliteHuey": _huey,
    "Celery": _celery,
    "Dask": _dask,
}


async def turn(name: str, jobs: int) -> Turn:
    """One turn of a peer, from the first submission to the last result. Raises Unavailable."""
    short = name.lower().removeprefix("sqlite")
    python = environments.python(short, _HERE / f"{short}.txt")
    with tempfile.TemporaryDirectory() as scratch:
        async with PEERS[name](Path(scratch), str(python)) as peer, asyncio.timeout(_LIMIT_SECONDS):
            return await _driven(peer, jobs)


async def _driven(peer: Peer, jobs: int) -> Turn:
    process = await asyncio.create_subprocess_exec(
        *peer.driver,
        str(jobs),
        env={**os.environ, "PYTHONPATH": str(servers.ROOT), **peer.env},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ready = await process.stdout.readline()
        assert ready == b"ready\n", f"the driver printed {ready!r}: {_last_words(peer)}"
        pids = {each: running.pid for each, running in peer.processes.items()}
        meter = Meter({**pids, "client": process.pid})
        process.stdin.write(b"go\n")
        printed = await process.stdout.readline()
        assert printed, _last_words(peer)
        turn = Turn(jobs, float(printed), meter.read())
        process.stdin.write(b"end\n")
        await process.wait()
        return turn
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _last_words(peer: Peer) -> str:
    programs = [each for each in peer.processes.values() if isinstance(each, servers.Program)]
    return "; ".join(f"{each.name}: {each.last_words()}" for each in programs)


def main() -> int:
    """`python -m benchmarks.peers.running PEER JOBS` measures one turn."""
    found = asyncio.run(turn(sys.argv[1], int(sys.argv[2])))
    costs = ", ".join(f"{name} {found.cpu_us(name):.0f} us" for name in found.processes)
    print(f"{sys.argv[1]}: {found.rate:,.0f} tasks/s; {costs}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

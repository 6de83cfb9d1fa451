"""What the worker costs when it does nothing, and how soon commands start: `python -m benchmarks.resting`."""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import manifests, orchestrator, processes, worker
from tests.support import commands, servers, wait

# What a start leaves to be done is over by then.
_SETTLE_SECONDS = 3.0
# A large manifest consists of so many experiments.
_EXPERIMENTS = 10
_IMPORT = "import time; began = time.perf_counter(); import ems_worker.client; print(time.perf_counter() - began)"


async def idle_percent(seconds: float) -> float:
    """The CPU time of an idle worker, in percent of a core."""
    with tempfile.TemporaryDirectory() as scratch:
        async with worker.started(Path(scratch)) as running:
            await wait.let_pass(_SETTLE_SECONDS)
            used, began = processes.cpu_seconds(running.program.pid), time.perf_counter()
            await wait.let_pass(seconds)
            used = processes.cpu_seconds(running.program.pid) - used
            return 100 * used / (time.perf_counter() - began)


async def ready_seconds(jobs: int, times: int) -> list[float]:
    """From the start of the process until it is ready, with a manifest of so many jobs.

    The manifest has ten live experiments. Half of the jobs of each are completed, and half are pending.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        async with servers.NatsServer(folder / "nats") as server:
            async with (
                orchestrator.started(folder / "complete", server.url) as accepting,
                worker.running(folder, server, accepting) as running,
            ):
                await running.run(worker.plan("half", jobs // _EXPERIMENTS))
            manifests.copy(folder / "data", "half", _EXPERIMENTS - 1, half_done=True)
            ready = []
            # It ends no run, so that each start finds the same.
            async with orchestrator.started(folder / "silent", None, slots=1) as accepting:
                for _ in range(times):
                    async with worker.running(folder, server, accepting) as running:
                        ready.append(running.ready_seconds)
        return ready


def import_seconds(times: int) -> list[float]:
    """The time of `import ems_worker.client`, in new interpreters."""
    command = [sys.executable, "-c", _IMPORT]
    return [
        float(subprocess.run(command, env=commands.environment(), capture_output=True, check=True).stdout)
        for _ in range(times)
    ]


def help_seconds(times: int) -> list[float]:
    """The time of `ems --help` as a whole."""
    return [_elapsed([*worker.command("ems"), "--help"]) for _ in range(times)]


def _elapsed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=commands.environment(), capture_output=True, check=True)
    return time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1_000_000, help="jobs in the manifest that a worker starts with")
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args()
    print(f"import ems_worker.client: {1000 * min(import_seconds(options.times)):.0f} ms at best")
    print(f"ems --help: {1000 * min(help_seconds(options.times)):.0f} ms at best")
    print(f"an idle worker: {asyncio.run(idle_percent(10)):.2f} % of a core")
    ready = asyncio.run(ready_seconds(options.jobs, options.times))
    print(f"start to ready with {options.jobs:,} jobs: {', '.join(f'{each:.2f}' for each in ready)} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`make demo`: a whole platform on this machine runs a plan and shows what came out.

It is `python -m ems_worker.local.demo PLAN`. Results go to stdout, what happens meanwhile to stderr.
"""

import argparse
import asyncio
import contextlib
import shlex
import shutil
import sys
import time
from pathlib import Path

from ems_worker import client, errors
from ems_worker.local import platform, process, results, up
from ems_worker.terminal import streams

_DIRECTORY = Path("demo-data")
_MANIFEST_SECONDS = 10.0
_POLL_SECONDS = 0.05
_OK, _FAILED, _INTERRUPTED = 0, 1, 130


def main() -> int:
    """0 when every job completed, 130 after Ctrl-C, 1 for anything else, with the reason on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m ems_worker.local.demo",
        description="Runs a plan on a platform of its own and shows the results.",
    )
    parser.add_argument("plan", type=Path, help="the plan, e.g. examples/reef_heat.yaml")
    streams.guard()
    given = parser.parse_args()
    try:
        code = up.until_told(_demo(given.plan))
    except errors.EmsError as failed:
        streams.say(f"error: {failed}")
        return _FAILED
    if code is None:
        streams.say("interrupted; everything is stopped")
        return _INTERRUPTED
    return code


async def _demo(plan: Path) -> int:
    began = time.monotonic()
    _wipe(_DIRECTORY)
    async with platform.Platform(platform.Options(_DIRECTORY), streams.say) as here:
        keeping = asyncio.create_task(here.watch())
        try:
            code = await _run(plan, here.addresses)
        finally:
            keeping.cancel()
        streams.say("stopping everything")
    if code == _OK:
        took = time.monotonic() - began
        streams.out(
            f"\nEverything is stopped again, after {took:.0f} s. Your own plan, your own simulator: see README.md."
        )
    return code


async def _run(plan: Path, at: platform.Addresses) -> int:
    """Publishes the plan with the command that anybody would use, follows it to its end, shows and exports it."""
    command = [str(plan), "--wait", "--server", at.nats_url]
    streams.say(f"$ ems-publish {shlex.join(command)}")
    if code := await _command("publish", *command):
        streams.say(f"error: ems-publish ended with exit code {code}; the platform's logs are in {_DIRECTORY}/logs")
        return _FAILED
    async with client.EmsClient(at.nats_url) as ems:
        # The platform is new: there is one experiment.
        [experiment_id] = [one["experiment_id"] async for one in ems.experiments()]
        table = results.rows(await ems.get(experiment_id), [point async for point in ems.points(experiment_id)])
    streams.out(f"\n{experiment_id}: what came out, the best first\n")
    results.show(table)

    exported = _DIRECTORY / f"{experiment_id}.csv"
    code = await _command("ems", "export", experiment_id, "--output", str(exported), "--server", at.nats_url)
    jsonl = _DIRECTORY / "worker" / f"{experiment_id}.manifest.jsonl"
    if code or not await _appears(jsonl):
        streams.say(f"error: the exports are missing; the platform's logs are in {_DIRECTORY}/logs")
        return _FAILED
    runs = _DIRECTORY / "orchestrator" / "runs"
    simulations = sum(1 for _ in runs.glob("*/exit"))
    streams.out(
        f"\n{simulations} simulation processes ran. What they left:\n"
        f"  manifest (SQLite)   {_DIRECTORY / 'worker' / 'manifest.db'}\n"
        f"  a line a job, JSON  {jsonl}\n"
        f"  a line a job, CSV   {exported}\n"
        f"  time series         {runs}/*/output/*.csv"
    )
    return _OK


async def _command(module: str, *arguments: str) -> int:
    """Runs one of the real commands with our terminal as its own; its exit code."""
    running = await asyncio.create_subprocess_exec(sys.executable, "-P", "-m", f"ems_worker.cli.{module}", *arguments)
    try:
        return await running.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            running.terminate()
        await running.wait()
        raise


async def _appears(path: Path) -> bool:
    """Whether the worker leaves this file: it does so right after the experiment's last status."""
    deadline = time.monotonic() + _MANIFEST_SECONDS
    while not path.exists():  # noqa: ASYNC240 - a look at a local directory
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def _wipe(directory: Path) -> None:
    """Empties what an earlier demo left. Raises PlatformFailed for a directory that no platform made, or one in use."""
    if not directory.exists():
        return
    lock = directory / "lock"
    if not lock.exists() and any(directory.iterdir()):
        raise process.PlatformFailed(f"{directory} is not from an earlier demo, which would be wiped: move it away")
    with process.lock(lock, "platform"):
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != lock:
                entry.unlink()


if __name__ == "__main__":
    sys.exit(main())

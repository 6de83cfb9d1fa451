"""Implements `make demo`: starts a whole platform on this machine, runs a plan on it and shows the results.

Run it as `python -m ems_worker.local.demo PLAN`. It prints results on stdout and progress on stderr.
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
from ems_worker.local import platform, process, stopping
from ems_worker.terminal import streams

_DIRECTORY = Path("demo-data")
_MANIFEST_SECONDS = 10.0
_POLL_SECONDS = 0.05
_OK, _FAILED, _INTERRUPTED = 0, 1, 130


def main() -> int:
    """Runs the demo. Returns 0 if every job completed, 130 after Ctrl-C, otherwise 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m ems_worker.local.demo",
        description="Starts a platform, runs a plan on it and shows the results.",
    )
    parser.add_argument("plan", type=Path, help="the plan, e.g. examples/reef_heat.yaml")
    streams.guard()
    given = parser.parse_args()
    try:
        code = stopping.run_until_signal(lambda: _demo(given.plan))
    except errors.EmsError as failed:
        streams.say(f"error: {failed}")
        return _FAILED
    if code is None:
        streams.say("interrupted; everything is stopped")
        return _INTERRUPTED
    return code


async def _demo(plan: Path) -> int:
    began = time.monotonic()
    _empty(_DIRECTORY)
    async with platform.Platform(platform.Options(_DIRECTORY, continues=False), streams.say) as running:
        watching = asyncio.create_task(running.watch())
        try:
            code = await _run(plan, running.addresses)
        finally:
            watching.cancel()
        streams.say("stopping everything")
    if code == _OK:
        seconds = time.monotonic() - began
        streams.out(
            f"\nEverything is stopped again, after {seconds:.0f} s. "
            "To run your own plan or your own simulator, see README.md."
        )
    return code


async def _run(plan: Path, at: platform.Addresses) -> int:
    """Publishes the plan by the public command, follows it to its end, and shows and exports the results."""
    command = [str(plan), "--wait", "--server", at.nats_url]
    streams.say(f"$ ems-publish {shlex.join(command)}")
    if code := await _command("publish", *command):
        streams.say(f"error: ems-publish ended with exit code {code}; the platform's logs are in {_DIRECTORY}/logs")
        return _FAILED
    async with client.EmsClient(at.nats_url) as ems:
        # The platform is new, so this is its only experiment.
        [experiment_id] = [experiment["experiment_id"] async for experiment in ems.experiments()]
    show = ["show", experiment_id, "-n", "0", "--server", at.nats_url]
    streams.say(f"\n$ ems {shlex.join(show)}")
    if await _command("ems", *show):
        streams.say(f"error: the results can't be shown; the platform's logs are in {_DIRECTORY}/logs")
        return _FAILED

    exported = _DIRECTORY / f"{experiment_id}.csv"
    code = await _command("ems", "results", experiment_id, "--output", str(exported), "--server", at.nats_url)
    jsonl = _DIRECTORY / "worker" / f"{experiment_id}.manifest.jsonl"
    if code or not await _appears(jsonl):
        streams.say(f"error: the exports are missing; the platform's logs are in {_DIRECTORY}/logs")
        return _FAILED
    runs = _DIRECTORY / "orchestrator" / "runs"
    simulations = sum(1 for _ in runs.glob("*/exit"))
    streams.out(
        f"\n{simulations} simulation processes ran. Their results:\n"
        f"  manifest (SQLite)         {_DIRECTORY / 'worker' / 'manifest.db'}\n"
        f"  one JSON object per job   {jsonl}\n"
        f"  one CSV row per job       {exported}\n"
        f"  time series of the runs   {runs}/*/output/*.csv"
    )
    return _OK


async def _command(module: str, *arguments: str) -> int:
    """Runs one of the public commands on our terminal; returns its exit code."""
    command = await asyncio.create_subprocess_exec(sys.executable, "-P", "-m", f"ems_worker.cli.{module}", *arguments)
    try:
        return await command.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            command.terminate()
        await command.wait()
        raise


async def _appears(path: Path) -> bool:
    """Waits for a file that the worker writes right after the last status of the experiment; False if it is missing."""
    deadline = time.monotonic() + _MANIFEST_SECONDS
    while not path.exists():  # noqa: ASYNC240 - checking a local file is fast
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def _empty(directory: Path) -> None:
    """Deletes the files of an earlier demo. Raises PlatformFailed if the directory is not of a demo, or in use."""
    if not directory.exists():
        return
    lock = directory / "lock"
    if not lock.exists() and any(directory.iterdir()):
        raise process.PlatformFailed(
            f"{directory} is not from an earlier demo, and the demo deletes everything in it: move it away"
        )
    with process.lock(lock, "platform"):
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != lock:
                entry.unlink()


if __name__ == "__main__":
    sys.exit(main())

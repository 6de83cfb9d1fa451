"""`ems-worker prune`: removes old experiments, and the files of old runs of the local orchestrator."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ems_worker import errors
from ems_worker.adapters import files
from ems_worker.cli import exits, export, numbers, shell
from ems_worker.cli.formats import Format
from ems_worker.core import ids
from ems_worker.settings import Settings

if TYPE_CHECKING:
    from ems_worker import client

Document = dict[str, Any]


def run(settings: Settings, seconds: float, *, dry_run: bool, json: bool) -> exits.Exit:
    """Removes what ended longer ago than this, experiments once they have a manifest file."""
    before = time.time() - seconds
    would = "would delete" if dry_run else "deleted"
    code = exits.Exit.OK
    orchestrator = _local_orchestrator(settings.data_dir)
    if orchestrator is not None:
        from ems_worker.local.orchestrator import pruning

        try:
            pruned = pruning.prune(orchestrator, int(before * 1e9), dry_run=dry_run)
        except sqlite3.Error as failed:
            shell.say(f"error: {orchestrator / 'orchestrator.db'} can't be read: {failed}")
            code = exits.Exit.FAILED
        else:
            runs = orchestrator / "runs"
            if json:
                shell.out_json({"directory": str(runs), "runs": pruned.runs, "bytes": pruned.bytes})
            else:
                of = f"the files of {numbers.counted(pruned.runs, 'run')} ({numbers.size(pruned.bytes)})"
                shell.out(f"{would} {of} in {runs}")
    return asyncio.run(_experiments(settings, before, dry_run=dry_run, json=json)) or code


async def _experiments(settings: Settings, before: float, *, dry_run: bool, json: bool) -> exits.Exit:
    from ems_worker import client

    limit = f"{datetime.fromtimestamp(before, UTC):%Y-%m-%dT%H:%M:%SZ}"
    count, code = 0, exits.Exit.OK
    try:
        async with client.EmsClient(settings.access, notice=shell.say) as ems:
            # Listed before the first removal.
            old = [status async for status in _ended(ems, limit)]
            for status in old:
                try:
                    if not dry_run:
                        await _keep(ems, settings.exports, status["experiment_id"])
                    await ems.remove(
                        status["experiment_id"], reason=f"pruned: it ended before {limit}", dry_run=dry_run
                    )
                except (errors.RequestRefused, errors.NotFound) as refused:
                    shell.say(f"error: {refused}")
                    code = exits.Exit.FAILED
                else:
                    count += 1
                    if json:
                        shell.out_json({name: status[name] for name in ("experiment_id", "finished_at")})
                        continue
                    finished = status["finished_at"][:10]
                    shell.out(f"{'would remove' if dry_run else 'removed'} {status['experiment_id']}, ended {finished}")
    except (errors.BrokerUnavailable, errors.WorkerUnavailable) as away:
        shell.say(f"error: no experiments were removed, because the running worker does that: {away}")
        return exits.of(away)
    if not count and not code and not json:
        shell.out(f"no experiment ended before {limit}")
    return code


async def _ended(ems: "client.EmsClient", limit: str) -> AsyncIterator[Document]:
    async with contextlib.aclosing(ems.experiments()) as statuses:
        async for status in statuses:
            # It becomes the name of a file here.
            if not ids.EXPERIMENT_ID.fullmatch(status["experiment_id"]):
                continue
            # Times are in UTC and of one format.
            if status["finished_at"] is not None and status["finished_at"] < limit:
                yield status


async def _keep(ems: "client.EmsClient", directory: Path, experiment_id: str) -> None:
    """Writes the manifest file of an experiment; one that is there may be older than the last change."""
    file = files.manifest_file(directory, experiment_id)
    details = await ems.get(experiment_id)
    async with contextlib.aclosing(ems.jobs(experiment_id)) as jobs:
        await export.write(jobs, details, Format.JSONL, file)


def _local_orchestrator(data_dir: Path) -> Path | None:
    """The directory of the local orchestrator, where `data_dir` is that of `ems up`, or of its worker."""
    for directory in (data_dir, data_dir.absolute().parent):
        if (directory / "orchestrator" / "orchestrator.db").is_file():
            return directory / "orchestrator"
    return None

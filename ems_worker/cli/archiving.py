"""Writes an experiment into a .tar.gz file: what the worker knows of it, and if wanted the files of its runs."""

import contextlib
import io
import json
import os
import secrets
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ems_worker import errors
from ems_worker.cli import downloading, exits, shell

if TYPE_CHECKING:
    from ems_worker import client
    from ems_worker.adapters.orchestrator.output import Outputs

Document = Mapping[str, Any]

# A member up to this size is collected in memory.
_SPOOL_BYTES = 1024 * 1024


@dataclass(slots=True)
class Written:
    """What an archive has."""

    jobs: int = 0
    files: int = 0


async def write(ems: "client.EmsClient", experiment_id: str, target: Path, outputs: "Outputs | None") -> Written:
    """Writes the archive. Raises exits.Misused if the file exists or can't be written."""
    details = await ems.get(experiment_id)
    written = Written()
    with _created(target) as archive:
        root = f"{experiment_id}/"
        _add(archive, f"{root}experiment.json", json.dumps(details, ensure_ascii=False, indent=1).encode())
        for version in range(1, details["plan_version"] + 1):
            plan = await ems.plan(experiment_id, version=version)
            suffix = "json" if plan.lstrip().startswith("{") else "yaml"
            name = "plan" if version == details["plan_version"] else f"plan.v{version}"
            _add(archive, f"{root}{name}.{suffix}", plan.encode())
        _add(archive, f"{root}base.json", (await ems.plan(experiment_id, part="base")).encode())
        await _add_lines(archive, f"{root}points.jsonl", ems.points(experiment_id))
        submitted: list[str] = []

        async def attempts() -> AsyncIterator[Document]:
            async with contextlib.aclosing(ems.jobs(experiment_id, attempts=True)) as jobs:
                async for job in jobs:
                    written.jobs += 1
                    if outputs is not None and job["submitted_at"] is not None:
                        submitted.append(job["simulation_id"])
                    yield job

        await _add_lines(archive, f"{root}runs.jsonl", attempts())
        for run in submitted if outputs is not None else ():
            assert outputs is not None
            try:
                await _add_files(archive, f"{root}files/", run, outputs=outputs, written=written)
            except errors.NotFound:
                shell.say(f"the orchestrator no longer knows {run}")
    return written


async def _add_files(archive: tarfile.TarFile, folder: str, run: str, *, outputs: "Outputs", written: Written) -> None:
    async with contextlib.aclosing(outputs.files(run)) as files:
        async for file in files:
            place = downloading.place(Path(folder), run, file.path) if file.path else None
            if place is None:
                continue
            with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
                limit = None
                async with contextlib.aclosing(outputs.artifact(run, file.path)) as parts:
                    async for part in parts:
                        # The first part's: a size that grows with each part is no limit.
                        limit = max(file.size, part.size) if limit is None else limit
                        if spool.tell() + len(part.data) > limit:
                            raise errors.RequestRefused(f"{run} {file.path}: more was sent than the file has")
                        spool.write(part.data)
                _add_spool(archive, str(place), spool, modified=file.modified_ns / 1e9)
            written.files += 1


async def _add_lines(archive: tarfile.TarFile, name: str, documents: AsyncIterator[Document]) -> None:
    with tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as spool:
        async for document in documents:
            spool.write(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        _add_spool(archive, name, spool)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    _add_spool(archive, name, io.BytesIO(content), size=len(content))


def _add_spool(
    archive: tarfile.TarFile, name: str, spool: IO[bytes], *, modified: float = 0.0, size: int | None = None
) -> None:
    member = tarfile.TarInfo(name)
    member.size = spool.tell() if size is None else size
    member.mtime = int(modified)
    spool.seek(0)
    archive.addfile(member, spool)


@contextlib.contextmanager
def _created(target: Path) -> Iterator[tarfile.TarFile]:
    """A new archive, which gets its name when it is complete."""
    # The directory may be one that others can write to: nobody can prepare a file or a link of this name.
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        if os.path.lexists(target):
            raise exits.Misused(f"{target} exists, and an archive never overwrites a file: name another with -o")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
                yield archive
            # Unlike replace, this fails if another file has the name by now.
            os.link(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as failed:
        raise exits.Misused(f"{target} can't be written: {failed.strerror}") from failed

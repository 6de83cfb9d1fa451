"""Copies the manifest at an interval, and keeps the last copies."""

import asyncio
import contextlib
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

import structlog

from ems_worker import errors, ticks
from ems_worker.adapters.manifest import Manifest, copies
from ems_worker.settings import private

log = structlog.get_logger()

# How many copies are kept.
KEPT: Final = 7
_LOOK_SECONDS = 60.0
_PATTERN: Final = "manifest-*.db"


class Backups:
    """The copies in a directory: one every `interval` seconds, each checked."""

    def __init__(self, manifest: Manifest, directory: Path, interval: float) -> None:
        self._manifest = manifest
        self._directory = directory
        self._interval = interval

    async def run(self) -> NoReturn:
        """Takes a copy whenever the last one is old enough, without end. A failure is logged and tried again."""
        while True:
            if self._is_due(time.time()):
                await self.take()
            await ticks.wait(_LOOK_SECONDS)

    async def take(self) -> Path | None:
        """Takes a copy, and deletes the oldest ones; None if that failed."""
        target = self._directory / f"manifest-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db"
        try:
            await asyncio.to_thread(private.directory, self._directory)
            await self._manifest.backup(target)
            contents = await copies.inspect(target)
        except (errors.FileUnwritable, errors.ManifestUnusable) as failed:
            with contextlib.suppress(OSError):
                target.unlink(missing_ok=True)
            log.error("manifest.backup_failed", reason=str(failed))
            return None
        log.info("manifest.backed_up", path=str(target), experiments=contents.experiments, runs=contents.runs)
        for old in self._copies()[:-KEPT]:
            with contextlib.suppress(OSError):
                old.unlink()
        return target

    def _is_due(self, now: float) -> bool:
        """Whether the last copy is older than the interval, or from the future: the clock was set back."""
        copied = self._copies()
        if not copied:
            return True
        with contextlib.suppress(OSError):
            return not 0 <= now - copied[-1].stat().st_mtime < self._interval
        return True

    def _copies(self) -> list[Path]:
        """The copies, the oldest first: their names are in the order of their times."""
        return sorted(self._directory.glob(_PATTERN))

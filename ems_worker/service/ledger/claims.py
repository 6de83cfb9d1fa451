"""Claims: due runs of experiments become submitting, which is on disk before their commands are sent."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from ems_worker.core.lifecycle.run import Run
from ems_worker.core.records import PointRecord
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import DueJobs, Manifest
from ems_worker.service.ledger.active import ActiveExperiments
from ems_worker.service.ledger.live import Live
from ems_worker.service.ledger.turn import Turn

Claim = tuple[Live, Run, PointRecord]


class Claims:
    """Claims runs of several experiments in one commit."""

    def __init__(
        self,
        *,
        manifest: Manifest,
        active: ActiveExperiments,
        clock: Clock,
        turn: Callable[[], AbstractAsyncContextManager[Turn]],
    ) -> None:
        self._manifest = manifest
        self._active = active
        self._clock = clock
        self._turn = turn

    async def claim(self, shares: Mapping[int, int]) -> Sequence[Claim]:
        """Moves due runs to submitting, up to its share of each experiment; returns them once that is on disk.

        No run is claimed of an experiment that isn't running, is failing fast, or is being cancelled.
        """
        claimed: list[Claim] = []
        async with self._turn() as turn:
            now_ms = self._clock.now_ms()
            claimed_ms = self._active.claim_time(now_ms)
            for key, due in (await self._due(shares, now_ms)).items():
                # Asked again: a change may have been recorded meanwhile, and nothing is claimed after its reply.
                if (live := self._startable(key)) is None:
                    continue
                for stored, point in due:
                    known = self._active.keep(key, stored)
                    config_sha = live.template.config_sha(point.params, known.current.seed)
                    if (submitting := turn.claim(live, known, config_sha, claimed_ms)) is not None:
                        claimed.append((live, submitting, point))
        return claimed

    async def _due(self, shares: Mapping[int, int], now_ms: int) -> Mapping[int, DueJobs]:
        """The due runs of each experiment, up to its share. Most shares are equal, and those are read together."""
        keys_of: dict[int, list[int]] = {}
        for key, share in shares.items():
            if self._startable(key) is not None:
                keys_of.setdefault(share, []).append(key)
        due: dict[int, DueJobs] = {}
        for share, keys in keys_of.items():
            if len(keys) == 1:
                due[keys[0]] = await self._manifest.due(keys[0], now_ms, share)
            else:
                due |= await self._manifest.due_of(keys, now_ms, share)
        return due

    def _startable(self, key: int) -> Live | None:
        live = self._active.get(key)
        return live if live is not None and live.starts_runs else None

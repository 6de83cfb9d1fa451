"""What experiments demand of the run window, so that a choice of runs looks only at experiments that get room.

How many runs are due is in the manifest. As long as the claims of an experiment find as many runs as they ask for, the
pending jobs of its tally stand for that; only after a claim that found fewer are its due runs counted. An experiment of
which none is due is put aside until one is, or until the experiment changes.
"""

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from math import inf

from ems_worker.core.lifecycle import schedule
from ems_worker.core.lifecycle.schedule import Demand
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import Manifest
from ems_worker.service.base.versions import Versions
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live


class Demands:
    """The demands of the experiments in memory. Each change of one has to be reported, once it is on disk."""

    def __init__(self, *, ledger: Ledger, manifest: Manifest, clock: Clock, versions: Versions) -> None:
        self._ledger = ledger
        self._manifest = manifest
        self._clock = clock
        self._versions = versions
        self._line = schedule.Line()
        self._changed: set[int] = set()
        self._all_changed = True
        # Experiments whose last claim found fewer runs than it asked for.
        self._doubtful: set[int] = set()
        # Experiments whose due runs were counted for the present choice, and how far: it may be that more are due.
        self._counted: dict[int, float] = {}
        # Of experiments without due runs, when the next one is due, if any is; and these times, earliest first.
        self._aside: dict[int, int | None] = {}
        self._due: list[tuple[int, int]] = []

    def changed(self, key: int) -> None:
        """Looks at the experiment again at the next choice."""
        self._changed.add(key)

    def all_changed(self) -> None:
        """Looks at every experiment again at the next choice: the model version or due times have changed."""
        self._all_changed = True

    async def shares(self, room: int) -> Mapping[int, int]:
        """How many runs each experiment may claim now, by schedule.allot; `room` is what the run window has left.

        A claim may find fewer: see `claimed`.
        """
        self._changed |= self._counted.keys()
        self._refresh()
        while True:
            shares = self._line.shares(room)
            unknown = {
                key: share
                for key, share in shares.items()
                if key in self._doubtful and share > self._counted.get(key, 0)
            }
            if not unknown:
                return shares
            # Twice as far as needed now: shares grow when others turn out to be too large.
            await self._count([*unknown], 2 * max(unknown.values()))
            self._refresh()

    def claimed(self, shares: Mapping[int, int], found: Mapping[int, int]) -> bool:
        """Notes how many runs the claims of these shares found; returns whether all found as many as they asked for.

        If they didn't, there may be room for others.
        """
        short = {key for key, share in shares.items() if found.get(key, 0) < share}
        for key in short & self._counted.keys():
            # What is on disk is behind: a commit is under way, which will be reported as a change.
            self._put_aside(key, None)
        self._doubtful -= shares.keys()
        self._doubtful |= short
        self._changed |= short - self._aside.keys()
        return not short

    def next_due_ms(self, after_ms: int) -> int | None:
        """The earliest time after `after_ms` at which a run is due of an experiment that had no due run."""
        self._rouse(after_ms)
        while self._due and self._aside.get(self._due[0][1]) != self._due[0][0]:
            heappop(self._due)
        return self._due[0][0] if self._due else None

    def _refresh(self) -> None:
        """Brings the line up to date."""
        if self._all_changed:
            self._all_changed = False
            self._changed |= self._line.experiments | {live.key for live in self._ledger.experiments()}
        self._rouse(self._clock.now_ms())
        changed, self._changed = self._changed, set()
        for key in changed:
            self._aside.pop(key, None)
            self._counted.pop(key, None)
            live = self._ledger.get(key)
            if live is None or not live.starts_runs or self._versions.waiting(live.plan) is not None:
                self._line.remove(key)
                self._doubtful.discard(key)
            else:
                self._line.put(_demand(live, live.tally.pending))

    def _rouse(self, now_ms: int) -> None:
        """Looks again at the experiments that have a due run by now."""
        while self._due and self._due[0][0] <= now_ms:
            due_ms, key = heappop(self._due)
            if self._aside.get(key) == due_ms:
                self._changed.add(key)

    async def _count(self, keys: Sequence[int], limit: int) -> None:
        """Counts the due runs of experiments up to a limit. Changes reported meanwhile are looked at after it."""
        for key, due in (await self._manifest.due_counts(keys, self._clock.now_ms(), limit)).items():
            live = self._ledger.get(key)
            if live is None or not due.runs:
                self._put_aside(key, due.next_ms)
            elif due.runs < limit:
                self._counted[key] = inf
                self._line.put(_demand(live, due.runs))
            else:
                self._counted[key] = limit

    def _put_aside(self, key: int, due_ms: int | None) -> None:
        """Takes an experiment out of the line until it changes, or until this time."""
        self._line.remove(key)
        self._counted.pop(key, None)
        self._aside[key] = due_ms
        if due_ms is not None:
            heappush(self._due, (due_ms, key))


def _demand(live: Live, due: int) -> Demand:
    limits = live.limits
    return Demand(live.key, live.open, due, limits.max_concurrent, limits.priority)

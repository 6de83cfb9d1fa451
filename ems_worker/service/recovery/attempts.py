"""A restored manifest gets the attempts at its jobs of which events tell."""

from collections import defaultdict
from collections.abc import Iterable

from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import RunKey


class AttemptReplay:
    """Adds attempts that began since the backup (`core.lifecycle.restored`)."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def add(self, simulation_ids: Iterable[str]) -> None:
        """Adds those of these runs that the manifest lacks, if their jobs are those of an open experiment."""
        by_experiment: dict[int, list[RunKey]] = defaultdict(list)
        for key in (await self._ledger.find(dict.fromkeys(simulation_ids))).values():
            if key[3] > 1:
                by_experiment[key[0]].append(key)
        for experiment_key, keys in by_experiment.items():
            live = self._ledger.get(experiment_key)
            if live is not None and not live.ended:
                await self._ledger.judging.begin_attempts(live, keys)

"""A restored manifest numbers the ends of its jobs after those that were published since the backup."""

from collections import defaultdict
from collections.abc import Mapping

from ems_worker import errors
from ems_worker.core import ids
from ems_worker.core.wire import PublishedResult
from ems_worker.service.base.ports import Broker
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import RunKey

# How many results are compared in one commit.
_BATCH = 100


class ResultReplay:
    """Compares the ends of jobs with published results (`core.lifecycle.restored`)."""

    def __init__(self, ledger: Ledger, broker: Broker) -> None:
        self._ledger = ledger
        self._broker = broker

    async def catch_up(self, after_seq: int) -> None:
        """Compares all results that are stored after this sequence. Raises errors.BrokerUnavailable."""
        batch: dict[str, PublishedResult] = {}
        async for result in self._broker.results(after_seq):
            batch[result.simulation_id] = result
            if len(batch) == _BATCH:
                await self._compare(batch)
                batch = {}
        await self._compare(batch)

    async def _compare(self, batch: Mapping[str, PublishedResult]) -> None:
        by_experiment: dict[str, dict[RunKey, PublishedResult]] = defaultdict(dict)
        for name, key in (await self._ledger.find(batch)).items():
            parsed = ids.parse_simulation_id(name)
            assert parsed is not None  # it was found
            by_experiment[parsed.experiment_id][key] = batch[name]
        for experiment_id, results in by_experiment.items():
            try:
                async with self._ledger.pinned(experiment_id) as live:
                    if live is not None:
                        await self._ledger.judging.catch_up(live, results)
            except errors.PlanNotReadAsAccepted as error:
                self._ledger.mark_unreadable(experiment_id, error)

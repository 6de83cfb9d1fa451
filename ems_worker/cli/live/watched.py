"""What the live screen shows, and how it is kept up to date without burdening the worker."""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ems_worker import errors
from ems_worker.cli import failures, views
from ems_worker.core.lifecycle.experiment import ENDED, ExperimentState

if TYPE_CHECKING:
    from ems_worker import client

Document = dict[str, Any]

# The shortest time between two questions of a kind. After an answer that took long, the next question waits for twenty
# times as long: whoever watches takes at most a twentieth of what the worker's queries can do.
PAUSE_SECONDS = 1.0
_PAUSE_FACTOR = 20.0
# How many running jobs, points and experiments are read at most. With more points only the best one is shown, which the
# status has.
MOST_RUNNING = 64
MOST_POINTS = 20_000
MOST_EXPERIMENTS = 200
# How many of the best points are kept.
BEST = 50
_OPEN = tuple(state for state in ExperimentState if state not in ENDED)


@dataclass(slots=True)
class Experiment:
    """What is known of an experiment. `details` is its `ems.api.get` document, `status` its latest status."""

    details: Document
    status: Document
    running: Sequence[Document] = ()
    reasons: Sequence[failures.Reason] = ()
    best: Sequence[Document] = ()
    # The counts when reasons and points were last read: they are read again only if these have changed.
    reasons_at: object = None
    best_at: object = None
    # Set when it has ended.
    over: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Screen:
    """What is on the screen: several experiments, or one. `changed` is called when there is something new to draw."""

    changed: Callable[[], None]
    listed: Sequence[Document] = ()
    chosen: str | None = None
    experiment: Experiment | None = None
    message: str = ""
    # Why what is shown may be old: the worker or the broker doesn't answer.
    trouble: str = ""
    question: str = ""

    def tell(self, message: str) -> None:
        """Shows a message until the next one."""
        self.message = message
        self.changed()

    async def answered(self, ask: Callable[[], Awaitable[None]]) -> bool:
        """Asks; whether there was an answer. Otherwise the screen stays as it is and says that nobody answers."""
        try:
            await ask()
            self.trouble = ""
        except (errors.NoAnswer, errors.BrokerUnavailable, errors.WorkerUnavailable) as error:
            self.trouble = str(error)
        self.changed()
        return not self.trouble


async def follow_one(ems: "client.EmsClient", screen: Screen, experiment_id: str, *, stays: bool) -> None:
    """Keeps one experiment up to date until it has ended; if it `stays` on the screen, until all of it is final."""
    # What we ask for by its id is what was asked for, whatever an answer says.
    details = {**await ems.get(experiment_id), "experiment_id": experiment_id}
    shown = screen.experiment = Experiment(details, details)
    screen.changed()
    async with asyncio.TaskGroup() as group:
        asking = [
            group.create_task(_repeat(screen, shown, functools.partial(ask, ems, shown)))
            for ask in (_running, _reasons, _best)
        ]
        await _statuses(ems, screen, shown)
        shown.over.set()
        if not stays:
            for task in asking:
                task.cancel()


async def follow_all(ems: "client.EmsClient", screen: Screen, group: str | None) -> None:
    """Keeps the list of experiments up to date, without end: those that are open, then the latest others."""

    async def ask() -> None:
        screen.listed = await listed(ems, group)

    while True:
        began = _now()
        await screen.answered(ask)
        await asyncio.sleep(max(PAUSE_SECONDS, _PAUSE_FACTOR * (_now() - began)))


async def listed(ems: "client.EmsClient", group: str | None, *, ended: bool = True) -> list[Document]:
    """The open experiments, then the latest of the others if they are wanted."""
    found: dict[str, Document] = {}
    for state in (*_OPEN, *([None] if ended else [])):
        async with contextlib.aclosing(ems.experiments(group=group, state=state)) as experiments:
            async for status in experiments:
                found.setdefault(status["experiment_id"], status)
                if len(found) >= (MOST_EXPERIMENTS if state is not None else BEST):
                    break
    return list(found.values())


async def _statuses(ems: "client.EmsClient", screen: Screen, shown: Experiment) -> None:
    async with contextlib.aclosing(ems.watch(shown.details["experiment_id"])) as statuses:
        async for status in statuses:
            shown.status = status
            screen.changed()


async def _repeat(screen: Screen, shown: Experiment, ask: Callable[[], Awaitable[None]]) -> None:
    """Asks again and again; the last time after the experiment has ended."""
    while True:
        began, ended = _now(), shown.over.is_set()
        if await screen.answered(ask) and ended:
            return
        pause = max(PAUSE_SECONDS, _PAUSE_FACTOR * (_now() - began))
        if ended:
            await asyncio.sleep(pause)
            continue
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await shown.over.wait()


async def _running(ems: "client.EmsClient", shown: Experiment) -> None:
    """The runs that are running, those that run longest first."""
    found: list[Document] = []
    if shown.status["counts"].get("running"):
        async with contextlib.aclosing(ems.jobs(shown.details["experiment_id"], state="running")) as jobs:
            async for job in jobs:
                found.append(job)
                if len(found) == MOST_RUNNING:
                    break
    shown.running = sorted(found, key=lambda job: str(job["started_at"] or "~"))


async def _reasons(ems: "client.EmsClient", shown: Experiment) -> None:
    counts = {name: number for name, number in shown.status["counts"].items() if name in failures.STATES}
    if counts != shown.reasons_at:
        shown.reasons = await failures.gather(ems, shown.status)
        shown.reasons_at = counts


async def _best(ems: "client.EmsClient", shown: Experiment) -> None:
    """The best points by the mean of the metric that has a goal; without a goal, nothing."""
    best = shown.status["best"]
    counted = best, shown.status["counts"].get("completed"), shown.status.get("excluded")
    if best is None or shown.details["points"] > MOST_POINTS or counted == shown.best_at:
        return
    shown.best = await views.points_of(ems, {**shown.details, "best": best}, BEST, ranked=True)
    shown.best_at = counted


def _now() -> float:
    return asyncio.get_running_loop().time()

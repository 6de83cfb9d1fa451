"""Experiments of eight jobs, brought into each phase in which people steer them, and what happens to them afterwards.

States of jobs are written as letters, which `tests/service/steering_table.txt` explains.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ems_worker.core import ids
from ems_worker.core.lifecycle.run import Run, Waiting
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.service.ledger.live import Live
from tests.support.desk import Desk, plan

JOBS = 8
# More points than this are expanded in several chunks.
CHUNK = 4
_METRICS = ["population", {"name": "growth", "from": "event", "timeout_seconds": 100_000}]
_LETTERS = {
    RunState.PENDING: "p",
    RunState.SUBMITTING: "s",
    RunState.SUBMITTED: "s",
    RunState.RUNNING: "r",
    RunState.COMPLETED: "C",
    RunState.FAILED: "F",
    RunState.CANCELLED: "X",
    RunState.LOST: "L",
}
# After this many rounds everything has come to rest.
_MAX_ROUNDS = 12


@dataclass
class Phase:
    """How an experiment gets into a phase.

    `plan`: what its plan says besides. `expand`: how many jobs are expanded at least. `ends`: how the first runs end,
    by point: a letter. `verbs`: the requests then. `rest`: whether it comes to rest before the request of the test.
    """

    plan: Mapping[str, Any] = field(default_factory=dict)
    expand: int = JOBS
    ends: str = ""
    verbs: Sequence[tuple[str, Mapping[str, Any]]] = ()
    rest: bool = False


_MIXED = "CFIrwa"
_LIMITS = {"max_attempts": 2, "max_failed": 2}
PHASES: Mapping[str, Phase] = {
    "accepted": Phase(expand=0),
    "expanding": Phase(expand=CHUNK, ends="s"),
    "running": Phase(ends=_MIXED),
    "paused": Phase(ends=_MIXED, verbs=[("pause", {})]),
    "held": Phase({"hold": True}),
    "held and paused": Phase({"hold": True}, verbs=[("pause", {})]),
    "paused now": Phase(ends=_MIXED, verbs=[("pause", {"now": True})]),
    "cancelling": Phase(ends=_MIXED, verbs=[("cancel", {})]),
    "draining": Phase(ends=_MIXED, verbs=[("cancel", {"drain": True})]),
    "kept open": Phase({"keep_open": True}, ends=_MIXED, rest=True),
    "kept open and paused": Phase({"keep_open": True}, ends="CFICCCCC", verbs=[("pause", {})], rest=True),
    "completed": Phase(ends=_MIXED, rest=True),
    "partly excluded": Phase(ends=_MIXED, verbs=[("exclude", {"where": "point < 2"})], rest=True),
    "failed": Phase(ends="FFFIICCC", rest=True),
    "dropped": Phase({"limits": {"max_attempts": 2, "max_failed": 0, "fail_fast": True}}, ends="Fr", rest=True),
    "cancelled": Phase(ends=_MIXED, verbs=[("cancel", {})], rest=True),
}


async def arrange(desk: Desk, phase: Phase, experiment_id: str) -> None:
    """Brings a new experiment into this phase."""
    defaults = {"metrics_to_track": _METRICS, "limits": _LIMITS}
    await desk.submit(plan(experiment_id, points=JOBS, **{**defaults, **phase.plan}))
    live = desk.ledger.live(experiment_id)
    assert live is not None
    while live.record.expanded_points < phase.expand:
        await desk.expander.expand(live)
    for name, end in zip(await desk.launch(live, len(phase.ends)), phase.ends, strict=True):
        await _end(desk, name, end)
    await desk.report(experiment_id)
    for verb, request in phase.verbs:
        await desk.steer(verb, experiment_id, request_id=f"{experiment_id} before", **request)
    await desk.suspension.check()
    await desk.services.executor.finish(live)
    await desk.report(experiment_id)
    if phase.rest:
        await rest(desk, experiment_id)
    # A worker that dies now would else send runs again that are submitted in this phase.
    await desk.ledger.flush()


async def rest(desk: Desk, experiment_id: str) -> None:
    """Lets everything happen to an experiment that still can: runs end, those that are to be stopped by their STOP."""
    before: Any = None
    for _ in range(_MAX_ROUNDS):
        desk.clock.seconds += 5
        live = desk.ledger.live(experiment_id)
        if live is not None:
            await _round(desk, live)
            await desk.report(experiment_id)
        await desk.services.executor.publisher.publish()
        now = await seen(desk, experiment_id), len(desk.broker.published)
        if now == before:
            return
        before = now
    raise AssertionError(f"{experiment_id} doesn't come to rest: {before}")


async def _round(desk: Desk, live: Live) -> None:
    while live.expands:
        await desk.expander.expand(live)
        await desk.services.executor.step(live)
    await desk.services.executor.finish(live)
    await desk.launch(live)
    await desk.suspension.check()
    await desk.limits.check()
    for key, owner, run in desk.ledger.open_runs():
        name = ids.simulation_id(live.experiment_id, *key[1:])
        if owner is live and name in desk.orchestrator.stops:
            await desk.hear("failed", name, error_kind="stopped")
        elif owner is live and not run.suspended:
            await desk.hear("completed", name, metrics={"population": 1, "growth": 2})
    for row in await desk.rows(live.experiment_id):
        if row.run.waiting is Waiting.AWAITING:
            name = ids.simulation_id(live.experiment_id, row.run.point, row.run.replicate, row.run.attempt)
            await desk.hear("metrics", name, metrics={"growth": 2})
    await desk.services.executor.finish(live)


async def seen(desk: Desk, experiment_id: str) -> str:
    """The state of an experiment, and its jobs' letters, in the manifest."""
    record = await desk.manifest.experiment(experiment_id)
    assert record is not None
    current = {row.run.point: row.run for row in await desk.rows(experiment_id) if row.run.current}
    letters = "".join(_letter(current[point]) if point in current else "." for point in range(record.spec.points))
    return f"{record.state} {letters}"


def results(desk: Desk, experiment_id: str) -> Mapping[tuple[int, int], Mapping[str, Any]]:
    """The published results by point and revision. Raises AssertionError if two of the same revision differ."""
    published: dict[tuple[int, int], Mapping[str, Any]] = {}
    for result in desk.broker.of("result"):
        if result["experiment_id"] == experiment_id:
            key = result["point"], result["job_revision"]
            assert published.setdefault(key, result) == result, f"two results of {key}"
    return published


def changes(desk: Desk, experiment_id: str) -> Mapping[str, list[Mapping[str, Any]]]:
    """The published documents of changes by request, each message once, as the broker keeps it."""
    messages = {
        name: document
        for _, document, name in desk.broker.published
        if document["schema"] == "ems.change.v1" and document["experiment_id"] == experiment_id
    }
    by_request: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for document in messages.values():
        by_request[document["request_id"]].append(document)
    return by_request


async def _end(desk: Desk, name: str, end: str) -> None:
    """Has an open run end, or go on, as the letter says."""
    kinds = {"F": "simulation", "I": "infeasible", "a": "infrastructure"}
    if end in kinds:
        await desk.hear("failed", name, error_kind=kinds[end])
    elif end == "r":
        await desk.hear("started", name)
    elif end in "wC":
        await desk.hear("completed", name, metrics={"population": 1, **({"growth": 2} if end == "C" else {})})


def _letter(current: Run) -> str:
    letter = _LETTERS[current.state]
    if current.waiting is not None:
        letter = "w" if current.waiting is Waiting.AWAITING else "F"
    elif current.state is RunState.FAILED and current.error_kind == "infeasible":
        letter = "I"
    elif current.state is RunState.PENDING and current.attempt > 1:
        letter = "a"
    return letter if current.excluded is None else f"{letter}!"

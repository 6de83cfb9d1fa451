"""States and numbers that never go back from one moment to a later one; part of docs/invariants.md."""

from ems_worker.core.lifecycle import transitions
from ems_worker.core.lifecycle.transitions import RunState
from tests.support.evidence import Evidence

# A run moves only to states of a higher rank.
RANK = {
    RunState.PENDING: 0,
    RunState.SUBMITTING: 1,
    RunState.SUBMITTED: 2,
    RunState.RUNNING: 3,
    RunState.LOST: 4,
    RunState.COMPLETED: 5,
    RunState.FAILED: 5,
    RunState.CANCELLED: 5,
}
# Numbers of an experiment that never decrease.
NUMBERS = ("round", "revision", "published_revision", "ended_seq", "published_seq", "expanded_points")


def check(before: Evidence, after: Evidence) -> None:
    """Raises AssertionError if a rank, an end, a revision or a cursor is lower in `after` than in `before`."""
    states = {row["simulation_id"]: row["state"] for row in after.runs}
    problems = []
    for row in before.runs:
        was, now = RunState(row["state"]), RunState(states.get(row["simulation_id"], "pending"))
        final = was in transitions.TERMINAL and was is not RunState.LOST
        if now is not was and (final or RANK[now] <= RANK[was]):
            problems.append(f"{row['simulation_id']} was {was} and is {now}")
    for old, new in zip(before.experiments, after.experiments, strict=False):
        problems += [f"{old['experiment_id']}: {name} went back" for name in NUMBERS if new[name] < old[name]]
    assert not problems, "\n".join(problems[:20])

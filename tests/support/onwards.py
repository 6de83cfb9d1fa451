"""What never goes back between two moments, whatever happens between them: part of docs/invariants.md."""

from ems_worker.core.lifecycle import transitions
from ems_worker.core.lifecycle.transitions import RunState
from tests.support.evidence import Evidence

# A run only ever moves to a state of a higher rank.
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
# Numbers of an experiment that never fall.
NUMBERS = ("round", "revision", "published_revision", "ended_seq", "published_seq", "expanded_points")


def check(before: Evidence, after: Evidence) -> None:
    """Raises AssertionError where something went back between two moments: ranks, ends, revisions, cursors."""
    states = {row["simulation_id"]: row["state"] for row in after.runs}
    found = []
    for row in before.runs:
        was, now = RunState(row["state"]), RunState(states.get(row["simulation_id"], "pending"))
        stands = was in transitions.TERMINAL and was is not RunState.LOST
        if now is not was and (stands or RANK[now] <= RANK[was]):
            found.append(f"{row['simulation_id']} was {was} and is {now}")
    for old, new in zip(before.experiments, after.experiments, strict=False):
        found += [f"{old['experiment_id']}: {name} went back" for name in NUMBERS if new[name] < old[name]]
    assert not found, "\n".join(found[:20])

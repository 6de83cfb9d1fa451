"""What a story draws: plans and requests, wrong ones among them."""

import random
from collections.abc import Callable, Mapping
from typing import Any

from tests.support import whole

GROUP = "study"
_LARGE = 400
# Conditions that don't depend on how far a job is, with their meaning for (point, replicate): food n is of point n.
STATIC: Mapping[str, Callable[[int, int], bool]] = {
    "food < 4": lambda point, replicate: point < 4,
    "food >= 6": lambda point, replicate: point >= 6,
    "point >= 6": lambda point, replicate: point >= 6,
    "replicate == 1": lambda point, replicate: replicate == 1,
    "food == 1 or replicate == 0": lambda point, replicate: point == 1 or replicate == 0,
}
_WHERE = (
    *STATIC,
    'state == "failed"',
    'state == "cancelled"',
    'state == "pending" and food > 4',
    'state == "running" or state == "submitted"',
    'error_kind == "infeasible"',
    'label.gen == "1"',
    "attempt > 1",
)
_WRONG = ("fod < 4", "food <", 'state == "gone"', 'host < 3 and state == "x"')
_VERBS: Mapping[str, int] = {
    "pause": 4,
    "resume": 5,
    "cancel": 6,
    "retry": 4,
    "set": 2,
    "close": 2,
    "exclude": 4,
    "include": 3,
    "extend": 5,
}


def plan(rng: random.Random, experiment_id: str) -> dict[str, Any]:
    """A plan of a few jobs, or now and then of some hundreds."""
    points, replicates = rng.randrange(4, 11), rng.choice((1, 2, 3))
    if rng.random() < 0.1:
        points, replicates = 2200, 2
    limits: dict[str, Any] = {"max_attempts": rng.choice((1, 2, 3)), "run_timeout_seconds": rng.choice((2, 4))}
    limits["max_failed"] = rng.choice((0, 3, "50%", "100%"))
    if rng.random() < 0.2:
        limits["fail_fast"] = True
    if rng.random() < 0.3:
        limits["max_concurrent"] = rng.choice((1, 4))
    made = whole.plan(experiment_id, points, replicates, limits=limits, labels={"gen": str(rng.randrange(3))})
    if rng.random() < 0.5:
        made["group"] = GROUP
    for key, chance in (("hold", 0.15), ("keep_open", 0.15)):
        if rng.random() < chance:
            made[key] = True
    if rng.random() < 0.3:
        stragglers = rng.choice(("cancel", "keep"))
        quorum = rng.choice(("50%", 3, "90%"))
        made["settle"] = {"quorum": quorum, "grace_seconds": rng.choice((0, 0.3)), "stragglers": stragglers}
    return made


def is_large(made: Mapping[str, Any]) -> bool:
    """Whether the plan has so many jobs that a story can't wait for them."""
    return len(made["parameter_space"]["food"]) >= _LARGE


def request(rng: random.Random, plans: Mapping[str, Mapping[str, Any]], number: int) -> tuple[str, dict[str, Any]]:
    """A verb and the body of a request. `plans` are those that were published, by their experiments' ids."""
    names = list(plans)
    [verb] = rng.choices(list(_VERBS), list(_VERBS.values()))
    body: dict[str, Any] = {"request_id": f"request-{number}"}
    if rng.random() < 0.15:
        body["group"] = GROUP
    else:
        body["experiment_id"] = rng.choice(names) if rng.random() < 0.97 else "nobody"
    if verb == "extend":
        body |= _extension(rng, plans[body["experiment_id"]] if body.get("experiment_id") in plans else None)
    if verb in ("cancel", "retry", "exclude", "include") and rng.random() < (0.7 if verb == "cancel" else 0.6):
        body["where"] = rng.choice(_WHERE)
    if verb == "pause" and rng.random() < 0.3:
        body["now"] = True
    if verb == "cancel" and rng.random() < 0.3:
        body["drain"] = True
    if verb == "set":
        body |= rng.choice(({"priority": 5}, {"max_concurrent": 2}, {"max_failed": "100%"}, {"max_concurrent": None}))
    if rng.random() < 0.1:
        body["dry_run"] = True
    if rng.random() < 0.06:
        body |= rng.choice(({"where": rng.choice(_WRONG)}, {"wear": 1}, {"expect_revision": 1_000_000}))
    return verb, body


def _extension(rng: random.Random, published: Mapping[str, Any] | None) -> dict[str, Any]:
    """More replicates, more values, or a whole plan: with more points, with others, or with what can't be changed."""
    draw = rng.random()
    if published is None or draw < 0.3:
        return {"replicates": rng.randrange(2, 5)}
    if draw < 0.6:
        return {"add": {"food": [rng.randrange(20, 24), rng.randrange(30, 34)]}}
    values = [*range(rng.randrange(2, 9)), *rng.sample(range(40, 46), 2)]
    if draw < 0.7:
        return {"plan": {**published, "metrics_to_track": ["score"]}}
    return {"plan": {**published, "parameter_space": {"food": values}}, "withdraw": rng.random() < 0.6}

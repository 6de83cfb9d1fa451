"""What a client lists whose worker knows some experiments, for commands that look up what people name."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from ems_worker import client


def status(experiment_id: str, **changes: Any) -> dict[str, Any]:
    """The status of an experiment that runs."""
    plain: dict[str, Any] = {
        "experiment_id": experiment_id,
        "experiment_name": f"the {experiment_id}",
        "group": None,
        "tags": [],
        "state": "running",
        "round": 1,
        "counts": {"pending": 2, "completed": 2},
        "total": 4,
        "progress": 0.5,
        "throughput": 0.0,
        "eta_seconds": None,
        "created_at": "2026-11-28T10:00:00.000Z",
        "started_at": "2026-11-28T10:00:01.000Z",
        "finished_at": None,
        "reason": None,
        "pauses": [],
        "publisher": None,
    }
    return {**plain, **changes}


async def experiments(
    listed: Sequence[dict[str, Any]], *, like: str | None = None, **which: Any
) -> AsyncGenerator[dict[str, Any], None]:
    """What `EmsClient.experiments` yields of these, newest first. It filters by `like` and `group`."""
    assert which.keys() <= client.Which.__annotations__.keys()
    for one in listed:
        is_like = like is None or one["experiment_id"].startswith(like) or one["experiment_name"] == like
        if is_like and which.get("group") in (None, one["group"]):
            yield one

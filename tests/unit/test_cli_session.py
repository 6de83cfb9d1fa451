"""What keys do on the live screen, with a client that returns fixed documents and records changes."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from ems_worker import client, errors
from ems_worker.cli.live import session, watched


def status(name: str, **changes: Any) -> dict[str, Any]:
    counts = {"running": 2, "completed": 1}
    return {"experiment_id": name, "state": "running", "counts": counts, "total": 3, "pauses": [], **changes}


class Ems(client.EmsClient):
    """A client of two experiments. `problem` is raised by each question, if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[tuple[str, str | None]] = []
        self.problem: errors.EmsError | None = None
        self.asked = 0

    async def experiments(self, **_: Any) -> AsyncGenerator[dict[str, Any], None]:
        self.asked += 1
        if self.problem is not None:
            raise self.problem
        for name in ("first", "second"):
            yield status(name)

    async def _changed(self, verb: str, experiment_id: str | None) -> dict[str, Any]:
        self.changes.append((verb, experiment_id))
        if self.problem is not None:
            raise self.problem
        return {"experiment_id": experiment_id, "refused": False, "changed": False, "dry_run": False, "reason": "so"}

    async def pause(self, experiment_id: str | None = None, **_: Any) -> dict[str, Any]:
        return await self._changed("pause", experiment_id)

    async def resume(self, experiment_id: str | None = None, **_: Any) -> dict[str, Any]:
        return await self._changed("resume", experiment_id)

    async def cancel(self, experiment_id: str | None = None, **_: Any) -> dict[str, Any]:
        return await self._changed("cancel", experiment_id)


async def pressed(shown: session.Session, *keys: str) -> None:
    """Presses keys, and lets what they began end."""
    for key in keys:
        shown.press(key)
        for _ in range(5):
            await asyncio.sleep(0)


async def listed(ems: Ems) -> session.Session:
    """A session that shows the list."""
    shown = session.Session(ems)
    shown.shown.listed = await watched.listed(ems, None)
    shown.shown.chosen = "first"
    return shown


async def test_a_change_is_about_the_chosen_experiment() -> None:
    """The outcome is shown as a sentence."""
    ems = Ems()
    shown = await listed(ems)
    await pressed(shown, "down", "p")
    assert ems.changes == [("pause", "second")]
    assert shown.shown.message == "second: nothing changed: so"
    await pressed(shown, "up", "up", "p")
    assert ems.changes[1:] == [("pause", "first")]


async def test_a_paused_experiment_is_resumed_by_the_same_key() -> None:
    """As the line of keys says."""
    ems = Ems()
    shown = await listed(ems)
    shown.shown.listed = [status("first", pauses=["person"])]
    await pressed(shown, "p")
    assert ems.changes == [("resume", "first")]


@pytest.mark.parametrize(("answer", "changes"), [("y", [("cancel", "first")]), ("n", []), ("q", []), ("c", [])])
async def test_only_yes_cancels(answer: str, changes: list[tuple[str, str]]) -> None:
    """Every other key is no, and means nothing else while the question is there."""
    ems = Ems()
    shown = await listed(ems)
    await pressed(shown, "c")
    assert shown.shown.question == "cancel first and its 2 open jobs?"
    await pressed(shown, answer)
    assert (shown.shown.question, ems.changes) == ("", changes)


async def test_what_has_ended_is_not_changed() -> None:
    """The person is told."""
    ems = Ems()
    shown = await listed(ems)
    shown.shown.listed = [status("first", state="completed")]
    await pressed(shown, "p", "c")
    assert (ems.changes, shown.shown.message, shown.shown.question) == ([], "first has ended", "")


async def test_a_refused_change_is_told() -> None:
    """The screen goes on."""
    ems = Ems()
    shown = await listed(ems)
    ems.problem = errors.RequestRefused("not yours")
    await pressed(shown, "p")
    assert shown.shown.message == "error: not yours"


async def fail(error: errors.EmsError) -> None:
    raise error


async def test_that_nobody_answers_is_told_as_long_as_it_lasts() -> None:
    """What was there before stays on the screen."""
    news: list[None] = []
    screen = watched.Screen(lambda: news.append(None))
    screen.listed = [status("first")]
    assert not await screen.answered(lambda: fail(errors.WorkerUnavailable("no worker answers")))
    assert (screen.trouble, len(screen.listed), len(news)) == ("no worker answers", 1, 1)
    assert await screen.answered(lambda: asyncio.sleep(0))
    assert screen.trouble == ""
    with pytest.raises(errors.NotFound):
        await screen.answered(lambda: fail(errors.NotFound("no such experiment")))


async def test_open_experiments_come_first_and_none_twice() -> None:
    """Then the latest of all."""
    ems = Ems()
    assert [one["experiment_id"] for one in await watched.listed(ems, None)] == ["first", "second"]
    assert ems.asked == 4


class Ended(Ems):
    """A client of an experiment that ends at once, and how often its points were read."""

    points_read = 0

    async def get(self, experiment_id: str) -> dict[str, Any]:
        return {**status(experiment_id), "points": 1, "parameters": {}, "best": None}

    async def watch(self, experiment_id: str) -> AsyncGenerator[dict[str, Any], None]:
        best = {"metric": "score", "goal": "maximize"}
        for _ in range(5):
            await asyncio.sleep(0)
        yield {**status(experiment_id, state="completed"), "best": best}

    async def points(self, experiment_id: str) -> AsyncGenerator[dict[str, Any], None]:
        self.points_read += 1
        yield {"point": 0, "metrics": {"score": {"mean": 1.0}}}

    async def jobs(self, experiment_id: str, **_: Any) -> AsyncGenerator[dict[str, Any], None]:
        yield {"simulation_id": "r", "started_at": None}


@pytest.mark.parametrize("stays", [True, False])
async def test_the_last_questions_are_asked_when_the_experiment_has_ended(stays: bool) -> None:
    """At once, not after the pause; and only if the experiment stays on the screen."""
    ems, screen = Ended(), watched.Screen(lambda: None)
    async with asyncio.timeout(watched.PAUSE_SECONDS / 2):
        await watched.follow_one(ems, screen, "first", stays=stays)
    assert screen.experiment is not None
    assert screen.experiment.status["state"] == "completed"
    assert (ems.points_read, len(screen.experiment.best)) == ((1, 1) if stays else (0, 0))

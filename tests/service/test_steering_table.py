"""Every verb in every phase of an experiment: the reply, what follows, also when asked twice, and after every death.

What is expected is in `steering_table.txt`.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker import errors
from ems_worker.service import expand
from ems_worker.service.base import crash
from tests.support import phases
from tests.support.desk import Clock, Desk
from tests.support.played import Broker
from tests.support.world import DiedError

# The requests of the table.
_MOST, _SOME = {"where": "point != 7"}, {"where": 'state == "cancelled" or error_kind == "infeasible"'}
_FIRST = {"where": "point < 2"}
REQUESTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "pause": ("pause", {}),
    "pause now": ("pause", {"now": True}),
    "resume": ("resume", {}),
    "cancel": ("cancel", {}),
    "cancel drain": ("cancel", {"drain": True}),
    "cancel most": ("cancel", _MOST),
    "drain most": ("cancel", {"drain": True, **_MOST}),
    "retry": ("retry", {}),
    "retry some": ("retry", _SOME),
    "exclude": ("exclude", {}),
    "exclude some": ("exclude", _FIRST),
    "include": ("include", {}),
    "include some": ("include", _FIRST),
    "extend": ("extend", {"add": {"food": [phases.JOBS]}}),
    "set": ("set", {"priority": 7}),
    "close": ("close", {}),
}


@dataclass(frozen=True)
class Line:
    """A line of the table. `reply` is "refused" if the request is."""

    phase: str
    request: str
    reply: str
    rest: str

    @property
    def changes(self) -> bool:
        return self.reply.startswith("yes")

    @property
    def stays_open(self) -> bool:
        """Whether the change waits for what only another request can bring."""
        return self.rest.endswith(" open")


def _table() -> tuple[Mapping[str, str], list[Line]]:
    """How experiments stand in each phase, and the lines of the table."""
    begins: dict[str, str] = {}
    lines: list[Line] = []
    phase = ""
    for text in Path(__file__).with_name("steering_table.txt").read_text().splitlines():
        if "|" in text:
            request, reply, rest = (part.strip() for part in text.split("|"))
            lines.append(Line(phase, request, reply, rest))
        elif text and not text.startswith("#"):
            phase, begins[phase] = text.split(": ")
    return begins, lines


BEGINS, TABLE = _table()
# What is tried in `make test` with every death; `make test-long` tries all.
MORTAL = {("running", "cancel most"), ("cancelled", "retry some")}


@pytest.fixture(autouse=True)
def small_chunks() -> Iterator[None]:
    with patch.object(expand, "_RUNS_PER_CHUNK", phases.CHUNK):
        yield


def test_the_table_is_complete() -> None:
    """Each phase that differs in kind has a line for every request."""
    whole = {"accepted", "expanding", "running", "paused", "held", "paused now", "cancelling", "draining"}
    whole |= {"kept open", "completed", "failed", "cancelled"}
    for phase in whole:
        assert {line.request for line in TABLE if line.phase == phase} == {*REQUESTS}
    assert {*BEGINS} == {*phases.PHASES}


@pytest.mark.parametrize("phase", phases.PHASES)
async def test_a_verb_does_what_the_table_says(tmp_path: Path, phase: str) -> None:
    """Also if it is asked twice, which gets the same change; the change is closed, and each result published once."""
    async with Desk.open(tmp_path) as desk:
        for line in [line for line in TABLE if line.phase == phase]:
            name = line.request.replace(" ", "-")
            await phases.arrange(desk, phases.PHASES[phase], name)
            assert await phases.seen(desk, name) == BEGINS[phase]
            reply = await _ask(desk, line, name)
            replies = [_short(reply), _short(await _ask(desk, line, name))]
            await phases.rest(desk, name)
            assert replies == [line.reply, line.reply], line
            await _check(desk, line, name)


async def test_a_condition_is_refused_where_a_verb_is_about_the_whole_experiment(tmp_path: Path) -> None:
    """Nothing is recorded or published then."""
    async with Desk.open(tmp_path) as desk:
        for verb, more in (("pause", {}), ("resume", {}), ("set", {"priority": 1}), ("close", {})):
            await phases.arrange(desk, phases.PHASES["running"], verb)
            with pytest.raises(errors.RequestRefused, match="where"):
                await desk.steer(verb, verb, where="point < 2", **more)
            assert phases.changes(desk, verb) == {}


@pytest.mark.parametrize("phase", phases.PHASES)
async def test_a_dry_run_says_what_would_happen(tmp_path: Path, phase: str) -> None:
    """The same as the reply of the request itself says, but for `applied`; and it changes and publishes nothing."""
    async with Desk.open(tmp_path) as desk:
        await phases.arrange(desk, phases.PHASES[phase], "reef")
        published = len(desk.broker.published)
        for line in [line for line in TABLE if line.phase == phase]:
            verb, request = REQUESTS[line.request]
            said = "refused"
            with contextlib.suppress(errors.RequestRefused):
                said = _short(await desk.steer(verb, "reef", dry_run=True, **request))
            # Jobs that aren't expanded are known to be cancelled: a dry run counts them.
            assert _unapplied(said, line) == _unapplied(line.reply, line), line
        assert await phases.seen(desk, "reef") == BEGINS[phase]
        assert len(desk.broker.published) == published


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(line, marks=[] if (line.phase, line.request) in MORTAL else pytest.mark.long)
        for line in TABLE
        if line.changes
    ],
    ids=lambda line: f"{line.phase}-{line.request}",
)
async def test_a_death_at_any_point_changes_nothing_in_the_end(tmp_path: Path, line: Line) -> None:
    """Whoever asks gets no answer then, and asks again after the restart."""
    mortal = _Mortal(tmp_path)
    undisturbed = await mortal.tell(line, "undisturbed", None)
    for number, point in enumerate(dict.fromkeys(mortal.passed)):
        assert await mortal.tell(line, f"death-{number}", point) == undisturbed, point


class _Mortal:
    """Workers that die at named points, one after another on the same manifest."""

    def __init__(self, directory: Path) -> None:
        self.passed: list[str] = []
        self._directory = directory
        self._clock = Clock()
        self._broker = Broker()
        self._dies_at: str | None = None

    async def tell(self, line: Line, name: str, dies_at: str | None) -> Any:
        """What came of a request during which the worker dies; `name` is the experiment's id."""
        async with self._life() as desk:
            await phases.arrange(desk, phases.PHASES[line.phase], name)
            self.passed, self._dies_at = [], dies_at
            with patch.object(crash, "point", self._point):
                try:
                    await _ask(desk, line, name)
                    await phases.rest(desk, name)
                except* DiedError:
                    pass
        assert self._dies_at is None, f"{dies_at} isn't passed"
        async with self._life() as desk:
            await _ask(desk, line, name)
            await phases.rest(desk, name)
            await _check(desk, line, name)
            results = phases.results(desk, name).values()
            rows = await desk.rows(name)
            return (
                {(result["point"], result["job_revision"], result["state"]) for result in results},
                [(row.run.point, row.run.attempt, row.run.state, row.run.stop_reason) for row in rows],
            )

    @contextlib.asynccontextmanager
    async def _life(self) -> AsyncIterator[Desk]:
        async with Desk.open(self._directory, self._clock, self._broker) as desk:
            await desk.submitter.resend(desk.unsent)
            await desk.intake.publish_decisions()
            for live in desk.ledger.experiments():
                desk.reporter.notify(live.key)
            yield desk

    def _point(self, name: str, about: str = "") -> None:
        self.passed.append(name)
        if name == self._dies_at:
            self._dies_at = None
            raise DiedError(name)


async def _ask(desk: Desk, line: Line, name: str) -> Mapping[str, Any] | None:
    """The reply to the request of a line; None if it is refused."""
    verb, request = REQUESTS[line.request]
    try:
        return await desk.steer(verb, name, request_id=f"{name}-{line.request}", **request)
    except errors.RequestRefused:
        return None


def _short(reply: Mapping[str, Any] | None) -> str:
    """A reply as the table has it."""
    if reply is None:
        return "refused"
    counts = reply["counts"]
    pairs = [
        f"{before}>{after}:{jobs}"
        for before, to in sorted((counts or {}).items())
        for after, jobs in sorted(to.items())
    ]
    shown = "?" if counts is None else " ".join(pairs) or "-"
    words = "yes" if reply["changed"] else "no", reply["state"], shown, "applied" if reply["applied"] else "open"
    return " ".join(words)


def _unapplied(reply: str, line: Line) -> str:
    """A reply without its last word, without counts where the table has none, and without an end that it caused."""
    words = reply.split()
    ends = line.changes and line.reply.split()[1] in ("completed", "failed", "cancelled")
    return " ".join([words[0], *words[1 + ends : 2 if "?" in line.reply else -1]])


async def _check(desk: Desk, line: Line, name: str) -> None:
    """Compares an experiment that has come to rest with the table, and its documents with the rules for all."""
    assert await phases.seen(desk, name) == line.rest.removesuffix(" open"), line
    documents = phases.changes(desk, name).get(f"{name}-{line.request}", [])
    expected = [] if line.reply == "refused" else [False] if line.stays_open else [False, True]
    assert [document["applied"] for document in documents] == expected, line
    results = phases.results(desk, name)
    last = [status for status in desk.broker.statuses if status["experiment_id"] == name][-1]
    jobs = line.rest.split()[1].replace("!", "")
    assert last["state"] == line.rest.split()[0], line
    assert (last["total"], last["counts"]["completed"]) == (len(jobs), jobs.count("C")), line
    for row in await desk.rows(name):
        run = row.run
        if run.current and run.ended_seq is not None:
            revisions = sorted(revision for point, revision in results if point == run.point)
            assert revisions == [*range(1, run.job_revision + 1)], (line, run)
            assert results[run.point, run.job_revision]["excluded"] == run.excluded, (line, run)

"""The outside program of a story: it publishes plans, requests changes, and keeps what it was answered."""

import asyncio
import contextlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import nats
import nats.errors

from tests.support import stage, story_left, story_requests, wait, whole

Answer = Mapping[str, Any]


@dataclass
class Asked:
    """A request and its answers, each with how many restores there had been. `refused`: the words of refusals."""

    verb: str
    body: dict[str, Any]
    members: tuple[str, ...]
    answers: list[tuple[int, Answer]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def dry(self) -> bool:
        return bool(self.body.get("dry_run"))


@dataclass
class Ban:
    """No run of this experiment may arrive at the orchestrator from line `since` of its log up to line `until`.

    `experiment_id`: None for all. `under_way`: runs whose commands may have been sent before. `why`: the verb or the
    state that forbids it. `where`: only the jobs for which this condition holds.
    """

    experiment_id: str | None
    why: str
    since: int
    under_way: frozenset[str]
    where: str | None = None
    until: int | None = None

    def forbids(self, simulation_id: str) -> bool:
        """Whether it is about this run."""
        name, point, replicate, _ = simulation_id.rsplit("-", 3)
        if self.experiment_id not in (None, name) or simulation_id in self.under_way:
            return False
        return self.where is None or story_requests.STATIC[self.where](int(point[1:]), int(replicate[1:]))


# The verbs after which runs may start again.
_LIFTS: Mapping[str, frozenset[str]] = {
    "cancel": frozenset({"retry", "extend"}),
    # A paused experiment may end by its open runs; reopened, it isn't paused.
    "pause": frozenset({"resume", "cancel", "retry", "extend"}),
    "hold": frozenset({"resume", "cancel", "retry", "extend"}),
    # Only `resume` with `all`.
    "held worker": frozenset(),
}


class Desk:
    """Draws what is published and requested, and does it over plain NATS."""

    def __init__(self, theatre: stage.Stage, rng: random.Random, *, held: bool = False) -> None:
        """`held`: each worker starts on hold."""
        self._stage = theatre
        self._rng = rng
        self._held = held
        self.plans: dict[str, dict[str, Any]] = {}
        self.asked: list[Asked] = []
        self.bans: list[Ban] = []
        self.lines: list[str] = []
        self.restores = 0
        # The longest that an answer took, in seconds.
        self.slowest = 0.0
        self._sending: list[list[Asked]] = []
        self._began = asyncio.get_running_loop().time()

    def log(self, line: str) -> None:
        self.lines.append(f"{asyncio.get_running_loop().time() - self._began:7.2f} {line}")

    def restored(self) -> None:
        self.restores += 1

    def worker_starts(self) -> None:
        """A worker is about to start."""
        if self._held:
            self._lift_hold()
            self.bans.append(Ban(None, "held worker", len(self.calls()), self._under_way()))

    async def resume_all(self) -> None:
        """Has a worker that is on hold start runs."""
        if not self._held:
            return
        self._lift_hold()
        body = json.dumps({"request_id": "all", "all": True}).encode()
        reply = await self._request("ems.api.resume", body, 6)
        self.log(f"resume all -> {reply}")

    def _lift_hold(self) -> None:
        for ban in self.bans:
            if ban.why == "held worker" and ban.until is None:
                ban.until = len(self.calls())

    async def publish(self) -> None:
        """Publishes a plan, new or again."""
        if self.plans and self._rng.random() < 0.15:
            plan = self._rng.choice(list(self.plans.values()))
        else:
            plan = story_requests.plan(self._rng, f"s{len(self.plans)}")
        name = plan["experiment_id"]
        if plan.get("hold") and name not in self.plans:
            self.bans.append(Ban(name, "hold", 0, frozenset()))
        self.plans[name] = plan
        self.log(f"publish {json.dumps(plan)}")
        await self._stage.publish(plan)
        if self._rng.random() < 0.7:
            with contextlib.suppress(AssertionError):  # the worker may be down
                await wait.until(lambda: self._known(name), timeout=2)

    async def ask(self) -> None:
        """Sends some requests, one after another or together."""
        many = self._rng.choice((1, 1, 2, 3, 4))
        if self._rng.random() < 0.3:
            await asyncio.gather(*(self._ask() for _ in range(many)))
        else:
            for _ in range(many):
                await self._ask()

    async def _ask(self) -> None:
        """Sends a request: a new one, one that was sent before, or one that is wrong."""
        sent = [asked for asked in self.asked if not asked.refused]
        if sent and self._rng.random() < 0.12:
            asked = self._rng.choice(sent)
        else:
            verb, body = story_requests.request(self._rng, self.plans, len(self.asked))
            members = tuple(self.plans) if "group" in body else (body["experiment_id"],)
            asked = Asked(verb, body, members)
            self.asked.append(asked)
        if self._rng.random() < 0.1:
            await asyncio.gather(self.send(asked), self.send(asked))
        else:
            await self.send(asked)

    async def send(self, asked: Asked, timeout: float = 6) -> Answer | None:
        """Sends a request and keeps the answer; None if there was none in time."""
        fresh = not asked.answers
        # Of those that are under way with it, nobody knows the order.
        unordered = self._under_way_too(asked)
        if not asked.dry:
            self._lift(asked)
        text = f"{asked.verb} {json.dumps(asked.body)}"
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            reply = await self._request(f"ems.api.{asked.verb}", json.dumps(asked.body).encode(), timeout)
        finally:
            self._sending = [others for others in self._sending if others is not unordered]
        self.slowest = max(self.slowest, loop.time() - began if reply is not None else 0.0)
        if reply is None:
            self.log(f"{text} -> no answer")
            return None
        headers, data = reply
        if "Nats-Service-Error" in headers:
            asked.refused.append(headers["Nats-Service-Error"])
            self.log(f"{text} -> refused: {headers['Nats-Service-Error']}")
            return None
        answer: Answer = json.loads(data)
        self.log(f"{text} -> {data.decode()} ({loop.time() - began:.2f} s)")
        for each in answer.get("changes", [answer]):
            asked.answers.append((self.restores, each))
            if fresh and not asked.dry:
                self._ban(asked, each, unordered)
        return answer

    def _under_way_too(self, asked: Asked) -> list[Asked]:
        """A list of the request and all others that are under way together with it; more may come."""
        together = [asked, *(other[0] for other in self._sending)]
        for others in self._sending:
            others.append(asked)
        self._sending.append(together)
        return together

    async def all_ended(self, timeout: float) -> None:
        """Resumes, closes and cancels what doesn't end by itself, until all has ended and is published.

        After half the time everything is cancelled: while most runs fail, few are started.
        """
        loop = asyncio.get_running_loop()
        patience = loop.time() + timeout / 2
        for number, (name, plan) in enumerate(self.plans.items()):
            if story_requests.is_large(plan):
                await self._insist("cancel", name, f"end-{number}")

        async def ended() -> bool:
            running = self._stage.worker.running
            assert running, f"the worker ended with {self._stage.worker.exit_code}: {self._stage.worker.last_words()}"
            query = (
                "SELECT experiment_id, pauses, kept_open, round, revision FROM experiments WHERE finished_ms IS NULL"
            )
            for name, pauses, kept_open, round_, revision in self._rows(query):
                if pauses:
                    await self._insist("resume", name, f"resume-{name}-{revision}")
                if kept_open:
                    await self._insist("close", name, f"close-{name}-{round_}")
                if loop.time() > patience:
                    await self._insist("cancel", name, f"end-{name}-{round_}")
            return not self.left()

        try:
            await wait.until(ended, timeout=timeout, what="all experiments to end")
        except AssertionError as error:
            raise AssertionError(f"{error}; left: {self.left()}") from None

    def left(self) -> list[str]:
        """What hasn't come to its end yet."""
        return story_left.left(self._rows, self._stage.acked)

    async def _insist(self, verb: str, name: str, request_id: str) -> None:
        asked = next((asked for asked in self.asked if asked.body["request_id"] == request_id), None)
        if asked is None:
            asked = Asked(verb, {"request_id": request_id, "experiment_id": name}, (name,))
            self.asked.append(asked)
        if not asked.answers:
            await self.send(asked)

    def _known(self, name: str) -> bool:
        return bool(self._rows("SELECT 1 FROM experiments WHERE experiment_id = ?", name))

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return list(whole.rows(self._stage.manifest, query, *values)) if self._stage.manifest.exists() else []

    def jobs(self, name: str) -> int:
        """How many jobs the published plan has."""
        plan = self.plans[name]
        return len(plan["parameter_space"]["food"]) * int(plan["num_replicates_per_run"])

    def calls(self) -> list[list[str]]:
        """The lines of the orchestrator's log so far."""
        path = self._stage.oracle.starts
        return [line.split(" ") for line in path.read_text().split("\n")[:-1]] if path.exists() else []

    def _ban(self, asked: Asked, answer: Answer, unordered: list[Asked]) -> None:
        where = asked.body.get("where")
        if asked.verb == "pause" and answer["state"] == "paused":
            why = "pause"
        elif asked.verb == "cancel" and (answer["changed"] if where is None else answer["counts"] is not None):
            why = "cancel"
            extended = any(sent.verb == "extend" and answer["experiment_id"] in sent.members for sent in self.asked)
            if where is not None and (extended or where not in story_requests.STATIC):
                return
        else:
            return
        if any(answer["experiment_id"] in other.members and other.verb in _LIFTS[why] for other in unordered[1:]):
            return
        # In this order: a run that isn't submitting any more has its line in the log.
        under_way = self._under_way()
        self.bans.append(Ban(answer["experiment_id"], why, len(self.calls()), under_way, where))

    def _under_way(self) -> frozenset[str]:
        query = (
            "SELECT printf('%s-p%06d-r%03d-a%d', experiment_id, point, replicate, attempt)"
            " FROM runs JOIN experiments ON key = experiment WHERE runs.state = 'submitting'"
        )
        return frozenset(row[0] for row in self._rows(query))

    def _lift(self, asked: Asked) -> None:
        for ban in [ban for ban in self.bans if ban.until is None]:
            # A group may have other members by now than when the request was sent first.
            if asked.verb in _LIFTS[ban.why] and ("group" in asked.body or ban.experiment_id in asked.members):
                ban.until = len(self.calls())

    async def _request(self, subject: str, data: bytes, timeout: float) -> tuple[Mapping[str, str], bytes] | None:
        async def ignored(_: Exception) -> None:
            """The broker may be down."""

        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            client = await nats.connect(
                self._stage.broker.url, connect_timeout=2, allow_reconnect=False, error_cb=ignored
            )
            try:
                reply = await client.request(subject, data, timeout=timeout)
                return reply.headers or {}, reply.data
            finally:
                await client.close()
        return None

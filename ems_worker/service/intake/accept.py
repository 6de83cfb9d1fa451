"""Plans in: a message is read, checked and decided; the decision is on disk before the message is acknowledged."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import structlog

from ems_worker import errors
from ems_worker.core import ids
from ems_worker.core.access import quotas as publisher_quotas
from ems_worker.core.access import rate
from ems_worker.core.access.quotas import Quotas
from ems_worker.core.access.rate import PlanRate, Rates
from ems_worker.core.documents import subjects
from ems_worker.core.points.space import SpaceSize
from ems_worker.core.records import Experiment, NewExperiment, PlanDecision, Submission
from ems_worker.core.wire import Message
from ems_worker.errors import Problem
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.poison import SUSPECTED_DELIVERIES, Guard
from ems_worker.service.base.ports import Broker, Manifest
from ems_worker.service.base.replies import Replies
from ems_worker.service.base.versions import Versions
from ems_worker.service.intake import contents, submissions
from ems_worker.service.intake.check import Platform
from ems_worker.service.intake.examination import Examined, Examiner, Outline

log = structlog.get_logger()

# How often the broker hears that a plan is still being decided: well within the time after which it sends it again.
_WORKING_SECONDS = 5.0
# Plans that take long and wait to be decided, of one publisher and of all: all of them are messages that aren't
# acknowledged yet, of which the broker allows 256.
_MOST_SLOW_OF_ONE = 8
_MOST_SLOW = 64


class _TakesLongError(Exception):
    """A plan is not to be decided while others wait."""

    def __init__(self, experiment_id: str) -> None:
        self.experiment_id = experiment_id
        super().__init__(experiment_id)


class Intake:
    """Decides plan messages, in the order of the stream; but those that take long let others pass."""

    def __init__(
        self,
        *,
        manifest: Manifest,
        broker: Broker,
        examiner: Examiner,
        clock: Clock,
        metrics: Metrics,
        replies: Replies,
        versions: Versions,
        max_bytes: int,
        rates: Rates,
        quotas: Quotas,
        message_limit: Callable[[], int | None],
        on_accept: Callable[[Experiment], Awaitable[None]],
    ) -> None:
        """`max_bytes`: of a plan from the object store. `message_limit`: of a start command, in bytes."""
        self._manifest = manifest
        self._broker = broker
        self._examiner = examiner
        self._clock = clock
        self._metrics = metrics
        self._on_accept = on_accept
        self._max_bytes = max_bytes
        self._replies = replies
        self._rate = PlanRate(rates)
        self._quotas = quotas
        # From counting what a publisher holds to recording one more.
        self._counting = asyncio.Lock()
        self._message_limit = message_limit
        self._versions = versions
        self._guard = Guard(manifest, broker, metrics, "plan")
        # Plans that take long, by the message's identity, in their order: the id of each one's experiment, and its
        # publisher.
        self._slow: dict[tuple[int, int, int], tuple[str, str | None]] = {}
        self._slow_messages: asyncio.Queue[Message] = asyncio.Queue()

    async def run(self) -> None:
        """For ever: the next plan."""
        await self.publish_decisions()
        while True:
            await self._guard.process(await self._broker.plans(), self.take_quick)
            await asyncio.sleep(0)  # whatever the broker does, this loop leaves others their turn

    async def run_slow(self) -> None:
        """For ever: the next of the plans that take long."""
        while True:
            message = await self._slow_messages.get()
            try:
                await self.take(message)
            finally:
                # If it couldn't be decided it is delivered again.
                del self._slow[message.identity]

    async def take_quick(self, messages: Sequence[Message]) -> None:
        """Decides messages, and sets those aside for `run_slow` that take long."""
        for message in messages:
            if message.identity in self._slow:
                continue
            try:
                await self._take(message, self._quotas, quick=message.delivered < SUSPECTED_DELIVERIES)
            except _TakesLongError as plan:
                log.info("plan.takes_long", experiment_id=plan.experiment_id, seq=message.seq)
                self._slow[message.identity] = plan.experiment_id, rate.publisher(message.subject)
                self._slow_messages.put_nowait(message)

    async def take_again(self, messages: Sequence[Message]) -> None:
        """Decides messages that are delivered again after a restore, one after another.

        Without the quotas: experiments whose ends aren't known again yet look open.
        """
        for message in messages:
            await self._take(message, Quotas())

    async def take(self, message: Message) -> None:
        """Decides one message. A message that was decided before gets its decision again."""
        await self._take(message, self._quotas)

    async def _take(self, message: Message, quotas: Quotas, *, quick: bool = False) -> None:
        crash.point("accept.read", message.subject)
        submission = await self._manifest.submission(message.identity)
        if submission is None:
            try:
                submission, new = await self._decide(message, quotas, quick)
            except contents.NotYetError as wait:
                log.info("plan.object_awaited", seq=message.seq, seconds=wait.seconds)
                await self._broker.later([message], wait.seconds)
                return
            except errors.Unreadable as error:
                log.warning("plan.unreadable", subject=message.subject, seq=message.seq, reason=str(error))
                await self._broker.dead_letter(message, str(error), "plan")
                self._metrics.submissions.labels("unreadable").inc()
                self._metrics.dead_letters.labels("plan").inc()
                return
            crash.point("accept.decided")
            submission, new = await self._record(submission, new, message, quotas)
            crash.point("accept.recorded")
            self._metrics.submissions.labels(submission.decision.value).inc()
            log.info(
                f"plan.{submission.decision}",
                experiment_id=submission.experiment_id,
                seq=message.seq,
                jobs=new.jobs if new is not None else None,
            )
            if new is not None:
                record = await self._manifest.experiment(new.experiment_id)
                assert record is not None
                await self._on_accept(record)
        await self._broker.ack([message])
        crash.point("accept.acked")
        await self._publish(submission)

    async def publish_decisions(self) -> None:
        """Decisions that were recorded before a crash and may not have been heard."""
        for submission in await self._manifest.unpublished_decisions():
            await self._publish(submission)

    async def _publish(self, submission: Submission) -> None:
        name = "decision-{}-{}-{}".format(*submission.identity)
        subject = f"{subjects.DECISION}.{submission.seq}"
        await self._broker.publish([(subject, submission.document, name)])
        # Asked again: it may have been recorded under other settings.
        if submission.reply_to is not None and self._replies.allows(submission.reply_to, submission.subject):
            await self._broker.reply(submission.reply_to, submission.document)
        crash.point("accept.published")
        await self._manifest.decisions_published([submission])

    async def _record(
        self, submission: Submission, new: NewExperiment | None, message: Message, quotas: Quotas
    ) -> tuple[Submission, NewExperiment | None]:
        async with self._counting:
            if new is not None and quotas.counted:
                open_work = await self._manifest.open_work(submission.publisher)
                if problems := publisher_quotas.refusals(quotas, submission.publisher, open_work, new.jobs):
                    submission, new = submissions.rejected(submission, problems), None
            await self._manifest.record_submission(submission, new)
        return submission, new

    async def _decide(self, message: Message, quotas: Quotas, quick: bool) -> tuple[Submission, NewExperiment | None]:
        """Raises _TakesLongError for a plan that takes long, if it is to be `quick`."""
        received_ms = self._clock.now_ms()
        reply_to = message.headers.get(subjects.REPLY_TO_HEADER)
        blank = Submission(
            stream=message.stream,
            stream_created_ns=message.stream_created_ns,
            seq=message.seq,
            stored_ms=message.published_ms,
            subject=message.subject,
            received_ms=received_ms,
            decision=PlanDecision.REJECTED,
            document=b"",
            publisher=rate.publisher(message.subject),
            reply_to=reply_to if reply_to is not None and self._replies.allows(reply_to, message.subject) else None,
        )
        digest = contents.digest(message)
        if digest is not None and (accepted := await self._manifest.accepted(digest)) is not None:
            return submissions.repeated(blank, accepted), None
        its_turn = message.identity in self._slow
        again = message.delivered > 1
        if not its_turn:
            too_many = self._rate.refusal(blank.publisher, message.published_ms, again=again, identity=message.identity)
            if too_many is not None:
                return submissions.rejected(blank, [too_many]), None
        try:
            data = await contents.read(message, self._broker, self._max_bytes)
            async with self._examiner.examine(data) as examined:
                outline = await examined.outline()
                experiment_id = outline.experiment_id or ids.experiment_id(
                    outline.experiment_name or "", message.stream_created_ns, message.seq
                )
                if not its_turn and any(experiment_id == slow for slow, _ in self._slow.values()):
                    raise _TakesLongError(experiment_id)  # one of the same id is before it
                existing = await self._manifest.experiment(experiment_id)
                new = None
                if existing is None:
                    if (too_high := publisher_quotas.priority_refusal(quotas, outline.priority)) is not None:
                        return submissions.rejected(blank, [too_high]), None
                    outline = await self._examine(message, examined, outline, experiment_id=experiment_id, quick=quick)
                    plan, base = await examined.plan(), await examined.base()
                    new = submissions.experiment(
                        outline,
                        message,
                        experiment_id=experiment_id,
                        plan=plan,
                        base=base,
                        created_ms=received_ms,
                    )
                elif existing.spec.plan_sha == outline.plan_sha:
                    outline = replace(outline, count=SpaceSize(existing.spec.points, existing.spec.jobs))
                else:
                    return submissions.rejected(blank, [await examined.conflict(existing.spec)]), None
        except errors.PlanRejected as error:
            return submissions.rejected(blank, error.problems), None
        decision = PlanDecision.ACCEPTED if existing is None else PlanDecision.DUPLICATE
        submission = submissions.decided(blank, decision, experiment_id, outline)
        if new is not None and outline.by_itself:
            submission = replace(submission, digest=digest)
        return submission, new

    def _admit_slow(self, publisher: str | None) -> None:
        """Raises PlanRejected where so many plans that take long wait already that one more would stop the others."""
        of_one = sum(publisher == other for _, other in self._slow.values())
        if of_one >= _MOST_SLOW_OF_ONE or len(self._slow) >= _MOST_SLOW:
            words = (
                "too many plans whose points take long to count wait already: send it again later, or make it simpler"
            )
            raise errors.PlanRejected([Problem("too_many_slow_plans", "", words)])

    async def _examine(
        self, message: Message, examined: Examined, outline: Outline, *, experiment_id: str, quick: bool
    ) -> Outline:
        """Checks a plan whose experiment is new; the outline has its exact count."""
        platform = Platform(model_version=self._versions.reported, message_limit=self._message_limit())
        reported = self._clock.monotonic()
        # Between two steps the thread is free for others, and the worker may end.
        async for outline in examined.steps(experiment_id, platform):
            if quick and not outline.settled:
                self._admit_slow(rate.publisher(message.subject))
                raise _TakesLongError(experiment_id)
            if (now := self._clock.monotonic()) - reported > _WORKING_SECONDS:
                reported = now
                await self._broker.working([message])
        return outline

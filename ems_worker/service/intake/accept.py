"""Decides plan messages: each is read and checked, and its decision is recorded before the message is acknowledged."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec
import structlog

from ems_worker import errors
from ems_worker.core import ids
from ems_worker.core.access import quotas as publisher_quotas
from ems_worker.core.access import rate
from ems_worker.core.access.quotas import Quotas
from ems_worker.core.access.rate import PlanRate, Rates
from ems_worker.core.documents import subjects
from ems_worker.core.points.space import SpaceSize
from ems_worker.core.records import NewExperiment, PlanDecision, Submission
from ems_worker.core.wire import Message
from ems_worker.errors import Problem
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.poison import SUSPECTED_DELIVERIES, Guard
from ems_worker.service.base.ports import Broker, Manifest
from ems_worker.service.base.replies import Replies
from ems_worker.service.base.versions import Versions
from ems_worker.service.intake import contents, loading, submissions
from ems_worker.service.intake.check import Platform
from ems_worker.service.intake.examination import Examined, Examiner, Outline
from ems_worker.service.intake.loading import Load, OnAccept

log = structlog.get_logger()

# The interval of reports to the broker that a plan is still being decided. It is well below the time after which the
# broker redelivers the message.
_WORKING_SECONDS = 5.0
# Limits of the slow plans that wait to be decided. Their messages are not acknowledged, and the broker allows 256
# unacknowledged messages.
_MAX_SLOW_PER_PUBLISHER = 8
_MAX_SLOW = 64


class _SlowPlanError(Exception):
    """Deciding a plan takes so long that it must not delay the plans behind it."""

    def __init__(self, experiment_id: str) -> None:
        self.experiment_id = experiment_id
        super().__init__(experiment_id)


@dataclass(frozen=True, slots=True)
class _SlowPlan:
    """A slow plan that waits to be decided, or is being decided."""

    experiment_id: str
    publisher: str | None


class Intake:
    """Decides plan messages in the order of the stream. Slow plans are set aside and decided by `run_slow`."""

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
        load: Load,
        on_accept: OnAccept,
    ) -> None:
        """`max_bytes` limits plans in the object store; `message_limit` returns that of start commands in bytes.

        `load` reads the plan of a new experiment as it is recorded, and `on_accept` gets what it returns.
        """
        self._manifest = manifest
        self._broker = broker
        self._examiner = examiner
        self._clock = clock
        self._metrics = metrics
        self._load = load
        self._on_accept = on_accept
        self._max_bytes = max_bytes
        self._replies = replies
        self._rate = PlanRate(rates)
        self._quotas = quotas
        # Held while a publisher's open work is counted and its new experiment recorded.
        self._quota_lock = asyncio.Lock()
        self._message_limit = message_limit
        self._versions = versions
        self._guard = Guard(manifest, broker, metrics, "plan")
        # By the identity of the message, in the order of arrival.
        self._slow: dict[tuple[int, int, int], _SlowPlan] = {}
        self._slow_messages: asyncio.Queue[Message] = asyncio.Queue()

    async def run(self) -> None:
        """Decides plans until it is cancelled."""
        await self.publish_decisions()
        while True:
            await self._guard.process(await self._broker.plans(), self.take_quick)
            await asyncio.sleep(0)  # gives other tasks a turn even if the broker never waits

    async def run_slow(self) -> None:
        """Decides slow plans until it is cancelled."""
        while True:
            message = await self._slow_messages.get()
            try:
                await self.take(message)
            finally:
                # After an error the broker redelivers the message.
                del self._slow[message.identity]

    async def take_quick(self, messages: Sequence[Message]) -> None:
        """Decides messages, and leaves slow plans to `run_slow`."""
        for message in messages:
            if message.identity in self._slow:
                continue
            try:
                await self._take(message, self._quotas, quick=message.delivered < SUSPECTED_DELIVERIES)
            except _SlowPlanError as slow:
                log.info("plan.takes_long", experiment_id=slow.experiment_id, seq=message.seq)
                self._slow[message.identity] = _SlowPlan(slow.experiment_id, rate.publisher(message.subject))
                self._slow_messages.put_nowait(message)

    async def take_again(self, messages: Sequence[Message]) -> None:
        """Decides messages that are delivered again after a restore, in their order.

        Quotas don't apply: experiments that ended after the backup still count as open.
        """
        for message in messages:
            await self._take(message, Quotas())

    async def take(self, message: Message) -> None:
        """Decides a message. A message that was decided before gets the same decision."""
        await self._take(message, self._quotas)

    async def _take(self, message: Message, quotas: Quotas, *, quick: bool = False) -> None:
        crash.point("accept.read", message.subject)
        submission = await self._manifest.submission(message.identity)
        if submission is None:
            try:
                submission, new = await self._decide(message, quotas, quick)
            except contents.ObjectAwaitedError as awaited:
                log.info("plan.object_awaited", seq=message.seq, seconds=awaited.seconds)
                await self._broker.later([message], awaited.seconds)
                return
            except errors.Unreadable as error:
                log.warning("plan.unreadable", subject=message.subject, seq=message.seq, reason=str(error))
                await self._broker.dead_letter(message, str(error), "plan")
                self._metrics.submissions.labels("unreadable").inc()
                self._metrics.dead_letters.labels("plan").inc()
                return
            crash.point("accept.decided")
            async with loading.begun(self._load, new) as loaded:
                submission, new = await self._record(submission, new, message, quotas)
                crash.point("accept.recorded")
                self._metrics.submissions.labels(submission.decision.value).inc()
                log.info(
                    f"plan.{submission.decision}",
                    experiment_id=submission.experiment_id,
                    seq=message.seq,
                    jobs=new.jobs if new is not None else None,
                )
                if new is not None and loaded is not None:
                    record = await self._manifest.experiment(new.experiment_id)
                    assert record is not None
                    await self._on_accept(record, loaded)
        await self._broker.ack([message])
        crash.point("accept.acked")
        await self._publish(submission)

    async def publish_decisions(self) -> None:
        """Publishes decisions that were recorded before a crash and may not have been published."""
        for submission in await self._manifest.unpublished_decisions():
            await self._publish(submission)

    async def _publish(self, submission: Submission) -> None:
        name = "decision-{}-{}-{}".format(*submission.identity)
        subject = f"{subjects.DECISION}.{submission.seq}"
        await self._broker.publish([(subject, submission.document, name)])
        # The reply subject was checked before it was recorded, but possibly with other settings.
        if submission.reply_to is not None and self._replies.allows(submission.reply_to, submission.subject):
            await self._broker.reply(submission.reply_to, submission.document)
        crash.point("accept.published")
        await self._manifest.decisions_published([submission])

    async def _record(
        self, submission: Submission, new: NewExperiment | None, message: Message, quotas: Quotas
    ) -> tuple[Submission, NewExperiment | None]:
        async with self._quota_lock:
            if new is not None and quotas.counted:
                open_work = await self._manifest.open_work(submission.publisher)
                if problems := publisher_quotas.refusals(quotas, submission.publisher, open_work, new.jobs):
                    submission, new = submissions.rejected(submission, problems), None
            await self._manifest.record_submission(submission, new)
        return submission, new

    def _undecided(self, message: Message) -> Submission:
        """The submission of a message without its decision."""
        reply_to = message.headers.get(subjects.REPLY_TO_HEADER)
        return Submission(
            stream=message.stream,
            stream_created_ns=message.stream_created_ns,
            seq=message.seq,
            stored_ms=message.published_ms,
            subject=message.subject,
            received_ms=self._clock.now_ms(),
            decision=PlanDecision.REJECTED,
            document=b"",
            publisher=rate.publisher(message.subject),
            reply_to=reply_to if reply_to is not None and self._replies.allows(reply_to, message.subject) else None,
        )

    async def _decide(self, message: Message, quotas: Quotas, quick: bool) -> tuple[Submission, NewExperiment | None]:
        """Returns the submission with its decision. If `quick`, raises _SlowPlanError for a slow plan."""
        undecided = self._undecided(message)
        digest = contents.digest(message)
        if digest is not None and (accepted := await self._manifest.accepted(digest)) is not None:
            return submissions.repeated(undecided, accepted), None
        set_aside = message.identity in self._slow
        if not set_aside:
            refusal = self._rate.refusal(
                undecided.publisher, message.published_ms, again=message.delivered > 1, identity=message.identity
            )
            if refusal is not None:
                return submissions.rejected(undecided, [refusal]), None
        try:
            data = await contents.read(message, self._broker, self._max_bytes)
            async with self._examiner.examine(data) as examined:
                outline = await examined.outline()
                experiment_id = outline.experiment_id or ids.experiment_id(
                    outline.experiment_name or "", message.stream_created_ns, message.seq
                )
                if not set_aside and any(slow.experiment_id == experiment_id for slow in self._slow.values()):
                    raise _SlowPlanError(experiment_id)  # an earlier plan with the same id is decided first
                existing = await self._manifest.experiment(experiment_id)
                new = None
                if existing is None:
                    if (removed_ms := await self._manifest.removed_ms(experiment_id)) is not None:
                        return submissions.rejected(undecided, [submissions.removed(experiment_id, removed_ms)]), None
                    if (refusal := publisher_quotas.priority_refusal(quotas, outline.priority)) is not None:
                        return submissions.rejected(undecided, [refusal]), None
                    outline = await self._examine(message, examined, outline, experiment_id=experiment_id, quick=quick)
                    plan, base = await examined.plan(), await examined.base()
                    new = submissions.experiment(
                        outline,
                        message,
                        experiment_id=experiment_id,
                        plan=plan,
                        base=base,
                        created_ms=undecided.received_ms,
                    )
                elif await self._manifest.plan_version(existing.key, outline.plan_sha) is not None:
                    outline = replace(outline, count=SpaceSize(existing.spec.points, existing.spec.jobs))
                else:
                    return submissions.rejected(undecided, [await examined.conflict(existing.spec)]), None
        except errors.PlanRejected as error:
            return submissions.rejected(undecided, error.problems), None
        decision = PlanDecision.ACCEPTED if existing is None else PlanDecision.DUPLICATE
        submission = submissions.decided(undecided, decision, experiment_id, outline)
        if new is not None and outline.self_contained:
            submission = msgspec.structs.replace(submission, digest=digest)
        return submission, new

    def _admit_slow(self, publisher: str | None) -> None:
        """Raises PlanRejected if too many slow plans are waiting already."""
        of_publisher = sum(slow.publisher == publisher for slow in self._slow.values())
        if of_publisher >= _MAX_SLOW_PER_PUBLISHER or len(self._slow) >= _MAX_SLOW:
            message = (
                "too many plans whose points take long to count are waiting: send this plan again later, or simplify it"
            )
            raise errors.PlanRejected([Problem("too_many_slow_plans", "", message)])

    async def _examine(
        self, message: Message, examined: Examined, outline: Outline, *, experiment_id: str, quick: bool
    ) -> Outline:
        """Checks the plan of a new experiment; the returned outline has the exact count."""
        platform = Platform(model_version=self._versions.reported, message_limit=self._message_limit())
        reported = self._clock.monotonic()
        # Between two steps the thread serves other examinations, and the worker can stop.
        async for outline in examined.steps(experiment_id, platform):
            if quick and not outline.settled:
                self._admit_slow(rate.publisher(message.subject))
                raise _SlowPlanError(experiment_id)
            if (now := self._clock.monotonic()) - reported > _WORKING_SECONDS:
                reported = now
                await self._broker.working([message])
        return outline

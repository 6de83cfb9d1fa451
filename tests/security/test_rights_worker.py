"""The rights of the worker suffice for its work with the broker, and those of the administrator to create streams."""

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ems_worker import client, errors
from ems_worker.adapters import event_codec, yaml_reader
from ems_worker.adapters.jetstream import Broker
from ems_worker.core.access import rights
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.replies import Replies
from ems_worker.service.intake import check
from tests.support import broker as support
from tests.support import commands, roles, wait

PLAN_BYTES = 3_000_000


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[roles.SecuredBroker]:
    """A broker with one user per role."""
    broker = roles.SecuredBroker.new(tmp_path)
    await broker.start()
    yield broker
    await broker.server.stop()


def _env(secured: roles.SecuredBroker, role: str, **settings: str) -> dict[str, str]:
    """The environment of commands that connect as this role."""
    return commands.environment(EMS_CONTEXT=str(secured.keys.context(role)), **settings)


async def test_the_rights_of_the_worker_suffice(secured: roles.SecuredBroker) -> None:
    """It creates consumers, reads, acknowledges, publishes, replies and rewinds without a violation."""
    heard = support.Callbacks()
    worker = secured.keys.access("worker")
    async with (
        Broker.connect(worker, name="test", timeout=5, on_error=heard.errors.append) as broker,
        client.EmsClient(secured.keys.access("publisher"), publisher="publisher") as publisher,
    ):
        await broker.ensure(support.OWNER, create=False)

        async def no_experiments(_: bytes) -> bytes:
            return b'{"experiments": [], "cursor": null}'

        replies = Replies(rights.REPLY_PREFIXES, broker.inbox, Metrics())
        await broker.serve({"list": no_experiments}, version="1.2.3", allows=replies.allows)
        assert [experiment async for experiment in publisher.experiments()] == []

        ack = await publisher.publish(b"plan")
        [message] = await wait.until(broker.plans, what="the plan")
        assert (message.seq, message.data) == (ack.seq, b"plan")
        decision = b'{"decision": "rejected", "submission": {"seq": 1}}'
        await broker.publish([(f"ems.experiment.decision.{ack.seq}", decision, "1")])
        assert (await publisher.decision(ack.seq, timeout=5))["decision"] == "rejected"
        await broker.dead_letter(message, "no plan", "plan")
        await broker.publish([(f"ems.experiment.{kind}.reef", b"{}", kind) for kind in ("result", "point", "settled")])
        assert await broker.publish_latest("ems.experiment.status.reef", b'{"revision": 1}', 1)
        assert await broker.published_revision("ems.experiment.status.reef") == 1

        stored = await publisher.publish(random.Random(7).randbytes(PLAN_BYTES // 2).hex().encode())
        [large] = await wait.until(broker.plans, what="the large plan")
        assert large.seq == stored.seq
        assert len(await broker.plan_object(large.headers["Ems-Plan-Object"], 16 * 2**20)) > 2**20
        await broker.reply(f"{rights.REPLY_PREFIXES[0]}x", b"{}")

        await broker.rewind(0, 0)
        first, *_ = await wait.until(broker.plans, what="the plan again")
        assert first.seq == ack.seq
        assert len(await broker.streams()) == 5
        assert broker.refused is None
    assert heard.errors == []


async def test_a_stored_status_sent_to_another_subject_has_no_effect(secured: roles.SecuredBroker) -> None:
    """A reader can have a status sent to any subject, but it is read neither as an event nor as a plan or status."""
    document = {"schema": "ems.status.v1", "experiment_id": "reef", "experiment_name": "reef", "state": "running"}
    status = json.dumps({**document, "revision": 9}).encode()
    worker = secured.keys.access("worker")
    async with Broker.connect(worker, name="test", timeout=5) as broker, secured.user("dashboard") as dashboard:
        await broker.ensure(support.OWNER, create=False)
        assert await broker.publish_latest("ems.experiment.status.reef", status, 9)
        request = b'{"last_by_subj": "ems.experiment.status.reef"}'
        for target in ("ems.experiment.status.other", "sim.run_completed", "ems.experiment.submit"):
            assert await dashboard.publishes("$JS.API.STREAM.MSG.GET.EMS_STATUS", request, reply=target)
        [event] = await wait.until(broker.events, what="the status among events")
        [plan] = await wait.until(broker.plans, what="the status among plans")
        assert event.data == plan.data
        assert b"last_by_subj" not in event.data
        with pytest.raises(errors.Unreadable):
            event_codec.decode(event.subject, event.data)
        with pytest.raises(errors.PlanRejected):
            check.read(plan.data, yaml_reader, check.refuse_base)
        assert await broker.publish_latest("ems.experiment.status.other", b'{"revision": 1}', 1)


@pytest.mark.parametrize("role", ["publisher", "analysis", "dashboard", "operator"])
@pytest.mark.parametrize(
    "target",
    [
        "$JS.API.STREAM.DELETE.EMS_DLQ",
        "$JS.API.STREAM.PURGE.EMS_STATUS",
        "$JS.API.CONSUMER.DELETE.EMS_PLANS.ems-worker-plans",
    ],
)
async def test_no_role_can_have_an_empty_reply_sent_to_the_api(
    secured: roles.SecuredBroker, role: str, target: str
) -> None:
    """A direct get of a missing message would send an empty reply, which is a valid request to delete: it is denied.

    The other kind of get replies with JSON, which the API rejects.
    """
    async with Broker.connect(secured.keys.access("worker"), name="test", timeout=5) as broker:
        await broker.ensure(support.OWNER, create=False)
        await broker.publish_latest("ems.experiment.status.kept", b'{"revision": 1}', 1)
        async with secured.user(role) as user, secured.user("admin") as admin:
            missing = "ems.experiment.status.missing"
            assert not await user.publishes(f"$JS.API.DIRECT.GET.EMS_STATUS.{missing}", b"", reply=target)
            request = json.dumps({"last_by_subj": missing}).encode()
            assert await user.publishes("$JS.API.STREAM.MSG.GET.EMS_STATUS", request, reply=target)
            stream = admin.client.jetstream()
            names = {info.config.name for info in await stream.streams_info()}
            assert names >= {"EMS_DLQ", "EMS_STATUS"}
            assert (await stream.stream_info("EMS_STATUS")).state.messages >= 1
            assert await stream.consumer_info("EMS_PLANS", "ems-worker-plans")


async def test_provision_creates_missing_streams_and_reports_them(secured: roles.SecuredBroker) -> None:
    """A second run reports that all exist; a stream with another name that has the run events is used."""
    async with secured.user("admin") as admin:
        stream = admin.client.jetstream()
        await stream.delete_stream("EMS_RESULTS")
        await stream.delete_stream("SIM_EVENTS")
        await stream.add_stream(name="BUS", subjects=["sim.>"])
    output = "EMS_PLANS: already exists\nBUS: already exists\nEMS_STATUS: already exists\nEMS_RESULTS: {}\n"
    output += "EMS_DLQ: already exists\nOBJ_EMS_PLAN_OBJECTS: already exists\n"
    for result in ("created", "already exists"):
        done = commands.run("ems-worker", "provision", env=_env(secured, "admin"))
        assert (done.code, done.out, done.err) == (0, output.format(result), "")


async def test_provision_refuses_a_contradicting_stream(secured: roles.SecuredBroker) -> None:
    """The command exits with 4, and its error names the stream, the difference and the remedy."""
    async with secured.user("admin") as admin:
        stream = admin.client.jetstream()
        await stream.delete_stream("EMS_PLANS")
        await stream.add_stream(name="EMS_PLANS", subjects=["ems.experiment.submit"])
    done = commands.run("ems-worker", "provision", env=_env(secured, "admin"))
    assert done.code == 4
    assert "stream EMS_PLANS: subjects lack ems.experiment.submit.*" in done.err
    assert "Remedy" in done.err


@pytest.mark.long
async def test_provision_without_the_rights_names_the_subject(secured: roles.SecuredBroker) -> None:
    """The command exits with 4, and its error names the subject that the broker has denied."""
    done = commands.run("ems-worker", "provision", env=_env(secured, "dashboard"))
    assert done.code == 4
    assert 'Permissions Violation for Publish to "$JS.API.STREAM.INFO.EMS_PLANS"' in done.err
    assert "Traceback" not in done.err

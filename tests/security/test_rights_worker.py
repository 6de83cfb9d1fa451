"""The worker's rights are enough for all that it does with the broker, and the command that makes its streams."""

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ems_worker import client, errors
from ems_worker.adapters import event_codec, yaml_reader
from ems_worker.adapters.jetstream import Broker
from ems_worker.core import rights
from ems_worker.service import check
from ems_worker.service.metrics import Metrics
from ems_worker.service.replies import Replies
from tests.support import broker as support
from tests.support import commands, roles, wait

PLAN_BYTES = 3_000_000


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[roles.Site]:
    one = roles.Site.new(tmp_path)
    await one.start()
    yield one
    await one.server.stop()


def _env(site: roles.Site, role: str, **settings: str) -> dict[str, str]:
    return commands.environment(EMS_CONTEXT=str(site.keys.context(role)), **settings)


async def test_the_worker_needs_no_other_right(site: roles.Site) -> None:
    """It makes its consumers, reads, acknowledges, publishes, answers and rewinds, and is refused nothing."""
    heard = support.Callbacks()
    worker = site.keys.access("worker")
    async with (
        Broker.connect(worker, name="test", timeout=5, on_error=heard.errors.append) as broker,
        client.EmsClient(site.keys.access("publisher"), publisher="publisher") as publisher,
    ):
        await broker.ensure(support.OWNER, create=False)

        async def found(_: bytes) -> bytes:
            return b'{"experiments": [], "cursor": null}'

        replies = Replies(rights.REPLY_PREFIXES, broker.inbox, Metrics())
        await broker.serve({"list": found}, version="1.2.3", allows=replies.allows)
        assert [one async for one in publisher.experiments()] == []

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


async def test_what_a_reader_has_the_broker_send_elsewhere_changes_nothing(site: roles.Site) -> None:
    """No permission keeps a stored status from being sent to any subject: there it is no event, plan or status."""
    document = {"schema": "ems.status.v1", "experiment_id": "reef", "experiment_name": "reef", "state": "running"}
    status = json.dumps({**document, "revision": 9}).encode()
    worker = site.keys.access("worker")
    async with Broker.connect(worker, name="test", timeout=5) as broker, site.user("dashboard") as dashboard:
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
            check.check(plan.data, yaml_reader, check.refuse_base)
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
async def test_no_answer_about_nothing_deletes_anything(site: roles.Site, role: str, target: str) -> None:
    """A direct get that finds nothing has an empty answer, which is all that these calls ask for: nobody may make one.

    What the other get answers is JSON, which they refuse.
    """
    async with Broker.connect(site.keys.access("worker"), name="test", timeout=5) as broker:
        await broker.ensure(support.OWNER, create=False)
        await broker.publish_latest("ems.experiment.status.kept", b'{"revision": 1}', 1)
        async with site.user(role) as user, site.user("admin") as admin:
            nothing = "ems.experiment.status.nothere"
            assert not await user.publishes(f"$JS.API.DIRECT.GET.EMS_STATUS.{nothing}", b"", reply=target)
            request = json.dumps({"last_by_subj": nothing}).encode()
            assert await user.publishes("$JS.API.STREAM.MSG.GET.EMS_STATUS", request, reply=target)
            stream = admin.client.jetstream()
            names = {info.config.name for info in await stream.streams_info()}
            assert names >= {"EMS_DLQ", "EMS_STATUS"}
            assert (await stream.stream_info("EMS_STATUS")).state.messages >= 1
            assert await stream.consumer_info("EMS_PLANS", "ems-worker-plans")


async def test_provision_makes_what_is_missing_and_says_so(site: roles.Site) -> None:
    """The second time everything is there; a stream of another name that holds run events is used as it is."""
    async with site.user("admin") as admin:
        stream = admin.client.jetstream()
        await stream.delete_stream("EMS_RESULTS")
        await stream.delete_stream("SIM_EVENTS")
        await stream.add_stream(name="BUS", subjects=["sim.>"])
    said = "EMS_PLANS: there already\nBUS: there already\nEMS_STATUS: there already\nEMS_RESULTS: {}\n"
    said += "EMS_DLQ: there already\nOBJ_EMS_PLAN_OBJECTS: there already\n"
    for word in ("made", "there already"):
        done = commands.run("ems-worker", "provision", env=_env(site, "admin"))
        assert (done.code, done.out, done.err) == (0, said.format(word), "")


async def test_provision_refuses_what_contradicts(site: roles.Site) -> None:
    """Exit code 4, with the stream and the remedy."""
    async with site.user("admin") as admin:
        stream = admin.client.jetstream()
        await stream.delete_stream("EMS_PLANS")
        await stream.add_stream(name="EMS_PLANS", subjects=["ems.experiment.submit"])
    done = commands.run("ems-worker", "provision", env=_env(site, "admin"))
    assert done.code == 4
    assert "stream EMS_PLANS: subjects lack ems.experiment.submit.*" in done.err
    assert "Remedy" in done.err


async def test_provision_without_the_rights_names_the_subject(site: roles.Site) -> None:
    """Exit code 4; no traceback."""
    done = commands.run("ems-worker", "provision", env=_env(site, "dashboard"))
    assert done.code == 4
    assert 'Permissions Violation for Publish to "$JS.API.STREAM.INFO.EMS_PLANS"' in done.err
    assert "Traceback" not in done.err

"""The rights of each role on a real broker: this table lists all of them, and everything else is denied."""

import asyncio
import json
from collections.abc import Iterator, Mapping

import pytest

from tests.support import roles

EVERYONE = frozenset(roles.ROLES)
READERS = frozenset({"publisher", "analysis", "dashboard", "operator"})
PLANS_NEXT = "CONSUMER.MSG.NEXT.EMS_PLANS.ems-worker-plans"


def _of(*names: str) -> frozenset[str]:
    return frozenset(names)


PUBLISH: Mapping[str, frozenset[str]] = {
    "ems.experiment.submit": _of("publisher", "operator"),
    "ems.experiment.submit.publisher": _of("publisher", "operator"),
    "ems.experiment.submit.another": _of("operator"),
    "ems.experiment.submit.publisher.more": _of(),
    "sim.run_started": _of("orchestrator", "operator"),
    "sim.run_completed": _of("orchestrator", "operator"),
    "sim.run_completed.reef": _of("orchestrator", "operator"),
    "sim.run_failed": _of("orchestrator", "operator"),
    "sim.run_metrics": _of("orchestrator", "analysis", "operator"),
    **{
        f"ems.experiment.{kind}.reef": _of("worker")
        for kind in ("decision", "status", "result", "point", "settled", "change")
    },
    "ems.dlq.plan": _of("worker"),
    "ems.dlq.event": _of("worker"),
    **{f"ems.api.{verb}": READERS for verb in ("validate", "list", "get", "jobs", "points", "results", "config")},
    **{f"ems.api.{verb}": _of("operator") for verb in ("retry", "resume", "pause", "cancel", "extend", "close", "set")},
    "$SRV.PING": _of("operator"),
    "$SRV.INFO.ems": _of("operator"),
    "$O.EMS_PLAN_OBJECTS.C.x": _of("publisher", "operator"),
    "$O.EMS_PLAN_OBJECTS.M.x": _of("publisher", "operator"),
    "$JS.API.INFO": _of("admin"),
    "$JS.API.STREAM.NAMES": _of("worker", "orchestrator", "admin"),
    "$JS.API.STREAM.INFO.EMS_PLANS": _of("publisher", "worker", "operator", "admin"),
    "$JS.API.STREAM.INFO.SIM_EVENTS": _of("worker", "admin"),
    "$JS.API.STREAM.INFO.OTHER": _of("admin"),
    **{
        f"$JS.API.STREAM.{verb}.{stream}": _of("admin")
        for verb in ("CREATE", "UPDATE", "DELETE", "PURGE", "SNAPSHOT", "RESTORE")
        for stream in ("EMS_PLANS", "SIM_EVENTS", "EMS_RESULTS", "OBJ_EMS_PLAN_OBJECTS")
    },
    "$JS.API.STREAM.MSG.GET.EMS_PLANS": _of("operator", "admin"),
    "$JS.API.STREAM.MSG.GET.SIM_EVENTS": _of("operator", "admin"),
    "$JS.API.STREAM.MSG.GET.EMS_STATUS": READERS | {"worker", "admin"},
    "$JS.API.STREAM.MSG.GET.EMS_RESULTS": _of("worker", "admin"),
    "$JS.API.STREAM.MSG.GET.EMS_DLQ": _of("operator", "admin"),
    "$JS.API.STREAM.MSG.GET.OBJ_EMS_PLAN_OBJECTS": _of("worker", "admin"),
    "$JS.API.STREAM.MSG.DELETE.EMS_PLANS": _of("admin"),
    "$JS.API.STREAM.MSG.DELETE.EMS_DLQ": _of("operator", "admin"),
    "$JS.API.STREAM.MSG.DELETE.OBJ_EMS_PLAN_OBJECTS": _of("admin"),
    "$JS.API.DIRECT.GET.EMS_STATUS": _of("admin"),
    "$JS.API.DIRECT.GET.EMS_STATUS.ems.experiment.status.reef": _of("admin"),
    "$JS.API.DIRECT.GET.EMS_STATUS.ems.experiment.decision.1": _of("admin"),
    "$JS.API.DIRECT.GET.EMS_PLANS.ems.experiment.submit": _of("admin"),
    "$JS.API.DIRECT.GET.OBJ_EMS_PLAN_OBJECTS": _of("worker", "admin"),
    "$JS.API.DIRECT.GET.OBJ_EMS_PLAN_OBJECTS.$O.EMS_PLAN_OBJECTS.M.x": _of("admin"),
    "$JS.API.CONSUMER.LIST.EMS_PLANS": _of("admin"),
    "$JS.API.CONSUMER.CREATE.EMS_PLANS": _of("admin"),
    "$JS.API.CONSUMER.CREATE.EMS_PLANS.mine": _of("admin"),
    "$JS.API.CONSUMER.CREATE.EMS_PLANS.ems-worker-plans": _of("worker", "admin"),
    "$JS.API.CONSUMER.CREATE.SIM_EVENTS.ems-worker-plans": _of("admin"),
    "$JS.API.CONSUMER.DURABLE.CREATE.EMS_PLANS.ems-worker-plans": _of("admin"),
    f"$JS.API.{PLANS_NEXT}": _of("worker", "admin"),
    "$JS.API.CONSUMER.MSG.NEXT.SIM_EVENTS.ems-worker-events": _of("worker", "admin"),
    "$JS.API.CONSUMER.PAUSE.EMS_PLANS.ems-worker-plans": _of("admin"),
    "$JS.ACK.EMS_PLANS.ems-worker-plans.1.1.1.1.0": _of("worker", "admin"),
    "$JS.ACK.SIM_EVENTS.other.1.1.1.1.0": _of("admin"),
    "$SYS.REQ.SERVER.PING": _of(),
    **{f"_INBOX_{role}.x": _of("worker") if role in READERS else _of() for role in roles.ROLES},
    "_INBOX.x": _of(),
    "_R_.x": _of(),
}

SUBSCRIBE: Mapping[str, frozenset[str]] = {
    ">": _of(),
    "ems.>": _of(),
    "ems.experiment.>": _of(),
    "ems.experiment.submit": _of(),
    "ems.experiment.submit.*": _of(),
    "ems.dlq.*": _of(),
    "sim.run_completed": _of(),
    "$O.EMS_PLAN_OBJECTS.>": _of(),
    "$JS.API.>": _of(),
    "$JS.EVENT.ADVISORY.>": _of("admin"),
    "ems.api.*": _of("worker"),
    "$SRV.PING": _of("worker"),
    "$SRV.INFO.ems.x": _of("worker"),
    **{f"ems.experiment.{kind}.*": READERS for kind in ("decision", "status", "result", "point", "settled", "change")},
    **{f"_INBOX_{role}.>": _of(role) for role in roles.ROLES},
    "*.>": _of(),
    "_INBOX.>": _of(),
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[roles.SecuredBroker]:
    """A broker with one user per role."""
    broker = roles.SecuredBroker.new(tmp_path_factory.mktemp("rights"))
    asyncio.run(broker.start())
    yield broker
    asyncio.run(broker.server.stop())


@pytest.mark.parametrize("role", roles.ROLES)
async def test_a_role_can_publish_only_to_its_subjects(broker: roles.SecuredBroker, role: str) -> None:
    """The broker accepts messages to exactly the subjects in the table, and reports every other as a violation."""
    async with broker.user(role) as user:
        allowed = {subject for subject in PUBLISH if await user.publishes(subject)}
    assert allowed == {subject for subject, who in PUBLISH.items() if role in who}


@pytest.mark.parametrize("role", roles.ROLES)
async def test_a_role_can_subscribe_only_to_its_subjects(broker: roles.SecuredBroker, role: str) -> None:
    """The broker permits exactly the subscriptions in the table; no role receives plans or the replies of others."""
    async with broker.user(role) as user:
        allowed = {subject for subject in SUBSCRIBE if await user.subscribes(subject)}
    assert allowed == {subject for subject, who in SUBSCRIBE.items() if role in who}


@pytest.mark.parametrize("role", sorted(EVERYONE - {"worker", "admin"}))
async def test_no_role_can_redirect_a_stream_to_another_subject(broker: roles.SecuredBroker, role: str) -> None:
    """Neither a push consumer nor a pull request with a foreign reply subject is permitted."""
    consumer = {"deliver_subject": "ems.experiment.submit", "ack_policy": "none", "name": "mine"}
    create = json.dumps({"stream_name": "SIM_EVENTS", "config": consumer}).encode()
    async with broker.user(role) as user:
        assert not await user.publishes("$JS.API.CONSUMER.CREATE.SIM_EVENTS.mine", create)
        assert not await user.publishes("$JS.API.CONSUMER.CREATE.SIM_EVENTS", create)
        assert not await user.publishes(f"$JS.API.{PLANS_NEXT}", b"", reply="sim.run_completed")
    async with broker.user("admin") as admin:
        consumers = await admin.client.jetstream().consumers_info("SIM_EVENTS")
        assert "mine" not in [consumer.name for consumer in consumers]


@pytest.mark.parametrize("role", sorted(EVERYONE - {"worker", "admin"}))
async def test_no_role_can_have_a_stored_object_sent_as_an_event(broker: roles.SecuredBroker, role: str) -> None:
    """An object with the content of a run event can't be fetched with the subject of events as the reply subject."""
    forged = b'{"simulation_id": "reef-p000000-r000-a1", "metrics": {}}'
    request = json.dumps({"last_by_subj": "$O.EMS_PLAN_OBJECTS.C.forged"}).encode()
    async with broker.user("publisher") as publisher:
        assert await publisher.publishes("$O.EMS_PLAN_OBJECTS.C.forged", forged)
    async with broker.user(role) as user:
        assert not await user.publishes("$JS.API.DIRECT.GET.OBJ_EMS_PLAN_OBJECTS", request, reply="sim.run_completed")
        assert not await user.publishes(
            "$JS.API.STREAM.MSG.GET.OBJ_EMS_PLAN_OBJECTS", request, reply="sim.run_completed"
        )


@pytest.mark.parametrize("role", sorted(EVERYONE))
async def test_no_role_can_forge_an_acknowledgement_by_a_reply_subject(broker: roles.SecuredBroker, role: str) -> None:
    """The broker refuses messages whose reply subject is that of an acknowledgement."""
    ack = "$JS.ACK.EMS_PLANS.ems-worker-plans.1.1.1.1.0"
    subject = next(subject for subject, who in PUBLISH.items() if role in who)
    async with broker.user(role) as user:
        assert not await user.publishes(subject, reply=ack)
        assert user.denied == [ack]


@pytest.mark.parametrize("api", ["PURGE.EMS_RESULTS", "DELETE.EMS_RESULTS", "UPDATE.EMS_RESULTS"])
async def test_an_acknowledgement_sent_to_the_api_changes_no_stream(broker: roles.SecuredBroker, api: str) -> None:
    """A publisher can direct the acknowledgement of the broker to any subject, but JetStream refuses such a request."""
    async with broker.user("admin") as admin, broker.user("publisher") as publisher, broker.user("worker") as worker:
        assert await worker.publishes("ems.experiment.result.reef")
        results = await _messages(admin, "EMS_RESULTS")
        assert await publisher.publishes("ems.experiment.submit", b"plan", reply=f"$JS.API.STREAM.{api}")
        # This message is stored later, so that the acknowledgement of the first has been sent by now.
        await publisher.client.jetstream().publish("ems.experiment.submit", b"plan")
        assert await _messages(admin, "EMS_RESULTS") == results


async def _messages(admin: roles.User, stream: str) -> int:
    info = await admin.client.jetstream().stream_info(stream)
    return info.state.messages

"""A broker that accepts the worker's connection and refuses its messages: the worker reports subject and reason."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.errors import Error

from ems_worker import errors
from ems_worker.adapters.jetstream import Broker, publish
from ems_worker.adapters.jetstream import refusals as refusals_module
from ems_worker.adapters.jetstream.refusals import Refusals
from ems_worker.settings import Access
from tests.support import broker as support
from tests.support import servers, wait

PLANS_NEXT = "$JS.API.CONSUMER.MSG.NEXT.EMS_PLANS.ems-worker-plans"


@contextlib.asynccontextmanager
async def without_right(
    directory: Path, *denied: str
) -> AsyncIterator[tuple[Broker, support.Callbacks, servers.NatsServer]]:
    """A broker connected as a user who may not publish on these subjects; an admin created the streams."""
    deny = ", ".join(f'"{subject}"' for subject in denied)
    config = (
        "authorization { users: [ { user: admin, password: a },"
        f" {{ user: worker, password: w, permissions: {{ publish: {{ deny: [{deny}] }} }} }} ] }}\n"
    )
    callbacks = support.Callbacks()
    async with servers.NatsServer(directory, more=config) as server:
        async with Broker.connect(Access((server.url,), user="admin", password="a"), name="a", timeout=5) as admin:
            await admin.ensure(support.OWNER)
        access = Access((server.url,), user="worker", password="w")
        async with Broker.connect(access, name="test", timeout=5, on_error=callbacks.errors.append) as broker:
            await broker.ensure(support.OWNER)
            yield broker, callbacks, server


async def test_fetching_without_the_right_is_reported(tmp_path: Path) -> None:
    """Otherwise a worker that never gets a message would seem to be idle."""
    async with without_right(tmp_path, "$JS.API.CONSUMER.MSG.NEXT.>") as (broker, callbacks, _):
        for _ in range(2):
            assert await broker.plans() == []
        assert broker.refused == f'{PLANS_NEXT}: Permissions Violation for Publish to "{PLANS_NEXT}"'
        assert len(callbacks.errors) == 1
        assert broker.connected


async def test_acknowledging_without_the_right_is_reported(tmp_path: Path) -> None:
    """Otherwise every message would silently come again every thirty seconds."""
    async with without_right(tmp_path, "$JS.ACK.>") as (broker, _, server):
        async with await nats.connect(server.url, user="admin", password="a") as client:
            for _ in range(3):
                await client.jetstream().publish("sim.run_completed", b"{}")
        messages = list(await broker.events())
        assert messages
        assert broker.refused is None
        await broker.ack(messages)
        refused = await wait.until(lambda: broker.refused, what="the refusal")
        assert str(refused).startswith("$JS.ACK.SIM_EVENTS.ems-worker-events: Permissions Violation for Publish to ")


@pytest.mark.parametrize("kind", ["result", "point", "decision", "status"])
async def test_publishing_without_the_right_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The report stands until a message of the same kind gets through."""
    monkeypatch.setattr(publish, "GIVE_UP_SECONDS", 0.1)
    monkeypatch.setattr(publish, "ACK_SECONDS", 1.0)
    subject = f"ems.experiment.{kind}.reef"
    async with without_right(tmp_path, subject) as (broker, _, _):
        publishing = (
            broker.publish_latest(subject, b'{"revision": 1}', 1)
            if kind == "status"
            else broker.publish([(subject, b"{}", "1")])
        )
        with pytest.raises(errors.BrokerUnavailable):
            await publishing
        assert broker.refused == f'ems.experiment.{kind}: Permissions Violation for Publish to "{subject}"'
        await broker.publish([("ems.experiment.settled.other", b"{}", "2")])
        assert broker.refused is not None
        await broker.publish([(f"ems.experiment.{kind}.other", b"{}", "3")])
        assert broker.refused is None


async def test_a_reply_that_is_not_allowed_is_not_reported(tmp_path: Path) -> None:
    """A requester chooses the reply subject, and must not be able to make the worker unready with it."""
    async with without_right(tmp_path, "_INBOX.of_others.>") as (broker, callbacks, _):
        await broker.reply("_INBOX.of_others.x", b"{}")
        await broker.publish([("ems.experiment.result.x", b"{}", "1")])
        assert broker.refused is None
        assert callbacks.errors == []


async def test_a_full_store_is_reported_until_there_is_room(tmp_path: Path) -> None:
    """The report has JetStream's reason, and the message is stored once there is room."""
    store = f'jetstream {{ store_dir: "{tmp_path}", max_file_store: 1MB }}\n'
    async with servers.NatsServer(tmp_path, more=store) as server:
        async with support.connected(server.url) as broker, support.plain(server) as (_, js):
            with contextlib.suppress(nats.js.errors.ServiceUnavailableError):
                for _ in range(20):
                    await js.publish("sim.run_metrics", b"x" * 100_000)
            publishing = asyncio.create_task(broker.publish([("ems.experiment.result.x", b"x" * 100_000, "1")]))
            refused = await wait.until(lambda: broker.refused, what="the refusal")
            assert refused == "ems.experiment.result: insufficient resources (10023)"
            await js.purge_stream("SIM_EVENTS")
            await publishing
            assert broker.refused is None


async def test_a_lost_connection_clears_the_refusals(tmp_path: Path) -> None:
    """The next server may grant other rights."""
    async with without_right(tmp_path, "$JS.API.CONSUMER.MSG.NEXT.>") as (broker, _, server):
        await broker.plans()
        assert broker.refused is not None
        await server.kill()
        await wait.until(lambda: broker.refused is None, what="no refusals")


async def test_refusals_are_bounded() -> None:
    """Neither the number of refused subjects nor the length of their reasons makes the summary grow without limit."""
    refusals = Refusals()
    for number in range(1000):
        refusals.record(f"ems.experiment.x{number}", "w" * 10_000)
        refusals.record_violation(Error(f'nats: Permissions Violation for Publish to "$JS.API.{number}.{"y" * 9000}"'))
    assert refusals.summary is not None
    assert len(refusals.summary) < 50_000
    refusals.clear()
    assert refusals.summary is None


@pytest.mark.parametrize(
    ("message", "counts"),
    [
        ('nats: Permissions Violation for Subscription to "ems.api.get" using queue "q"', True),
        ('nats: permissions violation for publish to "ems.dlq.plan"', True),
        ('nats: Permissions Violation for Publish to "_INBOX.x"', False),
        ("nats: Permissions Violation", False),
        ("nats: maximum payload violation", False),
    ],
)
async def test_violations_of_our_own_work_count(message: str, counts: bool) -> None:
    """Every denied subscription counts, and a denied message if the worker sends it for its own work."""
    refusals = Refusals()
    assert refusals.record_violation(Error(message)) is counts
    assert (refusals.summary is not None) is counts
    assert not refusals.record_violation(Error(message)), "the second is not new"
    refusals.clear()


async def test_a_violation_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    """NATS doesn't report that a right was granted, so a violation that doesn't come again is over."""
    monkeypatch.setattr(refusals_module, "DENIED_SECONDS", 0.05)
    refusals = Refusals()
    refusals.record_violation(Error('nats: Permissions Violation for Publish to "$JS.ACK.S.C.1.2.3.4.5"'))
    assert refusals.summary is not None
    await wait.until(lambda: refusals.summary is None, what="the violation to expire")

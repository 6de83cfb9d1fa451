"""A broker that lets the worker in and refuses what it does: said with the subject and the broker's words."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import nats
import pytest
from nats.errors import Error

from ems_worker import errors
from ems_worker.adapters.jetstream import Broker, refusals
from ems_worker.adapters.jetstream.refusals import Refusals
from ems_worker.settings import Access
from tests.support import broker as support
from tests.support import servers, wait

PLANS_NEXT = "$JS.API.CONSUMER.MSG.NEXT.EMS_PLANS.ems-worker-plans"


@contextlib.asynccontextmanager
async def without_right(
    directory: Path, *denied: str
) -> AsyncIterator[tuple[Broker, support.Heard, servers.NatsServer]]:
    """A broker connected as a user who may publish everything but these subjects, after an admin made the streams."""
    deny = ", ".join(f'"{subject}"' for subject in denied)
    config = (
        "authorization { users: [ { user: admin, password: a },"
        f" {{ user: worker, password: w, permissions: {{ publish: {{ deny: [{deny}] }} }} }} ] }}\n"
    )
    heard = support.Heard()
    async with servers.NatsServer(directory, more=config) as server:
        async with Broker.connect(Access((server.url,), user="admin", password="a"), name="a", timeout=5) as admin:
            await admin.ensure(support.OWNER)
        access = Access((server.url,), user="worker", password="w")
        async with Broker.connect(access, name="test", timeout=5, on_error=heard.errors.append) as broker:
            await broker.ensure(support.OWNER)
            yield broker, heard, server


async def test_fetching_without_the_right_to_is_said(tmp_path: Path) -> None:
    """An idle worker would look well, and get nothing, for ever."""
    async with without_right(tmp_path, "$JS.API.CONSUMER.MSG.NEXT.>") as (broker, heard, _):
        for _ in range(2):
            assert await broker.plans() == []
        assert broker.refused == f'{PLANS_NEXT}: Permissions Violation for Publish to "{PLANS_NEXT}"'
        assert len(heard.errors) == 1
        assert broker.connected


async def test_acknowledging_without_the_right_to_is_said(tmp_path: Path) -> None:
    """Everything would come again every thirty seconds, and change nothing."""
    async with without_right(tmp_path, "$JS.ACK.>") as (broker, _, server):
        async with await nats.connect(server.url, user="admin", password="a") as client:
            for _ in range(3):
                await client.jetstream().publish("sim.run_completed", b"{}")
        messages = list(await broker.events())
        assert messages
        assert broker.refused is None
        await broker.ack(messages)
        said = await wait.until(lambda: broker.refused, what="the refusal")
        assert str(said).startswith("$JS.ACK.SIM_EVENTS.ems-worker-events: Permissions Violation for Publish to ")


@pytest.mark.parametrize("kind", ["result", "point", "decision", "status"])
async def test_publishing_without_the_right_to_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Also while it is being tried again, before the caller gets an error."""
    monkeypatch.setattr("ems_worker.adapters.jetstream.publish._GIVE_UP_SECONDS", 0.1)
    monkeypatch.setattr("ems_worker.adapters.jetstream.publish._ACK_SECONDS", 1.0)
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


async def test_a_reply_that_is_not_allowed_is_no_trouble(tmp_path: Path) -> None:
    """Whoever asks chooses its subject: he must not be able to make the worker look ill."""
    async with without_right(tmp_path, "_INBOX.of_others.>") as (broker, heard, _):
        await broker.reply("_INBOX.of_others.x", b"{}")
        await broker.publish([("ems.experiment.result.x", b"{}", "1")])
        assert broker.refused is None
        assert heard.errors == []


async def test_a_full_store_is_said_until_there_is_room(tmp_path: Path) -> None:
    """With JetStream's words; what could not be stored is stored then."""
    store = f'jetstream {{ store_dir: "{tmp_path}", max_file_store: 1MB }}\n'
    async with servers.NatsServer(tmp_path, more=store) as server:
        async with support.connected(server.url) as broker, support.plain(server) as (_, js):
            with contextlib.suppress(nats.js.errors.ServiceUnavailableError):
                for _ in range(20):
                    await js.publish("sim.run_metrics", b"x" * 100_000)
            publishing = asyncio.create_task(broker.publish([("ems.experiment.result.x", b"x" * 100_000, "1")]))
            said = await wait.until(lambda: broker.refused, what="the refusal")
            assert said == "ems.experiment.result: insufficient resources (10023)"
            await js.purge_stream("SIM_EVENTS")
            await publishing
            assert broker.refused is None


async def test_a_new_connection_begins_without_refusals(tmp_path: Path) -> None:
    """The next server may have other rights, or the operator mended them."""
    async with without_right(tmp_path, "$JS.API.CONSUMER.MSG.NEXT.>") as (broker, _, server):
        await broker.plans()
        assert broker.refused is not None
        await server.kill()
        await wait.until(lambda: broker.refused is None, what="no refusals")


async def test_refusals_are_bounded() -> None:
    """However many subjects are refused, and however long they and the words for them are."""
    found = Refusals()
    for number in range(1000):
        found.note(f"ems.experiment.x{number}", "w" * 10_000)
        found.note_violation(Error(f'nats: Permissions Violation for Publish to "$JS.API.{number}.{"y" * 9000}"'))
    assert found.words is not None
    assert len(found.words) < 50_000
    found.clear()
    assert found.words is None


@pytest.mark.parametrize(
    ("words", "news"),
    [
        ('nats: Permissions Violation for Subscription to "ems.api.get" using queue "q"', True),
        ('nats: permissions violation for publish to "ems.dlq.plan"', True),
        ('nats: Permissions Violation for Publish to "_INBOX.x"', False),
        ("nats: Permissions Violation", False),
        ("nats: maximum payload violation", False),
    ],
)
async def test_violations_are_read(words: str, news: bool) -> None:
    """Of subscriptions, all; of messages, those that the worker sends on its own account."""
    found = Refusals()
    assert found.note_violation(Error(words)) is news
    assert (found.words is not None) is news
    assert not found.note_violation(Error(words))
    found.clear()


async def test_a_violation_that_does_not_come_again_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """NATS doesn't say that a right was granted."""
    monkeypatch.setattr(refusals, "_DENIED_SECONDS", 0.05)
    found = Refusals()
    found.note_violation(Error('nats: Permissions Violation for Publish to "$JS.ACK.S.C.1.2.3.4.5"'))
    assert found.words is not None
    await wait.until(lambda: found.words is None, what="its end")

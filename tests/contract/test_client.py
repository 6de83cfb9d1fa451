"""The client with a real nats-server: connecting, publishing, decisions and statuses."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig
from nats.micro.request import ServiceError

from ems_worker import client, errors
from ems_worker.local import nats_server, ports
from tests.support import servers, stub_worker, wait


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[servers.NatsServer]:
    async with servers.NatsServer(tmp_path / "nats") as started:
        yield started


@pytest.fixture
async def other(server: servers.NatsServer) -> AsyncIterator[Client]:
    """The connection of the worker's side."""
    async with stub_worker.connection(server.url) as connection:
        yield connection


@pytest.fixture
async def streams(other: Client) -> None:
    """The streams that a worker creates."""
    await stub_worker.create_streams(other)


@pytest.fixture
async def ems(server: servers.NatsServer) -> AsyncIterator[client.EmsClient]:
    async with client.EmsClient(server.url, request_timeout=5) as connected:
        yield connected


async def test_a_missing_server_is_reported_within_the_timeout() -> None:
    """The error has the address without its password, the reason and the remedy."""
    url = f"nats://user:secret@127.0.0.1:{ports.free_port()}"
    with pytest.raises(errors.BrokerUnavailable, match=r"\*\*\*@127\.0\.0\.1:\d+ \(connection refused\)") as caught:
        async with asyncio.timeout(5), client.EmsClient(url, connect_timeout=0.5):
            pass
    assert "secret" not in str(caught.value)
    assert "--server" in str(caught.value)


async def test_a_silent_port_is_not_a_server() -> None:
    """Connecting to a program that accepts connections and sends nothing fails at the timeout."""

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            writer.close()

    listener = await asyncio.start_server(mute, ports.LOOPBACK, 0)
    async with listener:
        address = "{}:{}".format(*listener.sockets[0].getsockname())
        with pytest.raises(errors.BrokerUnavailable, match="no answer"):
            async with client.EmsClient(address, connect_timeout=0.5):
                pass


async def test_publishing_without_a_stream_fails_with_the_remedy(ems: client.EmsClient) -> None:
    """A plan that no stream stores would be lost, so publishing it is an error."""
    with pytest.raises(errors.BrokerMisconfigured, match=r"no worker has ever run there.*EMS_PLANS"):
        await ems.publish(b"plan")


@pytest.mark.parametrize("account", [True, False], ids=["for the account", "for the server"])
async def test_publishing_without_jetstream_fails_with_the_remedy(tmp_path: Path, account: bool) -> None:
    """If JetStream is off, for the account or the server, the error says how to turn it on."""
    async with contextlib.AsyncExitStack() as stack:
        if account:
            more = "accounts { A: {jetstream: enabled}, B: {users: [{user: b, password: b}]} }\nno_auth_user: b\n"
            url = (await stack.enter_async_context(servers.NatsServer(tmp_path / "nats", more=more))).url
        else:
            port = ports.free_port()
            url = f"nats://{ports.LOOPBACK}:{port}"
            command = [str(nats_server.find_executable()), "-a", ports.LOOPBACK, "-p", str(port)]
            await stack.enter_async_context(servers.Program("nats-server", command, log=tmp_path / "log"))
            await wait.until(lambda: "Server is ready" in (tmp_path / "log").read_text(), what="nats-server")
        async with client.EmsClient(url) as ems:
            with pytest.raises(errors.BrokerMisconfigured, match=r"JetStream off.*--jetstream"):
                await ems.publish(b"plan")


@pytest.mark.usefixtures("streams")
async def test_a_plan_is_stored_with_a_message_id_of_its_own(ems: client.EmsClient, other: Client) -> None:
    """Publishing a plan twice gives two submissions, and the publisher is a token of the subject."""
    first = await ems.publish(b"plan", content_type="application/yaml")
    second = await ems.publish(b"plan", publisher="evolution")
    assert (first.stream, first.seq, second.seq) == ("EMS_PLANS", 1, 2)
    stored = await other.jetstream().get_msg("EMS_PLANS", 1)
    assert stored.headers is not None
    assert stored.headers["Content-Type"] == "application/yaml"
    assert stored.headers["Nats-Msg-Id"]
    assert (await other.jetstream().get_msg("EMS_PLANS", 2)).subject == "ems.experiment.submit.evolution"


@pytest.mark.usefixtures("streams")
async def test_publishing_to_a_full_stream_is_refused(ems: client.EmsClient, other: Client) -> None:
    """The error contains the server's message."""
    subjects = ["ems.experiment.submit", "ems.experiment.submit.*"]
    full = StreamConfig(name="EMS_PLANS", subjects=subjects, max_msgs=1, discard="new")  # type: ignore[arg-type]  # its text
    await other.jetstream().update_stream(full)
    await ems.publish(b"plan")
    with pytest.raises(errors.RequestRefused, match="maximum messages exceeded"):
        await ems.publish(b"plan")


@pytest.mark.usefixtures("streams")
async def test_a_decision_is_received_whenever_it_is_published(ems: client.EmsClient, other: Client) -> None:
    """`decision` returns a decision that was published before the call or is published after it."""
    early, late = await ems.publish(b"a"), await ems.publish(b"b")
    await stub_worker.publish_decision(other, early.seq, "accepted")
    assert (await ems.decision(early.seq, timeout=5))["decision"] == "accepted"
    waiting = asyncio.create_task(ems.decision(late.seq, timeout=10))
    await stub_worker.publish_decision(other, late.seq, "rejected")
    assert (await waiting)["decision"] == "rejected"


@pytest.mark.usefixtures("streams")
async def test_no_decision_in_time_is_an_error(ems: client.EmsClient) -> None:
    """Without a decision within the timeout the error is NoAnswer."""
    ack = await ems.publish(b"plan")
    with pytest.raises(errors.NoAnswer, match=r"0\.2 s"):
        await ems.decision(ack.seq, timeout=0.2)


@pytest.mark.usefixtures("streams")
async def test_a_decision_on_a_plan_of_a_former_stream_is_ignored(ems: client.EmsClient, other: Client) -> None:
    """A recreated stream of plans numbers them from 1 again, and earlier decisions are not about its plans."""
    await stub_worker.publish_decision(other, 1, "former")
    await other.jetstream().delete_stream("EMS_PLANS")
    await other.jetstream().add_stream(name="EMS_PLANS", subjects=["ems.experiment.submit"])
    ack = await ems.publish(b"plan")
    assert ack.seq == 1
    with pytest.raises(errors.NoAnswer):
        await ems.decision(1, timeout=0.3)
    await stub_worker.publish_decision(other, 1, "ours")
    assert (await ems.decision(1, timeout=5))["decision"] == "ours"


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize(
    ("kind", "expected"), [("decision.1", {"decision": "ours"}), ("status.e", {"revision": 1, "state": "completed"})]
)
async def test_foreign_messages_on_the_subject_are_ignored(
    ems: client.EmsClient, other: Client, kind: str, expected: dict[str, Any]
) -> None:
    """An acknowledgement directed to the subject, another experiment's status and invalid JSON are not returned."""
    subject = f"ems.experiment.{kind}"
    await other.publish("ems.experiment.submit", b"plan", reply=subject)

    async def acknowledged() -> bool:
        return (await other.jetstream().stream_info("EMS_STATUS")).state.messages == 1

    await wait.until(acknowledged, what="the acknowledgement on the subject")
    waiting = asyncio.create_task(ems.decision(1, timeout=10) if kind == "decision.1" else ems.wait("e"))
    for junk in (b"junk", b"[]", b'{"experiment_id": "other", "revision": 9, "state": "completed"}'):
        await other.jetstream().publish(subject, junk)
    await stub_worker.publish_decision(other, 1, "ours")
    await stub_worker.publish_status(other, 1, "completed")
    document = await waiting
    assert expected.items() <= document.items()


@pytest.mark.usefixtures("streams")
async def test_watch_begins_with_the_last_status_and_ends_with_a_terminal_one(
    ems: client.EmsClient, other: Client
) -> None:
    """Outdated revisions, which may arrive late, are dropped."""
    await stub_worker.publish_status(other, 5)
    seen: list[int] = []
    async with contextlib.aclosing(ems.watch("e")) as statuses:
        async for status in statuses:
            seen.append(status["revision"])
            if status["revision"] == 5:
                for revision, state in ((4, "running"), (5, "running"), (6, "running"), (7, "completed")):
                    await stub_worker.publish_status(other, revision, state)
    assert seen == [5, 6, 7]


@pytest.mark.usefixtures("streams")
async def test_a_watch_survives_a_crash_of_the_server(server: servers.NatsServer, other: Client) -> None:
    """A terminal status that is published while the client is disconnected is received, and notices are given."""
    notices: list[str] = []
    async with client.EmsClient(server.url, notice=notices.append) as ems:
        await stub_worker.publish_status(other, 1)
        statuses = ems.watch("e")
        assert (await anext(statuses))["revision"] == 1
        await server.kill()
        await wait.until(lambda: notices, what="the client to notice")
        await server.start()
        await wait.until(lambda: other.is_connected, what="the worker's side to reconnect")
        await stub_worker.publish_status(other, 2, "completed")
        assert (await anext(statuses))["revision"] == 2
        await statuses.aclose()
    assert notices[0].startswith("the connection to NATS is lost")


@pytest.mark.usefixtures("streams")
async def test_waiting_for_an_unknown_experiment_is_an_error(ems: client.EmsClient, other: Client) -> None:
    """Without a stored status the client asks the worker, which doesn't know the experiment."""

    def unknown(request: dict[str, Any]) -> None:
        raise ServiceError("404", f"there is no experiment {request['experiment_id']}")

    await stub_worker.serve(other, "get", unknown)
    for call in (ems.wait("nobody"), ems.get("nobody")):
        with pytest.raises(errors.NotFound, match="there is no experiment nobody"):
            await call


@pytest.mark.parametrize("name", ["", "a.b", "*", ">", "two words", "x" * 65])
async def test_an_invalid_id_is_not_found(ems: client.EmsClient, name: str) -> None:
    """An invalid id, which might be a wildcard, is never made into a subject."""
    for call in (ems.get(name), ems.wait(name)):
        with pytest.raises(errors.NotFound):
            await call

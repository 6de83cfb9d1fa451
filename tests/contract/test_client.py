"""The client against a real nats-server: what it promises whatever the worker and the network do.

The worker's side of the queries is played by a small service with the same protocol.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import nats
import nats.micro
import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig
from nats.micro.request import Request, ServiceError

from ems_worker import client, errors
from ems_worker.local import nats_server, ports
from tests.support import processes, servers, wait

Answer = Callable[[dict[str, Any]], Any]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[servers.NatsServer]:
    async with servers.NatsServer(tmp_path / "nats") as started:
        yield started


@pytest.fixture
async def other(server: servers.NatsServer) -> AsyncIterator[Client]:
    """The other side's connection."""
    connection = await nats.connect(server.url, error_cb=_silent, reconnect_time_wait=0, max_reconnect_attempts=-1)
    yield connection
    await connection.close()


@pytest.fixture
async def streams(other: Client) -> None:
    """The streams that a worker makes."""
    await make_streams(other)


@pytest.fixture
async def ems(server: servers.NatsServer) -> AsyncIterator[client.EmsClient]:
    async with client.EmsClient(server.url, request_timeout=5) as connected:
        yield connected


async def _silent(error: Exception) -> None:
    """Lost connections are what some of these tests are about."""


async def make_streams(other: Client) -> None:
    plans = StreamConfig(name="EMS_PLANS", subjects=["ems.experiment.submit", "ems.experiment.submit.*"])
    subjects = ["ems.experiment.status.*", "ems.experiment.decision.*"]
    status = StreamConfig(name="EMS_STATUS", subjects=subjects, max_msgs_per_subject=1, allow_direct=True)
    for config in (plans, status):
        await other.jetstream().add_stream(config)


async def publish_status(other: Client, revision: int, state: str = "running") -> None:
    document = {"experiment_id": "e", "revision": revision, "state": state}
    await other.jetstream().publish("ems.experiment.status.e", json.dumps(document).encode())


async def publish_decision(other: Client, seq: int, decision: str) -> None:
    document = {"decision": decision, "submission": {"stream": "EMS_PLANS", "seq": seq}}
    await other.jetstream().publish(f"ems.experiment.decision.{seq}", json.dumps(document).encode())


async def serve(other: Client, verb: str, answer: Answer) -> None:
    """Answers one query as the worker does."""
    service = await nats.micro.add_service(other, name="ems", version="1.0.0")

    async def handle(request: Request) -> None:
        await request.respond(json.dumps(answer(json.loads(request.data))).encode())

    await service.add_group(name="ems.api").add_endpoint(name=verb, handler=handle)
    await heard(other)


async def heard(other: Client) -> None:
    """Returns once the server knows the subscriptions: nats-py's flush may overtake them, a request can't."""
    await other.request("$JS.API.INFO", timeout=5)


async def test_no_server_is_said_within_the_timeout() -> None:
    """With the address, the reason and what to do; a password in the address is not repeated."""
    url = f"nats://user:secret@127.0.0.1:{ports.free_port()}"
    with pytest.raises(errors.BrokerUnavailable, match=r"\*\*\*@127\.0\.0\.1:\d+ \(connection refused\)") as caught:
        async with asyncio.timeout(5), client.EmsClient(url, connect_timeout=0.5):
            pass
    assert "secret" not in str(caught.value)
    assert "--server" in str(caught.value)


async def test_a_port_that_says_nothing_is_no_server(tmp_path: Path) -> None:
    """It ends like one that nobody listens on."""

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


async def test_plans_without_a_stream_are_refused_with_the_remedy(ems: client.EmsClient) -> None:
    """Nobody would ever find them."""
    with pytest.raises(errors.BrokerMisconfigured, match=r"no worker has ever run there.*EMS_PLANS"):
        await ems.publish(b"plan")


@pytest.mark.parametrize("account", [True, False], ids=["for the account", "altogether"])
async def test_where_jetstream_is_off_the_remedy_is_to_turn_it_on(tmp_path: Path, account: bool) -> None:
    """A worker can't make the stream either."""
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


async def test_an_answer_that_cannot_be_smaller_says_what_helps(ems: client.EmsClient, other: Client) -> None:
    """One configuration, or a page of one: nobody can ask for fewer."""

    def too_large(asked: dict[str, Any]) -> Any:
        raise ServiceError("413", "the reply has 2 bytes and the server takes 1: ask for fewer")

    for verb in ("config", "points"):
        await serve(other, verb, too_large)
    with pytest.raises(errors.RequestRefused, match=r"1,048,576 bytes.*raise max_payload"):
        await ems.config("reef-p000000-r000-a1")
    with pytest.raises(errors.RequestRefused, match=r"1,048,576 bytes.*raise max_payload"):
        async for _ in ems.points("reef"):
            pass


@pytest.mark.usefixtures("streams")
async def test_a_plan_is_stored_with_a_message_id_of_its_own(ems: client.EmsClient, other: Client) -> None:
    """The same plan twice is two submissions; its publisher is a token of the subject."""
    first = await ems.publish(b"plan", content_type="application/yaml")
    second = await ems.publish(b"plan", publisher="evolution")
    assert (first.stream, first.seq, second.seq) == ("EMS_PLANS", 1, 2)
    stored = await other.jetstream().get_msg("EMS_PLANS", 1)
    assert stored.headers is not None
    assert stored.headers["Content-Type"] == "application/yaml"
    assert stored.headers["Nats-Msg-Id"]
    assert (await other.jetstream().get_msg("EMS_PLANS", 2)).subject == "ems.experiment.submit.evolution"


@pytest.mark.usefixtures("streams")
async def test_a_full_stream_is_said_so(ems: client.EmsClient, other: Client) -> None:
    """The server's words are in the error."""
    subjects = ["ems.experiment.submit", "ems.experiment.submit.*"]
    full = StreamConfig(name="EMS_PLANS", subjects=subjects, max_msgs=1, discard="new")  # type: ignore[arg-type]  # its text
    await other.jetstream().update_stream(full)
    await ems.publish(b"plan")
    with pytest.raises(errors.RequestRefused, match="maximum messages exceeded"):
        await ems.publish(b"plan")


@pytest.mark.usefixtures("streams")
async def test_a_decision_is_found_whether_it_came_before_or_comes_later(ems: client.EmsClient, other: Client) -> None:
    """Nobody has to subscribe in time."""
    early, late = await ems.publish(b"a"), await ems.publish(b"b")
    await publish_decision(other, early.seq, "accepted")
    assert (await ems.decision(early.seq, timeout=5))["decision"] == "accepted"
    waiting = asyncio.create_task(ems.decision(late.seq, timeout=10))
    await publish_decision(other, late.seq, "rejected")
    assert (await waiting)["decision"] == "rejected"


@pytest.mark.usefixtures("streams")
async def test_no_decision_in_time_is_no_answer(ems: client.EmsClient) -> None:
    """The plan stays stored."""
    ack = await ems.publish(b"plan")
    with pytest.raises(errors.NoAnswer, match=r"0\.2 s"):
        await ems.decision(ack.seq, timeout=0.2)


@pytest.mark.usefixtures("streams")
async def test_a_decision_about_a_namesake_is_not_taken_for_ours(ems: client.EmsClient, other: Client) -> None:
    """A stream of plans made anew counts from 1 again; what was decided about the old number 1 is not about ours."""
    await publish_decision(other, 1, "of the old one")
    await other.jetstream().delete_stream("EMS_PLANS")
    await other.jetstream().add_stream(name="EMS_PLANS", subjects=["ems.experiment.submit"])
    ack = await ems.publish(b"plan")
    assert ack.seq == 1
    with pytest.raises(errors.NoAnswer):
        await ems.decision(1, timeout=0.3)
    await publish_decision(other, 1, "ours")
    assert (await ems.decision(1, timeout=5))["decision"] == "ours"


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("kind", ["decision.1", "status.e"])
async def test_what_the_broker_was_made_to_put_there_is_no_document(
    ems: client.EmsClient, other: Client, kind: str
) -> None:
    """An acknowledgement whose reply subject somebody chose, another's status, and what isn't JSON are passed over."""
    await other.publish("ems.experiment.submit", b"plan", reply=f"ems.experiment.{kind}")
    asked = asyncio.create_task(ems.decision(1, timeout=10) if kind == "decision.1" else ems.wait("e"))
    await other.jetstream().publish("ems.experiment.submit", b"plan")
    for junk in (b"junk", b"[]", b'{"experiment_id": "other", "revision": 9, "state": "completed"}'):
        await other.jetstream().publish(f"ems.experiment.{kind}", junk)
    await publish_decision(other, 1, "ours")
    await publish_status(other, 1, "completed")
    assert (await asked).get("experiment_id", "ours") in ("ours", "e")


@pytest.mark.usefixtures("streams")
async def test_watch_begins_with_the_last_status_and_ends_with_a_terminal_one(
    ems: client.EmsClient, other: Client
) -> None:
    """Older revisions, which may come late, are dropped."""
    await publish_status(other, 5)
    seen: list[int] = []
    async with contextlib.aclosing(ems.watch("e")) as statuses:
        async for status in statuses:
            seen.append(status["revision"])
            if status["revision"] == 5:
                for revision, state in ((4, "running"), (5, "running"), (6, "running"), (7, "completed")):
                    await publish_status(other, revision, state)
    assert seen == [5, 6, 7]


@pytest.mark.usefixtures("streams")
async def test_a_watch_outlives_a_server_that_crashes(server: servers.NatsServer, other: Client) -> None:
    """A terminal status that was published while the client was away is found all the same; the user is told."""
    notices: list[str] = []
    async with client.EmsClient(server.url, notice=notices.append) as ems:
        await publish_status(other, 1)
        statuses = ems.watch("e")
        assert (await anext(statuses))["revision"] == 1
        await server.kill()
        await wait.until(lambda: notices, what="the client to notice")
        await server.start()
        await wait.until(lambda: other.is_connected, what="the other side to be back")
        await publish_status(other, 2, "completed")
        assert (await anext(statuses))["revision"] == 2
        await statuses.aclose()
    assert notices[0].startswith("the connection to NATS is lost")


@pytest.mark.usefixtures("streams")
async def test_an_experiment_that_nobody_knows_is_not_waited_for(ems: client.EmsClient, other: Client) -> None:
    """The worker is asked where there is no status."""

    def unknown(request: dict[str, Any]) -> None:
        raise ServiceError("404", f"there is no experiment {request['experiment_id']}")

    await serve(other, "get", unknown)
    for question in (ems.wait("nobody"), ems.get("nobody")):
        with pytest.raises(errors.NotFound, match="there is no experiment nobody"):
            await question


@pytest.mark.parametrize("name", ["", "a.b", "*", ">", "two words", "x" * 65])
async def test_what_is_no_id_is_not_found(ems: client.EmsClient, name: str) -> None:
    """It would be several subject tokens, or a wildcard."""
    for question in (ems.get(name), ems.wait(name)):
        with pytest.raises(errors.NotFound):
            await question


async def test_without_a_worker_queries_say_so(ems: client.EmsClient) -> None:
    """At once, with the remedy."""
    with pytest.raises(errors.WorkerUnavailable, match="no worker answers"):
        await ems.get("e")


@pytest.mark.parametrize(
    ("code", "kind"),
    [("404", errors.NotFound), ("400", errors.RequestRefused), ("500", errors.RequestRefused)],
)
async def test_errors_of_the_service_are_ours(
    ems: client.EmsClient, other: Client, code: str, kind: type[errors.EmsError]
) -> None:
    """With the worker's words."""

    def refuse(request: dict[str, Any]) -> None:
        raise ServiceError(code, "the reason")

    await serve(other, "get", refuse)
    with pytest.raises(kind, match="the reason"):
        await ems.get("e")


async def test_pages_follow_one_another(ems: client.EmsClient, other: Client) -> None:
    """To the last, each document once; filters go with every request."""
    asked: list[dict[str, Any]] = []

    def page(request: dict[str, Any]) -> dict[str, Any]:
        asked.append(request)
        start = int(request.get("cursor", 0))
        rows = list(range(start, min(start + request["limit"], 150)))
        return {"jobs": [{"point": row} for row in rows], "cursor": str(rows[-1] + 1) if rows[-1] < 149 else None}

    await serve(other, "jobs", page)
    assert [job["point"] async for job in ems.jobs("e", state="failed", attempts=True)] == list(range(150))
    assert len(asked) > 1
    assert all((one["experiment_id"], one["state"], one["attempts"]) == ("e", "failed", True) for one in asked)


async def test_pages_that_do_not_fit_are_asked_for_smaller(ems: client.EmsClient, other: Client) -> None:
    """Rows of any size come through; one that is too large by itself is said so."""
    most = 5

    def page(request: dict[str, Any]) -> dict[str, Any]:
        if request["limit"] > most:
            raise ServiceError("413", "too large")
        start = request["after_seq"]
        rows = list(range(start + 1, min(start + request["limit"], 20) + 1))
        return {"results": [{"seq": row} for row in rows], "after_seq": rows[-1], "more": rows[-1] < 20}

    await serve(other, "results", page)
    assert [one["seq"] async for one in ems.results("e", after_seq=3)] == list(range(4, 21))
    most = 0
    with pytest.raises(errors.RequestRefused, match="raise max_payload"):
        _ = [one async for one in ems.results("e")]


async def test_a_configuration_is_put_together_from_its_parts(ems: client.EmsClient, other: Client) -> None:
    """Offsets count characters, not bytes."""
    text = "größe: 1\n" * 10

    def part(request: dict[str, Any]) -> dict[str, Any]:
        start = request.get("offset", 0)
        end = start + 7
        shas = {"seed": 1, "config_sha": None, "computed_sha": "c"}
        return {**shas, "config": text[start:end], "next_offset": end if end < len(text) else None}

    await serve(other, "config", part)
    config = await ems.config("e-p000000-r000-a1")
    assert (config.content, config.seed, config.config_sha, config.computed_sha) == (text, 1, None, "c")


async def test_a_worker_that_does_not_answer_in_time_is_no_answer(server: servers.NatsServer, other: Client) -> None:
    """It may be busy, or hang: it is named, not NATS, which is well."""

    async def mute(message: Any) -> None:
        """Hears, and says nothing."""

    await other.subscribe("ems.api.get", cb=mute)
    await heard(other)
    async with client.EmsClient(server.url, request_timeout=0.2) as ems:
        with pytest.raises(errors.NoAnswer, match=r"the worker did not answer within 0\.2 s: .*ems-worker health"):
            await ems.get("e")


async def test_a_nats_server_that_hangs_is_not_taken_for_a_worker_that_does(
    server: servers.NatsServer, other: Client
) -> None:
    """Without its PONG nobody knows about the worker."""
    await serve(other, "get", lambda _: {})
    async with client.EmsClient(server.url, request_timeout=0.2) as ems:
        processes.stop(server.pid)
        try:
            with pytest.raises(errors.NoAnswer, match=r"no answer from nats://127\.0\.0\.1:\d+ in time"):
                await ems.get("e")
        finally:
            os.kill(server.pid, signal.SIGCONT)

"""The client's queries with a real nats-server. A small service with the worker's protocol answers them."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.micro.request import ServiceError

from ems_worker import client, errors
from tests.support import broker, processes, servers, stub_worker


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
async def ems(server: servers.NatsServer) -> AsyncIterator[client.EmsClient]:
    async with client.EmsClient(server.url, request_timeout=5) as connected:
        yield connected


async def test_a_query_without_a_worker_fails_with_the_remedy(ems: client.EmsClient) -> None:
    """The error says how to start a worker."""
    with pytest.raises(errors.WorkerUnavailable, match=r"no worker answers .*ems-worker run"):
        await ems.get("e")


@pytest.mark.parametrize(
    ("code", "kind"),
    [("404", errors.NotFound), ("400", errors.RequestRefused), ("500", errors.RequestRefused)],
)
async def test_errors_of_the_service_are_translated(
    ems: client.EmsClient, other: Client, code: str, kind: type[errors.EmsError]
) -> None:
    """The error has the kind for its code, and the worker's message."""

    def refuse(request: dict[str, Any]) -> None:
        raise ServiceError(code, "the reason")

    await stub_worker.serve(other, "get", refuse)
    with pytest.raises(kind, match="the reason"):
        await ems.get("e")


async def test_all_pages_are_read(ems: client.EmsClient, other: Client) -> None:
    """Each document is yielded once, and every request has the filters."""
    requests: list[dict[str, Any]] = []

    def page(request: dict[str, Any]) -> dict[str, Any]:
        requests.append(request)
        start = int(request.get("cursor", 0))
        rows = list(range(start, min(start + request["limit"], 150)))
        return {"jobs": [{"point": row} for row in rows], "cursor": str(rows[-1] + 1) if rows[-1] < 149 else None}

    await stub_worker.serve(other, "jobs", page)
    assert [job["point"] async for job in ems.jobs("e", state="failed", attempts=True)] == list(range(150))
    assert len(requests) > 1
    filters = {(request["experiment_id"], request["state"], request["attempts"]) for request in requests}
    assert filters == {("e", "failed", True)}


async def test_pages_that_do_not_fit_are_requested_smaller(ems: client.EmsClient, other: Client) -> None:
    """Pages shrink until they fit, and a document that never fits is an error."""
    max_rows = 5

    def page(request: dict[str, Any]) -> dict[str, Any]:
        if request["limit"] > max_rows:
            raise ServiceError("413", "too large")
        start = request["after_seq"]
        rows = list(range(start + 1, min(start + request["limit"], 20) + 1))
        return {"results": [{"seq": row} for row in rows], "after_seq": rows[-1], "more": rows[-1] < 20}

    await stub_worker.serve(other, "results", page)
    assert [result["seq"] async for result in ems.results("e", after_seq=3)] == list(range(4, 21))
    max_rows = 0
    with pytest.raises(errors.RequestRefused, match="raise max_payload"):
        _ = [result async for result in ems.results("e")]


async def test_a_configuration_is_joined_from_its_parts(ems: client.EmsClient, other: Client) -> None:
    """Offsets count characters rather than bytes."""
    text = "größe: 1\n" * 10

    def part(request: dict[str, Any]) -> dict[str, Any]:
        start = request.get("offset", 0)
        end = start + 7
        shas = {"seed": 1, "config_sha": None, "computed_sha": "c"}
        return {**shas, "config": text[start:end], "next_offset": end if end < len(text) else None}

    await stub_worker.serve(other, "config", part)
    config = await ems.config("e-p000000-r000-a1")
    assert (config.content, config.seed, config.config_sha, config.computed_sha) == (text, 1, None, "c")


async def test_a_worker_that_does_not_answer_is_named(server: servers.NatsServer, other: Client) -> None:
    """If NATS works and the worker is busy or hangs, the error is about the worker."""

    async def mute(message: Any) -> None:
        """Receives requests without answering."""

    await other.subscribe("ems.api.get", cb=mute)
    await broker.subscribed(other)
    async with client.EmsClient(server.url, request_timeout=0.2) as ems:
        with pytest.raises(errors.NoAnswer, match=r"the worker did not answer within 0\.2 s: .*ems-worker health"):
            await ems.get("e")


async def test_a_nats_server_that_hangs_is_named(server: servers.NatsServer, other: Client) -> None:
    """If NATS doesn't answer a PING either, the error is about NATS."""
    await stub_worker.serve(other, "get", lambda _: {})
    async with client.EmsClient(server.url, request_timeout=0.2) as ems:
        processes.stop(server.pid)
        try:
            with pytest.raises(errors.NoAnswer, match=r"no answer from nats://127\.0\.0\.1:\d+ in time"):
                await ems.get("e")
        finally:
            os.kill(server.pid, signal.SIGCONT)


async def test_a_reply_that_is_too_large_names_the_remedy(ems: client.EmsClient, other: Client) -> None:
    """If the smallest possible reply exceeds the server's limit, the error names the setting to raise."""

    def too_large(request: dict[str, Any]) -> Any:
        raise ServiceError("413", "the reply is too large")

    for verb in ("config", "points"):
        await stub_worker.serve(other, verb, too_large)
    with pytest.raises(errors.RequestRefused, match=r"1,048,576 bytes.*raise max_payload"):
        await ems.config("reef-p000000-r000-a1")
    with pytest.raises(errors.RequestRefused, match=r"1,048,576 bytes.*raise max_payload"):
        async for _ in ems.points("reef"):
            pass

"""Plans larger than the server's max_payload: how the client sends them, and how the worker reads them."""

import gzip
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ems_worker import client, errors
from ems_worker.adapters import plan_codec
from ems_worker.adapters.jetstream import Broker
from tests.support import broker as support
from tests.support import servers

BUCKET = "EMS_PLAN_OBJECTS"
MOST = 16 * 2**20


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[servers.NatsServer]:
    async with servers.NatsServer(tmp_path / "nats") as started:
        yield started


@pytest.fixture
async def broker(server: servers.NatsServer) -> AsyncIterator[Broker]:
    async with support.connected(server.url) as connected:
        yield connected


def noise(size: int) -> bytes:
    """Text that compresses only slightly: to a bit more than half its size."""
    return random.Random(7).randbytes(size // 2).hex().encode()


async def stored(server: servers.NatsServer, plan: bytes) -> tuple[bytes, dict[str, str]]:
    """The message that the client publishes for a plan, and its headers."""
    async with client.EmsClient(server.url, publisher="evolution") as ems:
        ack = await ems.publish(plan, content_type="application/json")
    async with support.plain(server) as (_, js):
        message = await js.get_msg("EMS_PLANS", ack.seq)
        assert message.subject == "ems.experiment.submit.evolution"
        return message.data or b"", dict(message.headers or {})


@pytest.mark.usefixtures("broker")
async def test_a_plan_that_fits_is_sent_unchanged(server: servers.NatsServer) -> None:
    """That includes a plan slightly below the limit, which leaves room for the headers."""
    plan = noise(2**20 - 4096)
    data, headers = await stored(server, plan)
    assert data == plan
    assert "Content-Encoding" not in headers


@pytest.mark.usefixtures("broker")
async def test_a_plan_that_fits_when_compressed_is_one_message(server: servers.NatsServer) -> None:
    """It needs no object, which could be missing; its headers show the encoding."""
    plan = b"[" + b"0.5, " * 1_000_000 + b"0]"
    data, headers = await stored(server, plan)
    assert gzip.decompress(data) == plan
    assert (headers["Content-Encoding"], headers["Content-Type"]) == ("gzip", "application/json")
    assert "Ems-Plan-Object" not in headers


async def test_a_larger_plan_is_sent_through_the_object_store(server: servers.NatsServer, broker: Broker) -> None:
    """The message names the object and its digest, and the worker reads the same bytes."""
    plan = noise(8 * 2**20)
    data, headers = await stored(server, plan)
    assert data == b""
    content = await broker.plan_object(headers["Ems-Plan-Object"], MOST)
    assert plan_codec.unpack(content, MOST) == plan


@pytest.mark.parametrize("most", [4096, 16 * 1024, 128 * 1024])
async def test_the_chunks_of_an_object_fit_into_messages(tmp_path: Path, most: int) -> None:
    """That holds even if the server's max_payload is below the usual size of a chunk."""
    async with servers.NatsServer(tmp_path / "nats", more=f"max_payload: {most}\n") as server:
        async with support.connected(server.url) as broker:
            plan = noise(400_000)
            _, headers = await stored(server, plan)
            content = await broker.plan_object(headers["Ems-Plan-Object"], MOST)
            assert plan_codec.unpack(content, MOST) == plan


async def test_a_large_plan_without_an_object_store_is_refused_with_the_remedy(server: servers.NatsServer) -> None:
    """An operator may forbid the worker to create the store."""
    async with support.connected(server.url), support.plain(server) as (_, js):
        await js.delete_object_store(BUCKET)
        async with client.EmsClient(server.url) as ems:
            with pytest.raises(errors.BrokerMisconfigured, match=f"{BUCKET}.*ems-worker run"):
                await ems.publish(noise(4 * 2**20))


async def test_an_object_of_another_client_is_read(server: servers.NatsServer, broker: Broker) -> None:
    """It may have chunks of another size, any name, or no content; the latest version counts."""
    async with support.plain(server) as (_, js):
        bucket = await js.object_store(BUCKET)
        for name, content in (("plän/é one", b"first"), ("plän/é one", noise(300_000)), ("empty", b"")):
            await bucket.put(name, content)
            assert await broker.plan_object(name, MOST) == content


async def test_an_object_that_is_missing_or_incomplete_is_an_error(server: servers.NatsServer, broker: Broker) -> None:
    """It may never have existed, be deleted, lack a chunk, be too large, or have other bytes than its digest."""
    async with support.plain(server) as (_, js):
        bucket = await js.object_store(BUCKET)
        with pytest.raises(errors.NotFound, match="no object 'none'"):
            await broker.plan_object("none", MOST)

        await bucket.put("gone", b"x")
        await bucket.delete("gone")
        with pytest.raises(errors.NotFound):
            await broker.plan_object("gone", MOST)

        info = await bucket.put("torn", noise(300_000))
        with pytest.raises(errors.RequestRefused, match="300,000 bytes"):
            await broker.plan_object("torn", 299_999)
        await js.purge_stream(f"OBJ_{BUCKET}", subject=f"$O.{BUCKET}.C.{info.nuid}", keep=1)
        with pytest.raises(errors.NotFound, match="a part of"):
            await broker.plan_object("torn", MOST)

        info = await bucket.put("swapped", b"right")
        await js.purge_stream(f"OBJ_{BUCKET}", subject=f"$O.{BUCKET}.C.{info.nuid}")
        await js.publish(f"$O.{BUCKET}.C.{info.nuid}", b"wrong")
        with pytest.raises(errors.RequestRefused, match="damaged"):
            await broker.plan_object("swapped", MOST)


async def test_an_object_store_that_the_worker_can_not_read_is_refused_at_the_start(server: servers.NatsServer) -> None:
    """Large plans would wait in it indefinitely. An existing store that can be read is used unchanged."""
    async with support.plain(server) as (_, js):
        await js.create_object_store(BUCKET, description="the operator's own")
        async with support.connected(server.url) as broker:
            await broker.ensure(support.OWNER)
        await js.delete_object_store(BUCKET)
        await js.add_stream(name=f"OBJ_{BUCKET}", subjects=["elsewhere"])
        async with support.connected(server.url, ensure=False) as broker:
            with pytest.raises(errors.BrokerMisconfigured, match="allow-direct"):
                await broker.ensure(support.OWNER)
            await js.delete_stream(f"OBJ_{BUCKET}")
            await broker.ensure(support.OWNER, create=False)


@pytest.mark.parametrize("name", ["a.b", "", "a b", "*", "x" * 65])
async def test_the_name_of_a_publisher_is_one_token(server: servers.NatsServer, name: str) -> None:
    """Any other name would change the subject, or be a wildcard."""
    with pytest.raises(errors.RequestRefused, match="letters"):
        client.EmsClient(server.url, publisher=name)

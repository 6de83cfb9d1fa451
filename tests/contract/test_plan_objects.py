"""Plans over the server's max_payload: how the client sends them, and how the worker's side finds them again."""

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
    """Text that hardly compresses below three quarters."""
    return random.Random(7).randbytes(size // 2).hex().encode()


async def stored(server: servers.NatsServer, plan: bytes) -> tuple[bytes, dict[str, str]]:
    """The message that the client's publish of this plan stores, and its headers."""
    async with client.EmsClient(server.url, publisher="evolution") as ems:
        ack = await ems.publish(plan, content_type="application/json")
    async with support.plain(server) as (_, js):
        message = await js.get_msg("EMS_PLANS", ack.seq)
        assert message.subject == "ems.experiment.submit.evolution"
        return message.data or b"", dict(message.headers or {})


@pytest.mark.usefixtures("broker")
async def test_a_plan_that_fits_goes_as_it_is(server: servers.NatsServer) -> None:
    """Just under the limit too: headers have room beside it, and the connection lives."""
    plan = noise(2**20 - 4096)
    data, headers = await stored(server, plan)
    assert data == plan
    assert "Content-Encoding" not in headers


@pytest.mark.usefixtures("broker")
async def test_a_plan_that_fits_when_compressed_is_one_message(server: servers.NatsServer) -> None:
    """No object, so nothing that could be missing; its headers say so to people who look."""
    plan = b"[" + b"0.5, " * 1_000_000 + b"0]"
    data, headers = await stored(server, plan)
    assert gzip.decompress(data) == plan
    assert (headers["Content-Encoding"], headers["Content-Type"]) == ("gzip", "application/json")
    assert "Ems-Plan-Object" not in headers


async def test_a_larger_plan_goes_by_the_object_store(server: servers.NatsServer, broker: Broker) -> None:
    """The message says where and what it is; the worker's side reads the same bytes."""
    plan = noise(8 * 2**20)
    data, headers = await stored(server, plan)
    assert data == b""
    content = await broker.plan_object(headers["Ems-Plan-Object"], MOST)
    assert plan_codec.unpack(content, MOST) == plan


@pytest.mark.parametrize("most", [4096, 16 * 1024, 128 * 1024])
async def test_an_objects_parts_fit_a_server_that_takes_little(tmp_path: Path, most: int) -> None:
    """Where its max_payload is below the usual size of a part, too."""
    async with servers.NatsServer(tmp_path / "nats", more=f"max_payload: {most}\n") as server:
        async with support.connected(server.url) as broker:
            plan = noise(400_000)
            _, headers = await stored(server, plan)
            content = await broker.plan_object(headers["Ems-Plan-Object"], MOST)
            assert plan_codec.unpack(content, MOST) == plan


async def test_without_the_store_a_large_plan_is_refused_with_the_remedy(server: servers.NatsServer) -> None:
    """An operator may have forbidden the worker to make it."""
    async with support.connected(server.url), support.plain(server) as (_, js):
        await js.delete_object_store(BUCKET)
        async with client.EmsClient(server.url) as ems:
            with pytest.raises(errors.BrokerMisconfigured, match=f"{BUCKET}.*ems-worker run"):
                await ems.publish(noise(4 * 2**20))


async def test_what_another_client_puts_there_is_read(server: servers.NatsServer, broker: Broker) -> None:
    """In chunks of its own size, replaced objects as they are now, any name; an empty one too."""
    async with support.plain(server) as (_, js):
        bucket = await js.object_store(BUCKET)
        for name, content in (("plän/é one", b"first"), ("plän/é one", noise(300_000)), ("empty", b"")):
            await bucket.put(name, content)
            assert await broker.plan_object(name, MOST) == content


async def test_what_is_not_there_or_not_whole_is_told(server: servers.NatsServer, broker: Broker) -> None:
    """Never put, deleted, a chunk gone, too large, or other bytes than its store says."""
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


async def test_a_store_that_cannot_be_read_is_refused_at_the_start(server: servers.NatsServer) -> None:
    """Large plans would wait in it for ever; an existing one that can is used as it is."""
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
async def test_a_publisher_is_one_token(server: servers.NatsServer, name: str) -> None:
    """Anything else would be another subject, or a wildcard."""
    with pytest.raises(errors.RequestRefused, match="letters"):
        client.EmsClient(server.url, publisher=name)

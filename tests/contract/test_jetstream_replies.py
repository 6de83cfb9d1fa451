"""The reply subject of a request can't make the worker publish anywhere but to an inbox."""

import json

import pytest

from ems_worker import errors
from ems_worker.adapters.jetstream import Broker
from ems_worker.service.base.metrics import Metrics
from tests.support import broker as support
from tests.support import servers

STREAMS = ("EMS_PLANS", "SIM_EVENTS", "EMS_STATUS", "EMS_RESULTS", "EMS_DLQ")
REQUESTS = ("ems.api.echo", "ems.api.fail", "$SRV.PING", "$SRV.INFO.ems", "$SRV.STATS.ems")


async def _echo(data: bytes) -> bytes:
    return data


async def _fail(_: bytes) -> bytes:
    raise errors.NotFound("nothing of that name")


async def _serve(broker: Broker) -> Metrics:
    return await support.serve(broker, {"echo": _echo, "fail": _fail})


def _refused(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("ems_replies_refused_total") or 0.0


@pytest.mark.parametrize("request_", REQUESTS)
async def test_no_reply_deletes_or_purges_a_stream(server: servers.NatsServer, request_: str) -> None:
    """The worker has the right to publish to JetStream's API, but doesn't do so because a request names it."""
    async with support.connected(server.url) as broker, support.plain(server) as (client, js):
        metrics = await _serve(broker)
        await js.publish("ems.experiment.result.x", b"{}")
        for stream in STREAMS:
            await client.publish(request_, b"", reply=f"$JS.API.STREAM.DELETE.{stream}")
            await client.publish(request_, b"", reply=f"$JS.API.STREAM.PURGE.{stream}")
        # Requests are handled in order: when this one is answered, the earlier ones have been handled.
        await client.request(request_, b"", timeout=5)
        assert {info.config.name for info in await js.streams_info()} >= set(STREAMS)
        assert (await js.stream_info("EMS_RESULTS")).state.messages == 1
        assert _refused(metrics) == 2 * len(STREAMS)


@pytest.mark.parametrize("subject", ["sim.run_completed", "ems.experiment.submit", "ems.experiment.status.x"])
async def test_no_reply_is_stored_as_an_event_a_plan_or_a_document(server: servers.NatsServer, subject: str) -> None:
    """A requester can't use the worker's rights to store a message in a stream."""
    async with support.connected(server.url) as broker, support.plain(server) as (client, js):
        metrics = await _serve(broker)
        event = json.dumps({"simulation_id": "reef-p000000-r000-a1", "metrics": {}}).encode()
        await client.publish("ems.api.echo", event, reply=subject)
        await client.request("ems.api.echo", b"", timeout=5)
        assert sum([info.state.messages for info in await js.streams_info()]) == 0
        assert _refused(metrics) == 1


async def test_no_reply_goes_to_the_workers_own_inboxes(server: servers.NatsServer) -> None:
    """There it would be taken for a pulled message, an acknowledgement or an answer of JetStream."""
    async with support.connected(server.url) as broker, support.plain(server) as (client, _):
        metrics = await _serve(broker)
        inboxes = await client.subscribe(f"{broker.inbox}.>")
        await client.publish("ems.api.echo", b"forged", reply=f"{broker.inbox}.x.s1")
        await client.publish("$SRV.PING", b"", reply=f"{broker.inbox}.x.s1")
        await client.request("ems.api.echo", b"", timeout=5)
        await client.request("$SRV.PING.ems", b"", timeout=5)
        assert inboxes.pending_msgs == 0
        assert _refused(metrics) == 2


async def test_a_request_without_a_reply_subject_is_not_carried_out(server: servers.NatsServer) -> None:
    """Its sender could not learn the result."""
    callbacks = support.Callbacks()
    async with support.connected(server.url, callbacks) as broker, support.plain(server) as (client, _):
        metrics = await _serve(broker)
        await client.publish("ems.api.fail", b"")
        await client.request("ems.api.fail", b"", timeout=5)
        assert _refused(metrics) == 1
        assert callbacks == support.Callbacks()

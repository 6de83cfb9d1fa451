"""Streams and consumers: created if they are missing, refused if they contradict what the worker relies on."""

from pathlib import Path
from typing import Any

import pytest
from nats.js.api import AckPolicy, ConsumerConfig, DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from ems_worker import errors
from ems_worker.adapters.jetstream import Broker, streams
from ems_worker.local import nats_server, ports
from tests.support import broker as support
from tests.support import servers


async def _refusal(broker: Broker, owner: str = support.OWNER, **options: Any) -> str:
    with pytest.raises(errors.BrokerMisconfigured) as caught:
        await broker.ensure(owner, **options)
    return str(caught.value)


async def test_missing_streams_are_created_as_the_contract_says(server: servers.NatsServer) -> None:
    """The first start creates all five streams and the object store; a second start changes nothing."""
    async with support.connected(server.url, ensure=False) as broker, support.plain(server) as (_, js):
        first = await broker.ensure(support.OWNER)
        assert await broker.ensure(support.OWNER) == first
        assert first == await broker.streams()

        configs = {info.config.name: info.config for info in await js.streams_info()}
        objects = configs.pop("OBJ_EMS_PLAN_OBJECTS")
        assert (objects.discard, objects.max_age, objects.allow_direct) == (DiscardPolicy.NEW, 30 * 24 * 3600, True)
        assert configs.keys() == {"EMS_PLANS", "SIM_EVENTS", "EMS_STATUS", "EMS_RESULTS", "EMS_DLQ"}
        assert {config.storage for config in configs.values()} == {StorageType.FILE}
        assert {config.retention for config in configs.values()} == {RetentionPolicy.LIMITS}
        plans, status = configs["EMS_PLANS"], configs["EMS_STATUS"]
        assert set(plans.subjects or []) == {"ems.experiment.submit", "ems.experiment.submit.*"}
        assert (plans.discard, plans.max_age) == (DiscardPolicy.NEW, 30 * 24 * 3600)
        assert (status.max_msgs_per_subject, status.allow_direct) == (1, True)
        assert configs["EMS_RESULTS"].max_age == 30 * 24 * 3600
        assert set(configs["SIM_EVENTS"].subjects or []) == set(streams.EVENT_SUBJECTS)


async def test_the_identity_of_a_recreated_stream_differs(server: servers.NatsServer) -> None:
    """A recreated stream has another creation time, and an identity has the stream's first and last sequence."""
    async with support.connected(server.url) as broker, support.plain(server) as (_, js):
        await broker.publish([("sim.run_started", b"{}", "1"), ("sim.run_started", b"{}", "2")])
        before = (await broker.streams())["SIM_EVENTS"]
        assert (before.first_seq, before.last_seq) == (1, 2)

        await js.delete_stream("SIM_EVENTS")
        assert "SIM_EVENTS" not in await broker.streams()
        await broker.ensure(support.OWNER)

        after = (await broker.streams())["SIM_EVENTS"]
        assert after.created_ns > before.created_ns
        assert after.last_seq == 0


async def test_an_existing_stream_with_the_run_events_is_used(server: servers.NatsServer) -> None:
    """Its name and its other subjects don't matter; the worker gets only run events from it."""
    async with support.plain(server) as (_, js):
        await js.add_stream(name="PLATFORM", subjects=["sim.>"], storage=StorageType.MEMORY)
        async with support.connected(server.url) as broker:
            await js.publish("sim.weather", b"other")
            await js.publish("sim.run_started.reef", b"ours")

            assert [message.data for message in await broker.events()] == [b"ours"]
            identities = await broker.streams()
            assert identities["SIM_EVENTS"].name == "PLATFORM"
            assert "SIM_EVENTS" not in {info.config.name for info in await js.streams_info()}


async def test_creation_can_be_forbidden(server: servers.NatsServer) -> None:
    """The error then names all missing streams at once, and no stream is created."""
    async with support.connected(server.url, ensure=False) as broker, support.plain(server) as (_, js):
        refusal = await _refusal(broker, create=False)
        for spec in streams.SPECS:
            assert f"stream {spec.name} is missing" in refusal
        assert not await js.streams_info()


async def test_a_contradicting_stream_is_refused_with_every_difference(server: servers.NatsServer) -> None:
    """The error names each difference in subjects, storage, retention and discard policy, and the remedy."""
    async with support.plain(server) as (_, js):
        await js.add_stream(
            StreamConfig(
                name="EMS_PLANS",
                subjects=["ems.experiment.submit", "ems.elsewhere"],
                storage=StorageType.MEMORY,
                retention=RetentionPolicy.WORK_QUEUE,
                discard=DiscardPolicy.OLD,
            )
        )
        async with support.connected(server.url, ensure=False) as broker:
            refusal = await _refusal(broker)
    assert "subjects lack ems.experiment.submit.*" in refusal
    assert "subjects have ems.elsewhere" in refusal
    assert "storage is memory, must be file" in refusal
    assert "retention is workqueue, must be limits" in refusal
    assert "discard is old, must be new" in refusal
    assert "nats stream edit EMS_PLANS" in refusal


async def test_the_operator_sets_the_limits_of_a_stream(server: servers.NatsServer) -> None:
    """Age, size and duplicate window of an existing stream may differ from what a new one gets."""
    async with support.connected(server.url) as broker, support.plain(server) as (_, js):
        config = (await js.stream_info("EMS_PLANS")).config
        await js.update_stream(config, max_age=3600, max_bytes=1 << 30, duplicate_window=60)
        await broker.ensure(support.OWNER)


async def test_subjects_in_another_stream_are_refused_with_its_name(server: servers.NatsServer) -> None:
    """A stream can't be created while another one has its subjects; the error names that one."""
    async with support.plain(server) as (_, js):
        await js.add_stream(name="EVERYTHING", subjects=["ems.>"])
        async with support.connected(server.url, ensure=False) as broker:
            assert "stream EMS_PLANS can't be created: EVERYTHING already has" in await _refusal(broker)


@pytest.mark.parametrize(
    ("existing", "message"),
    [
        ({"A": ["sim.run_started", "sim.run_started.>"], "B": ["sim.run_failed"]}, "spread over several streams"),
        ({"A": ["sim.run_started", "sim.run_completed"]}, "not sim.run_started.>"),
    ],
)
async def test_a_stream_with_only_some_run_events_is_refused(
    server: servers.NatsServer, existing: dict[str, list[str]], message: str
) -> None:
    """The worker reads run events from a single stream, and would never get the missing kinds."""
    async with support.plain(server) as (_, js):
        for name, subjects in existing.items():
            await js.add_stream(name=name, subjects=subjects)
        async with support.connected(server.url, ensure=False) as broker:
            assert message in await _refusal(broker)


@pytest.mark.parametrize(
    ("drift", "message"),
    [
        ({"ack_policy": AckPolicy.ALL}, "ack_policy is all"),
        ({"max_deliver": 5}, "max_deliver is 5, must be -1"),
        ({"ack_wait": 5.0}, "ack_wait is under 30 s"),
        ({"max_ack_pending": 10}, "max_ack_pending is 10"),
        ({"filter_subject": "ems.experiment.submit"}, "its filter is ems.experiment.submit, must be empty"),
        ({"headers_only": True}, "headers_only is set"),
        ({"deliver_subject": "elsewhere"}, "it is a push consumer"),
        ({"backoff": [1.0, 2.0], "max_deliver": 5}, "backoff is set"),
    ],
)
async def test_a_drifted_consumer_is_refused(server: servers.NatsServer, drift: dict[str, Any], message: str) -> None:
    """The error names the durable consumer, how its configuration differs, and the remedy."""
    async with support.plain(server) as (_, js), support.connected(server.url) as broker:
        await js.delete_consumer("EMS_PLANS", "ems-worker-plans")
        config = ConsumerConfig(durable_name="ems-worker-plans", max_ack_pending=1000)
        await js.add_consumer("EMS_PLANS", config, **drift)

        refusal = await _refusal(broker)

        assert message in refusal
        assert "nats consumer rm EMS_PLANS ems-worker-plans" in refusal


async def test_consumers_of_another_manifest_are_refused(server: servers.NatsServer) -> None:
    """A second worker, started by mistake, would take plans and events from the first."""
    async with support.connected(server.url) as first, support.connected(server.url, ensure=False) as second:
        refusal = await _refusal(second, "another")
        assert "belongs to another manifest" in refusal
        assert "nats consumer rm EMS_PLANS ems-worker-plans" in refusal
        await first.rewind(0, 0)
        assert "belongs to another manifest" in await _refusal(second, "another")
        await first.ensure(support.OWNER)


async def test_a_consumer_that_the_operator_created_becomes_ours(server: servers.NatsServer) -> None:
    """It keeps its configuration and its metadata, and gets our manifest as its owner."""
    async with support.plain(server) as (_, js), support.connected(server.url) as broker:
        await js.delete_consumer("EMS_PLANS", "ems-worker-plans")
        config = ConsumerConfig(
            durable_name="ems-worker-plans",
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=90,
            max_ack_pending=1000,
            metadata={"team": "reef"},
        )
        await js.add_consumer("EMS_PLANS", config)

        await broker.ensure(support.OWNER)

        adopted = (await js.consumer_info("EMS_PLANS", "ems-worker-plans")).config
        assert (adopted.ack_wait, adopted.max_ack_pending) == (90, 1000)
        assert {"team": "reef"}.items() <= (adopted.metadata or {}).items()
        assert "belongs to another manifest" in await _refusal(broker, "another")


async def test_a_server_without_jetstream_is_named_as_such(tmp_path: Path) -> None:
    """The error says that JetStream is missing, instead of reporting a timeout."""
    port = ports.free_port()
    command = [str(nats_server.find_executable()), "--addr", "127.0.0.1", "--port", str(port)]
    async with servers.Program("bare nats-server", command, log=tmp_path / "log"):
        async with Broker.connect([f"nats://127.0.0.1:{port}"], name="test") as broker:
            with pytest.raises(errors.BrokerUnavailable, match="has no JetStream"):
                await broker.ensure(support.OWNER)

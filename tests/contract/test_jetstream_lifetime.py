"""How long decisions stay in the stream that they share with statuses."""

import pytest
from nats.js.api import StreamConfig
from nats.js.errors import NotFoundError

from ems_worker.adapters.jetstream import broker as adapter
from tests.support import broker as support
from tests.support import servers, wait

DECISION, STATUS = "ems.experiment.decision.7", "ems.experiment.status.reef"


async def test_a_decision_expires_and_a_status_stays(
    server: servers.NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server removes a decision after its lifetime, and keeps the statuses of the same stream."""
    assert adapter.DECISION_TTL == "720h"
    monkeypatch.setattr(adapter, "DECISION_TTL", "1s")
    async with support.connected(server.url) as broker, support.plain(server) as (_, js):
        await broker.publish([(DECISION, b'{"submission": {"seq": 7}}', "decision-7")])
        assert await broker.publish_latest(STATUS, b'{"revision": 1}', 1)
        assert await broker.has_decision(7)

        async def gone() -> bool:
            return not await broker.has_decision(7)

        await wait.until(gone, what="the decision to expire")
        assert (await js.get_last_msg("EMS_STATUS", STATUS)).data == b'{"revision": 1}'


async def test_a_stream_that_does_not_allow_a_lifetime_gets_decisions_without_one(server: servers.NatsServer) -> None:
    """An older stream, or one that the operator created, is used with the settings that it has."""
    async with support.plain(server) as (_, js):
        subjects = ["ems.experiment.status.*", "ems.experiment.decision.*"]
        await js.add_stream(StreamConfig(name="EMS_STATUS", subjects=subjects, max_msgs_per_subject=1))
        async with support.connected(server.url) as broker:
            for seq in (7, 8):
                await broker.publish([(f"ems.experiment.decision.{seq}", b"{}", f"decision-{seq}")])
                stored = await js.get_last_msg("EMS_STATUS", f"ems.experiment.decision.{seq}")
                assert (stored.headers or {}).keys() == {"Nats-Msg-Id"}
            with pytest.raises(NotFoundError):
                await js.get_last_msg("EMS_STATUS", "ems.experiment.decision.9")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"stream": "SIM_EVENTS", "seq": 7}', b'{"submission": {"seq": 8}}']
)
async def test_a_forged_decision_is_not_taken_for_ours(server: servers.NatsServer, data: bytes) -> None:
    """A worker that took it for its own would conclude that its manifest was restored, and decide all plans again."""
    async with support.connected(server.url) as broker, support.plain(server) as (_, js):
        await js.publish(DECISION, data)
        assert not await broker.has_decision(7)

"""The checks of an orchestrator, in their order, and running them."""

import contextlib
import secrets
from collections.abc import AsyncIterator

from ems_worker.conformance import bus, calls, check, kit, options, pausing, starting, telling, writing

# The checks of events come last, because they inspect the events of all other checks.
CHECKS = (
    check.of("start-accepted", starting.start_accepted, vital=True),
    check.of("run-ends", starting.run_ends, vital=True),
    check.of("known-while-running", starting.known_while_running),
    check.of("known-when-ended", starting.known_when_ended),
    check.of("ten-connections", starting.ten_connections),
    check.of("other-config-sha", starting.other_config_sha),
    check.of("large-configuration", starting.large_configuration),
    check.of("partial-batch", options.partial_batch),
    check.of("stop-unknown", options.stop_unknown),
    check.of("stop-running", options.stop_running),
    check.of("pause-resume", pausing.pause_resume),
    check.of("stop-paused", pausing.stop_paused),
    check.of("status", options.status),
    check.of("capacity", options.capacity),
    check.of("output", writing.output),
    check.of("broker-outage", telling.broker_outage),
    check.of("known-after-restart", starting.known_after_restart),
    check.of("orderly-restart", pausing.orderly_restart),
    check.of("nothing-left-running", options.nothing_left),
    check.of("event-subjects", telling.subjects),
    check.of("event-envelopes", telling.envelopes),
    check.of("event-payloads", telling.payloads),
    check.of("message-ids", telling.message_ids),
    check.of("started-once", telling.started_once),
)
"""In the order in which they run."""


@contextlib.asynccontextmanager
async def connect(chosen: kit.Options) -> AsyncIterator[kit.Session]:
    """A connected session. Raises OrchestratorUnavailable or BrokerUnavailable."""
    experiment_id = f"conformance-{secrets.token_hex(5)}"
    async with calls.connect(chosen.orchestrator, kit.CONNECT_SECONDS) as rpc:
        async with bus.connect(chosen.server, experiment_id, kit.CONNECT_SECONDS) as events:
            session = kit.Session(chosen, rpc, events, experiment_id)
            async with rpc.capacity() as watch:
                first, _, _ = await watch.next(kit.CONNECT_SECONDS)
            if first is not None:
                session.busy_before = first.in_use + first.queued
            yield session


async def run(chosen: kit.Options) -> AsyncIterator[check.FinishedCheck]:
    """Checks an orchestrator, and yields each check as it ends.

    Raises OrchestratorUnavailable or BrokerUnavailable.
    """
    async with connect(chosen) as session:
        async for finished in check.run(check.selected(CHECKS, chosen.only), session):
            yield finished

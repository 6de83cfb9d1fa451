"""Checks the orchestrator over gRPC."""

import contextlib

from ems_worker import errors
from ems_worker.adapters.orchestrator import Orchestrator
from ems_worker.cli import numbers
from ems_worker.cli.checks import findings
from ems_worker.cli.checks.findings import Finding
from ems_worker.settings import Channel

_SECONDS = 3.0


async def check(channel: Channel | None) -> Finding:
    """Whether it can be reached, and what it says it can run."""
    part = "orchestrator"
    if channel is None:
        return findings.unknown(part, "its address isn't known here; EMS_ORCHESTRATOR names it")
    try:
        async with Orchestrator.connect(channel, deadline_seconds=_SECONDS) as client:
            async with contextlib.aclosing(client.capacity()) as reported:
                capacity = await anext(reported)
            if capacity is None and (why := client.away) is not None:
                remedy = "start it, or name another: EMS_ORCHESTRATOR"
                return findings.failure(part, f"it can't be reached: {why}", remedy)
    except errors.SettingsError as error:
        return findings.failure(part, f"{channel.target} can't be used", str(error))
    if capacity is None:
        return findings.ok(part, f"{channel.target}, which doesn't report its slots")
    seen = f"{channel.target}, {numbers.counted(capacity.slots, 'slot')}"
    if capacity.model_version:
        seen += f", model {capacity.model_version}"
    if not capacity.slots:
        return findings.warning(part, seen, "nothing runs without a slot: look at the orchestrator")
    return findings.ok(part, seen)

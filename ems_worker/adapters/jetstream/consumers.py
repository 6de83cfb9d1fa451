"""The durable pull consumers: what each has to be, and what is wrong with one that is there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ems_worker import errors
from ems_worker.adapters.jetstream import api, connection, streams

PLANS = "ems-worker-plans"
EVENTS = "ems-worker-events"

ACK_WAIT_SECONDS = 30
_ACK_WAIT_NS = ACK_WAIT_SECONDS * 1_000_000_000
# Whose consumer it is, in its metadata.
_OWNER = "ems_manifest"


@dataclass(frozen=True, slots=True)
class Spec:
    """A consumer. `max_ack_pending` bounds what is fetched and not yet acknowledged; no filters: the whole stream."""

    name: str
    max_ack_pending: int
    filters: tuple[str, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """Unlimited deliveries: a consumer with a limit strands a message silently; dead letters are ours to write."""
        return {
            "durable_name": self.name,
            "name": self.name,
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_wait": _ACK_WAIT_NS,
            "max_deliver": -1,
            "max_ack_pending": self.max_ack_pending,
            **({"filter_subjects": list(self.filters)} if self.filters else {}),
        }


PLANS_SPEC = Spec(PLANS, max_ack_pending=256)
EVENTS_SPEC = Spec(EVENTS, max_ack_pending=10_000, filters=streams.EVENT_SUBJECTS)


def differences(spec: Spec, config: Mapping[str, Any]) -> list[str]:
    """How an existing consumer contradicts what the worker relies on, a line each; empty: it doesn't."""
    lines = [
        f"{key} is {config.get(key)}, has to be {spec.config[key]}"
        for key in ("ack_policy", "replay_policy", "max_deliver")
        if config.get(key) != spec.config[key]
    ]
    # By a sequence: as a restore leaves it.
    if config.get("deliver_policy") not in ("all", "by_start_sequence"):
        lines.append(f"deliver_policy is {config.get('deliver_policy')}, has to be all")
    if config.get("deliver_subject"):
        lines.append("it is a push consumer, has to be a pull consumer")
    if config.get("headers_only"):
        lines.append("headers_only is set: the messages would have no content")
    if config.get("backoff"):
        lines.append("backoff is set, which takes the place of ack_wait")
    found = set(config.get("filter_subjects") or ([config["filter_subject"]] if config.get("filter_subject") else []))
    if found != set(spec.filters):
        lines.append(
            f"its filter is {', '.join(sorted(found)) or 'empty'}, has to be {', '.join(spec.filters) or 'empty'}"
        )
    if config.get("ack_wait", 0) < _ACK_WAIT_NS:
        lines.append(f"ack_wait is under {ACK_WAIT_SECONDS} s")
    # 0 and -1 stand for no limit of its own.
    if 0 < config.get("max_ack_pending", 0) < spec.max_ack_pending:
        lines.append(f"max_ack_pending is {config['max_ack_pending']}, has to be {spec.max_ack_pending} or more")
    return lines


async def ensure(link: connection.Connection, stream: str, spec: Spec, owner: str) -> None:
    """Makes the consumer where it is missing, and its owner's where it has none.

    Raises BrokerMisconfigured where the one that is there differs, or has another owner.
    """
    info = await api.find(link, f"CONSUMER.INFO.{stream}.{spec.name}")
    if info is None:
        # Where another worker was quicker this is refused, and found when it is tried again.
        info = await _put(link, stream, spec, {**spec.config, "metadata": {_OWNER: owner}}, "create")
    if lines := differences(spec, info["config"]):
        raise errors.BrokerMisconfigured(
            f"consumer {spec.name} of stream {stream}: {'; '.join(lines)}. Remedy: delete it "
            f"(nats consumer rm {stream} {spec.name}) and start the worker, "
            "which creates it and reads the stream from its start again; what was decided before stays so"
        )

    metadata = info["config"].get("metadata") or {}
    if _OWNER not in metadata:
        await _put(link, stream, spec, {**info["config"], "metadata": {**metadata, _OWNER: owner}}, "update")
    elif metadata[_OWNER] != owner:
        raise errors.BrokerMisconfigured(
            f"consumer {spec.name} of stream {stream} belongs to another manifest than the one in this data directory: "
            "two workers would each get a part of the messages. Remedy: start the worker on the data directory that it "
            "had, or on a restored backup of it; a second worker needs a NATS account of its own. If that manifest is "
            f"lost, delete its two consumers (nats consumer rm {stream} {spec.name}, then the other): the worker then "
            "reads the streams from their start, and comes to the same experiments and runs"
        )


async def rewind(link: connection.Connection, stream: str, spec: Spec, owner: str, after_seq: int) -> None:
    """Makes the consumer anew, so that it delivers what comes after a sequence once more."""
    if await exists(link, stream, spec.name):
        await api.call(link, f"CONSUMER.DELETE.{stream}.{spec.name}")
    start = {"deliver_policy": "by_start_sequence", "opt_start_seq": after_seq + 1}
    await _put(link, stream, spec, {**spec.config, **start, "metadata": {_OWNER: owner}}, "create")


async def _put(
    link: connection.Connection, stream: str, spec: Spec, config: Mapping[str, Any], action: str
) -> dict[str, Any]:
    body = {"stream_name": stream, "config": config, "action": action}
    return await api.call(link, f"CONSUMER.CREATE.{stream}.{spec.name}", body)


async def position(link: connection.Connection, stream: str, name: str) -> int:
    """The sequence up to which everything is acknowledged."""
    info = await api.find(link, f"CONSUMER.INFO.{stream}.{name}")
    return 0 if info is None else int(info["ack_floor"]["stream_seq"])


async def pending(link: connection.Connection, stream: str, name: str) -> int:
    """How many messages were not delivered yet."""
    info = await api.find(link, f"CONSUMER.INFO.{stream}.{name}")
    return 0 if info is None else int(info["num_pending"])


async def exists(link: connection.Connection, stream: str, name: str) -> bool:
    """Whether the consumer is there."""
    return await api.find(link, f"CONSUMER.INFO.{stream}.{name}") is not None

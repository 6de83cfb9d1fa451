"""The durable pull consumers: how each must be configured, and how an existing one differs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ems_worker import errors
from ems_worker.adapters.jetstream import api, connection, streams

PLANS = "ems-worker-plans"
EVENTS = "ems-worker-events"

ACK_WAIT_SECONDS = 30
_ACK_WAIT_NS = ACK_WAIT_SECONDS * 1_000_000_000
# The metadata key for the manifest that the consumer feeds.
_OWNER_KEY = "ems_manifest"


@dataclass(frozen=True, slots=True)
class Spec:
    """A consumer. `max_ack_pending` bounds the unacknowledged messages; without `filters` it reads the whole stream."""

    name: str
    max_ack_pending: int
    filters: tuple[str, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """Deliveries are unlimited: at a limit, JetStream drops a message silently, while we write a dead letter."""
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
    """How an existing consumer contradicts what the worker relies on, one line for each difference."""
    lines = [
        f"{key} is {config.get(key)}, must be {spec.config[key]}"
        for key in ("ack_policy", "replay_policy", "max_deliver")
        if config.get(key) != spec.config[key]
    ]
    # A restore leaves the consumer with by_start_sequence.
    if config.get("deliver_policy") not in ("all", "by_start_sequence"):
        lines.append(f"deliver_policy is {config.get('deliver_policy')}, must be all")
    if config.get("deliver_subject"):
        lines.append("it is a push consumer, must be a pull consumer")
    if config.get("headers_only"):
        lines.append("headers_only is set: the messages would have no content")
    if config.get("backoff"):
        lines.append("backoff is set, which overrides ack_wait")
    filters = set(config.get("filter_subjects") or ([config["filter_subject"]] if config.get("filter_subject") else []))
    if filters != set(spec.filters):
        lines.append(
            f"its filter is {', '.join(sorted(filters)) or 'empty'}, must be {', '.join(spec.filters) or 'empty'}"
        )
    if config.get("ack_wait", 0) < _ACK_WAIT_NS:
        lines.append(f"ack_wait is under {ACK_WAIT_SECONDS} s")
    # 0 and -1 mean that the consumer sets no limit.
    if 0 < config.get("max_ack_pending", 0) < spec.max_ack_pending:
        lines.append(f"max_ack_pending is {config['max_ack_pending']}, must be {spec.max_ack_pending} or more")
    return lines


async def ensure(link: connection.Connection, stream: str, spec: Spec, owner: str) -> None:
    """Creates the consumer if it is missing, and sets its owner if it has none.

    Raises BrokerMisconfigured if the existing consumer differs, or has another owner.
    """
    info = await api.find(link, f"CONSUMER.INFO.{stream}.{spec.name}")
    if info is None:
        # If another worker was quicker, JetStream refuses this, and the retry sees that worker's consumer.
        info = await _put(link, stream, spec, {**spec.config, "metadata": {_OWNER_KEY: owner}}, action="create")
    if lines := differences(spec, info["config"]):
        raise errors.BrokerMisconfigured(
            f"consumer {spec.name} of stream {stream}: {'; '.join(lines)}. Remedy: delete it "
            f"(nats consumer rm {stream} {spec.name}) and start the worker, "
            "which creates it and reads the stream from its start; earlier decisions stand"
        )

    metadata = info["config"].get("metadata") or {}
    if _OWNER_KEY not in metadata:
        config = {**info["config"], "metadata": {**metadata, _OWNER_KEY: owner}}
        await _put(link, stream, spec, config, action="update")
    elif metadata[_OWNER_KEY] != owner:
        raise errors.BrokerMisconfigured(
            f"consumer {spec.name} of stream {stream} belongs to another manifest than the one in this data directory: "
            "two workers would each get a part of the messages. Remedy: start the worker on its previous data "
            "directory, or on a restored backup of it; a second worker needs a NATS account of its own. If that "
            f"manifest is lost, delete its two consumers (nats consumer rm {stream} {spec.name}, then the other): the "
            "worker then reads the streams from their start, and arrives at the same experiments and runs"
        )


async def rewind(link: connection.Connection, stream: str, spec: Spec, owner: str, *, after_seq: int) -> None:
    """Recreates the consumer, so that it delivers all messages after a sequence again."""
    if await exists(link, stream, spec.name):
        await api.call(link, f"CONSUMER.DELETE.{stream}.{spec.name}")
    start = {"deliver_policy": "by_start_sequence", "opt_start_seq": after_seq + 1}
    await _put(link, stream, spec, {**spec.config, **start, "metadata": {_OWNER_KEY: owner}}, action="create")


async def _put(
    link: connection.Connection, stream: str, spec: Spec, config: Mapping[str, Any], *, action: str
) -> dict[str, Any]:
    body = {"stream_name": stream, "config": config, "action": action}
    return await api.call(link, f"CONSUMER.CREATE.{stream}.{spec.name}", body)


async def position(link: connection.Connection, stream: str, name: str) -> int:
    """The sequence up to which all messages are acknowledged."""
    info = await api.find(link, f"CONSUMER.INFO.{stream}.{name}")
    return 0 if info is None else int(info["ack_floor"]["stream_seq"])


async def pending(link: connection.Connection, stream: str, name: str) -> int:
    """How many messages are not delivered yet."""
    info = await api.find(link, f"CONSUMER.INFO.{stream}.{name}")
    return 0 if info is None else int(info["num_pending"])


async def exists(link: connection.Connection, stream: str, name: str) -> bool:
    """Whether the consumer exists."""
    return await api.find(link, f"CONSUMER.INFO.{stream}.{name}") is not None
